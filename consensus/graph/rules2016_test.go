package graph

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func TestPaperRulesWriteALineForEachEvent(t *testing.T) {
	// Three members who all hear everything at once: a new round every other layer.
	var in strings.Builder
	in.WriteString("R 10 26 1 2 3\nN 0 1\nN 1 1\nN 2 1\n")
	for layer := range 7 {
		for m := range 3 {
			fmt.Fprintf(&in, "E %d %d %d 1 0", 3*layer+m, 100*layer+m, m)
			if layer == 0 {
				in.WriteString(" -1\n")
				continue
			}
			for k := range 3 {
				fmt.Fprintf(&in, " %d", 3*(layer-1)+(m+k)%3)
			}
			in.WriteString("\n")
		}
	}
	g, err := ParseGraph(strings.NewReader(in.String()))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(text(t, func(b *bytes.Buffer) error { return g.WriteOrder2016(b) }), "\n")
	for i, want := range []string{
		0: "0 1 witness famous 2 101", 1: "1 1 witness famous 2 100", 3: "3 1 - - 2 201", 6: "6 2 witness famous - -",
	} {
		if want != "" && lines[i] != want {
			t.Errorf("event %d: %q, want %q", i, lines[i], want)
		}
	}
	if len(lines) != 22 || lines[21] != "" {
		t.Errorf("%d lines, want one for each of 21 events", len(lines)-1)
	}
}

// Under the rules of 2016 too, what a view has ordered is the beginning of what the
// whole graph orders, also with forks.
func TestPaperOrderOfEveryViewIsAPrefix(t *testing.T) {
	some, forked := 0, 0
	for s := range uint64(400) {
		rng := rand.New(rand.NewPCG(s, 3))
		g := Random(s, Options{MaxMembers: 9, MaxEvents: 150})
		g.Rules = g.Rules[:1]
		g.Rules[0].CoinInterval = max(3, g.Rules[0].CoinInterval) // below it the paper's votes prove nothing
		// Forkers hold less than a third in all rosters that the graph had, so in the first.
		whole := order2016(t, g)
		for range 3 {
			got := order2016(t, g.Below(rng.IntN(len(g.Events)), rng.IntN(len(g.Events))).Shuffle(rng.IntN))
			if len(got) > len(whole) || !slices.Equal(got, whole[:len(got)]) {
				t.Fatalf("seed %d: a view orders\n%v\nthe whole\n%v", s, got, whole)
			}
			if len(got) > 0 {
				some++
				forked += bit(len(g.Forks()) > 0)
			}
		}
	}
	t.Logf("%d views ordered something, %d of them of graphs with forks", some, forked)
	if forked < 50 {
		t.Errorf("only %d views with forks ordered something", forked)
	}
}

func order2016(t *testing.T, g *Graph) []string {
	t.Helper()
	verdicts, err := g.Order2016()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, x := range received2016(verdicts) {
		out = append(out, fmt.Sprintf("%d@%d in %d", g.Events[x].ID, verdicts[x].Time, verdicts[x].RoundReceived))
	}
	return out
}
