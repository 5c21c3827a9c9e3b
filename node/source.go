package node

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/gossip"
	"github.com/dcnode/dcnode/node/api"
	"github.com/dcnode/dcnode/node/migrate"
	"github.com/dcnode/dcnode/vmm"
)

// Deadlines of a migration seen from the source.
const (
	orderWithin   = 20 * time.Second // for a transaction to be ordered, when a quorum is there
	prepareWithin = 10 * time.Minute // between two signs of life while the destination fetches the image
)

// Migrate implements api.Machines: it orders the move and carries it through.
// The move goes on when ctx ends; only the watching stops.
func (n *Node) Migrate(ctx context.Context, r api.Migrate, tell api.Tell) (api.Report, error) {
	began := time.Now()
	end, err := n.embark()
	defer end()
	if err != nil {
		return api.Report{}, err
	}
	if _, _, err := n.intend(ctx, r); err != nil {
		return api.Report{}, err // at once, rather than after another task
	}
	free, err := n.claim(ctx, r.Name, "is moving already")
	if err != nil {
		return api.Report{}, err
	}
	m, intent, err := n.intend(ctx, r)
	if err != nil {
		free()
		return api.Report{}, err
	}
	o := newOutgoing(r.Name, tell)
	defer o.unwatch()
	n.register(o)
	return carryOn(ctx, n, func(ctx context.Context) (api.Report, error) {
		defer free()
		defer n.unregister(o)
		rep, err := n.move(ctx, o, m, intent)
		rep.TotalSeconds = time.Since(began).Seconds()
		if err != nil {
			n.log.Error("migration", "machine", r.Name, "cause", err)
			return rep, err
		}
		n.reportMove(ctx, o.move, &rep)
		return rep, nil
	})
}

// intend checks what can be checked here and describes the move.
func (n *Node) intend(ctx context.Context, r api.Migrate) (*machine, *ledger.Intent, error) {
	n.takenUp(ctx, r.Name)
	s, err := n.order.State(ctx)
	if err != nil {
		return nil, nil, err
	}
	lm := s.Machine(r.Name)
	if lm == nil {
		return nil, nil, fmt.Errorf("there is no machine %s: see `dcnode vm ls`", r.Name)
	}
	m := n.local(r.Name)
	if err := n.isHere(s, lm, m); err != nil {
		return nil, nil, err
	}
	if !n.lives(ctx, m) {
		return nil, nil, fmt.Errorf("machine %s does not run: start it first", r.Name)
	}
	if c := m.driver.Probe(ctx); !c.CanMigrate {
		return nil, nil, fmt.Errorf("machine %s cannot migrate: %s", r.Name, c.WhyNot)
	}
	intent := &ledger.Intent{
		Machine: r.Name, Epoch: lm.Epoch, Needs: n.needs(ctx, m), Limits: ledger.Limits{MaxDowntime: r.MaxDowntime, Bandwidth: r.Bandwidth},
	}
	if r.To != "" {
		to := s.BySite(r.To)
		if to == nil {
			return nil, nil, fmt.Errorf("there is no member %s: see `dcnode status`", r.To)
		}
		intent.Only = to.ID
	}
	return m, intent, nil
}

// register lets a session hear what the order says of its machine. Its caller has
// the machine's claim.
func (n *Node) register(o *outgoing) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.outs[o.machine] = o
}

func (n *Node) unregister(o *outgoing) {
	n.mu.Lock()
	if n.outs[o.machine] == o {
		delete(n.outs, o.machine)
	}
	n.mu.Unlock()
	n.orphanLast(o.effects)
}

// move is a whole move from the intent to its end: bids, transfer, handover, and the
// report. A destination that does not keep its word in time is replaced by the ledger:
// the transfer begins anew then, with the next one.
func (n *Node) move(ctx context.Context, o *outgoing, m *machine, intent *ledger.Intent) (api.Report, error) {
	o.tell(api.Progress{Phase: "bidding"})
	submitted := time.Now()
	sel, err := n.bidding(ctx, o, intent)
	if err != nil {
		return api.Report{}, err
	}
	selection := ms(time.Since(submitted))
	for {
		rep := n.describe(m, sel)
		rep.Consensus.Selection = selection
		t := &transfer{node: n, out: o, m: m, mv: sel, rep: &rep, limits: n.limits(sel), selected: time.Now()}
		err := t.run(ctx)
		var next *reselectedError
		if errors.As(err, &next) {
			if sel, err = n.reselected(ctx, o, sel); err == nil {
				n.log.Info("the move goes elsewhere", "machine", m.Spec.Name, "cause", next)
				continue
			}
		}
		if err != nil {
			return rep, fmt.Errorf("migrate %s to %s: %w", m.Spec.Name, n.site(sel.To), err)
		}
		return rep, nil
	}
}

// reselected is the move with the destination that the ledger has selected last.
func (n *Node) reselected(ctx context.Context, o *outgoing, was ledger.Move) (ledger.Move, error) {
	for {
		e, err := await(ctx, o.effects, was.ID, ledger.KindSelected, ledger.KindNowhere, ledger.KindAbort)
		switch {
		case err != nil:
			return was, err
		case e.Kind != ledger.KindSelected:
			return was, fmt.Errorf("machine %s stays here: %s", was.Machine, e.Move.Reason)
		case e.Move.To != was.To:
			return e.Move, nil
		}
	}
}

// limits are what the driver is told: what the move may cost, and what the link
// carries.
func (n *Node) limits(mv ledger.Move) vmm.Limits {
	l := vmm.Limits{MaxDowntime: mv.Limits.MaxDowntime, Bandwidth: bandwidthOf(mv)}
	if c := n.capOf(mv); c > 0 && (l.Bandwidth == 0 || c < l.Bandwidth) {
		l.Bandwidth = c
	}
	return l
}

// capOf is how many bytes a second a move may use: what the ledger allows it and what
// this node does; 0: no cap.
func (n *Node) capOf(mv ledger.Move) int64 {
	c := mv.Limits.Bandwidth
	if own := n.cfg.Bandwidth; c == 0 || own > 0 && own < c {
		c = own
	}
	return c
}

// encodes is what the encoder makes of new pages on a busy core, in bytes per
// second: on a faster link it is what the last pages wait for.
const encodes = 100 << 20

// bandwidthOf is what the way to the winner carries, in bytes per second, as the
// winner measured it.
func bandwidthOf(mv ledger.Move) int64 {
	for _, b := range mv.Bids {
		if b.Member == mv.To {
			return min(b.Bandwidth, encodes)
		}
	}
	return 0
}

// bidding orders the intent and waits until the ledger has selected.
func (n *Node) bidding(ctx context.Context, o *outgoing, intent *ledger.Intent) (ledger.Move, error) {
	v, err := n.decree(ctx, intent)
	if err != nil {
		return ledger.Move{}, err // if it is ordered later, react ends it
	}
	if off := o.calledOff(); off != nil { // before the intent was ordered
		n.submitLater(&ledger.Abort{Machine: o.machine, Move: v.Place.Index, Reason: reason(off)})
	}
	wait, cancel := context.WithTimeout(ctx, orderWithin+time.Duration(n.rules.BidWindow))
	defer cancel()
	e, err := await(wait, o.effects, v.Place.Index, ledger.KindSelected, ledger.KindNowhere, ledger.KindAbort)
	if err != nil {
		n.submitLater(&ledger.Abort{Machine: o.machine, Move: v.Place.Index, Reason: "the bidding took too long"})
		return ledger.Move{}, fmt.Errorf("machine %s stays here: the order does not move: %s", o.machine, n.whoIsAway())
	}
	if e.Kind != ledger.KindSelected {
		return ledger.Move{}, fmt.Errorf("machine %s stays here: %s", o.machine, e.Move.Reason)
	}
	return e.Move, nil
}

// transfer is the part of a move after the selection.
type transfer struct {
	node   *Node
	out    *outgoing
	m      *machine
	mv     ledger.Move
	rep    *api.Report
	limits vmm.Limits

	session  []byte       // the secret that both sides share
	beating  func()       // ends the beats
	fetched  int64        // bytes of the image, as the destination has told
	moved    atomic.Int64 // bytes of all that have arrived or were sent
	readyAt  time.Time    // when the destination's ready came
	selected time.Time    // when the order had selected the destination
	released time.Time    // when Release was submitted
	verdict  chan verdict // of size 1
}

// verdict is what the order made of Release, and how long it took.
type verdict struct {
	took time.Duration
	err  error
}

func (t *transfer) run(ctx context.Context) error {
	n := t.node
	t.verdict = make(chan verdict, 1)
	defer n.survey.Moving()()
	defer n.unlook(t.m.Spec.Name)
	tctx, cancel := t.out.stoppable(ctx, t.mv.ID)
	defer cancel()
	stop := t.beat(tctx)
	defer stop()
	stream, err := t.prepare(tctx)
	if err != nil {
		return t.abort(t.unaccepted(ctx, tctx, err))
	}
	link := t.lasting(stream)
	defer link.Close()
	away, err := n.process(t.m).Outgoing(tctx, t.limits)
	if err != nil {
		return t.abort(fmt.Errorf("begin: %w", err))
	}
	bases, closeBases, err := openBases(t.m.files)
	if err != nil {
		return t.abort(errors.Join(err, away.Cancel(ctx, true)))
	}
	defer closeBases()
	rep, err := migrate.Send(tctx, link, migrate.Job{
		Machine: away, Bases: bases, Release: t.release, Progress: t.progress,
		MaxDowntime: time.Duration(t.limits.MaxDowntime) * time.Millisecond, MaxBandwidth: n.capOf(t.mv), Log: n.log,
	})
	_ = link.Close() // says what is left to say, to a destination that hears
	t.account(rep)
	t.accountCuts(link.Stats())
	n.learnWay(t.mv.To, rep)
	if !rep.Released {
		return t.abort(err)
	}
	if err != nil {
		n.log.Warn("transfer broke after release", "machine", t.m.Spec.Name, "cause", err)
	}
	d := decision{mv: t.mv, since: t.released, verdict: t.verdict, cause: err}
	err = n.decide(ctx, t.out, t.m, away, &d)
	t.rep.Consensus.Release, t.rep.Consensus.Move = ms(d.took), ms(t.released.Sub(t.selected)+d.took)
	return err
}

// beat tells the order again and again how much of the machine has been copied, so that
// its deadline does not pass, until it is released. When nothing more has, there is
// nothing to tell.
func (t *transfer) beat(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	t.beating = cancel
	t.node.spawn(func() {
		every := time.NewTicker(time.Duration(t.node.rules.Copy) / 3)
		defer every.Stop()
		var told int64
		for {
			select {
			case <-every.C:
				now := t.moved.Load()
				if now <= told {
					continue
				}
				if _, err := t.node.order.Submit(ctx, &ledger.Beat{Machine: t.m.Spec.Name, Move: t.mv.ID, Bytes: now}); err == nil {
					told = now
				}
			case <-ctx.Done():
				return
			}
		}
	})
	return cancel
}

// unaccepted waits, when a destination could not be prepared that has not said in the
// order that it keeps its word, for the ledger to select another or to end the move.
func (t *transfer) unaccepted(ctx, tctx context.Context, cause error) error {
	var elsewhere bool
	err := t.node.order.until(tctx, func(s *ledger.State) bool {
		m := s.Machine(t.m.Spec.Name)
		elsewhere = m == nil || m.Move == nil || m.Move.ID != t.mv.ID || m.Move.To != t.mv.To
		return elsewhere || m.Move.Accepted
	})
	if err == nil && elsewhere { // the same event stops this transfer, and says why: see react
		late := time.NewTimer(orderWithin)
		defer late.Stop()
		select {
		case <-tctx.Done():
		case <-late.C:
		}
	}
	if stopped := context.Cause(tctx); stopped != nil && ctx.Err() == nil {
		return stopped
	}
	return cause
}

// prepare opens the stream and waits until the destination is ready.
func (t *transfer) prepare(ctx context.Context) (gossip.Stream, error) {
	n := t.node
	s, err := n.overlay.Open(ctx, n.peer(t.mv.To), protoMigrate)
	if err != nil {
		return nil, err
	}
	_ = s.SetDeadline(time.Now().Add(reasonable))
	t.session = newSession()
	h := hello{Machine: t.m.Spec.Name, Move: t.mv.ID, Selected: t.mv.SelectedIndex, Epoch: t.mv.Epoch, Commit: t.m.Commit, Session: t.session, Spec: t.m.Spec}
	if err := writeLine(s, h); err != nil {
		_ = s.Reset()
		return nil, fmt.Errorf("say hello: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	for {
		_ = s.SetDeadline(time.Now().Add(prepareWithin))
		var a answer
		err := readLine(s, &a)
		switch {
		case err != nil:
			_ = s.Reset()
			return nil, fmt.Errorf("the destination went away while it prepared: %w", errors.Join(context.Cause(ctx), err))
		case a.Error != "":
			_ = s.Reset()
			return nil, fmt.Errorf("the destination cannot take it: %s", a.Error)
		case a.Ready:
			t.readyAt, t.rep.Bytes.ImageSent = time.Now(), a.Sent
			return s, s.SetDeadline(time.Time{})
		case a.Progress != nil:
			t.fetched = max(t.fetched, a.Progress.Done)
			t.moved.Store(t.fetched)
			t.out.tell(*a.Progress)
		}
	}
}

// maxRounds bounds how often a machine's memory is sent before it is said to
// write faster than the link carries.
const maxRounds = 12

// progress passes on what the transfer tells, and ends it when it leads nowhere.
func (t *transfer) progress(p migrate.Progress) {
	t.moved.Store(t.fetched + p.DoneBytes)
	q := api.Progress{Phase: string(p.Phase), Done: p.DoneBytes, Sent: p.SentBytes}
	if p.RemainingBytes >= 0 {
		q.Total = p.DoneBytes + p.RemainingBytes
	}
	t.out.tell(q)
	if p.Phase == migrate.Memory && p.DoneBytes > maxRounds*t.m.Spec.Memory+t.mv.Needs.Disk {
		t.out.stop(errors.New("the machine writes to its memory faster than the link carries it: allow a longer --max-downtime, or move it when it is quieter"))
	}
}

// release is called when the machine has paused. From here on the machine runs
// here again only if the order says so; that is durable before it is said. After
// an error it has not been said.
func (t *transfer) release(context.Context) error {
	if err := t.out.say(); err != nil {
		t.verdict <- verdict{err: &unsaidError{err}}
		return err
	}
	if err := t.node.mark(t.m, stepReleased, t.mv.ID, t.mv.Epoch); err != nil {
		unsaid := &unsaidError{err}
		t.node.submitLater(&ledger.Abort{Machine: t.m.Spec.Name, Move: t.mv.ID, Reason: reason(unsaid)})
		t.verdict <- verdict{err: unsaid}
		return err
	}
	t.beating()
	began := time.Now()
	t.released = began
	time.AfterFunc(time.Duration(t.node.rules.Lease), func() {
		t.out.stop(errors.New("the destination did not load the machine within the lease"))
	})
	release := &ledger.Release{
		Machine: t.m.Spec.Name, Move: t.mv.ID, Epoch: t.mv.Epoch + 1, To: t.mv.To, After: ledger.Time(began.Sub(t.readyAt)),
	}
	t.node.spawn(func() {
		_, err := t.node.order.Submit(t.node.taskCtx, release)
		t.verdict <- verdict{time.Since(began), err}
	})
	return nil
}

// unsaidError: Release was never submitted, so nobody else may run the machine.
type unsaidError struct{ err error }

func (e *unsaidError) Error() string { return "the release could not be prepared: " + e.err.Error() }

// abort ends a move before Release: the machine has never stopped running here.
func (t *transfer) abort(cause error) error {
	n := t.node
	var ordered *abortedError
	var next *reselectedError
	if errors.As(cause, &next) {
		return next
	}
	if !errors.As(cause, &ordered) && t.out.calledOff() == nil { // who calls it off says so in the order
		n.submitLater(&ledger.Abort{Machine: t.m.Spec.Name, Move: t.mv.ID, Reason: reason(cause)})
	}
	return fmt.Errorf("%w; the machine runs on at %s", cause, n.site(n.self))
}
