// Package ledger is the state machine over the total order: it decides who is a
// member, who owns which machine, what may move, where it goes, and which of two
// contradicting wishes came first. Every member applies the same ordered
// transactions to the same state and so arrives at the same answer; nobody is
// asked, nobody is in charge.
//
// The package is pure. Apply takes what the order said and returns what follows
// from it, as values; the node turns them into action.
//
// # State
//
// A [State] is made of persistent maps (package merkle): a copy costs nothing and
// never changes, and its root is the CID of a DAG-CBOR node from which every entry
// can be proved. Values that were read from a State are not to be changed.
//
// # The life of a move, in transactions
//
//	Intent   the owner wants its machine elsewhere        phase bidding
//	Bid      a member says what it could offer, or why not
//	         ... all who are waited for have bid, or the deadline has passed: the
//	         ledger selects, and reserves the room       phase copying
//	Accept   the selected member keeps its word; if it does not in time, the next
//	         best is selected
//	Release  the owner has paused the machine             phase released; the
//	         destination is owner with the next epoch
//	Confirm  the destination runs it                      no move
//	Report   what the move was, beside what was predicted
//
// and the ways back: Abort before Release, Decline by the destination after it,
// Reclaim by the source once the lease is over. Each phase has a deadline in
// consensus time.
//
// Two rules carry the promise that one machine has one runner. The destination
// runs the machine only when it has seen Release in the order; the source, once
// it has submitted Release, runs it again only when it has seen Abort (before
// Release), Decline or Reclaim in the order.
//
// # Law
//
// What is forbidden is refused here, at every member alike: a [Policy] of the
// machine or of the account that it belongs to is looked at when a move is wanted,
// when its destination is selected and when the machine is released. A member's
// words are those in its signed events. An account's words carry the signatures of
// its keys, so that no member can speak for it.
package ledger

import (
	"fmt"

	"github.com/dcnode/dcnode/consensus/ledger/merkle"
)

// MemberID is a member's number. Numbers are never used twice.
type MemberID uint64

// A number in a transaction is as large at all members: where an int has 32 bits this
// does not compile.
const _ = uint(^uint(0)>>63) - 1

// Time is consensus time in nanoseconds since the Unix epoch.
type Time int64

// Units of Time.
const (
	Millisecond Time = 1e6
	Second      Time = 1e9
	Minute           = 60 * Second
	Hour             = 60 * Minute
	Day              = 24 * Hour
)

// Rules are the constants of one overlay, agreed in its genesis. Zero fields take
// those of DefaultRules.
type Rules struct {
	BidWindow Time `json:"bid_window"`           // how long bids are taken
	Accept    Time `json:"accept,omitempty"`     // for the selected member to say that it keeps its word
	Copy      Time `json:"copy,omitempty"`       // without a sign of life of the source while it copies
	Whole     Time `json:"whole,omitempty"`      // for copying in all, beside what was predicted; see State.whole
	Lease     Time `json:"lease"`                // after Release without Confirm, when the source may reclaim
	Vote      Time `json:"vote,omitempty"`       // for a proposal to find its votes
	BidExpiry Time `json:"bid_expiry,omitempty"` // how long what a bid says holds, at most
}

// DefaultRules: bids for two seconds, a lease of fifteen.
var DefaultRules = Rules{
	BidWindow: 2 * Second, Accept: 30 * Second, Copy: 10 * Minute, Whole: Hour, Lease: 15 * Second, Vote: 7 * Day, BidExpiry: Minute,
}

// State is what all members agree on. The zero State is not usable: see New and
// Load. A copy by Clone is independent and costs nothing.
type State struct {
	rules    Rules
	now      Time   // consensus time of the last event
	next     uint64 // index of the next event
	outcome  [32]byte
	lastID   MemberID
	roster   uint64      // how often the roster has changed
	members  []*Member   // by ID; those who left are not among them
	votes    []*Proposal // open ones, by ID
	accounts merkle.Map[*Account]
	images   merkle.Map[*Image]
	machines merkle.Map[*Machine]
	paths    merkle.Map[*Path]         // by pathKey
	said     merkle.Map[*Said]         // by saidKey
	changes  merkle.Map[*RosterChange] // by rosterKey
	graves   merkle.Map[uint64]        // epochs of deleted machines, by name
	floor    uint64                    // new machines have later epochs

	index indexes // what can be found again from the rest
}

// Place is where in the order a transaction stands.
type Place struct {
	Index  uint64   // of its event
	Round  uint64   // in which its event was received
	Time   Time     // consensus time of its event
	Author MemberID // who made the event
	Event  [32]byte // hash of the event
}

// RefusedError says why a transaction had no effect. It is part of the agreed
// history: every member refuses the same ones.
type RefusedError struct{ Reason string }

func (e *RefusedError) Error() string { return e.Reason }

// refuse says no. Reasons are kept by every member: what they quote of a transaction
// does not make them longer than maxRefusal.
func refuse(format string, args ...any) error {
	return &RefusedError{Reason: clip(fmt.Sprintf(format, args...), maxRefusal)}
}

// Effect is what follows from the order for those who carry it out.
type Effect struct {
	Kind    Kind     `json:"kind"`
	Machine string   `json:"machine,omitempty"`
	Image   string   `json:"image,omitempty"`
	Member  MemberID `json:"member,omitempty"`
	Account string   `json:"account,omitempty"`
	Move    Move     `json:"move"` // as it is now, if it is of a move
}
