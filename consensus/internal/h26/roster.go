package h26

import (
	"math/bits"
	"slices"
)

// roster is the rules of the pending round, laid out for counting. Members are known
// by their place in it.
type roster struct {
	since  uint64 // the first round that they are planned for
	params Params
	stake  []uint64
	member []int32 // place by slot, or None
	total  uint64
	n      int
	all    uint64 // the set of all members
	limit  uint64 // stake above it is a supermajority
	each   uint64 // the stake of every member, if they all have the same; or 0
}

// lay lays the engine out for the rules of the pending round.
func (g *Engine) lay() {
	for len(g.plans) > 1 && g.plans[1].from < g.round {
		g.plans = slices.Delete(g.plans, 0, 1)
	}
	p := g.inForce(g.round)
	if g.n > 0 && g.since == p.from {
		return
	}
	r := &p.rules
	g.since = p.from
	g.params, g.n, g.total, g.each = r.Params, len(r.Members), 0, r.Members[0].Stake
	g.stake, g.member = g.stake[:0], g.member[:0]
	for i, m := range r.Members {
		for len(g.member) <= m.Slot {
			g.member = append(g.member, None)
		}
		g.member[m.Slot] = int32(i)
		g.stake = append(g.stake, m.Stake)
		g.total += m.Stake
		if m.Stake != g.each {
			g.each = 0
		}
	}
	g.all, g.limit = uint64(1)<<g.n-1, 2*g.total/3
}

// who is the member that has a slot, or None.
func (r *roster) who(slot int32) int32 {
	if int(slot) < len(r.member) {
		return r.member[slot]
	}
	return None
}

// weight is the stake of the creator of x.
func (g *Engine) weight(x int) uint64 {
	if m := g.who(g.vertex(x).slot); m != None {
		return g.stake[m]
	}
	return 0
}

// stakeOf adds up the stake of a set of members.
func (r *roster) stakeOf(set uint64) uint64 {
	if r.each != 0 {
		return r.each * uint64(bits.OnesCount64(set))
	}
	var sum uint64
	for ; set != 0; set &= set - 1 {
		sum += r.stake[bits.TrailingZeros64(set)]
	}
	return sum
}

// Super reports whether a stake is more than two thirds of the total in the roster
// of round Pending.
func (r *roster) Super(stake uint64) bool { return stake > r.limit }
