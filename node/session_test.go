package node

import (
	"context"
	"errors"
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

func TestWordsOfAnEarlierMoveAreNotOfThisOne(t *testing.T) {
	effects := make(chan ledger.Effect, 4)
	for _, e := range []ledger.Effect{
		{Kind: ledger.KindAbort, Move: ledger.Move{ID: 3}},
		{Kind: ledger.KindIntent, Move: ledger.Move{ID: 7}},
		{Kind: ledger.KindSelected, Move: ledger.Move{ID: 7, To: 2}},
	} {
		effects <- e
	}
	e, err := await(deadline(t), effects, 7, ledger.KindSelected, ledger.KindAbort)
	if err != nil || e.Kind != ledger.KindSelected || e.Move.To != 2 {
		t.Errorf("%+v, %v", e, err)
	}
}

// refusing is a driver that cannot make room for a machine.
type refusing struct{ vmm.Driver }

func (refusing) Receive(context.Context, vmm.Spec, vmm.Files) (vmm.Machine, vmm.Incoming, error) {
	return nil, nil, errBrittle
}

func TestMoveThatFailedCanBeTriedAgainAtOnce(t *testing.T) {
	ctx := deadline(t)
	o := newOverlay(t, 3)
	alice, bob := o.sites[0], o.sites[1]
	bob.node.cfg.Drivers = []vmm.Driver{refusing{memvm.New(memvm.Config{})}}
	o.image(ctx, alice, "os")
	o.run(ctx, alice, "web1", "os")
	for i := range 3 {
		_, err := alice.node.Migrate(ctx, api.Migrate{Name: "web1", To: "bob"}, quiet)
		if err == nil || !strings.Contains(err.Error(), errBrittle.Error()) && !strings.Contains(err.Error(), "is moving") {
			t.Errorf("try %d: %v", i, err)
		}
	}
	o.settle(ctx)
	checkRunsAt(ctx, t, alice, "web1")
}

func TestIntentThatNobodyCarriesIsAborted(t *testing.T) {
	ctx := deadline(t)
	o := newOverlay(t, 3)
	alice := o.sites[0]
	o.image(ctx, alice, "os")
	o.run(ctx, alice, "web1", "os")
	// As after a Migrate that gave up before the order moved again.
	v, err := alice.node.order.Submit(ctx, &ledger.Intent{Machine: "web1", Epoch: 1, Needs: alice.node.needs(ctx, alice.node.local("web1"))})
	if err != nil {
		t.Fatal(err)
	}
	if err := alice.node.order.until(ctx, func(s *ledger.State) bool {
		m := s.Machine("web1")
		return m.Move == nil && m.Last != nil && m.Last.ID == v.Place.Index
	}); err != nil {
		t.Fatalf("the move goes on for ever: %v", err)
	}
	// And so is one whose word a session has left unread.
	s := newOutgoing("web1", nil)
	alice.node.register(s)
	if v, err = alice.node.order.Submit(ctx, &ledger.Intent{Machine: "web1", Epoch: 1}); err != nil {
		t.Fatal(err)
	}
	alice.node.unregister(s)
	if err := alice.node.order.until(ctx, func(s *ledger.State) bool { return s.Machine("web1").Move == nil }); err != nil {
		t.Fatalf("the second move goes on for ever: %v", err)
	}
	checkRunsAt(ctx, t, alice, "web1")
}

func TestTwoMovesOfOneMachineDoNotMix(t *testing.T) {
	ctx := deadline(t)
	w := newWitness(t)
	o := newWatchedOverlay(t, 3, patient, w)
	alice := o.sites[0]
	o.image(ctx, alice, "os")
	o.run(ctx, alice, "web1", "os")
	errs := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := alice.node.Migrate(ctx, api.Migrate{Name: "web1", To: "bob"}, quiet)
			errs <- err
		}()
	}
	first, second := <-errs, <-errs
	if (first == nil) == (second == nil) {
		t.Errorf("one of two must go: %v, %v", first, second)
	}
	o.settle(ctx)
	checkRunsAt(ctx, t, o.site("bob"), "web1")
}

func TestMachineIsMadeThoughItsClientHasGone(t *testing.T) {
	ctx := deadline(t)
	w := newWitness(t)
	o := newWatchedOverlay(t, 3, patient, w)
	alice := o.sites[0]
	o.image(ctx, alice, "os")
	client, gone := context.WithCancel(ctx)
	_, err := alice.node.RunMachine(client, api.RunMachine{Name: "web1", Image: "os", Memory: 16 << 20, VCPUs: 1}, func(p api.Progress) {
		if p.Phase == "define" {
			gone()
		}
	})
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	w.await(ctx, "alice start", 1)
	// Whoever comes next finds it whole: the claim is free when it is.
	client, gone = context.WithCancel(ctx)
	gone()
	_ = alice.node.RemoveMachine(client, "web1") // says no, or goes on without its client
	if _, err := alice.node.StopMachine(ctx, "web1"); err == nil {
		if err := alice.node.RemoveMachine(ctx, "web1"); err != nil {
			t.Errorf("remove: %v", err)
		}
	}
	if err := alice.node.order.until(ctx, func(s *ledger.State) bool { return s.Machine("web1") == nil }); err != nil {
		t.Errorf("the machine stays in the ledger: %v", err)
	}
	w.await(ctx, "alice discard", 1)
	if at := w.running(ctx, "web1"); len(at) != 0 {
		t.Errorf("it runs at %v and is in no ledger", at)
	}
}

// unstartable is a driver whose machines do not start.
type unstartable struct{ vmm.Driver }

func (unstartable) Start(context.Context, vmm.Spec, vmm.Files) (vmm.Machine, error) {
	return nil, errBrittle
}

func TestMachineThatDoesNotStartIsNotLeftInTheLedger(t *testing.T) {
	ctx := deadline(t)
	o := newOverlay(t, 2)
	alice := o.sites[0]
	alice.node.cfg.Drivers = []vmm.Driver{unstartable{memvm.New(memvm.Config{})}}
	o.image(ctx, alice, "os")
	_, err := alice.node.RunMachine(ctx, api.RunMachine{Name: "web1", Image: "os", Memory: 16 << 20, VCPUs: 1}, quiet)
	if !errors.Is(err, errBrittle) {
		t.Fatalf("run: %v", err)
	}
	if err := alice.node.order.until(ctx, func(s *ledger.State) bool { return s.Machine("web1") == nil }); err != nil {
		t.Errorf("it stays in the ledger: %v", err)
	}
	if _, err := alice.node.RemoveImage(ctx, "os"); err != nil {
		t.Errorf("its image cannot be removed: %v", err)
	}
}

func TestMachineOfWhichNothingIsHereCanBeRemoved(t *testing.T) {
	ctx := deadline(t)
	o := newOverlay(t, 2)
	alice := o.sites[0]
	o.image(ctx, alice, "os")
	// As after a crash between its definition and its record.
	if _, err := alice.node.order.Submit(ctx, &ledger.Define{Name: "web1", Image: "os", Memory: 1 << 20, Spec: []byte(`{}`)}); err != nil {
		t.Fatal(err)
	}
	if _, err := alice.node.StartMachine(ctx, "web1"); err == nil || !strings.Contains(err.Error(), "dcnode vm rm") {
		t.Errorf("start: %v", err)
	}
	if err := o.sites[1].node.RemoveMachine(ctx, "web1"); err == nil {
		t.Error("another site removed it")
	}
	if err := alice.node.RemoveMachine(ctx, "web1"); err != nil {
		t.Errorf("remove: %v", err)
	}
}

func TestDamagedRecordDoesNotKeepTheNodeDown(t *testing.T) {
	ctx := deadline(t)
	o := newOverlay(t, 3)
	alice := o.sites[0]
	o.image(ctx, alice, "os")
	o.run(ctx, alice, "web1", "os")
	o.settle(ctx)
	o.end(alice)
	dir := filepath.Join(alice.dir, "machines", "broken")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "machine.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	o.start(alice)
	<-alice.node.reconciled
	checkRunsAt(ctx, t, alice, "web1")
}

// lateDriver finds no process before its gate is open.
type lateDriver struct {
	vmm.Driver
	gate chan struct{}
}

func (d lateDriver) Attach(ctx context.Context, s vmm.Spec, f vmm.Files) (vmm.Machine, error) {
	<-d.gate
	return d.Driver.Attach(ctx, s, f)
}

// An order that comes just after a start waits until the machine is found again.
func TestOrderWaitsForAMachineThatIsBeingTakenUp(t *testing.T) {
	ctx := deadline(t)
	o := newOverlay(t, 3)
	alice := o.sites[0]
	o.image(ctx, alice, "os")
	o.run(ctx, alice, "web1", "os")
	o.settle(ctx)
	o.end(alice)
	gate := make(chan struct{})
	alice.driver = lateDriver{memvm.New(memvm.Config{}), gate}
	o.start(alice)
	stopped := make(chan error, 1)
	go func() {
		_, err := alice.node.StopMachine(ctx, "web1")
		stopped <- err
	}()
	select {
	case err := <-stopped:
		t.Errorf("it does not wait: %v", err)
		stopped <- err
	case <-time.After(100 * time.Millisecond):
	}
	close(gate)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestOneActsOnAMachineAtATime(t *testing.T) {
	ctx := deadline(t)
	n := &Node{claims: map[string]*claim{}}
	free, err := n.claim(ctx, "web1", "is moving already")
	if err != nil {
		t.Fatal(err)
	}
	if _, other := n.tryClaim("web1", "is being stopped"); other == nil || other.what != "is moving already" {
		t.Errorf("the second has the claim too: %+v", other)
	}
	if f, other := n.tryClaim("web2", "is being stopped"); other != nil {
		t.Error("another machine is not free")
	} else {
		f()
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := n.claim(gone, "web1", "is being stopped"); !errors.Is(err, context.Canceled) {
		t.Errorf("one who has gone waits on: %v", err)
	}
	got := make(chan error, 1)
	go func() {
		f, err := n.claim(ctx, "web1", "is being stopped")
		if err == nil {
			f()
		}
		got <- err
	}()
	free()
	free() // twice is once
	if err := <-got; err != nil {
		t.Errorf("the claim is free and not taken: %v", err)
	}
}
