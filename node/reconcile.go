package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/vmm"
)

// leftover is a machine that a restart finds a record of, and the sessions that
// hear what the order says of it meanwhile.
type leftover struct {
	record
	out    *outgoing
	in     *incoming
	free   func() // its claim
	fenced bool   // its process lives and stands still: it cannot be attached to yet
}

// takeUp finds what an earlier run left. It is called before the order speaks and
// before anyone is served: nothing that is said of these machines is lost, and
// nobody else acts on them.
func (n *Node) takeUp() (left []*leftover, lost []*ledger.Machine) {
	records, err := n.readRecords()
	if err != nil {
		n.log.Error("look for machines of an earlier run", "cause", err)
	}
	for m := range n.order.state.Machines() {
		if m.Move != nil && !slices.ContainsFunc(records, func(r record) bool { return r.Spec.Name == m.Name }) {
			lost = append(lost, m)
		}
	}
	for _, r := range records {
		name := r.Spec.Name
		l := &leftover{record: r, out: newOutgoing(name, nil), in: newIncoming(ledger.Move{ID: r.Move, Machine: name, Epoch: r.Epoch - 1})}
		l.free, _ = n.tryClaim(name, "is being taken up after a restart")
		n.register(l.out)
		n.mu.Lock()
		n.ins[name] = l.in
		n.mu.Unlock()
		left = append(left, l)
	}
	return left, lost
}

// reconcile brings what a restart finds on this host together with what the
// ledger says. The records say how far things had come; only the order says who
// owns a machine, and where it has not spoken yet, this node waits for it.
//
// First all processes are found, and those paused whose owner is not sure: they
// may run since before the restart. Only then comes what takes time.
func (n *Node) reconcile(ctx context.Context, left []*leftover, lost []*ledger.Machine) {
	defer close(n.reconciled)
	found := make([]*machine, len(left))
	for i, l := range left {
		m, err := n.find(ctx, l)
		if err == nil {
			err = n.holdUnlessOurs(ctx, m)
		}
		n.report(l.Spec.Name, err)
		found[i] = m
	}
	for i, l := range left {
		if found[i] == nil {
			n.settled(l)
			continue
		}
		n.reconcileOne(ctx, l, found[i])
	}
	n.endLost(lost)
}

// settled ends the sessions of a leftover. The last word that came meanwhile is
// seen to.
func (n *Node) settled(l *leftover) {
	n.unregister(l.out)
	n.forget(l.in)
	l.free()
}

// find is the machine of a record, with its process if that still lives.
func (n *Node) find(ctx context.Context, l *leftover) (*machine, error) {
	r := l.record
	m := &machine{record: r}
	var err error
	if m.driver, err = n.driver(r.Spec.Driver); err != nil {
		return nil, err
	}
	if m.files, _, _, err = n.layout(ctx, r.Spec.Name, r.Commit); err != nil {
		n.report(r.Spec.Name, err) // without its image it can still be paused
	}
	err = n.attach(ctx, m)
	if errors.Is(err, vmm.ErrFenced) {
		n.log.Warn("machine stands still: it was not confirmed before this node went away", "machine", r.Spec.Name)
		l.fenced, err = true, nil
	}
	return m, err
}

// attach finds the process of a machine, if that lives.
func (n *Node) attach(ctx context.Context, m *machine) error {
	vm, err := m.driver.Attach(ctx, m.Spec, m.files)
	switch {
	case errors.Is(err, vmm.ErrGone):
		return nil
	case err != nil:
		return fmt.Errorf("find the process of %s: %w", m.Spec.Name, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	m.vm = vm
	return nil
}

// holdUnlessOurs pauses a machine unless it is surely this node's to run.
func (n *Node) holdUnlessOurs(ctx context.Context, m *machine) error {
	s, err := n.order.State(ctx)
	if err != nil {
		return err
	}
	if lm := s.Machine(m.Spec.Name); n.owns(lm) && m.Step == stepHere && (lm.Move == nil || lm.Move.Phase != ledger.Released) {
		return nil
	}
	return n.hold(ctx, m)
}

// reconcileOne decides, in a task of its own where the order has to speak first.
func (n *Node) reconcileOne(ctx context.Context, l *leftover, m *machine) {
	files, err := n.files(ctx, m.Spec.Name, m.Commit)
	if err == nil {
		m.files = files
	} else {
		n.report(m.Spec.Name, fmt.Errorf("make its disks ready: %w", err))
	}
	if err != nil && m.vm == nil && !l.fenced {
		n.settled(l)
		return
	}
	s, err := n.order.State(ctx)
	if err != nil {
		n.settled(l)
		return
	}
	act, waits := n.resume(l, m, s.Machine(m.Spec.Name))
	todo := func() {
		defer n.settled(l)
		n.report(m.Spec.Name, act(ctx))
	}
	if !waits {
		todo()
		return
	}
	n.keep(m)
	n.log.Info("after a restart: only the order can say whose the machine is", "machine", m.Spec.Name, "away", n.whoIsAway())
	n.spawn(todo)
}

// resume says what a restart does with a machine, and whether that has to wait for
// the order to say whose it is. lm is what the ledger knows so far, or nil.
func (n *Node) resume(l *leftover, m *machine, lm *ledger.Machine) (act func(context.Context) error, waits bool) {
	released := lm != nil && lm.Move != nil && lm.Move.Phase == ledger.Released
	switch {
	case released && lm.Move.From == n.self: // the order has not spoken
		return func(ctx context.Context) error {
			return n.decide(ctx, l.out, m, nil, &decision{mv: *lm.Move, since: time.Now()})
		}, true
	case released && n.owns(lm): // it arrived, and the order waits for our word
		wish := confirmation(*lm.Move)
		if m.vm == nil && m.Step != stepHere {
			wish = &ledger.Decline{Machine: lm.Name, Epoch: lm.Epoch, Reason: "its state was lost in a restart at " + n.site(n.self)}
		}
		return func(ctx context.Context) error { return n.obey(ctx, m, *lm.Move, wish) }, true
	case !n.owns(lm):
		return func(ctx context.Context) error {
			n.abortLeftover(lm)
			return n.discard(ctx, m)
		}, false
	case m.Step == stepReleased: // Release was said, but is not ordered: undo it by the order
		return func(ctx context.Context) error { return n.undoRelease(ctx, l.out, m, lm) }, true
	}
	return func(ctx context.Context) error {
		n.abortLeftover(lm)
		return n.continueHere(ctx, m, lm)
	}, false
}

func (n *Node) report(name string, err error) {
	if err != nil {
		n.log.Warn("after a restart", "machine", name, "cause", err)
	}
}

// abortLeftover ends a move that the restart has cut, before its Release.
func (n *Node) abortLeftover(lm *ledger.Machine) {
	if lm != nil && lm.Move != nil && (lm.Move.From == n.self || lm.Move.To == n.self) && lm.Move.Phase != ledger.Released {
		n.submitLater(&ledger.Abort{Machine: lm.Name, Move: lm.Move.ID, Reason: "dcnode was restarted at " + n.site(n.self)})
	}
}

// endLost ends the moves that have begun before a restart and of whose machine
// nothing was found here.
func (n *Node) endLost(lost []*ledger.Machine) {
	for _, lm := range lost {
		n.abortLeftover(lm)
		if lm.Move.Phase == ledger.Released && n.owns(lm) {
			n.orphan(ledger.Effect{Kind: ledger.KindRelease, Machine: lm.Name, Move: *lm.Move})
		}
	}
}

// continueHere runs a machine that is this node's: as it was if its process
// lives, else anew from its disks.
func (n *Node) continueHere(ctx context.Context, m *machine, lm *ledger.Machine) error {
	n.keep(m)
	if lm.Stopped {
		return n.stopAtOnce(ctx, m)
	}
	n.noteHere(m, lm.Epoch)
	if err := n.lift(m); err != nil {
		return err
	}
	if n.process(m) == nil {
		if err := n.attach(ctx, m); err != nil {
			return err
		}
	}
	return n.runHere(ctx, m)
}

// undoRelease asks the order to end a move whose Release may or may not have left
// this node before the restart, and obeys what it says.
func (n *Node) undoRelease(ctx context.Context, o *outgoing, m *machine, lm *ledger.Machine) error {
	if lm.Move == nil || lm.Move.ID != m.Move {
		if lm.Last != nil && lm.Last.Phase == ledger.Reclaimed {
			select {
			case <-time.After(n.drift()): // see takeBack
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return n.continueHere(ctx, m, lm)
	}
	_, err := n.order.Submit(ctx, &ledger.Abort{Machine: m.Spec.Name, Move: lm.Move.ID, Reason: "dcnode was restarted at " + n.site(n.self)})
	var refused *ledger.RefusedError
	switch {
	case err == nil:
		return n.continueHere(ctx, m, lm)
	case errors.As(err, &refused):
		return n.decide(ctx, o, m, nil, &decision{mv: *lm.Move, since: time.Now()})
	}
	return err
}

// whoIsAway names the members that this node does not see.
func (n *Node) whoIsAway() string {
	var away string
	for _, p := range n.overlay.Peers() {
		if p.Connected || p.ID == n.overlay.ID() {
			continue
		}
		if id := n.member(p.ID); id != 0 && n.peer(id) == p.ID {
			away += " " + n.site(id)
		}
	}
	if away == "" {
		return "all members are connected"
	}
	return "not connected:" + away
}
