package node

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/node/api"
)

// calling is a machine web1 at alice, the moves of which to bob are called off.
type calling struct {
	*overlay
	scissors
	t          *testing.T
	alice, bob *site
	ended      chan error // of CancelMove
}

func newCalling(ctx context.Context, t *testing.T) *calling {
	o, s := newCutOverlay(t, 4)
	c := &calling{o, s, t, o.sites[0], o.sites[1], make(chan error, 1)}
	o.image(ctx, c.alice, "os")
	o.run(ctx, c.alice, "web1", "os")
	o.settle(ctx)
	return c
}

// cancel calls the move off and waits until the order has ended it.
func (c *calling) cancel(ctx context.Context) {
	go func() {
		x, err := c.alice.node.CancelMove(ctx, "web1")
		if want := (api.Cancelled{Machine: "web1", Site: "alice", To: "bob", Move: x.Move, Reason: "cancelled by alice"}); err == nil && (x != want || x.Move == 0) {
			c.t.Errorf("cancelled: %+v", x)
		}
		c.ended <- err
	}()
	if err := c.alice.node.order.until(ctx, func(s *ledger.State) bool { return s.Machine("web1").Move == nil }); err != nil {
		c.t.Errorf("the move goes on: %v", err)
	}
}

// carrier is the session of the move at alice.
func (c *calling) carrier() *outgoing {
	c.alice.node.mu.Lock()
	defer c.alice.node.mu.Unlock()
	return c.alice.node.outs["web1"]
}

// isOff checks that nothing is left of a move that ended with that error.
func (c *calling) isOff(ctx context.Context, step string, err error) {
	c.t.Helper()
	if err == nil || !strings.Contains(err.Error(), "cancelled by alice") {
		c.t.Fatalf("%s: migrate: %v", step, err)
	}
	c.settle(ctx)
	checkRunsAt(ctx, c.t, c.alice, "web1")
	s, err := c.alice.node.order.State(ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	if l := s.Machine("web1").Last; l == nil || l.Phase != ledger.Aborted || l.Reason != "cancelled by alice" {
		c.t.Errorf("%s: the ledger has %+v", step, l)
	}
	c.bob.node.mu.Lock()
	arrival := c.bob.node.claims["web1"]
	c.bob.node.mu.Unlock()
	if err := c.bob.node.endOfTask(ctx, "web1", arrival); err != nil {
		c.t.Errorf("%s: bob: %v", step, err)
	}
	if c.bob.node.local("web1") != nil {
		c.t.Errorf("%s: bob keeps what has arrived", step)
	}
}

func TestMoveIsCalledOffInEveryStep(t *testing.T) {
	ctx := deadline(t)
	c := newCalling(ctx, t)
	var bidding, image sync.Once
	migrate := func(step string, tell api.Tell) {
		t.Helper()
		_, err := c.alice.node.Migrate(ctx, api.Migrate{Name: "web1", To: "bob"}, tell)
		c.isOff(ctx, step, err)
		if err := <-c.ended; err != nil {
			t.Errorf("%s: cancel: %v", step, err)
		}
	}

	hear := c.bob.deafen() // it does not bid
	migrate("bidding", func(api.Progress) {
		go bidding.Do(func() {
			c.alice.awaitPhase(ctx, t, "web1", ledger.Bidding)
			c.cancel(ctx)
			hear()
		})
	})
	migrate("image", func(p api.Progress) {
		if p.Phase == "image" {
			image.Do(func() { c.cancel(ctx) })
		}
	})
	for _, step := range []string{"disk", "memory", "paused"} {
		c.on(step, func() { c.cancel(ctx) })
		migrate(step, quiet)
	}
	s, err := c.alice.node.order.State(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if r := s.BySite("bob").Record; r.Broken != 0 {
		t.Errorf("it was not bob that broke its word: %+v", r)
	}
	// Called off between the pause and the release, which is not said then.
	c.on("paused", func() {
		c.carrier().callOff(&cancelledError{"alice"})
		go c.cancel(ctx)
	})
	_, err = c.alice.node.Migrate(ctx, api.Migrate{Name: "web1", To: "bob"}, quiet)
	if err == nil || !strings.Contains(err.Error(), "cancelled by alice") {
		t.Errorf("migrate: %v", err)
	}
	if err := <-c.ended; err != nil && !strings.Contains(err.Error(), "there is no move") { // bob may be first to end it
		t.Errorf("cancel: %v", err)
	}
	c.settle(ctx)
	checkRunsAt(ctx, t, c.alice, "web1")
}

// TestMoveIsCalledOffThoughNothingIsOrdered: the transfer ends and the machine runs on; what
// was said is ordered once the others are back.
func TestMoveIsCalledOffThoughNothingIsOrdered(t *testing.T) {
	ctx := deadline(t)
	c := newCalling(ctx, t)
	var hear []func()
	c.on("memory", func() {
		for _, s := range c.sites[2:] {
			hear = append(hear, s.deafen())
		}
		s, err := c.alice.node.order.State(ctx)
		if err != nil {
			t.Error(err)
			return
		}
		impatient, cancel := context.WithCancel(ctx)
		o, off := c.carrier(), &cancelledError{"alice"}
		if !o.callOff(off) {
			t.Error("its release was said")
		}
		go func() { // who has waited long enough
			for range 3 {
				_ = c.alice.node.order.do(ctx, func() {})
			}
			cancel()
		}()
		if err := c.alice.node.orderCancel(impatient, o, s.Machine("web1").Move, off); err == nil || !strings.Contains(err.Error(), "runs on at alice") {
			t.Errorf("cancel: %v", err)
		}
	})
	_, err := c.alice.node.Migrate(ctx, api.Migrate{Name: "web1", To: "bob"}, quiet)
	checkRunsAt(ctx, t, c.alice, "web1")
	for _, f := range hear {
		f()
	}
	c.isOff(ctx, "memory", err)
}

func TestMoveIsCalledOffBeforeItsIntentIsOrdered(t *testing.T) {
	ctx := deadline(t)
	c := newCalling(ctx, t)
	hearCarol, hearDave := c.sites[2].deafen(), c.sites[3].deafen()
	_, err := c.alice.node.Migrate(ctx, api.Migrate{Name: "web1", To: "bob"}, func(p api.Progress) {
		if o := c.carrier(); p.Phase == "bidding" && o.calledOff() == nil {
			if !o.callOff(&cancelledError{"alice"}) {
				t.Error("its release was said")
			}
			hearCarol()
			hearDave()
		}
	})
	c.isOff(ctx, "before bidding", err)
}

func TestOnlyWhatIsNotReleasedIsCalledOffWhereItIs(t *testing.T) {
	ctx := deadline(t)
	c := newCalling(ctx, t)
	refused := func(s *site, want string) {
		t.Helper()
		if _, err := s.node.CancelMove(ctx, "web1"); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("at %s: %v, want %s", s.name, err, want)
		}
	}
	refused(c.alice, "machine web1 does not move: there is nothing to cancel")
	refused(c.bob, "machine web1 is at alice: give the order there")
	c.on("memory", func() { refused(c.bob, "machine web1 is moved by alice: give the order there") })
	c.on("finish", func() { refused(c.alice, "machine web1 cannot be called back") })
	c.on("loaded", func() {
		c.alice.awaitPhase(ctx, t, "web1", ledger.Released)
		refused(c.alice, "machine web1 cannot be called back, only the order decides now: web1 is released to bob, epoch 2, and waits for bob to confirm")
	})
	if _, err := c.alice.node.Migrate(ctx, api.Migrate{Name: "web1", To: "bob"}, quiet); err != nil {
		t.Fatal(err)
	}
	c.settle(ctx)
	checkRunsAt(ctx, t, c.bob, "web1")
}
