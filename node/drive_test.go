package node

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/dcnode/dcnode/consensus"
	"github.com/dcnode/dcnode/consensus/ledger"
)

// orders are the ordering loops of a roster, without a network: what one
// publishes the others receive.
type orders struct {
	all   []*order
	paths []string
	inbox []chan []byte
}

func newOrders(t *testing.T, count int) *orders {
	t.Helper()
	os := &orders{}
	var cards []Card
	var keys []ed25519.PrivateKey
	for i := range count {
		key, _, err := crypto.GenerateEd25519Key(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		id, err := peer.IDFromPrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := key.Raw()
		if err != nil {
			t.Fatal(err)
		}
		cards = append(cards, Card{Peer: id, Site: fmt.Sprintf("dc%d", i), Weight: 1})
		keys = append(keys, raw)
	}
	g, err := NewGenesis(cards, time.Unix(1_800_000_000, 0))
	if err != nil {
		t.Fatal(err)
	}
	for i, key := range keys {
		path := filepath.Join(t.TempDir(), "events.log")
		o, err := openOrder(path, g, key, ledger.MemberID(i+1), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { o.log.close() })
		os.all, os.paths, os.inbox = append(os.all, o), append(os.paths, path), append(os.inbox, make(chan []byte, 1<<16))
	}
	return os
}

// run runs the loops until the test ends. seen is called for each event before it
// is published, with the number of its author.
func (os *orders) run(t *testing.T, seen func(author int, event []byte)) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i, o := range os.all {
		o.publish = func(event []byte) {
			seen(i, event)
			for k, to := range os.inbox {
				if k != i {
					to <- event
				}
			}
		}
		wg.Go(func() {
			if err := o.run(ctx, os.inbox[i]); err != nil {
				t.Errorf("order %d ended: %v", i, err)
			}
		})
	}
	t.Cleanup(func() { cancel(); wg.Wait() })
}

func TestOwnEventIsInTheLogBeforeAnyoneSeesIt(t *testing.T) {
	ctx := deadline(t)
	os3 := newOrders(t, 3)
	var mu sync.Mutex
	seen := 0
	os3.run(t, func(author int, event []byte) {
		log, err := os.ReadFile(os3.paths[author])
		if err != nil || !bytes.Contains(log, event) {
			t.Errorf("an event of %d bytes is published and not in the log: %v", len(event), err)
		}
		mu.Lock()
		defer mu.Unlock()
		seen++
	})
	if _, err := os3.all[0].Submit(ctx, &ledger.Publish{Name: "os", Commit: "c"}); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if seen == 0 {
		t.Error("nothing was published")
	}
}

func TestMembersThatSpeakAtOnceComeToTheSameState(t *testing.T) {
	ctx := deadline(t)
	os3 := newOrders(t, 3)
	os3.run(t, func(int, []byte) {})
	// Every state that each of them goes through.
	roots := make([]map[uint64]string, len(os3.all))
	watched, stop := context.WithCancel(ctx)
	var watchers sync.WaitGroup
	for i, o := range os3.all {
		roots[i] = map[uint64]string{}
		watchers.Go(func() {
			_ = o.until(watched, func(s *ledger.State) bool { roots[i][s.Next] = s.Root(); return false })
		})
	}
	var wg sync.WaitGroup
	refused := make(chan error, 60)
	for i, o := range os3.all {
		for k := range 20 {
			wg.Go(func() { // every name is wanted by all three: one gets it
				if _, err := o.Submit(ctx, &ledger.Publish{Name: fmt.Sprintf("image%d", k), Commit: fmt.Sprint(i)}); err != nil {
					refused <- err
				}
			})
		}
	}
	wg.Wait()
	if len(refused) != 40 {
		t.Errorf("%d of 60 were refused, not 40", len(refused))
	}
	for i, o := range os3.all {
		if err := o.until(ctx, func(s *ledger.State) bool { return len(s.Images) == 20 }); err != nil {
			t.Errorf("member %d: %v", i, err)
		}
	}
	stop()
	watchers.Wait()
	for _, o := range os3.all { // nothing is being recorded any more
		if err := o.do(ctx, func() {}); err != nil {
			t.Fatal(err)
		}
	}
	common := 0
	for next, root := range roots[0] {
		for i := range roots {
			if other, ok := roots[i][next]; ok && other != root {
				t.Errorf("after %d events members 0 and %d have different states", next, i)
			} else if ok && i > 0 && next > 0 {
				common++
			}
		}
	}
	if common < 2 {
		t.Error("there was nothing to compare")
	}
}

// A log that is read again comes to the same state, and does nothing.
func TestRestartComesToTheSameStateInSilence(t *testing.T) {
	ctx := deadline(t)
	one := newOrders(t, 1)
	one.run(t, func(int, []byte) {})
	o := one.all[0]
	for k := range 5 {
		if _, err := o.Submit(ctx, &ledger.Publish{Name: fmt.Sprintf("image%d", k), Commit: "c"}); err != nil {
			t.Fatal(err)
		}
	}
	var root string
	var next uint64
	path := filepath.Join(t.TempDir(), "copy.log")
	if err := o.do(ctx, func() {
		root, next = o.state.Root(), o.state.Next
		log, err := os.ReadFile(one.paths[0])
		if err == nil {
			err = os.WriteFile(path, log, 0o600)
		}
		if err != nil {
			t.Error(err)
		}
	}); err != nil {
		t.Fatal(err)
	}
	again, err := openOrder(path, o.genesis, o.key, o.self, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer again.log.close()
	if again.state.Next != next || again.state.Root() != root {
		t.Errorf("after %d events the state is %s, after a restart and %d it is %s", next, root, again.state.Next, again.state.Root())
	}
	if len(again.pool) != 0 || len(again.flying) != 0 {
		t.Errorf("a restart wants to say %d and %d transactions again", len(again.pool), len(again.flying))
	}
}

// What an event said that can never be ordered is said again, and whoever waits
// for it goes on waiting.
func TestTransactionsOfAStaleEventGoBackIntoThePool(t *testing.T) {
	o := newOrders(t, 3).all[0]
	done := make(chan Verdict, 1)
	if err := o.submit(&ledger.Tick{}, done); err != nil {
		t.Fatal(err)
	}
	raw := o.load()
	if len(raw) != 1 || len(o.pool) != 0 || len(o.flying) != 1 {
		t.Fatalf("%d loaded, %d wait, %d fly", len(raw), len(o.pool), len(o.flying))
	}
	before, err := ledger.Encode(ledger.Tx{ID: "before-the-restart", Body: &ledger.Tick{}})
	if err != nil {
		t.Fatal(err)
	}
	o.retract([]*consensus.Event{{Creator: 1, Payload: [][]byte{raw[0], before, []byte("noise")}}})
	if len(o.flying) != 0 || len(o.pool) != 2 {
		t.Fatalf("%d fly, %d wait", len(o.flying), len(o.pool))
	}
	if o.pool[0].done != done || !bytes.Equal(o.pool[0].raw, raw[0]) || o.pool[1].id != "before-the-restart" {
		t.Errorf("the pool holds %+v and %+v", o.pool[0], o.pool[1])
	}
	if again := o.load(); len(again) != 2 {
		t.Errorf("%d are said again", len(again))
	}
}
