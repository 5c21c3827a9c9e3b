package graph

import (
	"math/rand/v2"
	"slices"

	"github.com/dcnode/dcnode/consensus/internal/h26"
)

// Options bound a random graph.
type Options struct {
	MaxMembers int  // 0: 31
	MaxEvents  int  // 0: 400
	AnyForkers bool // members fork whatever their stake, so that nothing is safe
}

// Random makes a graph, the same for the same seed: 1 to 31 members, mostly few, with
// all kinds of stakes; clocked layers or loose gossip; 1 to n parents, some of them
// stale; silent members and partitions; forks by members who hold less than a third of
// the stake; small ancient windows and coin intervals; rules and rosters that change
// between rounds. Birth rounds never decrease from parent to child and never lie ahead
// of the round that is pending.
func Random(seed uint64, o Options) *Graph {
	rng := rand.New(rand.NewPCG(seed, 2026))
	if o.MaxMembers == 0 {
		o.MaxMembers = 31
	}
	if o.MaxEvents == 0 {
		o.MaxEvents = 400
	}
	g := &Graph{Rules: randomRules(rng, min(o.MaxMembers, randomSize(rng)))}
	m := newMaker(rng, g)
	if o.AnyForkers {
		m.fork = 40
		for i := range m.forks {
			m.forks[i] = rng.IntN(3) > 0
		}
	}
	m.grow(min(o.MaxEvents, len(m.ids)*(6+rng.IntN(20))+rng.IntN(60)))
	m.name()
	return g
}

func randomSize(rng *rand.Rand) int {
	switch k := rng.IntN(100); {
	case k < 3:
		return 1
	case k < 8:
		return 2
	case k < 85:
		return 3 + rng.IntN(5)
	case k < 96:
		return 8 + rng.IntN(5)
	}
	return 13 + rng.IntN(19)
}

func pick[T any](rng *rand.Rand, of ...T) T { return of[rng.IntN(len(of))] }

// randomRules are those of round 1 and of up to three rounds later.
func randomRules(rng *rand.Rand, n int) []Rules {
	see := pick(rng, [2]uint64{1, 2}, [2]uint64{2, 3}, [2]uint64{2, 3}, [2]uint64{3, 5}, [2]uint64{1, 1})
	rules := []Rules{{From: 1, Params: Params{
		SeeNum: see[0], SeeDen: see[1], JudgeAny: rng.IntN(2) == 0, CoinInterval: pick[uint64](rng, 2, 3, 3, 4, 4, 10, 12),
		NonAncientRounds: pick[uint64](rng, 1, 1, 2, 3, 5, 26), Whiten: rng.IntN(3) == 0,
	}}}
	most := pick[uint64](rng, 1, 1, 3, 10, 1000)
	id := uint64(rng.IntN(3))
	for range n {
		rules[0].Members = append(rules[0].Members, Member{id, 1 + rng.Uint64N(most)})
		id += 1 + uint64(rng.IntN(6)/5)
	}
	if n > 1 && rng.IntN(5) == 0 {
		rules[0].Members[rng.IntN(n)].Stake = 0 // an observer
	}
	if rng.IntN(3) > 0 {
		return rules
	}
	for range 1 + rng.IntN(3) {
		rules = append(rules, changed(rng, rules[len(rules)-1]))
	}
	return rules
}

// changed are rules a few rounds later.
func changed(rng *rand.Rand, r Rules) Rules {
	r.From += 1 + uint64(rng.IntN(5))
	r.Members = slices.Clone(r.Members)
	for range 1 + rng.IntN(2) {
		k := rng.IntN(len(r.Members))
		switch rng.IntN(7) {
		case 0:
			r.JudgeAny = !r.JudgeAny
		case 1:
			r.CoinInterval, r.Whiten = pick[uint64](rng, 2, 3, 4), !r.Whiten
		case 2:
			r.NonAncientRounds = pick[uint64](rng, 1, 2, 5)
		case 3:
			r.SeeNum, r.SeeDen = pick[uint64](rng, 1, 2), 2
		case 4:
			r.Members[k].Stake = 1 + rng.Uint64N(4)
		case 5:
			last := r.Members[len(r.Members)-1]
			r.Members = append(r.Members, Member{last.ID + 1, max(1, last.Stake)})
		case 6:
			if len(r.Members) > 1 && r.Members[(k+1)%len(r.Members)].Stake > 0 {
				r.Members = slices.Delete(r.Members, k, k+1)
			}
		}
	}
	return r
}

// maker grows a graph. The engine tells it which round is pending.
type maker struct {
	*Graph
	rng   *rand.Rand
	eng   *h26.Engine
	ids   []uint64
	own   [][]int // events of each member, in order
	tip   []int   // the last of them on the branch that others hear of first
	forks []bool  // members who fork
	mute  []int   // from which step on a member is silent
	side  []int   // which part of a partition a member is in
	clock int64

	stale, fork, lag int // per cent
	parents          int // other-parents at most
	layered          bool
}

func newMaker(rng *rand.Rand, g *Graph) *maker {
	m := &maker{Graph: g, rng: rng, ids: g.MemberIDs()}
	n := len(m.ids)
	m.own, m.tip, m.side = make([][]int, n), make([]int, n), make([]int, n)
	m.forks, m.mute = make([]bool, n), make([]int, n)
	for i := range n {
		m.tip[i], m.mute[i] = None, 1<<30
		if rng.IntN(12) == 0 {
			m.mute[i] = rng.IntN(60)
		}
	}
	m.eng = g.engine(m.ids)
	m.stale, m.fork, m.lag = pick(rng, 0, 0, 5, 30), pick(rng, 0, 10, 25, 60), pick(rng, 0, 0, 10, 50)
	m.parents = pick(rng, 1, 2, n, n)
	m.layered = rng.IntN(2) == 0
	if m.fork > 0 {
		m.chooseForkers()
	}
	return m
}

// chooseForkers takes members in random order as long as they hold less than a third
// of the stake in every roster.
func (m *maker) chooseForkers() {
	for _, i := range m.rng.Perm(len(m.ids)) {
		m.forks[i] = true
		for _, r := range m.Rules {
			var forkers, total uint64
			for _, x := range r.Members {
				total += x.Stake
				if k, _ := slices.BinarySearch(m.ids, x.ID); m.forks[k] {
					forkers += x.Stake
				}
			}
			if 3*forkers >= total {
				m.forks[i] = false
			}
		}
	}
}

// grow makes events until there are so many.
func (m *maker) grow(events int) {
	n := len(m.ids)
	for step := 0; len(m.Events) < events && step < 4*events; step++ {
		if m.rng.IntN(40) == 0 { // the net parts or heals
			parts := pick(m.rng, 1, 1, 2)
			for i := range m.side {
				m.side[i] = m.rng.IntN(parts)
			}
		}
		tips := slices.Clone(m.tip)
		if !m.layered {
			m.create(m.rng.IntN(n), step, m.tip)
			continue
		}
		for _, i := range m.rng.Perm(n) {
			if m.rng.IntN(8) == 0 { // a quick one, who has heard of this layer already
				m.create(i, step, m.tip)
			} else {
				m.create(i, step, tips)
			}
		}
	}
}

// create makes one event by member i, with heads of others as they are in tips.
func (m *maker) create(i, step int, tips []int) {
	if step >= m.mute[i] {
		return
	}
	rng := m.rng
	e := Event{Creator: m.ids[i], SelfParent: m.tip[i], Coin: rng.Uint32N(1 << pick(rng, 3, 31))}
	if m.forks[i] && len(m.own[i]) > 0 && rng.IntN(100) < m.fork {
		if e.SelfParent = m.own[i][rng.IntN(len(m.own[i]))]; rng.IntN(10) == 0 {
			e.SelfParent = None
		}
	}
	if e.SelfParent != None {
		e.Parents = []int{e.SelfParent}
	}
	for _, c := range rng.Perm(len(m.ids)) {
		if c == i || tips[c] == None || m.side[c] != m.side[i] || len(e.Parents) > m.parents {
			continue
		}
		if m.parents > 2 && rng.IntN(10) == 0 {
			continue
		}
		q := tips[c]
		for rng.IntN(100) < m.stale && m.Events[q].SelfParent != None {
			q = m.Events[q].SelfParent
		}
		e.Parents = append(e.Parents, q)
	}
	m.put(i, e)
}

func (m *maker) put(i int, e Event) {
	rng := m.rng
	m.clock += rng.Int64N(1000)
	e.Time = m.clock + rng.Int64N(2000)
	low := uint64(1)
	for _, q := range e.Parents {
		low = max(low, m.Events[q].Birth)
	}
	e.Birth = max(low, m.eng.Pending())
	if rng.IntN(100) < m.lag {
		e.Birth = low + rng.Uint64N(e.Birth-low+1)
	}
	for _, r := range m.Rules {
		if r.Whiten && e.Hash == [32]byte{} {
			for k := range e.Hash {
				e.Hash[k] = byte(rng.Uint32())
			}
		}
	}
	x := len(m.Events)
	m.Events = append(m.Events, e)
	m.own[i] = append(m.own[i], x)
	if !m.forks[i] || rng.IntN(3) > 0 {
		m.tip[i] = x
	}
	m.eng.Add(vertex(e, m.ids))
	for _, ok := m.eng.Decide(); ok; _, ok = m.eng.Decide() {
	}
}

// name gives the events their ids: mostly by place, sometimes any.
func (m *maker) name() {
	order := make([]int, len(m.Events))
	for x := range order {
		order[x] = x
	}
	if m.rng.IntN(5) == 0 {
		order = m.rng.Perm(2 * len(order))
	}
	for x := range m.Events {
		m.Events[x].ID = int64(order[x])
	}
}
