package ledgertest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"

	"github.com/ipfs/go-cid"

	"github.com/dcnode/dcnode/consensus/ledger"
)

// Counts is what has happened in scripts.
type Counts struct {
	Events, Held, Refused, Undecodable, Reloads, Clones int

	Kinds map[ledger.Kind]int // of effects
	Said  map[ledger.Kind]int // of transactions that held
}

// Add adds what has happened elsewhere.
func (c *Counts) Add(o *Counts) {
	c.Events, c.Held, c.Refused, c.Undecodable = c.Events+o.Events, c.Held+o.Held, c.Refused+o.Refused, c.Undecodable+o.Undecodable
	c.Reloads, c.Clones = c.Reloads+o.Reloads, c.Clones+o.Clones
	if c.Kinds == nil {
		c.Kinds, c.Said = map[ledger.Kind]int{}, map[ledger.Kind]int{}
	}
	for k, n := range o.Kinds {
		c.Kinds[k] += n
	}
	for k, n := range o.Said {
		c.Said[k] += n
	}
}

// run is a script that is being run: by one state that the model looks at, and by
// replicas that do the same otherwise.
type run struct {
	Counts
	script   *Script
	model    *model
	state    *ledger.State
	reloaded *ledger.State // is loaded from its snapshot now and then
	cloned   *ledger.State // is a clone of itself now and then
}

func newRun(s *Script) (*run, error) {
	r := &run{script: s, model: newModel(s), Counts: Counts{Kinds: map[ledger.Kind]int{}, Said: map[ledger.Kind]int{}}}
	for _, to := range []**ledger.State{&r.state, &r.reloaded, &r.cloned} {
		state, err := ledger.New(s.Founders, s.Rules)
		if err != nil {
			return nil, err
		}
		*to = state
	}
	return r, nil
}

// chance is true for one in n events, the same ones in a script that was shrunk.
func (r *run) chance(p ledger.Place, salt, n uint64) bool {
	x := (p.Index+1)*0x9e3779b97f4a7c15*(2*salt+1) ^ r.script.Seed*0xbf58476d1ce4e5b9
	x = (x ^ x>>31) * 0x94d049bb133111eb
	return (x^x>>29)%n == 0
}

// event runs one event at every replica and compares them.
func (r *run) event(ev Event) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("event %d: panic: %v\n%s", ev.Place.Index, p, debug.Stack())
		}
	}()
	r.Events++
	if err := r.reload(ev.Place); err != nil {
		return fmt.Errorf("before event %d: %w", ev.Place.Index, err)
	}
	r.clone(ev)
	if err := r.apply(ev.Place, nil); err != nil {
		return fmt.Errorf("event %d: %w", ev.Place.Index, err)
	}
	for i, raw := range ev.Txs {
		if err := r.apply(ev.Place, raw); err != nil {
			return fmt.Errorf("event %d, transaction %d: %w", ev.Place.Index, i, err)
		}
	}
	if r.chance(ev.Place, 3, 8) {
		return r.equal(ev.Place)
	}
	return nil
}

// apply is one step: the passing of time if raw is nil.
func (r *run) apply(p ledger.Place, raw []byte) error {
	type result struct {
		out []ledger.Effect
		err error
	}
	var results [3]result
	st := &step{place: p}
	for i, s := range []*ledger.State{r.state, r.reloaded, r.cloned} {
		if i == 0 {
			st.pre = s.Clone()
		}
		if raw == nil {
			results[i].out = s.Advance(p)
			continue
		}
		tx, err := ledger.Decode(raw)
		if err != nil {
			r.Undecodable++
			return nil
		}
		if again, err := ledger.Encode(tx); err != nil || !bytes.Equal(again, raw) {
			return fmt.Errorf("%x is decoded and encoded as %x, %v", raw, again, err)
		}
		results[i].out, results[i].err = s.Apply(r.script.Network, p, tx)
		if i == 0 {
			st.tx = &tx
		}
	}
	st.post, st.out, st.err = r.state, results[0].out, results[0].err
	r.note(st)
	for i, res := range results[1:] {
		if fmt.Sprint(res.err) != fmt.Sprint(st.err) || len(res.out)+len(st.out) > 0 && asText(res.out) != asText(st.out) {
			return fmt.Errorf("replica %d makes %s, %v of what is %s, %v", i+1, asText(res.out), res.err, asText(st.out), st.err)
		}
	}
	var refused *ledger.RefusedError
	if st.err != nil && !errors.As(st.err, &refused) {
		return fmt.Errorf("an error that is no refusal: %v", st.err)
	}
	return r.model.check(st)
}

// asText is what replicas have to agree on of effects: everything, but that a list which
// was read is never nil.
func asText(out []ledger.Effect) string {
	b, err := json.Marshal(out)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func (r *run) note(st *step) {
	for i := range st.out {
		r.Kinds[st.out[i].Kind]++
	}
	switch {
	case st.tx == nil:
	case st.err != nil:
		r.Refused++
	default:
		r.Held++
		r.Said[st.tx.Body.Kind()]++
	}
}

// reload gives one replica the state that its snapshot holds.
func (r *run) reload(p ledger.Place) error {
	if !r.chance(p, 1, 12) {
		return nil
	}
	r.Reloads++
	was, snapshot, err := r.reloaded.Snapshot()
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	next, err := ledger.Load(snapshot)
	if err != nil {
		return fmt.Errorf("load: %w", err)
	}
	root, again, err := next.Snapshot()
	if err != nil || root != was || !bytes.Equal(again, snapshot) {
		return fmt.Errorf("a state that was loaded has root %s, not %s, %v", root, was, err)
	}
	r.reloaded = next
	return r.model.indexesHold(next, next.SortedMachines())
}

// clone lets a clone of one replica live on while the original goes astray, or the
// other way round.
func (r *run) clone(ev Event) {
	if !r.chance(ev.Place, 2, 12) {
		return
	}
	r.Clones++
	astray := r.cloned.Clone()
	if r.chance(ev.Place, 5, 2) {
		r.cloned, astray = astray, r.cloned
	}
	p := ev.Place
	p.Round += 3
	p.Time += ledger.Hour
	astray.Advance(p)
	for _, e := range r.script.Events[max(0, len(r.script.Events)-20):] {
		for _, raw := range e.Txs {
			if tx, err := ledger.Decode(raw); err == nil {
				tx.Seq += 1000
				for _, m := range slices.Clone(astray.Members()) {
					p.Author = m.ID
					astray.Apply(r.script.Network, p, tx) // most are refused: it is to touch what it shares
				}
			}
		}
	}
}

// equal compares the roots of all replicas.
func (r *run) equal(p ledger.Place) error {
	var first cid.Cid
	for i, s := range []*ledger.State{r.state, r.reloaded, r.cloned} {
		root, err := s.Root()
		if err != nil {
			return fmt.Errorf("after event %d: no root: %w", p.Index, err)
		}
		if i == 0 {
			first = root
		} else if root != first || s.Outcome() != r.state.Outcome() {
			return fmt.Errorf("after event %d replica %d has root %s, the first has %s", p.Index, i, root, first)
		}
	}
	return nil
}

// Generate makes a script of so many events and runs it. The script ends with the
// event that failed, if one has.
func Generate(seed uint64, events int) (Script, Counts, error) {
	w := newWorld(seed)
	s := w.script(seed)
	r, err := newRun(&s)
	if err != nil {
		return s, Counts{}, err
	}
	w.s = r.state
	for range events {
		had := r.state.Members()
		ids := make([]ledger.MemberID, len(had))
		for i, m := range had {
			ids[i] = m.ID
		}
		ev := w.event()
		s.Events = append(s.Events, ev)
		if err := r.event(ev); err != nil {
			return s, r.Counts, err
		}
		for _, id := range ids {
			if r.state.Member(id) == nil {
				w.gone = append(w.gone, id)
			}
		}
	}
	for _, ev := range w.farewell(r) {
		s.Events = append(s.Events, ev)
		if err := r.event(ev); err != nil {
			return s, r.Counts, err
		}
	}
	return s, r.Counts, r.end()
}

// farewell lets time pass until every deadline is over, in two events.
func (w *world) farewell(r *run) []Event {
	var out []Event
	for range 6 {
		w.index++
		w.round++
		w.now += 100 * ledger.Day
		out = append(out, Event{Place: ledger.Place{Index: w.index, Round: w.round, Time: w.now, Author: 1}})
	}
	return out
}

// end checks the state after farewell: nothing waits any more but what is released,
// and no room is reserved but for that.
func (r *run) end() error {
	left := map[ledger.MemberID]int64{}
	for x := range r.state.Machines() {
		if x.Move != nil && !x.Move.LeaseOver {
			return fmt.Errorf("at the end machine %s is still %s", x.Name, x.Move.Phase)
		}
		if x.Move != nil {
			left[x.Move.To]++
		}
	}
	if n := len(r.state.Proposals()); n > 0 {
		return fmt.Errorf("at the end %d proposals are open", n)
	}
	if due := r.state.Due(); due != 0 {
		return fmt.Errorf("at the end something is due at %d", due)
	}
	for id := ledger.MemberID(0); id <= r.model.lastID; id++ {
		if n := r.state.Reserved(id).Moves; n != left[id] {
			return fmt.Errorf("at the end room for %d machines is reserved at member %d, where %d are released to", n, id, left[id])
		}
	}
	return r.equal(ledger.Place{Index: r.state.Next()})
}

// Replay runs a script again. Only if it runs to an end where everything is over, as
// those of Generate do, is that looked at.
func Replay(s Script) error {
	r, err := newRun(&s)
	if err != nil {
		return err
	}
	for _, ev := range s.Events {
		if err := r.event(ev); err != nil {
			return err
		}
	}
	return r.equal(ledger.Place{Index: r.state.Next()})
}
