package node

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/node/api"
	"github.com/dcnode/dcnode/node/journal"
)

// bunch is how many entries of the log are told at once.
const bunch = 256

// Log implements api.Audit.
func (n *Node) Log(ctx context.Context, q api.LogQuery, tell func([]api.LogEntry) error) error {
	j := n.order.scribe.journal
	want := journal.Filter{Machine: q.Machine, Kind: q.Kind}
	more := j.Changed() // before it is read: what comes meanwhile is not missed
	next, err := n.beginLog(ctx, j, q, want, tell)
	for err == nil && q.Follow {
		select {
		case <-more:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if more = j.Changed(); ctx.Err() == nil {
			next, err = logFrom(ctx, j, next, 0, want, tell)
		}
	}
	return err
}

// beginLog tells what there is, and gives the index from which on to follow.
func (n *Node) beginLog(ctx context.Context, j *journal.Journal, q api.LogQuery, want journal.Filter, tell func([]api.LogEntry) error) (uint64, error) {
	if q.From != api.Now {
		return logFrom(ctx, j, q.From, q.N, want, tell)
	}
	next := uint64(0)
	if last, any := j.Last(); any {
		next = last + 1
	}
	if q.N == 0 && q.Follow {
		return next, nil
	}
	if q.N == 0 {
		return logFrom(ctx, j, 0, 0, want, tell)
	}
	found, err := j.Latest(q.N, want)
	if err != nil {
		return next, err
	}
	var out []api.LogEntry
	for i := range found {
		out = append(out, toLog(&found[i]))
		next = max(next, found[i].Index+1, found[i].Until+1)
	}
	if len(out) > 0 {
		err = tell(out)
	}
	return next, err
}

// logFrom tells entries from an index on, at most n of them unless n is 0, and gives the
// index after the last that it came by.
func logFrom(ctx context.Context, j *journal.Journal, from uint64, n int, want journal.Filter, tell func([]api.LogEntry) error) (uint64, error) {
	next := from
	var out []api.LogEntry
	told := 0
	flush := func() error {
		if len(out) == 0 {
			return nil
		}
		b := out
		out, told = nil, told+len(b)
		return tell(b)
	}
	for e, err := range j.Read(from, want) {
		if err != nil {
			return next, err
		}
		next = max(next, e.Index+1, e.Until+1)
		if out = append(out, toLog(&e)); len(out) == bunch {
			if err := errors.Join(flush(), ctx.Err()); err != nil {
				return next, err
			}
		}
		if n > 0 && told+len(out) == n {
			break
		}
	}
	return next, flush()
}

func toLog(e *journal.Entry) api.LogEntry {
	l := api.LogEntry{
		Index: e.Index, Until: e.Until, N: e.N, Round: e.Round, Time: e.Time, Site: e.Site, Kind: e.Kind,
		Machine: e.Machine, Image: e.Image, Member: e.Member, Account: e.Account, Text: e.Text, Refused: e.Refused,
	}
	if e.Event != ([32]byte{}) {
		l.Event = hex.EncodeToString(e.Event[:])
	}
	return l
}

// Event implements api.Audit.
func (n *Node) Event(ctx context.Context, index uint64) (api.Event, error) {
	out := api.Event{Index: index, Transactions: []api.EventTransaction{}}
	var next uint64
	if err := n.order.do(ctx, func() {
		next = n.order.state.Next()
		if o, ok := n.order.past.outcomes.get(index); ok {
			out.Site, out.Event = n.order.state.Site(o.author), hex.EncodeToString(o.event[:])
		}
	}); err != nil {
		return out, err
	}
	if index >= next {
		return out, fmt.Errorf("event %d is not ordered yet: the next one is %d", index, next)
	}
	entries, err := n.order.scribe.journal.At(index)
	if err != nil {
		return out, err
	}
	for i := range entries {
		e := &entries[i]
		if e.Kind == journal.KindGap {
			return out, fmt.Errorf("event %d: %s", index, e.Text)
		}
		l := toLog(e)
		out.Round, out.Time, out.Event = l.Round, l.Time, l.Event
		if l.Site != "" {
			out.Site = l.Site
		}
		t := api.EventTransaction{LogEntry: l}
		if tx, err := ledger.Decode(e.Raw); err == nil {
			t.Seq, t.Sigs, t.Body = tx.Seq, tx.Sigs, tx.Body
		}
		out.Transactions = append(out.Transactions, t)
	}
	if first, any := n.order.scribe.journal.First(); len(entries) == 0 && out.Event == "" && (!any || index < first) {
		return out, fmt.Errorf("event %d is older than this node's log, which begins at %d: ask at another member, or compute it with `dcnode ledger verify`", index, first)
	}
	return out, nil
}
