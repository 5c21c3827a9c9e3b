package migrate

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/zstd"
)

func packed(n int) []byte {
	e, err := zstd.NewWriter(nil)
	if err != nil {
		panic(err)
	}
	return e.EncodeAll(make([]byte, n), nil)
}

// incompressible fills a guest's memory with what must be sent as it is.
func (g *guest) incompressible() {
	x := uint64(88172645463325252)
	for i := range g.pages {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		g.pages[i] = byte(x)
	}
}

func TestWindowFollowsThePath(t *testing.T) {
	for _, c := range []struct {
		name  string
		rate  float64 // bytes per second
		delay time.Duration
		pages int
		share float64 // of the rate, at least
	}{
		{"10 Mbit/s, 40 ms", 1.25e6, 20 * time.Millisecond, 2500, 0.9},
		{"100 Mbit/s, 30 ms", 12.5e6, 15 * time.Millisecond, 4000, 0.85},
		{"1 Gbit/s, 100 ms", 125e6, 50 * time.Millisecond, 7000, 0.2}, // most of it is the start
		{"100 Gbit/s, 300 ms", 125e8, 150 * time.Millisecond, 5000, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMove(t, 3, c.pages, 10)
				m.guest.incompressible()
				m.guest.rounds = 1
				m.job.Bases, m.sink.Bases = nil, nil
				for i := range m.wire.dir {
					m.wire.dir[i].rate, m.wire.dir[i].delay, m.wire.dir[i].buffer = c.rate, c.delay, 64<<20
				}
				m.run(t)
				m.arrived(t)
				product := c.rate * 2 * c.delay.Seconds()
				bound := int64(min(max(2.3*product, minWindow), maxWindow))
				for i, n := range m.wire.flying {
					if n > bound {
						t.Fatalf("write %d: %d bytes in flight, want at most %d", i, n, bound)
					}
				}
				got := float64(m.wire.dir[0].written) / m.sendTook.Seconds()
				t.Logf("%.1f of %.1f MB/s, product %.0f", got/1e6, c.rate/1e6, product)
				if got < c.share*c.rate || got > c.rate {
					t.Errorf("%.1f MB/s on a link of %.1f", got/1e6, c.rate/1e6)
				}
			})
		})
	}
}

func TestBandwidthLimitIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMove(t, 3, 2000, 10)
		m.guest.incompressible()
		m.job.MaxBandwidth = 2e6
		m.run(t)
		m.arrived(t)
		got := float64(m.sent.MemorySent+m.sent.DiskSent) / m.sendTook.Seconds()
		if got > 2.1e6 || got < 1.8e6 {
			t.Errorf("%.2f MB/s, the limit is 2", got/1e6)
		}
	})
}

func TestSlowDestinationShrinksTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMove(t, 3, 5000, 10)
		m.guest.incompressible()
		m.guest.rounds = 1
		m.room.slowWrite = 100 * time.Millisecond // about 1.1 MB/s
		m.wire.dir[0].buffer = 64 << 20
		m.run(t)
		m.arrived(t)
		for _, n := range m.wire.flying {
			if n > 4*minWindow {
				t.Fatalf("%d bytes in flight to a machine that takes 1.1 MB/s", n)
			}
		}
	})
}

// path plays a path to a flow: a fixed rate and round trip, the window always full.
func path(f *flow, start time.Time, rate float64, rtt, d time.Duration) time.Time {
	type sent struct {
		end int64
		at  time.Time
	}
	var queue []sent
	now, free := start, start
	for now.Before(start.Add(d)) {
		for f.fits(64 << 10) {
			f.onSend(64<<10, now)
			if free.Before(now) {
				free = now
			}
			free = free.Add(time.Duration(64 << 10 / rate * 1e9))
			queue = append(queue, sent{f.sent, free.Add(rtt)})
		}
		now = queue[0].at
		if err := f.onAck(queue[0].end, now); err != nil {
			panic(err)
		}
		queue = queue[1:]
	}
	for _, s := range queue {
		now = s.at
		if err := f.onAck(s.end, now); err != nil {
			panic(err)
		}
	}
	return now
}

func TestWindowAdaptsWhenThePathChanges(t *testing.T) {
	var f flow
	now := time.Unix(1000, 0)
	for _, c := range []struct {
		rate float64
		rtt  time.Duration
	}{{50e6, 20 * time.Millisecond}, {50e6, 80 * time.Millisecond}, {10e6, 80 * time.Millisecond}, {100e6, 80 * time.Millisecond}} {
		now = path(&f, now, c.rate, c.rtt, 60*time.Second)
		product := c.rate * c.rtt.Seconds()
		if w := float64(f.window()); w < 0.9*product || w > 3*product {
			t.Errorf("rate %.0f, round trip %v: window %.0f is %.1f products", c.rate, c.rtt, w, w/product)
		}
	}
}

func TestPauseDoesNotShrinkTheWindow(t *testing.T) {
	var f flow
	now := path(&f, time.Unix(1000, 0), 50e6, 40*time.Millisecond, 20*time.Second)
	before := f.window()
	for range 100 { // a frame a second: the machine has little to say
		now = now.Add(time.Second)
		f.onSend(1000, now)
		if err := f.onAck(f.sent, now.Add(40*time.Millisecond)); err != nil {
			t.Fatal(err)
		}
	}
	if after := f.window(); after < before/2 {
		t.Errorf("window %d, after quiet minutes %d", before, after)
	}
}

func TestAcknowledgementsOfNothingAreRefused(t *testing.T) {
	var f flow
	f.onSend(100, time.Unix(1, 0))
	if f.onAck(50, time.Unix(2, 0)) != nil || f.onAck(101, time.Unix(2, 0)) == nil || f.onAck(49, time.Unix(2, 0)) == nil {
		t.Error("acknowledgements are not checked against what was sent")
	}
}
