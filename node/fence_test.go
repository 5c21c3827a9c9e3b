package node

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/node/api"
	"github.com/dcnode/dcnode/vmm"
	"github.com/dcnode/dcnode/vmm/memvm"
)

// short is a lease that a test can wait for, and a quarter of which is enough for
// a machine to take over on a busy host.
var short = ledger.Rules{BidWindow: patient.BidWindow, Lease: 6e9}

// brief is one for tests that need no machine to take over in time.
var brief = ledger.Rules{BidWindow: patient.BidWindow, Lease: 3e9}

// deafen stops a node's order until the result is called, or the node ends: it
// neither speaks nor hears.
func (s *site) deafen() (hear func()) {
	n, gate, in := s.node, make(chan struct{}), make(chan struct{})
	go func() {
		_ = n.order.do(context.Background(), func() {
			close(in)
			select {
			case <-gate:
			case <-n.taskCtx.Done():
			}
		})
	}()
	<-in
	return func() { close(gate) }
}

// moving is a machine web1 at alice that is on its way to bob.
type moving struct {
	*overlay
	w          *witness
	alice, bob *site
	ended      chan error
}

// newMoving makes four sites and, when prepared, moves web1 from alice to bob.
func newMoving(ctx context.Context, t *testing.T, rules ledger.Rules, prepare func(*moving)) *moving {
	t.Helper()
	w := newWitness(t)
	m := &moving{overlay: newWatchedOverlay(t, 4, rules, w), w: w, ended: make(chan error, 1)}
	m.alice, m.bob = m.sites[0], m.sites[1]
	m.image(ctx, m.alice, "os")
	m.run(ctx, m.alice, "web1", "os")
	m.settle(ctx)
	prepare(m)
	go func(n *Node) {
		_, err := n.Migrate(ctx, api.Migrate{Name: "web1", To: "bob"}, quiet)
		m.ended <- err
	}(m.alice.node)
	return m
}

// comesToRun waits until the move has ended and the machine runs at its owner, alone.
func (m *moving) comesToRun(ctx context.Context) *site {
	m.t.Helper()
	m.settle(ctx)
	st, err := m.sites[2].node.order.State(ctx)
	if err != nil {
		m.t.Fatal(err)
	}
	owner := st.Site(st.Machine("web1").Owner)
	for {
		_, more := m.w.count("")
		at := m.w.running(ctx, "web1")
		if len(at) == 1 && at[0] == owner {
			break
		}
		select {
		case <-more:
		case <-ctx.Done():
			m.t.Fatalf("web1 belongs to %s and runs at %v: %+v", owner, at, m.w.log)
		}
	}
	for _, s := range m.sites {
		if s.name == owner {
			return s
		}
	}
	return nil
}

// runsOnlyAt checks that all sites agree on the owner and that it alone runs the machine.
func (m *moving) runsOnlyAt(ctx context.Context, t *testing.T, s *site) {
	t.Helper()
	m.settle(ctx)
	if st, err := s.node.order.State(ctx); err != nil || st.Site(st.Machine("web1").Owner) != s.name {
		t.Errorf("the owner is not %s: %+v, %v", s.name, st.Machine("web1"), err)
	}
	checkRunsAt(ctx, t, s, "web1")
	if at := m.w.running(ctx, "web1"); len(at) != 1 || at[0] != s.name {
		t.Errorf("web1 runs at %v, not at %s alone", at, s.name)
	}
}

func TestUnconfirmedMachineStandsStillUntilItIsConfirmed(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	hear := make(chan func(), 1)
	began := make(chan time.Time, 1)
	m := newMoving(ctx, t, short, func(m *moving) {
		m.w.on("bob resume", func() { began <- time.Now(); hear <- m.bob.deafen() })
	})
	m.w.await(ctx, "bob pause", 1)
	// It pauses after half the lease, and a busy host may be late: the source waits for
	// the whole of it.
	if d := time.Since(<-began); d > time.Duration(short.Lease)*3/4 {
		t.Errorf("it ran for %v without a confirmation: the lease is %v", d, time.Duration(short.Lease))
	}
	(<-hear)()
	if err := <-m.ended; err != nil {
		t.Errorf("migrate: %v", err)
	}
	m.w.await(ctx, "bob resume", 2)
	m.runsOnlyAt(ctx, t, m.bob)
}

func TestUnconfirmedMachineIsDroppedWhenItIsReclaimed(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	hear := make(chan func(), 1)
	m := newMoving(ctx, t, short, func(m *moving) {
		m.w.on("bob resume", func() { hear <- m.bob.deafen() })
	})
	m.w.await(ctx, "bob pause", 1)
	if err := <-m.ended; err == nil || !strings.Contains(err.Error(), "runs again at alice") {
		t.Errorf("migrate: %v", err)
	}
	(<-hear)()
	m.w.await(ctx, "bob discard", 1)
	m.runsOnlyAt(ctx, t, m.alice)
}

// A release that is heard of late may have been reclaimed already.
func TestMachineOfAnOldReleaseWaitsForItsConfirmation(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what  string
		rules ledger.Rules
		until func(context.Context, *moving) // what bob waits for before it says that all has arrived
		at    func(*moving) *site
	}{
		{"reclaimed meanwhile", brief, func(_ context.Context, m *moving) { <-m.ended }, func(m *moving) *site { return m.alice }},
		{"almost half the lease is over", short, func(ctx context.Context, _ *moving) {
			timer := time.NewTimer(time.Duration(short.Lease) * 2 / 5)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-ctx.Done():
			}
		}, func(m *moving) *site { return m.bob }},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			ctx := deadline(t)
			m := newMoving(ctx, t, c.rules, func(m *moving) {
				m.w.on("bob loaded", func() { c.until(ctx, m) })
			})
			m.w.await(ctx, "bob loaded", 1)
			if c.at(m) == m.alice {
				m.w.await(ctx, "bob discard", 1)
				if n, _ := m.w.count("bob resume"); n != 0 {
					t.Error("it ran at bob")
				}
			} else {
				m.w.await(ctx, "bob resume", 1)
				st, err := m.bob.node.order.State(ctx)
				if lm := st.Machine("web1"); err != nil || lm.Move != nil || lm.Last.Phase != ledger.Done {
					t.Errorf("it runs at bob before it is confirmed: %+v, %v", lm, err)
				}
			}
			m.runsOnlyAt(ctx, t, c.at(m))
		})
	}
}

func TestDestinationThatDiesAfterReleaseLosesTheMachineToTheSource(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	m := newMoving(ctx, t, brief, func(m *moving) {
		m.w.on("bob loaded", func() { // Release is said, Confirm not yet
			m.bob.driver.(*watchedDriver).kill(ctx)
			m.bob.deafen()
			m.bob.stop()
		})
	})
	m.w.await(ctx, "bob loaded", 1)
	m.end(m.bob)
	if err := <-m.ended; err == nil || !strings.Contains(err.Error(), "runs again at alice") {
		t.Errorf("migrate: %v", err)
	}
	st, err := m.alice.node.order.State(ctx)
	if err != nil || st.Machine("web1").Last.Phase != ledger.Reclaimed {
		t.Errorf("state: %+v, %v", st.Machine("web1"), err)
	}
	if at := m.w.running(ctx, "web1"); len(at) != 1 || at[0] != "alice" {
		t.Errorf("web1 runs at %v", at)
	}
	checkRunsAt(ctx, t, m.alice, "web1")
}

// A machine that outlives its node must not run unconfirmed when the node ends.
func TestNodeThatEndsPausesWhatIsUnconfirmed(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	m := newMoving(ctx, t, short, func(m *moving) {
		m.w.on("bob resume", func() {
			hear := m.bob.deafen()
			m.bob.stop()
			hear()
		})
	})
	m.w.await(ctx, "bob pause", 1)
	m.end(m.bob)
	if at := m.w.running(ctx, "web1"); len(at) != 0 {
		t.Errorf("web1 runs at %v while nobody is there to stop it", at)
	}
	m.start(m.bob) // in time: what is there is confirmed and goes on
	if err := <-m.ended; err != nil {
		t.Errorf("migrate: %v", err)
	}
	m.w.await(ctx, "bob resume", 2)
	m.runsOnlyAt(ctx, t, m.bob)
}

// What cannot be saved is not said: the machine is still alice's.
func TestReleaseThatCannotBeSavedIsNotSaid(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	m := newMoving(ctx, t, patient, func(m *moving) {
		m.w.on("alice outgoing", func() { // no file can take a directory's place
			path := m.alice.node.recordPath("web1")
			err := errors.Join(os.Remove(path), os.MkdirAll(path+"/x", 0o700))
			if err != nil {
				t.Error(err)
			}
		})
	})
	if err := <-m.ended; err == nil || !strings.Contains(err.Error(), "could not be prepared") || !strings.Contains(err.Error(), "runs again at alice") {
		t.Errorf("migrate: %v", err)
	}
	m.runsOnlyAt(ctx, t, m.alice)
}

// What the source says of hours may be too much by what its clock runs ahead of ours, and
// the fence is not to be later for it.
func TestFenceAfterALongCopyAllowsForBothClocks(t *testing.T) {
	const copied = 3 * time.Hour
	n := &Node{rules: ledger.Rules{Lease: ledger.Time(15 * time.Second)}}
	in := &incoming{ready: time.Now().Add(-copied - time.Minute)} // it hears of the release late
	said := copied + copied/2000                                  // by a clock that is 500 ppm fast
	at := n.fenceAt(in, ledger.Move{After: ledger.Time(said)})
	if latest := in.ready.Add(copied + time.Duration(n.rules.Lease)/2); at.After(latest) {
		t.Errorf("the fence is %v later than half a lease after the release", at.Sub(latest))
	}
}

// The record of a machine may not be writable just then: it is confirmed all the same.
func TestConfirmedMachineRunsThoughThatCannotBeSaved(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	hear := make(chan func(), 1)
	m := newMoving(ctx, t, short, func(m *moving) {
		m.w.on("bob resume", func() {
			hear <- m.bob.deafen()
			path := m.bob.node.recordPath("web1") // no file can take a directory's place
			if err := errors.Join(os.Remove(path), os.MkdirAll(path+"/x", 0o700)); err != nil {
				t.Error(err)
			}
		})
	})
	m.w.await(ctx, "bob pause", 1)
	(<-hear)()
	if err := <-m.ended; err != nil {
		t.Errorf("migrate: %v", err)
	}
	m.w.await(ctx, "bob resume", 2)
	m.runsOnlyAt(ctx, t, m.bob)
}

// clumsy is a driver that fails to lift a fence so often, and when nobody waits for it.
type clumsy struct {
	vmm.Driver
	fails int
}

func (d *clumsy) Lift(ctx context.Context, _ vmm.Spec, _ vmm.Files) error {
	if d.fails--; d.fails >= 0 {
		return errors.New("the guard does not answer")
	}
	return ctx.Err()
}

// A fence that is left would stop a machine that is confirmed, with the node or without.
func TestFenceOfAConfirmedMachineIsLiftedThoughTheNodeEnds(t *testing.T) {
	ended, end := context.WithCancel(t.Context())
	end()
	n := &Node{taskCtx: ended, log: slog.New(slog.DiscardHandler)}
	if err := n.lift(&machine{driver: &clumsy{fails: 2}}); err != nil {
		t.Error(err)
	}
}

// fallen is a driver whose machine was stopped by its guard.
type fallen struct {
	vmm.Driver
	lifted chan struct{}
}

func (d fallen) Attach(ctx context.Context, s vmm.Spec, f vmm.Files) (vmm.Machine, error) {
	select {
	case <-d.lifted:
		return d.Driver.Attach(ctx, s, f)
	default:
		return nil, vmm.ErrFenced
	}
}

func (d fallen) Lift(context.Context, vmm.Spec, vmm.Files) error {
	close(d.lifted)
	return nil
}

// Its process lives and needs its image no more than one that goes on.
func TestFencedMachineIsLiftedThoughItsImageIsNotThere(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	o := newOverlay(t, 3)
	alice := o.sites[0]
	o.image(ctx, alice, "os")
	o.run(ctx, alice, "web1", "os")
	o.settle(ctx)
	o.end(alice)
	images := filepath.Join(alice.dir, "images")
	if err := errors.Join(os.RemoveAll(images), os.WriteFile(images, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	d := fallen{memvm.New(memvm.Config{}), make(chan struct{})}
	alice.driver = d
	o.start(alice)
	select {
	case <-d.lifted:
	case <-ctx.Done():
		t.Error("it stands still for ever")
	}
}

// Who confirms a machine makes the source remove it. If a power cut took the history in
// which it was released to this node, the node would take it for a leftover after that.
func TestNobodyConfirmsWhatItCouldForget(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	n := newOverlay(t, 3).sites[0].node
	m := &machine{record: record{Spec: vmm.Spec{Name: "web1"}}, driver: memvm.New(memvm.Config{})}
	if err := os.MkdirAll(n.recordPath("web1")+"/x", 0o700); err != nil { // no file can take its place
		t.Fatal(err)
	}
	in := newIncoming(ledger.Move{ID: 1, Machine: "web1", Epoch: 1})
	in.ready = time.Now().Add(-time.Hour)
	err := n.run(ctx, in, m, in.mv)
	if err == nil || strings.Contains(err.Error(), "is not ours") { // what the order answers who asks it
		t.Errorf("it says that it runs the machine: %v", err)
	}
}
