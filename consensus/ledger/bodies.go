package ledger

import (
	"reflect"

	"github.com/dcnode/dcnode/consensus/ledger/merkle"
)

// Kind names a transaction, or what fell due.
type Kind string

// The kinds of transactions.
const (
	KindPropose  Kind = "member.propose"
	KindVote     Kind = "member.vote"
	KindRotate   Kind = "member.rotate"
	KindAccount  Kind = "account.set"
	KindQuota    Kind = "account.quota"
	KindPublish  Kind = "image.publish"
	KindWithdraw Kind = "image.withdraw"
	KindHold     Kind = "image.hold"
	KindDefine   Kind = "machine.define"
	KindSet      Kind = "machine.set"
	KindDelete   Kind = "machine.delete"
	KindPolicy   Kind = "policy.set"
	KindApprove  Kind = "move.approve"
	KindIntent   Kind = "move.intent"
	KindBid      Kind = "move.bid"
	KindAccept   Kind = "move.accept"
	KindBeat     Kind = "move.beat"
	KindRelease  Kind = "move.release"
	KindConfirm  Kind = "move.confirm"
	KindDecline  Kind = "move.decline"
	KindAbort    Kind = "move.abort"
	KindReclaim  Kind = "move.reclaim"
	KindReport   Kind = "move.report"
	KindRoot     Kind = "root"
	KindTick     Kind = "tick"
)

// What follows from transactions and is none itself.
const (
	KindSelected Kind = "move.selected"
	KindNowhere  Kind = "move.nowhere"
	KindLeaseEnd Kind = "move.lease_end"  // the lease is over: Reclaim holds from now on
	KindRoster   Kind = "member.roster"   // the roster has changed
	KindLapsed   Kind = "member.lapsed"   // a proposal has not found its votes in time, or whom it is about has left
	KindRejected Kind = "member.rejected" // so many refuse a proposal that it cannot pass any more
)

// Propose asks the members to change the roster. Its author votes for it by it.
type Propose struct {
	Change Change   `json:"change"`
	Member MemberID `json:"member,omitempty"` // of a Leave or Update
	Site   string   `json:"site,omitempty"`   // of a Join: a site keeps its name
	Region string   `json:"region,omitempty"` // of a Join or Update; empty in an Update: as it is
	Weight uint64   `json:"weight,omitempty"` // likewise; 0 in an Update: as it is
	Key    []byte   `json:"key,omitempty"`    // of a Join: Ed25519
	Proof  []byte   `json:"proof,omitempty"`  // of a Join: the key's signature of CardBytes
	Force  bool     `json:"force,omitempty"`  // of a Leave: although it owns machines
	Reason string   `json:"reason,omitempty"`
}

// CastVote is a member's vote on a proposal. The last word of a member counts. It is
// refused if Digest is another than the proposal's Content: see Proposal.Vote.
type CastVote struct {
	Proposal uint64 `json:"proposal"`
	Yes      bool   `json:"yes"`
	Digest   []byte `json:"digest"`
}

// Rotate gives its author another key, from the next roster on. The one before is kept
// as Member.Old until a Rotate without a key, said when the new one is in use, makes
// the ledger forget it; so long there is no other rotation.
type Rotate struct {
	Key   []byte `json:"key,omitempty"`   // Ed25519
	Proof []byte `json:"proof,omitempty"` // the new key's signature of RotateBytes
}

// SetAccount makes an account, or changes its keys. It is signed by the account: by
// all keys when it is made, and by the threshold of its keys as they were and one of
// the new ones later.
type SetAccount struct {
	Name      string   `json:"name"`
	Keys      [][]byte `json:"keys"` // ascending, 1 to MaxKeys
	Threshold int      `json:"threshold"`
	Site      string   `json:"site,omitempty"` // of the member that carries it; needed when the account is made: its sponsor
}

// SetQuota bounds what an account may have. Its sponsor says it; if that has left the
// overlay, any member may, and becomes the sponsor by it. A quota below what the
// account has takes nothing away.
type SetQuota struct {
	Account string `json:"account"`
	Quota   Quota  `json:"quota"`
}

// Publish gives an image a name and tag. A name belongs to the account that took it
// first; the same account may put another commit under a tag.
type Publish struct {
	Name    string `json:"name"`
	Tag     string `json:"tag,omitempty"` // empty: DefaultTag
	Commit  string `json:"commit"`
	Size    int64  `json:"size"`
	Stored  int64  `json:"stored"`
	Account string `json:"account,omitempty"` // empty: that of who says it
	Site    string `json:"site,omitempty"`    // of the member that carries it and holds it; needed if an account signs
}

// DefaultTag is the tag of an image that was given none.
const DefaultTag = "latest"

// Withdraw takes a tag back, and the name with the last of them. Its account may do
// so unless machines are made from it.
type Withdraw struct {
	Name string `json:"name"`
	Tag  string `json:"tag,omitempty"`
}

// Hold says that its author holds, or no longer holds, all blocks of an image: of the
// version with that commit or, if none is given, of what the tag is of when this is
// ordered.
type Hold struct {
	Name   string `json:"name"`
	Tag    string `json:"tag,omitempty"`
	Commit string `json:"commit,omitempty"`
	Held   bool   `json:"held"`
}

// Define makes a machine, owned by the author. If it is to belong to an account with
// keys, that account signs.
type Define struct {
	Name    string `json:"name"`
	Image   string `json:"image"` // name or name:tag
	Spec    []byte `json:"spec"`
	Memory  int64  `json:"memory"`
	Account string `json:"account,omitempty"` // empty: that of who says it
	// Site is that of the member that carries it and will run the machine. An account
	// that signs has to name it: no other member can take the signature elsewhere.
	Site   string `json:"site,omitempty"`
	Policy Policy `json:"policy"`
}

// Set says whether a machine is stopped.
type Set struct {
	Name    string `json:"name"`
	Stopped bool   `json:"stopped"`
}

// Delete removes a machine. Its owner says it; if that has left the overlay, its
// account does.
type Delete struct {
	Name string `json:"name"`
}

// SetPolicy replaces the policy of a machine, or of all machines of an account. The
// account that it belongs to says it.
type SetPolicy struct {
	Machine string `json:"machine,omitempty"`
	Account string `json:"account,omitempty"` // either this or Machine
	Policy  Policy `json:"policy"`
}

// Approve allows the next move of a machine, for an account that its policy names.
type Approve struct {
	Machine string   `json:"machine"`
	Epoch   uint64   `json:"epoch"`
	To      MemberID `json:"to,omitempty"`      // 0: anywhere
	Until   Time     `json:"until"`             // at most maxApproval ahead
	Account string   `json:"account,omitempty"` // empty: that of the author's site
}

// Intent asks for a move.
type Intent struct {
	Machine string   `json:"machine"`
	Epoch   uint64   `json:"epoch"`          // of the machine now
	Only    MemberID `json:"only,omitempty"` // restricts the candidates to one
	Limits  Limits   `json:"limits"`         // zero fields: what the policy says, or the defaults
	Needs   Needs    `json:"needs"`
}

// Bid is what a member offers, or why it cannot. Region, weight and whether it holds
// the image are not its to say: the ledger knows.
type Bid struct {
	Member      MemberID `json:"member,omitempty"` // set by the ledger: the author
	Machine     string   `json:"machine"`
	Move        uint64   `json:"move"`
	Able        bool     `json:"able"`
	Reason      string   `json:"reason,omitempty"` // why not
	Expires     Time     `json:"expires"`          // consensus time
	FreeMemory  int64    `json:"free_memory"`      // bytes that would be free if nothing were on its way here
	FreeDisk    int64    `json:"free_disk"`        // bytes, likewise
	FreeVCPUs   int64    `json:"free_vcpus"`
	Driver      string   `json:"driver,omitempty"`
	Version     string   `json:"version,omitempty"`
	Accelerator string   `json:"accelerator,omitempty"`
	Machines    []string `json:"machine_types,omitempty"`
	CPUModel    string   `json:"cpu_model,omitempty"`
	CPUFeatures []string `json:"cpu_features,omitempty"` // sorted
	Lacks       string   `json:"lacks,omitempty"`        // set by the ledger, which does not keep the lists: needed features that are not among them
	RTT         int64    `json:"rtt_us"`                 // to the owner, microseconds, measured
	Bandwidth   int64    `json:"bandwidth"`              // from the owner, bytes per second, measured
	Unsure      bool     `json:"unsure,omitempty"`       // of the bandwidth: no two measurements agree
	MissingData int64    `json:"missing_bytes"`          // of the image, bytes this member lacks
	Moves       int64    `json:"moves"`                  // that it takes part in now
	Index       uint64   `json:"index,omitempty"`        // set by the ledger: place in the order
}

// Accept is the selected member's word that it gets ready.
type Accept struct {
	Machine string `json:"machine"`
	Move    uint64 `json:"move"`
}

// Beat is the source's word that it is still copying: the deadline begins anew. Only
// one that tells of more bytes than the one before is such a word; see State.whole for
// how long copying may last whatever it says.
type Beat struct {
	Machine string `json:"machine"`
	Move    uint64 `json:"move"`
	Bytes   int64  `json:"bytes"` // of the image, disks and memory that have arrived or were sent so far
}

// Release says that the owner has paused the machine for good in favour of To,
// which owns it from this place in the order on.
type Release struct {
	Machine string   `json:"machine"`
	Move    uint64   `json:"move"`
	Epoch   uint64   `json:"epoch"` // the new one
	To      MemberID `json:"to"`
	After   Time     `json:"after,omitempty"` // see Move.After
}

// Confirm says that the new owner runs the machine.
type Confirm struct {
	Machine string `json:"machine"`
	Epoch   uint64 `json:"epoch"`
}

// Decline gives the machine back: the new owner could not load it and has never run it.
type Decline struct {
	Machine string `json:"machine"`
	Epoch   uint64 `json:"epoch"`
	Reason  string `json:"reason"`
}

// Reclaim takes the machine back after the lease: the new owner has not confirmed
// and has paused the machine by itself.
type Reclaim struct {
	Machine string `json:"machine"`
	Epoch   uint64 `json:"epoch"`
}

// Abort ends a move before Release; source and destination may say it.
type Abort struct {
	Machine string `json:"machine"`
	Move    uint64 `json:"move"`
	Reason  string `json:"reason"`
}

// Report says, by the source of a move that is done, what it was. Its Millis counts
// within what consensus time leaves open: an overlay that is idle while a machine is
// copied gives the release a time from before it fell asleep, see Advance, and knows
// only with the Confirm how late it was at most.
type Report struct {
	Machine string `json:"machine"`
	Move    uint64 `json:"move"`
	Truth   Truth  `json:"truth"`
}

// Root is what its author's state was after the event at Index: whoever has
// another there has computed something else from the same order.
type Root struct {
	Index   uint64 `json:"index"`
	Outcome []byte `json:"outcome"` // State.Outcome
}

// Tick carries nothing: it lets an idle overlay's time pass a deadline.
type Tick struct{}

// Body is the content of a transaction: one of the types of this file.
type Body interface {
	Kind() Kind
	apply(s *State, a *act) ([]Effect, error)
}

// Kind implements Body.
func (*Propose) Kind() Kind { return KindPropose }

// Kind implements Body.
func (*CastVote) Kind() Kind { return KindVote }

// Kind implements Body.
func (*Rotate) Kind() Kind { return KindRotate }

// Kind implements Body.
func (*SetAccount) Kind() Kind { return KindAccount }

// Kind implements Body.
func (*SetQuota) Kind() Kind { return KindQuota }

// Kind implements Body.
func (*Publish) Kind() Kind { return KindPublish }

// Kind implements Body.
func (*Withdraw) Kind() Kind { return KindWithdraw }

// Kind implements Body.
func (*Hold) Kind() Kind { return KindHold }

// Kind implements Body.
func (*Define) Kind() Kind { return KindDefine }

// Kind implements Body.
func (*Set) Kind() Kind { return KindSet }

// Kind implements Body.
func (*Delete) Kind() Kind { return KindDelete }

// Kind implements Body.
func (*SetPolicy) Kind() Kind { return KindPolicy }

// Kind implements Body.
func (*Approve) Kind() Kind { return KindApprove }

// Kind implements Body.
func (*Intent) Kind() Kind { return KindIntent }

// Kind implements Body.
func (*Bid) Kind() Kind { return KindBid }

// Kind implements Body.
func (*Accept) Kind() Kind { return KindAccept }

// Kind implements Body.
func (*Beat) Kind() Kind { return KindBeat }

// Kind implements Body.
func (*Release) Kind() Kind { return KindRelease }

// Kind implements Body.
func (*Confirm) Kind() Kind { return KindConfirm }

// Kind implements Body.
func (*Decline) Kind() Kind { return KindDecline }

// Kind implements Body.
func (*Abort) Kind() Kind { return KindAbort }

// Kind implements Body.
func (*Reclaim) Kind() Kind { return KindReclaim }

// Kind implements Body.
func (*Report) Kind() Kind { return KindReport }

// Kind implements Body.
func (*Root) Kind() Kind { return KindRoot }

// Kind implements Body.
func (*Tick) Kind() Kind { return KindTick }

// bodies are the types of transactions, by kind.
var bodies = func() map[Kind]bodyType {
	byKind := map[Kind]bodyType{}
	for _, b := range []Body{
		new(Propose), new(CastVote), new(Rotate), new(SetAccount), new(SetQuota), new(Publish), new(Withdraw), new(Hold),
		new(Define), new(Set), new(Delete), new(SetPolicy), new(Approve), new(Intent), new(Bid), new(Accept), new(Beat),
		new(Release), new(Confirm), new(Decline), new(Abort), new(Reclaim), new(Report), new(Root), new(Tick),
	} {
		t := reflect.TypeOf(b).Elem()
		byKind[b.Kind()] = bodyType{t, merkle.NewDecoder(t)}
	}
	return byKind
}()

type bodyType struct {
	typ     reflect.Type
	decoder merkle.Decoder
}

// newBody is an empty transaction of that kind; nil: there is none.
func newBody(k Kind) Body {
	t, ok := bodies[k]
	if !ok {
		return nil
	}
	return reflect.New(t.typ).Interface().(Body)
}
