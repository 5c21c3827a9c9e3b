package survey

import (
	"context"
	"errors"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/dcnode/dcnode/gossip"
)

const (
	alice = peer.ID("alice")
	bob   = peer.ID("bob")
	carol = peer.ID("carol")

	ms = time.Millisecond
)

// pair is alice's and bob's survey; bob serves, and so does alice.
func pair(m *mesh, cfg Config) (a, b *Survey) {
	cfg.Self = alice
	a = New(m.at[alice], cfg)
	cfg.Self = bob
	b = New(m.at[bob], cfg)
	a.Serve()
	b.Serve()
	return a, b
}

func near(t *testing.T, what string, got int64, want, within float64) {
	t.Helper()
	if off := float64(got)/want - 1; math.Abs(off) > within {
		t.Errorf("%s: %d bytes a second, want %.0f (%+.1f %%)", what, got, want, 100*off)
	}
}

func TestBothDirectionsAreMeasured(t *testing.T) {
	for _, c := range []struct {
		here, away float64 // bytes a second
		rtt        time.Duration
	}{{1.25e6, 1.25e6, 2 * ms}, {12.5e6, 1.25e6, 20 * ms}, {0.6e6, 12.5e6, 100 * ms}} {
		synctest.Test(t, func(t *testing.T) {
			m := newMesh(t, c.rtt, alice, bob)
			m.rates[[2]peer.ID{bob, alice}], m.rates[[2]peer.ID{alice, bob}] = c.here, c.away
			a, b := pair(m, Config{})
			got, err := a.Measure(t.Context(), bob)
			if err != nil {
				t.Fatal(err)
			}
			near(t, "towards alice", got.Bandwidth, c.here, 0.05)
			near(t, "away from alice", got.Away, c.away, 0.05)
			if got.RTT != c.rtt || !got.At.Equal(time.Now()) {
				t.Errorf("got %+v", got)
			}
			if known, ok := a.Path(bob); !ok || known != got {
				t.Errorf("alice remembers %+v, %v", known, ok)
			}
			m.serve.Wait()
			if far, ok := b.Path(alice); !ok || far.Bandwidth != got.Away || far.Away != got.Bandwidth {
				t.Errorf("bob knows %+v, %v", far, ok)
			}
		})
	}
}

func TestKnownDirectionIsNotMeasuredAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, 10*ms, alice, bob)
		a, b := pair(m, Config{})
		b.Learn(alice, 64<<20, 10*time.Second)
		got, err := a.Measure(t.Context(), bob)
		if err != nil || got.Away != 64<<20/10 {
			t.Errorf("got %+v, %v: bob knows better", got, err)
		}
	})
}

func TestPathIsForgottenWhenItIsOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, 10*ms, alice, bob)
		m.rates[[2]peer.ID{bob, alice}] = 1e6
		a, _ := pair(m, Config{Fresh: time.Minute})
		if p, ok := a.Path(bob); ok {
			t.Errorf("knows %+v of nothing", p)
		}
		if _, err := a.Measure(t.Context(), bob); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute - ms)
		if _, ok := a.Path(bob); !ok {
			t.Error("forgotten too early")
		}
		time.Sleep(ms)
		if p, ok := a.Path(bob); ok {
			t.Errorf("still knows %+v", p)
		}
		m.rates[[2]peer.ID{bob, alice}] = 4e6
		got, err := a.Measure(t.Context(), bob)
		if err != nil {
			t.Fatal(err)
		}
		near(t, "not mixed with what is old", got.Bandwidth, 4e6, 0.05)
	})
}

func TestManyWhoAskAreAnsweredByOneMeasurement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, 10*ms, alice, bob)
		a, _ := pair(m, Config{})
		var all sync.WaitGroup
		first, cancel := context.WithCancel(t.Context())
		paths := make([]Path, 10)
		for i := range paths {
			all.Go(func() {
				var err error
				ctx := t.Context()
				if i == 0 {
					ctx = first
				}
				if paths[i], err = a.Measure(ctx, bob); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		cancel()
		for _, p := range paths {
			if p != paths[0] || p.Bandwidth == 0 {
				t.Errorf("got %+v and %+v", p, paths[0])
			}
		}
		if n := m.at[bob].opened; n != 1 {
			t.Errorf("measured %d times", n)
		}
	})
}

func TestWhoeverGoesAwayTakesNobodyWithHim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, 50*ms, alice, bob)
		m.rates[[2]peer.ID{bob, alice}] = 1e5
		a, _ := pair(m, Config{})
		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan error)
		go func() { _, err := a.Measure(ctx, bob); gone <- err }()
		synctest.Wait()
		stays := make(chan error)
		go func() { _, err := a.Measure(t.Context(), bob); stays <- err }()
		synctest.Wait()
		time.Sleep(200 * ms)
		cancel()
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Errorf("the one who went away got %v", err)
		}
		if err := <-stays; err != nil {
			t.Errorf("the one who stayed got %v", err)
		}
	})
}

func TestNobodyIsMeasuredDuringAMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, 10*ms, alice, bob, carol)
		busy := map[peer.ID]bool{carol: true}
		a, b := pair(m, Config{Busy: func(p peer.ID) bool { return busy[p] }})
		New(m.at[carol], Config{Self: carol}).Serve()
		if _, err := a.Measure(t.Context(), carol); !errors.Is(err, ErrBusy) || m.at[carol].opened > 0 {
			t.Errorf("carol moves a machine: %v, asked %d times", err, m.at[carol].opened)
		}
		end := b.Moving()
		if _, err := a.Measure(t.Context(), bob); !errors.Is(err, ErrBusy) {
			t.Errorf("bob moves a machine and says so: %v", err)
		}
		if _, err := b.Measure(t.Context(), alice); !errors.Is(err, ErrBusy) || m.at[alice].opened > 0 {
			t.Errorf("bob measures while he moves a machine: %v", err)
		}
		end()
		end() // twice is once
		other := b.Moving()
		if _, err := a.Measure(t.Context(), bob); !errors.Is(err, ErrBusy) {
			t.Errorf("bob moves another machine: %v", err)
		}
		other()
		if _, err := a.Measure(t.Context(), bob); err != nil {
			t.Errorf("nobody moves: %v", err)
		}
	})
}

func TestMeasuringHasABudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, 10*ms, alice, bob, carol) // 1 Gbit/s: 8 MiB each way
		const perMinute = 40 << 20
		a, _ := pair(m, Config{PerMinute: perMinute, Fresh: time.Millisecond})
		n := 0
		for ; n < 100; n++ {
			if _, err := a.Measure(t.Context(), bob); errors.Is(err, ErrSpent) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if n < 2 || n > 5 {
			t.Errorf("measured %d times before the budget of %d MiB was spent", n, perMinute>>20)
		}
		if _, err := a.Measure(t.Context(), carol); !errors.Is(err, ErrSpent) {
			t.Errorf("the budget is one for all: %v", err)
		}
		time.Sleep(time.Minute)
		if _, err := a.Measure(t.Context(), bob); err != nil {
			t.Errorf("after a minute: %v", err)
		}
	})
}

// A member that measures all the time gets no more than its budget, and the others get
// theirs.
func TestGreedyMemberIsServedItsBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, 10*ms, alice, bob, carol)
		b := New(m.at[bob], Config{Self: bob, PerMinute: 40 << 20, Fresh: time.Millisecond})
		b.Serve()
		greedy, modest := New(m.at[alice], Config{Self: alice, PerMinute: 1 << 40}), New(m.at[carol], Config{Self: carol})
		greedy.Serve()
		served := 0
		for range 50 {
			if _, err := greedy.Measure(t.Context(), bob); err == nil {
				served++
			} else if !errors.Is(err, ErrBusy) {
				t.Fatal(err)
			}
		}
		if served < 2 || served > 4 { // of 16 MiB each
			t.Errorf("served %d times", served)
		}
		if _, err := modest.Measure(t.Context(), bob); err != nil {
			t.Errorf("carol: %v", err)
		}
	})
}

func TestTransferTeaches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, 10*ms, alice, bob)
		m.rates[[2]peer.ID{bob, alice}] = 10e6
		a, _ := pair(m, Config{})
		a.Learn(bob, leastBulk-1, time.Hour)
		a.Learn(bob, 1<<30, leastTook-1)
		if p, ok := a.Path(bob); ok {
			t.Fatalf("a short transfer taught %+v", p)
		}
		var before Path
		for range 2 { // until it is sure
			var err error
			if before, err = a.Measure(t.Context(), bob); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		a.Learn(bob, 40e6, 10*time.Second)
		got, ok := a.Path(bob)
		near(t, "a transfer weighs three times the measurement", got.Bandwidth, 0.75*4e6+0.25*10e6, 0.03)
		if !ok || got.Away != before.Away || got.RTT != before.RTT || !got.At.Equal(time.Now()) {
			t.Errorf("got %+v, before %+v", got, before)
		}
		a.LearnAway(bob, 20e6, 10*time.Second)
		if p, _ := a.Path(bob); p.Bandwidth != got.Bandwidth || p.Away >= got.Away {
			t.Errorf("got %+v", p)
		}
		a.Learn(carol, math.MaxInt64, time.Second)
		if p, _ := a.Path(carol); p.Bandwidth != mostRate {
			t.Errorf("an impossible transfer taught %d", p.Bandwidth)
		}
	})
}

func TestWhoLeftIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, 10*ms, alice, bob)
		a, _ := pair(m, Config{})
		if _, err := a.Measure(t.Context(), bob); err != nil {
			t.Fatal(err)
		}
		a.Forget(func(p peer.ID) bool { return p == bob })
		if _, ok := a.Path(bob); !ok {
			t.Error("who stays is forgotten")
		}
		a.Forget(func(peer.ID) bool { return false })
		if p, _ := a.Path(bob); p != (Path{}) || a.Least() != 0 {
			t.Errorf("who left is remembered: %+v, least %d", p, a.Least())
		}
	})
}

func TestSilentMemberCostsOnlyTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, 10*ms, alice, bob)
		a, _ := pair(m, Config{})
		for name, f := range map[string]func(){
			"no pong":    func() { m.at[bob].stuck = true },
			"no welcome": func() { m.at[bob].stuck, m.at[bob].strange = false, func(gossip.Stream) {} },
			"no bytes": func() {
				m.at[bob].strange = func(st gossip.Stream) { _ = writeWord(st, wordWelcome, 0) }
			},
		} {
			m.at[bob].stuck, m.at[bob].strange = false, nil
			f()
			began := time.Now()
			_, err := a.Measure(t.Context(), bob)
			if err == nil || time.Since(began) > probeWithin+time.Second {
				t.Errorf("%s: %v after %v", name, err, time.Since(began))
			}
		}
	})
}

func TestMemberThatTalksNonsenseIsRefused(t *testing.T) {
	say := func(words ...any) func(gossip.Stream) {
		return func(st gossip.Stream) {
			for i := 0; i < len(words); i += 2 {
				_ = writeWord(st, words[i].(byte), int64(words[i+1].(int)))
			}
			_ = st.Close()
		}
	}
	// What the opener has asked for first, for those that talk nonsense after it.
	whole := func(then func(gossip.Stream)) func(gossip.Stream) {
		return func(st gossip.Stream) {
			_ = writeWord(st, wordWelcome, 0)
			_, _, _ = readWord(st)
			if _, _, err := send(st); err == nil {
				then(st)
			}
		}
	}
	for name, f := range map[string]func(gossip.Stream){
		"hangs up":           func(st gossip.Stream) { _ = st.Reset() },
		"ends":               say(),
		"another word":       say(byte('x'), 0),
		"a huge number":      say(wordWelcome, -1),
		"grants too much":    whole(say(wordGrant, mostRun+1)),
		"grants nothing":     whole(say(wordGrant, 0)),
		"grants backwards":   whole(say(wordGrant, 70<<10, wordGrant, 60<<10)),
		"is done at no rate": whole(say(wordDone, 0)),
	} {
		synctest.Test(t, func(t *testing.T) {
			m := newMesh(t, 10*ms, alice, bob)
			a, _ := pair(m, Config{})
			m.at[bob].strange = f
			if p, err := a.Measure(t.Context(), bob); err == nil {
				t.Errorf("%s: measured %+v", name, p)
			}
			if p, ok := a.Path(bob); ok {
				t.Errorf("%s: remembers %+v", name, p)
			}
		})
	}
}

func TestTwoAreServedOneAfterTheOther(t *testing.T) {
	took := map[int]time.Duration{}
	for _, who := range [][]peer.ID{{alice}, {alice, carol}} {
		synctest.Test(t, func(t *testing.T) {
			m := newMesh(t, 10*ms, alice, bob, carol)
			New(m.at[bob], Config{Self: bob}).Serve()
			began := time.Now()
			var all sync.WaitGroup
			for _, id := range who {
				m.rates[[2]peer.ID{bob, id}] = 2e6
				s := New(m.at[id], Config{Self: id})
				s.Serve()
				all.Go(func() {
					if _, err := s.Measure(t.Context(), bob); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
			took[len(who)] = time.Since(began)
		})
	}
	if took[2] < took[1]*3/2 {
		t.Errorf("one took %v and two %v: they were measured at once", took[1], took[2])
	}
}

func TestHostIsLookedAt(t *testing.T) {
	h, err := LookAtHost(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if h.CPUs < 1 || h.Load < 0 || h.FreeMemory <= 0 || h.FreeMemory > h.Memory || h.FreeDisk < 0 {
		t.Errorf("got %+v", h)
	}
	if _, err := LookAtHost(t.TempDir() + "/none"); err == nil {
		t.Error("looked at a disk that is not there")
	}
}

func TestPathIsThatOfTheMemberWhateverItsKey(t *testing.T) {
	s := New(newMesh(t, ms, alice).at[alice], Config{})
	s.Same(bob, carol)
	if _, ok := s.Path(carol); ok {
		t.Error("a path that nobody has measured is known")
	}
	s.Learn(bob, 8<<20, time.Second)
	s.Same(bob, carol)
	was, _ := s.Path(bob)
	if now, ok := s.Path(carol); !ok || now != was {
		t.Errorf("of the new key %+v is known, %v; of the old one %+v", now, ok, was)
	}
	s.Learn(carol, 1<<20, time.Second)
	now, _ := s.Path(carol)
	s.Same(bob, carol)
	if again, _ := s.Path(carol); again != now {
		t.Errorf("what was learnt of the new key, %+v, is forgotten for %+v", now, again)
	}
}
