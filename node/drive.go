package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/dcnode/dcnode/consensus"
	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/node/order"
)

var (
	_ order.Machine = (*replica)(nil)
	_ order.Timer   = (*replica)(nil)
	_ order.Changer = (*replica)(nil)
	_ order.Keeper  = (*replica)(nil)

	_ order.Follower = (*replica)(nil)
)

// errEnded: the order has stopped, as the node does.
var errEnded = order.ErrEnded

// replica is this member's copy of the ledger: the Machine that the ordering loop
// drives, and the way by which everyone else here reads and changes it.
type replica struct {
	loop    *order.Loop
	network consensus.Hash
	self    ledger.MemberID
	dir     string // the data directory
	slog    *slog.Logger

	// What follows belongs to the loop.
	state  *ledger.State
	live   bool                  // false while the log is read again: nothing is done then
	roster uint64                // version of the roster that the order has been told of
	seq    uint64                // of the last own transaction
	flying map[word]chan Verdict // who waits for a transaction
	waits  []*wait
	tape   tape     // what has been ordered, for people
	txs    []string // names of the transactions of the event that is being applied
	now    int64    // when it was ordered, ns of the wall clock; 0 while the log is read
	past   past     // what the ledger was lately
	doubt  doubt    // whether others have computed the same
	scribe scribe   // what came of each transaction, for people

	// effect takes what follows from the order. It must not block.
	effect func(ledger.Effect)
	// changed takes the state when its roster has changed, or another roster has come
	// into force in the order. It must not block.
	changed func(*ledger.State)
}

// word names a transaction that this member carries: its own, or an account's.
type word struct {
	account string
	seq     uint64
}

// String is what people see of it.
func (w word) String() string {
	s := strconv.FormatUint(w.seq, 16)
	if w.account != "" {
		s = w.account + "/" + s
	}
	return s
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

// newReplica is one that has applied nothing.
func newReplica(g Genesis, log *slog.Logger) (*replica, error) {
	r := &replica{
		network: g.network(), slog: log, flying: map[word]chan Verdict{},
		effect: func(ledger.Effect) {}, changed: func(*ledger.State) {}, past: newPast(),
	}
	members, err := g.ledgerMembers()
	if err == nil {
		r.state, err = ledger.New(members, g.Rules)
	}
	if err != nil {
		return nil, fmt.Errorf("make ledger: %w", err)
	}
	return r, nil
}

// openReplica reads the event log in dir and brings hashgraph and ledger to where
// they were. trust is the roster that an invited member was told of.
func openReplica(cfg Config, g Genesis, keys identity, self ledger.MemberID, trust []consensus.Member, who directory) (*replica, error) {
	private, err := keys.private()
	if err != nil {
		return nil, err
	}
	roster, err := g.consensusRoster()
	if err != nil {
		return nil, err
	}
	r, err := newReplica(g, cfg.Log)
	if err != nil {
		return nil, err
	}
	r.self, r.dir = self, cfg.Dir
	if r.scribe, err = openScribe(cfg.Dir, r.network); err != nil {
		return nil, err
	}
	r.loop, err = order.Open(order.Config{
		Network: r.network, Roster: roster, Trust: trust, Self: uint64(self), Keys: private, Machine: r,
		Dir: cfg.Dir, BootID: cfg.BootID, Strict: cfg.Strict, Precise: true,
		Peer:   func(m uint64) peer.ID { return who.peer(ledger.MemberID(m)) },
		Member: func(id peer.ID) uint64 { return uint64(who.member(id)) },
		Log:    cfg.Log,
	})
	if err != nil {
		_ = r.scribe.journal.Close()
		return nil, err
	}
	r.live, r.seq = true, r.lastNumber()
	return r, nil
}

// lastNumber is one that no own transaction of an earlier run is above, ordered or not:
// the clock may have been set back since, and of two with one number the second is
// refused, and who waits for it would take the verdict on the first for its own. Own
// events grow later by more than they hold transactions, whatever the clock says (see
// consensus.Core.Next), and so does what they are numbered by.
func (r *replica) lastNumber() uint64 {
	n := r.state.LastSaid(r.self)
	last, waiting := r.loop.Left()
	if last != nil {
		n = max(n, uint64(max(last.Time, 0))+uint64(len(last.Payload)))
	}
	for _, raw := range waiting {
		if tx, err := ledger.Decode(raw); err == nil && tx.Account == "" {
			n = max(n, tx.Seq)
		}
	}
	return n
}

// directory translates between members and peers.
type directory interface {
	peer(id ledger.MemberID) peer.ID
	member(id peer.ID) ledger.MemberID
}

// do runs f in the loop and waits for it.
func (r *replica) do(ctx context.Context, f func()) error { return r.loop.Do(ctx, f) }

// Apply implements order.Machine.
func (r *replica) Apply(ev consensus.Ordered) error {
	p := ledger.Place{
		Index: ev.Index, Round: ev.Round, Time: ledger.Time(ev.Time),
		Author: ledger.MemberID(ev.Event.Creator), Event: ev.Event.Hash(),
	}
	r.txs, r.now = nil, 0
	if r.live {
		r.now = time.Now().UnixNano()
	}
	version := r.state.RosterVersion()
	effects := r.state.Advance(p)
	r.scribe.fell(r.state, p, effects)
	r.past.step(r.state)
	for i, raw := range ev.Event.Payload {
		effects = append(effects, r.applyTx(p, i, raw)...)
		r.past.step(r.state)
	}
	r.past.event(p, r.state)
	r.scribe.flush()
	r.tape.add(note{place: p, event: p.Event, at: r.now, txs: r.txs})
	if !r.live {
		return nil
	}
	if err := r.compare(p); err != nil {
		return err
	}
	if r.state.RosterVersion() != version || slices.ContainsFunc(effects, func(e ledger.Effect) bool { return e.Kind == ledger.KindRoster }) {
		r.changed(r.state)
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

func (r *replica) applyTx(p ledger.Place, i int, raw []byte) []ledger.Effect {
	tx, err := ledger.Decode(raw)
	if err != nil {
		r.scribe.unknown(r.state, p, i, raw, err)
		r.slog.Warn("a transaction is not understood", "index", p.Index, "author", r.state.Site(p.Author), "cause", err)
		return nil
	}
	w := word{tx.Account, tx.Seq}
	r.txs = append(r.txs, w.String())
	effects, err := r.state.Apply(r.network, p, tx)
	r.scribe.said(r.state, p, i, raw, tx, effects, err)
	r.doubt.take(p, tx.Body, err)
	if err != nil && r.live {
		r.slog.Debug("refused", "kind", tx.Body.Kind(), "author", r.state.Site(p.Author), "reason", err)
	}
	if done := r.flying[w]; done != nil && p.Author == r.self {
		delete(r.flying, w)
		done <- Verdict{ID: w.String(), Place: p, At: r.now, Refused: err}
	}
	return effects
}

// Changes implements order.Changer: the roster, if the last event has changed it.
func (r *replica) Changes() []order.Change {
	v := r.state.RosterVersion()
	if v == r.roster {
		return nil
	}
	r.roster = v
	return []order.Change{{Roster: consensusMembers(r.state.Members())}}
}

// InForce implements order.Follower.
func (r *replica) InForce([]consensus.Member) {
	if r.live {
		r.changed(r.state)
	}
}

// Refused implements order.Changer. The ledger lets no roster pass that the order would
// refuse.
func (r *replica) Refused(_ order.Change, cause error) {
	r.slog.Error("the order refuses a roster of the ledger: this is a fault of dcnode", "version", r.roster, "cause", cause)
}

// consensusMembers are the ledger's members as the order counts them.
func consensusMembers(members []*ledger.Member) []consensus.Member {
	out := make([]consensus.Member, len(members))
	for i, m := range members {
		out[i] = consensus.Member{ID: uint64(m.ID), Key: m.Key, Weight: m.Weight}
	}
	return out
}

// digest is what a CID says of a state.
func digest(c cid.Cid) (d [32]byte) {
	h := c.Hash() // its last 32 bytes are the SHA-256
	copy(d[:], h[max(0, len(h)-len(d)):])
	return d
}

// Snapshot implements order.Machine.
func (r *replica) Snapshot() ([32]byte, []byte, error) {
	c, b, err := r.state.Snapshot()
	return digest(c), b, err
}

// Keep implements order.Keeper.
func (r *replica) Keep() {
	if j := r.scribe.journal; j != nil {
		if err := j.Sync(); err != nil {
			r.slog.Warn("the journal is not safe on the disk", "cause", err)
		}
	}
}

// Check implements order.Machine.
func (r *replica) Check(root [32]byte, snapshot []byte) error {
	_, err := load(root, snapshot)
	return err
}

// Restore implements order.Machine.
func (r *replica) Restore(root [32]byte, snapshot []byte) error {
	s, err := load(root, snapshot)
	if err == nil {
		r.state, r.roster = s, s.RosterVersion()
		r.scribe.gap(r.dir, s.Next())
	}
	return err
}

func load(root [32]byte, snapshot []byte) (*ledger.State, error) {
	s, err := ledger.Load(snapshot)
	if err != nil {
		return nil, err
	}
	c, err := s.Root()
	if err != nil {
		return nil, err
	}
	if have := digest(c); have != root {
		return nil, fmt.Errorf("read ledger: its root is %x, want %x", have, root)
	}
	return s, nil
}

// Due implements order.Timer. A roster that is to come needs rounds to come to.
func (r *replica) Due() int64 {
	if r.loop != nil && r.loop.Upcoming() {
		return 1
	}
	return int64(r.state.Due())
}

// Tick implements order.Timer.
func (r *replica) Tick() ([]byte, error) {
	_, raw, err := r.encode(&ledger.Tick{})
	return raw, err
}

// encode makes a transaction of a body, with a number of its own: the time, so that
// none is used again after a restart, and more than any before, whatever the clock
// says. In the loop.
func (r *replica) encode(body ledger.Body) (word, []byte, error) {
	seq := max(r.seq+1, uint64(max(time.Now().UnixNano(), 0)))
	raw, err := ledger.Encode(ledger.Tx{Seq: seq, Body: body})
	if err == nil {
		r.seq = seq
	}
	return word{seq: seq}, raw, err
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
	return r.submit(ctx, body.Kind(), func() (word, []byte, error) { return r.encode(body) })
}

// SubmitSigned does the same with a transaction that an account has signed.
func (r *replica) SubmitSigned(ctx context.Context, tx ledger.Tx) (Verdict, error) {
	return r.submit(ctx, tx.Body.Kind(), func() (word, []byte, error) {
		w := word{tx.Account, tx.Seq}
		if r.flying[w] != nil {
			return w, nil, errors.New("it is being ordered already")
		}
		raw, err := ledger.Encode(tx)
		return w, raw, err
	})
}

// submit orders what encode, called in the loop, makes.
func (r *replica) submit(ctx context.Context, kind ledger.Kind, encode func() (word, []byte, error)) (Verdict, error) {
	done := make(chan Verdict, 1)
	var err error
	if derr := r.do(ctx, func() {
		var w word
		var raw []byte
		if w, raw, err = encode(); err != nil {
			return
		}
		if err = r.loop.Enqueue(raw); err == nil {
			r.flying[w] = done
		}
	}); derr != nil {
		return Verdict{}, derr
	}
	if err != nil {
		return Verdict{}, fmt.Errorf("order %s: %w", kind, err)
	}
	select {
	case v := <-done:
		return v, v.Refused
	case <-r.loop.Ended():
		return Verdict{}, errEnded
	case <-ctx.Done():
		return Verdict{}, fmt.Errorf("%s is not ordered yet: %w", kind, context.Cause(ctx))
	}
}

// State is a copy of the ledger as of now.
func (r *replica) State(ctx context.Context) (*ledger.State, error) {
	var s *ledger.State
	err := r.do(ctx, func() { s = r.state.Clone() })
	return s, err
}

// Root is a copy of the ledger as of now, and its root. A root is only ever computed
// in the loop: states that share blocks share what is known of them.
func (r *replica) Root(ctx context.Context) (*ledger.State, cid.Cid, error) {
	var s *ledger.State
	var c cid.Cid
	var err error
	if derr := r.do(ctx, func() {
		s = r.state.Clone()
		c, err = r.state.Root()
	}); derr != nil {
		return nil, c, derr
	}
	return s, c, err
}
