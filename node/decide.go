package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/node/api"
	"github.com/dcnode/dcnode/vmm"
)

// decision is what is known when only the order can say how a move ends.
type decision struct {
	mv      ledger.Move
	since   time.Time      // when Release was submitted, or at a restart
	verdict <-chan verdict // of the Release of this process; nil after a restart
	cause   error          // why the transfer broke, if it did
	took    time.Duration  // of Release to be ordered, once known
}

// drift is what clocks may differ by: what the source waits after the lease, and
// after Reclaim, before the machine runs here again.
func (n *Node) drift() time.Duration { return time.Duration(n.rules.Lease) / 8 }

// decide waits for the order's word on a released machine and obeys it: the
// destination has it, or it runs here again.
func (n *Node) decide(ctx context.Context, o *outgoing, m *machine, away vmm.Outgoing, d *decision) error {
	o.tell(api.Progress{Phase: "handover"})
	lease := time.NewTimer(time.Until(d.since.Add(time.Duration(n.rules.Lease) + n.drift())))
	defer lease.Stop()
	reclaimed := make(chan struct{}, 1)
	for {
		select {
		case v := <-d.verdict:
			d.took, d.verdict = v.took, nil
			if cause := refusal(v.err); cause != nil {
				return n.takeBack(ctx, m, away, d.mv, errors.Join(cause, d.cause))
			}
		case e := <-o.effects:
			if e.Move.ID != d.mv.ID {
				continue
			}
			switch e.Kind {
			case ledger.KindConfirm:
				if d.verdict != nil {
					d.took = (<-d.verdict).took // Release was ordered before
				}
				return n.leave(ctx, m, away)
			case ledger.KindDecline:
				return n.takeBack(ctx, m, away, e.Move, fmt.Errorf("the destination gave it back: %s", errors.Join(errors.New(e.Move.Reason), d.cause)))
			case ledger.KindReclaim, ledger.KindAbort:
				return n.takeBack(ctx, m, away, e.Move, errors.Join(errors.New(e.Move.Reason), d.cause))
			}
		case <-lease.C:
			n.log.Warn("machine is between two sites: ask the order to give it back", "machine", m.Spec.Name, "destination", n.site(d.mv.To), "away", n.whoIsAway())
			o.tell(api.Progress{Phase: "handover: waits for the order"})
			n.spawn(func() {
				_, _ = n.order.Submit(ctx, &ledger.Reclaim{Machine: m.Spec.Name, Epoch: d.mv.Epoch + 1})
				reclaimed <- struct{}{}
			})
		case <-reclaimed: // refused, or its effect is on the way
			lease.Reset(n.drift())
		case <-ctx.Done():
			return fmt.Errorf("the handover is undecided: %w", context.Cause(ctx))
		}
	}
}

// refusal is why a Release will never be ordered, or nil.
func refusal(err error) error {
	var refused *ledger.RefusedError
	var unsaid *unsaidError
	switch {
	case errors.As(err, &refused):
		return fmt.Errorf("the order refused the release: %s", refused.Reason)
	case errors.As(err, &unsaid):
		return err
	}
	return nil
}

// leave removes what the machine was here: it runs elsewhere now.
func (n *Node) leave(ctx context.Context, m *machine, away vmm.Outgoing) error {
	if away != nil {
		if err := away.Cancel(ctx, false); err != nil {
			n.log.Warn("end the migration of a machine that has left", "machine", m.Spec.Name, "cause", err)
		}
	}
	if err := n.discard(ctx, m); err != nil {
		n.log.Error("remove a machine that has left", "machine", m.Spec.Name, "cause", err)
	}
	return nil
}

// takeBack runs the machine here again because the order said so, and returns
// why it did not leave. After Reclaim it waits: the destination may have run it,
// and stops it by its own clock.
func (n *Node) takeBack(ctx context.Context, m *machine, away vmm.Outgoing, mv ledger.Move, cause error) error {
	if mv.Phase == ledger.Reclaimed {
		select {
		case <-time.After(n.drift()):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	n.noteHere(m, mv.Epoch)
	var err error
	if away != nil {
		err = away.Cancel(ctx, true)
	}
	if err == nil {
		err = n.runHere(ctx, m)
	}
	if err != nil {
		return fmt.Errorf("%w; and it does not run here again: %w", cause, err)
	}
	return fmt.Errorf("%w; the machine runs again at %s", cause, n.site(n.self))
}

// noteHere saves that a machine is this node's. The order has said so: if it cannot be
// saved, a restart asks again, and the machine need not stand still for it.
func (n *Node) noteHere(m *machine, epoch uint64) {
	if err := n.mark(m, stepHere, 0, epoch); err != nil {
		n.log.Error("save that a machine is here", "machine", m.Spec.Name, "cause", err)
	}
}

// runHere runs a machine that the order says is ours: on from where it stands if
// its process lives, else anew from its disks.
func (n *Node) runHere(ctx context.Context, m *machine) error {
	if !n.lives(ctx, m) {
		n.log.Warn("machine was not running: start it again from its disks", "machine", m.Spec.Name)
		return n.boot(ctx, m)
	}
	vm := n.process(m)
	st, err := vm.State(ctx)
	if err == nil && st != vmm.Running {
		err = vm.Resume(ctx)
	}
	return err
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
