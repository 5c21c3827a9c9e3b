package ordertest_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
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

// city is members over the real overlay whose roster changes.
type city struct {
	t     *testing.T
	mesh  *gossiptest.Mesh
	first []consensus.Member // the founding roster
	all   []*resident

	mu   sync.Mutex
	at   map[uint64][32]byte // the state after so many events
	last time.Time           // when member 0 ordered something
	gap  time.Duration       // the longest between two such
}

// resident is a member of a city.
type resident struct {
	*city
	i     int
	dir   string
	keys  []ed25519.PrivateKey
	trust []consensus.Member
	home  *ordertest.Assembly
	loop  *order.Loop
	stop  func()
	ended chan error
}

func newCity(t *testing.T, founders, all int) *city {
	c := &city{t: t, mesh: gossiptest.New(t, all, gossiptest.Same(10*time.Millisecond), gossiptest.Options{}), at: map[uint64][32]byte{}}
	c.first = rosterOf(c.mesh, founders)
	for i := range all {
		c.all = append(c.all, &resident{city: c, i: i, dir: t.TempDir(), keys: []ed25519.PrivateKey{c.mesh.Key(i)}})
	}
	for _, r := range c.all[:founders] {
		r.start()
	}
	return c
}

func (r *resident) start() {
	r.t.Helper()
	r.home = &ordertest.Assembly{Roster: r.first}
	home := r.home
	home.Seen = func(ev consensus.Ordered) { r.seen(r.i, home, ev) }
	l, err := order.Open(order.Config{
		Network: testNetwork, Roster: r.first, Self: uint64(r.i + 1), Keys: r.keys, Trust: r.trust,
		Dir: r.dir, Machine: home, BootID: "boot",
		Peer: func(m uint64) peer.ID {
			if m == 0 || m > uint64(len(r.all)) {
				return ""
			}
			return r.mesh.ID(int(m) - 1)
		},
		Member: func(id peer.ID) uint64 { return uint64(r.mesh.Index(id) + 1) },
	})
	if err != nil {
		r.t.Fatal(err)
	}
	l.Join(ordertest.Events{Overlay: r.mesh.Overlay(r.i)})
	ctx, cancel := context.WithCancel(context.Background())
	ended, done := make(chan error, 1), make(chan struct{})
	go func() { defer close(done); ended <- l.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		<-done
		if err := l.Close(); err != nil {
			r.t.Errorf("member %d: %v", r.i, err)
		}
	})
	r.loop, r.stop, r.ended = l, stop, ended
	r.t.Cleanup(stop)
}

// restart stops a member and its host and starts them again.
func (r *resident) restart() {
	r.t.Helper()
	r.stop()
	r.mesh.Stop(r.i)
	r.mesh.Start(r.i)
	r.start()
}

func (c *city) seen(i int, a *ordertest.Assembly, ev consensus.Ordered) {
	root, now := a.Root(), time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if other, ok := c.at[a.Next]; ok && other != root {
		c.t.Errorf("member %d comes to another state after %d events", i, a.Next)
	}
	c.at[a.Next] = root
	if i == 0 && len(ev.Event.Payload) > 0 {
		if !c.last.IsZero() {
			c.gap = max(c.gap, now.Sub(c.last))
		}
		c.last = now
	}
}

func (r *resident) submit(tx []byte) order.Place {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	at, err := r.loop.Submit(ctx, tx)
	if err != nil {
		st, serr := r.loop.Status(r.t.Context())
		r.t.Fatalf("member %d: %q is not ordered: %v; %+v, %v", r.i, tx, err, st, serr)
	}
	return at
}

func (r *resident) status() order.Status {
	r.t.Helper()
	st, err := r.loop.Status(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return st
}

// Over the real overlay, five members: one is invited and joins, one leaves, one
// changes its key; one restarts while the changes are not in force. All that time the
// others order.
func TestRosterChangesOverTheOverlay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCity(t, 5, 6)
		seed := make([]byte, ed25519.SeedSize)
		key := ed25519.NewKeyFromSeed(seed)
		c.all[3].keys = append([]ed25519.PrivateKey{key}, c.all[3].keys...)
		c.all[3].restart()
		quiet := make(chan struct{})
		go func() {
			for k := 0; ; k++ {
				select {
				case <-quiet:
					return
				case <-time.After(25 * time.Millisecond):
					_ = c.all[0].loop.Enqueue(fmt.Appendf(nil, "load %d", k))
				}
			}
		}()
		time.Sleep(time.Second)

		c.all[0].submit(ordertest.Set(ordertest.Seat(6, c.mesh.Key(5))))
		c.all[1].submit(ordertest.Drop(5))
		from := c.all[2].submit(ordertest.Set(ordertest.Seat(4, key))).Round + consensus.ChangeDelay
		c.all[2].restart()
		c.all[5].trust = append(c.first[:3:3], ordertest.Seat(4, key))
		c.all[5].start()
		select {
		case err := <-c.all[5].ended:
			if !errors.Is(err, order.ErrRejoined) {
				t.Fatal(err)
			}
		case <-time.After(5 * time.Minute):
			t.Fatalf("it has not begun: %+v", c.all[5].status().Entering)
		}
		c.all[5].restart()
		for c.all[0].status().Pending <= from || c.all[4].status().Pending < from {
			time.Sleep(10 * time.Millisecond)
		}
		c.mesh.SetMembers(0, 1, 2, 3, 5)
		c.all[5].submit([]byte("the new one"))
		c.all[3].submit([]byte("the one with the new key"))
		if st := c.all[4].status(); !st.Left {
			t.Errorf("member 4 does not know that it has left: %+v", st)
		}
		close(quiet)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		want := c.all[0].status()
		for _, i := range []int{0, 1, 2, 3, 5} {
			if st := c.all[i].status(); st.Ordered != want.Ordered || len(st.Members) != 5 || len(st.Suspects) > 0 || st.Forks > 0 {
				t.Errorf("member %d has ordered %d events, member 0 %d; %d members, suspects %+v", i, st.Ordered, want.Ordered, len(st.Members), st.Suspects)
			}
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.gap > 5*time.Second {
			t.Errorf("nothing was ordered for %v", c.gap)
		}
		t.Logf("%d events; nothing was ordered for %v at most", want.Ordered, c.gap)
	})
}
