package testnet

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/dcnode/dcnode/node/api"
)

// orderWatch watches the order of several members and finds where they disagree.
type orderWatch struct {
	wg sync.WaitGroup

	mu     sync.Mutex
	stop   map[*Site]context.CancelFunc
	events map[uint64]string          // the event of each index, as first told
	at     map[string]map[*Site]int64 // when each site ordered a transaction, ns
	next   map[*Site]uint64           // one more than the highest index that a site told
	bad    error                      // two sites that disagree
	change chan struct{}              // closed by the next news
	place  map[string]uint64          // index of each transaction
}

func watchOrder(ctx context.Context, sites []*Site) *orderWatch {
	w := &orderWatch{
		stop: map[*Site]context.CancelFunc{}, events: map[uint64]string{}, at: map[string]map[*Site]int64{},
		next: map[*Site]uint64{}, place: map[string]uint64{}, change: make(chan struct{}),
	}
	for _, s := range sites {
		w.join(ctx, s, 0)
	}
	return w
}

// join watches a site from an index on.
func (w *orderWatch) join(ctx context.Context, s *Site, from uint64) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	w.mu.Lock()
	w.stop[s] = cancel
	w.mu.Unlock()
	w.wg.Go(func() {
		for ctx.Err() == nil {
			// It ends when the site ends, or begins anew from a checkpoint of the others.
			_ = s.Client.Watch(ctx, from, func(evs []api.Ordered) error {
				w.note(s, evs)
				from = evs[len(evs)-1].Index + 1
				return nil
			})
			_ = sleep(ctx, 20*time.Millisecond)
		}
	})
}

// leave stops watching a site.
func (w *orderWatch) leave(s *Site) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if stop := w.stop[s]; stop != nil {
		stop()
	}
}

func (w *orderWatch) note(s *Site, evs []api.Ordered) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range evs {
		if known, ok := w.events[e.Index]; ok && known != e.Event && w.bad == nil {
			w.bad = fmt.Errorf("the order is not one: at index %d %s has event %.16s, another had %.16s", e.Index, s.Name, e.Event, known)
		}
		w.events[e.Index] = e.Event
		w.next[s] = max(w.next[s], e.Index+1)
		for _, id := range e.Tx {
			if old, ok := w.place[id]; ok && old != e.Index && w.bad == nil {
				w.bad = fmt.Errorf("transaction %s is ordered twice, at %d and at %d", id, old, e.Index)
			}
			w.place[id] = e.Index
			if w.at[id] == nil {
				w.at[id] = map[*Site]int64{}
			}
			if _, ok := w.at[id][s]; !ok {
				w.at[id][s] = e.At
			}
		}
	}
	close(w.change)
	w.change = make(chan struct{})
}

// await waits until all pings are ordered at all of the sites, or two disagree.
func (w *orderWatch) await(ctx context.Context, pings []api.Ping, at []*Site) error {
	return w.until(ctx, func() bool {
		return !slices.ContainsFunc(pings, func(p api.Ping) bool {
			return slices.ContainsFunc(at, func(s *Site) bool { _, ok := w.at[p.ID][s]; return !ok })
		})
	})
}

// until waits until good, looked at after each news, says yes.
func (w *orderWatch) until(ctx context.Context, good func() bool) error {
	for {
		w.mu.Lock()
		change, bad, ok := w.change, w.bad, good()
		w.mu.Unlock()
		switch {
		case bad != nil:
			return bad
		case ok:
			return nil
		}
		select {
		case <-change:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// last is when the last of the sites ordered a transaction.
func (w *orderWatch) last(id string, at []*Site) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	last := int64(0)
	for _, s := range at {
		last = max(last, w.at[id][s])
	}
	return time.Unix(0, last)
}

// height is one more than the highest index that anyone has told.
func (w *orderWatch) height() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	top := uint64(0)
	for _, n := range w.next {
		top = max(top, n)
	}
	return top
}

// told: have all sites told the order up to an index? For until.
func (w *orderWatch) told(sites []*Site, end uint64) bool {
	return !slices.ContainsFunc(sites, func(s *Site) bool { return w.next[s] < end })
}

// whole says which of the transactions that members said they had ordered is not
// where they said.
func (w *orderWatch) whole(pings []api.Ping) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range pings {
		if at, ok := w.place[p.ID]; !ok || at != p.Index {
			return fmt.Errorf("transaction %s was said to be ordered as %d, and is at %d (found: %v)", p.ID, p.Index, at, ok)
		}
	}
	return nil
}

// close ends all watching and says whether anyone disagreed.
func (w *orderWatch) close() error {
	w.mu.Lock()
	for _, stop := range w.stop {
		stop()
	}
	w.mu.Unlock()
	w.wg.Wait()
	return w.bad
}
