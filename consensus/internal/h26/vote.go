package h26

// castVotes fills x's row of votes. x is a witness late enough to have one. The
// vote on a member is a witness of that member, or None; final votes are marked
// by decidesAll, which decides uses.
func (g *Engine) castVotes(x int) {
	v, row := g.at(x), g.row(g.rows.vote, x)
	v.voted = true
	if v.round == g.round+g.voteD {
		for m := range row {
			row[m] = g.firstVote(x, m)
		}
		return
	}
	for m := range row {
		row[m], _ = g.count(x, m)
	}
}

// decides reports whether x's votes are final for every member.
func (g *Engine) decides(x int) bool {
	v := g.at(x)
	if !v.voted || v.round <= g.round+g.voteD || g.coinRound(v) {
		return false
	}
	for m := range g.n {
		if _, final := g.count(x, m); !final {
			return false
		}
	}
	return true
}

func (g *Engine) coinRound(v *values) bool {
	return (v.round-g.round)%g.params.CoinInterval == 0
}

// voteOf is the vote of witness w on member m: None if it is too early to have one.
func (g *Engine) voteOf(w, m int) int {
	if !g.at(w).voted {
		return None
	}
	return g.row(g.rows.vote, w)[m]
}

// firstVote is what witness x says of member m without counting others' votes.
func (g *Engine) firstVote(x, m int) int {
	if g.voteD == 1 {
		return g.witnessOf(g.row(g.rows.seen, x)[m], g.at(x).round-1)
	}
	for _, e := range g.strongBefore(x) {
		if e == None {
			continue
		}
		if below := g.strongBefore(e); below != nil && below[m] != None {
			return below[m]
		}
	}
	return None
}

// witnessOf is the witness of a round on the self-chain that ends in z.
func (g *Engine) witnessOf(z int, round uint64) int {
	for z != None {
		f := g.at(z).first
		switch r := g.at(f).round; {
		case r == round:
			return f
		case r < round:
			return None
		}
		z = g.at(f).self
	}
	return None
}

// count adds up what the witnesses that x strongly sees say of member m. In a coin
// round nothing is final, and without a supermajority the coin picks the member
// whose vote is copied.
func (g *Engine) count(x, m int) (vote int, final bool) {
	ws := g.strongBefore(x)
	best, most := None, uint64(0)
	for by, w := range ws {
		if w == None {
			continue
		}
		// The stake of a value is added up where it is named first.
		value, first := g.voteOf(w, m), true
		for _, u := range ws[:by] {
			if u != None && g.voteOf(u, m) == value {
				first = false
				break
			}
		}
		if !first {
			continue
		}
		var held uint64
		for k, u := range ws[by:] {
			if u != None && g.voteOf(u, m) == value {
				held += g.stake[by+k]
			}
		}
		if held > most {
			best, most = value, held
		}
	}
	super := g.Super(most)
	switch {
	case !g.coinRound(g.at(x)):
		return best, super
	case super:
		return best, false
	}
	vert := g.vertex(x)
	c := int(vert.Coin % uint32(g.n))
	if vert.Birth == g.round && ws != nil && ws[c] != None {
		return g.voteOf(ws[c], m), false
	}
	return None, false
}
