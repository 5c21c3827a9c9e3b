package h26

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
)

// This file is the engine as it was before it was made fast: the definitions one
// by one, a row of values for each event. The fast one must agree with it in every
// value.

// simple applies the rules to a growing graph. Make one with New.
type simple struct {
	plans []simplePlan // from the round before the pending one on

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
	vals []simpleValues
	rows simpleRows
}

// plan is a change of rules.
type simplePlan struct {
	from  uint64
	rules Rules
}

// values are what the rules say of one event in the pending round.
type simpleValues struct {
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
type simpleRows struct {
	seen   []int // last event of the member below
	strong []int // witness of the member in the parent round that is strongly seen
	vote   []int // witness of the member that it wants as judge
}

// newSimple returns an engine at round 1 with no events.
func newSimple(r Rules) *simple {
	g := &simple{round: 1, minBirth: 1}
	g.Plan(0, r)
	g.open()
	return g
}

// Plan sets the rules of the rounds from the given one on, which must come after
// the one that is pending or was decided by the last Decide.
func (g *simple) Plan(from uint64, r Rules) {
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
	g.plans = append(g.plans, simplePlan{from, r})
}

// rules are those of a round that is not over, or the one before.
func (g *simple) rules(round uint64) *Rules {
	k := len(g.plans) - 1
	for k > 0 && g.plans[k].from > round {
		k--
	}
	return &g.plans[k].rules
}

// lay lays the engine out for the rules of the pending round.
func (g *simple) lay() {
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
	g.rows = simpleRows{make([]int, k), make([]int, k), make([]int, k)}
}

// who is the place in the roster of the creator of x, or None.
func (g *simple) who(x int) int {
	if s := g.vertex(x).Creator; s < len(g.member) {
		return g.member[s]
	}
	return None
}

// weight is the stake of the creator of x.
func (g *simple) weight(x int) uint64 {
	if m := g.who(x); m != None {
		return g.stake[m]
	}
	return 0
}

// Begin lets a new engine, to which events were added and which has decided
// nothing, go on as if s.Round had just been decided. The judges must be there.
// What s.Round and the rounds before it received is never received again. The
// rules planned must reach back to round s.Round - s.Copies.
func (g *simple) Begin(s State) {
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
func (g *simple) State() State {
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
func (g *simple) Pending() uint64 { return g.round }

// MinBirth is the first birth round that is not ancient.
func (g *simple) MinBirth() uint64 { return g.minBirth }

// Base is the index of the first event that is still kept.
func (g *simple) Base() int { return g.base }

// Len is the index that the next event gets.
func (g *simple) Len() int { return g.base + len(g.vert) }

// Halted reports that the rules have come to no judges so often in a row that no
// more rounds are decided: members of a third of the stake or more are lying.
func (g *simple) Halted() bool { return g.copies >= MaxCopies }

// Super reports whether a stake is more than two thirds of the total.
func (g *simple) Super(stake uint64) bool { return 3*stake > 2*g.total }

// Add puts an event on the graph and returns its index. Its parents must be there;
// one that was forgotten is to be left out. Decide has to be called to use it.
func (g *simple) Add(v Vertex) int {
	g.vert = append(g.vert, v)
	g.got = append(g.got, false)
	g.vals = append(g.vals, simpleValues{})
	for range g.n {
		g.rows.seen = append(g.rows.seen, None)
		g.rows.strong = append(g.rows.strong, None)
		g.rows.vote = append(g.rows.vote, None)
	}
	return g.base + len(g.vert) - 1
}

// Decide looks at the events not looked at yet, up to one that decides the pending
// round. Call it until it says false. The slices of a decision belong to the caller.
func (g *simple) Decide() (Decision, bool) {
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
func (g *simple) Inspect(x int) (round uint64, first, gen int, ok bool) {
	if x < g.start {
		return g.round - 1, x, 1, false
	}
	v := g.at(x)
	return v.round, v.first, v.gen, g.live(v) && x <= g.next
}

// gen is the generation of x in the pending round.
func (g *simple) gen(x int) int {
	if x < g.start {
		return 1
	}
	return g.at(x).gen
}

// Forget lets go of the events at the front that are ancient and returns the new
// base. It does nothing while there are fewer than min of them. Call it only when
// Decide said false.
func (g *simple) Forget(min int) int {
	k := 0
	for k < len(g.vert) && g.vert[k].Birth < g.minBirth && g.base+k < g.start {
		k++
	}
	if k == 0 || k < min {
		return g.base
	}
	g.base += k
	g.vert = simpleCut(g.vert, k)
	g.got = simpleCut(g.got, k)
	g.vals = simpleCut(g.vals, k)
	g.rows.seen = simpleCut(g.rows.seen, k*g.n)
	g.rows.strong = simpleCut(g.rows.strong, k*g.n)
	g.rows.vote = simpleCut(g.rows.vote, k*g.n)
	for i := range g.vert {
		g.unlink(&g.vert[i])
	}
	return g.base
}

// cut drops the first k in place.
func simpleCut[T any](s []T, k int) []T {
	m := copy(s, s[k:])
	clear(s[m:])
	return s[:m]
}

// unlink takes forgotten parents away.
func (g *simple) unlink(v *Vertex) {
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
func (g *simple) open() {
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
func (g *simple) limit(judges []int, round uint64) uint64 {
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

func (g *simple) vertex(x int) *Vertex { return &g.vert[x-g.base] }

func (g *simple) at(x int) *simpleValues { return &g.vals[x-g.base] }

// row is the part of a slice of rows that belongs to x.
func (g *simple) row(s []int, x int) []int {
	o := (x - g.base) * g.n
	return s[o : o+g.n : o+g.n]
}

func (g *simple) ancient(x int) bool { return g.vertex(x).Birth < g.minBirth }

// value computes what the rules say of x in the pending round, from its parents.
func (g *simple) value(x int) {
	v, vert := g.at(x), g.vertex(x)
	*v = simpleValues{self: None, first: x, fw: None, parent: g.round - 1}
	var proper uint64
	for _, q := range vert.Parents {
		if q < g.start || g.ancient(q) {
			continue
		}
		w := g.at(q)
		proper |= w.below
		if !g.live(w) {
			continue
		}
		v.gen = max(v.gen, w.gen)
		v.parent = max(v.parent, w.round)
		if q == vert.SelfParent {
			v.self = q
		}
	}
	v.gen++
	v.below = proper
	for k, j := range g.judges {
		if j == x {
			v.below |= 1 << k
		}
	}
	g.look(x)
	v.round = g.votingRound(x, proper)
	v.isFirst = v.self == None || g.at(v.self).round < v.round
	if !v.isFirst {
		v.first = g.at(v.self).first
	}
	v.fw = g.firstWitness(x)
	if v.isFirst && v.round >= g.round+g.voteD {
		g.castVotes(x)
	}
}

// live reports whether an event has a say: it is above a judge of the round before.
func (g *simple) live(v *simpleValues) bool { return g.round == 1 || v.below != 0 }

// says reports whether parent q of an event has a say.
func (g *simple) says(q int) bool {
	return q >= g.start && !g.ancient(q) && g.live(g.at(q))
}

// look fills the row of the last event of each member below x. Where parents know
// different events of a member, the highest voting round wins; among those of it,
// the branch that the earliest parent knows; of that branch, the latest event.
func (g *simple) look(x int) {
	vert, row := g.vertex(x), g.row(g.rows.seen, x)
	for m := range row {
		row[m] = None
	}
	for _, q := range vert.Parents {
		if !g.says(q) {
			continue
		}
		for m, s := range g.row(g.rows.seen, q) {
			if s != None {
				row[m] = g.newer(row[m], s)
			}
		}
	}
	if c := g.who(x); c != None {
		row[c] = x
	}
}

// newer chooses between the event of a member that is known so far and another.
func (g *simple) newer(known, other int) int {
	if known == None {
		return other
	}
	k, o := g.at(known), g.at(other)
	if o.round > k.round || (o.round == k.round && o.first == k.first && o.gen > k.gen) {
		return other
	}
	return known
}

// votingRound is the voting round of x; proper is the set of judges below x.
func (g *simple) votingRound(x int, proper uint64) uint64 {
	r := g.at(x).parent
	switch {
	case r < g.round:
		if proper == uint64(1)<<len(g.judges)-1 {
			return g.round
		}
		return r
	case r == g.round && g.voteD == 1 && g.seesRound(x, r):
		return r + 1
	}
	var held uint64
	for m, w := range g.strong(x) {
		if w != None {
			held += g.stake[m]
		}
	}
	if g.Super(held) {
		return r + 1
	}
	return r
}

// seesRound is the fast step: enough stake is in round r already, as seen from x.
func (g *simple) seesRound(x int, r uint64) bool {
	var held uint64
	for m, s := range g.row(g.rows.seen, x) {
		if s == x {
			s = g.at(x).self
		}
		if s != None && g.at(s).round == r {
			held += g.stake[m]
		}
	}
	return g.params.SeeDen*held > g.params.SeeNum*g.total
}

// strong is the row of witnesses in x's parent round that x strongly sees.
func (g *simple) strong(x int) []int {
	row, v := g.row(g.rows.strong, x), g.at(x)
	if v.strong {
		return row
	}
	v.strong = true
	for m := range row {
		row[m] = None
		s := g.through(x, m, m)
		if s == None || g.at(s).round != v.parent {
			continue
		}
		var held uint64
		for by := range row {
			if g.through(x, m, by) == s {
				held += g.stake[by]
			}
		}
		if g.Super(held) {
			row[m] = s
		}
	}
	return row
}

// through is the witness of member m that x sees by way of member by.
func (g *simple) through(x, m, by int) int {
	if m == by && m == g.who(x) {
		if sp := g.at(x).self; sp != None {
			return g.at(sp).first
		}
		return None
	}
	s := g.row(g.rows.seen, x)[by]
	if s == None {
		return None
	}
	if s = g.row(g.rows.seen, s)[m]; s == None {
		return None
	}
	return g.at(s).first
}

// firstWitness follows first parents down to the event that entered x's voting round.
func (g *simple) firstWitness(x int) int {
	v, any := g.at(x), false
	for _, q := range g.vertex(x).Parents {
		if !g.says(q) {
			continue
		}
		any = true
		if w := g.at(q); w.round == v.round && v.round <= v.parent {
			return w.fw
		}
	}
	if !any {
		return None
	}
	return x
}

// strongBefore is the row of witnesses strongly seen in the round before x's.
func (g *simple) strongBefore(x int) []int {
	if fw := g.at(x).fw; fw != None {
		return g.strong(fw)
	}
	return nil
}

// castVotes fills x's row of votes. x is a witness late enough to have one. The
// vote on a member is a witness of that member, or None; final votes are marked
// by decidesAll, which decides uses.
func (g *simple) castVotes(x int) {
	v, row := g.at(x), g.row(g.rows.vote, x)
	v.voted = true
	if v.round == g.round+g.voteD {
		for m := range row {
			row[m] = g.firstVote(x, m)
		}
		return
	}
	for m := range row {
		row[m], _ = g.count(x, m)
	}
}

// decides reports whether x's votes are final for every member.
func (g *simple) decides(x int) bool {
	v := g.at(x)
	if !v.voted || v.round <= g.round+g.voteD || g.coinRound(v) {
		return false
	}
	for m := range g.n {
		if _, final := g.count(x, m); !final {
			return false
		}
	}
	return true
}

func (g *simple) coinRound(v *simpleValues) bool {
	return (v.round-g.round)%g.params.CoinInterval == 0
}

// voteOf is the vote of witness w on member m: None if it is too early to have one.
func (g *simple) voteOf(w, m int) int {
	if !g.at(w).voted {
		return None
	}
	return g.row(g.rows.vote, w)[m]
}

// firstVote is what witness x says of member m without counting others' votes.
func (g *simple) firstVote(x, m int) int {
	if g.voteD == 1 {
		return g.witnessOf(g.row(g.rows.seen, x)[m], g.at(x).round-1)
	}
	for _, e := range g.strongBefore(x) {
		if e == None {
			continue
		}
		if below := g.strongBefore(e); below != nil && below[m] != None {
			return below[m]
		}
	}
	return None
}

// witnessOf is the witness of a round on the self-chain that ends in z.
func (g *simple) witnessOf(z int, round uint64) int {
	for z != None {
		f := g.at(z).first
		switch r := g.at(f).round; {
		case r == round:
			return f
		case r < round:
			return None
		}
		z = g.at(f).self
	}
	return None
}

// count adds up what the witnesses that x strongly sees say of member m. In a coin
// round nothing is final, and without a supermajority the coin picks the member
// whose vote is copied.
func (g *simple) count(x, m int) (vote int, final bool) {
	ws := g.strongBefore(x)
	best, most := None, uint64(0)
	for by, w := range ws {
		if w == None {
			continue
		}
		// The stake of a value is added up where it is named first.
		value, first := g.voteOf(w, m), true
		for _, u := range ws[:by] {
			if u != None && g.voteOf(u, m) == value {
				first = false
				break
			}
		}
		if !first {
			continue
		}
		var held uint64
		for k, u := range ws[by:] {
			if u != None && g.voteOf(u, m) == value {
				held += g.stake[by+k]
			}
		}
		if held > most {
			best, most = value, held
		}
	}
	super := g.Super(most)
	switch {
	case !g.coinRound(g.at(x)):
		return best, super
	case super:
		return best, false
	}
	vert := g.vertex(x)
	c := int(vert.Coin % uint32(g.n))
	if vert.Birth == g.round && ws != nil && ws[c] != None {
		return g.voteOf(ws[c], m), false
	}
	return None, false
}

// decide closes the pending round; x is the event that decides it.
func (g *simple) decide(x int) Decision {
	d := Decision{
		Round: g.round, VoteD: g.voteD, MinBirth: g.minBirth, Decider: x,
		Late: g.at(x).round > g.round+g.voteD+1,
	}
	var held uint64
	for _, w := range g.row(g.rows.vote, x) {
		if w != None {
			d.Judges = append(d.Judges, w)
			held += g.weight(w)
		}
	}
	if !g.Super(held) {
		d.Judges = append([]int(nil), g.judges...)
		d.Copied = true
	}
	d.Median = g.median(d.Judges, func(_, j int) int64 { return g.vertex(j).Time })
	d.Received = g.receive(&d)
	return d
}

// placed is an event on its way into the order.
type simplePlaced struct {
	Received
	gen, walk int
}

// receive orders what the judges of d have below them and earlier judges had not:
// by consensus time, then generation, then whitened hash if the rules say so, then
// place in a walk down from the judges.
func (g *simple) receive(d *Decision) []Received {
	if len(d.Judges) == 0 {
		return nil
	}
	var list []simplePlaced
	if g.params.JudgeAny {
		list = g.receiveAny(d)
	} else {
		list = g.receiveAll(d)
	}
	var white [32]byte
	for _, j := range d.Judges {
		white = simpleXor(white, g.vertex(j).Hash)
	}
	slices.SortFunc(list, func(a, b simplePlaced) int {
		if c := cmp.Or(cmp.Compare(a.Time, b.Time), cmp.Compare(a.gen, b.gen)); c != 0 {
			return c
		}
		if g.params.Whiten {
			ha, hb := simpleXor(white, g.vertex(a.Index).Hash), simpleXor(white, g.vertex(b.Index).Hash)
			if c := bytes.Compare(ha[:], hb[:]); c != 0 {
				return c
			}
		}
		return cmp.Compare(a.walk, b.walk)
	})
	out := make([]Received, len(list))
	for i := range list {
		out[i] = list[i].Received
		g.got[list[i].Index-g.base] = true
	}
	return out
}

func simpleXor(a, b [32]byte) [32]byte {
	for i := range a {
		a[i] ^= b[i]
	}
	return a
}

func (g *simple) receiveAny(d *Decision) []simplePlaced {
	var list []simplePlaced
	seen := make([]bool, len(g.vert))
	for _, j := range d.Judges {
		g.walk(j, seen, func(x int) {
			gen := g.gen(x)
			list = append(list, simplePlaced{Received{x, d.Median + int64(gen)}, gen, len(list)})
		})
	}
	return list
}

func (g *simple) receiveAll(d *Decision) []simplePlaced {
	// When each judge's own chain first had an event below it.
	first := make([][]int64, len(d.Judges))
	has := make([][]bool, len(d.Judges))
	for k, j := range d.Judges {
		first[k], has[k] = g.chainTimes(j)
	}
	var list []simplePlaced
	seen := make([]bool, len(g.vert))
	g.walk(d.Judges[len(d.Judges)-1], seen, func(x int) {
		for k := range d.Judges {
			if !has[k][x-g.base] {
				return
			}
		}
		t := g.median(d.Judges, func(k, _ int) int64 { return first[k][x-g.base] })
		gen := g.gen(x)
		list = append(list, simplePlaced{Received{x, t}, gen, len(list)})
	})
	return list
}

// chainTimes says, for each event, the creation time of the earliest self-ancestor
// of j that has the event below it, and whether there is one.
func (g *simple) chainTimes(j int) ([]int64, []bool) {
	var chain []int
	for x := j; x != None && (x == j || !g.ancient(x)); x = g.vertex(x).SelfParent {
		chain = append(chain, x)
	}
	times, seen := make([]int64, len(g.vert)), make([]bool, len(g.vert))
	for i := len(chain) - 1; i >= 0; i-- {
		t := g.vertex(chain[i]).Time
		g.walk(chain[i], seen, func(x int) { times[x-g.base] = t })
	}
	return times, seen
}

// walk calls visit for x and what is below it, through parents that are not
// ancient, in post-order with parents in signed order. What is marked in seen, and
// what was received in an earlier round, is passed over with all below it.
func (g *simple) walk(x int, seen []bool, visit func(int)) {
	type frame struct{ x, parent int }
	if seen[x-g.base] || g.got[x-g.base] {
		return
	}
	seen[x-g.base] = true
	stack := []frame{{x, 0}}
	for len(stack) > 0 {
		top := &stack[len(stack)-1]
		ps := g.vertex(top.x).Parents
		if top.parent == len(ps) {
			visit(top.x)
			stack = stack[:len(stack)-1]
			continue
		}
		q := ps[top.parent]
		top.parent++
		if !seen[q-g.base] && !g.got[q-g.base] && !g.ancient(q) {
			seen[q-g.base] = true
			stack = append(stack, frame{q, 0})
		}
	}
}

// median is the first time at which the running stake of the judges, sorted by
// time, reaches half of theirs. time is given the place in the list and the judge.
func (g *simple) median(judges []int, time func(k, j int) int64) int64 {
	type weighted struct {
		time  int64
		stake uint64
	}
	var list []weighted
	var total, sum uint64
	for k, j := range judges {
		w := weighted{time(k, j), g.weight(j)}
		total += w.stake
		list = append(list, w)
	}
	slices.SortFunc(list, func(a, b weighted) int { return cmp.Compare(a.time, b.time) })
	for _, w := range list {
		if sum += w.stake; sum >= total-total/2 {
			return w.time
		}
	}
	return 0
}
