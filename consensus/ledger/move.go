package ledger

import (
	"fmt"
	"slices"
	"strings"
)

// KindSelected and KindNowhere are effects without a transaction of their own:
// the end of a bidding.
const (
	KindSelected Kind = "move.selected"
	KindNowhere  Kind = "move.nowhere"
)

// Effect is something that follows from the order. Move, when there is one, is a
// copy of the move as it is after the step.
type Effect struct {
	Kind    Kind
	Image   string
	Machine string
	Move    Move
}

// Needs are what a machine asks of a destination.
type Needs struct {
	Memory      int64  `json:"memory"` // bytes
	Disk        int64  `json:"disk"`   // bytes, at most
	VCPUs       int    `json:"vcpus"`
	Driver      string `json:"driver"`
	Accelerator string `json:"accelerator,omitempty"`
	MachineType string `json:"machine_type,omitempty"`
	MemoryBytes int64  `json:"memory_bytes"` // expected to travel
	DiskBytes   int64  `json:"disk_bytes"`   // of the machine's own overlay, expected to travel
}

// Intent asks for a move.
type Intent struct {
	Machine string   `json:"machine"`
	Epoch   uint64   `json:"epoch"`          // of the machine now
	Only    MemberID `json:"only,omitempty"` // restricts the candidates to one
	Needs   Needs    `json:"needs"`
}

// Kind implements Body.
func (*Intent) Kind() Kind { return KindIntent }

func (t *Intent) apply(s *State, p Place) ([]Effect, error) {
	m, err := s.owned(t.Machine, p)
	if err != nil {
		return nil, err
	}
	switch {
	case m.Move != nil:
		return nil, refuse("machine %s is moving already (%s)", m.Name, m.Move.Phase)
	case m.Epoch != t.Epoch:
		return nil, refuse("machine %s is in epoch %d, the intent speaks of %d: it has moved meanwhile", m.Name, m.Epoch, t.Epoch)
	case m.Stopped:
		return nil, refuse("machine %s is stopped: start it first", m.Name)
	case t.Only == p.Author:
		return nil, refuse("machine %s is at %s already", m.Name, s.Site(p.Author))
	case t.Only != 0 && s.member(t.Only) == nil:
		return nil, refuse("member %d is not in the roster", t.Only)
	case len(s.Members) < 2:
		return nil, refuse("there is no other member to move to")
	}
	m.Move = &Move{
		ID: p.Index, Machine: m.Name, Epoch: m.Epoch, From: p.Author, Only: t.Only, Phase: Bidding, Needs: t.Needs,
		IntentAt: p.Time, Round: p.Round,
	}
	return m.effect(KindIntent), nil
}

// Bid is what a member offers, or why it cannot.
type Bid struct {
	Member      MemberID `json:"member,omitempty"` // set by the ledger: the author
	Machine     string   `json:"machine"`
	Move        uint64   `json:"move"`
	Eligible    bool     `json:"eligible"`
	Reason      string   `json:"reason,omitempty"` // why not
	FreeMemory  int64    `json:"free_memory"`      // bytes
	FreeDisk    int64    `json:"free_disk"`        // bytes
	VMM         string   `json:"vmm,omitempty"`    // driver, version, accelerator
	RTT         int64    `json:"rtt_us"`           // to the owner, microseconds, measured
	Bandwidth   int64    `json:"bandwidth"`        // from the owner, bytes per second
	MissingData int64    `json:"missing_bytes"`    // of the image, bytes this member lacks
	Predicted   int64    `json:"predicted_ms"`     // of the whole move
	Index       uint64   `json:"index,omitempty"`  // set by the ledger: place in the order
}

// Kind implements Body.
func (*Bid) Kind() Kind { return KindBid }

func (t *Bid) apply(s *State, p Place) ([]Effect, error) {
	m := s.Machine(t.Machine)
	if m == nil || m.Move == nil || m.Move.ID != t.Move {
		return nil, refuse("there is no move %d of machine %s", t.Move, t.Machine)
	}
	mv := m.Move
	switch {
	case mv.Phase != Bidding:
		return nil, refuse("the bidding for machine %s is over", m.Name)
	case p.Author == mv.From:
		return nil, refuse("the owner of machine %s cannot bid for it", m.Name)
	case mv.Only != 0 && p.Author != mv.Only:
		return nil, refuse("only %s was asked to bid for machine %s", s.Site(mv.Only), m.Name)
	case slices.ContainsFunc(mv.Bids, func(b Bid) bool { return b.Member == p.Author }):
		return nil, refuse("%s has bid already", s.Site(p.Author))
	}
	b := *t
	b.Member, b.Index = p.Author, p.Index
	mv.Bids = append(mv.Bids, b)
	want := len(s.Members) - 1
	if mv.Only != 0 {
		want = 1
	}
	if len(mv.Bids) < want {
		return nil, nil
	}
	return []Effect{s.selectFor(m, p)}, nil
}

// selectFor ends the bidding: same state, same winner, at every member. The
// winner is the eligible bidder with the least predicted time; equal ones are
// told apart by their member number turned by the move's, so that no member is
// favoured for ever. Its memory is reserved from now on.
func (s *State) selectFor(m *Machine, p Place) Effect {
	mv := m.Move
	best := -1
	for i := range mv.Bids {
		b := &mv.Bids[i]
		if free := b.FreeMemory - s.reservedSince(b.Member, b.Index); b.Eligible && free < mv.Needs.Memory {
			b.Eligible = false
			b.Reason = fmt.Sprintf("%d bytes of its memory are not promised to other machines, %d are needed", max(free, 0), mv.Needs.Memory)
		}
		if b.Eligible && (best < 0 || s.better(mv, b, &mv.Bids[best])) {
			best = i
		}
	}
	if best < 0 {
		return m.end(Nowhere, p, s.whyNowhere(mv), KindNowhere)
	}
	mv.To, mv.Phase, mv.SelectedAt, mv.SelectedIndex = mv.Bids[best].Member, Copying, p.Time, p.Index
	mv.Deadline = 0
	return m.effect(KindSelected)[0]
}

func (s *State) better(mv *Move, a, b *Bid) bool {
	if a.Predicted != b.Predicted {
		return a.Predicted < b.Predicted
	}
	return turned(s, mv, a.Member) < turned(s, mv, b.Member)
}

// turned is a member's rank in the roster, counted from a start that the move picks.
func turned(s *State, mv *Move, id MemberID) int {
	n := len(s.Members)
	rank := slices.IndexFunc(s.Members, func(m Member) bool { return m.ID == id })
	return (rank + int(mv.ID%uint64(n))) % n
}

// reservedSince is the memory, in bytes, of the machines that were promised to a
// member after it bid at index: the bid cannot know of them.
func (s *State) reservedSince(id MemberID, index uint64) int64 {
	var sum int64
	for i := range s.Machines {
		mv := s.Machines[i].Move
		if mv != nil && mv.To == id && mv.Phase != Bidding && mv.SelectedIndex >= index {
			sum += mv.Needs.Memory
		}
	}
	return sum
}

func (s *State) whyNowhere(mv *Move) string {
	if len(mv.Bids) == 0 {
		return "no member answered within the bid window"
	}
	why := make([]string, len(mv.Bids))
	for i, b := range mv.Bids {
		why[i] = s.Site(b.Member) + ": " + b.Reason
	}
	return "no member is eligible (" + strings.Join(why, "; ") + ")"
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

// Kind implements Body.
func (*Release) Kind() Kind { return KindRelease }

func (t *Release) apply(s *State, p Place) ([]Effect, error) {
	m, err := s.owned(t.Machine, p)
	if err != nil {
		return nil, err
	}
	mv := m.Move
	switch {
	case mv == nil || mv.ID != t.Move || mv.Phase != Copying:
		return nil, refuse("there is no move %d of machine %s to release it to", t.Move, t.Machine)
	case t.To != mv.To:
		return nil, refuse("machine %s was promised to %s, not to %s", m.Name, s.Site(mv.To), s.Site(t.To))
	case t.Epoch != m.Epoch+1:
		return nil, refuse("machine %s is in epoch %d: a release makes it %d, not %d", m.Name, m.Epoch, m.Epoch+1, t.Epoch)
	}
	mv.Phase, mv.ReleasedAt, mv.After, mv.Round, mv.Deadline = Released, p.Time, t.After, p.Round, 0
	m.hand(mv.To, KindRelease, p)
	return m.effect(KindRelease), nil
}

// Confirm says that the new owner runs the machine.
type Confirm struct {
	Machine string `json:"machine"`
	Epoch   uint64 `json:"epoch"`
}

// Kind implements Body.
func (*Confirm) Kind() Kind { return KindConfirm }

func (t *Confirm) apply(s *State, p Place) ([]Effect, error) {
	m, err := s.released(t.Machine, t.Epoch)
	if err != nil {
		return nil, err
	}
	if m.Owner != p.Author {
		return nil, refuse("machine %s belongs to %s", m.Name, s.Site(m.Owner))
	}
	return []Effect{m.end(Done, p, "", KindConfirm)}, nil
}

// Decline gives the machine back: the new owner could not load it and has never run it.
type Decline struct {
	Machine string `json:"machine"`
	Epoch   uint64 `json:"epoch"`
	Reason  string `json:"reason"`
}

// Kind implements Body.
func (*Decline) Kind() Kind { return KindDecline }

func (t *Decline) apply(s *State, p Place) ([]Effect, error) {
	m, err := s.released(t.Machine, t.Epoch)
	if err != nil {
		return nil, err
	}
	if m.Owner != p.Author {
		return nil, refuse("machine %s belongs to %s", m.Name, s.Site(m.Owner))
	}
	m.hand(m.Move.From, KindDecline, p)
	return []Effect{m.end(Declined, p, t.Reason, KindDecline)}, nil
}

// Reclaim takes the machine back after the lease: the new owner has not confirmed
// and has paused the machine by itself.
type Reclaim struct {
	Machine string `json:"machine"`
	Epoch   uint64 `json:"epoch"`
}

// Kind implements Body.
func (*Reclaim) Kind() Kind { return KindReclaim }

func (t *Reclaim) apply(s *State, p Place) ([]Effect, error) {
	m, err := s.released(t.Machine, t.Epoch)
	if err != nil {
		return nil, err
	}
	switch {
	case m.Move.From != p.Author:
		return nil, refuse("machine %s came from %s: only it can reclaim it", m.Name, s.Site(m.Move.From))
	case m.Move.Deadline == 0 || s.Now < m.Move.Deadline:
		return nil, refuse("the lease of machine %s has not ended", m.Name)
	}
	m.hand(m.Move.From, KindReclaim, p)
	return []Effect{m.end(Reclaimed, p, "the destination did not confirm within the lease", KindReclaim)}, nil
}

// Abort ends a move before Release; source and destination may say it.
type Abort struct {
	Machine string `json:"machine"`
	Move    uint64 `json:"move"`
	Reason  string `json:"reason"`
}

// Kind implements Body.
func (*Abort) Kind() Kind { return KindAbort }

func (t *Abort) apply(s *State, p Place) ([]Effect, error) {
	m := s.Machine(t.Machine)
	if m == nil || m.Move == nil || m.Move.ID != t.Move {
		return nil, refuse("there is no move %d of machine %s", t.Move, t.Machine)
	}
	mv := m.Move
	if mv.Phase == Released {
		return nil, refuse("machine %s is released: only its new owner can give it back", m.Name)
	}
	if p.Author != mv.From && p.Author != mv.To {
		return nil, refuse("%s has no part in the move of machine %s", s.Site(p.Author), m.Name)
	}
	return []Effect{m.end(Aborted, p, t.Reason, KindAbort)}, nil
}

// released is the machine of that name if it waits, in that epoch, for a Confirm.
func (s *State) released(name string, epoch uint64) (*Machine, error) {
	m := s.Machine(name)
	if m == nil || m.Move == nil || m.Move.Phase != Released {
		return nil, refuse("machine %s is not between two members", name)
	}
	if m.Epoch != epoch {
		return nil, refuse("machine %s is in epoch %d, not %d", name, m.Epoch, epoch)
	}
	return m, nil
}

// hand gives the machine to another owner with the next epoch.
func (m *Machine) hand(to MemberID, why Kind, p Place) {
	m.Owner = to
	m.Epoch++
	m.Handovers = append(m.Handovers, Handover{Index: p.Index, Epoch: m.Epoch, Owner: to, Why: why})
}

// end closes the move and keeps it as the last one.
func (m *Machine) end(how Phase, p Place, reason string, k Kind) Effect {
	m.Move.Phase, m.Move.Reason, m.Move.EndedAt = how, reason, p.Time
	m.Last, m.Move = m.Move, nil
	return m.effectOf(k, m.Last)
}

func (m *Machine) effect(k Kind) []Effect {
	return []Effect{m.effectOf(k, m.Move)}
}

func (m *Machine) effectOf(k Kind, mv *Move) Effect {
	e := Effect{Kind: k, Machine: m.Name, Move: *mv}
	e.Move.Bids = slices.Clone(mv.Bids)
	return e
}
