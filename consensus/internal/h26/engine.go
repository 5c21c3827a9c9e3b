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
//
// The package is pure: flat slices, loops by index, no recursion, no maps.
package h26

import (
	"fmt"
	"slices"
)

// None is the index that names no event.
const None = -1

// MaxMembers is how many members a roster may have: sets of judges are 64 bits.
const MaxMembers = 64

// maxCopies ends the deciding when so many rounds in a row took over the judges
// before them. With liars below a third of the stake there is never more than one;
// above it, the same events could decide rounds without end.
const maxCopies = 1000

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

// Vertex is what the rules use of an event.
type Vertex struct {
	Creator    int    // slot; one that the roster of a round lacks counts for nobody in it
	Birth      uint64 // birth round
	Time       int64  // creation time, ns
	Coin       uint32 // picks a member, modulo their number
	SelfParent int    // index, or None
	Parents    []int  // indices in signed order, the self-parent first if there is one
	Hash       [32]byte
}

// State is what one round hands to the next.
type State struct {
	Round    uint64 // decided; 0: none is
	Judges   []int  // in member order
	Copied   bool   // taken over from the round before
	Copies   int    // how many rounds in a row took theirs over, up to this one
	MinBirth uint64 // the first birth round that is not ancient in round Round+1
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

// Engine applies the rules to a growing graph. Make one with New.
type Engine struct {
	plans []plan // from the round before the pending one on

	// Of the roster of the pending round.
	params Params
	stake  []uint64
	member []int // index by slot, or None
	total  uint64
	n      int

	// Of the round before the pending one.
	round    uint64 // pending
	judges   []int
	copied   bool
	copies   int // in a row
	minBirth uint64

	// Of the pending round.
	voteD uint64
	start int // events before it are below every judge: they have no say
	next  int // the first event not looked at yet
	held  *Decision

	base int // index of the first event kept
	vert []Vertex
	got  []bool // received in a decided round
	vals []values
	rows rows
}

// plan is a change of rules.
type plan struct {
	from  uint64
	rules Rules
}

// values are what the rules say of one event in the pending round.
type values struct {
	below   uint64 // set of judges at or below it
	parent  uint64 // parent round
	round   uint64 // voting round
	gen     int
	self    int // self-parent, if it has a say
	first   int // first self witness
	fw      int // first witness of the round, by first parents
	strong  bool
	voted   bool
	isFirst bool // a witness
}

// rows are the values that an event has for each member.
type rows struct {
	seen   []int // last event of the member below
	strong []int // witness of the member in the parent round that is strongly seen
	vote   []int // witness of the member that it wants as judge
}

// New returns an engine at round 1 with no events.
func New(r Rules) *Engine {
	g := &Engine{round: 1, minBirth: 1}
	g.Plan(0, r)
	g.open()
	return g
}

// Plan sets the rules of the rounds from the given one on, which must come after
// the one that is pending or was decided by the last Decide.
func (g *Engine) Plan(from uint64, r Rules) {
	if len(r.Members) == 0 || len(r.Members) > MaxMembers {
		panic(fmt.Sprintf("h26: a roster of %d members, want 1 to %d", len(r.Members), MaxMembers))
	}
	if from <= g.round && len(g.plans) > 0 {
		panic(fmt.Sprintf("h26: new rules for round %d while round %d is decided", from, g.round))
	}
	for len(g.plans) > 0 && g.plans[len(g.plans)-1].from >= from {
		g.plans = g.plans[:len(g.plans)-1]
	}
	r.Members = slices.Clone(r.Members)
	g.plans = append(g.plans, plan{from, r})
}

// rules are those of a round that is not over, or the one before.
func (g *Engine) rules(round uint64) *Rules {
	k := len(g.plans) - 1
	for k > 0 && g.plans[k].from > round {
		k--
	}
	return &g.plans[k].rules
}

// lay lays the engine out for the rules of the pending round.
func (g *Engine) lay() {
	for len(g.plans) > 1 && g.plans[1].from+1 < g.round {
		g.plans = slices.Delete(g.plans, 0, 1)
	}
	r := g.rules(g.round)
	g.params, g.n, g.total = r.Params, len(r.Members), 0
	g.stake, g.member = g.stake[:0], g.member[:0]
	for i, m := range r.Members {
		for len(g.member) <= m.Slot {
			g.member = append(g.member, None)
		}
		g.member[m.Slot] = i
		g.stake = append(g.stake, m.Stake)
		g.total += m.Stake
	}
	k := len(g.vert) * g.n
	g.rows = rows{make([]int, k), make([]int, k), make([]int, k)}
}

// who is the place in the roster of the creator of x, or None.
func (g *Engine) who(x int) int {
	if s := g.vertex(x).Creator; s < len(g.member) {
		return g.member[s]
	}
	return None
}

// weight is the stake of the creator of x.
func (g *Engine) weight(x int) uint64 {
	if m := g.who(x); m != None {
		return g.stake[m]
	}
	return 0
}

// Begin lets a new engine, to which events were added and which has decided
// nothing, go on as if s.Round had just been decided. The judges must be there.
// What s.Round and the rounds before it received is never received again. The
// rules planned must reach back to round s.Round - s.Copies.
func (g *Engine) Begin(s State) {
	var anyJudge bool
	for k := range uint64(s.Copies) + 1 {
		anyJudge = anyJudge || g.rules(s.Round-k).JudgeAny
	}
	g.round, g.minBirth, g.copied, g.copies = s.Round+1, s.MinBirth, s.Copied, s.Copies
	g.judges = slices.Clone(s.Judges)
	below := make([]uint64, len(g.vert))
	for k, j := range g.judges {
		below[j-g.base] |= 1 << k
	}
	full := uint64(1)<<len(g.judges) - 1
	for i := len(g.vert) - 1; i >= 0; i-- {
		g.got[i] = below[i] != 0 && (anyJudge || below[i] == full)
		for _, q := range g.vert[i].Parents {
			if !g.ancient(q) {
				below[q-g.base] |= below[i]
			}
		}
	}
	g.open()
}

// State is what the last decided round hands on.
func (g *Engine) State() State {
	if g.held == nil {
		return State{g.round - 1, slices.Clone(g.judges), g.copied, g.copies, g.minBirth}
	}
	s := State{Round: g.round, Judges: slices.Clone(g.held.Judges), Copied: g.held.Copied}
	if s.Copied {
		s.Copies = g.copies + 1
	}
	s.MinBirth = g.limit(s.Judges, s.Round+1)
	return s
}

// Pending is the round to be decided next.
func (g *Engine) Pending() uint64 { return g.round }

// MinBirth is the first birth round that is not ancient.
func (g *Engine) MinBirth() uint64 { return g.minBirth }

// Base is the index of the first event that is still kept.
func (g *Engine) Base() int { return g.base }

// Len is the index that the next event gets.
func (g *Engine) Len() int { return g.base + len(g.vert) }

// Halted reports that the rules have come to no judges so often in a row that no
// more rounds are decided: members of a third of the stake or more are lying.
func (g *Engine) Halted() bool { return g.copies >= maxCopies }

// Super reports whether a stake is more than two thirds of the total.
func (g *Engine) Super(stake uint64) bool { return 3*stake > 2*g.total }

// Add puts an event on the graph and returns its index. Its parents must be there;
// one that was forgotten is to be left out. Decide has to be called to use it.
func (g *Engine) Add(v Vertex) int {
	g.vert = append(g.vert, v)
	g.got = append(g.got, false)
	g.vals = append(g.vals, values{})
	for range g.n {
		g.rows.seen = append(g.rows.seen, None)
		g.rows.strong = append(g.rows.strong, None)
		g.rows.vote = append(g.rows.vote, None)
	}
	return g.base + len(g.vert) - 1
}

// Decide looks at the events not looked at yet, up to one that decides the pending
// round. Call it until it says false. The slices of a decision belong to the caller.
func (g *Engine) Decide() (Decision, bool) {
	if g.held != nil {
		s := g.State()
		g.judges, g.copied, g.copies, g.minBirth = s.Judges, s.Copied, s.Copies, s.MinBirth
		g.held = nil
		g.round++
		g.open()
	}
	for ; g.next < g.Len() && !g.Halted(); g.next++ {
		g.value(g.next)
		if !g.decides(g.next) {
			continue
		}
		d := g.decide(g.next)
		g.held = &d
		out := d
		out.Judges = append([]int(nil), d.Judges...)
		return out, true
	}
	return Decision{}, false
}

// Inspect gives the voting round, the first self witness and the generation of an
// event in the round that the last Decide worked on, and whether the event has a say
// in it: events that no judge of the round before is below do not, nor do those after
// the decider.
func (g *Engine) Inspect(x int) (round uint64, first, gen int, ok bool) {
	if x < g.start {
		return g.round - 1, x, 1, false
	}
	v := g.at(x)
	return v.round, v.first, v.gen, g.live(v) && x <= g.next
}

// gen is the generation of x in the pending round.
func (g *Engine) gen(x int) int {
	if x < g.start {
		return 1
	}
	return g.at(x).gen
}

// Forget lets go of the events at the front that are ancient and returns the new
// base. It does nothing while there are fewer than min of them. Call it only when
// Decide said false.
func (g *Engine) Forget(min int) int {
	k := 0
	for k < len(g.vert) && g.vert[k].Birth < g.minBirth && g.base+k < g.start {
		k++
	}
	if k == 0 || k < min {
		return g.base
	}
	g.base += k
	g.vert = cut(g.vert, k)
	g.got = cut(g.got, k)
	g.vals = cut(g.vals, k)
	g.rows.seen = cut(g.rows.seen, k*g.n)
	g.rows.strong = cut(g.rows.strong, k*g.n)
	g.rows.vote = cut(g.rows.vote, k*g.n)
	for i := range g.vert {
		g.unlink(&g.vert[i])
	}
	return g.base
}

// cut drops the first k in place.
func cut[T any](s []T, k int) []T {
	m := copy(s, s[k:])
	clear(s[m:])
	return s[:m]
}

// unlink takes forgotten parents away.
func (g *Engine) unlink(v *Vertex) {
	if v.SelfParent < g.base {
		v.SelfParent = None
	}
	keep := v.Parents[:0]
	for _, q := range v.Parents {
		if q >= g.base {
			keep = append(keep, q)
		}
	}
	v.Parents = keep
}

// open starts the pending round from the judges of the one before it.
func (g *Engine) open() {
	g.lay()
	g.start = g.base
	var held uint64
	if len(g.judges) > 0 {
		g.start = slices.Min(g.judges)
	}
	for _, j := range g.judges {
		held += g.weight(j)
	}
	g.next = g.start
	g.voteD = 1
	if g.copied || !g.Super(held) || g.rules(g.round-1).JudgeAny && !g.params.JudgeAny {
		g.voteD = 2
	}
}

// limit is the first birth round that is not ancient in a round, given the judges
// of the one before it.
func (g *Engine) limit(judges []int, round uint64) uint64 {
	if len(judges) == 0 {
		return g.minBirth
	}
	low := g.vertex(judges[0]).Birth
	for _, j := range judges {
		low = min(low, g.vertex(j).Birth)
	}
	if back := g.rules(round).NonAncientRounds; low > back {
		return max(g.minBirth, low-back)
	}
	return g.minBirth
}

func (g *Engine) vertex(x int) *Vertex { return &g.vert[x-g.base] }

func (g *Engine) at(x int) *values { return &g.vals[x-g.base] }

// row is the part of a slice of rows that belongs to x.
func (g *Engine) row(s []int, x int) []int {
	o := (x - g.base) * g.n
	return s[o : o+g.n : o+g.n]
}

func (g *Engine) ancient(x int) bool { return g.vertex(x).Birth < g.minBirth }
