package graph

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func read(t testing.TB, name string) *Graph {
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

func text(t testing.TB, write func(*bytes.Buffer) error) string {
	t.Helper()
	var b bytes.Buffer
	if err := write(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func vectors(t testing.TB) []string {
	t.Helper()
	names, err := filepath.Glob("../testdata/hg26/*.in")
	if err != nil || len(names) != 30 {
		t.Fatalf("%d vectors found, want 30 (%v)", len(names), err)
	}
	return names
}

// The answers were made by a program extracted from the machine-checked proof of
// the rules: every voting round, witness, generation, judge, place and time in
// them must come out of ours, byte for byte.
func TestEngineAgreesWithProvedReference(t *testing.T) {
	agreesWithVectors(t, func(g *Graph) Result { return g.Order() })
}

func TestDefinitionsAgreeWithProvedReference(t *testing.T) {
	agreesWithVectors(t, func(g *Graph) Result { return g.SlowOrder() })
}

func agreesWithVectors(t *testing.T, order func(*Graph) Result) {
	for _, name := range vectors(t) {
		want, err := os.ReadFile(strings.TrimSuffix(name, ".in") + ".ref")
		if err != nil {
			t.Fatal(err)
		}
		g := read(t, name)
		got := text(t, func(b *bytes.Buffer) error { return g.write(b, order(g)) })
		if got == string(want) {
			continue
		}
		a, b := strings.SplitAfter(got, "\n"), strings.SplitAfter(string(want), "\n")
		i := 0
		for i < len(a) && i < len(b) && a[i] == b[i] {
			i++
		}
		t.Errorf("%s line %d:\n got %q\nwant %q", name, i+1, append(a, "nothing")[i], append(b, "nothing")[i])
	}
}
