// Package graph reads, writes, orders, makes, reduces and draws graphs of events that
// stand for themselves: no signatures, and hashes only where they break ties. They are
// for tests, for audits of a node's history, and for whoever wants to compare rules.
//
// # Text format
//
// A line for the rules, one for each member, one for each event, parents first:
//
//	R coinInterval nonAncientRounds judgeAny(0 or 1) seeNum seeDen [whiten(0 or 1)]
//	N memberID stake
//	E id time creatorID birthRound coin selfParent(or -1) otherParents...
//
// Members are named in increasing order. Event ids are any numbers from 0 on, each
// once. The coin picks a member by place in the roster, modulo their number; its lowest
// bit is the coin of the 2016 rules. Three kinds of lines are extensions:
//
//	U round         the lines R and N that follow hold from that round on. Without R the
//	                parameters stay, without N the roster does; N names the whole roster.
//	H id hash       the hash of an event above, 64 hexadecimal digits, for whitened ties
//	# ...           a remark
//
// Empty lines and spaces at the ends of lines mean nothing.
package graph

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
)

// None is the index that names no event.
const None = -1

// MaxMembers is how many members a roster may have.
const MaxMembers = 64

// Params are the constants of the rules of a round, as package consensus has them.
type Params struct {
	SeeNum           uint64 `json:"see_num"` // with SeeDen: fraction of stake that the fast step must exceed
	SeeDen           uint64 `json:"see_den"`
	JudgeAny         bool   `json:"judge_any"`          // received by: any judge (true), all judges (false)
	CoinInterval     uint64 `json:"coin_interval"`      // every how many voting rounds a coin is tossed
	NonAncientRounds uint64 `json:"non_ancient_rounds"` // how far behind the judges an event may be born
	Whiten           bool   `json:"whiten"`             // break ties by whitened hash
}

// Member is a member of a roster.
type Member struct {
	ID    uint64 `json:"id"`
	Stake uint64 `json:"stake"`
}

// Rules hold from round From on. Members are in order of ID.
type Rules struct {
	From uint64 `json:"from"`
	Params
	Members []Member `json:"members"`
}

// Event is an event of a graph.
type Event struct {
	ID         int64  // its name, at least 0
	Time       int64  // creation time, ns
	Creator    uint64 // member ID
	Birth      uint64 // birth round
	Coin       uint32
	SelfParent int   // index in Events, or None
	Parents    []int // indices in signed order, the self-parent first if there is one
	Hash       [32]byte
}

// Graph is rules and events, parents before children. The first of the rules holds
// from round 1 on, the others from rounds that increase.
type Graph struct {
	Rules  []Rules
	Events []Event
}

// rulesOf are the rules of a round.
func (g *Graph) rulesOf(round uint64) *Rules {
	in := &g.Rules[0]
	for i := range g.Rules {
		if g.Rules[i].From <= round {
			in = &g.Rules[i]
		}
	}
	return in
}

// MemberIDs are all who are in some roster, in order.
func (g *Graph) MemberIDs() []uint64 {
	var ids []uint64
	for _, r := range g.Rules {
		for _, m := range r.Members {
			ids = append(ids, m.ID)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// Forks are the events that are not the first child of their self-parent by their
// creator, or not its first without one: where branches begin.
func (g *Graph) Forks() []int {
	type place struct {
		by     uint64
		parent int
	}
	var forks []int
	taken := map[place]bool{}
	for x, e := range g.Events {
		at := place{e.Creator, e.SelfParent}
		if taken[at] {
			forks = append(forks, x)
		}
		taken[at] = true
	}
	return forks
}

// Write writes the text form.
func (g *Graph) Write(w io.Writer) error {
	b := bufio.NewWriter(w)
	for i, r := range g.Rules {
		if i > 0 {
			fmt.Fprintf(b, "U %d\n", r.From)
		}
		if i == 0 || r.Params != g.Rules[i-1].Params {
			fmt.Fprintf(b, "R %d %d %d %d %d", r.CoinInterval, r.NonAncientRounds, bit(r.JudgeAny), r.SeeNum, r.SeeDen)
			if r.Whiten {
				b.WriteString(" 1")
			}
			b.WriteByte('\n')
		}
		if i == 0 || !slices.Equal(r.Members, g.Rules[i-1].Members) {
			for _, m := range r.Members {
				fmt.Fprintf(b, "N %d %d\n", m.ID, m.Stake)
			}
		}
	}
	for _, e := range g.Events {
		fmt.Fprintf(b, "E %d %d %d %d %d", e.ID, e.Time, e.Creator, e.Birth, e.Coin)
		if e.SelfParent == None {
			b.WriteString(" -1")
		}
		for _, q := range e.Parents {
			fmt.Fprintf(b, " %d", g.Events[q].ID)
		}
		b.WriteByte('\n')
		if e.Hash != [32]byte{} {
			fmt.Fprintf(b, "H %d %s\n", e.ID, hex.EncodeToString(e.Hash[:]))
		}
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("write graph: %w", err)
	}
	return nil
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Keep is the graph of the events for which keep is true, which must have their
// parents kept too.
func (g *Graph) Keep(keep []bool) *Graph {
	out := &Graph{Rules: g.Rules}
	moved := make([]int, len(g.Events))
	for x, e := range g.Events {
		if keep[x] {
			moved[x] = len(out.Events)
			out.Events = append(out.Events, e.moved(moved))
		}
	}
	return out
}

// Below is the view of someone who holds the given events and all their ancestors.
func (g *Graph) Below(tips ...int) *Graph {
	keep := make([]bool, len(g.Events))
	for _, x := range tips {
		keep[x] = true
	}
	for x := len(keep) - 1; x >= 0; x-- {
		for _, q := range g.Events[x].Parents {
			keep[q] = keep[q] || keep[x]
		}
	}
	return g.Keep(keep)
}

// moved is the event with its parents at new places.
func (e Event) moved(to []int) Event {
	e.Parents = slices.Clone(e.Parents)
	for i, q := range e.Parents {
		e.Parents[i] = to[q]
	}
	if e.SelfParent != None {
		e.SelfParent = to[e.SelfParent]
	}
	return e
}

// Shuffle returns the same graph with its events in another order, parents still
// before children. next(n) picks a number below n.
func (g *Graph) Shuffle(next func(n int) int) *Graph {
	out := &Graph{Rules: g.Rules}
	moved, left := make([]int, len(g.Events)), make([]int, len(g.Events))
	children := make([][]int, len(g.Events))
	var open []int
	for x, e := range g.Events {
		left[x] = len(e.Parents)
		for _, q := range e.Parents {
			children[q] = append(children[q], x)
		}
		if left[x] == 0 {
			open = append(open, x)
		}
	}
	for len(open) > 0 {
		k := next(len(open))
		x := open[k]
		open = slices.Delete(open, k, k+1)
		moved[x] = len(out.Events)
		out.Events = append(out.Events, g.Events[x].moved(moved))
		for _, c := range children[x] {
			if left[c]--; left[c] == 0 {
				open = append(open, c)
			}
		}
	}
	return out
}
