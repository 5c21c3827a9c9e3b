package consensus

// Times of the threshold clock, ns.
const (
	minGap      = 250_000     // between own events
	minDelta    = 200_000     // shortest wait for live members after a quorum
	firstDelta  = 200_000_000 // the wait before anything is measured
	firstSample = 8           // spreads to see before the measure is trusted
)

const (
	liveLag    = 3 // layers that a live member may be behind
	missesOut  = 3 // layers missed in a row: no longer waited for
	onTimeBack = 3 // layers on time in a row: waited for again
	recent     = 4 // layers that are watched for stragglers
)

// clock paces creation. A member makes one event in each layer: when members of a
// quorum have reached its own layer, and all that are live have too, or have been
// waited for long enough. Waiting for stragglers makes the order faster: an event
// that leaves many out has to be made up for in later layers.
type clock struct {
	noted   int   // events below this place have been looked at
	last    int64 // when the own last event was noted
	own     [recent]stamp
	asked   bool // the last own event was made while nothing was undecided; nobody has answered
	layers  [recent]layerWatch
	members []memberClock

	samples   int
	mean, dev int64 // of the spread from quorum to last live member, ns
}

// stamp is when an own event was noted.
type stamp struct {
	place int
	at    int64
}

// layerWatch records how one layer filled up.
type layerWatch struct {
	layer  uint64 // 0: free
	quorum int64  // when the quorum was there
	delta  int64  // how long the others were to be waited for
	live   uint64 // set of members waited for
	here   uint64 // set of members that have arrived
	onTime uint64 // of those, the ones that came within delta
}

type memberClock struct {
	rtt            int64 // ns from an own event to the first event above it; 0: not known
	acked          int   // the own event that rtt was last measured with
	misses, onTime int
	out            bool

	away bool  // the transport has no connection
	ping int64 // ns that the transport measured; 0: not known
}

func newClock(n int) clock {
	k := clock{members: make([]memberClock, n)}
	for m := range k.members {
		k.members[m].acked = none
	}
	for i := range k.own {
		k.own[i].place = none
	}
	return k
}

// Due says whether it is time for Next. mono is a monotonic clock in ns that only
// this member reads; pending is whether there is something to be ordered that is
// in no event yet. If not now and wait > 0, ask again after wait ns; if wait is 0,
// after the next Add or new payload. Call it after every batch of Adds: it takes
// mono as the time when the new events came.
//
// Nothing undecided and nothing pending: nothing is due. More than a third of the
// weight away: nothing is due after at most one event.
func (c *Core) Due(mono int64, pending bool) (now bool, wait int64) {
	if c.self == none || c.observing {
		return false, 0
	}
	c.note(mono)
	if c.busy == 0 && !pending {
		c.clock.layers = [recent]layerWatch{}
		return false, 0
	}
	if len(c.wait.lists[c.self]) > 0 {
		return false, 0 // an own event of before a restart: building past it would be a fork
	}
	if c.chains[c.self].perRound[c.engine.Pending()] >= maxPerRound {
		return false, 0 // others would not take it
	}
	now, wait = c.due(mono, pending)
	if gap := c.clock.last + minGap - mono; now && c.own.any && c.clock.last != 0 && gap > 0 {
		return false, min(gap, minGap)
	}
	return now, wait
}

func (c *Core) due(mono int64, pending bool) (now bool, wait int64) {
	if pending && c.busy == 0 && !c.clock.asked {
		return true, 0 // wakes the others, even if no quorum is in this layer
	}
	mine := c.ownLayer()
	var held uint64
	var above, missing bool
	for m := range c.chains {
		l := c.layerAt(m)
		if l >= mine || m == c.self {
			held += c.cfg.Roster[m].Weight
		} else if c.live(m, mine) {
			missing = true
		}
		above = above || l > mine
	}
	switch {
	case !c.engine.Super(held):
		return above, 0
	case !missing:
		c.watch(mine, mono)
		return true, 0
	}
	w := c.watch(mine, mono)
	if left := w.quorum + w.delta - mono; left > 0 {
		return false, left
	}
	return true, 0
}

// ownLayer is 0 for a member without an event that counts.
func (c *Core) ownLayer() uint64 {
	if !c.own.any || c.own.BirthRound < c.engine.MinBirth() {
		return 0
	}
	return c.dag.layerOf(c.dag.find(c.own.Hash))
}

func (c *Core) layerAt(m int) uint64 { return c.dag.layerOf(c.chains[m].head) }

// live reports whether member m is worth waiting for in a layer.
func (c *Core) live(m int, layer uint64) bool {
	return m != c.self && c.cfg.Roster[m].Weight > 0 && !c.clock.members[m].out && !c.clock.members[m].away && c.layerAt(m)+liveLag >= layer
}

// note looks at the events that came since the last time.
func (c *Core) note(mono int64) {
	k := &c.clock
	for x := max(k.noted, c.dag.base); x < c.dag.len(); x++ {
		if m := c.dag.at(x).member; m == c.self {
			k.last = mono
			copy(k.own[1:], k.own[:])
			k.own[0] = stamp{x, mono}
		} else {
			c.measure(m, x, mono)
		}
	}
	k.noted = c.dag.len()
	for i := range k.layers {
		c.arrivals(&k.layers[i], mono)
	}
}

// measure takes the round trip from an own event to the first event of m above it.
func (c *Core) measure(m, x int, mono int64) {
	mc := &c.clock.members[m]
	y := c.dag.lasts(x)[c.self]
	if y <= mc.acked {
		return
	}
	mc.acked = y
	for _, s := range c.clock.own {
		if s.place == y && mono > s.at {
			mc.rtt = approach(mc.rtt, mono-s.at)
		}
	}
}

// approach is a mean that goes down quickly and up slowly: an answer that was lost and
// repaired, or held back by its maker's own waiting, is no measure of distance.
func approach(mean, sample int64) int64 {
	switch {
	case mean == 0:
		return sample
	case sample < mean:
		return mean - (mean-sample)/2
	}
	return mean + (sample-mean)/16
}

// arrivals notes who has reached the layer by now, and measures its spread when all
// are there that were waited for, in time or not.
func (c *Core) arrivals(w *layerWatch, mono int64) {
	if w.layer == 0 {
		return
	}
	before := w.here
	for m := range c.chains {
		if w.here&(1<<m) == 0 && c.layerAt(m) >= w.layer {
			w.here |= 1 << m
			if mono <= w.quorum+w.delta {
				w.onTime |= 1 << m
			}
		}
	}
	if before&w.live != w.live && w.here&w.live == w.live {
		c.sample(mono - w.quorum)
	}
}

func (c *Core) sample(spread int64) {
	k := &c.clock
	spread = max(0, min(spread, c.maxDelta()))
	if k.samples == 0 {
		k.mean, k.dev = spread, spread/2
	}
	k.samples++
	off := spread - k.mean
	k.mean += off / 8
	k.dev += (max(off, -off) - k.dev) / 8
}

// maxDelta is twice the longest round trip to a member that is not out.
func (c *Core) maxDelta() int64 {
	var most int64
	for m := range c.clock.members {
		if mc := &c.clock.members[m]; !mc.out {
			most = max(most, mc.rtt)
		}
	}
	if most == 0 {
		return firstDelta
	}
	return max(2*most, minDelta)
}

// delta is how long to wait for live members after a quorum: the mean spread and
// three standard deviations (of a bell curve, 1.25 mean deviations each).
func (c *Core) delta() int64 {
	k, most := &c.clock, c.maxDelta()
	if k.samples < firstSample {
		return most
	}
	return min(max(k.mean+k.dev*15/4, minDelta), most)
}

// watch returns the record of a layer, and begins it if the quorum is new.
func (c *Core) watch(layer uint64, mono int64) *layerWatch {
	layer = max(layer, 1)
	k := &c.clock
	for i := range k.layers {
		if k.layers[i].layer == layer {
			return &k.layers[i]
		}
	}
	c.judge(&k.layers[recent-1])
	copy(k.layers[1:], k.layers[:])
	w := layerWatch{layer: layer, quorum: mono, delta: c.delta()}
	for m := range c.chains {
		if c.live(m, layer) {
			w.live |= 1 << m
		}
	}
	c.arrivals(&w, mono)
	k.layers[0] = w
	return &k.layers[0]
}

// judge draws the consequences of a layer for who is waited for.
func (c *Core) judge(w *layerWatch) {
	if w.layer == 0 {
		return
	}
	for m := range c.clock.members {
		mc := &c.clock.members[m]
		if w.onTime&(1<<m) != 0 {
			mc.misses = 0
			if mc.onTime++; mc.out && mc.onTime >= onTimeBack {
				mc.out = false
			}
			continue
		}
		mc.onTime = 0
		if mc.misses++; mc.misses >= missesOut {
			mc.out = true
		}
	}
}

// Observe keeps this member from creating events while it is on: the driver is not
// sure that it knows its own last event.
func (c *Core) Observe(on bool) { c.observing = on }

// Reach says what the transport knows of a member: one that is not connected is not
// waited for; rtt (ns, 0: not known) is how long an answer takes.
func (c *Core) Reach(member uint64, connected bool, rtt int64) {
	if m, ok := c.member[member]; ok {
		c.clock.members[m].away = !connected
		c.clock.members[m].ping = max(rtt, 0)
	}
}
