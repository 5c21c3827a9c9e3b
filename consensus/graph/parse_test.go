package graph

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
)

const small = `R 4 26 1 2 3
N 0 1
N 1 1
N 2 1
E 7 100 0 1 0 -1
E 3 101 1 1 1 -1 7
E 12 102 2 1 2 -1
E 5 103 0 1 0 7 3 12
`

func TestBadInputIsNamedWithItsLine(t *testing.T) {
	head := "R 4 26 1 2 3\nN 0 1\nN 1 1\n"
	for _, c := range []struct{ in, want string }{
		{"", "line 0: the graph is empty: want lines R, N and E"},
		{"\n# nothing\n", "line 2: the graph is empty: want lines R, N and E"},
		{"R 4 26 1 2 3\n", "line 1: there is no line N with a member above this one"},
		{"N 0 1\n", "line 1: there is no line R with the rules above this one"},
		{"R 4 26 1 2\n", "line 1: R with 4 fields: want R coinInterval nonAncientRounds judgeAny seeNum seeDen [whiten]"},
		{"R 0 26 1 2 3\n", "line 1: a coin interval of 0 has no coin rounds: want 1 at least"},
		{"R 4 26 2 2 3\n", "line 1: judgeAny and whiten are 0 or 1"},
		{"R 4 26 1 2 3 2\n", "line 1: judgeAny and whiten are 0 or 1"},
		{"R 4 26 1 2 0\n", "line 1: 2/0 is no fraction of stake: want numbers up to 4294967295, and not over 0"},
		{"R 4 26 1 4294967296 3\n", "line 1: 4294967296/3 is no fraction of stake: want numbers up to 4294967295, and not over 0"},
		{"R 4 26 1 2 3\nR 4 26 1 2 3\n", "line 2: a second line R for the same rounds"},
		{"R 4 26 1 2 3\nN 0 0\n", "line 2: no member above this line has a stake: want 1 at least"},
		{"R 4 26 1 2 3\nN 1 1\nN 0 1\n", "line 3: member 0 comes after member 1: want each once, in increasing order"},
		{"R 4 26 1 2 3\nN 1 1\nN 1 1\n", "line 3: member 1 comes after member 1: want each once, in increasing order"},
		{"R 4 26 1 2 3\nN 0 9223372036854775807\n", "line 2: the stake of member 0 brings the total above 3074457345618258602"},
		{"R 4 26 1 2 3\nN 0 -1\n", "line 2: -1 is below 0: only the time of an event may be, and -1 in place of a self-parent"},
		{"R 4 26 1 4294967295 3\nN 0 4294967299\n", "line 2: 4294967295/3 of a stake of 4294967299 goes beyond 64 bits: want smaller numbers"},
		{head + "X 1\n", `line 4: "X" begins no line of a graph: want R, N, E, U, H or #`},
		{head + "RN 1\n", `line 4: "RN" begins no line of a graph: want R, N, E, U, H or #`},
		{head + "E 0 1 0 1 0\n", "line 4: E with 5 fields: want E id time creatorID birthRound coin selfParent(or -1) otherParents..."},
		{head + "E 0 1 0 1 x -1\n", `line 4: "x" is not a number of 64 bits`},
		{head + "E 99999999999999999999 1 0 1 0 -1\n", `line 4: "99999999999999999999" is not a number of 64 bits`},
		{head + "E -1 1 0 1 0 -1\n", "line 4: -1 is below 0: only the time of an event may be, and -1 in place of a self-parent"},
		{head + "E 0 1 0 1 0 -2\n", "line 4: -2 is below 0: only the time of an event may be, and -1 in place of a self-parent"},
		{head + "E 0 1 5 1 0 -1\n", "line 4: event 0 is by 5, who is no member above this line"},
		{head + "E 0 1 0 1 4294967296 -1\n", "line 4: event 0 has coin 4294967296: want one of 32 bits"},
		{head + "E 0 1 0 1 0 -1\nE 0 1 0 1 0 -1\n", "line 5: event 0 is there already"},
		{head + "E 0 1 0 1 0 -1 1\n", "line 4: event 0 names parent 1, which is not above it"},
		{head + "E 0 1 0 1 0 0\n", "line 4: event 0 names parent 0, which is not above it"},
		{head + "E 0 1 0 1 0 -1\nE 1 1 1 1 0 0\n", "line 5: event 1 by 1 names self-parent 0, which is by 0"},
		{head + "E 0 1 0 1 0 -1\nE 1 1 0 1 0 0 0\n", "line 5: event 1 names parent 0 twice"},
		{head + "U 1\n", "line 4: round 1 is not after round 1, from which the rules above hold"},
		{head + "U 5\nU 5\n", "line 5: round 5 is not after round 5, from which the rules above hold"},
		{head + "U 5 6\n", "line 4: U with 2 fields: want U round"},
		{head + "U 5\nN 0 0\n", "line 5: no member above this line has a stake: want 1 at least"},
		{head + "H 0 00\n", "line 4: there is no event 0 above its hash"},
		{head + "E 0 1 0 1 0 -1" + strings.Repeat(" 7", 70_000) + "\n", "line 4: event 0 has 70001 parents: want 4096 at most"},
		{head + "E 0 1 0 1 0 -1\nH 0 00\n", `line 5: "00" is no hash: want 64 hexadecimal digits`},
		{head + "H 0\n", "line 4: H with 1 fields: want H id hash"},
		{head + strings.Repeat("#", maxLine+1), "line 4: it is longer than 1048576 bytes"},
		{head + strings.Repeat("z", 50) + "\n", `line 4: "` + strings.Repeat("z", 40) + `"... begins no line of a graph: want R, N, E, U, H or #`},
	} {
		g, err := ParseGraph(strings.NewReader(c.in))
		var line *LineError
		if err == nil || err.Error() != c.want || !errors.As(err, &line) || g != nil {
			t.Errorf("%.200q: %v, want %s", c.in, err, c.want)
		}
	}
	many := strings.Builder{}
	many.WriteString("R 4 26 1 2 3\n")
	for i := range 65 {
		many.WriteString("N " + string(rune('0'+i/10)) + string(rune('0'+i%10)) + " 1\n")
	}
	if _, err := ParseGraph(strings.NewReader(many.String())); err == nil || err.Error() != "line 66: member 64 is one too many: a roster has 64 at most" {
		t.Error(err)
	}
}

func TestSpacesBlankLinesAndRemarksMeanNothing(t *testing.T) {
	want, err := ParseGraph(strings.NewReader(small))
	if err != nil {
		t.Fatal(err)
	}
	loose := "\r\n# of a test\r\n" + strings.ReplaceAll(strings.ReplaceAll(small, "\n", " \t\r\n\n"), " ", "  ") + "\n \n"
	for _, in := range []string{loose, strings.TrimSuffix(small, "\n")} {
		got, err := ParseGraph(strings.NewReader(in))
		if err != nil {
			t.Fatal(err)
		}
		a, b := text(t, func(b *bytes.Buffer) error { return got.Write(b) }), text(t, func(b *bytes.Buffer) error { return want.Write(b) })
		if a != b || a != small {
			t.Errorf("read as\n%s\nwant\n%s", a, b)
		}
	}
}

func TestRulesChangeByRound(t *testing.T) {
	in := "R 4 26 1 2 3\nN 0 1\nN 1 1\nU 3\nR 5 2 0 1 1 1\nU 7\nN 1 1\nN 2 9\nE 0 1 2 1 0 -1\nH 0 " + strings.Repeat("ab", 32) + "\n"
	g, err := ParseGraph(strings.NewReader(in))
	if err != nil {
		t.Fatal(err)
	}
	if got := text(t, func(b *bytes.Buffer) error { return g.Write(b) }); got != in {
		t.Errorf("written as\n%s\nwant\n%s", got, in)
	}
	r := g.rulesOf(6)
	if r.CoinInterval != 5 || !r.Whiten || len(r.Members) != 2 || g.rulesOf(2).CoinInterval != 4 || g.rulesOf(8).Members[1].Stake != 9 || g.rulesOf(8).CoinInterval != 5 {
		t.Errorf("%+v", g.Rules)
	}
	if _, err := g.Order2016(); err == nil || err.Error() != "the rules of 2016 know no change of rules, but the graph has one at round 3" {
		t.Error(err)
	}
}

func TestWrittenGraphReadsAsItself(t *testing.T) {
	for s := range uint64(300) {
		g := Random(s, Options{})
		in := text(t, func(b *bytes.Buffer) error { return g.Write(b) })
		h, err := ParseGraph(strings.NewReader(in))
		if err != nil {
			t.Fatalf("seed %d: %v", s, err)
		}
		if got := text(t, func(b *bytes.Buffer) error { return h.Write(b) }); got != in {
			t.Fatalf("seed %d is written as\n%s\nthen as\n%s", s, in, got)
		}
		if !same(g.Order(), h.Order()) {
			t.Fatalf("seed %d orders differently after writing and reading", s)
		}
	}
}

func FuzzParseGraph(f *testing.F) {
	f.Add([]byte(small))
	f.Add([]byte("R 3 1 0 1 1 1\nN 0 1\nN 9 2\nU 3\nN 9 1\nE 0 -5 9 1 0 -1\nH 0 " + strings.Repeat("0f", 32) + "\n# end"))
	if b, err := os.ReadFile("../testdata/hg26/28.in"); err == nil {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		g, err := ParseGraph(bytes.NewReader(in))
		if err != nil {
			var line *LineError
			if !errors.As(err, &line) {
				t.Fatalf("an error without its line: %v", err)
			}
			return
		}
		written := text(t, func(b *bytes.Buffer) error { return g.Write(b) })
		h, err := ParseGraph(strings.NewReader(written))
		if err != nil {
			t.Fatalf("does not read what it wrote: %v\n%s", err, written)
		}
		if again := text(t, func(b *bytes.Buffer) error { return h.Write(b) }); again != written {
			t.Fatalf("written as\n%s\nthen as\n%s", written, again)
		}
		if len(g.Events) > 60 || len(g.MemberIDs()) > 8 {
			return
		}
		// Whatever members do, the engine and the definitions say the same.
		if d := g.Difference(); d != "" {
			t.Fatal(d)
		}
		if len(g.Rules) == 1 {
			if err := g.WriteOrder2016(new(bytes.Buffer)); err != nil {
				t.Fatal(err)
			}
		}
	})
}
