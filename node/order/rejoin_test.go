package order_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/dcnode/dcnode/consensus"
	"github.com/dcnode/dcnode/node/order"
	"github.com/dcnode/dcnode/node/order/ordertest"
)

// fewRounds makes a checkpoint every 16 rounds.
func fewRounds(c *order.Config) { c.CheckpointEvery = 16 }

// isolate parts member i from all others, or brings it back.
func (w *world) isolate(i int, off bool) {
	for k := range w.members {
		if k != i {
			w.net.Cut(i, k, off)
		}
	}
}

// pass orders transactions at a member until the order has gone on by some rounds.
func (m *member) pass(rounds uint64, size int) {
	m.w.t.Helper()
	text := strings.Repeat("x", size)
	for until := m.status().Pending + rounds; m.status().Pending < until; {
		m.submit(text)
	}
}

// ends is what Run of a member comes to within ten minutes.
func (m *member) ends() error {
	m.w.t.Helper()
	select {
	case err := <-m.ended:
		return err
	case <-time.After(10 * time.Minute):
		m.w.t.Fatalf("member %d goes on: %+v", m.i, m.status())
		return nil
	}
}

func TestRestartReadsFromTheNewestCheckpointOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4)
		for _, m := range w.members {
			m.config = fewRounds
		}
		w.start()
		m := w.members[0]
		m.pass(100, 10)
		w.settled(0, 1, 2, 3)
		next, chain := m.next()
		if err := m.stop(); err != nil {
			t.Fatal(err)
		}
		read := 0
		m.config = func(c *order.Config) {
			fewRounds(c)
			c.Machine.(*ordertest.Journal).Seen = func(consensus.Ordered) { read++ }
		}
		w.start(0)
		if n, c := m.next(); n != next || c != chain {
			t.Errorf("after a restart it has ordered %d events, not %d, or others", n, next)
		}
		if read == 0 || uint64(read) > next/2 {
			t.Errorf("%d of %d events were applied again", read, next)
		}
		m.submit("after")
		w.settled(0, 1, 2, 3)
	})
}

// A member that was away for longer than events stay open takes over a checkpoint,
// and says what it still had to say.
func TestMemberFarBehindGoesOnFromACheckpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4)
		for _, m := range w.members {
			m.config = fewRounds
		}
		w.net.Delay = func(int, int) time.Duration { return 5 * time.Millisecond }
		w.start()
		far := w.members[3]
		far.submit("one")
		w.settled(0, 1, 2, 3)
		w.isolate(3, true)
		if err := far.loop.Enqueue([]byte("said while away")); err != nil {
			t.Fatal(err)
		}
		if err := far.loop.Enqueue([]byte("and more")); err != nil {
			t.Fatal(err)
		}
		w.members[0].pass(150, 40<<10) // more than one reply holds
		before, _ := far.next()
		var mu sync.Mutex
		said := map[string]int{}
		for _, m := range w.members[:3] {
			if err := m.loop.Do(t.Context(), func() {
				m.journal.Seen = func(ev consensus.Ordered) {
					mu.Lock()
					defer mu.Unlock()
					for _, tx := range ev.Event.Payload {
						said[string(tx)]++
					}
				}
			}); err != nil {
				t.Fatal(err)
			}
		}
		w.isolate(3, false)
		if err := far.ends(); !errors.Is(err, order.ErrRejoined) {
			t.Fatalf("it ended with %v", err)
		}
		_ = far.stop()
		applied := uint64(0)
		far.config = func(c *order.Config) {
			fewRounds(c)
			c.Machine.(*ordertest.Journal).Seen = func(consensus.Ordered) { applied++ }
		}
		w.start(3)
		next := w.settled(0, 1, 2, 3)
		if applied >= next-before {
			t.Errorf("it applied %d events, and lacked %d", applied, next-before)
		}
		far.submit("two")
		w.settled(0, 1, 2, 3)
		for _, text := range []string{"said while away", "and more", "two"} {
			if said[text] < 3 {
				t.Errorf("%q is ordered %d times at three members", text, said[text])
			}
		}
		if n := w.forks(0, 1, 2, 3); n > 0 {
			t.Errorf("%d forks", n)
		}
		if st := far.status(); st.Joining || st.Behind || st.Observing {
			t.Errorf("joining %v, behind %v, observing %v", st.Joining, st.Behind, st.Observing)
		}
	})
}

// A liar says that it is a thousand rounds ahead and offers a checkpoint that it signed.
func TestOneLiarCannotMakeAMemberLeap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4)
		liar := w.net.Overlay(w.ids[3])
		var asked atomic.Int32
		liar.HandleRequest("/sync/2", func(context.Context, peer.ID, []byte) ([]byte, error) {
			b := binary.BigEndian.AppendUint64(nil, 2000)
			b = binary.BigEndian.AppendUint64(b, 1900)
			return append(b, make([]byte, 9)...), nil
		})
		liar.HandleRequest("/checkpoint/1", func(context.Context, peer.ID, []byte) ([]byte, error) {
			asked.Add(1)
			cp := consensus.Checkpoint{
				Network: consensus.Hash{7}, Round: 1950, MinBirth: 1900, Ordered: 9000,
				Judges: []consensus.Parent{{Hash: consensus.Hash{1}, Creator: 1, BirthRound: 1940}},
				Epochs: []consensus.Epoch{{From: 1, Roster: w.roster, Params: consensus.DefaultParams}},
			}
			return order.Offer(1900, &cp, [32]byte{5}, w.keys[3]), nil
		})
		go func() { _ = liar.Receive(t.Context(), func(peer.ID, []byte) {}) }()
		w.start(0, 1, 2)
		for k := range 30 {
			w.members[k%3].submit(fmt.Sprint(k))
			time.Sleep(time.Second)
		}
		w.settled(0, 1, 2)
		if asked.Load() == 0 {
			t.Error("nobody asked the liar for its checkpoint")
		}
		for _, m := range w.members[:3] {
			if st := m.status(); st.Behind || st.Ordered > 1000 {
				t.Errorf("member %d: behind %v, %d events", m.i, st.Behind, st.Ordered)
			}
		}
	})
}

func TestFloodingMemberIsNamedAndTheOthersAreServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4)
		w.net.Delay = func(int, int) time.Duration { return 2 * time.Millisecond }
		liar := w.net.Overlay(w.ids[3])
		go func() { _ = liar.Receive(t.Context(), func(peer.ID, []byte) {}) }()
		w.start(0, 1, 2)
		w.members[0].submit("before")
		const junk = 20000
		for k := range junk {
			e := &consensus.Event{Network: consensus.Hash{7}, Creator: 4, BirthRound: 1, Time: consensus.Timestamp(k), Payload: [][]byte{fmt.Append(nil, k)}}
			e.Signature = make([]byte, 64) // not a signature of anyone's
			w.net.Send(3, k%3, e.Marshal())
		}
		began := time.Now()
		for k := range 9 {
			w.members[k%3].submit(fmt.Sprint(k))
		}
		if took := time.Since(began) / 9; took > 30*time.Millisecond {
			t.Errorf("a transaction takes %v beside the flood", took)
		}
		w.settled(0, 1, 2)
		for _, m := range w.members[:3] {
			var times uint64
			checked := uint64(0)
			for _, s := range m.status().Suspects {
				if s.Member != 4 {
					t.Errorf("member %d suspects %+v", m.i, s)
				}
				if times += s.Count; strings.Contains(s.What, "rules") {
					checked = s.Count
				}
			}
			if times < junk/3 {
				t.Errorf("member %d has counted %d of %d faults", m.i, times, junk/3)
			}
			if checked == 0 || checked > 1200 {
				t.Errorf("member %d has checked %d events of the flood", m.i, checked)
			}
		}
	})
}

// electing is a journal that changes the roster when it is told to.
type electing struct {
	ordertest.Journal
	roster []consensus.Member
	due    []order.Change
}

func (e *electing) Apply(ev consensus.Ordered) error {
	for _, tx := range ev.Event.Payload {
		if string(tx) == "elect all" {
			e.due = append(e.due, order.Change{Roster: e.roster})
		}
	}
	return e.Journal.Apply(ev)
}

func (e *electing) Changes() []order.Change {
	due := e.due
	e.due = nil
	return due
}

func (e *electing) Refused(order.Change, error) {}

func TestMemberThatIsElectedSpeaks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 5)
		w.net.Delay = func(int, int) time.Duration { return 5 * time.Millisecond }
		all := w.roster
		w.roster = all[:4]
		for _, m := range w.members {
			m.config = func(c *order.Config) {
				e := &electing{roster: all}
				m.journal = &e.Journal
				c.Machine = e
			}
		}
		w.start()
		w.members[1].submit("before")
		w.members[1].submit("elect all")
		for range 10 {
			w.members[2].submit("on")
		}
		w.settled(0, 1, 2, 3, 4)
		if at := w.members[4].submit("here I am"); at.Round == 0 {
			t.Error("it was ordered nowhere")
		}
		w.settled(0, 1, 2, 3, 4)
	})
}
