package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/vmm"
)

// apart is the part by which the clocks of two hosts may run differently for hours:
// one in so many. The kernel corrects a clock by 500 ppm at most.
const apart = 1000

// fenceAt is when an unconfirmed machine must stand still here: half a lease after
// its release, by this node's monotonic clock. The release cannot be older than
// this node's ready and what the source says has passed since, whenever it is
// that this node hears of it; but the source has said so by its own clock (ADR 8).
func (n *Node) fenceAt(in *incoming, mv ledger.Move) time.Time {
	half := time.Duration(n.rules.Lease) / 2
	after := time.Duration(mv.After)
	at, latest := in.ready.Add(after-after/apart+half), time.Now().Add(half)
	if at.After(latest) {
		return latest
	}
	return at
}

// run runs a machine that is loaded and released, behind a fence, and confirms it. When there is
// too little time left to confirm it within half a lease it does so the other way
// round: another may run it soon.
func (n *Node) run(ctx context.Context, in *incoming, m *machine, mv ledger.Move) error {
	fence := n.fenceAt(in, mv)
	if time.Until(fence) < time.Duration(n.rules.Lease)/4 {
		n.log.Warn("the release is old: the machine waits for its confirmation", "machine", m.Spec.Name)
		// With it the release is durable: after a power cut a machine that the history does
		// not give to this node is a leftover, and the source has removed its own by then.
		if err := n.mark(m, stepLoaded, mv.ID, mv.Epoch+1); err != nil {
			return n.giveBack(in, m, err)
		}
		return n.obey(ctx, m, mv, confirmation(mv))
	}
	if err := n.mark(m, stepHere, mv.ID, mv.Epoch+1); err != nil {
		return n.giveBack(in, m, err)
	}
	// Should this node not be there any more by then; and not before it has paused the
	// machine in good order, if it is.
	if err := n.process(m).Fence(ctx, fence.Add(n.drift())); err != nil {
		return n.giveBack(in, m, err)
	}
	half, cancel := context.WithDeadline(ctx, fence)
	defer cancel()
	if err := n.process(m).Resume(half); err != nil {
		return n.giveBack(in, m, fmt.Errorf("run it: %w", err))
	}
	return n.confirm(ctx, half, m, mv)
}

// giveBack declines a machine that could not be run. It must not run any more when
// the order hears so: the source runs it then.
func (n *Node) giveBack(in *incoming, m *machine, cause error) error {
	ctx, cancel := n.lastly()
	defer cancel()
	n.deafen(in)
	if err := n.stopAtOnce(ctx, m); err != nil {
		return errors.Join(cause, err) // not declined: the source waits for the lease
	}
	n.decline(in, cause)
	return errors.Join(cause, n.discard(ctx, m))
}

// confirm tells the order that the machine runs here. If that is not ordered when
// half ends the machine is paused: after a whole lease the source may run it again.
func (n *Node) confirm(ctx, half context.Context, m *machine, mv ledger.Move) error {
	_, err := n.order.Submit(half, confirmation(mv))
	var refused *ledger.RefusedError
	switch {
	case err == nil:
		n.log.Info("machine runs here", "machine", m.Spec.Name, "epoch", mv.Epoch+1)
		return n.lift(m)
	case errors.As(err, &refused):
		return n.lose(m, err)
	}
	last, done := n.lastly() // also when the node ends: the machine may outlive it
	defer done()
	if err := n.hold(last, m); err != nil {
		return err
	}
	n.log.Warn("machine paused: the order does not confirm it", "machine", m.Spec.Name, "away", n.whoIsAway())
	return n.obey(ctx, m, mv, confirmation(mv))
}

// lift takes the fence of a machine away that the order has confirmed. It stops a machine
// that may run if it is left, also when the node ends, which the machine outlives; so it
// is tried again, for a while.
func (n *Node) lift(m *machine) error {
	ctx, cancel := n.lastly()
	defer cancel()
	for {
		err := m.driver.Lift(ctx, m.Spec, m.files)
		if err == nil || pause(ctx, lookAgain) != nil {
			return err
		}
		n.log.Warn("lift the fence of a machine that is confirmed", "machine", m.Spec.Name, "cause", err)
	}
}

// obey ends a handover that has taken long, or that a restart has cut at the
// destination: this node says what it would like, Confirm or Decline, and the
// machine stands still until the order says whose it is. An earlier Confirm may be
// on its way too, so what counts is not what became of this one.
func (n *Node) obey(ctx context.Context, m *machine, mv ledger.Move, wish ledger.Body) error {
	name := m.Spec.Name
	n.submitLater(wish)
	var now ledger.Machine
	err := n.order.until(ctx, func(s *ledger.State) bool {
		lm := s.Machine(name)
		if lm != nil && lm.Move != nil && lm.Move.ID == mv.ID {
			return false
		}
		if now = (ledger.Machine{}); lm != nil {
			now = ledger.Machine{Owner: lm.Owner, Epoch: lm.Epoch, Stopped: lm.Stopped}
		}
		return true
	})
	if err != nil {
		return fmt.Errorf("the handover is undecided: %w", err)
	}
	if now.Owner != n.self || now.Epoch != mv.Epoch+1 {
		return n.lose(m, errors.New("it went back to where it came from"))
	}
	return n.continueHere(ctx, m, &now)
}

// confirmation is the wish to run a machine.
func confirmation(mv ledger.Move) ledger.Body {
	return &ledger.Confirm{Machine: mv.Machine, Epoch: mv.Epoch + 1}
}

// hold pauses a machine that only the order can say whose it is. One that does not
// heed that is ended: two of it must not run.
func (n *Node) hold(ctx context.Context, m *machine) error {
	quick, cancel := context.WithTimeout(ctx, time.Duration(n.rules.Lease)/8)
	defer cancel()
	vm := n.process(m)
	if vm == nil {
		return nil
	}
	st, err := vm.State(quick)
	if err == nil && st == vmm.Running {
		err = vm.Pause(quick)
	}
	if err == nil || errors.Is(err, vmm.ErrGone) {
		return nil
	}
	n.log.Error("machine does not pause: end it", "machine", m.Spec.Name, "cause", err)
	return n.stopAtOnce(ctx, m)
}

// stopAtOnce ends a machine's process, by force if need be. Its disks stay.
func (n *Node) stopAtOnce(ctx context.Context, m *machine) error {
	vm := n.process(m)
	if vm == nil {
		return nil
	}
	quick, cancel := context.WithTimeout(ctx, time.Duration(n.rules.Lease)/8)
	defer cancel()
	if err := vm.Stop(quick); err != nil && !errors.Is(err, vmm.ErrGone) {
		return fmt.Errorf("end machine %s: %w", m.Spec.Name, err)
	}
	return nil
}

// lose ends this node's copy of a machine that the order gave to another.
func (n *Node) lose(m *machine, cause error) error {
	ctx, cancel := n.lastly()
	defer cancel()
	return errors.Join(fmt.Errorf("machine %s is not ours: %w", m.Spec.Name, cause), n.hold(ctx, m), n.discard(ctx, m))
}
