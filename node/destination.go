package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/dcnode/dcnode/blockstore"
	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/gossip"
	"github.com/dcnode/dcnode/node/api"
	"github.com/dcnode/dcnode/node/migrate"
	"github.com/dcnode/dcnode/node/resume"
	"github.com/dcnode/dcnode/vmm"
)

// Deadlines of a migration seen from the destination.
const (
	selectionWithin = 10 * time.Second // for this node to see the selection that the source has seen
	farewellWithin  = 2 * time.Second  // for a source to hear that this node ends
	releaseWithin   = 60 * time.Second // after the state is loaded; then the move is aborted
)

// accept says in the order that this node keeps the word of its bid, as soon as it can
// begin, or that it cannot. Who says neither in time loses the machine to the next best,
// too, but later.
func (n *Node) accept(ctx context.Context, mv ledger.Move) {
	if err := n.canBegin(ctx, mv); err != nil {
		n.log.Warn("a machine that this node is selected for cannot be taken", "machine", mv.Machine, "cause", err)
		n.submitLater(&ledger.Abort{Machine: mv.Machine, Move: mv.ID, Reason: reason(err)})
		return
	}
	n.submitLater(&ledger.Accept{Machine: mv.Machine, Move: mv.ID})
}

// canBegin says what is in the way of receiving a machine, if anything.
func (n *Node) canBegin(ctx context.Context, mv ledger.Move) error {
	d, err := n.driver(mv.Needs.Driver)
	if err != nil {
		return err
	}
	if err := fits(d.Probe(ctx), mv.Needs); err != nil {
		return err
	}
	if n.receives(mv) {
		return nil // the source was quicker
	}
	free, err := n.claim(ctx, mv.Machine, "is about to be received")
	switch {
	case err == nil:
		free()
	case n.receives(mv): // it came meanwhile
		return nil
	}
	return err
}

// receives says whether the machine of that move is arriving.
func (n *Node) receives(mv ledger.Move) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	in := n.ins[mv.Machine]
	return in != nil && in.mv.ID == mv.ID
}

// serveMigrate takes one machine in. A node that ends waits a moment until the source
// has heard that the machine is given up: it would wait for this node to come back.
func (n *Node) serveMigrate(_ context.Context, s gossip.Stream) {
	served := make(chan struct{})
	defer close(served)
	n.spawn(func() {
		select {
		case <-served:
			return
		case <-n.taskCtx.Done():
		}
		late := time.NewTimer(farewellWithin)
		defer late.Stop()
		select {
		case <-served:
		case <-late.C:
		}
	})
	n.takeIn(s)
}

func (n *Node) takeIn(s gossip.Stream) {
	defer s.Close()
	_ = s.SetDeadline(time.Now().Add(reasonable))
	var h hello
	if err := readLine(s, &h); err != nil {
		_ = s.Reset()
		return
	}
	ctx, cancel := context.WithCancelCause(n.taskCtx)
	defer cancel(nil)
	in, free, err := n.admit(ctx, s.Peer(), h, cancel)
	if err != nil {
		_ = writeLine(s, answer{Error: reason(err)})
	} else {
		defer free()
		defer n.forget(in)
		err = n.arrive(ctx, in, s, h)
	}
	if err != nil {
		n.log.Error("receive a machine", "machine", h.Machine, "cause", err)
	}
}

// admit checks that the ledger sends this machine from that peer to here.
func (n *Node) admit(ctx context.Context, from peer.ID, h hello, cancel context.CancelCauseFunc) (*incoming, func(), error) {
	mv, err := n.selected(ctx, from, h)
	if err != nil {
		return nil, nil, err
	}
	free, err := n.claim(ctx, h.Machine, "is being received already, or what was left of it here is being removed")
	if err != nil {
		return nil, nil, err
	}
	in := newIncoming(mv)
	in.cancel, in.session = cancel, h.Session
	n.mu.Lock()
	n.ins[h.Machine] = in
	n.mu.Unlock()
	return in, free, nil
}

// selected is the move that hello speaks of, once this node has seen it ordered.
func (n *Node) selected(ctx context.Context, from peer.ID, h hello) (ledger.Move, error) {
	ctx, cancel := context.WithTimeout(ctx, selectionWithin)
	defer cancel()
	var mv ledger.Move
	var commit string
	var spec []byte
	err := n.order.until(ctx, func(s *ledger.State) bool {
		m := s.Machine(h.Machine)
		if m == nil || m.Move == nil || m.Move.ID != h.Move || m.Move.Phase != ledger.Copying || m.Move.SelectedIndex < h.Selected {
			return false
		}
		mv, commit, spec = *m.Move, m.Commit, m.Spec
		return true
	})
	if err != nil {
		return mv, fmt.Errorf("no such move of machine %s is ordered here", h.Machine)
	}
	var agreed vmm.Spec
	switch err := json.Unmarshal(spec, &agreed); {
	case n.member(from) != mv.From:
		return mv, fmt.Errorf("machine %s is moved by %s, not by you", h.Machine, n.site(mv.From))
	case mv.To != n.self:
		return mv, fmt.Errorf("machine %s goes to %s, not here", h.Machine, n.site(mv.To))
	case mv.Epoch != h.Epoch:
		return mv, fmt.Errorf("machine %s is in epoch %d, not %d", h.Machine, mv.Epoch, h.Epoch)
	case len(h.Session) != sessionBytes:
		return mv, fmt.Errorf("machine %s comes with a secret of %d bytes, not %d", h.Machine, len(h.Session), sessionBytes)
	case commit != h.Commit:
		return mv, fmt.Errorf("machine %s is of image %s, not %s", h.Machine, commit, h.Commit)
	case err != nil || agreed != h.Spec || agreed.Name != h.Machine:
		return mv, fmt.Errorf("machine %s is described otherwise in the ledger", h.Machine)
	}
	return mv, h.Spec.Check()
}

// forget ends a session's hearing. What it has not heard any more is seen to.
func (n *Node) forget(in *incoming) {
	if n.deafen(in) {
		n.orphanLast(in.effects)
	}
}

// deafen says whether the session still heard; from now on it does not.
func (n *Node) deafen(in *incoming) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	heard := n.ins[in.mv.Machine] == in
	if heard {
		delete(n.ins, in.mv.Machine)
	}
	return heard
}

// arrive receives a machine: get ready, take its state, and run it when the order
// has released it. Whatever fails before that, the machine has never run here.
func (n *Node) arrive(ctx context.Context, in *incoming, s gossip.Stream, h hello) error {
	defer n.survey.Moving()()
	m, inc, sent, err := n.ready(ctx, in, s, h)
	if err != nil {
		_ = writeLine(s, answer{Error: reason(err)})
		return n.giveUp(in, m, err)
	}
	_ = s.SetDeadline(time.Time{})
	in.ready = time.Now()
	if err := writeLine(s, answer{Ready: true, Sent: sent}); err != nil {
		return n.giveUp(in, m, err)
	}
	link := resume.New(s, resume.Config{Within: n.cfg.ResumeWithin})
	defer link.Close()
	bases, closeBases, err := openBases(m.files)
	if err != nil {
		return n.giveUp(in, m, err)
	}
	defer closeBases()
	if err := n.receive(ctx, in, link, migrate.Sink{Machine: inc, Bases: bases}); err != nil {
		return n.giveUp(in, m, err)
	}
	if err := n.mark(m, stepLoaded, in.mv.ID, in.mv.Epoch+1); err != nil {
		return n.giveUp(in, m, err)
	}
	return n.takeOver(ctx, in, m)
}

// receive takes a machine's state, through cuts of the link, unless the order decides
// before that whose it is.
func (n *Node) receive(ctx context.Context, in *incoming, link *resume.Link, k migrate.Sink) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	n.attend(in, link, stop)
	defer n.attend(in, link, nil)
	_, err := migrate.Receive(ctx, link, k)
	return err
}

// ready fetches what this node lacks of the image and makes a machine that waits.
// It stops when the source does not hear of its progress any more.
func (n *Node) ready(ctx context.Context, in *incoming, s gossip.Stream, h hello) (*machine, vmm.Incoming, int64, error) {
	m := &machine{record: record{Spec: h.Spec, Commit: h.Commit}}
	tell := func(p api.Progress) {
		_ = s.SetDeadline(time.Now().Add(reasonable))
		if err := writeLine(s, answer{Progress: &p}); err != nil {
			in.cancel(fmt.Errorf("the source went away: %w", err))
		}
	}
	var err error
	if m.driver, err = n.driver(h.Spec.Driver); err != nil {
		return nil, nil, 0, err
	}
	commit, holders, err := n.imageOf(ctx, h.Machine)
	if err != nil {
		return nil, nil, 0, err
	}
	fetched, err := n.store.Fetch(ctx, commit, holders, func(p blockstore.Progress) {
		tell(api.Progress{Phase: "image", Done: p.Done, Total: p.Total})
	})
	if err != nil {
		return nil, nil, 0, err
	}
	n.holds(ctx, h.Machine)
	tell(api.Progress{Phase: "preparing"})
	if m.files, err = n.files(ctx, h.Machine, h.Commit); err != nil {
		return nil, nil, 0, err
	}
	if err := n.mark(m, stepArriving, in.mv.ID, in.mv.Epoch+1); err != nil {
		return m, nil, 0, err
	}
	_ = s.SetDeadline(time.Now().Add(reasonable))
	vm, inc, err := m.driver.Receive(ctx, m.Spec, m.files)
	if err != nil {
		return m, nil, 0, err
	}
	m.vm = vm
	n.keep(m)
	return m, inc, fetched.Bytes, nil
}

// giveUp removes what has arrived of a machine that has never run here, and says
// so in the order.
func (n *Node) giveUp(in *incoming, m *machine, cause error) error {
	n.deafen(in)
	if m != nil {
		ctx, cancel := n.lastly()
		defer cancel()
		cause = errors.Join(cause, n.discard(ctx, m))
	}
	for {
		select {
		case e := <-in.effects:
			switch e.Kind {
			case ledger.KindRelease:
				n.decline(in, cause)
				return cause
			case ledger.KindAbort:
				return cause
			}
			continue
		default: // if it is released to this node yet, react declines it
		}
		n.submitLater(&ledger.Abort{Machine: in.mv.Machine, Move: in.mv.ID, Reason: reason(cause)})
		return cause
	}
}

func (n *Node) decline(in *incoming, cause error) {
	n.submitLater(&ledger.Decline{Machine: in.mv.Machine, Epoch: in.mv.Epoch + 1, Reason: reason(cause)})
}

// lastly is the context of what a node still does when it ends.
func (n *Node) lastly() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(n.taskCtx), reasonable)
}

// takeOver waits for Release in the order and then runs the machine.
func (n *Node) takeOver(ctx context.Context, in *incoming, m *machine) error {
	wait, cancel := context.WithTimeoutCause(ctx, releaseWithin, errors.New("no release was ordered in time"))
	defer cancel()
	e, err := await(wait, in.effects, in.mv.ID, ledger.KindRelease, ledger.KindAbort)
	if err != nil {
		return n.giveUp(in, m, err)
	}
	if e.Kind == ledger.KindAbort {
		n.deafen(in)
		last, cancel := n.lastly()
		defer cancel()
		return errors.Join(&abortedError{e.Move.Reason}, n.discard(last, m))
	}
	return n.run(ctx, in, m, e.Move)
}
