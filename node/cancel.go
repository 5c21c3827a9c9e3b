package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/node/api"
)

// cancelledError: somebody here has called the move off.
type cancelledError struct{ site string }

func (e *cancelledError) Error() string { return "cancelled by " + e.site }

// callOff keeps the release of a move from being said. It says whether that is in time.
func (o *outgoing) callOff(why error) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.said {
		o.off = why
	}
	return !o.said
}

// calledOff is why the move is called off, or nil.
func (o *outgoing) calledOff() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.off
}

// say is asked before the release is said: from then on nobody here can call it off.
func (o *outgoing) say() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.said = o.off == nil
	return o.off
}

// CancelMove implements api.Machines. No release is said from now on; then the order ends
// the move, at both ends and with one reason. When it does not move the transfer is ended
// here, and the rest follows.
func (n *Node) CancelMove(ctx context.Context, name string) (api.Cancelled, error) {
	x := api.Cancelled{Machine: name, Site: n.site(n.self)}
	n.takenUp(ctx, name)
	n.mu.Lock()
	o, c := n.outs[name], n.claims[name]
	n.mu.Unlock()
	s, err := n.order.State(ctx)
	if err != nil {
		return x, err
	}
	if err := n.mayCancel(s, name, o != nil); err != nil {
		return x, err
	}
	off := &cancelledError{x.Site}
	if o != nil && !o.callOff(off) {
		return x, fmt.Errorf("machine %s cannot be called back: its release has been said, and only the order decides now: see `dcnode why %s`", name, name)
	}
	return carryOn(ctx, n, func(ctx context.Context) (api.Cancelled, error) {
		s, err := n.order.State(ctx) // after that: the intent may have been ordered in between
		if err != nil {
			return x, err
		}
		x.Reason = off.Error()
		if lm := s.Machine(name); lm != nil && lm.Move != nil && lm.Move.From == n.self {
			x.Move, x.To = lm.Move.ID, n.cancelledTo(lm.Move)
			if err := n.orderCancel(ctx, o, lm.Move, off); err != nil {
				return x, err
			}
		}
		return x, n.endOfTask(ctx, name, c)
	})
}

// mayCancel says why a move cannot be called off here. session: one is being made here.
func (n *Node) mayCancel(s *ledger.State, name string, session bool) error {
	lm := s.Machine(name)
	switch {
	case lm == nil:
		return fmt.Errorf("there is no machine %s: see `dcnode vm ls`", name)
	case lm.Move == nil && !n.owns(lm):
		return fmt.Errorf("machine %s is at %s: give the order there", name, s.Site(lm.Owner))
	case lm.Move == nil && !session:
		return fmt.Errorf("machine %s does not move: there is nothing to cancel", name)
	case lm.Move != nil && lm.Move.From != n.self:
		return fmt.Errorf("machine %s is moved by %s: give the order there", name, s.Site(lm.Move.From))
	case lm.Move != nil && lm.Move.Phase == ledger.Released:
		return fmt.Errorf("machine %s cannot be called back, only the order decides now: %s", name, s.Standing(lm).Text)
	}
	return nil
}

// cancelledTo is the site that a move goes to, or was to go to; empty: nobody knows yet.
func (n *Node) cancelledTo(mv *ledger.Move) string {
	for _, id := range []ledger.MemberID{mv.To, mv.Only} {
		if id != 0 {
			return n.site(id)
		}
	}
	return ""
}

// orderCancel has the order end a move.
func (n *Node) orderCancel(ctx context.Context, o *outgoing, mv *ledger.Move, off error) error {
	_, err := n.decree(ctx, &ledger.Abort{Machine: mv.Machine, Move: mv.ID, Reason: off.Error()})
	var refused *ledger.RefusedError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refused):
		return fmt.Errorf("the move of machine %s was not called off: %w", mv.Machine, err)
	case o != nil:
		o.stop(off)
		return fmt.Errorf("the transfer of machine %s is ended and it runs on at %s, but %w; the move ends as soon as it is", mv.Machine, n.site(n.self), err)
	}
	return err
}

// endOfTask waits until what was being done with a machine here is over.
func (n *Node) endOfTask(ctx context.Context, name string, c *claim) error {
	if c == nil {
		return nil
	}
	late := time.NewTimer(orderWithin + claimWithin)
	defer late.Stop()
	select {
	case <-c.done:
		return nil
	case <-late.C:
		return fmt.Errorf("the move of machine %s is called off, and has not come to its end here within %v: see `dcnode why %s`", name, orderWithin+claimWithin, name)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
