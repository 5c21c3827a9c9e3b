package h26

import (
	"bytes"
	"cmp"
	"slices"
)

// scratch is what ordering a round needs and the next may use again.
type scratch struct {
	list   []placed
	path   []int // what a walk came by, parents first
	stack  []step
	chain  []int
	times  []int64
	counts []int
	weigh  []weighted
	stamp  uint32
	white  [32]byte
}

// placed is an event on its way into the order.
type placed struct {
	Received
	gen  int32
	walk int32
}

// step is an event on the way down, and which of its parents comes next.
type step struct{ x, parent int }

type weighted struct {
	time  int64
	stake uint64
}

// decide closes the pending round; x is the event that decides it.
func (g *Engine) decide(x int) Decision {
	v := &g.vals[x-g.start]
	d := Decision{
		Round: g.round, VoteD: uint64(g.voteD), MinBirth: g.minBirth, Decider: x,
		Late: v.round > 2+g.voteD, Judges: make([]int, 0, g.n),
	}
	var held uint64
	for _, w := range g.row(v.vote) {
		if w != None {
			j := int(w) + g.start
			d.Judges = append(d.Judges, j)
			held += g.weight(j)
		}
	}
	g.over = true
	g.then.Round, g.then.Copied, g.then.Copies = g.round, false, 0
	if !g.Super(held) {
		d.Judges = append(d.Judges[:0], g.judges...)
		d.Copied, g.then.Copied, g.then.Copies = true, true, g.copies+1
	}
	g.then.Judges = append(g.then.Judges[:0], d.Judges...)
	d.Median = g.medianOfJudges(d.Judges)
	d.Received = g.receive(&d)
	return d
}

// receive orders what the judges of d have below them and earlier judges had not:
// by consensus time, then generation, then whitened hash if the rules say so, then
// place in a walk down from the judges.
func (g *Engine) receive(d *Decision) []Received {
	g.list = empty(g.list)
	switch {
	case len(d.Judges) == 0:
		return nil
	case g.params.JudgeAny:
		g.receiveAny(d)
	default:
		g.receiveAll(d)
	}
	if g.params.Whiten {
		g.white = [32]byte{}
		for _, j := range d.Judges {
			g.white = xor(&g.white, &g.hash[j-g.origin])
		}
		slices.SortFunc(g.list, g.byWhitened)
	} else {
		slices.SortFunc(g.list, byWalk)
	}
	out := make([]Received, len(g.list))
	for i := range g.list {
		out[i] = g.list[i].Received
		g.vertex(out[i].Index).got = true
	}
	return out
}

func byGen(a, b *placed) int {
	if a.Time != b.Time {
		return cmp.Compare(a.Time, b.Time)
	}
	return cmp.Compare(a.gen, b.gen)
}

func byWalk(a, b placed) int {
	if c := byGen(&a, &b); c != 0 {
		return c
	}
	return cmp.Compare(a.walk, b.walk)
}

func (g *Engine) byWhitened(a, b placed) int {
	if c := byGen(&a, &b); c != 0 {
		return c
	}
	ha, hb := xor(&g.white, &g.hash[a.Index-g.origin]), xor(&g.white, &g.hash[b.Index-g.origin])
	if c := bytes.Compare(ha[:], hb[:]); c != 0 {
		return c
	}
	return cmp.Compare(a.walk, b.walk)
}

func xor(a, b *[32]byte) (out [32]byte) {
	for i := range a {
		out[i] = a[i] ^ b[i]
	}
	return out
}

// gen is the generation of x in the pending round.
func (g *Engine) gen(x int) int32 {
	if x < g.start {
		return 1
	}
	return g.vals[x-g.start].gen
}

func (g *Engine) receiveAny(d *Decision) {
	g.newWalk()
	for _, j := range d.Judges {
		g.walk(j)
	}
	for i, x := range g.path {
		gen := g.gen(x)
		g.list = append(g.list, placed{Received{x, d.Median + int64(gen)}, gen, int32(i)})
	}
}

// receiveAll lists what all judges have below them. The time of an event is the
// median of the times at which the judges' own chains first had it below them.
func (g *Engine) receiveAll(d *Decision) {
	n := len(d.Judges)
	g.newWalk()
	g.walk(d.Judges[n-1])
	for i, x := range g.path {
		g.vertex(x).place = int32(i)
		g.list = append(g.list, placed{Received{Index: x}, g.gen(x), int32(i)})
	}
	g.times, g.counts = empty(g.times), empty(g.counts)
	g.times = append(g.times, make([]int64, n*len(g.list))...)
	g.counts = append(g.counts, make([]int, len(g.list))...)
	for k, j := range d.Judges {
		g.chainTimes(k, j, n)
	}
	kept := g.list[:0]
	for i, p := range g.list {
		g.vertex(p.Index).place = None
		if g.counts[i] == n {
			p.Time = g.medianOf(d.Judges, g.times[i*n:])
			kept = append(kept, p)
		}
	}
	g.list = kept
}

// chainTimes notes, for each event that is listed, the creation time of the earliest
// self-ancestor of the judge j, the k-th of n, that has the event below it.
func (g *Engine) chainTimes(k, j, n int) {
	g.chain = empty(g.chain)
	for x := j; ; {
		g.chain = append(g.chain, x)
		v := g.vertex(x)
		x -= int(v.self)
		if v.got || v.self == 0 || x < g.base || g.vertex(x).birth < g.minBirth {
			break
		}
	}
	g.newWalk()
	for i := len(g.chain) - 1; i >= 0; i-- {
		from, t := len(g.path), g.vertex(g.chain[i]).time
		g.walk(g.chain[i])
		for _, x := range g.path[from:] {
			if p := int(g.vertex(x).place); p != None {
				g.times[p*n+k] = t
				g.counts[p]++
			}
		}
	}
}

// newWalk begins a walk.
func (g *Engine) newWalk() {
	if cap(g.stack) > 1024+8*len(g.path) {
		g.stack = nil // it was never longer than the path
	}
	g.path = empty(g.path)
	if g.stamp++; g.stamp == 0 {
		for i := range g.vert {
			g.vert[i].stamp = 0
		}
		g.stamp = 1
	}
}

// walk appends to path x and what is below it, through parents that are not ancient,
// in post-order with parents in signed order. What the walk has come by already, and
// what was received in an earlier round, is passed over with all below it.
func (g *Engine) walk(x int) {
	if !g.pass(g.vertex(x)) {
		return
	}
	g.stack = append(g.stack[:0], step{x, 0})
	for len(g.stack) > 0 {
		top := &g.stack[len(g.stack)-1]
		v := g.vertex(top.x)
		if top.parent == int(v.count) {
			g.path = append(g.path, top.x)
			g.stack = g.stack[:len(g.stack)-1]
			continue
		}
		q := top.x - int(g.parentsOf(v)[top.parent])
		top.parent++
		if q >= g.base {
			if p := g.vertex(q); p.birth >= g.minBirth && g.pass(p) {
				g.stack = append(g.stack, step{q, 0})
			}
		}
	}
}

// pass marks v as come by, unless it is to be passed over.
func (g *Engine) pass(v *vertex) bool {
	if v.got || v.stamp == g.stamp {
		return false
	}
	v.stamp = g.stamp
	return true
}

// markReceived marks what some judge has below it, or all have.
func (g *Engine) markReceived(judges []int, minBirth uint64, anyJudge bool) {
	below := make([]uint64, len(g.vert))
	for k, j := range judges {
		below[j-g.origin] |= 1 << k
	}
	full := uint64(1)<<len(judges) - 1
	for i := len(g.vert) - 1; i >= 0; i-- {
		v := &g.vert[i]
		v.got = below[i] != 0 && (anyJudge || below[i] == full)
		for _, back := range g.parentsOf(v) {
			if q := i - int(back); q >= 0 && g.vert[q].birth >= minBirth {
				below[q] |= below[i]
			}
		}
	}
}

// medianOfJudges is the weighted median of the judges' creation times.
func (g *Engine) medianOfJudges(judges []int) int64 {
	g.weigh = g.weigh[:0]
	for _, j := range judges {
		g.weigh = append(g.weigh, weighted{g.vertex(j).time, g.weight(j)})
	}
	return median(g.weigh)
}

// medianOf is the weighted median of times of which each judge has one.
func (g *Engine) medianOf(judges []int, times []int64) int64 {
	g.weigh = g.weigh[:0]
	for k, j := range judges {
		g.weigh = append(g.weigh, weighted{times[k], g.weight(j)})
	}
	return median(g.weigh)
}

// median sorts a list by time, and returns the first time at which the running stake
// reaches half of the total.
func median(list []weighted) int64 {
	slices.SortFunc(list, func(a, b weighted) int { return cmp.Compare(a.time, b.time) })
	var total, sum uint64
	for _, w := range list {
		total += w.stake
	}
	for _, w := range list {
		if sum += w.stake; sum >= total-total/2 {
			return w.time
		}
	}
	return 0
}
