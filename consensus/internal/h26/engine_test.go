package h26

import (
	"flag"
	"math/rand/v2"
	"reflect"
	"testing"
)

var (
	dags  = flag.Int("dags", 1500, "how many random graphs to compare on")
	first = flag.Uint64("first", 1, "seed of the first of them")
)

// tested counts what the random graphs have brought up.
type tested struct {
	rounds, forks, copied, late, twoSteps, changes, coins, ancient, strangers int
}

// TestFastEngineIsTheSimpleOne compares all values of all events.
func TestFastEngineIsTheSimpleOne(t *testing.T) {
	var seen tested
	for seed := *first; seed < *first+uint64(*dags); seed++ {
		rng := rand.New(rand.NewPCG(seed, 1))
		if !compare(t, randomRecipe(rng), rng, &seen) {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Logf("%+v", seen)
	all := reflect.ValueOf(seen)
	for i := range all.NumField() {
		if all.Field(i).Int() == 0 && *dags >= 1000 {
			t.Errorf("no %s in the random graphs", all.Type().Field(i).Name)
		}
	}
}

func TestFastEngineIsTheSimpleOneWithManyMembers(t *testing.T) {
	var seen tested
	for seed := range uint64(6) {
		rng := rand.New(rand.NewPCG(seed, 2))
		r := randomRecipe(rng)
		r.slots, r.members, r.events = 66-int(seed), 64-int(seed), 1500
		r.parents = 1 + 20*int(seed%3)
		if !compare(t, r, rng, &seen) {
			t.Fatalf("seed %d", seed)
		}
	}
	if seen.rounds == 0 || seen.forks == 0 {
		t.Errorf("too little was seen: %+v", seen)
	}
}

// compare runs both engines on one graph. Only the fast one forgets.
func compare(t *testing.T, r recipe, rng *rand.Rand, seen *tested) bool {
	t.Helper()
	rules := r.rules(rng)
	m, fast, slow := newMaker(r, rng), New(rules), newSimple(rules)
	for range r.events {
		v := m.next(fast.Pending(), fast.Base())
		fast.Add(copyOf(v))
		slow.Add(copyOf(v))
		for {
			d, ok := fast.Decide()
			want, wantOK := slow.Decide()
			seen.note(slow)
			if ok != wantOK || ok && !sameDecision(d, want) {
				t.Errorf("event %d: decided\n%+v %v, want\n%+v %v", len(m.made)-1, d, ok, want, wantOK)
				return false
			}
			if ok && !sameValues(t, fast, slow) || !sameState(t, fast.State(), slow.State()) {
				return false
			}
			if !ok {
				break
			}
			seen.rounds++
			seen.copied += count(d.Copied)
			seen.late += count(d.Late)
			seen.twoSteps += count(d.VoteD == 2 && !d.Copied && d.Round > 1)
			if rng.Float64() < r.change {
				seen.changes++
				from, next := d.Round+1+rng.Uint64N(3), r.rules(rng)
				fast.Plan(from, next)
				slow.Plan(from, next)
			}
		}
		if rng.IntN(8) == 0 {
			fast.Forget(rng.IntN(10))
		}
	}
	seen.forks += m.forks
	return sameValues(t, fast, slow)
}

// note counts what the event that was looked at last has brought up.
func (s *tested) note(g *simple) {
	x := min(g.next, g.Len()-1)
	v := g.at(x)
	s.coins += count(v.voted && v.round > g.round+g.voteD && g.coinRound(v))
	s.ancient += count(g.ancient(x))
	s.strangers += count(g.who(x) == None)
}

func count(is bool) int {
	if is {
		return 1
	}
	return 0
}

func sameDecision(a, b Decision) bool {
	if len(a.Judges) == 0 && len(b.Judges) == 0 {
		a.Judges, b.Judges = nil, nil
	}
	if len(a.Received) == 0 && len(b.Received) == 0 {
		a.Received, b.Received = nil, nil
	}
	return reflect.DeepEqual(a, b)
}

func sameState(t *testing.T, a, b State) bool {
	t.Helper()
	if len(a.Judges) == 0 && len(b.Judges) == 0 {
		a.Judges, b.Judges = nil, nil
	}
	if !reflect.DeepEqual(a, b) {
		t.Errorf("the state is %+v, want %+v", a, b)
		return false
	}
	return true
}

// sameValues compares what the engines say of each event that has a say.
func sameValues(t *testing.T, fast *Engine, slow *simple) bool {
	t.Helper()
	for x := fast.Base(); x < slow.Len(); x++ {
		r, f, gen, ok := fast.Inspect(x)
		wr, wf, wgen, wok := slow.Inspect(x)
		if ok != wok || ok && (r != wr || f != wf || gen != wgen) {
			t.Errorf("event %d has round %d, first %d, generation %d, %v; want %d, %d, %d, %v", x, r, f, gen, ok, wr, wf, wgen, wok)
			return false
		}
	}
	return true
}
