package consensus

import "slices"

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
	perRound map[uint64]int // events by birth round
	oldest   uint64         // first round in perRound
	evidence []Fork
}

func newChains(n int) []chain {
	cs := make([]chain, n)
	for i := range cs {
		cs[i] = chain{head: none, perRound: map[uint64]int{}, oldest: 1}
	}
	return cs
}

// admit bounds what one creator can put into the graph. What is over the bound is
// let in all the same when another member's event builds on it: then it is needed,
// and that member answers for it.
func (c *Core) admit(e *Event, h Hash, m, self int) error {
	ch := &c.chains[m]
	branches := 0
	for _, t := range ch.tips {
		if t != self && c.dag.at(t).ev.BirthRound == e.BirthRound {
			branches++
		}
	}
	newBranch := !slices.Contains(ch.tips, self)
	if (newBranch && branches >= maxBranches || ch.perRound[e.BirthRound] >= maxPerRound) && !c.wanted(h, e.Creator) {
		return ErrFlood
	}
	return nil
}

// extend notes event x of member m, whose self-parent is at place self.
func (c *Core) extend(m, x, self int) {
	ch, v := &c.chains[m], c.dag.at(x)
	ch.perRound[v.ev.BirthRound]++
	ch.seq = max(ch.seq, v.ev.Seq)
	if i := slices.Index(ch.tips, self); i >= 0 {
		ch.tips[i] = x
	} else {
		if len(ch.tips) > 0 {
			c.forks++
			if len(ch.evidence) < maxEvidence {
				ch.evidence = append(ch.evidence, Fork{c.dag.at(ch.tips[0]).ev, v.ev})
			}
		}
		ch.tips = append(ch.tips, x)
	}
	ch.head = c.dag.later(ch.head, x)
}

// retireChains forgets tips and heads born before round low.
func (c *Core) retireChains(low uint64) {
	for m := range c.chains {
		ch := &c.chains[m]
		ch.tips = slices.DeleteFunc(ch.tips, func(t int) bool { return c.dag.at(t).ev.BirthRound < low })
		if ch.head != none && c.dag.at(ch.head).ev.BirthRound < low {
			ch.head = none
			for _, t := range ch.tips {
				ch.head = c.dag.later(ch.head, t)
			}
		}
		for ; ch.oldest < low; ch.oldest++ {
			delete(ch.perRound, ch.oldest)
		}
	}
}

// Forks is evidence of equivocation: at most 8 forks of each creator. Consensus
// bears forks by members of less than a third of the weight; people should know.
func (c *Core) Forks() []Fork {
	var out []Fork
	for i := range c.chains {
		out = append(out, c.chains[i].evidence...)
	}
	return out
}
