package consensustest

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func readGraph(t *testing.T, name string) *Graph {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	g, err := ParseGraph(f)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return g
}

func order(t *testing.T, g *Graph) string {
	t.Helper()
	var b bytes.Buffer
	if err := g.WriteOrder(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func vectors(t *testing.T) []string {
	t.Helper()
	names, err := filepath.Glob("../testdata/hg26/*.in")
	if err != nil || len(names) != 30 {
		t.Fatalf("%d vectors found, want 30 (%v)", len(names), err)
	}
	return names
}

// The answers were made by a program extracted from the machine-checked proof of
// the rules: every voting round, witness, generation, judge, place and time in
// them must come out of ours.
func TestEngineAgreesWithProvedReference(t *testing.T) {
	for _, name := range vectors(t) {
		want, err := os.ReadFile(strings.TrimSuffix(name, ".in") + ".ref")
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Split(order(t, readGraph(t, name)), "\n")
		for i, line := range strings.Split(string(want), "\n") {
			if i >= len(got) || got[i] != line {
				have := "nothing"
				if i < len(got) {
					have = got[i]
				}
				t.Errorf("%s line %d:\n got %s\nwant %s", name, i+1, have, line)
				break
			}
		}
		if n := strings.Count(string(want), "\n") + 1; len(got) > n {
			t.Errorf("%s: %d lines, want %d", name, len(got), n)
		}
	}
}

func TestOrderIsIndependentOfArrival(t *testing.T) {
	for _, name := range vectors(t) {
		g := readGraph(t, name)
		want := consensusLines(order(t, g))
		rng := rand.New(rand.NewPCG(1, 2))
		for range 3 {
			got := consensusLines(order(t, g.Shuffle(rng.IntN)))
			if got != want {
				t.Fatalf("%s: another order of arrival gives\n%s\nwant\n%s", name, got, want)
			}
		}
	}
}

// consensusLines keeps what members must agree on: judges and order. The decider
// is the first in order of arrival and may differ.
func consensusLines(s string) string {
	var out []string
	for _, l := range strings.Split(s, "\n") {
		f := strings.Fields(l)
		switch {
		case len(f) > 0 && f[0] == "C":
			out = append(out, l)
		case len(f) > 0 && f[0] == "P":
			out = append(out, strings.Join(append(f[:6:6], f[8:]...), " "))
		}
	}
	return strings.Join(out, "\n")
}
