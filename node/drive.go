package node

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/dcnode/dcnode/consensus"
	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/node/order"
)

var (
	_ order.Machine = (*replica)(nil)
	_ order.Timer   = (*replica)(nil)
)

// errEnded: the order has stopped, as the node does.
var errEnded = order.ErrEnded

// replica is this member's copy of the ledger: the Machine that the ordering loop
// drives, and the way by which everyone else here reads and changes it.
type replica struct {
	loop *order.Loop
	self ledger.MemberID
	slog *slog.Logger

	// What follows belongs to the loop.
	state  *ledger.State
	live   bool                    // false while the log is read again: nothing is done then
	flying map[string]chan Verdict // who waits for a transaction, by its ID
	waits  []*wait
	tape   tape     // what has been ordered, for people
	txs    []string // IDs of the event that is being applied
	now    int64    // when it was ordered, ns of the wall clock; 0 while the log is read

	// effect takes what follows from the order. It must not block.
	effect func(ledger.Effect)
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

// openReplica reads the event log in dir and brings hashgraph and ledger to where
// they were.
func openReplica(cfg Config, g Genesis, key ed25519.PrivateKey, self ledger.MemberID) (*replica, error) {
	roster, err := g.consensusRoster()
	if err != nil {
		return nil, err
	}
	r := &replica{self: self, slog: cfg.Log, flying: map[string]chan Verdict{}, effect: func(ledger.Effect) {}}
	if r.state, err = ledger.New(g.ledgerMembers(), g.Rules); err != nil {
		return nil, fmt.Errorf("make ledger: %w", err)
	}
	r.loop, err = order.Open(order.Config{
		Network: g.network(), Roster: roster, Self: uint64(self), Key: key, Machine: r,
		Dir: cfg.Dir, BootID: cfg.BootID, Strict: cfg.Strict, Precise: true,
		Peer:   func(m uint64) peer.ID { return g.peer(ledger.MemberID(m)) },
		Member: func(id peer.ID) uint64 { return uint64(g.member(id)) },
		Log:    cfg.Log,
	})
	if err != nil {
		return nil, err
	}
	r.live = true
	return r, nil
}

// do runs f in the loop and waits for it.
func (r *replica) do(ctx context.Context, f func()) error { return r.loop.Do(ctx, f) }

// Apply implements order.Machine.
func (r *replica) Apply(ev consensus.Ordered) error {
	p := ledger.Place{Index: ev.Index, Round: ev.Round, Time: ledger.Time(ev.Time), Author: ledger.MemberID(ev.Event.Creator)}
	r.txs, r.now = nil, 0
	if r.live {
		r.now = time.Now().UnixNano()
	}
	effects := r.state.Advance(p)
	for _, raw := range ev.Event.Payload {
		effects = append(effects, r.applyTx(p, raw)...)
	}
	r.tape.add(note{place: p, event: ev.Event.Hash(), at: r.now, txs: r.txs})
	if !r.live {
		return nil
	}
	for _, e := range effects {
		r.effect(e)
	}
	r.waits = slices.DeleteFunc(r.waits, func(w *wait) bool {
		come := w.come(r.state)
		if come {
			close(w.done)
		}
		return come
	})
	return nil
}

func (r *replica) applyTx(p ledger.Place, raw []byte) []ledger.Effect {
	tx, err := ledger.Decode(raw)
	if err != nil {
		r.slog.Warn("a transaction is not understood", "index", p.Index, "author", r.state.Site(p.Author), "cause", err)
		return nil
	}
	r.txs = append(r.txs, tx.ID)
	effects, err := r.state.Apply(p, tx)
	if err != nil && r.live {
		r.slog.Debug("refused", "kind", tx.Body.Kind(), "author", r.state.Site(p.Author), "reason", err)
	}
	if done := r.flying[tx.ID]; done != nil && p.Author == r.self {
		delete(r.flying, tx.ID)
		done <- Verdict{ID: tx.ID, Place: p, At: r.now, Refused: err}
	}
	return effects
}

// Snapshot implements order.Machine.
func (r *replica) Snapshot() ([]byte, error) {
	b, err := json.Marshal(r.state)
	if err != nil {
		return nil, fmt.Errorf("encode ledger: %w", err)
	}
	return b, nil
}

// Restore implements order.Machine.
func (r *replica) Restore(snapshot []byte) error {
	s := new(ledger.State)
	if err := json.Unmarshal(snapshot, s); err != nil {
		return fmt.Errorf("read ledger: %w", err)
	}
	r.state = s
	return nil
}

// Due implements order.Timer.
func (r *replica) Due() int64 { return int64(r.state.Due()) }

// Tick implements order.Timer.
func (r *replica) Tick() ([]byte, error) {
	_, raw, err := encode(&ledger.Tick{})
	return raw, err
}

// encode makes a transaction of a body, with an ID of its own.
func encode(body ledger.Body) (id string, raw []byte, err error) {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", nil, fmt.Errorf("name transaction: %w", err)
	}
	id = hex.EncodeToString(b[:])
	raw, err = ledger.Encode(ledger.Tx{ID: id, Body: body})
	return id, raw, err
}

// until waits for the ledger to come to something. come is called in the loop,
// now and after each ordered event, and must neither block nor keep the state.
func (r *replica) until(ctx context.Context, come func(*ledger.State) bool) error {
	w := &wait{come: come, done: make(chan struct{})}
	err := r.do(ctx, func() {
		if come(r.state) {
			close(w.done)
		} else {
			r.waits = append(r.waits, w)
		}
	})
	if err != nil {
		return err
	}
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		_ = r.do(context.WithoutCancel(ctx), func() {
			r.waits = slices.DeleteFunc(r.waits, func(x *wait) bool { return x == w })
		})
		return context.Cause(ctx)
	}
}

// Submit orders a transaction and waits for what the order made of it. If ctx
// ends first the transaction may still be ordered later.
func (r *replica) Submit(ctx context.Context, body ledger.Body) (Verdict, error) {
	id, raw, err := encode(body)
	if err != nil {
		return Verdict{}, err
	}
	done := make(chan Verdict, 1)
	if derr := r.do(ctx, func() {
		if err = r.loop.Enqueue(raw); err == nil {
			r.flying[id] = done
		}
	}); derr != nil {
		return Verdict{}, derr
	}
	if err != nil {
		return Verdict{}, fmt.Errorf("order %s: %w", body.Kind(), err)
	}
	select {
	case v := <-done:
		return v, v.Refused
	case <-r.loop.Ended():
		return Verdict{}, errEnded
	case <-ctx.Done():
		return Verdict{}, fmt.Errorf("%s is not ordered yet: %w", body.Kind(), context.Cause(ctx))
	}
}

// State is a copy of the ledger as of now.
func (r *replica) State(ctx context.Context) (*ledger.State, error) {
	var s *ledger.State
	err := r.do(ctx, func() { s = r.state.Clone() })
	return s, err
}
