package main

import "math/rand/v2"

// link is an event of the random gossip graph: its creator, and the places of its
// parents, or -1.
type link struct {
	creator     int
	self, other int
}

// gossip makes the graph that all engines get, one event per call: a uniformly
// drawn creator, whose event has its own last and that of a uniformly drawn other
// member as parents. The first event of each member has no parents.
type gossip struct {
	rnd   *rand.Rand
	heads []int
	made  int
}

func newGossip(n int, seed uint64) *gossip {
	g := &gossip{rnd: rand.New(rand.NewPCG(seed, 1))}
	for range n {
		g.heads = append(g.heads, -1)
	}
	return g
}

func (g *gossip) next() link {
	n := len(g.heads)
	l := link{creator: g.made, self: -1, other: -1}
	if g.made >= n {
		l.creator = g.rnd.IntN(n)
		other := (l.creator + 1 + g.rnd.IntN(n-1)) % n
		l.self, l.other = g.heads[l.creator], g.heads[other]
	}
	g.heads[l.creator] = g.made
	g.made++
	return l
}
