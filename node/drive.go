package node

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/dcnode/dcnode/consensus"
	"github.com/dcnode/dcnode/consensus/ledger"
)

// order is the ordering loop: one goroutine that owns the hashgraph, the event
// log, the ledger and the pool of this member's transactions. Everyone else
// talks to it through do.
type order struct {
	genesis Genesis
	key     ed25519.PrivateKey
	self    ledger.MemberID
	core    *consensus.Core
	log     *eventLog
	state   *ledger.State
	slog    *slog.Logger
	start   time.Time

	calls   chan func()
	ended   chan struct{} // closed when run has returned
	wake    chan struct{} // an Add or new payload: look whether an event is due
	replays bool          // the log is being read: nothing is written, sent or done

	pool    []*pending          // waits for the next own event
	flying  map[string]*pending // in an own event, not ordered yet; by transaction ID
	missing map[consensus.Hash]time.Time
	waits   []*wait
	tape    tape     // what has been ordered, for people
	txs     []string // IDs of the event that is being applied
	now     int64    // when it was ordered, ns of the wall clock; 0 while the log is read

	// What leaves the loop. None of these may block.
	publish func(event []byte)
	fetch   func(consensus.Want)
	effect  func(ledger.Effect)
}

// pending is one of this member's transactions on its way into the order.
type pending struct {
	id   string
	raw  []byte
	done chan Verdict // of size 1; nil: nobody waits
}

// Verdict is what the order made of a transaction.
type Verdict struct {
	ID      string // of the transaction
	Place   ledger.Place
	At      int64 // when it was ordered here, ns of the wall clock
	Refused error // a *ledger.RefusedError, or nil
}

// wait is someone who waits for the ledger to come to something.
type wait struct {
	come func(*ledger.State) bool
	done chan struct{}
}

// openOrder reads the event log and brings hashgraph and ledger to where they were.
func openOrder(path string, g Genesis, key ed25519.PrivateKey, self ledger.MemberID, log *slog.Logger) (*order, error) {
	roster, err := g.consensusRoster()
	if err != nil {
		return nil, err
	}
	o := &order{
		genesis: g, key: key, self: self, slog: log, start: time.Now(),
		calls: make(chan func()), ended: make(chan struct{}), wake: make(chan struct{}, 1),
		flying: map[string]*pending{}, missing: map[consensus.Hash]time.Time{},
		publish: func([]byte) {}, fetch: func(consensus.Want) {}, effect: func(ledger.Effect) {},
	}
	if o.core, err = consensus.New(consensus.Config{Network: g.network(), Roster: roster, Self: uint64(self)}); err != nil {
		return nil, fmt.Errorf("make hashgraph: %w", err)
	}
	if o.state, err = ledger.New(g.ledgerMembers(), g.Rules); err != nil {
		return nil, fmt.Errorf("make ledger: %w", err)
	}
	o.replays = true
	o.log, err = openEventLog(path, func(e *consensus.Event) error {
		if err := o.core.Add(e); err != nil && !errors.Is(err, consensus.ErrDuplicate) {
			o.slog.Warn("an event of the log is not used", "event", e.Hash(), "cause", err)
		}
		return o.drain()
	})
	if err != nil {
		return nil, err
	}
	o.replays = false
	return o, nil
}

// run is the loop. It returns when ctx ends or an event cannot be saved: a member
// that cannot save must not speak.
func (o *order) run(ctx context.Context, messages <-chan []byte) error {
	defer close(o.ended)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if err := o.drain(); err != nil {
			return err
		}
		next, err := o.create()
		if err != nil {
			return err
		}
		timer.Reset(next)
		select {
		case b := <-messages:
			o.receive(b)
		case f := <-o.calls:
			f()
		case <-o.wake:
		case <-timer.C:
		case <-ctx.Done():
			return nil
		}
	}
}

var errEnded = errors.New("this node is stopping")

// do runs f in the loop and waits for it.
func (o *order) do(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case o.calls <- func() { defer close(done); f() }:
	case <-o.ended:
		return errEnded
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// drain hands out what the hashgraph has ready: save, send, fetch, apply.
func (o *order) drain() error {
	for rd, ok := o.core.Ready(); ok; rd, ok = o.core.Ready() {
		if !o.replays {
			if err := o.log.append(rd.Save, len(rd.Send) > 0); err != nil {
				return err
			}
			for _, e := range rd.Send {
				o.publish(e.Marshal())
			}
			for _, w := range rd.Missing {
				o.want(w)
			}
			o.retract(rd.Stale)
		}
		for _, ev := range rd.Ordered {
			o.apply(ev)
		}
		o.core.Advance()
	}
	return nil
}

// idle is how long the loop sleeps when nothing is due.
const idle = time.Minute

// create makes an own event if one is due and says when to look again.
func (o *order) create() (time.Duration, error) {
	if o.self == 0 {
		return idle, nil
	}
	o.tick()
	again := o.chase()
	for {
		due, wait := o.core.Due(int64(time.Since(o.start)), len(o.pool) > 0)
		if !due {
			return min(again, o.nextLook(wait)), nil
		}
		var coin [4]byte
		if _, err := rand.Read(coin[:]); err != nil {
			return 0, fmt.Errorf("draw coin: %w", err)
		}
		e := o.core.Next(consensus.Timestamp(time.Now().UnixNano()), binary.BigEndian.Uint32(coin[:]), o.load())
		e.Sign(o.key)
		if err := o.core.Add(e); err != nil {
			return 0, fmt.Errorf("add own event: %w", err)
		}
		if err := o.drain(); err != nil {
			return 0, err
		}
	}
}

// nextLook is the earlier of the hashgraph's wish and the ledger's next deadline.
func (o *order) nextLook(wait int64) time.Duration {
	next := idle
	if wait > 0 {
		next = min(next, time.Duration(wait))
	}
	if due := o.state.Due(); due != 0 {
		until := time.Until(time.Unix(0, int64(due))) + tickSlack
		next = min(next, max(until, tickSlack))
	}
	return next
}

// tickSlack is how long after a deadline a member lets the overlay's time pass
// it, in case somebody else's event does so first.
const tickSlack = 20 * time.Millisecond

// tick orders an empty transaction when a deadline of the ledger has passed and
// the overlay is idle: consensus time stands still without events.
func (o *order) tick() {
	due := o.state.Due()
	if due == 0 || len(o.pool) > 0 || len(o.flying) > 0 || time.Now().UnixNano() < int64(due)+int64(tickSlack) {
		return
	}
	if err := o.submit(&ledger.Tick{}, nil); err != nil {
		o.slog.Error("order a tick", "cause", err)
	}
}

// load takes what fits into one event from the pool.
func (o *order) load() [][]byte {
	var payload [][]byte
	room := consensus.PayloadRoom(len(o.genesis.Members))
	for len(o.pool) > 0 && len(payload) < consensus.MaxPayload {
		p := o.pool[0]
		if room -= len(p.raw) + 4; room < 0 {
			break
		}
		payload = append(payload, p.raw)
		o.flying[p.id] = p
		o.pool = o.pool[1:]
	}
	return payload
}

// submit puts a transaction into the pool. In the loop only.
func (o *order) submit(body ledger.Body, done chan Verdict) error {
	var id [8]byte
	if _, err := rand.Read(id[:]); err != nil {
		return fmt.Errorf("name transaction: %w", err)
	}
	tx := ledger.Tx{ID: hex.EncodeToString(id[:]), Body: body}
	raw, err := ledger.Encode(tx)
	if err != nil {
		return err
	}
	o.pool = append(o.pool, &pending{id: tx.ID, raw: raw, done: done})
	select {
	case o.wake <- struct{}{}:
	default:
	}
	return nil
}

// retract puts the transactions of own events that will never be ordered back.
func (o *order) retract(stale []*consensus.Event) {
	for _, e := range stale {
		for _, raw := range e.Payload {
			tx, err := ledger.Decode(raw)
			if err != nil {
				continue
			}
			p := o.flying[tx.ID]
			if p == nil {
				p = &pending{id: tx.ID, raw: raw}
			}
			delete(o.flying, tx.ID)
			o.pool = append(o.pool, p)
		}
	}
}

// receive takes an event from the overlay.
func (o *order) receive(raw []byte) {
	e, err := consensus.Unmarshal(raw)
	if err != nil {
		o.slog.Warn("drop an event", "cause", err)
		return
	}
	o.add(e)
}

func (o *order) add(e *consensus.Event) {
	if o.core.Has(e.Hash()) {
		return
	}
	id := o.genesis.peer(ledger.MemberID(e.Creator))
	if id == "" || e.Network != o.genesis.network() {
		o.slog.Warn("drop an event of a stranger", "creator", e.Creator)
		return
	}
	key, err := Card{Peer: id}.publicKey()
	if err == nil {
		err = e.Verify(key)
	}
	if err == nil {
		err = o.core.Add(e)
	}
	if err != nil && !errors.Is(err, consensus.ErrDuplicate) && !errors.Is(err, consensus.ErrAncient) {
		o.slog.Warn("drop an event", "creator", e.Creator, "cause", err)
	}
}

// fetchAgain is how long a fetched parent may take before it is asked for again.
const fetchAgain = 2 * time.Second

func (o *order) want(w consensus.Want) {
	if t, ok := o.missing[w.Hash]; ok && time.Since(t) < fetchAgain {
		return
	}
	o.missing[w.Hash] = time.Now()
	o.fetch(w)
}

// chase asks again for parents that have not come, and says when to do so again.
func (o *order) chase() time.Duration {
	lacking := o.core.Missing()
	if len(lacking) == 0 {
		clear(o.missing)
		return idle
	}
	for _, w := range lacking {
		o.want(w)
	}
	return fetchAgain
}

// apply gives one ordered event to the ledger.
func (o *order) apply(ev consensus.Ordered) {
	p := ledger.Place{Index: ev.Index, Round: ev.Round, Time: ledger.Time(ev.Time), Author: ledger.MemberID(ev.Event.Creator)}
	o.txs, o.now = nil, 0
	if !o.replays {
		o.now = time.Now().UnixNano()
	}
	effects := o.state.Advance(p)
	for _, raw := range ev.Event.Payload {
		effects = append(effects, o.applyTx(p, raw)...)
	}
	o.tape.add(note{place: p, event: ev.Event.Hash(), at: o.now, txs: o.txs})
	if o.replays {
		return
	}
	for _, e := range effects {
		o.effect(e)
	}
	o.waits = slices.DeleteFunc(o.waits, func(w *wait) bool {
		come := w.come(o.state)
		if come {
			close(w.done)
		}
		return come
	})
}

// until waits for the ledger to come to something. come is called in the loop,
// now and after each ordered event, and must neither block nor keep the state.
func (o *order) until(ctx context.Context, come func(*ledger.State) bool) error {
	w := &wait{come: come, done: make(chan struct{})}
	err := o.do(ctx, func() {
		if come(o.state) {
			close(w.done)
		} else {
			o.waits = append(o.waits, w)
		}
	})
	if err != nil {
		return err
	}
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		_ = o.do(context.WithoutCancel(ctx), func() {
			o.waits = slices.DeleteFunc(o.waits, func(x *wait) bool { return x == w })
		})
		return context.Cause(ctx)
	}
}

func (o *order) applyTx(p ledger.Place, raw []byte) []ledger.Effect {
	tx, err := ledger.Decode(raw)
	if err != nil {
		o.slog.Warn("a transaction is not understood", "index", p.Index, "author", o.state.Site(p.Author), "cause", err)
		return nil
	}
	o.txs = append(o.txs, tx.ID)
	effects, err := o.state.Apply(p, tx)
	if err != nil && !o.replays {
		o.slog.Debug("refused", "kind", tx.Body.Kind(), "author", o.state.Site(p.Author), "reason", err)
	}
	if pend := o.flying[tx.ID]; pend != nil && p.Author == o.self {
		delete(o.flying, tx.ID)
		if pend.done != nil {
			pend.done <- Verdict{ID: tx.ID, Place: p, At: o.now, Refused: err}
		}
	}
	return effects
}

// Submit orders a transaction and waits for what the order made of it. If ctx
// ends first the transaction may still be ordered later.
func (o *order) Submit(ctx context.Context, body ledger.Body) (Verdict, error) {
	done := make(chan Verdict, 1)
	var err error
	if derr := o.do(ctx, func() { err = o.submit(body, done) }); derr != nil {
		return Verdict{}, derr
	}
	if err != nil {
		return Verdict{}, err
	}
	select {
	case v := <-done:
		return v, v.Refused
	case <-o.ended:
		return Verdict{}, errEnded
	case <-ctx.Done():
		return Verdict{}, fmt.Errorf("%s is not ordered yet: %w", body.Kind(), context.Cause(ctx))
	}
}

// State is a copy of the ledger as of now.
func (o *order) State(ctx context.Context) (*ledger.State, error) {
	var s *ledger.State
	err := o.do(ctx, func() { s = o.state.Clone() })
	return s, err
}

// member is the roster number of a peer.
func (o *order) member(id peer.ID) ledger.MemberID { return o.genesis.member(id) }
