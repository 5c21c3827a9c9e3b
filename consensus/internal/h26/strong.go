package h26

import (
	"math"
	"math/bits"
)

// strong is the row of witnesses, in the round before its voting round, that an
// event strongly sees. The event must be the first on its way into that round.
func (g *Engine) strong(at int32) []int32 {
	if g.vals[at].strong == None {
		g.countStrong(at, g.vals[at].round-1)
	}
	return g.row(g.vals[at].strong)
}

// countStrong makes the row of strongly seen witnesses of the parent round, and adds
// up the stake of their creators. A witness of a member is strongly seen when the
// last events of enough members have it below them, on the branch they hold to.
func (g *Engine) countStrong(at, parent int32) uint64 {
	o := g.newRow()
	v, strong := &g.vals[at], g.row(o)
	v.strong = o
	last := g.row(v.last)
	var want [MaxMembers]int32 // the witness in question; MaxInt32, which nobody has seen
	var held [MaxMembers]uint64
	var seen uint64
	for m := range last {
		want[m] = math.MaxInt32
		s := last[m]
		if int32(m) == v.who {
			s = v.self
		}
		if s != None && g.vals[s].round == parent {
			want[m] = g.vals[s].first
			seen |= 1 << m
		}
	}
	for set := seen; set != 0; set &= set - 1 {
		by := bits.TrailingZeros64(set)
		if int32(by) == v.who {
			// Through itself, an event sees each witness in question.
			continue
		}
		g.through(last[by], by, &want, &held)
	}
	var sum uint64
	for set := seen; set != 0; set &= set - 1 {
		m := bits.TrailingZeros64(set)
		h := held[m]
		if v.who != None {
			h += g.stake[v.who]
		}
		if g.Super(h) {
			strong[m] = want[m]
			sum += g.stake[m]
		}
	}
	return sum
}

// through adds the stake of a member to each witness wanted that its last event
// sees. On a chain, an event has a witness below it if it knows an event of that
// creator which is not before the witness: it knows none above the round. On
// branches, it must hold to that of the witness.
func (g *Engine) through(last int32, by int, want *[MaxMembers]int32, held *[MaxMembers]uint64) {
	w := g.stake[by]
	row := g.row(g.vals[last].last)
	for m, s := range row[:min(len(row), MaxMembers)] {
		before := uint64((int64(s) - int64(want[m])) >> 63) // all ones, or zero
		held[m] += w &^ before
	}
	for set := g.forked; set != 0; set &= set - 1 {
		m := bits.TrailingZeros64(set)
		s := row[m]
		if s == None {
			continue
		}
		before := s < want[m]
		has := g.vals[s].first == want[m]
		if has == before {
			if has {
				held[m] += w
			} else {
				held[m] -= w
			}
		}
	}
}

// strongBefore is the row of witnesses strongly seen in the round before an event's.
func (g *Engine) strongBefore(at int32) []int32 { return g.strong(g.vals[at].fw) }
