package h26

import "math/bits"

// castVotes fills an event's row of votes, and reports whether all of them are final,
// which decides the round. The event is a witness late enough to have votes. The
// vote on a member is a witness of that member in the pending round, or None.
func (g *Engine) castVotes(at int32, vert *vertex) (final bool) {
	o := g.newRow()
	g.vals[at].vote = o
	switch {
	case g.vals[at].round > 1+g.voteD:
		final = g.countVotes(at, o, vert)
	case g.voteD == 1:
		g.voteSeen(at, o)
	default:
		g.voteStrong(at, o)
	}
	yes := uint64(0)
	for m, w := range g.row(o) {
		if w != None {
			yes |= 1 << m
		}
	}
	g.vals[at].yes = yes
	return final
}

// voteSeen is the first vote one round after the witnesses: those that are seen.
func (g *Engine) voteSeen(at, o int32) {
	row := g.row(o)
	for m, z := range g.row(g.vals[at].last) {
		row[m] = g.witnessOf(z)
	}
}

// witnessOf is the witness of the pending round on the self-chain that ends in z.
func (g *Engine) witnessOf(z int32) int32 {
	for z != None {
		f := g.vals[z].first
		switch r := g.vals[f].round; {
		case r == 1:
			return f
		case r < 1:
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
// member: the value with the most stake is the event's vote, and final if that is a
// supermajority. In a coin round nothing is final, and without a supermajority the
// coin picks the member whose vote is copied.
func (g *Engine) countVotes(at, o int32, vert *vertex) (final bool) {
	ws, row := g.strongBefore(at), g.row(o)
	open := g.countChains(ws, row)
	for set := g.forked; set != 0; set &= set - 1 {
		m := bits.TrailingZeros64(set)
		vote, most := g.countBranches(ws, m)
		row[m] = vote
		if open &^= 1 << m; !g.Super(most) {
			open |= 1 << m
		}
	}
	coin := uint64(g.vals[at].round-1)%g.params.CoinInterval == 0
	if coin {
		for set := open; set != 0; set &= set - 1 {
			m := bits.TrailingZeros64(set)
			row[m] = g.toss(ws, m, vert)
		}
	}
	return open == 0 && !coin
}

// countChains counts the votes on all members as if none had branched, and returns
// the set of those on whom nothing has a supermajority. Of a member with a single
// chain there is one witness to vote for. It has the stake of the yes votes, and None
// has the rest; of equals, what the first says wins.
func (g *Engine) countChains(ws, row []int32) (open uint64) {
	var votes tally
	var total, first uint64
	g.reset(&votes)
	for by := g.n - 1; by >= 0; by-- {
		if w := ws[by]; w != None {
			first = g.vals[w].yes
			g.add(&votes, first, by)
			total += g.stake[by]
		}
	}
	if total == 0 {
		return g.all
	}
	more := g.above(&votes, total/2)
	if total%2 == 0 {
		more |= g.above(&votes, total/2-1) & first
	}
	for set := more; set != 0; set &= set - 1 {
		m := bits.TrailingZeros64(set)
		row[m] = g.asked[m]
	}
	open = g.all &^ g.above(&votes, g.limit)
	if total > g.limit {
		open &= g.above(&votes, total-g.limit-1)
	}
	return open
}

// countBranches finds the vote on member m that has the most stake, of equals the one
// that the first witness casts.
func (g *Engine) countBranches(ws []int32, m int) (best int32, most uint64) {
	best = None
	for by, w := range ws {
		if w == None {
			continue
		}
		// What was counted from an earlier witness on comes out lower here.
		value := g.voteOf(w, m)
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
