package h26

import (
	"math/rand/v2"
	"slices"
)

// recipe is how a random graph is made and under which rules.
type recipe struct {
	events    int
	slots     int     // creators, of which rosters take some
	members   int     // at most, in a roster
	parents   int     // other-parents, at most
	fork      float64 // how often an event is not on top of its creator's last
	stale     float64 // how often a parent is not the last of its creator
	lag       uint64  // how many rounds behind an event may be born
	unordered bool    // births may go down along an edge, which no Core lets pass
	change    float64 // how often a round brings new rules
	weights   bool    // stakes differ
}

// randomRecipe picks what to try.
func randomRecipe(rng *rand.Rand) recipe {
	r := recipe{
		events: 100 + rng.IntN(250), slots: 1 + rng.IntN(9), parents: 1 + rng.IntN(3),
		lag: []uint64{0, 0, 1, 2, 6}[rng.IntN(5)], weights: rng.IntN(2) == 0, unordered: rng.IntN(10) == 0,
	}
	r.members = r.slots
	if rng.IntN(2) == 0 {
		r.change = 0.4
		r.members = max(1, r.slots-rng.IntN(3))
	}
	if rng.IntN(2) == 0 {
		r.fork = 0.3 * rng.Float64()
	}
	if rng.IntN(10) == 0 {
		r.fork = 0.9
	}
	if r.unordered {
		r.lag = 6
	}
	if rng.IntN(2) == 0 {
		r.stale = 0.3 * rng.Float64()
	}
	if rng.IntN(4) == 0 {
		r.parents = r.slots
	}
	return r
}

// rules picks rules for some round.
func (r *recipe) rules(rng *rand.Rand) Rules {
	see := [][2]uint64{{1, 2}, {2, 3}, {1, 1}, {3, 4}}[rng.IntN(4)]
	out := Rules{Params: Params{
		SeeNum: see[0], SeeDen: see[1], JudgeAny: rng.IntN(2) == 0, Whiten: rng.IntN(2) == 0,
		CoinInterval:     []uint64{2, 3, 4, 12}[rng.IntN(4)],
		NonAncientRounds: []uint64{1, 3, 5, 26}[rng.IntN(4)],
	}}
	slots := rng.Perm(r.slots)
	n := r.members
	if r.change > 0 {
		n = max(1, n-rng.IntN(2))
	}
	for _, s := range slots[:n] {
		m := Member{Slot: 3 * s, Stake: 1}
		if r.weights {
			m.Stake = rng.Uint64N(5)
		}
		out.Members = append(out.Members, m)
	}
	out.Members[0].Stake++
	return out
}

// maker grows a random graph.
type maker struct {
	recipe
	rng    *rand.Rand
	made   []Vertex
	byslot [][]int // events of each creator
	forks  int
}

func newMaker(r recipe, rng *rand.Rand) *maker {
	return &maker{recipe: r, rng: rng, byslot: make([][]int, r.slots)}
}

// pick is an event of a creator that is not below base, mostly the last, or None.
func (m *maker) pick(slot, base int) int {
	list := m.byslot[slot]
	if len(list) == 0 {
		return None
	}
	x := list[len(list)-1]
	if m.rng.Float64() < m.stale {
		x = list[max(0, len(list)-1-m.rng.IntN(4))]
	}
	if x < base {
		return None
	}
	return x
}

// next makes an event while a round is pending, on events that are not below base.
func (m *maker) next(pending uint64, base int) Vertex {
	slot := m.rng.IntN(m.slots)
	v := Vertex{
		Creator: 3 * slot, SelfParent: None, Coin: m.rng.Uint32(), Time: int64(len(m.made)/3 + m.rng.IntN(4)),
		Birth: pending - min(pending-1, m.rng.Uint64N(m.lag+1)),
	}
	for i := range v.Hash[:2] {
		v.Hash[i] = byte(m.rng.IntN(2)) // ties even here
	}
	if own := m.byslot[slot]; len(own) > 0 {
		v.SelfParent = own[len(own)-1]
		if m.rng.Float64() < m.fork {
			m.forks++
			v.SelfParent = None
			if k := m.rng.IntN(5); k > 0 && k <= len(own) {
				v.SelfParent = own[len(own)-k]
			}
		}
		if v.SelfParent < base {
			v.SelfParent = None
		}
	}
	if v.SelfParent != None {
		v.Parents = append(v.Parents, v.SelfParent)
	}
	others := m.rng.Perm(m.slots)
	for _, o := range others[:min(len(others), 1+m.rng.IntN(m.parents))] {
		if q := m.pick(o, base); o != slot && q != None {
			v.Parents = append(v.Parents, q)
		}
	}
	for _, q := range v.Parents {
		if !m.unordered {
			v.Birth = max(v.Birth, m.made[q].Birth)
		}
	}
	m.byslot[slot] = append(m.byslot[slot], len(m.made))
	m.made = append(m.made, v)
	return v
}

// copyOf is v with parents of its own.
func copyOf(v Vertex) Vertex {
	v.Parents = slices.Clone(v.Parents)
	return v
}

// gossip makes the graph of the benchmarks: a random member calls another and puts
// an event on top of both heads.
type gossip struct {
	rng   *rand.Rand
	heads []int
	len   int
}

func newGossip(n int) *gossip {
	g := &gossip{rng: rand.New(rand.NewPCG(1, 1)), heads: make([]int, n)}
	for i := range g.heads {
		g.heads[i] = None
	}
	return g
}

// next fills v; its parents stay the same slice.
func (m *gossip) next(v *Vertex, pending uint64) {
	n := len(m.heads)
	c, o := m.rng.IntN(n), 0
	if n > 1 {
		o = (c + 1 + m.rng.IntN(n-1)) % n
	}
	*v = Vertex{
		Creator: c, Birth: pending, Time: int64(m.len), Coin: m.rng.Uint32(),
		SelfParent: m.heads[c], Parents: v.Parents[:0],
	}
	if m.heads[c] != None {
		v.Parents = append(v.Parents, m.heads[c])
	}
	if n > 1 && m.heads[o] != None {
		v.Parents = append(v.Parents, m.heads[o])
	}
	m.heads[c] = m.len
	m.len++
}

// clocked makes the graph of members that keep step: in each layer, in random order,
// everyone puts an event on top of all heads of the layer before.
type clocked struct {
	gossip
	before []int
	order  []int
}

func newClocked(n int) *clocked {
	c := &clocked{gossip: *newGossip(n)}
	c.before = slices.Clone(c.heads)
	return c
}

func (m *clocked) next(v *Vertex, pending uint64) {
	n := len(m.heads)
	if m.len%n == 0 {
		copy(m.before, m.heads)
		m.order = m.order[:0]
		for i := range n {
			m.order = append(m.order, i)
		}
		m.rng.Shuffle(n, func(i, j int) { m.order[i], m.order[j] = m.order[j], m.order[i] })
	}
	c := m.order[m.len%n]
	*v = Vertex{
		Creator: c, Birth: pending, Time: int64(m.len), Coin: m.rng.Uint32(),
		SelfParent: m.before[c], Parents: v.Parents[:0],
	}
	if v.SelfParent != None {
		v.Parents = append(v.Parents, v.SelfParent)
		for o, q := range m.before {
			if o != c {
				v.Parents = append(v.Parents, q)
			}
		}
	}
	m.heads[c] = m.len
	m.len++
}

func equalRules(n int) Rules {
	r := Rules{Params: Params{SeeNum: 2, SeeDen: 3, JudgeAny: true, CoinInterval: 12, NonAncientRounds: 26, Whiten: true}}
	for i := range n {
		r.Members = append(r.Members, Member{Slot: i, Stake: 1})
	}
	return r
}

type source interface {
	next(v *Vertex, pending uint64)
}

// run puts events on the graph one by one and decides after each.
func run(g *Engine, s source, events int) (ordered int) {
	var v Vertex
	for range events {
		s.next(&v, g.Pending())
		g.Add(v)
		for d, ok := g.Decide(); ok; d, ok = g.Decide() {
			ordered += len(d.Received)
		}
		g.Forget(64)
	}
	return ordered
}

// The most careful parameters: every judge must have an event below it, the fast step
// must see everyone.
func careful(n int) Rules {
	r := equalRules(n)
	r.SeeNum, r.SeeDen, r.JudgeAny = 1, 1, false
	return r
}
