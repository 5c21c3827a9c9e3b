// Package h26 holds the rules of the hashgraph in its 2026 form, and nothing else:
// a graph of events known by index goes in, decided rounds come out.
//
// The idea. Nobody votes by sending votes. An event names its parents, so whoever
// holds it knows what its creator had seen, and can work out how that creator
// would have voted. Rounds are decided one after another. While round p is
// pending, every event has a voting round counted from p; the first event of a
// member in a voting round is its witness there. An event strongly sees a witness
// when members of more than two thirds of the stake, each seen by the event, have
// seen that same witness. Witnesses two or three voting rounds later count what
// the witnesses they strongly see would have said to the question "which witness
// of member m, if any, is a judge of p?". A supermajority answer is final. The
// judges of p order every event below them that is not ordered yet.
//
// All values except the judges are a function of the pending round and of the
// event's ancestry, so that they are computed anew when a round is decided, for
// the few events above the judges; everything below them has no further say.
// That is why each round can have rules and a roster of its own.
//
// The package is pure: flat slices, loops by index, no recursion, no maps. An event
// costs no allocation once the slices have grown to the size of the window.
package h26

import (
	"cmp"
	"fmt"
	"slices"
)

// None is the index that names no event.
const None = -1

// MaxMembers is how many members a roster may have: sets of members are 64 bits.
const MaxMembers = 64

// MaxCopies ends the deciding when so many rounds in a row took over the judges
// before them. With liars below a third of the stake there is never more than one;
// above it, the same events could decide rounds without end.
const MaxCopies = 1000

// Params are the constants of the rules.
type Params struct {
	SeeNum, SeeDen   uint64 // fraction of stake that the fast step must exceed
	JudgeAny         bool   // received by: any judge (true), all judges (false)
	CoinInterval     uint64 // every how many voting rounds a coin is tossed
	NonAncientRounds uint64 // how far behind the judges an event may be born
	Whiten           bool   // break ties by whitened hash
}

// Member is one entry of a roster.
type Member struct {
	Slot  int    // what Vertex.Creator names: small, the same in all rosters
	Stake uint64 // zero: it may create events and counts for nothing
}

// Rules are what one round is decided by. Members are in the order of member IDs;
// that order is part of the rules. There is one at least, MaxMembers at most, with
// stake in total.
type Rules struct {
	Params
	Members []Member
}

// Received is an event with its place in a round.
type Received struct {
	Index int   // of the event
	Time  int64 // consensus time of the rules, ns: not strictly increasing
}

// Decision is a decided round.
type Decision struct {
	Round    uint64
	VoteD    uint64     // voting rounds from the witness to its first vote, 1 or 2
	MinBirth uint64     // events born before it were ancient in this round
	Decider  int        // the first event, in order of insertion, that decides
	Late     bool       // decided later than the first voting round that could
	Copied   bool       // no supermajority of judges: those of the round before stand
	Judges   []int      // in member order
	Median   int64      // weighted median of the judges' creation times, ns
	Received []Received // in consensus order
}

// State is what one round hands to the next.
type State struct {
	Round    uint64 // decided; 0: none is
	Judges   []int  // in member order
	Copied   bool   // taken over from the round before
	Copies   int    // how many rounds in a row took theirs over, up to this one
	MinBirth uint64 // the first birth round that is not ancient in round Round+1
}

// Engine applies the rules to a growing graph. Make one with New.
type Engine struct {
	store
	plans []plan // from the round before the pending one on
	roster

	// Of the round before the pending one.
	judges   []int
	copied   bool
	copies   int // in a row
	minBirth uint64

	// Of the pending round.
	round uint64
	voteD int32
	start int  // index of the first judge: events before it have no say
	over  bool // it is decided, and the next is not open yet
	then  State

	window
	scratch
}

// plan is a change of rules.
type plan struct {
	from  uint64
	rules Rules
}

// New returns an engine at round 1 with no events.
func New(r Rules) *Engine {
	g := &Engine{round: 1, minBirth: 1}
	g.Plan(0, r)
	g.open()
	return g
}

// Plan sets the rules of the rounds from the given one on. That round must come
// after the one that is pending, or that the last Decide has decided.
func (g *Engine) Plan(from uint64, r Rules) {
	if len(r.Members) == 0 || len(r.Members) > MaxMembers {
		panic(fmt.Sprintf("h26: a roster of %d members, want 1 to %d", len(r.Members), MaxMembers))
	}
	if len(g.plans) > 0 && from <= g.round {
		panic(fmt.Sprintf("h26: new rules for round %d while round %d is decided", from, g.round))
	}
	for len(g.plans) > 0 && g.plans[len(g.plans)-1].from >= from {
		g.plans = g.plans[:len(g.plans)-1]
	}
	r.Members = slices.Clone(r.Members)
	g.plans = append(g.plans, plan{from, r})
}

// inForce is the plan for a round that is not over, or for the one before.
func (g *Engine) inForce(round uint64) *plan {
	k := len(g.plans) - 1
	for k > 0 && g.plans[k].from > round {
		k--
	}
	return &g.plans[k]
}

func (g *Engine) rules(round uint64) *Rules { return &g.inForce(round).rules }

// Begin lets a new engine, to which events were added and which has decided
// nothing, go on as if s.Round had just been decided. The judges must be there, and
// whatever is born in s.MinBirth or later; an older parent is left out. What s.Round
// and the rounds before it received is never received again. The rules planned must
// reach back to round s.Round - s.Copies.
func (g *Engine) Begin(s State) {
	anyJudge := false
	for k := range uint64(s.Copies) + 1 {
		anyJudge = anyJudge || g.rules(s.Round-k).JudgeAny
	}
	g.markReceived(s.Judges, s.MinBirth, anyJudge)
	g.enter(s)
}

// enter opens the round after s.
func (g *Engine) enter(s State) {
	g.round, g.minBirth, g.copied, g.copies = s.Round+1, s.MinBirth, s.Copied, s.Copies
	g.judges = append(g.judges[:0], s.Judges...)
	g.open()
}

// State is what the last decided round hands on.
func (g *Engine) State() State {
	s := g.then
	if !g.over {
		s = State{Round: g.round - 1, Judges: g.judges, Copied: g.copied, Copies: g.copies, MinBirth: g.minBirth}
	} else {
		s.MinBirth = g.oldest(s.Judges, s.Round+1)
	}
	s.Judges = slices.Clone(s.Judges)
	return s
}

// oldest is the first birth round that is not ancient in a round, given the judges
// of the one before it.
func (g *Engine) oldest(judges []int, round uint64) uint64 {
	if len(judges) == 0 {
		return g.minBirth
	}
	low := g.vertex(judges[0]).birth
	for _, j := range judges {
		low = min(low, g.vertex(j).birth)
	}
	if back := g.rules(round).NonAncientRounds; low > back {
		return max(g.minBirth, low-back)
	}
	return g.minBirth
}

// Pending is the round to be decided next. While the caller has not asked Decide
// for more, it is the round that was decided last.
func (g *Engine) Pending() uint64 { return g.round }

// MinBirth is the first birth round that is not ancient in round Pending.
func (g *Engine) MinBirth() uint64 { return g.minBirth }

// Halted reports that the rules have come to no judges so often in a row that no
// more rounds are decided: members of a third of the stake or more are lying.
func (g *Engine) Halted() bool { return g.copies >= MaxCopies }

// Decide looks at the events not looked at yet, up to one that decides the pending
// round. Call it until it says false. A round is opened by the call after the one
// that decided the round before it, with the rules that are planned then. The slices
// of a decision belong to the caller.
func (g *Engine) Decide() (Decision, bool) {
	if g.over {
		g.then.MinBirth = g.oldest(g.then.Judges, g.round+1)
		g.over = false
		g.enter(g.then)
	}
	if g.Halted() {
		return Decision{}, false
	}
	for x := g.start + len(g.vals); x < g.Len(); x++ {
		if g.value(x) {
			return g.decide(x), true
		}
	}
	return Decision{}, false
}

// open starts the pending round from the judges of the one before it.
func (g *Engine) open() {
	g.lay()
	g.start = g.base
	if len(g.judges) > 0 {
		g.start = slices.Min(g.judges)
	}
	var held uint64
	g.bottom = g.bottom[:0]
	for k, j := range g.judges {
		held += g.weight(j)
		g.bottom = append(g.bottom, judge{j - g.start, 1 << k})
	}
	slices.SortFunc(g.bottom, func(a, b judge) int { return cmp.Compare(a.at, b.at) })
	g.voteD = 1
	if g.copied || !g.Super(held) || g.rules(g.round-1).JudgeAny && !g.params.JudgeAny {
		g.voteD = 2
	}
	g.window.clear(len(g.judges), g.n)
}

// Inspect gives the voting round, the first self witness and the generation of an
// event in the round that the last Decide worked on, and whether the event has a say
// in it: events that no judge of the round before is below do not, nor do those after
// the decider.
func (g *Engine) Inspect(x int) (round uint64, first, gen int, ok bool) {
	w := x - g.start
	if w < 0 || w >= len(g.vals) {
		return g.round - 1, x, 1, false
	}
	v := &g.vals[w]
	return g.round - 1 + uint64(v.round), int(v.first) + g.start, int(v.gen), v.live
}
