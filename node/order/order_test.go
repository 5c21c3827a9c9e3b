package order_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/dcnode/dcnode/consensus"
	"github.com/dcnode/dcnode/node/order"
	"github.com/dcnode/dcnode/node/order/ordertest"
)

// world is a roster of members with the IDs 1 to n over a network of memory. Members
// are numbered from 0.
type world struct {
	t       testing.TB
	net     *ordertest.Net
	keys    []ed25519.PrivateKey
	ids     []peer.ID
	roster  []consensus.Member
	members []*member

	mu   sync.Mutex
	dead map[int]bool // members whose messages are lost; for Pass
}

// member is one that may be started and stopped.
type member struct {
	w       *world
	i       int
	dir     string
	journal *ordertest.Journal
	loop    *order.Loop
	stop    func() error // nil: it does not run
	ended   chan error   // what Run returned, once, for a test that waits for it
	boot    int          // of its host
	abandon bool         // stop leaves the log as a dying process does
	config  func(*order.Config)
	peer    peer.ID // what the network calls it; empty: as at first
}

func newWorld(t testing.TB, n int) *world {
	t.Helper()
	w := &world{t: t, dead: map[int]bool{}}
	for i := range n {
		seed := make([]byte, ed25519.SeedSize)
		binary.BigEndian.PutUint64(seed, uint64(i)+1)
		key := ed25519.NewKeyFromSeed(seed)
		pub, err := crypto.UnmarshalEd25519PublicKey(key.Public().(ed25519.PublicKey))
		if err != nil {
			t.Fatal(err)
		}
		id, err := peer.IDFromPublicKey(pub)
		if err != nil {
			t.Fatal(err)
		}
		w.keys, w.ids = append(w.keys, key), append(w.ids, id)
		w.roster = append(w.roster, consensus.Member{ID: uint64(i + 1), Key: key.Public().(ed25519.PublicKey), Weight: 1})
		w.members = append(w.members, &member{w: w, i: i, dir: t.TempDir()})
	}
	w.net = ordertest.NewNet(w.ids)
	return w
}

// start opens and runs members; none named: all.
func (w *world) start(which ...int) {
	w.t.Helper()
	if len(which) == 0 {
		for i := range w.members {
			which = append(which, i)
		}
	}
	for _, i := range which {
		if err := w.members[i].start(); err != nil {
			w.t.Fatal(err)
		}
	}
}

// open reads a member's log without running it.
func (m *member) open() error {
	m.journal = &ordertest.Journal{}
	cfg := order.Config{
		Network: consensus.Hash{7}, Roster: m.w.roster, Self: uint64(m.i + 1), Keys: []ed25519.PrivateKey{m.w.keys[m.i]},
		Dir: m.dir, Machine: m.journal, BootID: fmt.Sprint("boot ", m.boot),
		Peer: func(id uint64) peer.ID {
			if id == 0 || id > uint64(len(m.w.ids)) {
				return ""
			}
			return m.w.ids[id-1]
		},
		Member: func(id peer.ID) uint64 {
			for i := range m.w.ids {
				if m.w.ids[i] == id {
					return uint64(i + 1)
				}
			}
			return 0
		},
	}
	if m.config != nil {
		m.config(&cfg)
	}
	l, err := order.Open(cfg)
	if err != nil {
		return err
	}
	m.loop = l
	return nil
}

func (m *member) start() error {
	if err := m.open(); err != nil {
		return err
	}
	m.loop.Join(m.w.net.Overlay(cmp.Or(m.peer, m.w.ids[m.i])))
	ctx, cancel := context.WithCancel(context.Background())
	ended, l := make(chan error, 1), m.loop
	m.ended, m.abandon = make(chan error, 1), false
	go func() {
		err := l.Run(ctx)
		m.ended <- err
		ended <- err
	}()
	m.stop = sync.OnceValue(func() error {
		cancel()
		err := <-ended
		if m.abandon {
			l.Abandon()
		} else if cerr := l.Close(); err == nil {
			err = cerr
		}
		return err
	})
	stop := m.stop
	m.w.t.Cleanup(func() {
		if err := stop(); err != nil && !errors.Is(err, order.ErrTwin) && !errors.Is(err, order.ErrRejoined) {
			m.w.t.Errorf("member %d ended: %v", m.i, err)
		}
	})
	return nil
}

func (m *member) status() order.Status {
	m.w.t.Helper()
	st, err := m.loop.Status(context.Background())
	if err != nil {
		m.w.t.Fatal(err)
	}
	return st
}

// submit orders a transaction at a member within a minute.
func (m *member) submit(text string) order.Place {
	m.w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	at, err := m.loop.Submit(ctx, []byte(text))
	if err != nil {
		m.w.t.Fatalf("member %d: %q is not ordered: %v; %+v", m.i, text, err, m.status())
	}
	return at
}

// next is how many events a member has ordered, and its chain over them.
func (m *member) next() (uint64, [32]byte) {
	m.w.t.Helper()
	var next uint64
	var chain [32]byte
	if err := m.loop.Do(context.Background(), func() { next, chain = m.journal.Next, m.journal.Chain }); err != nil {
		m.w.t.Fatal(err)
	}
	return next, chain
}

// settled lets the bubble come to rest and checks that the given members have the same order.
func (w *world) settled(which ...int) uint64 {
	w.t.Helper()
	time.Sleep(2 * time.Minute) // of the bubble
	synctest.Wait()
	next, chain := w.members[which[0]].next()
	for _, i := range which[1:] {
		if n, c := w.members[i].next(); n != next || c != chain {
			w.t.Errorf("member %d has ordered %d events, member %d %d, or others", which[0], next, i, n)
		}
	}
	return next
}

// inLog reports whether an encoded event stands in a file of a member's directory.
func (m *member) inLog(event []byte) bool {
	found := false
	_ = filepath.WalkDir(m.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			b, _ := os.ReadFile(path)
			found = found || bytes.Contains(b, event)
		}
		return nil
	})
	return found
}

func TestOwnEventIsInTheLogBeforeAnyoneSeesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		var mu sync.Mutex
		seen := 0
		w.net.Pass = func(from, _ int, event []byte) bool {
			mu.Lock()
			defer mu.Unlock()
			if seen++; !w.members[from].inLog(event) {
				t.Errorf("an event of %d bytes is published and not in the log", len(event))
			}
			return true
		}
		w.start()
		for i := range 5 {
			w.members[i%3].submit(fmt.Sprint(i))
		}
		w.settled(0, 1, 2)
		if seen == 0 {
			t.Error("nothing was published")
		}
	})
}

func TestMembersThatSpeakAtOnceHaveOneOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4)
		w.net.Delay = func(from, to int) time.Duration { return time.Duration(5+from+2*to) * time.Millisecond }
		w.start()
		var wg sync.WaitGroup
		for _, m := range w.members {
			for k := range 50 {
				wg.Go(func() { m.submit(fmt.Sprint(m.i, k)) })
			}
		}
		wg.Wait()
		if n := w.settled(0, 1, 2, 3); n < 4 {
			t.Errorf("%d events for 200 transactions of 4 members", n)
		}
	})
}

func TestLostMessagesAreFetched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4)
		w.net.Delay = func(int, int) time.Duration { return 10 * time.Millisecond }
		var mu sync.Mutex
		count := 0
		w.net.Pass = func(int, int, []byte) bool {
			mu.Lock()
			defer mu.Unlock()
			count++
			return count%3 != 0 // every third
		}
		w.start()
		for k := range 20 {
			w.members[k%4].submit(fmt.Sprint(k))
		}
		w.settled(0, 1, 2, 3)
	})
}
