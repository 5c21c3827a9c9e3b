package consensus

import (
	"cmp"
	"crypto/ed25519"
	"fmt"
	"slices"

	"github.com/dcnode/dcnode/consensus/internal/h26"
)

// maxWeight bounds the sum of weights, so that no product overflows.
const maxWeight = 1 << 48

// maxNonAncient bounds the rounds that are kept.
const maxNonAncient = 1 << 10

// check says what is wrong with a roster or its parameters.
func (ep *Epoch) check() error {
	var total uint64
	for i, m := range ep.Roster {
		if i > 0 && ep.Roster[i-1].ID >= m.ID {
			return fmt.Errorf("the roster is not in the order of IDs at member %d", m.ID)
		}
		if m.Weight > maxWeight || total+m.Weight > maxWeight {
			return fmt.Errorf("the weights add up to more than %d at member %d", uint64(maxWeight), m.ID)
		}
		if len(m.Key) != 0 && len(m.Key) != ed25519.PublicKeySize {
			return fmt.Errorf("the key of member %d has %d bytes, want %d", m.ID, len(m.Key), ed25519.PublicKeySize)
		}
		total += m.Weight
	}
	p := ep.Params
	switch {
	case len(ep.Roster) > MaxMembers:
		return fmt.Errorf("%d members, at most %d are allowed", len(ep.Roster), MaxMembers)
	case total == 0:
		return fmt.Errorf("no member has weight")
	case p.SeeDen == 0 || p.SeeDen > 1000 || p.SeeNum > p.SeeDen || 2*p.SeeNum < p.SeeDen:
		return fmt.Errorf("the see fraction %d/%d is not between 1/2 and 1/1", p.SeeNum, p.SeeDen)
	case p.CoinInterval < 2 || p.NonAncientRounds == 0 || p.NonAncientRounds > maxNonAncient:
		return fmt.Errorf("coin interval %d (2 or more) or non-ancient rounds %d (1 to %d) is out of range", p.CoinInterval, p.NonAncientRounds, maxNonAncient)
	}
	return nil
}

// find is a member of the roster, or nil.
func (ep *Epoch) find(id uint64) *Member {
	i, ok := slices.BinarySearchFunc(ep.Roster, id, func(m Member, id uint64) int { return cmp.Compare(m.ID, id) })
	if !ok {
		return nil
	}
	return &ep.Roster[i]
}

// clone is a copy that shares nothing with the caller.
func (ep *Epoch) clone() Epoch {
	out := *ep
	out.Roster = slices.Clone(ep.Roster)
	for i := range out.Roster {
		out.Roster[i].Key = slices.Clone(out.Roster[i].Key)
	}
	return out
}

// seat is what is kept of one member. Its slot, the place among the seats, names the
// member in the graph and in the engine. A member has one from the change that lets
// it in until nothing kept refers to it; then the seat is free for another.
type seat struct {
	id     uint64
	taken  bool
	in     bool   // of the roster of the pending round
	weight uint64 // in that roster
	open   int    // events in the graph

	chain chain
	clock memberClock
	wait  []*waiter
	bytes int // of those
}

// sit returns the slot of a member and gives it a seat if it has none.
func (c *Core) sit(id uint64) int {
	if s, ok := c.slot[id]; ok {
		return s
	}
	s := slices.IndexFunc(c.seats, func(s seat) bool { return !s.taken })
	if s < 0 {
		s = len(c.seats)
		c.seats = append(c.seats, seat{})
		c.dag.widen(len(c.seats))
	} // else rows still name events of the last owner; all have left, and count for nothing
	c.seats[s] = seat{id: id, taken: true, chain: chain{head: none}, clock: memberClock{acked: none}}
	c.slot[id] = s
	if id == c.cfg.Self {
		c.self = s
	}
	return s
}

// vacate frees the seats of members that left and of whom nothing is kept.
func (c *Core) vacate() {
	for i := range c.seats {
		s := &c.seats[i]
		if !s.taken || s.in || s.open > 0 || len(s.wait) > 0 ||
			slices.ContainsFunc(c.epochs, func(ep Epoch) bool { return ep.find(s.id) != nil }) {
			continue
		}
		delete(c.slot, s.id)
		if i == c.self {
			c.self = none
		}
		c.seats[i] = seat{chain: chain{head: none}}
	}
}

// open adds an epoch, after those that are there, and tells the engine.
func (c *Core) open(ep Epoch) {
	c.epochs = append(c.epochs, ep)
	r := h26.Rules{Params: h26.Params(ep.Params)}
	for i := range ep.Roster {
		r.Members = append(r.Members, h26.Member{Slot: c.sit(ep.Roster[i].ID), Stake: ep.Roster[i].Weight})
	}
	if c.engine == nil {
		c.engine = h26.New(r)
	} else {
		c.engine.Plan(ep.From, r)
	}
}

// rules is the epoch of a round that is kept.
func (c *Core) rules(round uint64) *Epoch {
	k := len(c.epochs) - 1
	for k > 0 && c.epochs[k].From > round {
		k--
	}
	return &c.epochs[k]
}

// enforce takes the roster of the pending round.
func (c *Core) enforce() {
	ep := c.rules(c.Pending())
	if ep.From == c.since {
		return
	}
	c.since, c.total, c.roster = ep.From, 0, c.roster[:0]
	for i := range c.seats {
		c.seats[i].in, c.seats[i].weight = false, 0
	}
	for i := range ep.Roster {
		m := &ep.Roster[i]
		s := c.slot[m.ID]
		c.seats[s].in, c.seats[s].weight = true, m.Weight
		c.roster = append(c.roster, s)
		c.total += m.Weight
	}
}

// super reports whether a weight is more than two thirds of all.
func (c *Core) super(weight uint64) bool { return 3*weight > 2*c.total }

// isMember reports whether an ID was in the roster of a round that is kept.
func (c *Core) isMember(id, round uint64) bool {
	ep := c.rules(round)
	if ep.From != c.since {
		return ep.find(id) != nil
	}
	s, ok := c.slot[id]
	return ok && c.seats[s].in
}

// horizon is the last round whose roster cannot change any more.
func (c *Core) horizon() uint64 { return c.applied() + ChangeDelay }

// Settled is the last round whose roster and parameters cannot change any more: what
// Key and Epochs say of rounds up to it is so at every member. Pending is never past it.
func (c *Core) Settled() uint64 { return c.horizon() }

// changing reports whether there is a roster whose first round is not decided. Members
// go on until it is: who is let in by it may have nothing else to begin at, and who is
// in it has no say before.
func (c *Core) changing() bool { return c.epochs[len(c.epochs)-1].From > max(c.decided, 1) }

// begins reports whether a round is the first with its roster and parameters, as far
// as that is known.
func (c *Core) begins(round uint64) bool { return round > 1 && c.rules(round).From == round }

// Change has a new roster and new parameters obeyed from round + ChangeDelay on; round
// is the one that ordered the change. Call it while handling the Ready with that
// round among its Ordered, before its Advance. Of several changes ordered in one
// round the last one counts. Params zero: as they were. An error says what is wrong
// with the change, the same at every member; then nothing is changed.
func (c *Core) Change(round uint64, roster []Member, p Params) error {
	given := c.given.Ordered
	if len(given) == 0 || round < given[0].Round || round > given[len(given)-1].Round {
		return fmt.Errorf("change the roster: round %d is not being applied", round)
	}
	ep := Epoch{From: round + ChangeDelay, Roster: roster, Params: p}
	last := &c.epochs[len(c.epochs)-1]
	if last.From > ep.From {
		return fmt.Errorf("change the roster: round %d changed it already, and came after round %d", last.From-ChangeDelay, round)
	}
	if p == (Params{}) {
		ep.Params = last.Params
	}
	if err := ep.check(); err != nil {
		return fmt.Errorf("change the roster: %w", err)
	}
	if last.From == ep.From {
		c.epochs = c.epochs[:len(c.epochs)-1]
	}
	c.open(ep.clone())
	return nil
}

// Epochs are the rosters and parameters in force, those to come, and those of
// earlier rounds whose events are still open. Read only.
func (c *Core) Epochs() []Epoch { return slices.Clone(c.epochs) }

// Key is the key that a creator signs events with that are born in a round, and
// whether it is a member then. For rounds so far ahead that their roster can still
// change it is the key of the last roster that is known; an event of such a round is
// dropped again later if its creator turns out to have changed keys.
func (c *Core) Key(creator, birth uint64) (ed25519.PublicKey, bool) {
	if birth < c.epochs[0].From {
		return nil, false
	}
	m := c.rules(birth).find(creator)
	if m == nil {
		return nil, false
	}
	return m.Key, true
}
