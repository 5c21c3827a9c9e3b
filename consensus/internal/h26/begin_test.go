package h26

import (
	"math/rand/v2"
	"reflect"
	"testing"
)

// history is what an engine that never stopped was told and has said.
type history struct {
	made   []Vertex
	plans  []plan
	rounds []decided
}

// decided is a round, with how many events and plans there were when it was decided,
// and what it handed on.
type decided struct {
	Decision
	State
	events, plans int
}

func record(r recipe, rng *rand.Rand) *history {
	h := &history{plans: []plan{{1, r.rules(rng)}}}
	m, g := newMaker(r, rng), New(h.plans[0].rules)
	for range r.events {
		h.made = append(h.made, copyOf(m.next(g.Pending(), g.Base())))
		g.Add(h.made[len(h.made)-1])
		for d, ok := g.Decide(); ok; d, ok = g.Decide() {
			if rng.Float64() < r.change {
				p := plan{d.Round + 1 + rng.Uint64N(3), r.rules(rng)}
				h.plans = append(h.plans, p)
				g.Plan(p.from, p.rules)
			}
			h.rounds = append(h.rounds, decided{d, g.State(), len(h.made), len(h.plans)})
		}
	}
	return h
}

// replay goes on from the k-th decided round with the events that are not ancient
// then, and checks all rounds after it.
func (h *history) replay(t *testing.T, k int) bool {
	t.Helper()
	from, places := h.rounds[k].State, make([]int, len(h.made))
	g := h.engine(from, h.plans[:h.rounds[k].plans])
	plans := h.rounds[k].plans
	k++
	for i, v := range h.made {
		places[i] = None
		if v.Birth >= from.MinBirth {
			places[i] = g.Add(mapped(v, places))
		}
		if i+1 == h.rounds[k-1].events && g.Pending() == 1 {
			from.Judges = mapAll(from.Judges, places)
			g.Begin(from)
		}
		if i+1 < h.rounds[k-1].events {
			continue
		}
		for d, ok := g.Decide(); ok; d, ok = g.Decide() {
			if k == len(h.rounds) {
				t.Errorf("round %d is decided after the last", d.Round)
				return false
			}
			want := h.rounds[k]
			k++
			for ; plans < want.plans; plans++ {
				g.Plan(h.plans[plans].from, h.plans[plans].rules)
			}
			want.Decision = mappedDecision(want.Decision, places)
			want.State.Judges = mapAll(want.State.Judges, places)
			if !sameDecision(d, want.Decision) || !sameState(t, g.State(), want.State) {
				t.Errorf("going on from %+v:\n%+v, want\n%+v", from, d, want.Decision)
				return false
			}
		}
	}
	if k < len(h.rounds) {
		t.Errorf("going on from round %d, %d rounds are missing", from.Round, len(h.rounds)-k)
	}
	return k == len(h.rounds)
}

// engine is one that knows the rules back to the last round that was not copied.
func (h *history) engine(s State, plans []plan) *Engine {
	var all Engine // to work out what is in force
	for _, p := range plans {
		all.Plan(max(p.from, 1), p.rules)
	}
	oldest := s.Round - uint64(s.Copies)
	g := New(*all.rules(oldest))
	for _, p := range all.plans {
		if p.from > max(oldest, 1) {
			g.Plan(p.from, p.rules)
		}
	}
	return g
}

func mapped(v Vertex, places []int) Vertex {
	out := v
	out.Parents, out.SelfParent = nil, None
	for _, q := range v.Parents {
		if places[q] != None {
			out.Parents = append(out.Parents, places[q])
			if q == v.SelfParent {
				out.SelfParent = places[q]
			}
		}
	}
	return out
}

func mapAll(list, places []int) []int {
	var out []int
	for _, x := range list {
		out = append(out, places[x])
	}
	return out
}

func mappedDecision(d Decision, places []int) Decision {
	d.Decider = places[d.Decider]
	d.Judges = mapAll(d.Judges, places)
	received := d.Received
	d.Received = nil
	for _, r := range received {
		d.Received = append(d.Received, Received{places[r.Index], r.Time})
	}
	return d
}

// A member that begins from a checkpoint must decide what the others decide.
func TestBeginGoesOnAsIfNeverStopped(t *testing.T) {
	begun, copied := 0, 0
	for seed := range uint64(600) {
		rng := rand.New(rand.NewPCG(seed, 3))
		r := randomRecipe(rng)
		r.unordered = false
		if r.events = 150; seed%2 == 0 {
			r.change = 0.5
		}
		h := record(r, rng)
		for k := range h.rounds {
			s := h.rounds[k].State
			if len(s.Judges) == 0 {
				continue // none has judges from here on
			}
			if !s.Copied && rng.IntN(8) > 0 {
				continue
			}
			begun++
			copied += count(s.Copied)
			if !h.replay(t, k) {
				t.Fatalf("seed %d, round %d", seed, s.Round)
			}
		}
	}
	t.Logf("%d times, %d of them after a copied round", begun, copied)
	if begun < 1000 || copied < 100 {
		t.Errorf("begun %d times, %d of them after a copied round: too little", begun, copied)
	}
}

// A copied round receives nothing: what was received by any judge before it stays
// received, though its own rule may ask for all. (Random graphs do not come to this.
// The rounds that ask for all judges after any judge vote after two rounds, and then
// it takes liars of a third of the stake to have no judges.)
func TestCopiedRoundTakesNothingBack(t *testing.T) {
	all := equalRules(4)
	all.JudgeAny = false
	for _, c := range []struct {
		copies        int
		below0, below bool // received: what is below the first judge only, below both
	}{{0, false, true}, {1, true, true}} {
		g := New(equalRules(4))
		g.Plan(3, all)
		for _, v := range []Vertex{
			{Creator: 2, SelfParent: None},
			{Creator: 3, SelfParent: None},
			{Creator: 0, SelfParent: None, Parents: []int{0, 1}},
			{Creator: 1, SelfParent: None, Parents: []int{1}},
		} {
			v.Birth = 1
			g.Add(v)
		}
		g.Begin(State{Round: 3, Judges: []int{2, 3}, Copied: c.copies > 0, Copies: c.copies, MinBirth: 1})
		if g.vertex(0).got != c.below0 || g.vertex(1).got != c.below {
			t.Errorf("after %d copied rounds: received %v and %v, want %v and %v",
				c.copies, g.vertex(0).got, g.vertex(1).got, c.below0, c.below)
		}
	}
}

func TestCopiedRoundsInARowAreCounted(t *testing.T) {
	found := 0
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 4))
		r := randomRecipe(rng)
		r.change, r.unordered = 0, false
		h := record(r, rng)
		for k := 1; k < len(h.rounds); k++ {
			before := h.rounds[k-1].State
			if !h.rounds[k].Decision.Copied || len(before.Judges) == 0 || before.Copied {
				continue
			}
			found++
			before.Copies = 5 // as if there had been some
			g := New(h.plans[0].rules)
			for _, v := range h.made {
				g.Add(copyOf(v))
			}
			g.Begin(before)
			if d, ok := g.Decide(); !ok || !d.Copied || g.State().Copies != 6 {
				t.Errorf("seed %d: %+v, copied %v, after 5 that were", seed, g.State(), d.Copied)
			}
		}
	}
	if found == 0 {
		t.Error("no round was copied")
	}
}

func TestHaltedEngineDecidesNothing(t *testing.T) {
	for _, c := range []struct {
		copies int
		halted bool
	}{{MaxCopies - 1, false}, {MaxCopies, true}} {
		g, m := New(equalRules(4)), newGossip(4)
		var v Vertex
		for range 400 {
			m.next(&v, 1)
			g.Add(v)
		}
		g.Begin(State{Round: 5, Judges: []int{0, 1, 2, 3}, Copied: true, Copies: c.copies, MinBirth: 1})
		_, ok := g.Decide()
		if g.Halted() != c.halted || ok == c.halted {
			t.Errorf("after %d copied rounds: halted %v, decided %v", c.copies, g.Halted(), ok)
		}
	}
}

func TestRulesOfADecidedRoundStand(t *testing.T) {
	g, m := New(equalRules(4)), newGossip(4)
	var v Vertex
	var d Decision
	for ok := false; !ok; d, ok = g.Decide() {
		m.next(&v, 1)
		g.Add(v)
	}
	for _, c := range []struct {
		from uint64
		bad  bool
	}{{d.Round, true}, {d.Round + 1, false}, {d.Round + 3, false}, {d.Round + 2, false}} {
		if got := panics(func() { g.Plan(c.from, equalRules(4)) }); got != c.bad {
			t.Errorf("new rules from round %d on, after round %d was decided: panic %v", c.from, d.Round, got)
		}
	}
	for _, n := range []int{0, MaxMembers + 1} {
		if !panics(func() { New(equalRules(n)) }) {
			t.Errorf("a roster of %d members is taken", n)
		}
	}
}

func panics(f func()) (did bool) {
	defer func() { did = recover() != nil }()
	f()
	return false
}

// What a witness says in a coin round when there is no supermajority is the vote that
// its coin picks, and only if it is born in the round that is decided: what was born
// earlier might have been made to know the coins of others.
func TestCoinIsTossedOnlyByEventsBornInTheRound(t *testing.T) {
	g := New(equalRules(4))
	g.round = 7
	g.vals = make([]values, 3)
	g.rows = []int32{10, 11, 12, 13, 20, 21, 22, 23}
	g.vals[1].vote, g.vals[2].vote = 0, 4
	seen := []int32{None, 1, 2, None}
	for _, c := range []struct {
		birth uint64
		coin  uint32
		want  int32
	}{
		{7, 1, 13}, {7, 2, 23}, {7, 6, 23}, {7, 0, None}, {7, 3, None},
		{6, 1, None}, {8, 1, None}, {1, 2, None},
	} {
		if got := g.toss(seen, 3, &vertex{birth: c.birth, coin: c.coin}); got != c.want {
			t.Errorf("born in round %d with coin %d: votes %d, want %d", c.birth, c.coin, got, c.want)
		}
	}
}

func TestForgetWaitsUntilItPays(t *testing.T) {
	g, m := New(equalRules(4)), newGossip(4)
	var v Vertex
	for range 5000 {
		m.next(&v, g.Pending())
		g.Add(v)
		for _, ok := g.Decide(); ok; _, ok = g.Decide() {
		}
	}
	all := g.Len()
	if base := g.Forget(all); base != 0 {
		t.Fatalf("%d events of %d were let go of, asked for no fewer than all", base, all)
	}
	base := g.Forget(1)
	if base == 0 || all-base > 2000 {
		t.Errorf("%d events of %d are kept", all-base, all)
	}
	for x := base; x < all; x++ {
		if g.vertex(x).birth < g.minBirth && x == base {
			t.Errorf("event %d is ancient and still there", x)
		}
	}
	if !reflect.DeepEqual([]int{g.Base(), g.Len()}, []int{base, all}) {
		t.Errorf("events %d to %d are kept, want %d to %d", g.Base(), g.Len(), base, all)
	}
}
