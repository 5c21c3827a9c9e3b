package node

import (
	"cmp"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/dcnode/dcnode/consensus"
	"github.com/dcnode/dcnode/node/eventlog"
	"github.com/dcnode/dcnode/node/order"
)

// Audit is what Verify found: everything in it was recomputed.
type Audit struct {
	Events  uint64   `json:"events"`  // in the log, each with a valid signature
	Links   uint64   `json:"links"`   // to parents that are in the log, as they say
	Ancient uint64   `json:"ancient"` // links to events that were too old to count
	Ordered uint64   `json:"ordered"` // events in the order
	Round   uint64   `json:"round"`   // the last that is decided
	Time    int64    `json:"time"`    // consensus time of the last event in the order, ns since 1970
	Txs     uint64   `json:"transactions"`
	Unknown uint64   `json:"unknown"` // of these, not understood, as by every member
	Forks   []string `json:"forks,omitempty"`
	Roots   []Root   `json:"roots"` // at the checkpoints, at the index asked for, and at the end
	Gaps    []string `json:"gaps,omitempty"`
	Notes   []string `json:"notes,omitempty"`
}

// Root is the CID of the ledger's state at a place in the order.
type Root struct {
	Ordered uint64 `json:"ordered"` // events that led to it
	Round   uint64 `json:"round,omitempty"`
	Root    string `json:"root"`
	Stored  bool   `json:"stored,omitempty"` // the node has kept a checkpoint there, and it is the same
}

// AuditError is the first thing in a history that is not as it must be.
type AuditError struct {
	Event  uint64 // its place in the log
	Hash   consensus.Hash
	Member uint64
	Site   string
	Cause  error
}

func (e *AuditError) Error() string {
	return fmt.Sprintf("event %d of the log (%x, by %s): %v", e.Event, e.Hash[:8], e.Site, e.Cause)
}

func (e *AuditError) Unwrap() error { return e.Cause }

// Verify checks every signature and every link of the history, computes the order
// from the genesis on and the ledger from the order, and compares with the
// checkpoints that the node has kept. at asks for the root of the state that the
// first at events of the order lead to; 0 for none.
func (h *History) Verify(at uint64) (*Audit, error) {
	a, err := newAuditor(h)
	if err != nil {
		return nil, err
	}
	a.at = at
	err = a.run()
	return a.finish(err)
}

// auditor runs a history through a hashgraph and a ledger of its own.
type auditor struct {
	h        *History
	trusting bool // look at the order only
	at       uint64

	core    *consensus.Core
	start   uint64 // round of the checkpoint that core goes on from
	oldest  uint64 // birth round that is not ancient
	replica *replica
	known   map[consensus.Hash]link
	swept   int // entries that known had after the last sweep
	batch   []signed
	stored  []eventlog.Checkpoint // the newest first
	met     map[uint64]bool       // rounds of those that the order has come by
	due     []consensus.Checkpoint
	epochs  []consensus.Epoch
	audit   Audit
}

// link is what a parent's name must agree with.
type link struct{ creator, birth uint64 }

// signed is an event whose signature is to be checked.
type signed struct {
	pos eventlog.Position
	ev  *consensus.Event
	key ed25519.PublicKey
}

func newAuditor(h *History) (*auditor, error) {
	a := &auditor{h: h, known: map[consensus.Hash]link{}, met: map[uint64]bool{}}
	var err error
	if a.stored, err = h.log.Checkpoints(); err != nil {
		return nil, err
	}
	return a, a.begin(nil)
}

// begin makes hashgraph and ledger anew: at the genesis, or at a checkpoint.
func (a *auditor) begin(from *eventlog.Checkpoint) error {
	g := a.h.genesis
	roster, err := g.consensusRoster()
	if err != nil {
		return err
	}
	cfg := consensus.Config{Network: g.network(), Roster: roster}
	if a.replica, err = newReplica(g, slog.New(slog.DiscardHandler)); err != nil {
		return err
	}
	if from != nil {
		if cfg.From, err = consensus.UnmarshalCheckpoint(from.Body); err != nil {
			return fmt.Errorf("read checkpoint of round %d: %w", from.Round, err)
		}
		if err := a.replica.Restore(from.Root, from.Snapshot); err != nil {
			return err
		}
		a.audit.Ordered, a.start = cfg.From.Ordered, from.Round
	}
	if a.core, err = consensus.New(cfg); err != nil {
		return fmt.Errorf("make hashgraph: %w", err)
	}
	a.core.Replay(true) // what the node's hashgraph took, this one takes
	a.learn()
	return nil
}

// learn takes down rosters that have become known.
func (a *auditor) learn() {
	for _, ep := range a.core.Epochs() {
		n := len(a.epochs)
		switch {
		case n == 0 || ep.From > a.epochs[n-1].From:
			a.epochs = append(a.epochs, ep)
		case ep.From == a.epochs[n-1].From: // changed again in one round
			a.epochs[n-1] = ep
		}
	}
	a.oldest = a.core.Status().Oldest
	for _, m := range a.replica.state.Members() {
		a.h.joined[m.ID] = m.Site
	}
}

// key is the key that an event must be signed with.
func (a *auditor) key(e *consensus.Event) (ed25519.PublicKey, bool) {
	if key, ok := a.core.Key(e.Creator, e.BirthRound); ok {
		return key, true
	}
	for _, ep := range slices.Backward(a.epochs) { // one of before a gap
		for _, m := range ep.Roster {
			if ep.From <= e.BirthRound && m.ID == e.Creator {
				return m.Key, true
			}
		}
	}
	return nil, false
}

func (a *auditor) run() error {
	for rec, err := range a.h.log.Records() {
		switch {
		case err != nil:
			return err
		case rec.Adopted != nil:
			err = a.leap(rec.Adopted, rec.Position)
		default:
			err = a.take(rec.Position, rec.Event)
		}
		if err != nil {
			// A bad signature is the reason for what is wrong after it.
			return cmp.Or(a.flush(), err)
		}
	}
	return a.flush()
}

// take checks one event and goes on with the order as far as it leads.
func (a *auditor) take(pos eventlog.Position, e *consensus.Event) error {
	h := e.Hash()
	bad := func(err error) error {
		return &AuditError{Event: uint64(pos), Hash: h, Member: e.Creator, Site: a.h.site(e.Creator), Cause: err}
	}
	if !a.trusting {
		key, ok := a.key(e)
		if !ok {
			return bad(fmt.Errorf("member %d is not in the roster of round %d", e.Creator, e.BirthRound))
		}
		a.batch = append(a.batch, signed{pos, e, key})
		if len(a.batch) >= 1024 {
			if err := a.flush(); err != nil {
				return err
			}
		}
		if err := a.follow(e); err != nil {
			return bad(err)
		}
		a.known[h] = link{e.Creator, e.BirthRound}
		a.audit.Events++
	}
	switch err := a.core.Add(e); {
	case err == nil, errors.Is(err, consensus.ErrAncient), errors.Is(err, consensus.ErrDuplicate):
	case !a.trusting:
		return bad(err)
	}
	if err := a.drain(); err != nil {
		return bad(err)
	}
	a.sweep()
	return nil
}

// follow checks the links of an event: what it says of its parents is so, and those
// that can matter are here.
func (a *auditor) follow(e *consensus.Event) error {
	for i := range e.Parents {
		p := &e.Parents[i]
		switch have, ok := a.known[p.Hash]; {
		case p.BirthRound < a.oldest: // it counts for nothing, whatever is said of it
			a.audit.Ancient++
		case ok && (have.creator != p.Creator || have.birth != p.BirthRound):
			return fmt.Errorf("it says of parent %x that it is by member %d in round %d, which is by member %d in round %d", p.Hash[:8], p.Creator, p.BirthRound, have.creator, have.birth)
		case ok:
			a.audit.Links++
		default:
			return fmt.Errorf("its parent %x of round %d is not in the log before it", p.Hash[:8], p.BirthRound)
		}
	}
	return nil
}

// keepLinks is how many rounds behind the oldest open one events are remembered.
// A link to an older event counts for nothing.
const keepLinks = 1024

// sweep lets go of events that are too old to be of interest.
func (a *auditor) sweep() {
	if len(a.known) < 2*a.swept+100_000 {
		return
	}
	for h, l := range a.known {
		if l.birth+keepLinks < a.oldest {
			delete(a.known, h)
		}
	}
	a.swept = len(a.known)
}

// flush checks the signatures that have gathered, on all cores.
func (a *auditor) flush() error {
	bad := make([]error, len(a.batch))
	var g errgroup.Group
	cores := runtime.GOMAXPROCS(0)
	for c := range cores {
		g.Go(func() error {
			for i := c; i < len(a.batch); i += cores {
				bad[i] = a.batch[i].ev.Verify(a.batch[i].key)
			}
			return nil
		})
	}
	_ = g.Wait()
	for i, err := range bad {
		if s := a.batch[i]; err != nil {
			a.batch = nil
			return &AuditError{Event: uint64(s.pos), Hash: s.ev.Hash(), Member: s.ev.Creator, Site: a.h.site(s.ev.Creator), Cause: err}
		}
	}
	a.batch = a.batch[:0]
	return nil
}

// drain applies what is ordered now.
func (a *auditor) drain() error {
	for rd, ok := a.core.Ready(); ok; rd, ok = a.core.Ready() {
		if len(rd.Save)+len(rd.Checkpoints)+len(rd.Ordered)+len(rd.Stale) == 0 {
			return nil // only parents are wanted, and there is nobody to ask
		}
		a.due = append(a.due, rd.Checkpoints...)
		if err := a.compare(); err != nil {
			return err
		}
		for _, ev := range rd.Ordered {
			if err := a.apply(ev); err != nil {
				return err
			}
		}
		a.core.Advance()
		a.learn()
	}
	return nil
}

func (a *auditor) apply(ev consensus.Ordered) error {
	if err := a.replica.Apply(ev); err != nil {
		return fmt.Errorf("apply event %d of the order: %w", ev.Index, err)
	}
	if c, ok := order.Machine(a.replica).(order.Changer); ok {
		for _, ch := range c.Changes() {
			if err := a.core.Change(ev.Round, ch.Roster, ch.Params); err != nil {
				c.Refused(ch, err) // by every member
			}
		}
	}
	a.audit.Ordered, a.audit.Round, a.audit.Time = ev.Index+1, ev.Round, int64(ev.Time)
	a.audit.Txs += uint64(len(ev.Event.Payload))
	a.audit.Unknown += uint64(len(ev.Event.Payload) - len(a.replica.txs))
	if a.audit.Ordered == a.at {
		if err := a.root(0, false); err != nil {
			return err
		}
	}
	return a.compare()
}

// root takes down the root of the state as it is now.
func (a *auditor) root(round uint64, stored bool) error {
	c, err := a.replica.state.Root()
	if err != nil {
		return err
	}
	a.audit.Roots = append(a.audit.Roots, Root{Ordered: a.audit.Ordered, Round: round, Root: c.String(), Stored: stored})
	return nil
}

// compare takes the checkpoints that are due at this place of the order and
// compares them with those that the node has kept.
func (a *auditor) compare() error {
	for len(a.due) > 0 && a.due[0].Ordered == a.audit.Ordered {
		cp := a.due[0]
		a.due = a.due[1:]
		if a.trusting {
			continue
		}
		stored := false
		for i := range a.stored {
			if s := &a.stored[i]; s.Round == cp.Round {
				if err := a.agrees(&cp, s); err != nil {
					return fmt.Errorf("checkpoint of round %d: %w", cp.Round, err)
				}
				stored, a.met[cp.Round] = true, true
			}
		}
		if err := a.root(cp.Round, stored); err != nil {
			return err
		}
	}
	return nil
}

func (a *auditor) agrees(cp *consensus.Checkpoint, s *eventlog.Checkpoint) error {
	have, err := consensus.UnmarshalCheckpoint(s.Body)
	if err != nil {
		return fmt.Errorf("the node has kept one that cannot be read: %w", err)
	}
	if have.Hash() != cp.Hash() || s.MinBirth != cp.MinBirth {
		return fmt.Errorf("the node has kept another than its events lead to: %d events in the order instead of %d, or other judges", have.Ordered, cp.Ordered)
	}
	c, err := a.replica.state.Root()
	if err != nil {
		return err
	}
	root := digest(c)
	if root != s.Root {
		return fmt.Errorf("after %d events of the order the state is %x; the node has kept %x", a.audit.Ordered, root, s.Root)
	}
	if err := a.replica.Check(root, s.Snapshot); err != nil {
		return fmt.Errorf("after %d events of the order the state is %x; what the node has kept of it is not: %w", a.audit.Ordered, root, err)
	}
	return nil
}

var errGap = errors.New("and has kept no checkpoint since: the order from there on cannot be recomputed from its files")

// leap goes over a gap in the history, on to the checkpoint that the node got from
// others or, if it has not kept that, to the next one that it has.
func (a *auditor) leap(to *eventlog.Adoption, at eventlog.Position) error {
	gap := fmt.Sprintf("before event %d of the log: the node was too far behind and took over the checkpoint of round %d", at, to.Round)
	if to.Round <= a.start {
		a.audit.Gaps = append(a.audit.Gaps, gap)
		return nil
	}
	for _, s := range slices.Backward(a.stored) {
		if s.Round < to.Round {
			continue
		}
		if s.Round > to.Round {
			gap += fmt.Sprintf("; it has kept none before that of round %d, so the order is not recomputed up to there", s.Round)
		}
		a.audit.Gaps = append(a.audit.Gaps, gap)
		if err := errors.Join(a.flush(), a.root(a.audit.Round, false)); err != nil {
			return err
		}
		a.met[s.Round] = true
		if err := a.begin(&s); err != nil {
			return err
		}
		return a.again(s.MinBirth, at)
	}
	return fmt.Errorf("%s, %w", gap, errGap)
}

// again feeds the events of the log before a position that still count after a leap.
func (a *auditor) again(birth uint64, before eventlog.Position) error {
	for rec, err := range a.h.log.Records() {
		switch {
		case err != nil:
			return err
		case rec.Position >= before:
			return nil
		case rec.Event == nil || rec.Event.BirthRound < birth:
			continue
		}
		if err := a.core.Add(rec.Event); err == nil {
			if err := a.drain(); err != nil {
				return err
			}
		}
	}
	return nil
}

// finish sums up.
func (a *auditor) finish(err error) (*Audit, error) {
	out := &a.audit
	for _, f := range a.core.Forks() {
		x, y := f.A.Hash(), f.B.Hash()
		out.Forks = append(out.Forks, fmt.Sprintf("%s has signed %x and %x", a.h.site(f.A.Creator), x[:8], y[:8]))
	}
	out.Notes = a.h.Notes()
	if err != nil {
		return out, fmt.Errorf("verify history: %w", err)
	}
	if n := a.core.Status().Waiting; n > 0 {
		return out, fmt.Errorf("verify history: %d events of the log were never in the graph: their parents are lacking", n)
	}
	for i := range a.stored {
		if s := &a.stored[i]; !a.met[s.Round] {
			return out, fmt.Errorf("verify history: the node has kept a checkpoint of round %d, but its events lead to round %d only", s.Round, out.Round)
		}
	}
	return out, a.root(out.Round, false)
}
