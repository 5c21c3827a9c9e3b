package consensus

import "github.com/dcnode/dcnode/consensus/internal/h26"

// forgetAt is how many ancient events gather, at least, before they are let go of
// together: as many as half of the graph, so that each costs the same.
const forgetAt = 64

// births keeps the places of the open events by birth round, and how many each
// member made in it.
type births struct {
	first  uint64
	rounds []cohort
	spare  []cohort
}

// cohort is the events of one birth round.
type cohort struct {
	places []int
	counts []int // by slot
}

func (b *births) add(round uint64, slot, place int) {
	for uint64(len(b.rounds)) <= round-b.first {
		var next cohort
		if k := len(b.spare); k > 0 {
			next, b.spare = b.spare[k-1], b.spare[:k-1]
		}
		b.rounds = append(b.rounds, next)
	}
	r := &b.rounds[round-b.first]
	r.places = append(r.places, place)
	for len(r.counts) <= slot {
		r.counts = append(r.counts, 0)
	}
	r.counts[slot]++
}

// count is how many events of a slot are born in a round that is not ancient.
func (b *births) count(round uint64, slot int) int {
	if round-b.first >= uint64(len(b.rounds)) {
		return 0
	}
	if r := &b.rounds[round-b.first]; slot < len(r.counts) {
		return r.counts[slot]
	}
	return 0
}

// retire calls gone for the places of rounds before low, and lets go of them.
func (b *births) retire(low uint64, gone func(place int)) {
	k := int(min(low-b.first, uint64(len(b.rounds))))
	for i := range b.rounds[:k] {
		r := &b.rounds[i]
		for _, x := range r.places {
			gone(x)
		}
		if len(b.spare) < 8 {
			clear(r.counts)
			b.spare = append(b.spare, cohort{r.places[:0], r.counts[:0]})
		}
	}
	m := copy(b.rounds, b.rounds[k:])
	clear(b.rounds[m:])
	b.rounds, b.first = b.rounds[:m], low
}

// applied is the last round that is applied, with all before it.
func (c *Core) applied() uint64 {
	if len(c.ready.Ordered) > 0 {
		return c.ready.Ordered[0].Round - 1
	}
	return c.decided
}

// decide takes the rounds that can be decided now. It goes no farther than the
// rounds whose rules are settled: what the driver has not applied yet may change
// them.
func (c *Core) decide() {
	if c.from != nil {
		return
	}
	idle := false
	for !idle && c.decided < c.horizon() {
		c.mark()
		d, ok := c.engine.Decide()
		if ok {
			c.apply(&d)
		}
		idle = !ok
	}
	if p, low := c.engine.Pending(), c.engine.MinBirth(); p != c.seen.pending || low != c.seen.low {
		c.enforce()
		c.retire(low)
		c.review(p, low)
		c.seen.pending, c.seen.low = p, low
		if idle {
			c.forget()
		}
	}
	c.trim()
}

// apply appends a decided round to the order. Published times follow the rules'
// consensus times and are pushed forward to be strictly increasing.
func (c *Core) apply(d *h26.Decision) {
	c.decided = d.Round
	if c.copies++; !d.Copied {
		c.copies = 0
	} else {
		c.copied++
	}
	if d.Late {
		c.late++
	}
	anyJudge := c.rules(d.Round).Params.JudgeAny
	for i, r := range d.Received {
		t := Timestamp(r.Time)
		if anyJudge {
			t = Timestamp(d.Median) + Timestamp(i)
		}
		if c.ordered > 0 {
			t = max(t, c.lastTime+1)
		}
		v := c.dag.at(r.Index)
		c.ready.Ordered = append(c.ready.Ordered, Ordered{Event: v.ev, Index: c.ordered, Round: d.Round, Time: t})
		c.settle(v)
		c.ordered++
		c.lastTime = t
	}
	c.schedule(d)
}

// settle marks an event whose fate is known.
func (c *Core) settle(v *node) {
	v.done = true
	if len(v.ev.Payload) > 0 {
		c.busy--
	}
}

// retire settles the events that became ancient without being ordered.
func (c *Core) retire(low uint64) {
	if low == c.births.first {
		return
	}
	c.births.retire(low, func(x int) {
		v := c.dag.at(x)
		if v.done {
			return
		}
		c.settle(v)
		if v.slot == c.self && len(v.ev.Payload) > 0 {
			c.ready.Stale = append(c.ready.Stale, v.ev)
		}
	})
	c.retireChains(low)
}

// trim lets go of the rosters that nothing open refers to, and no checkpoint to come.
func (c *Core) trim() {
	if len(c.epochs) > 1 && len(c.due) == 0 {
		c.epochs = c.epochs[spentEpochs(c.epochs, min(c.minBirth(), c.decided-c.copies)):]
	}
}

// spentEpochs is how many epochs at the front are over before a round.
func spentEpochs(epochs []Epoch, round uint64) int {
	k := 0
	for k+1 < len(epochs) && epochs[k+1].From <= round {
		k++
	}
	return k
}

// forget lets go of ancient events when there are enough of them, and of the seats
// of members that left with them.
func (c *Core) forget() {
	base := c.engine.Forget(max(forgetAt, len(c.dag.nodes)/3))
	if base == c.dag.base {
		return
	}
	c.dag.forget(base, func(v *node) { c.seats[v.slot].open-- })
	if len(c.slot) > len(c.roster) {
		c.vacate()
	}
}
