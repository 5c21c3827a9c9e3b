package wan

import (
	"encoding/binary"
	"testing"
	"time"
)

const (
	ms   = time.Millisecond
	mbit = 1_000_000
)

// pathOf has two or more sites with accesses of that rate.
func pathOf(t *testing.T, sites int, c Config) *path {
	t.Helper()
	for i := range sites {
		c.Sites = append(c.Sites, Site{Name: string(rune('a' + i))})
	}
	c, err := c.check()
	if err != nil {
		t.Fatal(err)
	}
	return newPath(c)
}

// arrivals runs the path dry and returns when each packet arrived.
func arrivals(t *testing.T, p *path) []time.Duration {
	t.Helper()
	var times []time.Duration
	for {
		due, ok := p.next()
		if !ok {
			return times
		}
		if _, delivered, ok := p.deliver(due); ok && delivered {
			times = append(times, due)
		}
	}
}

func TestPacketTakesItsLengthAndTheDelay(t *testing.T) {
	p := pathOf(t, 2, Config{Rate: 100 * mbit, Link: Link{OneWay: 5 * ms}})
	for range 3 {
		p.send(0, packet{from: 0, to: 1, wire: 1250, count: 1}) // 0.1 ms at 100 Mbit/s
	}
	got := arrivals(t, p)
	want := []time.Duration{5*ms + 100_000, 5*ms + 200_000, 5*ms + 300_000}
	if len(got) != 3 || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] {
		t.Errorf("got %v, want %v: the ingress must add nothing, the egress one packet after the other", got, want)
	}
}

func TestFullQueueDropsTheNewest(t *testing.T) {
	p := pathOf(t, 2, Config{Rate: 10 * mbit, Queue: 10 * ms})
	sent := 0
	for range 100 {
		if p.send(0, packet{from: 0, to: 1, wire: 1250, count: 1}) { // 1 ms each
			sent++
		}
	}
	if sent != 11 { // one on the line, ten that wait at most 10 ms
		t.Errorf("%d fit", sent)
	}
	if c := p.counters[0][1]; c.Dropped != 89 {
		t.Errorf("counted %+v", c)
	}
	if got := arrivals(t, p); len(got) != 11 || got[10] != 11*ms {
		t.Errorf("arrived at %v", got)
	}
}

func TestTwoSendersShareTheReceiversAccess(t *testing.T) {
	p := pathOf(t, 3, Config{Rate: 10 * mbit, Link: Link{OneWay: 5 * ms}})
	for i := range 20 { // 1 ms each, from both at once
		p.send(time.Duration(i)*ms, packet{from: 0, to: 2, wire: 1250, count: 1})
		p.send(time.Duration(i)*ms, packet{from: 1, to: 2, wire: 1250, count: 1})
	}
	got := arrivals(t, p)
	if len(got) != 40 || got[39] != 6*ms+39*ms {
		t.Errorf("%d arrived, the last at %v, want 40 and 45 ms", len(got), got[len(got)-1])
	}
	if a, b := p.counters[0][2], p.counters[1][2]; a.Bytes != 25000 || b.Bytes != 25000 {
		t.Errorf("counted %+v and %+v", a, b)
	}
}

func TestShorterDelayDoesNotOvertake(t *testing.T) {
	p := pathOf(t, 2, Config{Link: Link{OneWay: 50 * ms}})
	p.send(0, packet{from: 0, to: 1, wire: 1, count: 1})
	p.links[0][1].OneWay = ms
	p.send(ms, packet{from: 0, to: 1, wire: 2, count: 1})
	first, _, _ := p.deliver(time.Second)
	second, _, _ := p.deliver(time.Second)
	if first.wire != 1 || second.wire != 2 {
		t.Errorf("arrived as %d, %d", first.wire, second.wire)
	}
}

func TestCutLosesWhatIsUnderWay(t *testing.T) {
	p := pathOf(t, 2, Config{Link: Link{OneWay: 50 * ms}})
	p.send(0, packet{from: 0, to: 1, wire: 100, count: 3})
	p.links[0][1].Cut = true
	if p.send(ms, packet{from: 0, to: 1, wire: 100, count: 1}) {
		t.Error("a cut link takes packets")
	}
	if got := arrivals(t, p); len(got) != 0 {
		t.Errorf("arrived at %v", got)
	}
	if c := p.counters[0][1]; c.Lost != 4 || c.Bytes != 0 {
		t.Errorf("counted %+v", c)
	}
}

func TestLossIsAsOftenAsAskedAndEqualForEqualSeeds(t *testing.T) {
	lost := func(seed uint64) (lost int64) {
		p := pathOf(t, 2, Config{Link: Link{Loss: 0.01}, Seed: seed})
		for range 100_000 {
			p.send(0, packet{from: 0, to: 1, wire: 1, count: 1})
		}
		return p.counters[0][1].Lost
	}
	if n := lost(1); n < 850 || n > 1150 {
		t.Errorf("lost %d of 100000, want about 1000", n)
	}
	if lost(1) != lost(1) || lost(1) == lost(2) {
		t.Error("losses do not follow from the seed")
	}
}

func TestScheduleIsInOrder(t *testing.T) {
	var s schedule
	times := []int{5, 3, 9, 3, 1, 7, 3, 9, 0, 2}
	for i, at := range times {
		s.push(packet{due: time.Duration(at), order: uint64(i)})
	}
	last := s.pop()
	for range len(times) - 1 {
		next := s.pop()
		if next.due < last.due || next.due == last.due && next.order < last.order {
			t.Errorf("%v after %v", next, last)
		}
		last = next
	}
}

func TestUnitCountsAsThePacketsItIsOnAWire(t *testing.T) {
	unit := make([]byte, headerSize+20+32+3000)
	unit[1] = 1 // TCP over IPv4
	binary.NativeEndian.PutUint16(unit[4:], 1448)
	unit[headerSize] = 0x45
	unit[headerSize+20+12] = 8 << 4 // 32 bytes of TCP header
	if count, wire := segments(unit); count != 3 || wire != 3*52+3000 {
		t.Errorf("got %d packets of %d bytes", count, wire)
	}
	unit[1] = 0
	if count, wire := segments(unit); count != 1 || wire != 3052 {
		t.Errorf("got %d packets of %d bytes", count, wire)
	}
}

func TestConfigThatMakesNoSenseIsRefused(t *testing.T) {
	alice, bob := Site{Name: "alice"}, Site{Name: "bob"}
	for name, c := range map[string]Config{
		"no sites":   {},
		"twice":      {Sites: []Site{alice, alice}},
		"nameless":   {Sites: []Site{{}}},
		"loss":       {Sites: []Site{alice, bob}, Link: Link{Loss: 2}},
		"delay":      {Sites: []Site{alice, bob}, Link: Link{OneWay: -1}},
		"MTU":        {Sites: []Site{alice, bob}, MTU: 100},
		"rate":       {Sites: []Site{alice, bob}, Rate: -1},
		"site, rate": {Sites: []Site{alice, {Name: "bob", Rate: -1}}},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
