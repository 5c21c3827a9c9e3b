package slow

import (
	"bytes"
	"cmp"
	"slices"
)

// Fame is what the elections say of a witness.
type Fame int

// Undecided: the votes so far decide nothing.
const (
	Undecided Fame = iota
	Famous
	NotFamous
)

// Verdict is what H16 says of an event.
type Verdict struct {
	Round         uint64
	Witness       bool
	Fame          Fame   // of a witness
	Judge         bool   // a unique famous witness
	RoundReceived uint64 // 0 if it is not received yet
	Time          int64  // consensus time, ns, once it is received
	Place         int    // in the total order, once it is received, from 0
}

// H16 is a graph under the rules of 2016. Make one with NewH16.
type H16 struct {
	events []Event
	rules  *Rules

	below     [][]bool // below[x][y]: y is an ancestor of x
	forks     map[holds]bool
	strong    map[pair]bool
	rounds    []uint64
	witnesses [][]int // by round, in order of insertion
	fame      map[int]Fame
	votes     map[pair]bool
	judges    [][]int // by decided round

	// OwnRoundExcluded makes the search for the round received begin after an event's
	// own round, as babble does and the paper does not.
	OwnRoundExcluded bool
}

// NewH16 applies the rules to the events as far as the elections: rounds, witnesses
// and fame. Rules.From has no meaning here.
func NewH16(events []Event, r Rules) *H16 {
	h := &H16{
		events: events, rules: &r, forks: map[holds]bool{}, strong: map[pair]bool{},
		fame: map[int]Fame{}, votes: map[pair]bool{}, witnesses: [][]int{nil},
	}
	for x := range events {
		h.below = append(h.below, h.ancestry(x))
	}
	for x := range events {
		h.divide(x)
	}
	h.elect()
	h.findJudges()
	return h
}

// Verdicts says of each event what the rules say.
func (h *H16) Verdicts() []Verdict {
	out := make([]Verdict, len(h.events))
	for x := range out {
		v := &out[x]
		v.Round, v.Witness = h.rounds[x], h.witness(x)
		if v.Witness {
			v.Fame = h.fame[x]
		}
		if r := h.roundReceived(x); r > 0 {
			v.RoundReceived, v.Time = r, h.timestamp(x, r)
		}
	}
	for _, js := range h.judges {
		for _, j := range js {
			out[j].Judge = true
		}
	}
	for i, x := range h.order(out) {
		out[x].Place = i
	}
	return out
}

// ancestry marks x and its ancestors.
func (h *H16) ancestry(x int) []bool {
	set := make([]bool, x+1)
	set[x] = true
	for _, q := range h.events[x].Parents {
		for y, is := range h.below[q] {
			set[y] = set[y] || is
		}
	}
	return set
}

func (h *H16) ancestor(x, y int) bool { return y <= x && h.below[x][y] }

// holds is the question whether an event's ancestry holds a fork by a member.
type holds struct {
	x  int
	by uint64
}

// forked reports whether the ancestry of x holds a fork by the creator of y: two of
// its events neither of which is a self-ancestor of the other. In a set that holds
// all ancestors, such two exist where two events have one self-parent, or none.
func (h *H16) forked(x, y int) bool {
	by := h.events[y].Creator
	return recall(h.forks, holds{x, by}, func() bool {
		children := map[int]bool{}
		for z, is := range h.below[x] {
			if is && h.events[z].Creator == by {
				if children[h.events[z].SelfParent] {
					return true
				}
				children[h.events[z].SelfParent] = true
			}
		}
		return false
	})
}

// see: y is an ancestor of x, and x's ancestry holds no fork by y's creator.
func (h *H16) see(x, y int) bool { return h.ancestor(x, y) && !h.forked(x, y) }

// stronglySee: x sees events by members of supermajority stake, each of which sees y.
func (h *H16) stronglySee(x, y int) bool {
	if !h.ancestor(x, y) {
		return false
	}
	return recall(h.strong, pair{x, y}, func() bool {
		var held uint64
		by := map[uint64]bool{}
		for z := y; z <= x; z++ {
			if c := h.events[z].Creator; !by[c] && h.see(x, z) && h.see(z, y) {
				by[c] = true
				held += h.rules.stakeOf(c)
			}
		}
		return h.rules.supermajority(held)
	})
}

// divide finds the round of x, whose parents have theirs.
func (h *H16) divide(x int) {
	r := uint64(1)
	for _, q := range h.events[x].Parents {
		r = max(r, h.rounds[q])
	}
	var held uint64
	by := map[uint64]bool{}
	for _, w := range h.witnessesOf(r) {
		if c := h.events[w].Creator; !by[c] && h.stronglySee(x, w) {
			by[c] = true
			held += h.rules.stakeOf(c)
		}
	}
	if h.rules.supermajority(held) {
		r++
	}
	h.rounds = append(h.rounds, r)
	for uint64(len(h.witnesses)) <= r {
		h.witnesses = append(h.witnesses, nil)
	}
	if h.witness(x) {
		h.witnesses[r] = append(h.witnesses[r], x)
		// Once there is an event two rounds later, those in between cannot come to a
		// majority for a witness that they did not know: no election is needed.
		if uint64(len(h.witnesses)) > r+2 {
			h.fame[x] = NotFamous
		}
	}
}

func (h *H16) witnessesOf(r uint64) []int {
	if r < uint64(len(h.witnesses)) {
		return h.witnesses[r]
	}
	return nil
}

// witness: the first event of its creator in its round.
func (h *H16) witness(x int) bool {
	sp := h.events[x].SelfParent
	return sp == None || h.rounds[sp] < h.rounds[x]
}

// elect decides the fame of each witness that later witnesses decide.
func (h *H16) elect() {
	for r := range h.witnesses {
		for _, w := range h.witnesses[r] {
			for k := r + 1; k < len(h.witnesses) && h.fame[w] == Undecided; k++ {
				for _, y := range h.witnesses[k] {
					h.ballot(w, y)
				}
			}
		}
	}
}

// ballot is the vote of witness y, of a later round, on the fame of w.
func (h *H16) ballot(w, y int) {
	k := h.rounds[y] - h.rounds[w]
	if k == 1 {
		h.votes[pair{y, w}] = h.see(y, w)
		return
	}
	var yes, no uint64
	for _, z := range h.witnesses[h.rounds[y]-1] {
		switch {
		case !h.stronglySee(y, z):
		case h.votes[pair{z, w}]:
			yes += h.rules.stakeOf(h.events[z].Creator)
		default:
			no += h.rules.stakeOf(h.events[z].Creator)
		}
	}
	v := yes >= no
	super := h.rules.supermajority(max(yes, no))
	if k%h.rules.CoinInterval == 0 {
		if !super {
			v = h.events[y].Coin&1 == 1
		}
	} else if super {
		h.fame[w] = NotFamous
		if v {
			h.fame[w] = Famous
		}
	}
	h.votes[pair{y, w}] = v
}

// findJudges finds the unique famous witnesses of the rounds that are decided
// together with all before them.
func (h *H16) findJudges() {
	h.judges = [][]int{nil}
	for r := 1; r+2 < len(h.witnesses); r++ {
		var judges []int
		for _, w := range h.witnesses[r] {
			switch h.fame[w] {
			case Undecided:
				return
			case Famous:
				judges = h.unique(judges, w)
			}
		}
		h.judges = append(h.judges, judges)
	}
}

// unique adds a famous witness; of two by one creator the one with the lower hash
// stays, without hashes that with the lower name.
func (h *H16) unique(judges []int, w int) []int {
	for i, j := range judges {
		if a, b := &h.events[w], &h.events[j]; a.Creator == b.Creator {
			if cmp.Or(bytes.Compare(a.Hash[:], b.Hash[:]), cmp.Compare(a.Name, b.Name)) < 0 {
				judges[i] = w
			}
			return judges
		}
	}
	return append(judges, w)
}

// roundReceived is the first round all of whose judges have x as ancestor, or 0. A
// round without judges, which liars of a third of the stake can make, receives nothing.
func (h *H16) roundReceived(x int) uint64 {
	for r, judges := range h.judges {
		if h.OwnRoundExcluded && uint64(r) <= h.rounds[x] {
			continue
		}
		all := len(judges) > 0
		for _, j := range judges {
			all = all && h.ancestor(j, x)
		}
		if all {
			return uint64(r)
		}
	}
	return 0
}

// timestamp is the median of the times at which the judges' creators first had x.
func (h *H16) timestamp(x int, received uint64) int64 {
	var times []int64
	for _, j := range h.judges[received] {
		first := j
		for s := j; s != None && h.ancestor(s, x); s = h.events[s].SelfParent {
			first = s
		}
		times = append(times, h.events[first].Time)
	}
	slices.Sort(times)
	return times[len(times)/2]
}

// order are the events received, by round received, timestamp and whitened hash;
// events without hashes by name.
func (h *H16) order(verdicts []Verdict) []int {
	white := make([][32]byte, len(h.judges))
	for r, judges := range h.judges {
		for _, j := range judges {
			white[r] = xor(white[r], h.events[j].Hash)
		}
	}
	var list []int
	for x := range verdicts {
		if verdicts[x].RoundReceived > 0 {
			list = append(list, x)
		}
	}
	slices.SortFunc(list, func(a, b int) int {
		v, w := &verdicts[a], &verdicts[b]
		x, y := xor(h.events[a].Hash, white[v.RoundReceived]), xor(h.events[b].Hash, white[w.RoundReceived])
		return cmp.Or(cmp.Compare(v.RoundReceived, w.RoundReceived), cmp.Compare(v.Time, w.Time),
			bytes.Compare(x[:], y[:]), cmp.Compare(h.events[a].Name, h.events[b].Name))
	})
	return list
}
