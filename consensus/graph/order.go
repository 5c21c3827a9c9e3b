package graph

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/dcnode/dcnode/consensus/internal/h26"
	"github.com/dcnode/dcnode/consensus/internal/slow"
)

// ErrNoJudges ends an order in which a thousand rounds in a row found no judges of
// their own. Only a third of the stake or more can bring that about by forks.
var ErrNoJudges = errors.New("a thousand rounds in a row find no judges: members with a third of the stake or more must have forked")

// ErrRulesChange is a graph that the rules of 2016 cannot order.
var ErrRulesChange = errors.New("the rules of 2016 know no change of rules")

// Round is a decided round.
type Round struct {
	Round    uint64
	VoteD    uint64     // voting rounds from the witness to its first vote, 1 or 2
	MinBirth uint64     // events born before it were ancient in this round
	Decider  int        // the first event that decides; depends on the order of the events
	Late     bool       // decided later than the first voting round that could
	Copied   bool       // no supermajority of judges: those of the round before stand
	Judges   []int      // in member order
	Rows     []Row      // of the events with a say up to the decider
	Received []Received // in consensus order
}

// Row is what the rules say of an event while a round is pending.
type Row struct {
	Index int
	Round uint64 // voting round
	First int    // first self witness
	Gen   int    // generation
}

// Received is an event with its place in a round.
type Received struct {
	Index int
	Time  int64 // consensus time of the rules, ns: not strictly increasing
}

// Result is what the rules of 2026 say of a graph.
type Result struct {
	Rounds []Round
	Open   []Row // of the round that is pending at the end
	Halted bool  // ErrNoJudges
}

// Order applies the rules of 2026 with the engine that nodes run.
func (g *Graph) Order() Result {
	ids := g.MemberIDs()
	eng := g.engine(ids)
	for _, e := range g.Events {
		eng.Add(vertex(e, ids))
	}
	from := 0 // what comes before all judges of the round before has no say
	rows := func(upTo int) []Row {
		var out []Row
		for x := from; x <= upTo; x++ {
			if vr, first, gen, ok := eng.Inspect(x); ok {
				out = append(out, Row{x, vr, first, gen})
			}
		}
		return out
	}
	var res Result
	for d, ok := eng.Decide(); ok; d, ok = eng.Decide() {
		r := Round{
			Round: d.Round, VoteD: d.VoteD, MinBirth: d.MinBirth, Decider: d.Decider,
			Late: d.Late, Copied: d.Copied, Judges: d.Judges, Rows: rows(d.Decider),
		}
		for _, x := range d.Received {
			r.Received = append(r.Received, Received(x))
		}
		res.Rounds = append(res.Rounds, r)
		if len(d.Judges) > 0 {
			from = slices.Min(d.Judges)
		}
	}
	if res.Halted = eng.Halted(); !res.Halted {
		res.Open = rows(len(g.Events) - 1)
	}
	return res
}

// engine is one without events; ids are all members of the graph, in order.
func (g *Graph) engine(ids []uint64) *h26.Engine {
	rules := func(r Rules) h26.Rules {
		out := h26.Rules{Params: h26.Params(r.Params)}
		for _, m := range r.Members {
			slot, _ := slices.BinarySearch(ids, m.ID)
			out.Members = append(out.Members, h26.Member{Slot: slot, Stake: m.Stake})
		}
		return out
	}
	eng := h26.New(rules(g.Rules[0]))
	for _, r := range g.Rules[1:] {
		eng.Plan(r.From, rules(r))
	}
	return eng
}

// vertex is an event as the engine knows it.
func vertex(e Event, ids []uint64) h26.Vertex {
	slot, _ := slices.BinarySearch(ids, e.Creator)
	return h26.Vertex{
		Creator: slot, Birth: e.Birth, Time: e.Time, Coin: e.Coin,
		SelfParent: e.SelfParent, Parents: slices.Clone(e.Parents), Hash: e.Hash,
	}
}

// SlowOrder applies the rules of 2026 as written straight from their definitions.
func (g *Graph) SlowOrder() Result {
	ref := slow.NewH26(g.slowRules(0))
	for i := range g.Rules[1:] {
		ref.Plan(g.slowRules(i + 1))
	}
	for _, e := range g.slowEvents() {
		ref.Add(e)
	}
	rows := func(in []slow.Row) []Row {
		var out []Row
		for _, r := range in {
			out = append(out, Row(r))
		}
		return out
	}
	var res Result
	for d, ok := ref.Decide(); ok; d, ok = ref.Decide() {
		r := Round{
			Round: d.Round, VoteD: d.VoteD, MinBirth: d.MinBirth, Decider: d.Decider,
			Late: d.Late, Copied: d.Copied, Judges: d.Judges, Rows: rows(d.Rows),
		}
		for _, x := range d.Received {
			r.Received = append(r.Received, Received(x))
		}
		res.Rounds = append(res.Rounds, r)
	}
	if res.Halted = ref.Halted(); !res.Halted {
		res.Open = rows(ref.Open())
	}
	return res
}

func (g *Graph) slowRules(i int) slow.Rules {
	r := g.Rules[i]
	out := slow.Rules{From: r.From, Params: slow.Params(r.Params)}
	for _, m := range r.Members {
		out.Members = append(out.Members, slow.Member(m))
	}
	return out
}

func (g *Graph) slowEvents() []slow.Event {
	out := make([]slow.Event, len(g.Events))
	for x, e := range g.Events {
		out[x] = slow.Event{
			Name: e.ID, Creator: e.Creator, Birth: e.Birth, Time: e.Time, Coin: e.Coin,
			SelfParent: e.SelfParent, Parents: e.Parents, Hash: e.Hash,
		}
	}
	return out
}

// WriteOrder applies the rules of 2026 and writes what they say, three kinds of lines
// for each decided round:
//
//	P round voteD d mna minNonAncientBirthRound decider event judges j1,j2,...
//	V round event vr votingRound fsw firstSelfWitness gen generation (with a say, up to the decider)
//	C round event@consensusTime,... (in consensus order)
//
// ErrNoJudges comes after what could be ordered.
func (g *Graph) WriteOrder(w io.Writer) error { return g.write(w, g.Order()) }

func (g *Graph) write(w io.Writer, res Result) error {
	b := bufio.NewWriter(w)
	id := func(x int) int64 { return g.Events[x].ID }
	for _, r := range res.Rounds {
		fmt.Fprintf(b, "P %d voteD %d mna %d decider %d judges %s\n", r.Round, r.VoteD, r.MinBirth,
			id(r.Decider), join(r.Judges, func(j int) string { return strconv.FormatInt(id(j), 10) }))
		for _, v := range r.Rows {
			fmt.Fprintf(b, "V %d %d vr %d fsw %d gen %d\n", r.Round, id(v.Index), v.Round, id(v.First), v.Gen)
		}
		fmt.Fprintf(b, "C %d %s\n", r.Round, join(r.Received, func(x Received) string {
			return fmt.Sprintf("%d@%d", id(x.Index), x.Time)
		}))
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("write order: %w", err)
	}
	if res.Halted {
		return ErrNoJudges
	}
	return nil
}

func join[T any](list []T, text func(T) string) string {
	parts := make([]string, len(list))
	for i, x := range list {
		parts[i] = text(x)
	}
	return strings.Join(parts, ",")
}

// Difference says where the engine and the definitions differ on the graph: the first
// line that is not the same, with both versions. "" if there is none.
func (g *Graph) Difference() string {
	fast, ref := g.Order(), g.SlowOrder()
	return g.difference(fast, ref)
}

func (g *Graph) difference(fast, ref Result) string {
	if same(fast, ref) {
		return ""
	}
	var a, b strings.Builder
	_, _ = g.write(&a, fast), g.write(&b, ref)
	as, bs := strings.Split(a.String(), "\n"), strings.Split(b.String(), "\n")
	for i := range max(len(as), len(bs)) {
		x, y := "nothing", "nothing"
		if i < len(as) {
			x = as[i]
		}
		if i < len(bs) {
			y = bs[i]
		}
		if x != y {
			return fmt.Sprintf("line %d: engine %q, definitions %q", i+1, x, y)
		}
	}
	return fmt.Sprintf("the lines are the same; engine %+v, definitions %+v", flags(fast), flags(ref))
}

// same compares all of two results.
func same(a, b Result) bool {
	return a.Halted == b.Halted && slices.Equal(a.Open, b.Open) && slices.EqualFunc(a.Rounds, b.Rounds, func(x, y Round) bool {
		return x.Round == y.Round && x.VoteD == y.VoteD && x.MinBirth == y.MinBirth && x.Decider == y.Decider &&
			x.Late == y.Late && x.Copied == y.Copied && slices.Equal(x.Judges, y.Judges) &&
			slices.Equal(x.Rows, y.Rows) && slices.Equal(x.Received, y.Received)
	})
}

// flags are the parts of a result that the written form lacks.
func flags(r Result) []string {
	out := []string{fmt.Sprintf("halted=%v open=%v", r.Halted, r.Open)}
	for _, d := range r.Rounds {
		if d.Late || d.Copied {
			out = append(out, fmt.Sprintf("round %d late=%v copied=%v", d.Round, d.Late, d.Copied))
		}
	}
	return out
}

// Agreed is what all members must agree on, one line for each round: its judges and
// what it receives in which order. The deciders and the rows depend on who looks.
func (g *Graph) Agreed(res Result) []string {
	id := func(x int) string { return strconv.FormatInt(g.Events[x].ID, 10) }
	var out []string
	for _, r := range res.Rounds {
		out = append(out, fmt.Sprintf("%d voteD %d mna %d copied %v judges %s order %s", r.Round, r.VoteD, r.MinBirth, r.Copied,
			join(r.Judges, id), join(r.Received, func(x Received) string { return fmt.Sprintf("%s@%d", id(x.Index), x.Time) })))
	}
	return out
}

// Fame is what the elections of 2016 say of a witness.
type Fame int

// Undecided: the votes so far decide nothing.
const (
	Undecided Fame = iota
	Famous
	NotFamous
)

func (f Fame) String() string { return [...]string{"undecided", "famous", "notfamous"}[f] }

// Verdict is what the rules of 2016 say of an event.
type Verdict struct {
	Round         uint64
	Witness       bool
	Fame          Fame   // of a witness
	Judge         bool   // a famous witness that counts for its creator
	RoundReceived uint64 // 0 if it is not received yet
	Time          int64  // consensus time, ns, once it is received
	Place         int    // in the total order, once it is received, from 0
}

// Order2016 applies the rules of the paper of 2016, which know neither birth rounds nor
// a change of roster. Ties in the order are broken by whitened hash where events have
// hashes, and by id where they have none.
func (g *Graph) Order2016() ([]Verdict, error) {
	if len(g.Rules) > 1 {
		return nil, fmt.Errorf("%w, but the graph has one at round %d", ErrRulesChange, g.Rules[1].From)
	}
	var out []Verdict
	for _, v := range slow.NewH16(g.slowEvents(), g.slowRules(0)).Verdicts() {
		out = append(out, Verdict{v.Round, v.Witness, Fame(v.Fame), v.Judge, v.RoundReceived, v.Time, v.Place})
	}
	return out, nil
}

// WriteOrder2016 applies the rules of 2016 and writes a line for each event, in the
// order of the graph:
//
//	event round witness|- famous|notfamous|undecided|- round-received time
//
// The last two are - while the event is not received. Rounds count from 1.
func (g *Graph) WriteOrder2016(w io.Writer) error {
	verdicts, err := g.Order2016()
	if err != nil {
		return err
	}
	b := bufio.NewWriter(w)
	for x, v := range verdicts {
		witness, fame, received := "-", "-", "- -"
		if v.Witness {
			witness, fame = "witness", v.Fame.String()
		}
		if v.RoundReceived > 0 {
			received = fmt.Sprintf("%d %d", v.RoundReceived, v.Time)
		}
		fmt.Fprintf(b, "%d %d %s %s %s\n", g.Events[x].ID, v.Round, witness, fame, received)
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("write order: %w", err)
	}
	return nil
}

// received2016 are the events received, in order.
func received2016(verdicts []Verdict) []int {
	var list []int
	for x, v := range verdicts {
		if v.RoundReceived > 0 {
			list = append(list, x)
		}
	}
	slices.SortFunc(list, func(a, b int) int { return cmp.Compare(verdicts[a].Place, verdicts[b].Place) })
	return list
}
