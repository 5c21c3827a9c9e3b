package node

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/node/order"
	"github.com/dcnode/dcnode/node/order/ordertest"
)

// orders are the replicas of a roster over a network of memory.
type orders struct {
	all     []*replica
	dirs    []string
	keys    []identity
	genesis Genesis
}

func newOrders(t *testing.T, count int) *orders {
	t.Helper()
	os := &orders{}
	var cards []Card
	var keys []identity
	for i := range count {
		key, _, err := newIdentity()
		if err != nil {
			t.Fatal(err)
		}
		c, err := Card{Site: fmt.Sprintf("dc%d", i), Weight: 1}.signed(key)
		if err != nil {
			t.Fatal(err)
		}
		cards = append(cards, c)
		keys = append(keys, identity{key: key})
	}
	g, err := NewGenesis(cards, time.Unix(1_800_000_000, 0))
	if err != nil {
		t.Fatal(err)
	}
	os.genesis, os.keys = g, keys
	var peers []peer.ID
	for _, c := range cards {
		peers = append(peers, c.Peer)
	}
	net := ordertest.NewNet(peers)
	for i, key := range keys {
		dir := t.TempDir()
		o, err := openReplica(Config{Dir: dir, Log: slog.New(slog.DiscardHandler)}, g, key, ledger.MemberID(i+1), nil, founders(g))
		if err != nil {
			t.Fatal(err)
		}
		o.loop.Join(net.Overlay(g.Members[i].Peer))
		t.Cleanup(func() { o.close() })
		os.all, os.dirs = append(os.all, o), append(os.dirs, dir)
	}
	return os
}

// founders are the members of a genesis as a directory.
type founders Genesis

func (f founders) peer(id ledger.MemberID) peer.ID {
	if id == 0 || int(id) > len(f.Members) {
		return ""
	}
	return f.Members[id-1].Peer
}

func (f founders) member(id peer.ID) ledger.MemberID { return Genesis(f).founder(id) }

// rootOf is the root of a state, or why it has none.
func rootOf(s *ledger.State) string {
	c, err := s.Root()
	if err != nil {
		return err.Error()
	}
	return c.String()
}

// run runs the loops until the test ends.
func (os *orders) run(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i, o := range os.all {
		wg.Go(func() {
			if err := o.loop.Run(ctx); err != nil {
				t.Errorf("order %d ended: %v", i, err)
			}
		})
	}
	t.Cleanup(func() { cancel(); wg.Wait() })
}

func TestMembersThatSpeakAtOnceComeToTheSameState(t *testing.T) {
	ctx := deadline(t)
	os3 := newOrders(t, 3)
	os3.run(t)
	// Every state that each of them goes through.
	roots := make([]map[uint64]string, len(os3.all))
	watched, stop := context.WithCancel(ctx)
	var watchers sync.WaitGroup
	for i, o := range os3.all {
		roots[i] = map[uint64]string{}
		watchers.Go(func() {
			_ = o.until(watched, func(s *ledger.State) bool { roots[i][s.Next()] = rootOf(s); return false })
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
		if err := o.until(ctx, func(s *ledger.State) bool { return len(s.Images()) == 20 }); err != nil {
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
	one.run(t)
	o := one.all[0]
	for k := range 5 {
		if _, err := o.Submit(ctx, &ledger.Publish{Name: fmt.Sprintf("image%d", k), Commit: "c"}); err != nil {
			t.Fatal(err)
		}
	}
	for range 700 { // past a checkpoint
		if _, err := o.Submit(ctx, &ledger.Tick{}); err != nil {
			t.Fatal(err)
		}
	}
	for st := (order.Status{}); st.Checkpoint == 0; { // it is written beside the loop
		var err error
		if st, err = o.loop.Status(ctx); err != nil {
			t.Fatal(err)
		}
	}
	var root string
	var next uint64
	dir := t.TempDir()
	if err := o.do(ctx, func() {
		root, next = rootOf(o.state), o.state.Next()
		if err := os.CopyFS(dir, os.DirFS(one.dirs[0])); err != nil {
			t.Error(err)
		}
	}); err != nil {
		t.Fatal(err)
	}
	again, err := openReplica(Config{Dir: dir, Log: slog.New(slog.DiscardHandler)}, one.genesis, one.keys[0], o.self, nil, founders(one.genesis))
	if err != nil {
		t.Fatal(err)
	}
	defer again.close()
	if read := again.tape.end() - again.tape.first; read == 0 || read > 500 {
		t.Errorf("%d of %d events were read again", read, next)
	}
	if again.state.Next() != next || rootOf(again.state) != root {
		t.Errorf("after %d events the state is %s, after a restart and %d it is %s", next, root, again.state.Next(), rootOf(again.state))
	}
}
