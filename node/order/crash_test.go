package order_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dcnode/dcnode/node/order"
)

// forks is how many events any of the members saw that contradict another.
func (w *world) forks(which ...int) uint64 {
	w.t.Helper()
	var n uint64
	for _, i := range which {
		st, err := w.members[i].loop.Status(context.Background())
		if err != nil {
			w.t.Fatal(err)
		}
		n += st.Forks
	}
	return n
}

// crash ends a member in the middle of what it does: from now on nothing that it says
// gets out, and its log is what the kernel has.
func (m *member) crash() {
	m.w.mu.Lock()
	m.w.dead[m.i] = true
	m.w.mu.Unlock()
	m.abandon = true
	_ = m.stop()
	m.w.mu.Lock()
	m.w.dead[m.i] = false
	m.w.mu.Unlock()
}

// powerCut ends a member and its host: of what was not synced some is lost.
func (m *member) powerCut(r *rand.Rand) {
	path, synced := m.loop.LogFile()
	m.crash()
	st, err := os.Stat(path)
	if err != nil {
		m.w.t.Fatal(err)
	}
	if err := os.Truncate(path, synced+r.Int64N(st.Size()-synced+1)); err != nil {
		m.w.t.Fatal(err)
	}
	m.boot++
}

// A member's process or host dies in the middle of a load, with messages of its last
// event on their way to some of the others only. It must not contradict itself.
func TestCrashedMemberNeverContradictsItself(t *testing.T) {
	for _, c := range []struct {
		what  string
		seeds uint64
		die   func(*member, *rand.Rand)
	}{
		{"process", 5, func(m *member, _ *rand.Rand) { m.crash() }},
		{"host", 12, (*member).powerCut},
	} {
		t.Run(c.what, func(t *testing.T) {
			learned := 0
			for seed := range c.seeds {
				synctest.Test(t, func(t *testing.T) { learned += crashOnce(t, seed, c.die) })
			}
			if c.what == "host" && learned == 0 {
				t.Error("no member ever had to learn an own event from the others: the cuts do not bite")
			}
		})
	}
}

// crashOnce is one run; the result is how many events others had that the member had lost.
func crashOnce(t *testing.T, seed uint64, die func(*member, *rand.Rand)) int {
	r := rand.New(rand.NewPCG(seed, 1))
	w := newWorld(t, 4)
	w.net.Delay = func(from, to int) time.Duration { return time.Duration(1+(from*3+to*5)%4) * time.Millisecond }
	until := 3 + r.IntN(80)   // messages of member 0
	last := until + r.IntN(3) // of its messages to get out
	sent, reached := 0, make(chan struct{})
	w.net.Pass = func(from, _ int, _ []byte) bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		if from == 0 {
			if sent++; sent == until {
				close(reached)
			}
			if sent == last {
				w.dead[0] = true // some get it and some do not
			}
		}
		return !w.dead[from]
	}
	w.start()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	var load sync.WaitGroup
	for i, m := range w.members[1:] {
		load.Go(func() {
			for k := range 20 {
				if _, err := m.loop.Submit(ctx, fmt.Appendf(nil, "%d of %d", k, i)); err != nil {
					t.Errorf("member %d, transaction %d: %v", i+1, k, err)
					return
				}
			}
		})
	}
	m := w.members[0]
	load.Go(func() {
		for k := 0; ctx.Err() == nil; k++ { // ends with the crash
			if _, err := m.loop.Submit(ctx, fmt.Appendf(nil, "%d of the one that dies", k)); err != nil {
				return
			}
		}
	})
	<-reached
	time.Sleep(time.Duration(r.Int64N(int64(12 * time.Millisecond))))
	die(m, r)
	w.start(0)
	m.submit("after")
	load.Wait()
	w.settled(0, 1, 2, 3)
	if n := w.forks(0, 1, 2, 3); n > 0 {
		t.Errorf("seed %d: %d forks", seed, n)
	}
	if st := m.status(); st.Observing {
		t.Errorf("seed %d: still observing, waits for %d", seed, st.WaitsFor)
	}
	return int(m.status().Learned)
}

// A member that is started from an old copy of its directory, or that has a twin,
// meets events that it signed and does not know.
func TestMemberThatMeetsItsOwnUnknownEventStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4)
		w.start()
		m := w.members[0]
		m.submit("one")
		w.settled(0, 1, 2, 3)
		if err := m.stop(); err != nil {
			t.Fatal(err)
		}
		old := t.TempDir()
		if err := os.CopyFS(old, os.DirFS(m.dir)); err != nil {
			t.Fatal(err)
		}
		w.start(0)
		m.submit("two")
		w.settled(0, 1, 2, 3)
		if err := m.stop(); err != nil {
			t.Fatal(err)
		}
		m.dir = old
		w.start(0)
		if err := m.ends(); !errors.Is(err, order.ErrTwin) {
			t.Fatalf("it ended with %v", err)
		}
		_ = m.stop()
		// The next time it first asks what it has said, and goes on from there.
		w.start(0)
		if st := m.status(); !st.Observing {
			t.Error("it speaks at once")
		}
		m.submit("three")
		w.settled(0, 1, 2, 3)
		if n := w.forks(0, 1, 2, 3); n > 0 {
			t.Errorf("%d forks", n)
		}
	})
}

func TestObservingMemberSaysNothingAndNamesWhoItWaitsFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4)
		var mu sync.Mutex
		said := map[int]int{}
		w.net.Pass = func(from, _ int, _ []byte) bool {
			mu.Lock()
			defer mu.Unlock()
			said[from]++
			return true
		}
		w.start()
		w.members[1].submit("one")
		w.settled(0, 1, 2, 3)
		r := rand.New(rand.NewPCG(1, 1))
		w.members[0].powerCut(r)
		for i := 1; i < 4; i++ {
			w.net.Cut(0, i, true)
		}
		mu.Lock()
		said[0] = 0
		mu.Unlock()
		w.start(0)
		if err := w.members[0].loop.Enqueue([]byte("waits")); err != nil {
			t.Fatal(err)
		}
		w.net.Cut(0, 3, false) // one of the three that it needs two of
		time.Sleep(time.Minute)
		synctest.Wait()
		mu.Lock()
		if said[0] > 0 {
			t.Errorf("it published %d messages while it observed", said[0])
		}
		mu.Unlock()
		if st := w.members[0].status(); !st.Observing || !slices.Equal(st.WaitsFor, []uint64{2, 3}) {
			t.Errorf("observing %v, waits for %d", st.Observing, st.WaitsFor)
		}
		w.net.Cut(0, 2, false)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if st := w.members[0].status(); st.Observing || st.WaitsFor != nil || st.Waiting > 0 {
			t.Errorf("observing %v, waits for %d, %d transactions wait", st.Observing, st.WaitsFor, st.Waiting)
		}
		w.net.Cut(0, 1, false)
		w.settled(0, 1, 2, 3)
	})
}

func TestMemberAloneInItsRosterSpeaksAtOnce(t *testing.T) {
	w := newWorld(t, 1)
	w.start()
	w.members[0].submit("one")
	w.members[0].powerCut(rand.New(rand.NewPCG(1, 1)))
	w.start()
	w.members[0].submit("two")
}

// The directory is gone, and the history of a thousand rounds with it.
func TestMemberThatLostItsLogLearnsWhatItSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4)
		for _, m := range w.members {
			m.config = fewRounds
		}
		w.net.Delay = func(int, int) time.Duration { return 2 * time.Millisecond }
		w.start()
		m := w.members[0]
		m.submit("mine")
		w.members[1].pass(60, 10)
		w.settled(0, 1, 2, 3)
		if err := m.stop(); err != nil {
			t.Fatal(err)
		}
		m.dir = t.TempDir()
		for err := error(order.ErrRejoined); errors.Is(err, order.ErrRejoined); {
			w.start(0)
			select {
			case err = <-m.ended: // it may have to leap first
				_ = m.stop()
			case <-time.After(time.Minute):
				err = nil
			}
		}
		m.submit("mine again")
		w.settled(0, 1, 2, 3)
		if n := w.forks(0, 1, 2, 3); n > 0 {
			t.Errorf("%d forks", n)
		}
		if st := m.status(); st.Learned == 0 {
			t.Error("it has learned nothing of what it said")
		}
	})
}

// What a member said long ago is no news to it, however often a liar repeats it.
func TestOldOwnEventKeepsNobodyFromSpeaking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4)
		for _, m := range w.members {
			m.config = fewRounds
		}
		w.net.Delay = func(int, int) time.Duration { return 2 * time.Millisecond }
		var mu sync.Mutex
		var first []byte // that member 0 said
		w.net.Pass = func(from, _ int, data []byte) bool {
			mu.Lock()
			defer mu.Unlock()
			if from == 0 && first == nil {
				first = bytes.Clone(data)
			}
			return true
		}
		w.start()
		m := w.members[0]
		m.submit("mine")
		w.members[1].pass(200, 10)
		w.settled(0, 1, 2, 3)
		m.powerCut(rand.New(rand.NewPCG(1, 1)))
		tick := time.NewTicker(20 * time.Millisecond)
		end := make(chan struct{})
		defer close(end)
		go func() {
			for {
				select {
				case <-tick.C:
					w.net.Send(3, 0, first)
				case <-end:
					return
				}
			}
		}()
		w.start(0)
		time.Sleep(20 * time.Second)
		if st := m.status(); st.Observing || st.Learned > 100 {
			t.Errorf("after 20 s it observes: %v, and has learned %d own events", st.Observing, st.Learned)
		}
	})
}
