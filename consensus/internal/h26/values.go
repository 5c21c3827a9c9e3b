package h26

import "math/bits"

// window is what the rules say, in the pending round, of the events from start on.
// In here an event is known by its distance from start, a round by its distance
// from the one before the pending one: 0 is that one, 1 the pending one.
type window struct {
	vals   []values
	rows   []int32 // of n values each
	bottom []judge // of the round before, by place
	passed int     // how many of them
	full   uint64  // the set of them all

	tip    [MaxMembers]int32 // last event of each member that is live
	asked  [MaxMembers]int32 // last witness of each member in round 1
	forked uint64            // members whose events there are no single chain
}

// judge is a judge of the round before, as a set with one member.
type judge struct {
	at  int
	set uint64
}

// values are what the rules say of one event.
type values struct {
	below  uint64 // set of judges at or below it
	seen   uint64 // members whose last event below it is in its voting round
	yes    uint64 // members of whom it wants a witness as judge
	gen    int32
	round  int32 // voting round
	self   int32 // self-parent, if that has a say
	first  int32 // first self witness
	fw     int32 // first witness of the round, by first parents
	last   int32 // row: last event of each member below, if that is in round 1 or later
	strong int32 // row: witness of each member in the round before that is strongly seen
	vote   int32 // row: witness of each member that it wants as judge
	who    int32 // creator, or None
	live   bool  // it is above a judge of the round before
	says   bool  // it is live and not ancient
}

// clear makes the window ready for a round with so many judges before it and so many
// members.
func (w *window) clear(judges, n int) {
	w.vals, w.rows = empty(w.vals), empty(w.rows)
	w.passed, w.forked = 0, 0
	w.full = uint64(1)<<judges - 1
	for m := range n {
		w.tip[m], w.asked[m] = None, None
	}
}

// empty empties a slice, and gives it back if it was last used for much less than
// it has room for.
func empty[T any](s []T) []T {
	if cap(s) > 1024+8*len(s) {
		return nil
	}
	return s[:0]
}

// value computes what the rules say of x from what they say of its parents, and
// reports whether x decides the pending round.
func (g *Engine) value(x int) bool {
	vert, at := g.vertex(x), int32(x-g.start)
	g.vals = append(g.vals, values{
		gen: 1, self: None, first: at, fw: None, last: None, strong: None, vote: None, who: g.who(vert.slot),
	})
	v := &g.vals[at]
	parent := g.inherit(vert, v, at)
	proper := v.below
	if g.passed < len(g.bottom) && g.bottom[g.passed].at == int(at) {
		v.below |= g.bottom[g.passed].set
		g.passed++
	}
	v.live = v.below != 0 || g.round == 1
	if !v.live {
		return false
	}
	v.says = vert.birth >= g.minBirth
	g.track(v, at)
	v.round = g.votingRound(vert, at, parent, proper)
	witness := v.self == None || g.vals[v.self].round < v.round
	if !witness {
		v.first = g.vals[v.self].first
	}
	if v.round == 0 {
		return false
	}
	if witness && v.round == 1 && v.who != None {
		g.asked[v.who] = at
	}
	if v.last == None {
		g.look(vert, at)
	}
	if v.fw = at; v.round == parent {
		v.fw = g.firstWitness(vert, at)
	}
	return witness && v.round >= 1+g.voteD && g.castVotes(at, vert)
}

// inherit gathers from the parents of x that have a say what is simply added up. It
// returns the parent round.
func (g *Engine) inherit(vert *vertex, v *values, at int32) (parent int32) {
	for _, back := range g.parentsOf(vert) {
		if back > at {
			continue
		}
		p := &g.vals[at-back]
		if !p.says {
			continue
		}
		v.below |= p.below
		v.gen = max(v.gen, p.gen+1)
		if p.round > parent {
			parent, v.seen = p.round, 0
		}
		if p.round == parent {
			v.seen |= p.seen
		}
		if back == vert.self {
			v.self = at - back
		}
	}
	// A creator's own chain counts, and no branch of it that others know.
	if v.who != None {
		v.seen &^= 1 << v.who
		if v.self != None && g.vals[v.self].round == parent {
			v.seen |= 1 << v.who
		}
	}
	return parent
}

// votingRound is the voting round of the event. proper is the set of judges below
// it; v.seen is for the parent round and becomes that for the voting round.
func (g *Engine) votingRound(vert *vertex, at, parent int32, proper uint64) int32 {
	v, up := &g.vals[at], false
	if parent == 0 {
		up = proper == g.full
	} else {
		held := g.stakeOf(v.seen)
		up = parent == 1 && g.voteD == 1 && g.params.SeeDen*held > g.params.SeeNum*g.total
		// Only members that are seen in the round can be strongly seen in it.
		if !up && g.Super(held) {
			g.look(vert, at)
			up = g.Super(g.countStrong(at, parent))
		}
	}
	if up {
		v.seen = 0
		parent++
	}
	if v.who != None {
		v.seen |= 1 << v.who
	}
	return parent
}

// firstWitness follows first parents down to the event that entered the voting round.
func (g *Engine) firstWitness(vert *vertex, at int32) int32 {
	for _, back := range g.parentsOf(vert) {
		if back <= at {
			if p := &g.vals[at-back]; p.says && p.round == g.vals[at].round {
				return p.fw
			}
		}
	}
	return at
}

// track finds members whose events are no single chain.
func (g *Engine) track(v *values, at int32) {
	if v.who == None {
		return
	}
	if t := g.tip[v.who]; t != None && t != v.self {
		g.forked |= 1 << v.who
	}
	g.tip[v.who] = at
}

// newRow makes room for a value for each member.
func (g *Engine) newRow() int32 {
	o := len(g.rows)
	for range g.n {
		g.rows = append(g.rows, None)
	}
	return int32(o)
}

func (g *Engine) row(o int32) []int32 { return g.rows[o : int(o)+g.n : int(o)+g.n] }

// look fills the row of the last event of each member below. Where parents know
// different events of a member, the highest voting round wins; among those of it,
// the branch that the earliest parent knows; of that branch, the latest event. As
// long as a member's events are one chain, all that is: the one inserted last.
//
// Events in round 0 lose against all others and are never asked for, so that they
// are not in the rows.
func (g *Engine) look(vert *vertex, at int32) {
	o := g.newRow()
	g.vals[at].last = o
	row, first := g.row(o), true
	for _, back := range g.parentsOf(vert) {
		if back > at {
			continue
		}
		p := &g.vals[at-back]
		if !p.says || p.last == None {
			continue
		}
		other := g.row(p.last)
		if first {
			copy(row, other)
			first = false
			continue
		}
		g.mergeForked(row, other)
	}
	if c := g.vals[at].who; c != None {
		row[c] = at
	}
}

// mergeForked merges another parent's row into an event's.
func (g *Engine) mergeForked(row, other []int32) {
	var known [MaxMembers]int32
	for set := g.forked; set != 0; set &= set - 1 {
		m := bits.TrailingZeros64(set)
		known[m] = g.newer(row[m], other[m])
	}
	merge(row, other)
	for set := g.forked; set != 0; set &= set - 1 {
		m := bits.TrailingZeros64(set)
		row[m] = known[m]
	}
}

// merge takes the greater of each pair.
func merge(row, other []int32) {
	row = row[:len(other)]
	for m, s := range other {
		row[m] = max(row[m], s)
	}
}

// newer chooses between the event of a forked member that is known so far and another.
func (g *Engine) newer(known, other int32) int32 {
	if known == None || other == None {
		return max(known, other)
	}
	k, o := &g.vals[known], &g.vals[other]
	if o.round > k.round || (o.round == k.round && o.first == k.first && o.gen > k.gen) {
		return other
	}
	return known
}
