package node

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/vmm"
)

// TestRestartAtAnyStepLeavesOneMachineThatRuns ends a side of a move at each step
// and starts it again, with its machines alive (QEMU's outlive the node) or lost.
func TestRestartAtAnyStepLeavesOneMachineThatRuns(t *testing.T) {
	for _, c := range []struct{ who, at string }{
		{"bob", "bob receive"},
		{"bob", "bob loaded"},
		{"bob", "bob resume"},
		{"alice", "alice outgoing"},
		{"alice", "alice finish"},
		{"alice", "bob resume"},
	} {
		for _, lost := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s at %s, machines lost %v", c.who, c.at, lost), func(t *testing.T) {
				t.Parallel()
				ctx := deadline(t)
				m := newMoving(ctx, t, brief, func(m *moving) {
					m.w.on(c.at, func() { m.site(c.who).stop() })
				})
				m.w.await(ctx, c.at, 1)
				s := m.site(c.who)
				m.end(s)
				if lost {
					s.driver.(*watchedDriver).kill(ctx)
				}
				m.start(s)
				<-m.ended
				<-s.node.reconciled
				at := m.comesToRun(ctx)
				checkRunsAt(ctx, t, at, "web1")
				// Nothing is in the way of what comes next.
				if err := at.node.RemoveMachine(ctx, "web1"); err != nil {
					t.Errorf("remove at %s: %v", at.name, err)
				}
				if dirs, _ := filepath.Glob(filepath.Join(at.dir, "machines", "*")); len(dirs) != 0 {
					t.Errorf("left behind at %s: %v", at.name, dirs)
				}
			})
		}
	}
}

func (o *overlay) site(name string) *site {
	for _, s := range o.sites {
		if s.name == name {
			return s
		}
	}
	return nil
}

// TestRestartWaitsForTheOrderExactlyWhenItMust crosses what a node remembers with
// what the ledger says. A machine must not run before the order has spoken when
// it may run elsewhere.
func TestRestartWaitsForTheOrderExactlyWhenItMust(t *testing.T) {
	const self, other = 1, 2
	copying := &ledger.Move{ID: 7, Machine: "m", Epoch: 1, From: self, To: other, Phase: ledger.Copying}
	away := &ledger.Move{ID: 7, Machine: "m", Epoch: 1, From: self, To: other, Phase: ledger.Released}
	coming := &ledger.Move{ID: 7, Machine: "m", Epoch: 1, From: other, To: self, Phase: ledger.Copying}
	arrived := &ledger.Move{ID: 7, Machine: "m", Epoch: 1, From: other, To: self, Phase: ledger.Released}
	at := func(owner ledger.MemberID, mv *ledger.Move) *ledger.Machine {
		return &ledger.Machine{Name: "m", Owner: owner, Epoch: 1, Move: mv, Spec: []byte(`{}`)}
	}
	n := &Node{self: self}
	for _, c := range []struct {
		step  step
		lm    *ledger.Machine
		waits bool
	}{
		{stepHere, at(self, nil), false},
		{stepHere, at(self, copying), false},    // Release was never submitted
		{stepHere, at(self, arrived), true},     // it ran, unconfirmed
		{stepHere, at(other, nil), false},       // reclaimed: discard
		{stepHere, nil, false},                  // removed: discard
		{stepReleased, at(self, nil), true},     // the drift of a Reclaim, perhaps
		{stepReleased, at(self, copying), true}, // Release may be on its way
		{stepReleased, at(other, away), true},
		{stepReleased, at(other, nil), false}, // confirmed: discard
		{stepArriving, at(other, coming), false},
		{stepArriving, at(self, arrived), true},
		{stepLoaded, at(other, coming), false}, // never ran here: discard
		{stepLoaded, at(self, arrived), true},
		{stepLoaded, at(other, nil), false},
	} {
		m := &machine{record: record{Spec: vmm.Spec{Name: "m"}, Step: c.step, Move: 7, Epoch: 1}}
		act, waits := n.resume(&leftover{record: m.record}, m, c.lm)
		if waits != c.waits || act == nil {
			t.Errorf("record %s, ledger %+v: waits %v", c.step, c.lm, waits)
		}
	}
}

// A Confirm from before the restart is ordered: the one of the restart is refused,
// and the machine is ours all the same.
func TestSecondConfirmDoesNotLoseTheMachine(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	m := newMoving(ctx, t, short, func(m *moving) {})
	if err := <-m.ended; err != nil {
		t.Fatal(err)
	}
	m.settle(ctx)
	st, err := m.bob.node.order.State(ctx)
	if err != nil {
		t.Fatal(err)
	}
	mv := *st.Machine("web1").Last
	if err := m.bob.node.obey(ctx, m.bob.node.local("web1"), mv, confirmation(mv)); err != nil {
		t.Errorf("obey: %v", err)
	}
	m.runsOnlyAt(ctx, t, m.bob)
}
