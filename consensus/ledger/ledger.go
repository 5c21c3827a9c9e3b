// Package ledger is the state machine over the total order: it decides who owns
// which machine, where a machine moves, and which of two contradicting wishes came
// first. Every member applies the same ordered transactions to the same state and so
// arrives at the same answer; nobody is asked, nobody is in charge.
//
// The package is pure. Apply takes what the order said and returns what follows
// from it, as values; the node turns them into action.
//
// The life of a move, in transactions:
//
//	Intent   the owner wants its machine elsewhere        phase bidding
//	Bid      a member says what it could offer, or why not
//	         ... all have bid, or the deadline has passed: the ledger selects
//	                                                       phase copying
//	Release  the owner has paused the machine             phase released; the
//	         destination is owner with the next epoch
//	Confirm  the destination runs it                      no move
//
// and the ways back: Abort before Release, Decline by the destination after it,
// Reclaim by the source once the lease is over.
//
// Two rules carry the promise that one machine has one runner. The destination
// runs the machine only when it has seen Release in the order; the source, once
// it has submitted Release, runs it again only when it has seen Abort (before
// Release), Decline or Reclaim in the order.
package ledger

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// MemberID is a member's number in the roster.
type MemberID uint64

// Time is consensus time in nanoseconds since the Unix epoch.
type Time int64

// Member is what the ledger knows of a member.
type Member struct {
	ID     MemberID `json:"id"`
	Site   string   `json:"site"` // unique: people call a member by its site
	Region string   `json:"region,omitempty"`
	Weight uint64   `json:"weight"`
}

// Rules are the constants of one overlay, agreed in its genesis.
type Rules struct {
	BidWindow Time `json:"bid_window"` // how long bids are taken
	Lease     Time `json:"lease"`      // after Release without Confirm, when the source may reclaim
}

// DefaultRules: bids for two seconds, a lease of fifteen.
var DefaultRules = Rules{BidWindow: 2e9, Lease: 15e9}

// Image is a published image.
type Image struct {
	Name      string     `json:"name"`
	Commit    string     `json:"commit"` // CID
	Size      int64      `json:"size"`   // bytes of its disks as the guest sees them
	Stored    int64      `json:"stored"` // bytes of its blocks
	Publisher MemberID   `json:"publisher"`
	Holders   []MemberID `json:"holders"` // ascending
}

// Handover is one change of a machine's owner.
type Handover struct {
	Index uint64   `json:"index"` // place in the order from which it holds
	Epoch uint64   `json:"epoch"`
	Owner MemberID `json:"owner"`
	Why   Kind     `json:"why"`
}

// Machine is a machine and who may run it.
type Machine struct {
	Name      string          `json:"name"`
	Image     string          `json:"image"` // name; the commit is Commit
	Commit    string          `json:"commit"`
	Spec      json.RawMessage `json:"spec"` // a vmm.Spec, opaque here
	Memory    int64           `json:"memory"`
	Owner     MemberID        `json:"owner"`
	Epoch     uint64          `json:"epoch"`
	Stopped   bool            `json:"stopped,omitempty"`
	Move      *Move           `json:"move,omitempty"` // the move that is under way
	Last      *Move           `json:"last,omitempty"` // the move that ended last
	Handovers []Handover      `json:"handovers"`
}

// Phase is how far a move has come.
type Phase string

// The phases of a move; the last five are ends.
const (
	Bidding   Phase = "bidding"
	Copying   Phase = "copying"
	Released  Phase = "released"
	Done      Phase = "done"
	Aborted   Phase = "aborted"
	Declined  Phase = "declined"
	Reclaimed Phase = "reclaimed"
	Nowhere   Phase = "nowhere" // no member was eligible
)

// Move is one attempt to move a machine.
type Move struct {
	ID       uint64   `json:"id"` // index of the Intent in the order
	Machine  string   `json:"machine"`
	Epoch    uint64   `json:"epoch"` // of the machine when the move began
	From     MemberID `json:"from"`
	Only     MemberID `json:"only,omitempty"` // the only candidate, if the owner named one
	To       MemberID `json:"to,omitempty"`   // 0 until selected
	Phase    Phase    `json:"phase"`
	Reason   string   `json:"reason,omitempty"` // why it ended as it did
	Needs    Needs    `json:"needs"`
	Bids     []Bid    `json:"bids,omitempty"` // in the order that they came
	Round    uint64   `json:"round"`          // in which its phase began
	Deadline Time     `json:"deadline"`       // of the bidding, then of the lease; 0: not known yet, see Advance

	IntentAt   Time `json:"intent_at"`
	SelectedAt Time `json:"selected_at,omitempty"`
	ReleasedAt Time `json:"released_at,omitempty"`
	EndedAt    Time `json:"ended_at,omitempty"`

	// After is how long after the destination's word that it is ready the owner
	// released the machine, by the owner's monotonic clock. The destination, which
	// spoke that word, knows by it how old the release is at most, whatever the
	// wall clocks say and however late it hears of it.
	After Time `json:"after,omitempty"`

	SelectedIndex uint64 `json:"selected_index,omitempty"`
}

// State is what all members agree on. The zero State is not usable: see New.
type State struct {
	Rules    Rules     `json:"rules"`
	Members  []Member  `json:"members"`  // by ID
	Images   []Image   `json:"images"`   // by name
	Machines []Machine `json:"machines"` // by name
	Now      Time      `json:"now"`      // consensus time of the last event
	Next     uint64    `json:"next"`     // index of the next event
}

// New is the state before the first event.
func New(members []Member, rules Rules) (*State, error) {
	if rules == (Rules{}) {
		rules = DefaultRules
	}
	ms := slices.Clone(members)
	slices.SortFunc(ms, func(a, b Member) int { return int(int64(a.ID) - int64(b.ID)) })
	for i, m := range ms {
		if m.ID == 0 || m.Site == "" {
			return nil, fmt.Errorf("member %d has no number or no site", i)
		}
		for _, o := range ms[:i] {
			if o.ID == m.ID || o.Site == m.Site {
				return nil, fmt.Errorf("members %s and %s: number and site must be unique", o.Site, m.Site)
			}
		}
	}
	return &State{Rules: rules, Members: ms}, nil
}

// Place is where in the order a transaction stands.
type Place struct {
	Index  uint64 // of its event
	Round  uint64 // in which its event was received
	Time   Time   // consensus time of its event
	Author MemberID
}

// RefusedError says why a transaction had no effect. It is part of the agreed
// history: every member refuses the same ones.
type RefusedError struct{ Reason string }

func (e *RefusedError) Error() string { return e.Reason }

func refuse(format string, args ...any) error {
	return &RefusedError{Reason: fmt.Sprintf(format, args...)}
}

// Advance moves consensus time to that of the event at p, which may carry no
// transaction, and returns what fell due.
//
// A deadline counts from the first round after the one in which its phase began.
// The events of one round share their time, which is the median of its judges'
// clocks; when an idle overlay wakes, most of those judges may be from before it
// fell asleep. The judges of the next round have all seen the event: they are
// later.
func (s *State) Advance(p Place) []Effect {
	s.Next = p.Index + 1
	s.Now = max(s.Now, p.Time)
	var out []Effect
	for i := range s.Machines {
		m := &s.Machines[i]
		mv := m.Move
		if mv == nil {
			continue
		}
		if limit := s.limit(mv.Phase); limit > 0 && mv.Deadline == 0 && p.Round > mv.Round {
			mv.Deadline = s.Now + limit
		}
		if mv.Phase == Bidding && mv.Deadline != 0 && s.Now >= mv.Deadline {
			out = append(out, s.selectFor(m, p))
		}
	}
	return out
}

// limit is how long a phase may last; 0: as long as it takes.
func (s *State) limit(p Phase) Time {
	switch p {
	case Bidding:
		return s.Rules.BidWindow
	case Released:
		return s.Rules.Lease
	}
	return 0
}

// Apply applies one transaction of the event at p, after Advance. The error, if
// any, is a *RefusedError: the state is as before.
func (s *State) Apply(p Place, tx Tx) ([]Effect, error) {
	if s.member(p.Author) == nil {
		return nil, refuse("member %d is not in the roster", p.Author)
	}
	if tx.Body == nil {
		return nil, refuse("transaction has no body")
	}
	return tx.Body.apply(s, p)
}

// Root is a digest of the whole state; members with the same history have the same.
func (s *State) Root() string {
	b, err := json.Marshal(s)
	if err != nil {
		panic("ledger: state does not encode: " + err.Error())
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// Clone is a deep copy, for readers outside the ordering goroutine.
func (s *State) Clone() *State {
	b, err := json.Marshal(s)
	if err != nil {
		panic("ledger: state does not encode: " + err.Error())
	}
	c := new(State)
	if err := json.Unmarshal(b, c); err != nil {
		panic("ledger: state does not decode: " + err.Error())
	}
	return c
}

// Due is the earliest time at which the passing of consensus time alone changes
// something; 0 if there is none. Somebody must then let an event be ordered. It is
// in the past while a deadline waits for a round to count from.
func (s *State) Due() Time {
	var due Time
	for i := range s.Machines {
		mv := s.Machines[i].Move
		if mv == nil || s.limit(mv.Phase) == 0 || mv.Phase == Released && mv.Deadline != 0 {
			continue // nothing falls due by itself
		}
		if at := max(mv.Deadline, 1); due == 0 || at < due {
			due = at
		}
	}
	return due
}

// Machine is the machine of that name, or nil. The result is s's own.
func (s *State) Machine(name string) *Machine {
	i, ok := slices.BinarySearchFunc(s.Machines, name, func(m Machine, n string) int { return strings.Compare(m.Name, n) })
	if !ok {
		return nil
	}
	return &s.Machines[i]
}

// Image is the image of that name, or nil. The result is s's own.
func (s *State) Image(name string) *Image {
	i, ok := slices.BinarySearchFunc(s.Images, name, func(m Image, n string) int { return strings.Compare(m.Name, n) })
	if !ok {
		return nil
	}
	return &s.Images[i]
}

// Site is what people call a member; "member 7" for one that is not known.
func (s *State) Site(id MemberID) string {
	if m := s.member(id); m != nil {
		return m.Site
	}
	return fmt.Sprintf("member %d", id)
}

// BySite finds a member by its site.
func (s *State) BySite(site string) (Member, bool) {
	for _, m := range s.Members {
		if m.Site == site {
			return m, true
		}
	}
	return Member{}, false
}

func (s *State) member(id MemberID) *Member {
	for i := range s.Members {
		if s.Members[i].ID == id {
			return &s.Members[i]
		}
	}
	return nil
}
