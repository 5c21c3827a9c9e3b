package consensus

import (
	"crypto/ed25519"
	"fmt"
	"slices"
)

const (
	maxBranches = 16 // tips of one creator born in one round
	maxEvidence = 8  // forks kept of one creator
)

// chain is what is known of one creator's events: one tip if it is honest, one for
// each branch if it forks. Both branches are accepted: members that refused
// whichever came second would refuse each other's events for ever.
type chain struct {
	head     int   // the event to build on: the last by layer
	tips     []int // non-ancient events without a self-child, in order of arrival
	seq      uint64
	evidence []Fork
}

// admit bounds what one creator can put into the graph. What is over the bound is
// let in all the same when another member's event builds on it: then it is needed,
// and that member answers for it.
func (c *Core) admit(e *Event, h Hash, slot, self int) error {
	if c.replaying {
		return nil
	}
	ch := &c.seats[slot].chain
	branches, newBranch := 0, true
	for _, t := range ch.tips {
		if t == self {
			newBranch = false
		} else if c.dag.at(t).ev.BirthRound == e.BirthRound {
			branches++
		}
	}
	if (newBranch && branches >= maxBranches || c.births.count(e.BirthRound, slot) >= maxPerRound) && !c.wanted(h, e.Creator) {
		return fmt.Errorf("%w: member %d, round %d", ErrFlood, e.Creator, e.BirthRound)
	}
	return nil
}

// Replay is for events that were saved: while it is on, none is one too many of its
// creator. What was let in because others had built on it comes before them now.
func (c *Core) Replay(on bool) { c.replaying = on }

// extend notes event x of a member, whose self-parent is at place self.
func (c *Core) extend(slot, x, self int) {
	ch, v := &c.seats[slot].chain, c.dag.at(x)
	ch.seq = max(ch.seq, v.ev.Seq)
	if i := slices.Index(ch.tips, self); i >= 0 {
		ch.tips[i] = x
	} else {
		if len(ch.tips) > 0 {
			c.forks++
			if len(ch.evidence) < maxEvidence {
				ch.evidence = append(ch.evidence, Fork{c.rival(ch, v.ev), v.ev})
			}
		}
		ch.tips = append(ch.tips, x)
	}
	ch.head = c.dag.later(ch.head, x)
}

// rival is the event of another branch that shows best that e makes a fork: one of
// the same number, which needs no further proof; else the oldest branch's last.
func (c *Core) rival(ch *chain, e *Event) *Event {
	for _, x := range ch.tips {
		v := c.dag.at(x).ev
		for v.Seq > e.Seq {
			y := c.dag.find(v.Parents[0].Hash)
			if y == none {
				break
			}
			v = c.dag.at(y).ev
		}
		if v.Seq == e.Seq {
			return v
		}
	}
	return c.dag.at(ch.tips[0]).ev
}

// retireChains forgets tips and heads born before round low.
func (c *Core) retireChains(low uint64) {
	for s := range c.seats {
		ch := &c.seats[s].chain
		ch.tips = slices.DeleteFunc(ch.tips, func(t int) bool { return c.dag.at(t).ev.BirthRound < low })
		if ch.head != none && c.dag.at(ch.head).ev.BirthRound < low {
			ch.head = none
			for _, t := range ch.tips {
				ch.head = c.dag.later(ch.head, t)
			}
		}
	}
}

// Forks is evidence of equivocation: at most 8 forks of each creator, for as long as
// anything of that creator is kept. Consensus bears forks by members of less than a
// third of the weight; people should know.
func (c *Core) Forks() []Fork {
	var out []Fork
	for s := range c.seats {
		out = append(out, c.seats[s].chain.evidence...)
	}
	return out
}

// VerifyFork reports whether the two events alone prove a fork, to someone who has
// seen neither: they are different, bear the same number, and are signed by the same
// creator. key is as Core.Key. An error says what is wrong; it is ErrInvalid.
//
// Two events of different numbers can be a fork as well, but whether the later one
// builds on the other is shown only by the chain of self-parents between them; of
// such a pair this says that it proves nothing by itself.
func VerifyFork(f Fork, key func(creator, birth uint64) (ed25519.PublicKey, bool)) error {
	switch {
	case f.A == nil || f.B == nil:
		return fmt.Errorf("%w: a fork is two events", ErrInvalid)
	case f.A.Creator != f.B.Creator || f.A.Network != f.B.Network:
		return fmt.Errorf("%w: events of two creators or two networks are no fork", ErrInvalid)
	case f.A.Seq != f.B.Seq:
		return fmt.Errorf("%w: numbers %d and %d: only the chain between them can show a fork", ErrInvalid, f.A.Seq, f.B.Seq)
	case f.A.Hash() == f.B.Hash():
		return fmt.Errorf("%w: one event twice", ErrInvalid)
	}
	for _, e := range []*Event{f.A, f.B} {
		k, ok := key(e.Creator, e.BirthRound)
		if !ok {
			return fmt.Errorf("%w: %d is not known as a member in round %d", ErrInvalid, e.Creator, e.BirthRound)
		}
		if err := e.Verify(k); err != nil {
			return err
		}
	}
	return nil
}
