package h26

import (
	"flag"
	"runtime"
	"testing"
	"unsafe"
)

var millions = flag.Int("millions", 0, "also measure the heap over so many million events")

// footprint is the room that an engine holds, in bytes.
func footprint(g *Engine) int {
	return room(g.vert) + room(g.hash) + room(g.parents) + room(g.vals) + room(g.rows) + room(g.bottom) +
		room(g.list) + room(g.path) + room(g.stack) + room(g.chain) + room(g.times) + room(g.counts) + room(g.weigh)
}

func room[T any](s []T) int {
	var one T
	return cap(s) * int(unsafe.Sizeof(one))
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestMemoryIsThatOfTheWindow(t *testing.T) {
	for _, c := range []struct {
		name  string
		rules Rules
	}{{"any judge", equalRules(16)}, {"all judges", careful(16)}} {
		g, m, before := New(c.rules), newGossip(16), heap()
		run(g, m, 30_000)
		early, heapEarly := footprint(g), heap()-before
		most := early
		for range 27 {
			run(g, m, 10_000)
			most = max(most, footprint(g))
		}
		heapLate := heap() - before
		t.Logf("%s: %d bytes after 30,000 events, at most %d up to 300,000; heap %d, then %d", c.name, early, most, heapEarly, heapLate)
		if most > 2*early || heapLate > 2*heapEarly {
			t.Errorf("%s: memory grows with the number of events", c.name)
		}
		runtime.KeepAlive(g)
	}
}

// only makes the first few members gossip, so that the others are silent.
type only struct {
	gossip
	members int
}

func (m *only) next(v *Vertex, pending uint64) {
	all := m.heads
	m.heads = all[:m.members]
	m.gossip.next(v, pending)
	m.heads = all
}

func TestSilenceOfAMemberPinsNothing(t *testing.T) {
	g, m := New(equalRules(4)), &only{*newGossip(4), 4}
	run(g, m, 10_000)
	before, most := footprint(g), 0
	m.members = 3
	for range 20 {
		run(g, m, 5000)
		most = max(most, footprint(g))
	}
	m.heads[3] = None // what it says next is on top of nothing: its last is forgotten
	m.members = 4
	run(g, m, 10_000)
	after := footprint(g)
	t.Logf("%d bytes, at most %d in the silence, %d after it", before, most, after)
	if most > 4*before || after > 2*before {
		t.Errorf("%d bytes before the silence, up to %d in it, %d after it", before, most, after)
	}
}

func TestWhatAnOutageFillsIsGivenBack(t *testing.T) {
	for _, rules := range []Rules{equalRules(4), careful(4)} {
		g, m := New(rules), &only{*newGossip(4), 4}
		run(g, m, 10_000)
		before := footprint(g)
		m.members = 2 // no round is decided
		run(g, m, 30_000)
		most := footprint(g)
		m.members = 4
		if got := run(g, m, 10_000); got < 35_000 {
			t.Errorf("%d events were ordered after the outage, want nearly 40,000", got)
		}
		after := footprint(g)
		t.Logf("%d bytes, %d at the end of the outage, %d later", before, most, after)
		if most < 20*before || after > 2*before {
			t.Errorf("%d bytes before the outage, %d at its end, %d after it", before, most, after)
		}
	}
}

// TestMillionsOfEvents is run by hand, with -millions 10.
func TestMillionsOfEvents(t *testing.T) {
	if *millions == 0 {
		t.Skip("run by hand, with -millions 10")
	}
	g, m, before := New(equalRules(16)), newGossip(16), heap()
	for i := range *millions {
		run(g, m, 1_000_000)
		t.Logf("after %d million events: %d KiB on the heap", i+1, (heap()-before)>>10)
	}
	runtime.KeepAlive(g)
}
