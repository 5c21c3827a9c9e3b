package h26

// value computes what the rules say of x in the pending round, from its parents.
func (g *Engine) value(x int) {
	v, vert := g.at(x), g.vertex(x)
	*v = values{self: None, first: x, fw: None, parent: g.round - 1}
	var proper uint64
	for _, q := range vert.Parents {
		if q < g.start || g.ancient(q) {
			continue
		}
		w := g.at(q)
		proper |= w.below
		if !g.live(w) {
			continue
		}
		v.gen = max(v.gen, w.gen)
		v.parent = max(v.parent, w.round)
		if q == vert.SelfParent {
			v.self = q
		}
	}
	v.gen++
	v.below = proper
	for k, j := range g.judges {
		if j == x {
			v.below |= 1 << k
		}
	}
	g.look(x)
	v.round = g.votingRound(x, proper)
	v.isFirst = v.self == None || g.at(v.self).round < v.round
	if !v.isFirst {
		v.first = g.at(v.self).first
	}
	v.fw = g.firstWitness(x)
	if v.isFirst && v.round >= g.round+g.voteD {
		g.castVotes(x)
	}
}

// live reports whether an event has a say: it is above a judge of the round before.
func (g *Engine) live(v *values) bool { return g.round == 1 || v.below != 0 }

// says reports whether parent q of an event has a say.
func (g *Engine) says(q int) bool {
	return q >= g.start && !g.ancient(q) && g.live(g.at(q))
}

// look fills the row of the last event of each member below x. Where parents know
// different events of a member, the highest voting round wins; among those of it,
// the branch that the earliest parent knows; of that branch, the latest event.
func (g *Engine) look(x int) {
	vert, row := g.vertex(x), g.row(g.rows.seen, x)
	for m := range row {
		row[m] = None
	}
	for _, q := range vert.Parents {
		if !g.says(q) {
			continue
		}
		for m, s := range g.row(g.rows.seen, q) {
			if s != None {
				row[m] = g.newer(row[m], s)
			}
		}
	}
	if c := g.who(x); c != None {
		row[c] = x
	}
}

// newer chooses between the event of a member that is known so far and another.
func (g *Engine) newer(known, other int) int {
	if known == None {
		return other
	}
	k, o := g.at(known), g.at(other)
	if o.round > k.round || (o.round == k.round && o.first == k.first && o.gen > k.gen) {
		return other
	}
	return known
}

// votingRound is the voting round of x; proper is the set of judges below x.
func (g *Engine) votingRound(x int, proper uint64) uint64 {
	r := g.at(x).parent
	switch {
	case r < g.round:
		if proper == uint64(1)<<len(g.judges)-1 {
			return g.round
		}
		return r
	case r == g.round && g.voteD == 1 && g.seesRound(x, r):
		return r + 1
	}
	var held uint64
	for m, w := range g.strong(x) {
		if w != None {
			held += g.stake[m]
		}
	}
	if g.Super(held) {
		return r + 1
	}
	return r
}

// seesRound is the fast step: enough stake is in round r already, as seen from x.
func (g *Engine) seesRound(x int, r uint64) bool {
	var held uint64
	for m, s := range g.row(g.rows.seen, x) {
		if s == x {
			s = g.at(x).self
		}
		if s != None && g.at(s).round == r {
			held += g.stake[m]
		}
	}
	return g.params.SeeDen*held > g.params.SeeNum*g.total
}

// strong is the row of witnesses in x's parent round that x strongly sees.
func (g *Engine) strong(x int) []int {
	row, v := g.row(g.rows.strong, x), g.at(x)
	if v.strong {
		return row
	}
	v.strong = true
	for m := range row {
		row[m] = None
		s := g.through(x, m, m)
		if s == None || g.at(s).round != v.parent {
			continue
		}
		var held uint64
		for by := range row {
			if g.through(x, m, by) == s {
				held += g.stake[by]
			}
		}
		if g.Super(held) {
			row[m] = s
		}
	}
	return row
}

// through is the witness of member m that x sees by way of member by.
func (g *Engine) through(x, m, by int) int {
	if m == by && m == g.who(x) {
		if sp := g.at(x).self; sp != None {
			return g.at(sp).first
		}
		return None
	}
	s := g.row(g.rows.seen, x)[by]
	if s == None {
		return None
	}
	if s = g.row(g.rows.seen, s)[m]; s == None {
		return None
	}
	return g.at(s).first
}

// firstWitness follows first parents down to the event that entered x's voting round.
func (g *Engine) firstWitness(x int) int {
	v, any := g.at(x), false
	for _, q := range g.vertex(x).Parents {
		if !g.says(q) {
			continue
		}
		any = true
		if w := g.at(q); w.round == v.round && v.round <= v.parent {
			return w.fw
		}
	}
	if !any {
		return None
	}
	return x
}

// strongBefore is the row of witnesses strongly seen in the round before x's.
func (g *Engine) strongBefore(x int) []int {
	if fw := g.at(x).fw; fw != None {
		return g.strong(fw)
	}
	return nil
}
