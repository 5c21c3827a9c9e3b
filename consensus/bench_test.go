package consensus

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"testing"
)

// recorded are the events of a full mesh of n members, layer by layer, as they come
// off the wire.
func recorded(b *testing.B, n, layers int) [][]*Event {
	b.Helper()
	c := testCore(b, n, 99)
	var out [][]*Event
	heads := make([]*Event, n)
	for range layers {
		next := make([]*Event, n)
		for i := range heads {
			var parents []*Event
			for k := range heads {
				if p := heads[(i+k)%n]; p != nil {
					parents = append(parents, p)
				}
			}
			next[i] = follow(uint64(i+1), c.Pending(), parents...)
			next[i].Payload = [][]byte{make([]byte, 100)}
			e, err := Unmarshal(next[i].Marshal())
			if err != nil {
				b.Fatal(err)
			}
			next[i] = e
		}
		for _, e := range next {
			if err := c.Add(e); err != nil {
				b.Fatal(err)
			}
		}
		drained(c)
		heads = next
		out = append(out, next)
	}
	return out
}

// BenchmarkOrder is the cost of an event from Add to its place in the order, without
// signatures and decoding.
func BenchmarkOrder(b *testing.B) {
	for _, n := range []int{4, 7, 16, 31} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			layers := recorded(b, n, 200)
			events := 0
			b.ReportAllocs()
			for b.Loop() {
				c := testCore(b, n, 99)
				ordered := 0
				for _, layer := range layers {
					for _, e := range layer {
						if err := c.Add(e); err != nil {
							b.Fatal(err)
						}
						events++
					}
					ordered += len(drained(c).Ordered)
				}
				if ordered < 190*n {
					b.Fatalf("%d events were ordered", ordered)
				}
			}
			b.ReportMetric(float64(events)/b.Elapsed().Seconds(), "events/s")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(events), "ns/event")
		})
	}
}

// stream makes the events of a full mesh of members and feeds them as it goes: each
// has the last of all others below it, and 100 bytes to be ordered.
type stream struct {
	t     testing.TB
	core  *Core
	heads []*Event
	made  int
	done  uint64
}

func (s *stream) layer() { s.layerWith(func(Ready) {}) }

func (s *stream) layerWith(apply func(Ready)) {
	n := len(s.heads)
	next := make([]*Event, n)
	for i := range next {
		var parents []*Event
		for k := range s.heads {
			if p := s.heads[(i+k)%n]; p != nil && (k == 0 || (s.made+k)%7 > 0) {
				parents = append(parents, p)
			}
		}
		e := follow(uint64(i+1), s.core.Pending(), parents...)
		e.Payload = [][]byte{make([]byte, 100)}
		e.seal(e.Hash())
		next[i] = e
		s.made++
	}
	for _, e := range next {
		if e.BirthRound > s.core.Pending() {
			s.t.Fatal("born too early")
		}
		if err := s.core.Add(e); err != nil {
			s.t.Fatal(err)
		}
	}
	for rd, ok := s.core.Ready(); ok; rd, ok = s.core.Ready() {
		s.done += uint64(len(rd.Ordered))
		apply(rd)
		s.core.Advance()
	}
	s.heads = next
}

// run goes on to the given number of events and returns the heap that is live then.
func (s *stream) run(events int) uint64 {
	for s.made < events {
		s.layer()
	}
	if uint64(s.made)-s.done > 200 {
		s.t.Fatalf("%d of %d events are ordered", s.done, s.made)
	}
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestMemoryIsThatOfTheWindow(t *testing.T) {
	s := &stream{t: t, core: testCore(t, 16, 99), heads: make([]*Event, 16)}
	early := s.run(20_000)
	late := s.run(120_000)
	t.Logf("%d KiB live after 20,000 events, %d KiB after 120,000", early>>10, late>>10)
	if late > early+early/5 || late > 16<<20 {
		t.Errorf("%d bytes are live after 120,000 events, %d after 20,000", late, early)
	}
	c := s.core
	if live := c.Status().Live; live > 1500 || len(c.dag.index) != live || len(c.births.rounds) > 40 || len(c.wait.index) > 0 {
		t.Errorf("%d events in the graph, %d in the index, %d rounds", live, len(c.dag.index), len(c.births.rounds))
	}
	runtime.KeepAlive(s)
}

// TestMemoryAfterTenMillionEvents takes minutes: DCNODE_EVENTS=10000000 go test -run
// TenMillion -v -timeout 1h ./consensus
func TestMemoryAfterTenMillionEvents(t *testing.T) {
	events, _ := strconv.Atoi(os.Getenv("DCNODE_EVENTS"))
	if events == 0 {
		t.Skip("set DCNODE_EVENTS to the number of events to feed")
	}
	s := &stream{t: t, core: testCore(t, 16, 99), heads: make([]*Event, 16)}
	early := s.run(events / 10)
	late := s.run(events)
	t.Logf("%d KiB live after %d events, %d KiB after %d", early>>10, events/10, late>>10, events)
	if late > early+early/5 || late > 64<<20 {
		t.Errorf("%d bytes are live after %d events, %d after %d", late, events, early, events/10)
	}
	runtime.KeepAlive(s)
}
