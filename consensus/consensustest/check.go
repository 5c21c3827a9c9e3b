package consensustest

import (
	"fmt"
	"slices"

	"github.com/dcnode/dcnode/consensus"
)

// books are what the simulator knows and no member does.
type books struct {
	order   []place
	events  map[consensus.Hash]*consensus.Event // saved by any honest member
	all     []*consensus.Event                  // the same, parents first
	hashes  map[*consensus.Event]consensus.Hash
	forged  map[consensus.Hash]Kind // false events
	child   map[ownPlace]*consensus.Event
	excused map[uint64]bool // members that may have forked: a reboot took what nobody else had
	again   map[string]bool // transactions that were said again after a reboot
	cps     map[uint64]string
	lost    map[consensus.Hash]uint64 // stale events, by who said so
	rules   []obeyed

	sent  map[string]int64 // when a transaction was submitted
	texts []string         // in the order of submission
	at    map[string]int   // place of a transaction
	known map[string]int   // how many honest members have ordered a transaction
	lat   []int64          // from submission until all members knew the order
	downs bool             // more than a third is down
}

// place is an entry of the order that all must agree on.
type place struct {
	ev    *consensus.Event
	hash  consensus.Hash
	round uint64
	time  consensus.Timestamp
}

// ownPlace is where on its chain a member's event goes.
type ownPlace struct {
	member uint64
	above  consensus.Hash
}

// obeyed is a change that was ordered.
type obeyed struct {
	change
	from uint64
	seen bool
}

func newBooks() books {
	return books{
		events: map[consensus.Hash]*consensus.Event{}, hashes: map[*consensus.Event]consensus.Hash{},
		forged: map[consensus.Hash]Kind{}, child: map[ownPlace]*consensus.Event{},
		excused: map[uint64]bool{}, again: map[string]bool{}, cps: map[uint64]string{}, lost: map[consensus.Hash]uint64{},
		sent: map[string]int64{}, at: map[string]int{}, known: map[string]int{},
	}
}

func (w *Network) hashOf(e *consensus.Event) consensus.Hash {
	h, ok := w.hashes[e]
	if !ok {
		h = e.Hash()
		w.hashes[e] = h
	}
	return h
}

func (w *Network) describe(e *consensus.Event) string {
	h := w.hashOf(e)
	s := fmt.Sprintf("%x (member %d, number %d, born %d, on", h[:4], e.Creator-1, e.Seq, e.BirthRound)
	for i := range e.Parents {
		s += fmt.Sprintf(" %x", e.Parents[i].Hash[:4])
	}
	return s + fmt.Sprintf(", %d transactions)", len(e.Payload))
}

func slot(e *consensus.Event) ownPlace {
	p := ownPlace{member: e.Creator}
	if len(e.Parents) > 0 && e.Parents[0].Creator == e.Creator {
		p.above = e.Parents[0].Hash
	}
	return p
}

// made notes an event that an honest member made: a second one in its place is a fork.
func (w *Network) made(m *Member, e *consensus.Event) {
	w.Created++
	if m.skew > w.diameter() || m.skew < -w.diameter() {
		w.Counts[SkewedClock]++
	}
	now := m.clock()
	if now < m.made {
		w.Counts[SteppedClock]++
	}
	m.made = now
	p := slot(e)
	if other := w.child[p]; other != nil && !w.excused[m.ID] && !w.mayHaveLost(m) {
		w.fail("member %d forks itself: %s and %s", m.index, w.describe(other), w.describe(e))
	}
	w.child[p] = e
}

// mayHaveLost reports whether a member that observes lost an event: it must not make
// one at all before it is sure.
func (w *Network) mayHaveLost(m *Member) bool {
	if m.observing != nil {
		w.fail("member %d makes an event before it knows its own last one", m.index)
	}
	return false
}

// unmade takes back the note of an event that was lost before anyone saw it.
func (w *Network) unmade(m *Member, e *consensus.Event) {
	if p := slot(e); w.child[p] == e {
		delete(w.child, p)
	}
}

// register notes an event that an honest member saved.
func (w *Network) register(m *Member, e *consensus.Event, h consensus.Hash) {
	if w.events[h] != nil {
		return
	}
	w.events[h] = e
	w.all = append(w.all, e)
	if w.forged[h] == LiarBornLater {
		w.Counts[LiarBornLater]++ // its time has come
	}
	for i := range e.Parents {
		p := &e.Parents[i]
		if p.BirthRound > e.BirthRound {
			w.fail("member %d lets in %s, born before its parent", m.index, w.describe(e))
		}
		q := w.events[p.Hash]
		if q != nil && (q.BirthRound != p.BirthRound || q.Creator != p.Creator) && p.BirthRound >= m.Core.Status().Oldest {
			w.fail("member %d lets in %s, which misnames a parent", m.index, w.describe(e))
		}
	}
	if e.BirthRound < 1 || e.Network != (consensus.Hash{}) {
		w.fail("member %d lets in %s", m.index, w.describe(e))
	}
}

// check compares what member m ordered with what the others did.
func (w *Network) check(m *Member, o *consensus.Ordered) {
	p := place{o.Event, w.hashOf(o.Event), o.Round, o.Time}
	k := int(m.state.applied)
	switch {
	case m.liar != nil && (w.err != nil || k >= len(w.order)):
		return // a liar, or a view in the end, may know first
	case o.Index != m.state.applied:
		w.fail("member %d: place %d after %d events", m.index, o.Index, m.state.applied)
	case k < len(w.order) && (w.order[k].hash != p.hash || w.order[k].time != p.time || w.order[k].round != p.round):
		q := w.order[k]
		w.fail("member %d has %x of round %d at %d in place %d, another has %x of round %d at %d", m.index,
			p.hash[:4], p.round, p.time, k, q.hash[:4], q.round, q.time)
	case k > 0 && k <= len(w.order) && (w.order[k-1].time >= o.Time || w.order[k-1].round > o.Round):
		w.fail("member %d: time %d or round %d in place %d does not increase", m.index, o.Time, o.Round, k)
	case k == len(w.order):
		w.append(m, p)
	}
	if k < m.noted || m.liar != nil {
		return
	}
	m.noted = k + 1
	if m.rejoined {
		m.rejoined = false
		w.Counts[Rejoined]++
	}
	for _, tx := range o.Event.Payload {
		w.count(m, string(tx), k)
	}
}

// append notes a place that no member had before.
func (w *Network) append(m *Member, p place) {
	w.order = append(w.order, p)
	if by, ok := w.lost[p.hash]; ok {
		w.fail("member %d orders %s, which was never to be ordered, says member %d", m.index, w.describe(p.ev), by)
	}
	if int(p.ev.Creator) > len(w.founded) && p.ev.Seq == 0 {
		w.Counts[Joined]++
	}
	for _, tx := range p.ev.Payload {
		t := string(tx)
		if _, ok := w.sent[t]; !ok {
			continue // made up by a liar
		}
		if first, ok := w.at[t]; ok {
			if !w.again[t] {
				w.fail("%q is ordered in place %d and again in place %d", t, first, len(w.order)-1)
			}
			continue
		}
		w.at[t] = len(w.order) - 1
	}
}

// count notes that member m has reached place k.
func (w *Network) count(m *Member, tx string, k int) {
	at, ok := w.sent[tx]
	if !ok || w.at[tx] != k {
		return
	}
	m.times = append(m.times, w.Now-at)
	if w.known[tx]++; w.known[tx] == w.honest() {
		w.lat = append(w.lat, w.Now-at)
	}
}

// stale notes that member m lost an event for good.
func (w *Network) stale(m *Member, e *consensus.Event) {
	h := w.hashOf(e)
	if m.liar != nil || m.taken[h] {
		return
	}
	m.taken[h] = true
	w.lost[h] = uint64(m.index)
	w.Stale++
	w.Counts[WentStale]++
	w.tracef("member %d: %s is stale", m.index, w.describe(e))
	for i := range w.order {
		if w.order[i].hash == h {
			w.fail("member %d says that %s is never to be ordered; it is in place %d", m.index, w.describe(e), i)
		}
	}
	m.pool = append(m.pool, e.Payload...)
}

// loseBefore notes that a member that goes on from a checkpoint will never hear what
// became of its own events before that.
func (w *Network) loseBefore(m *Member, s *saved) {
	for _, e := range m.log {
		h := w.hashOf(e)
		if e.Creator != m.ID || e.BirthRound >= s.cp.MinBirth || len(e.Payload) == 0 || m.taken[h] {
			continue
		}
		if !slices.ContainsFunc(w.order[:s.cp.Ordered], func(p place) bool { return p.hash == h }) {
			m.taken[h] = true
			w.lost[h] = uint64(m.index)
			m.pool = append(m.pool, e.Payload...)
		}
	}
}

// checkpointed compares checkpoints of one round byte for byte, and notes who took them.
func (w *Network) checkpointed(m *Member, s *saved) {
	r := s.cp.Round
	if have, ok := w.cps[r]; ok && have != s.bytes {
		w.fail("member %d has another checkpoint of round %d than others", m.index, r)
	}
	w.cps[r] = s.bytes
	m.took[r] = true
	if s.cp.Ordered != s.state.applied {
		w.fail("member %d: the checkpoint of round %d is to be taken after %d events, not %d", m.index, r, s.cp.Ordered, s.state.applied)
	}
}

// changed notes a change that was ordered, and counts it when a round that obeys it
// is over.
func (w *Network) changed(m *Member, o *consensus.Ordered, c *change) {
	if int(o.Index) == len(w.order)-1 && (len(w.rules) == 0 || w.rules[len(w.rules)-1].change != *c) {
		w.rules = append(w.rules, obeyed{change: *c, from: o.Round + consensus.ChangeDelay})
	}
}

func (w *Network) countRules() {
	var top uint64
	for _, m := range w.Members {
		if m.liar == nil {
			top = max(top, m.Core.Pending())
		}
	}
	for i := range w.rules {
		if r := &w.rules[i]; !r.seen && top > r.from {
			r.seen = true
			if r.kind != Joined {
				w.Counts[r.kind]++
			}
		}
	}
}

// noteDown counts outages of more than a third of the weight, when they are over.
func (w *Network) noteDown() {
	var total, down uint64
	for i, weight := range w.opt.Weights {
		if total += weight; w.Members[i].down {
			down += weight
		}
	}
	switch {
	case 3*down > total && !w.downs:
		w.downs = true
		before := len(w.order)
		w.after(2*w.diameter()+w.opt.Reach, func() {
			if w.downs && len(w.order) == before {
				w.Counts[QuorumDown]++
			}
		})
	case 3*down <= total:
		w.downs = false
	}
}

func (w *Network) honest() int {
	n := 0
	for _, m := range w.Members {
		if m.liar == nil {
			n++
		}
	}
	return n
}

// Ordered is the length of the longest order of any member.
func (w *Network) Ordered() int { return len(w.order) }

// Latencies are the times from submission until all honest members knew the place.
func (w *Network) Latencies() []int64 { return w.lat }

// Unordered lists the transactions that some honest member has not ordered.
func (w *Network) Unordered() []string {
	least := len(w.order)
	for _, m := range w.Members {
		if m.liar == nil {
			least = min(least, int(m.state.applied))
			if m.down {
				least = 0
			}
		}
	}
	var out []string
	for _, tx := range w.texts {
		if k, ok := w.at[tx]; !ok || k >= least {
			out = append(out, tx)
		}
	}
	return out
}

// timesOf are the times from submission until member i knew the place.
func (w *Network) timesOf(i int) []int64 { return w.Members[i].times }
