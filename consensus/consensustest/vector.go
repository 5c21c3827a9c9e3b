// Package consensustest puts the hashgraph to the test: it replays recorded graphs
// with known answers, and it runs whole networks of cores in virtual time.
package consensustest

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/dcnode/dcnode/consensus/internal/h26"
)

// Graph is a hand-made or recorded graph of events, free of hashes and signatures.
// Its text form has a line for the rules, one for each member, one for each event,
// parents before children:
//
//	R coinInterval nonAncientRounds judgeAny(0 or 1) seeNum seeDen
//	N memberID stake
//	E id time creatorID birthRound coin selfParent(or -1) otherParents...
//
// The coin is a member's position in the roster.
type Graph struct {
	Params h26.Params
	IDs    []uint64 // of the members, in order
	Stake  []uint64
	Names  []int // of the events: the ids of the text form
	Events []h26.Vertex
}

// ParseGraph reads the text form.
func ParseGraph(r io.Reader) (*Graph, error) {
	g := &Graph{}
	index := map[int]int{}
	sc := bufio.NewScanner(r)
	for line := 1; sc.Scan(); line++ {
		f := strings.Fields(sc.Text())
		if len(f) == 0 {
			continue
		}
		nums, err := numbers(f[1:])
		if err == nil {
			err = g.line(f[0], nums, index)
		}
		if err != nil {
			return nil, fmt.Errorf("read graph, line %d: %w", line, err)
		}
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("read graph: %w", err)
	}
	return g, g.check()
}

func numbers(fields []string) ([]int64, error) {
	out := make([]int64, len(fields))
	for i, f := range fields {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%q is not a number", f)
		}
		out[i] = n
	}
	return out, nil
}

func (g *Graph) line(kind string, n []int64, index map[int]int) error {
	switch {
	case kind == "R" && len(n) == 5:
		g.Params = h26.Params{
			CoinInterval: uint64(n[0]), NonAncientRounds: uint64(n[1]), JudgeAny: n[2] != 0,
			SeeNum: uint64(n[3]), SeeDen: uint64(n[4]),
		}
	case kind == "N" && len(n) == 2:
		if k := len(g.IDs); k > 0 && g.IDs[k-1] >= uint64(n[0]) {
			return fmt.Errorf("member %d is out of order", n[0])
		}
		g.IDs = append(g.IDs, uint64(n[0]))
		g.Stake = append(g.Stake, uint64(n[1]))
	case kind == "E" && len(n) >= 6:
		return g.event(n, index)
	default:
		return fmt.Errorf("%s with %d numbers is no line of a graph", kind, len(n))
	}
	return nil
}

func (g *Graph) event(n []int64, index map[int]int) error {
	c := slices.Index(g.IDs, uint64(n[2]))
	if c < 0 {
		return fmt.Errorf("event %d is by %d, who is no member", n[0], n[2])
	}
	v := h26.Vertex{Time: n[1], Creator: c, Birth: uint64(n[3]), Coin: uint32(n[4]), SelfParent: h26.None}
	for i, p := range n[5:] {
		if i == 0 && p == -1 {
			continue
		}
		q, ok := index[int(p)]
		if !ok {
			return fmt.Errorf("event %d names parent %d, which is not above it", n[0], p)
		}
		if i == 0 {
			v.SelfParent = q
		}
		v.Parents = append(v.Parents, q)
	}
	index[int(n[0])] = len(g.Events)
	g.Names = append(g.Names, int(n[0]))
	g.Events = append(g.Events, v)
	return nil
}

func (g *Graph) check() error {
	switch {
	case g.Params.CoinInterval == 0 || g.Params.SeeDen == 0:
		return fmt.Errorf("read graph: no line R with the rules, or a zero in it")
	case len(g.IDs) == 0 || len(g.IDs) > h26.MaxMembers:
		return fmt.Errorf("read graph: %d members, want 1 to %d", len(g.IDs), h26.MaxMembers)
	}
	return nil
}

// WriteOrder runs the rules on the graph and writes what they say, three kinds of
// lines for each decided round:
//
//	P round voteD d mna minNonAncientBirthRound decider event judges j1,j2,...
//	V round event vr votingRound fsw firstSelfWitness gen generation (with a say, up to the decider)
//	C round event@consensusTime,... (in consensus order)
func (g *Graph) WriteOrder(w io.Writer) error {
	b := bufio.NewWriter(w)
	e := h26.New(g.rules())
	for _, v := range g.Events {
		v.Parents = slices.Clone(v.Parents)
		e.Add(v)
	}
	for d, ok := e.Decide(); ok; d, ok = e.Decide() {
		fmt.Fprintf(b, "P %d voteD %d mna %d decider %d judges %s\n", d.Round, d.VoteD, d.MinBirth,
			g.Names[d.Decider], join(d.Judges, func(j int) string { return strconv.Itoa(g.Names[j]) }))
		for x := 0; x <= d.Decider; x++ {
			vr, first, gen, ok := e.Inspect(x)
			if !ok {
				continue
			}
			fmt.Fprintf(b, "V %d %d vr %d fsw %d gen %d\n", d.Round, g.Names[x], vr, g.Names[first], gen)
		}
		fmt.Fprintf(b, "C %d %s\n", d.Round, join(d.Received, func(r h26.Received) string {
			return fmt.Sprintf("%d@%d", g.Names[r.Index], r.Time)
		}))
	}
	return b.Flush()
}

func join[T any](list []T, text func(T) string) string {
	var sb strings.Builder
	for i, x := range list {
		if i > 0 {
			sb.WriteByte(',')
		}
		sb.WriteString(text(x))
	}
	return sb.String()
}

// Shuffle returns the same graph with its events in another order, parents still
// before children. next(n) picks a number below n.
func (g *Graph) Shuffle(next func(n int) int) *Graph {
	out := &Graph{Params: g.Params, IDs: g.IDs, Stake: g.Stake}
	moved := make([]int, len(g.Events))
	type ready struct{ x, key int }
	left := make([]int, len(g.Events))
	children := make([][]int, len(g.Events))
	var open []ready
	for x, v := range g.Events {
		left[x] = len(v.Parents)
		for _, p := range v.Parents {
			children[p] = append(children[p], x)
		}
		if left[x] == 0 {
			open = append(open, ready{x, next(1 << 30)})
		}
	}
	for len(open) > 0 {
		k := 0
		for i := range open {
			if cmp.Less(open[i].key, open[k].key) {
				k = i
			}
		}
		x := open[k].x
		open = slices.Delete(open, k, k+1)
		v := g.Events[x]
		v.Parents = slices.Clone(v.Parents)
		for i, p := range v.Parents {
			v.Parents[i] = moved[p]
		}
		if v.SelfParent != h26.None {
			v.SelfParent = moved[v.SelfParent]
		}
		moved[x] = len(out.Events)
		out.Names = append(out.Names, g.Names[x])
		out.Events = append(out.Events, v)
		for _, c := range children[x] {
			if left[c]--; left[c] == 0 {
				open = append(open, ready{c, next(1 << 30)})
			}
		}
	}
	return out
}

// rules are those of every round of the graph.
func (g *Graph) rules() h26.Rules {
	r := h26.Rules{Params: g.Params}
	for i, s := range g.Stake {
		r.Members = append(r.Members, h26.Member{Slot: i, Stake: s})
	}
	return r
}
