package slow

import (
	"bytes"
	"cmp"
	"slices"
)

// close is the pending round as decided by x.
func (r *round) close(x int) Round {
	d := Round{
		Round: r.p, VoteD: r.voteD, MinBirth: r.minNA, Decider: x,
		Late: r.vr(x) > r.p+r.voteD+1, Rows: r.rowsUpTo(x),
	}
	var held uint64
	for m := range r.Members {
		if w := r.vote(x, m).value; w != None {
			d.Judges = append(d.Judges, w)
			held += r.Members[m].Stake
		}
	}
	if !r.supermajority(held) {
		d.Judges, d.Copied = slices.Clone(r.j), true
	}
	d.Received = r.order(d.Judges)
	return d
}

func (r *round) rowsUpTo(x int) []Row {
	var rows []Row
	for e := r.from; e <= x; e++ {
		if r.live(e) {
			rows = append(rows, Row{e, r.vr(e), r.first(e), r.gen(e)})
		}
	}
	return rows
}

// ancestors are x and what is below it through parents that are not ancient.
func (r *round) ancestors(x int) map[int]bool {
	set := map[int]bool{}
	var down func(int)
	down = func(y int) {
		if set[y] {
			return
		}
		set[y] = true
		for _, q := range r.nonAncient(y) {
			down(q)
		}
	}
	down(x)
	return set
}

// receivedBy are the events that are ancestors of any judge, or of all of them.
func (r *round) receivedBy(judges []int) map[int]bool {
	count := map[int]int{}
	for _, j := range judges {
		for x := range r.ancestors(j) {
			count[x]++
		}
	}
	set := map[int]bool{}
	for x, n := range count {
		if r.JudgeAny || n == len(judges) {
			set[x] = true
		}
	}
	return set
}

// order are the events that the judges receive and those before them had not, by
// consensus time, generation, whitened hash and place in the walk.
func (r *round) order(judges []int) []Received {
	received := r.receivedBy(judges)
	times := r.consensusTimes(judges)
	var white [32]byte
	for _, j := range judges {
		white = xor(white, r.events[j].Hash)
	}
	place := r.walk(judges)
	var list []Received
	for x := range received {
		if !r.before[x] {
			list = append(list, Received{x, times(x)})
		}
	}
	slices.SortFunc(list, func(a, b Received) int {
		c := cmp.Or(cmp.Compare(a.Time, b.Time), cmp.Compare(r.gen(a.Index), r.gen(b.Index)))
		if c == 0 && r.Whiten {
			x, y := xor(r.events[a.Index].Hash, white), xor(r.events[b.Index].Hash, white)
			c = bytes.Compare(x[:], y[:])
		}
		return cmp.Or(c, cmp.Compare(place[a.Index], place[b.Index]))
	})
	return list
}

// walk numbers events in depth-first post-order, parents in signed order, down from
// the judges in member order: from the last one only if all must receive.
func (r *round) walk(judges []int) map[int]int {
	if !r.JudgeAny && len(judges) > 0 {
		judges = judges[len(judges)-1:]
	}
	place, seen := map[int]int{}, map[int]bool{}
	var down func(int)
	down = func(x int) {
		if seen[x] {
			return
		}
		seen[x] = true
		for _, q := range r.nonAncient(x) {
			down(q)
		}
		place[x] = len(place)
	}
	for _, j := range judges {
		down(j)
	}
	return place
}

// consensusTimes is the function that gives the consensus time of an event.
func (r *round) consensusTimes(judges []int) func(x int) int64 {
	if r.JudgeAny {
		median := r.median(judges, func(j int) int64 { return r.events[j].Time })
		return func(x int) int64 { return median + int64(r.gen(x)) }
	}
	// The time of the earliest self-ancestor of each judge that has an event below it.
	first := map[int]map[int]int64{}
	for _, j := range judges {
		first[j] = map[int]int64{}
		for s := j; s != None; s = r.nonAncientSelf(s) {
			for x := range r.ancestors(s) {
				first[j][x] = r.events[s].Time
			}
		}
	}
	return func(x int) int64 {
		return r.median(judges, func(j int) int64 { return first[j][x] })
	}
}

// nonAncientSelf is the self-parent of x if it is not ancient.
func (r *round) nonAncientSelf(x int) int {
	for _, q := range r.nonAncient(x) {
		if q == r.events[x].SelfParent {
			return q
		}
	}
	return None
}

// median is the first time at which the running stake of the judges, sorted by time,
// reaches half of theirs, rounded up.
func (r *round) median(judges []int, time func(j int) int64) int64 {
	list := slices.Clone(judges)
	slices.SortFunc(list, func(a, b int) int { return cmp.Compare(time(a), time(b)) })
	var total, sum uint64
	for _, j := range list {
		total += r.stakeOf(r.events[j].Creator)
	}
	for _, j := range list {
		if sum += r.stakeOf(r.events[j].Creator); sum >= (total+1)/2 {
			return time(j)
		}
	}
	return 0
}
