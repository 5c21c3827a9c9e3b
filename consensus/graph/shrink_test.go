package graph

import (
	"slices"
	"testing"
)

// A graph that fails for a reason known beforehand comes down to that reason: two
// branches by one member, both below one event of another.
func TestShrinkLeavesOnlyWhatFails(t *testing.T) {
	fails := func(g *Graph) bool {
		for _, x := range g.Forks() {
			for _, e := range g.Events {
				if slices.Contains(e.Parents, x) && e.Creator != g.Events[x].Creator {
					return true
				}
			}
		}
		return false
	}
	tried := 0
	for s := range uint64(60) {
		g := Random(s, Options{MaxMembers: 9, MaxEvents: 120})
		if !fails(g) {
			continue
		}
		tried++
		small := Shrink(g, fails)
		// One event, the branch beside it, and who saw the branch.
		if !fails(small) || len(small.Events) != 3 || len(small.Rules) != 1 {
			t.Errorf("seed %d: reduced to %d events and %d rules, want 3 and 1", s, len(small.Events), len(small.Rules))
		}
	}
	if tried < 10 {
		t.Errorf("only %d graphs had what is to be found", tried)
	}
}

// What a broken engine would bring about is found and comes down to a few events:
// here the definitions get another threshold than the engine.
func TestShrinkReducesADifferenceOfRules(t *testing.T) {
	fails := func(g *Graph) bool {
		other := &Graph{Rules: slices.Clone(g.Rules), Events: g.Events}
		for i := range other.Rules {
			other.Rules[i].SeeNum, other.Rules[i].SeeDen = 1, 2
		}
		return g.difference(g.Order(), other.SlowOrder()) != ""
	}
	tried := 0
	for s := range uint64(40) {
		g := Random(s, Options{MaxMembers: 5, MaxEvents: 80})
		if g.Rules[0].SeeNum*2 == g.Rules[0].SeeDen || !fails(g) {
			continue
		}
		tried++
		if small := Shrink(g, fails); !fails(small) || len(small.Events) > 40 {
			t.Errorf("seed %d: %d events of %d are left", s, len(small.Events), len(g.Events))
		}
	}
	if tried < 5 {
		t.Errorf("only %d graphs differed", tried)
	}
}
