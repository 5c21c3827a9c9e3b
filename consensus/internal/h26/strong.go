package h26

import "math/bits"

// strong is the row of witnesses, in the round before its voting round, that an
// event strongly sees. The event must be the first on its way into that round.
func (g *Engine) strong(at int32) []int32 {
	if g.vals[at].strong == None {
		g.countStrong(at, g.vals[at].round-1)
	}
	return g.row(g.vals[at].strong)
}

// countStrong makes the row of strongly seen witnesses of the parent round, and adds
// up the stake of their creators. A witness of a member is strongly seen when enough
// members have it below their last events, on the branch that these hold to.
//
// On a chain there is one witness for each round. So the last event of a member,
// which is in the round, has the witness below it if it has any event of that round
// and creator below it, which its set of seen members tells.
func (g *Engine) countStrong(at, parent int32) uint64 {
	o := g.newRow()
	v, strong := &g.vals[at], g.row(o)
	v.strong = o
	last := g.row(v.last)
	seen := g.wanted(v, last, parent, strong)
	var votes tally
	g.reset(&votes)
	for set := seen; set != 0; set &= set - 1 {
		by := bits.TrailingZeros64(set)
		if int32(by) != v.who {
			g.add(&votes, g.through(last[by], seen, strong), by)
		}
	}
	if v.who != None {
		// Through itself, an event sees every witness in question.
		g.add(&votes, seen, int(v.who))
	}
	held := g.above(&votes, g.limit) & seen
	for m := range strong {
		if held>>m&1 == 0 {
			strong[m] = None
		}
	}
	return g.stakeOf(held)
}

// wanted fills a row with the witnesses in a round that an event sees, and returns
// the set of their creators.
func (g *Engine) wanted(v *values, last []int32, round int32, row []int32) (seen uint64) {
	for m, s := range last {
		if int32(m) == v.who {
			s = v.self
		}
		if s != None && g.vals[s].round == round {
			row[m] = g.vals[s].first
			seen |= 1 << m
		}
	}
	return seen
}

// through is the set of members whose witness, of those wanted, is seen by way of
// some member's last event.
func (g *Engine) through(last int32, seen uint64, want []int32) uint64 {
	y := &g.vals[last]
	through := y.seen & seen
	for set := through & g.forked; set != 0; set &= set - 1 {
		m := bits.TrailingZeros64(set)
		if s := g.row(y.last)[m]; g.vals[s].first != want[m] {
			through &^= 1 << m
		}
	}
	return through
}

// strongBefore is the row of witnesses strongly seen in the round before an event's.
func (g *Engine) strongBefore(at int32) []int32 { return g.strong(g.vals[at].fw) }
