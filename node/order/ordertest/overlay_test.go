package ordertest_test

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/dcnode/dcnode/consensus"
	"github.com/dcnode/dcnode/gossip/gossiptest"
	"github.com/dcnode/dcnode/node/order"
	"github.com/dcnode/dcnode/node/order/ordertest"
)

var testNetwork = consensus.Hash{9}

// site is an honest member: the real loop over the real overlay.
type site struct {
	loop    *order.Loop
	journal *ordertest.Journal
}

func rosterOf(mesh *gossiptest.Mesh, n int) []consensus.Member {
	var roster []consensus.Member
	for i := range n {
		roster = append(roster, consensus.Member{ID: uint64(i + 1), Key: mesh.Key(i).Public().(ed25519.PublicKey), Weight: 1})
	}
	return roster
}

// newSite starts the loop of member i; it ends with the test.
func newSite(t *testing.T, mesh *gossiptest.Mesh, roster []consensus.Member, i int, wg *sync.WaitGroup) *site {
	t.Helper()
	s := &site{journal: &ordertest.Journal{}}
	var err error
	s.loop, err = order.Open(order.Config{
		Network: testNetwork, Roster: roster, Self: uint64(i + 1), Keys: []ed25519.PrivateKey{mesh.Key(i)},
		Dir: t.TempDir(), Machine: s.journal, BootID: "boot",
		Peer: func(m uint64) peer.ID {
			if m == 0 || m > uint64(len(roster)) {
				return ""
			}
			return mesh.ID(int(m) - 1)
		},
		Member: func(id peer.ID) uint64 { return uint64(mesh.Index(id) + 1) },
	})
	if err != nil {
		t.Fatal(err)
	}
	s.loop.Join(ordertest.Events{Overlay: mesh.Overlay(i)})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	wg.Go(func() { ended <- s.loop.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("member %d ended: %v", i, err)
		}
		if err := s.loop.Close(); err != nil {
			t.Errorf("member %d: %v", i, err)
		}
	})
	return s
}

func (s *site) order(t *testing.T) (uint64, [32]byte) {
	t.Helper()
	var next uint64
	var chain [32]byte
	if err := s.loop.Do(t.Context(), func() { next, chain = s.journal.Next, s.journal.Chain }); err != nil {
		t.Fatal(err)
	}
	return next, chain
}

// With less than a third of the members lying in every way that a member can, over the
// real overlay, the others order on, agree, and name each liar with proof.
func TestOthersOrderOnAndNameTheLiars(t *testing.T) {
	for _, c := range []struct{ members, liars int }{{4, 1}, {7, 2}, {16, 5}} {
		t.Run(fmt.Sprintf("%d of %d", c.liars, c.members), func(t *testing.T) {
			if testing.Short() && c.members > 7 {
				t.Skip("short")
			}
			synctest.Test(t, func(t *testing.T) { amongLiars(t, c.members, c.liars) })
		})
	}
}

func amongLiars(t *testing.T, members, liars int) {
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	var mu sync.Mutex
	jitter := rand.New(rand.NewPCG(1, 2))
	delay := func(int, int) time.Duration {
		mu.Lock()
		defer mu.Unlock()
		return 5*time.Millisecond + time.Duration(jitter.Int64N(int64(time.Millisecond)))
	}
	mesh := gossiptest.New(t, members, delay, gossiptest.Options{})
	roster := rosterOf(mesh, members)
	var sites []*site
	for i := range members - liars {
		sites = append(sites, newSite(t, mesh, roster, i, &wg))
	}
	var bad []*liar
	for i := members - liars; i < members; i++ {
		l := newLiar(t, roster, i, mesh.Key(i), mesh.Overlay(i))
		l.goRun(t, &wg)
		bad = append(bad, l)
	}

	const rounds = 12
	for k := range rounds {
		s := sites[k%len(sites)]
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		if _, err := s.loop.Submit(ctx, fmt.Appendf(nil, "true %d", k)); err != nil {
			t.Fatalf("transaction %d: %v", k, err)
		}
		cancel()
		time.Sleep(100 * time.Millisecond)
	}
	time.Sleep(2 * time.Minute) // the last lies are told, and the safety nets have passed
	synctest.Wait()

	for _, l := range bad {
		for _, lie := range lies {
			if l.told[lie.name] == 0 {
				t.Errorf("no liar %s", lie.name)
			}
		}
	}
	next, chain := sites[0].order(t)
	for i, s := range sites {
		if n, c := s.order(t); n != next || c != chain {
			t.Errorf("member %d has ordered %d events, the first member %d, or others", i+1, n, next)
		}
		named(t, s, i, members, liars)
	}
	t.Logf("%d events ordered", next)
}

// named checks whom a member suspects.
func named(t *testing.T, s *site, i, members, liars int) {
	t.Helper()
	st, err := s.loop.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	proof := map[uint64]bool{}
	for _, sus := range st.Suspects {
		if sus.Member <= uint64(members-liars) {
			t.Errorf("member %d suspects honest member %d: %+v", i+1, sus.Member, sus)
		}
		if len(sus.Evidence) == 2 {
			proof[sus.Member] = true
		}
	}
	for m := uint64(members - liars + 1); m <= uint64(members); m++ {
		if !proof[m] {
			t.Errorf("member %d has no proof against liar %d, only %+v", i+1, m, st.Suspects)
		}
	}
}
