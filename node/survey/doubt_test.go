package survey

import (
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// TestBusyHostDoesNotMakeAPathSlow: while sites start, who carries the bytes stands still for
// most of the time. What is measured then is marked as unsure, and forgotten when two
// measurements agree.
func TestBusyHostDoesNotMakeAPathSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const true50 = 50e6
		m := newMesh(t, 3*ms, alice, bob)
		m.rates[[2]peer.ID{bob, alice}], m.rates[[2]peer.ID{alice, bob}] = true50, true50
		r := rand.New(rand.NewPCG(1, 2))
		m.stall = func(int64) time.Duration { // of three milliseconds nearly all, now and then
			if r.IntN(10) == 0 {
				return time.Duration(r.IntN(60)) * ms
			}
			return 0
		}
		a, b := pair(m, Config{})
		first, err := a.Measure(t.Context(), bob)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("on the busy host: %d and %d bytes a second", first.Bandwidth, first.Away)
		if !first.Unsure || !first.AwayUnsure || first.Bandwidth > true50/2 {
			t.Errorf("measured on a busy host, and sure of it: %+v", first)
		}
		if n := m.at[bob].opened; n != tries {
			t.Errorf("measured %d times", n)
		}
		m.stall = nil
		for i := range 2 {
			time.Sleep(10 * time.Second)
			got, err := a.Measure(t.Context(), bob)
			if err != nil {
				t.Fatal(err)
			}
			near(t, "once it is quiet", got.Bandwidth, true50, 0.05)
			near(t, "away, once it is quiet", got.Away, true50, 0.05)
			if got.Unsure != (i == 0) {
				t.Errorf("after measurement %d on a quiet host: %+v", i, got)
			}
		}
		m.serve.Wait()
		if far, ok := b.Path(alice); !ok || far.Unsure || far.AwayUnsure {
			t.Errorf("the other does not agree: %+v", far)
		}
	})
}

// TestStarvedMeasurementDoesNotSpoilWhatIsKnown: the processor was elsewhere, evenly.
func TestStarvedMeasurementDoesNotSpoilWhatIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, 10*ms, alice, bob)
		m.rates[[2]peer.ID{bob, alice}], m.rates[[2]peer.ID{alice, bob}] = 10e6, 10e6
		a, b := pair(m, Config{})
		for range 2 {
			if _, err := a.Measure(t.Context(), bob); err != nil {
				t.Fatal(err)
			}
		}
		m.serve.Wait()
		for _, s := range []*Survey{a, b} {
			s.watch = func() func() float64 { return func() float64 { return 0.6 } }
		}
		m.rates[[2]peer.ID{bob, alice}] = 1e6
		got, err := a.Measure(t.Context(), bob)
		if err != nil {
			t.Fatal(err)
		}
		if got.Bandwidth < 6e6 || got.Unsure {
			t.Errorf("three starved measurements of a tenth make 10 MB/s %+v", got)
		}
	})
}

func TestPathThatBecameSlowerIsBelievedOnceItIsMeasuredTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, 10*ms, alice, bob)
		way := [2]peer.ID{bob, alice}
		m.rates[way] = 10e6
		a, _ := pair(m, Config{Fresh: time.Hour})
		for i, c := range []struct {
			carries, want float64
			unsure        bool
		}{{10e6, 10e6, true}, {10e6, 10e6, false}, {2e6, 10e6, true}, {2e6, 2e6, false}, {20e6, 20e6, true}, {20e6, 20e6, false}} {
			m.rates[way] = c.carries
			got, err := a.Measure(t.Context(), bob)
			if err != nil {
				t.Fatal(err)
			}
			near(t, "bandwidth", got.Bandwidth, c.want, 0.05)
			if got.Unsure != c.unsure {
				t.Errorf("measurement %d: %+v", i, got)
			}
		}
	})
}

func TestTwoThatMeasureEachOtherDoItOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, 20*ms, alice, bob)
		m.rates[[2]peer.ID{bob, alice}], m.rates[[2]peer.ID{alice, bob}] = 2e6, 4e6
		a, b := pair(m, Config{})
		var both sync.WaitGroup
		var got [2]Path
		for i, s := range []*Survey{a, b} {
			both.Go(func() {
				var err error
				if got[i], err = s.Measure(t.Context(), [2]peer.ID{bob, alice}[i]); err != nil {
					t.Error(err)
				}
			})
		}
		both.Wait()
		m.serve.Wait()
		if paid := []float64{a.mine.spent, b.mine.spent}; (paid[0] == 0) == (paid[1] == 0) {
			t.Errorf("they spent %v", paid)
		}
		for i, want := range [][2]float64{{2e6, 4e6}, {4e6, 2e6}} {
			near(t, "towards", got[i].Bandwidth, want[0], 0.05)
			near(t, "away", got[i].Away, want[1], 0.05)
		}
	})
}

func TestMembersThatMeasureInARingDoNotWaitForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ring := []peer.ID{alice, bob, carol, "dave", "erin"}
		m := newMesh(t, 10*ms, ring...)
		var all []*Survey
		for _, id := range ring {
			all = append(all, New(m.at[id], Config{Self: id}))
			all[len(all)-1].Serve()
		}
		began := time.Now()
		var wg sync.WaitGroup
		for i, s := range all {
			wg.Go(func() {
				if _, err := s.Measure(t.Context(), ring[(i+1)%len(ring)]); err != nil {
					t.Errorf("%s: %v", ring[i], err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(began); took >= turnWithin {
			t.Errorf("it took %v", took)
		}
	})
}
