package node

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/node/api"
	"github.com/dcnode/dcnode/vmm/memvm"
)

// A member changes its key without anybody else doing anything; the node is another
// peer afterwards, and the old one a stranger.
func TestMemberChangesItsKey(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	o := newOverlay(t, 3)
	alice, bob := o.sites[0], o.sites[1]
	bob.driver = memvm.New(memvm.Config{})
	was := bob.identity(t)
	r, err := bob.node.RotateKey(ctx)
	if err != nil || r.Old != peerOf(publicOf(was.key)).String() || r.New == r.Old {
		t.Fatalf("%+v, %v", r, err)
	}
	o.rotated(ctx, bob, r.New)
	if alice.node.roster.allow(peerOf(publicOf(was.key))) {
		t.Error("the old key is let in all the same")
	}
	// Another start, with the founding roster that names the old key.
	o.end(bob)
	o.start(bob)
	o.speaks(ctx, bob)
	if got := bob.node.overlay.ID().String(); got != r.New {
		t.Errorf("after another start it is %s, want %s", got, r.New)
	}
	// And once more.
	if r, err = bob.node.RotateKey(ctx); err != nil {
		t.Fatal(err)
	}
	o.rotated(ctx, bob, r.New)
}

// A member that changes its key ends its moves first, both ways, and begins none until
// it has opened itself again.
func TestChangeOfKeyCutsNoMove(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	o := newOverlay(t, 4)
	alice, bob := o.sites[0], o.sites[1]
	bob.driver = memvm.New(memvm.Config{})
	o.image(ctx, alice, "os")
	o.run(ctx, alice, "web1", "os")
	var once sync.Once
	rotated := make(chan api.Rotated, 1)
	rep, err := alice.node.Migrate(ctx, api.Migrate{Name: "web1", To: "bob"}, func(api.Progress) {
		once.Do(func() { // it is asked for bids by now, or takes the machine already
			go func() {
				r, err := bob.node.RotateKey(ctx)
				if err != nil {
					t.Error(err)
				}
				rotated <- r
			}()
		})
	})
	if err != nil && !strings.Contains(err.Error(), "is about to open itself again") || err == nil && rep.Destination != "bob" {
		t.Errorf("%+v, %v", rep, err)
	}
	o.rotated(ctx, bob, (<-rotated).New)
	o.settle(ctx)
}

func TestNodeThatRestsBeginsNoMove(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	o := newOverlay(t, 3)
	alice, bob := o.sites[0], o.sites[1]
	o.image(ctx, alice, "os")
	o.run(ctx, alice, "web1", "os")
	if err := bob.node.rest(ctx); err != nil {
		t.Fatal(err)
	}
	for _, move := range []func() error{
		func() error {
			_, err := alice.node.Migrate(ctx, api.Migrate{Name: "web1", To: "bob"}, quiet)
			return err
		},
		func() error {
			_, err := bob.node.Migrate(ctx, api.Migrate{Name: "web1"}, quiet)
			return err
		},
	} {
		if err := move(); err == nil || !strings.Contains(err.Error(), "is about to open itself again with its new key: ask again") {
			t.Errorf("a move from it or to it: %v", err)
		}
	}
}

// rotated waits until a site has come to the end of a rotation, however often it opens
// itself again.
func (o *overlay) rotated(ctx context.Context, s *site, to string) {
	o.t.Helper()
	for {
		done := make(chan error, 1)
		watched, stop := context.WithCancel(ctx)
		go func() {
			done <- s.node.order.until(watched, func(st *ledger.State) bool {
				m := st.Member(s.node.self)
				return len(m.Old) == 0 && peerOf(m.Key).String() == to
			})
		}()
		select {
		case err := <-done:
			stop()
			if err == nil {
				break
			}
			select {
			case err := <-s.ended:
				s.ended <- err
				o.reopens(ctx, s)
			case <-ctx.Done():
				o.t.Fatalf("%s does not end its rotation: %v", s.name, err)
			}
			continue
		case err := <-s.ended:
			stop()
			s.ended <- err
			o.reopens(ctx, s)
			continue
		}
		break
	}
	for s.identityHeld(o.t) { // the old key goes last
		select {
		case <-ctx.Done():
			o.t.Fatalf("%s keeps its old key", s.name)
		case <-time.After(time.Millisecond):
		}
	}
	o.speaks(ctx, s)
	if got := s.node.overlay.ID().String(); got != to {
		o.t.Errorf("%s is peer %s, want %s", s.name, got, to)
	}
}

// identityHeld says whether a rotation has left its next key beside the old one.
func (s *site) identityHeld(t *testing.T) bool { return s.identity(t).next != nil }

// A crash between any two steps of a rotation is made good by the next start.
func TestRotationGoesOnAfterACrash(t *testing.T) {
	for _, c := range []struct {
		name string
		cut  func(ctx context.Context, t *testing.T, o *overlay, s *site)
	}{
		{"the key is made and nothing said", func(_ context.Context, t *testing.T, _ *overlay, s *site) {
			if err := s.node.makeNext(); err != nil {
				t.Fatal(err)
			}
		}},
		{"it is said and not in force", func(ctx context.Context, t *testing.T, _ *overlay, s *site) {
			if err := s.node.makeNext(); err != nil {
				t.Fatal(err)
			}
			if _, err := s.node.order.Submit(ctx, s.node.rotate()); err != nil {
				t.Fatal(err)
			}
		}},
		{"it is in force and the old key in use", func(ctx context.Context, t *testing.T, _ *overlay, s *site) {
			if err := s.node.makeNext(); err != nil {
				t.Fatal(err)
			}
			if _, err := s.node.order.Submit(ctx, s.node.rotate()); err != nil {
				t.Fatal(err)
			}
			for s.node.stageNow(ctx) == stageWait && ctx.Err() == nil {
				_ = pause(ctx, time.Millisecond)
			}
		}},
		{"the old key is forgotten and still here", func(ctx context.Context, t *testing.T, o *overlay, s *site) {
			was, err := os.ReadFile(filepath.Join(s.dir, identityFile))
			if err != nil {
				t.Fatal(err)
			}
			r, err := s.node.RotateKey(ctx)
			if err != nil {
				t.Fatal(err)
			}
			o.rotated(ctx, s, r.New)
			o.end(s)
			if err := os.Rename(filepath.Join(s.dir, identityFile), filepath.Join(s.dir, nextKeyFile)); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(s.dir, identityFile), was, 0o600); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ctx := deadline(t)
			o := newOverlay(t, 3)
			bob := o.sites[1]
			bob.driver = memvm.New(memvm.Config{})
			c.cut(ctx, t, o, bob)
			next := peerOf(publicOf(bob.identity(t).next)).String()
			o.end(bob)
			o.start(bob) // told where the others are: it may have ended before it knew any
			o.rotated(ctx, bob, next)
		})
	}
}
