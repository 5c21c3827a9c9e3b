package node

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/dcnode/dcnode/consensus"
	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/node/api"
)

const (
	remembered = 4096                   // events that a tape keeps
	gather     = 100 * time.Millisecond // that a watcher lets pass before it looks for more
)

// note is one event on a tape.
type note struct {
	place ledger.Place
	event consensus.Hash
	at    int64 // ns of the wall clock; 0 while the log is read
	txs   []string
}

// tape is the end of the order, for people who watch it. The ordering loop writes
// it, anyone reads it.
type tape struct {
	mu     sync.Mutex
	notes  [remembered]note // by index modulo its length
	first  uint64           // index of the oldest that is here
	next   uint64           // index of the next
	change chan struct{}    // closed by the next add; nil: nobody waits
}

// add writes down what has been ordered. An index that does not follow the one
// before, as after a snapshot was taken over, begins the tape anew.
func (t *tape) add(n note) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n.place.Index != t.next {
		t.first = n.place.Index
	}
	t.notes[n.place.Index%remembered] = n
	t.next = n.place.Index + 1
	if t.next-t.first > remembered {
		t.first = t.next - remembered
	}
	if t.change != nil {
		close(t.change)
		t.change = nil
	}
}

// since copies what is here from an index on, and gives a channel that is closed
// when there is more.
func (t *tape) since(from uint64) ([]note, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []note
	for i := max(from, t.first); i < t.next; i++ {
		out = append(out, t.notes[i%remembered])
	}
	if t.change == nil {
		t.change = make(chan struct{})
	}
	return out, t.change
}

// end is the index of the next event.
func (t *tape) end() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.next
}

var errTooSlow = errors.New("the order has gone on faster than you read: ask again from a later index")

// Watch implements api.Order.
func (n *Node) Watch(ctx context.Context, from uint64, tell func([]api.Ordered) error) error {
	t := &n.order.tape
	begun := from == api.Now
	if begun {
		from = t.end()
	}
	for {
		notes, more := t.since(from)
		if len(notes) > 0 {
			if begun && notes[0].place.Index != from {
				return errTooSlow
			}
			begun, from = true, notes[len(notes)-1].place.Index+1
			if err := tell(n.told(notes)); err != nil {
				return err
			}
		}
		select {
		case <-more:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		select {
		case <-time.After(gather):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (n *Node) told(notes []note) []api.Ordered {
	out := make([]api.Ordered, 0, len(notes))
	for _, o := range notes {
		out = append(out, api.Ordered{
			Index: o.place.Index, Round: o.place.Round, Event: hex.EncodeToString(o.event[:]),
			Site: n.site(o.place.Author), Time: int64(o.place.Time), At: o.at, Tx: o.txs,
		})
	}
	return out
}

// Ping implements api.Order.
func (n *Node) Ping(ctx context.Context) (api.Ping, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, reasonable, fmt.Errorf("no order within %v: are more than two thirds of the members connected? See `dcnode status`", reasonable))
	defer cancel()
	began := time.Now().UnixNano()
	v, err := n.order.Submit(ctx, &ledger.Tick{})
	if err != nil {
		return api.Ping{}, err
	}
	return api.Ping{ID: v.ID, Index: v.Place.Index, Round: v.Place.Round, Submitted: began, Ordered: v.At}, nil
}
