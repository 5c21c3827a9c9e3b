package h26

import "math/bits"

// castVotes fills an event's row of votes, and reports whether all of them are final,
// which decides the round. The event is a witness late enough to have votes. The
// vote on a member is a witness of that member, or None.
func (g *Engine) castVotes(at int32, vert *vertex) bool {
	o := g.newRow()
	g.vals[at].vote = o
	switch {
	case g.vals[at].round > 1+g.voteD:
		return g.countVotes(at, o, vert)
	case g.voteD == 1:
		g.voteSeen(at, o)
	default:
		g.voteStrong(at, o)
	}
	return false
}

// voteSeen is the first vote one round after the witnesses: those that are seen.
func (g *Engine) voteSeen(at, o int32) {
	row, round := g.row(o), g.vals[at].round-1
	for m, z := range g.row(g.vals[at].last) {
		row[m] = g.witnessOf(z, round)
	}
}

// witnessOf is the witness of a round on the self-chain that ends in z.
func (g *Engine) witnessOf(z, round int32) int32 {
	for z != None {
		f := g.vals[z].first
		switch r := g.vals[f].round; {
		case r == round:
			return f
		case r < round:
			return None
		}
		z = g.vals[f].self
	}
	return None
}

// voteStrong is the first vote two rounds after the witnesses: those that a strongly
// seen witness of the round between strongly sees, in the order of members.
func (g *Engine) voteStrong(at, o int32) {
	// Rows move when one is added: make all first.
	for m := range g.n {
		if e := g.strongBefore(at)[m]; e != None {
			g.strongBefore(e)
		}
	}
	row := g.row(o)
	for _, e := range g.strongBefore(at) {
		if e == None {
			continue
		}
		for m, w := range g.strongBefore(e) {
			if row[m] == None {
				row[m] = w
			}
		}
	}
}

// countVotes adds up what the witnesses that an event strongly sees say of each
// member. In a coin round nothing is final, and without a supermajority the coin
// picks the member whose vote is copied.
func (g *Engine) countVotes(at, o int32, vert *vertex) (final bool) {
	ws := g.strongBefore(at)
	row := g.row(o)
	super := g.agreed(ws, row)
	coin := uint64(g.vals[at].round-1)%g.params.CoinInterval == 0
	open := super ^ (uint64(1)<<g.n - 1)
	for set := open; set != 0; set &= set - 1 {
		m := bits.TrailingZeros64(set)
		vote, most := g.tally(ws, m)
		switch {
		case g.Super(most):
			open &^= 1 << m
		case coin:
			vote = g.toss(ws, m, vert)
		}
		row[m] = vote
	}
	return open == 0 && !coin
}

// agreed fills a row with the votes of the first witness, and returns the set of
// members on whom a supermajority votes like that one. Nearly always it is all.
func (g *Engine) agreed(ws, row []int32) (super uint64) {
	var held [MaxMembers]uint64
	first := true
	for by, w := range ws {
		if w == None {
			continue
		}
		votes, stake := g.row(g.vals[w].vote), g.stake[by]
		if first {
			copy(row, votes)
			first = false
		}
		for m, v := range votes {
			if v == row[m] {
				held[m] += stake
			}
		}
	}
	for m := range row {
		if g.Super(held[m]) {
			super |= 1 << m
		}
	}
	return super
}

// tally finds the vote on member m that has the most stake, of equals the one that
// the first witness casts.
func (g *Engine) tally(ws []int32, m int) (best int32, most uint64) {
	best = None
	for by, w := range ws {
		if w == None {
			continue
		}
		value := g.voteOf(w, m)
		if g.named(ws[:by], m, value) {
			continue
		}
		var held uint64
		for k := by; k < len(ws); k++ {
			if u := ws[k]; u != None && g.voteOf(u, m) == value {
				held += g.stake[k]
			}
		}
		if held > most {
			best, most = value, held
		}
	}
	return best, most
}

// named reports whether one of the witnesses votes for value on member m.
func (g *Engine) named(ws []int32, m int, value int32) bool {
	for _, u := range ws {
		if u != None && g.voteOf(u, m) == value {
			return true
		}
	}
	return false
}

// toss is the vote on member m that an event's coin picks.
func (g *Engine) toss(ws []int32, m int, vert *vertex) int32 {
	c := vert.coin % uint32(g.n)
	if vert.birth == g.round && ws[c] != None {
		return g.voteOf(ws[c], m)
	}
	return None
}

// voteOf is the vote on member m of a witness in the rounds that vote.
func (g *Engine) voteOf(w int32, m int) int32 { return g.rows[int(g.vals[w].vote)+m] }
