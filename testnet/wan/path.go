package wan

import (
	"math"
	"math/rand/v2"
	"time"
)

// packet is one packet, or one large unit of segments, under way.
type packet struct {
	due      time.Duration // when the next thing happens to it
	order    uint64        // of those due at once the first sent goes first
	from, to int
	wire     int  // bytes it has on a wire, with the headers of all its segments
	count    int  // packets it is on a wire
	arrived  bool // it has passed the destination's ingress
	data     []byte
}

// access is one direction of a site's connection: a line that sends one packet
// after the other, and a queue before it.
type access struct {
	rate int64         // bits per second; 0: unlimited
	free time.Duration // when the line has sent all it was given
}

// take gives a packet to the line and says when its last bit has left, or that
// the queue is too long. A packet waits at most for limit.
func (a *access) take(now time.Duration, wire int, limit time.Duration) (time.Duration, bool) {
	if a.rate == 0 {
		return now, true
	}
	start := max(now, a.free)
	if start-now > limit {
		return 0, false
	}
	a.free = start + a.duration(wire)
	return a.free, true
}

// pass is take for a packet that comes off a line as fast as this one or slower:
// its bits leave as they arrive, so an idle line adds no time.
func (a *access) pass(now time.Duration, wire int, limit time.Duration) (time.Duration, bool) {
	if a.rate == 0 {
		return now, true
	}
	done := max(now, a.free+a.duration(wire))
	if done-now > limit+a.duration(wire) {
		return 0, false
	}
	a.free = done
	return done, true
}

func (a *access) duration(wire int) time.Duration {
	return time.Duration(float64(wire) * 8 / float64(a.rate) * float64(time.Second))
}

// path is the state of all paths between the sites: when each packet under way
// arrives. It knows no clock; times only have to be given in order.
type path struct {
	links           [][]Link
	counters        [][]Counters
	last            [][]time.Duration // arrival of a pair's newest packet: paths keep order
	egress, ingress []access
	queue           time.Duration
	underway        schedule
	sent            uint64
	chance          *rand.Rand
}

func newPath(c Config) *path {
	n := len(c.Sites)
	p := &path{queue: c.Queue, chance: rand.New(rand.NewPCG(c.Seed, 1))}
	for _, s := range c.Sites {
		row := make([]Link, n)
		for i := range row {
			row[i] = c.Link
		}
		p.links = append(p.links, row)
		p.counters = append(p.counters, make([]Counters, n))
		p.last = append(p.last, make([]time.Duration, n))
		p.egress = append(p.egress, access{rate: s.Rate})
		p.ingress = append(p.ingress, access{rate: s.Rate})
	}
	return p
}

// send puts a packet on its way at a time, or drops it; it says which. A packet
// lost on the way has used the egress all the same.
func (p *path) send(now time.Duration, k packet) bool {
	link, counters := p.links[k.from][k.to], &p.counters[k.from][k.to]
	left, room := p.egress[k.from].take(now, k.wire, p.queue)
	if !room {
		counters.Dropped += int64(k.count)
		return false
	}
	if link.Cut || link.Loss > 0 && p.chance.Float64() < loss(link.Loss, k.count) {
		counters.Lost += int64(k.count)
		return false
	}
	k.due = max(left+link.OneWay, p.last[k.from][k.to])
	p.last[k.from][k.to] = k.due
	p.sent++
	k.order = p.sent
	p.underway.push(k)
	return true
}

// loss is the probability that at least one of count packets is lost.
func loss(one float64, count int) float64 {
	if count == 1 {
		return one
	}
	return 1 - math.Pow(1-one, float64(count))
}

// next says when something is due.
func (p *path) next() (time.Duration, bool) {
	if len(p.underway) == 0 {
		return 0, false
	}
	return p.underway[0].due, true
}

// deliver takes out the first packet that has arrived by now and counts it; ok is
// false when there is none. One that is not delivered was lost or dropped at the
// last moment, and only gives its buffer back.
func (p *path) deliver(now time.Duration) (k packet, delivered, ok bool) {
	for len(p.underway) > 0 && p.underway[0].due <= now {
		k = p.underway.pop()
		counters := &p.counters[k.from][k.to]
		if p.links[k.from][k.to].Cut {
			counters.Lost += int64(k.count)
			return k, false, true
		}
		if !k.arrived {
			done, room := p.ingress[k.to].pass(k.due, k.wire, p.queue)
			if !room {
				counters.Dropped += int64(k.count)
				return k, false, true
			}
			if k.arrived = true; done > now {
				k.due = done
				p.underway.push(k)
				continue
			}
		}
		counters.Bytes += int64(k.wire)
		counters.Packets += int64(k.count)
		return k, true, true
	}
	return packet{}, false, false
}

// schedule is a heap of packets by time, then by order.
type schedule []packet

func (s schedule) before(i, j int) bool {
	return s[i].due < s[j].due || s[i].due == s[j].due && s[i].order < s[j].order
}

func (s *schedule) push(k packet) {
	*s = append(*s, k)
	h := *s
	for i := len(h) - 1; i > 0; {
		parent := (i - 1) / 2
		if !h.before(i, parent) {
			return
		}
		h[i], h[parent] = h[parent], h[i]
		i = parent
	}
}

func (s *schedule) pop() packet {
	h := *s
	first, last := h[0], len(h)-1
	h[0], h[last] = h[last], packet{}
	h = h[:last]
	*s = h
	for i := 0; ; {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(h); child++ {
			if h.before(child, least) {
				least = child
			}
		}
		if least == i {
			return first
		}
		h[i], h[least] = h[least], h[i]
		i = least
	}
}
