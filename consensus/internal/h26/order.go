package h26

import (
	"bytes"
	"cmp"
	"slices"
)

// decide closes the pending round; x is the event that decides it.
func (g *Engine) decide(x int) Decision {
	d := Decision{
		Round: g.round, VoteD: g.voteD, MinBirth: g.minBirth, Decider: x,
		Late: g.at(x).round > g.round+g.voteD+1,
	}
	var held uint64
	for _, w := range g.row(g.rows.vote, x) {
		if w != None {
			d.Judges = append(d.Judges, w)
			held += g.weight(w)
		}
	}
	if !g.Super(held) {
		d.Judges = append([]int(nil), g.judges...)
		d.Copied = true
	}
	d.Median = g.median(d.Judges, func(_, j int) int64 { return g.vertex(j).Time })
	d.Received = g.receive(&d)
	return d
}

// placed is an event on its way into the order.
type placed struct {
	Received
	gen, walk int
}

// receive orders what the judges of d have below them and earlier judges had not:
// by consensus time, then generation, then whitened hash if the rules say so, then
// place in a walk down from the judges.
func (g *Engine) receive(d *Decision) []Received {
	if len(d.Judges) == 0 {
		return nil
	}
	var list []placed
	if g.params.JudgeAny {
		list = g.receiveAny(d)
	} else {
		list = g.receiveAll(d)
	}
	var white [32]byte
	for _, j := range d.Judges {
		white = xor(white, g.vertex(j).Hash)
	}
	slices.SortFunc(list, func(a, b placed) int {
		if c := cmp.Or(cmp.Compare(a.Time, b.Time), cmp.Compare(a.gen, b.gen)); c != 0 {
			return c
		}
		if g.params.Whiten {
			ha, hb := xor(white, g.vertex(a.Index).Hash), xor(white, g.vertex(b.Index).Hash)
			if c := bytes.Compare(ha[:], hb[:]); c != 0 {
				return c
			}
		}
		return cmp.Compare(a.walk, b.walk)
	})
	out := make([]Received, len(list))
	for i := range list {
		out[i] = list[i].Received
		g.got[list[i].Index-g.base] = true
	}
	return out
}

func xor(a, b [32]byte) [32]byte {
	for i := range a {
		a[i] ^= b[i]
	}
	return a
}

func (g *Engine) receiveAny(d *Decision) []placed {
	var list []placed
	seen := make([]bool, len(g.vert))
	for _, j := range d.Judges {
		g.walk(j, seen, func(x int) {
			gen := g.gen(x)
			list = append(list, placed{Received{x, d.Median + int64(gen)}, gen, len(list)})
		})
	}
	return list
}

func (g *Engine) receiveAll(d *Decision) []placed {
	// When each judge's own chain first had an event below it.
	first := make([][]int64, len(d.Judges))
	has := make([][]bool, len(d.Judges))
	for k, j := range d.Judges {
		first[k], has[k] = g.chainTimes(j)
	}
	var list []placed
	seen := make([]bool, len(g.vert))
	g.walk(d.Judges[len(d.Judges)-1], seen, func(x int) {
		for k := range d.Judges {
			if !has[k][x-g.base] {
				return
			}
		}
		t := g.median(d.Judges, func(k, _ int) int64 { return first[k][x-g.base] })
		gen := g.gen(x)
		list = append(list, placed{Received{x, t}, gen, len(list)})
	})
	return list
}

// chainTimes says, for each event, the creation time of the earliest self-ancestor
// of j that has the event below it, and whether there is one.
func (g *Engine) chainTimes(j int) ([]int64, []bool) {
	var chain []int
	for x := j; x != None && (x == j || !g.ancient(x)); x = g.vertex(x).SelfParent {
		chain = append(chain, x)
	}
	times, seen := make([]int64, len(g.vert)), make([]bool, len(g.vert))
	for i := len(chain) - 1; i >= 0; i-- {
		t := g.vertex(chain[i]).Time
		g.walk(chain[i], seen, func(x int) { times[x-g.base] = t })
	}
	return times, seen
}

// walk calls visit for x and what is below it, through parents that are not
// ancient, in post-order with parents in signed order. What is marked in seen, and
// what was received in an earlier round, is passed over with all below it.
func (g *Engine) walk(x int, seen []bool, visit func(int)) {
	type frame struct{ x, parent int }
	if seen[x-g.base] || g.got[x-g.base] {
		return
	}
	seen[x-g.base] = true
	stack := []frame{{x, 0}}
	for len(stack) > 0 {
		top := &stack[len(stack)-1]
		ps := g.vertex(top.x).Parents
		if top.parent == len(ps) {
			visit(top.x)
			stack = stack[:len(stack)-1]
			continue
		}
		q := ps[top.parent]
		top.parent++
		if !seen[q-g.base] && !g.got[q-g.base] && !g.ancient(q) {
			seen[q-g.base] = true
			stack = append(stack, frame{q, 0})
		}
	}
}

// median is the first time at which the running stake of the judges, sorted by
// time, reaches half of theirs. time is given the place in the list and the judge.
func (g *Engine) median(judges []int, time func(k, j int) int64) int64 {
	type weighted struct {
		time  int64
		stake uint64
	}
	var list []weighted
	var total, sum uint64
	for k, j := range judges {
		w := weighted{time(k, j), g.weight(j)}
		total += w.stake
		list = append(list, w)
	}
	slices.SortFunc(list, func(a, b weighted) int { return cmp.Compare(a.time, b.time) })
	for _, w := range list {
		if sum += w.stake; sum >= total-total/2 {
			return w.time
		}
	}
	return 0
}
