package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/dcnode/dcnode/consensus/ledger"
)

// crew is the short-lived work beside the goroutines of Run. It takes nothing new
// once it is being waited for: who comes later finds the node gone.
type crew struct {
	mu     sync.Mutex
	closed bool
	wg     sync.WaitGroup
}

func (c *crew) spawn(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.wg.Go(f)
	return true
}

func (c *crew) wait() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.wg.Wait()
}

// spawn runs f beside the others; Run waits for it. After the end f does not run.
func (n *Node) spawn(f func()) bool { return n.tasks.spawn(f) }

// carryOn runs what must not stop halfway because the one who asked has gone: f's
// context is the node's. Only the waiting ends with ctx.
func carryOn[T any](ctx context.Context, n *Node, f func(context.Context) (T, error)) (T, error) {
	type outcome struct {
		v   T
		err error
	}
	ended := make(chan outcome, 1)
	if !n.spawn(func() {
		v, err := f(n.taskCtx)
		ended <- outcome{v, err}
	}) {
		var none T
		return none, errEnded
	}
	select {
	case e := <-ended:
		return e.v, e.err
	case <-ctx.Done():
		var none T
		return none, context.Cause(ctx)
	}
}

// claim is the right to act on one machine at this node: to start it, stop it,
// move it away or take it in. Two at once would undo each other's work.
type claim struct {
	what string // is being done, for people: "is moving"
	done chan struct{}
}

// tryClaim takes the claim of a machine, or returns the one that is in the way.
func (n *Node) tryClaim(name, what string) (free func(), other *claim) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c := n.claims[name]; c != nil {
		return nil, c
	}
	c := &claim{what, make(chan struct{})}
	n.claims[name] = c
	return sync.OnceFunc(func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.claims, name)
		close(c.done)
	}), nil
}

// claim takes the claim of a machine and waits a while for another to end.
func (n *Node) claim(ctx context.Context, name, what string) (free func(), err error) {
	late := time.NewTimer(claimWithin)
	defer late.Stop()
	for {
		free, other := n.tryClaim(name, what)
		if other == nil {
			return free, nil
		}
		select {
		case <-other.done:
		case <-late.C:
			return nil, fmt.Errorf("machine %s %s: wait for the end", name, other.what)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// claimWithin is how long one who wants to act on a machine waits for another.
const claimWithin = 5 * time.Second

// decree orders a transaction and waits as long as a working order takes. After an
// error that is not a *ledger.RefusedError it may still be ordered.
func (n *Node) decree(ctx context.Context, body ledger.Body) (Verdict, error) {
	wait, cancel := context.WithTimeout(ctx, orderWithin)
	defer cancel()
	v, err := n.order.Submit(wait, body)
	if err != nil && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("%s is not ordered yet: the order does not move: %s", body.Kind(), n.whoIsAway())
	}
	return v, err
}

// submitLater orders a transaction that nobody waits for, and keeps trying while
// the node lives: the order may have to wait for a quorum.
func (n *Node) submitLater(body ledger.Body) {
	n.spawn(func() { n.say(body) })
}

// say orders a transaction, or leaves in the log why that failed.
func (n *Node) say(body ledger.Body) {
	_, err := n.order.Submit(n.taskCtx, body)
	var refused *ledger.RefusedError
	switch {
	case errors.As(err, &refused):
		n.log.Info("the order refused", "kind", body.Kind(), "reason", refused.Reason)
	case err != nil && n.taskCtx.Err() == nil:
		n.log.Error("order a transaction", "kind", body.Kind(), "cause", err)
	}
}

// maxReason keeps a reason, which may be another member's words, well below what
// a transaction can carry.
const maxReason = 1000

func reason(err error) string {
	s := err.Error()
	return s[:min(len(s), maxReason)]
}
