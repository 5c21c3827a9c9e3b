package consensus

import (
	"cmp"
	"slices"
)

// Times of the threshold clock, ns.
const (
	minGap      = 250_000     // between own events
	minDelta    = 200_000     // shortest wait for live members after a quorum
	firstDelta  = 200_000_000 // the wait before anything is measured or told
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
	noted  int   // events below this place have been looked at
	last   int64 // when the own last event was noted
	own    [recent]stamp
	asked  bool // the last own event was made while nothing was undecided; nobody has answered
	layers [recent]layerWatch
	next   int // of layers, the one to be used for the next

	samples   int
	mean, dev int64 // of the spread from quorum to last live member, ns
	radii     []radius
}

// radius is scratch of ofQuorum.
type radius struct {
	value  int64
	weight uint64
}

// stamp is when an own event was noted.
type stamp struct {
	place int
	at    int64
}

// layerWatch records how one layer fills up. Who arrives when is in the seats.
type layerWatch struct {
	layer  uint64 // 0: free
	quorum int64  // when the quorum was there
	delta  int64  // how long the others were to be waited for
	left   int    // of the members waited for, how many have not arrived
}

// memberClock is what the clock knows of one member. Sets of watched layers are bits.
type memberClock struct {
	rtt            int64 // ns from an own event to the first event above it; 0: not known
	acked          int   // the own event that rtt was last measured with
	waited         uint8 // layers in which it was waited for
	here           uint8 // layers in which it has arrived
	late           [recent]int64
	slow, swing    int64 // mean, and mean deviation, of how long after the quorum it arrives, ns
	layers         int   // that these were made of
	misses, onTime int
	out            bool

	away bool  // the transport has no connection
	ping int64 // ns that the transport measured; 0: not known
}

// Due says whether it is time for Next. mono is a monotonic clock in ns that only
// this member reads; pending is whether there is something to be ordered that is
// in no event yet. If not now and wait > 0, ask again after wait ns; if wait is 0,
// after the next Add or new payload. Call it after every batch of Adds: it takes
// mono as the time when the new events came.
//
// Nothing undecided, nothing pending and no roster to come: nothing is due. More than
// a third of the weight away: nothing is due after at most one event.
func (c *Core) Due(mono int64, pending bool) (now bool, wait int64) {
	if !c.creates() {
		c.clock.noted = c.dag.len()
		return false, 0
	}
	c.note(mono)
	if c.busy == 0 && !pending && !c.changing() {
		c.rest()
		return false, 0
	}
	seat := &c.seats[c.self]
	if len(seat.wait) > 0 {
		return false, 0 // an own event of before a restart: building past it would be a fork
	}
	if c.births.count(c.Pending(), c.self) >= maxPerRound {
		return false, 0 // others would not take it
	}
	now, wait = c.dueLayer(mono, pending)
	if gap := c.clock.last + minGap - mono; now && c.own.any && c.clock.last != 0 && gap > 0 {
		return false, min(gap, minGap)
	}
	return now, wait
}

// rest ends all measuring: how long the others stay silent now is no measure of them.
func (c *Core) rest() {
	c.clock.layers = [recent]layerWatch{}
	for i := range c.clock.own {
		c.clock.own[i].place = none
	}
}

func (c *Core) dueLayer(mono int64, pending bool) (now bool, wait int64) {
	if pending && c.busy == 0 && !c.clock.asked {
		return true, 0 // wakes the others, even if no quorum is in this layer
	}
	mine := c.ownLayer()
	var held uint64
	var above, missing bool
	for _, m := range c.roster {
		l := c.layerAt(m)
		if l >= mine || m == c.self {
			held += c.seats[m].weight
		} else if c.live(m, mine) {
			missing = true
		}
		above = above || l > mine
	}
	if !c.super(held) {
		if above {
			return true, 0
		}
		left := c.stalled(mono)
		return left < 0, max(left, 0)
	}
	w := c.watch(mine, mono)
	if left := w.quorum + w.delta - mono; missing && left > 0 {
		return false, left
	}
	return true, 0
}

// stalled is how long to wait until it has been too long that nobody has moved on: 0
// if that cannot come, negative if it has. Members may disagree about layers for a
// while, as after a change of roster, or when one has begun from a checkpoint, and
// then wait for each other. Whose last event has the last of no other member below it
// has news of all of them; there is always such a member, and it goes on. Without a
// quorum there is no news of one.
func (c *Core) stalled(mono int64) int64 {
	own := none
	if c.own.any {
		own = c.dag.find(c.own.Hash)
	}
	if own == none {
		return 0
	}
	held := c.seats[c.self].weight
	for _, m := range c.roster {
		if x := c.seats[m].chain.head; m != c.self && x != none && c.dag.lasts(own)[m] != x {
			held += c.seats[m].weight
		}
	}
	if !c.super(held) {
		return 0
	}
	patience := 2*c.ofQuorum(c.distance) + c.delta()
	if left := c.clock.last + patience - mono; left > 0 {
		return left
	}
	return -1
}

// ownLayer is 0 for a member without an event that counts.
func (c *Core) ownLayer() uint64 {
	if !c.own.any || c.own.BirthRound < c.minBirth() {
		return 0
	}
	if x := c.dag.find(c.own.Hash); x != none {
		return c.dag.layerOf(x)
	}
	return 0
}

func (c *Core) layerAt(m int) uint64 { return c.dag.layerOf(c.seats[m].chain.head) }

// live reports whether a member is worth waiting for in a layer.
func (c *Core) live(m int, layer uint64) bool {
	s := &c.seats[m]
	return m != c.self && s.weight > 0 && !s.clock.out && !s.clock.away && c.layerAt(m)+liveLag >= layer
}

// note looks at the events that came since the last time.
func (c *Core) note(mono int64) {
	k := &c.clock
	for x := max(k.noted, c.dag.base); x < c.dag.len(); x++ {
		if m := c.dag.at(x).slot; m == c.self {
			k.last = mono
			copy(k.own[1:], k.own[:])
			k.own[0] = stamp{x, mono}
		} else {
			c.measure(m, x, mono)
		}
	}
	if k.noted == c.dag.len() {
		return
	}
	k.noted = c.dag.len()
	for i := range k.layers {
		c.arrivals(i, mono)
	}
}

// measure takes the round trip from an own event to the first event of m above it.
func (c *Core) measure(m, x int, mono int64) {
	mc := &c.seats[m].clock
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
	return mean + (min(sample, 2*mean+minDelta)-mean)/256
}

// arrivals notes who has reached a watched layer by now, and measures its spread
// when all are there that were waited for, in time or not.
func (c *Core) arrivals(i int, mono int64) {
	w := &c.clock.layers[i]
	if w.layer == 0 {
		return
	}
	bit, waited := uint8(1)<<i, false
	for _, m := range c.roster {
		mc := &c.seats[m].clock
		if mc.here&bit != 0 || c.layerAt(m) < w.layer {
			continue
		}
		mc.here |= bit
		mc.late[i] = mono - w.quorum
		mc.lateness(mc.late[i])
		if mc.waited&bit != 0 {
			w.left--
			waited = true
		}
	}
	if waited && w.left == 0 {
		c.sample(mono - w.quorum)
	}
}

// lateness takes how long after the quorum a member has come to a layer.
func (mc *memberClock) lateness(late int64) {
	mc.layers++
	off := late - mc.slow
	mc.slow += off / 8
	mc.swing += (max(off, -off) - mc.swing) / 8
}

// sample takes the spread of a layer, as far as it counts: what someone is slower
// than allowed is no reason to wait for longer the next time.
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

// distance is the round trip to a member: what the transport measured, or else the
// events; 0 if neither has.
func (c *Core) distance(m int) int64 {
	if mc := &c.seats[m].clock; mc.ping > 0 {
		return mc.ping
	} else {
		return mc.rtt
	}
}

// ofQuorum is the least value that enough other members do not exceed to be a quorum
// with this one. No minority can make it larger. Zero counts as not known; so does
// the result.
func (c *Core) ofQuorum(value func(m int) int64) int64 {
	k := &c.clock
	k.radii = k.radii[:0]
	for _, m := range c.roster {
		if v := value(m); v > 0 && m != c.self {
			k.radii = append(k.radii, radius{v, c.seats[m].weight})
		}
	}
	slices.SortFunc(k.radii, func(a, b radius) int { return cmp.Compare(a.value, b.value) })
	var held uint64
	if c.self != none {
		held = c.seats[c.self].weight
	}
	for _, r := range k.radii {
		if held += r.weight; c.super(held) {
			return r.value
		}
	}
	return 0
}

// tolerance is how late members may be whom nothing excuses. A hop is half of a
// quorum's round trip: three tenths of one, or more if most members swing so much.
func (c *Core) tolerance(quorum int64) int64 {
	swing := c.ofQuorum(func(m int) int64 { return c.seats[m].clock.swing })
	return max(quorum*3/20, 4*swing, minDelta)
}

// allowed is how long after the quorum a member may arrive, layer for layer, and be
// waited for: what its distance explains, and the tolerance. Whoever is slower than
// that without being farther is slow by its own doing.
func (c *Core) allowed(m int, quorum, tolerance int64) int64 {
	return max(c.distance(m)-quorum, 0) + tolerance
}

// maxDelta bounds the wait: twice the longest round trip to a member that is waited
// for, and the longest time that one of them is allowed.
func (c *Core) maxDelta() int64 {
	if c.self == none {
		return firstDelta
	}
	quorum := c.ofQuorum(c.distance)
	tolerance := c.tolerance(quorum)
	var most, wait int64
	for _, m := range c.roster {
		if mc := &c.seats[m].clock; m != c.self && !mc.out && !mc.away {
			most = max(most, c.distance(m))
			wait = max(wait, c.allowed(m, quorum, tolerance))
		}
	}
	if most == 0 {
		return firstDelta
	}
	if quorum == 0 {
		wait = 2 * most
	}
	return max(min(wait, 2*most), minDelta)
}

// delta is how long to wait for live members after a quorum: the mean spread and
// three standard deviations (of a bell curve, 1.25 mean deviations each), a fifth of
// a hop at least.
func (c *Core) delta() int64 {
	k, most := &c.clock, c.maxDelta()
	if k.samples < firstSample {
		return most
	}
	return min(max(k.mean+k.dev*15/4, c.ofQuorum(c.distance)/10, minDelta), most)
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
	i := k.next
	k.next = (i + 1) % recent
	c.judge((i + recent - 1) % recent)
	k.layers[i] = layerWatch{layer: layer, quorum: mono, delta: c.delta()}
	bit := uint8(1) << i
	for s := range c.seats {
		mc := &c.seats[s].clock
		mc.here, mc.waited = mc.here&^bit, mc.waited&^bit
		if c.live(s, layer) {
			mc.waited |= bit
			k.layers[i].left++
		}
	}
	c.arrivals(i, mono)
	return &k.layers[i]
}

// judge draws the consequences of a layer that is over for who is waited for: not
// those who have missed three in a row, nor those who are slower than allowed, layer
// for layer, until they are on time in three.
func (c *Core) judge(i int) {
	w := &c.clock.layers[i]
	if w.layer == 0 {
		return
	}
	quorum := c.ofQuorum(c.distance)
	tolerance := c.tolerance(quorum)
	for _, m := range c.roster {
		mc := &c.seats[m].clock
		here, may := mc.here&(1<<i) != 0, w.delta
		if quorum > 0 {
			may = min(may, c.allowed(m, quorum, tolerance))
		}
		if here && mc.late[i] <= may {
			mc.misses = 0
			if mc.onTime++; mc.out && mc.onTime >= onTimeBack {
				mc.out, mc.slow = false, 0
			}
			continue
		}
		mc.onTime = 0
		if mc.misses++; mc.misses >= missesOut {
			mc.out = true
		}
		if quorum > 0 && mc.layers >= firstSample && mc.slow > c.allowed(m, quorum, tolerance/2) {
			mc.out = true
		}
	}
}

// Observe keeps this member from creating events while it is on: the driver is not
// sure that it knows its own last event.
func (c *Core) Observe(on bool) { c.observing = on }

// Reach says what the transport knows of a member: one that is not connected is not
// waited for; rtt (ns, 0: not known) is how long an answer takes. A member of which
// nothing was said counts as connected.
func (c *Core) Reach(member uint64, connected bool, rtt int64) {
	if s, ok := c.slot[member]; ok {
		c.seats[s].clock.away = !connected
		c.seats[s].clock.ping = max(rtt, 0)
	}
}
