package slow

// maxCopies ends the deciding when so many rounds in a row took over the judges
// before them, as they can without end once a third of the stake lies.
const maxCopies = 1000

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
	Time  int64 // consensus time of the rules, ns
}

// Round is a decided round of H26.
type Round struct {
	Round    uint64
	VoteD    uint64
	MinBirth uint64
	Decider  int  // the first event, in order of insertion, that decides
	Late     bool // decided later than the first voting round that could
	Copied   bool
	Judges   []int
	Rows     []Row // of the events with a say up to the decider
	Received []Received
}

// H26 decides rounds by the rules of 2026. Make one with NewH26.
type H26 struct {
	events []Event
	rules  []Rules

	p      uint64       // pending round
	j      []int        // judges of p-1
	copied bool         // they equal the judges of p-2
	copies int          // how often in a row
	minNA  uint64       // of p-1, until open makes it that of p
	before map[int]bool // received by the judges of earlier rounds

	r *round // what is known of round p
}

// NewH26 starts at round 1 without events. The first rules are From round 1.
func NewH26(r Rules) *H26 {
	h := &H26{rules: []Rules{r}, p: 1, minNA: 1, before: map[int]bool{}}
	h.open()
	return h
}

// Plan adds the rules of round r.From and later ones. That round must not be pending
// or decided yet, nor below that of rules planned before.
func (h *H26) Plan(r Rules) { h.rules = append(h.rules, r) }

// Add puts an event on the graph.
func (h *H26) Add(e Event) { h.events = append(h.events, e) }

// Pending is the round to be decided next.
func (h *H26) Pending() uint64 { return h.p }

// Halted reports that the rules take over judges without end.
func (h *H26) Halted() bool { return h.copies >= maxCopies }

// Decide decides the pending round if some event does.
func (h *H26) Decide() (Round, bool) {
	for ; h.r.next < len(h.events) && !h.Halted(); h.r.next++ {
		if x := h.r.next; h.r.decidedBy(x) {
			d := h.r.close(x)
			h.carry(d)
			return d, true
		}
	}
	return Round{}, false
}

// Open are the rows of the pending round, as far as Decide has looked.
func (h *H26) Open() []Row { return h.r.rowsUpTo(h.r.next - 1) }

// rulesOf are the rules of a round.
func (h *H26) rulesOf(p uint64) *Rules {
	in := &h.rules[0]
	for i := range h.rules {
		if h.rules[i].From <= p {
			in = &h.rules[i]
		}
	}
	return in
}

// carry takes over what a decided round leaves to the next one. The definition speaks of
// what the judges of the one round before received, which is all that earlier ones did:
// but for one case, where that round took over its judges and wants all of them to
// receive what any of them had received. Nothing may be received twice.
func (h *H26) carry(d Round) {
	for x := range h.r.receivedBy(d.Judges) {
		h.before[x] = true
	}
	h.j, h.copied = d.Judges, d.Copied
	if h.copies++; !d.Copied {
		h.copies = 0
	}
	h.p++
	h.open()
}

// open starts the pending round.
func (h *H26) open() {
	r := newRound(h, h.rulesOf(h.p))
	if len(h.j) > 0 {
		low := h.events[h.j[0]].Birth
		for _, j := range h.j {
			low = min(low, h.events[j].Birth)
		}
		if low > r.NonAncientRounds {
			h.minNA = max(h.minNA, low-r.NonAncientRounds)
		}
	}
	var held uint64
	for _, j := range h.j {
		held += r.stakeOf(h.events[j].Creator)
	}
	wasAny := h.p > 1 && h.rulesOf(h.p-1).JudgeAny
	r.voteD = 1
	if h.copied || wasAny && !r.JudgeAny || !r.supermajority(held) {
		r.voteD = 2
	}
	// What comes before every judge in order of insertion has none below it and so no
	// say. This is the one thing here that is not in the definitions.
	for i, j := range h.j {
		if i == 0 || j < r.next {
			r.next = j
		}
	}
	r.from = r.next
	h.r = r
}

// round is what is known while a round is pending: tables of the functions of the
// definitions, each a function of the round and of an event's ancestry.
type round struct {
	*H26
	*Rules
	voteD      uint64
	from, next int

	ancJs    map[int]map[int]bool
	pars     map[int][]int
	gens     map[int]int
	prs, vrs map[int]uint64
	lastSees map[pair]int
	firsts   map[int]int
	sss      map[pair]int
	fws      map[int]int
	votes    map[pair]vote
}

// vote is a witness or None, and whether it is final.
type vote struct {
	value   int
	decided bool
}

func newRound(h *H26, rules *Rules) *round {
	return &round{
		H26: h, Rules: rules,
		ancJs: map[int]map[int]bool{}, pars: map[int][]int{}, gens: map[int]int{},
		prs: map[int]uint64{}, vrs: map[int]uint64{}, lastSees: map[pair]int{}, firsts: map[int]int{},
		sss: map[pair]int{}, fws: map[int]int{}, votes: map[pair]vote{},
	}
}

func (r *round) ancient(x int) bool { return r.events[x].Birth < r.minNA }

// nonAncient are the parents of x that are not ancient, in signed order.
func (r *round) nonAncient(x int) []int {
	var out []int
	for _, q := range r.events[x].Parents {
		if !r.ancient(q) {
			out = append(out, q)
		}
	}
	return out
}

// ancJ are the judges of the round before that are ancestors of x.
func (r *round) ancJ(x int) map[int]bool {
	if x < r.from {
		return nil
	}
	return recall(r.ancJs, x, func() map[int]bool {
		s := r.properAncJ(x)
		for _, j := range r.j {
			if j == x {
				s[x] = true
			}
		}
		return s
	})
}

// properAncJ are those of them that are not x itself.
func (r *round) properAncJ(x int) map[int]bool {
	s := map[int]bool{}
	for _, q := range r.nonAncient(x) {
		for j := range r.ancJ(q) {
			s[j] = true
		}
	}
	return s
}

func (r *round) live(x int) bool { return r.p == 1 || len(r.ancJ(x)) > 0 }

// par are the parents that have a say.
func (r *round) par(x int) []int {
	return recall(r.pars, x, func() []int {
		var out []int
		for _, q := range r.nonAncient(x) {
			if r.live(q) {
				out = append(out, q)
			}
		}
		return out
	})
}

// sp is the self-parent if it has a say.
func (r *round) sp(x int) int {
	for _, q := range r.par(x) {
		if q == r.events[x].SelfParent {
			return q
		}
	}
	return None
}

// gen is the generation of x.
func (r *round) gen(x int) int {
	return recall(r.gens, x, func() int {
		g := 0
		for _, q := range r.par(x) {
			g = max(g, r.gen(q))
		}
		return g + 1
	})
}

// pr is the parent round of x.
func (r *round) pr(x int) uint64 {
	return recall(r.prs, x, func() uint64 {
		v := r.p - 1
		for _, q := range r.par(x) {
			v = max(v, r.vr(q))
		}
		return v
	})
}

// lastSee is the last event of member m that x has at or below itself.
func (r *round) lastSee(x, m int) int {
	if r.member(r.events[x].Creator) == m {
		return x
	}
	return recall(r.lastSees, pair{x, m}, func() int {
		var seen []int
		var high uint64
		for _, q := range r.par(x) {
			if s := r.lastSee(q, m); s != None {
				seen = append(seen, s)
				high = max(high, r.vr(s))
			}
		}
		best, branch := None, None
		for _, s := range seen {
			switch {
			case r.vr(s) < high:
			case best == None:
				best, branch = s, r.first(s)
			case r.first(s) == branch && r.gen(s) > r.gen(best):
				best = s
			}
		}
		return best
	})
}

// first is the first self witness of x.
func (r *round) first(x int) int {
	return recall(r.firsts, x, func() int {
		if r.witness(x) {
			return x
		}
		return r.first(r.sp(x))
	})
}

// seeThru is the witness of m that x sees through m2.
func (r *round) seeThru(x, m, m2 int) int {
	if m == m2 && m == r.member(r.events[x].Creator) {
		if sp := r.sp(x); sp != None {
			return r.first(sp)
		}
		return None
	}
	s := r.lastSee(x, m2)
	if s == None {
		return None
	}
	if s = r.lastSee(s, m); s == None {
		return None
	}
	return r.first(s)
}

// ss is the witness of m in x's parent round that x strongly sees.
func (r *round) ss(x, m int) int {
	return recall(r.sss, pair{x, m}, func() int {
		s := r.seeThru(x, m, m)
		if s == None || r.vr(s) != r.pr(x) {
			return None
		}
		var held uint64
		for m2 := range r.Members {
			if r.seeThru(x, m, m2) == s {
				held += r.Members[m2].Stake
			}
		}
		if !r.supermajority(held) {
			return None
		}
		return s
	})
}

// vr is the voting round of x.
func (r *round) vr(x int) uint64 {
	return recall(r.vrs, x, func() uint64 {
		pr := r.pr(x)
		switch {
		case pr == r.p-1:
			if len(r.properAncJ(x)) == len(r.j) {
				return r.p
			}
			return r.p - 1
		case pr == r.p && r.voteD == 1 && r.seesEnough(x):
			return pr + 1
		}
		var held uint64
		for m := range r.Members {
			if r.ss(x, m) != None {
				held += r.Members[m].Stake
			}
		}
		if r.supermajority(held) {
			return pr + 1
		}
		return pr
	})
}

// seesEnough is the fast step: enough stake has come to x's parent round below x.
func (r *round) seesEnough(x int) bool {
	var held, total uint64
	for m := range r.Members {
		total += r.Members[m].Stake
		last := r.lastSee(x, m)
		if last == x {
			last = r.sp(x)
		}
		if last != None && r.vr(last) == r.pr(x) {
			held += r.Members[m].Stake
		}
	}
	return r.SeeDen*held > r.SeeNum*total
}

func (r *round) witness(x int) bool {
	sp := r.sp(x)
	return sp == None || r.vr(sp) < r.vr(x)
}

// fw is the first witness of x's voting round by way of first parents.
func (r *round) fw(x int) int {
	return recall(r.fws, x, func() int {
		if len(r.par(x)) == 0 {
			return None
		}
		if r.vr(x) > r.pr(x) {
			return x
		}
		for _, q := range r.par(x) {
			if r.vr(q) == r.vr(x) {
				return r.fw(q)
			}
		}
		return x
	})
}

// ss1 is the witness of m that is strongly seen in the round before x's.
func (r *round) ss1(x, m int) int {
	if fw := r.fw(x); fw != None {
		return r.ss(fw, m)
	}
	return None
}

// vote is what x says to the question which witness of m is a judge.
func (r *round) vote(x, m int) vote {
	return recall(r.votes, pair{x, m}, func() vote {
		first := r.p + r.voteD
		switch {
		case !r.witness(x) || r.vr(x) < first:
			return vote{None, false}
		case r.vr(x) == first:
			return vote{r.firstVote(x, m), false}
		}
		value, super := r.tally(x, m)
		if (r.vr(x)-r.p)%r.CoinInterval != 0 {
			return vote{value, super}
		}
		if super {
			return vote{value, false}
		}
		c := int(r.events[x].Coin % uint32(len(r.Members)))
		if w := r.ss1(x, c); r.events[x].Birth == r.p && w != None {
			return vote{r.vote(w, m).value, false}
		}
		return vote{None, false}
	})
}

// tally is the value with most stake among the votes on m of the witnesses that x
// strongly sees, and whether it has a supermajority.
func (r *round) tally(x, m int) (int, bool) {
	weight := map[int]uint64{}
	var order []int
	for m2 := range r.Members {
		w := r.ss1(x, m2)
		if w == None {
			continue
		}
		v := r.vote(w, m).value
		if _, known := weight[v]; !known {
			order = append(order, v)
		}
		weight[v] += r.Members[m2].Stake
	}
	best := None
	for i, v := range order {
		if i == 0 || weight[v] > weight[best] {
			best = v
		}
	}
	return best, len(order) > 0 && r.supermajority(weight[best])
}

func (r *round) firstVote(x, m int) int {
	if r.voteD == 2 {
		for m2 := range r.Members {
			if e := r.ss1(x, m2); e != None {
				if w := r.ss1(e, m); w != None {
					return w
				}
			}
		}
		return None
	}
	for z := r.lastSee(x, m); z != None; z = r.sp(z) {
		if r.witness(z) && r.vr(z) == r.vr(x)-1 {
			return z
		}
	}
	return None
}

// decidedBy reports whether x's votes on all members are final.
func (r *round) decidedBy(x int) bool {
	for m := range r.Members {
		if !r.vote(x, m).decided {
			return false
		}
	}
	return true
}
