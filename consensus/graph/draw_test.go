package graph

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write what is drawn now into testdata")

// wellFormed reads a picture as XML and counts its elements.
func wellFormed(t *testing.T, svg string) map[string]int {
	t.Helper()
	seen := map[string]int{}
	d := xml.NewDecoder(strings.NewReader(svg))
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			return seen
		}
		if err != nil {
			t.Fatalf("not well-formed: %v", err)
		}
		if e, ok := tok.(xml.StartElement); ok {
			seen[e.Name.Local]++
		}
	}
}

func TestPicturesOfAllVectorsAreWellFormed(t *testing.T) {
	for _, name := range vectors(t) {
		g := read(t, name)
		edges := 0
		for _, e := range g.Events {
			edges += len(e.Parents)
		}
		for _, paper := range []bool{false, true} {
			o := DrawOptions{Title: name, Rules2016: paper}
			svg := text(t, func(b *bytes.Buffer) error { return g.Draw(b, o) })
			seen := wellFormed(t, svg)
			if seen["line"] != edges || seen["title"] != len(g.Events)+1 {
				t.Errorf("%s: %d lines and %d titles for %d parents and %d events", name, seen["line"], seen["title"], edges, len(g.Events))
			}
			if again := text(t, func(b *bytes.Buffer) error { return g.Draw(b, o) }); again != svg {
				t.Errorf("%s: drawn twice, it differs", name)
			}
		}
	}
}

func TestPictureEscapesWhateverItIsNamed(t *testing.T) {
	g, err := ParseGraph(strings.NewReader(small))
	if err != nil {
		t.Fatal(err)
	}
	svg := text(t, func(b *bytes.Buffer) error {
		return g.Draw(b, DrawOptions{Title: "</title><script>alert(1)</script>&\x00\xff\"'"})
	})
	if seen := wellFormed(t, svg); seen["script"] != 0 || strings.Contains(svg, "<script") {
		t.Error("the title got into the picture as markup")
	}
}

// No two events are in one place, and no chain of a member runs over an event that is
// not in it.
func TestEveryEventHasItsOwnPlaceInThePicture(t *testing.T) {
	for s := range uint64(200) {
		g := Random(s, Options{MaxMembers: 7, MaxEvents: 120})
		v := &verdicts{g: g, marks: make([]mark, len(g.Events))}
		p := picture{verdicts: v}
		p.layout()
		type point struct{ x, y int }
		taken := map[point]int{}
		for x, e := range g.Events {
			px, py := p.xy(x)
			if y, twice := taken[point{px, py}]; twice {
				t.Fatalf("seed %d: events %d and %d are in one place", s, x, y)
			}
			taken[point{px, py}] = x
			for _, q := range e.Parents {
				if _, qy := p.xy(q); qy <= py {
					t.Fatalf("seed %d: parent %d is not below its child %d", s, q, x)
				}
			}
		}
		for x, e := range g.Events {
			if e.SelfParent == None || p.lane[x] != p.lane[e.SelfParent] {
				continue
			}
			for y, f := range g.Events {
				if f.Creator == e.Creator && p.lane[y] == p.lane[x] && p.level[y] > p.level[e.SelfParent] && p.level[y] < p.level[x] {
					t.Fatalf("seed %d: the line from %d to %d runs over %d", s, x, e.SelfParent, y)
				}
			}
		}
	}
}

// The picture of a small graph with a fork, a change of rules and a member outside the
// first roster, kept as it was when people last looked at it: go test -run Kept -update.
func TestPictureIsTheOneThatWasKept(t *testing.T) {
	g := read(t, "testdata/small.in")
	for _, year := range []int{2026, 2016} {
		paper := year == 2016
		if paper {
			g.Rules = g.Rules[1:] // which the paper has for all rounds
			g.Rules[0].From = 1
		}
		got := text(t, func(b *bytes.Buffer) error { return g.Draw(b, DrawOptions{Title: "small.in", Rules2016: paper}) })
		name := fmt.Sprintf("testdata/small-%d.svg", year)
		if *update {
			if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s is not what is drawn now: look at the picture, then run with -update", name)
		}
	}
}
