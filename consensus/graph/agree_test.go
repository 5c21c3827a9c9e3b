package graph

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

var (
	graphs = flag.Int("graphs", 2000, "random graphs on which the engine and the definitions are compared")
	seed   = flag.Uint64("seed", 1, "of the first random graph; the others count up from it")
)

// tally counts what random graphs bring about, so that a generator that no longer
// makes something does not go unnoticed.
type tally struct {
	graphs, events, rounds, forked, forks, ancient, coins, late, copied, changes, voteD2, whitened, any int
	members                                                                                             [40]int
}

func (c *tally) add(g *Graph, res Result) {
	c.graphs++
	c.events += len(g.Events)
	c.rounds += len(res.Rounds)
	if f := len(g.Forks()); f > 0 {
		c.forked++
		c.forks += f
	}
	c.members[len(g.MemberIDs())]++
	for _, r := range res.Rounds {
		rules := g.rulesOf(r.Round)
		vr := r.Rows[len(r.Rows)-1].Round
		for k := r.VoteD + 1; k < vr-r.Round; k++ {
			if k%rules.CoinInterval == 0 {
				c.coins++
				break
			}
		}
		if rules.From == r.Round && r.Round > 1 {
			c.changes++
		}
		for _, e := range g.Events[:r.Decider] {
			if e.Birth < r.MinBirth {
				c.ancient++
				break
			}
		}
		c.late += bit(r.Late)
		c.copied += bit(r.Copied)
		c.voteD2 += bit(r.VoteD == 2 && r.Round > 1)
		c.whitened += bit(rules.Whiten)
		c.any += bit(rules.JudgeAny)
	}
}

func (c *tally) String() string {
	return fmt.Sprintf("%d graphs of %d events, %d with %d forks; %d rounds: %d with ancient events, %d went through a coin round, "+
		"%d late, %d copied, %d first of changed rules, %d voted after two (round 1 aside), %d whitened, %d any judge; members %v",
		c.graphs, c.events, c.forked, c.forks, c.rounds, c.ancient, c.coins, c.late, c.copied, c.changes, c.voteD2, c.whitened, c.any, c.members)
}

func TestEngineAgreesWithDefinitionsOnRandomGraphs(t *testing.T) {
	var seen tally
	for s := *seed; s < *seed+uint64(*graphs); s++ {
		g := Random(s, Options{})
		fast, ref := g.Order(), g.SlowOrder()
		seen.add(g, ref)
		if d := g.difference(fast, ref); d != "" {
			small := Shrink(g, func(g *Graph) bool { return g.Difference() != "" })
			t.Fatalf("seed %d: %s\nreduced to %s in %s", s, d, small.Difference(), keep(t, small, fmt.Sprintf("difference-%d.in", s)))
		}
	}
	t.Log(&seen)
	for what, n := range map[string]int{
		"forks": seen.forks, "ancient events": seen.ancient, "coin rounds": seen.coins, "late rounds": seen.late,
		"copied rounds": seen.copied, "changes of rules": seen.changes, "votes after two": seen.voteD2,
		"whitened rounds": seen.whitened, "rounds of any judge": seen.any, "rounds": seen.rounds / 1000,
	} {
		if n == 0 && *graphs >= 1000 {
			t.Errorf("no %s in %d graphs: the generator has become too tame", what, *graphs)
		}
	}
}

// The engine computes what the definitions say even where they promise nothing any
// more: members with more than a third of the stake fork.
func TestEngineAgreesWithDefinitionsWhateverForks(t *testing.T) {
	var seen tally
	for s := range uint64(300) {
		g := Random(s, Options{MaxMembers: 7, MaxEvents: 120, AnyForkers: true})
		fast, ref := g.Order(), g.SlowOrder()
		seen.add(g, ref)
		if d := g.difference(fast, ref); d != "" {
			small := Shrink(g, func(g *Graph) bool { return g.Difference() != "" })
			t.Fatalf("seed %d: %s\nreduced to %s in %s", s, d, small.Difference(), keep(t, small, fmt.Sprintf("difference-forks-%d.in", s)))
		}
	}
	t.Log(&seen)
	if seen.forks < 3000 || seen.rounds < 300 {
		t.Errorf("%d forks and %d rounds are too few to test this", seen.forks, seen.rounds)
	}
}

// Reduced graphs on which a wrong engine once differed.
func TestEngineAgreesWithDefinitionsOnKeptGraphs(t *testing.T) {
	names, err := filepath.Glob("testdata/kept/*.in")
	if err != nil || len(names) == 0 {
		t.Fatalf("%d kept graphs (%v)", len(names), err)
	}
	for _, name := range names {
		g := read(t, name)
		if d := g.Difference(); d != "" {
			t.Errorf("%s: %s", name, d)
		}
		if len(g.Order().Rounds) == 0 {
			t.Errorf("%s: decides nothing", name)
		}
	}
}

// keep writes a graph to a file that outlives the test, and names it.
func keep(t *testing.T, g *Graph, name string) string {
	t.Helper()
	path := filepath.Join(os.TempDir(), name)
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Write(f); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// No view of the graph, in no order of arrival, may disagree with another: what one
// has decided is the beginning of what the whole decides.
func TestEveryViewIsAPrefix(t *testing.T) {
	views, short := 0, 0
	check := func(name string, g *Graph, rng *rand.Rand) {
		whole := g.Agreed(g.Order())
		if got := g.Shuffle(rng.IntN); !slices.Equal(got.Agreed(got.Order()), whole) {
			t.Fatalf("%s: another order of arrival gives\n%v\nwant\n%v", name, got.Agreed(got.Order()), whole)
		}
		for range 4 {
			tips := make([]int, 1+rng.IntN(3))
			for i := range tips {
				tips[i] = rng.IntN(len(g.Events))
			}
			v := g.Below(tips...).Shuffle(rng.IntN)
			got := v.Agreed(v.Order())
			if len(got) > len(whole) || !slices.Equal(got, whole[:len(got)]) {
				t.Fatalf("%s: the view below %v decides\n%v\nthe whole\n%v", name, tips, got, whole)
			}
			views++
			short += bit(len(got) > 0 && len(got) < len(whole))
		}
	}
	for i, name := range vectors(t) {
		check(name, read(t, name), rand.New(rand.NewPCG(uint64(i), 1)))
	}
	for s := uint64(1); s <= 500; s++ {
		check(fmt.Sprint("seed ", s), Random(s, Options{}), rand.New(rand.NewPCG(s, 2)))
	}
	t.Logf("%d views, %d of them decided some rounds and not all", views, short)
	if short < views/4 {
		t.Errorf("only %d of %d views decided some rounds and not all: they test too little", short, views)
	}
}
