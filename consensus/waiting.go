package consensus

import (
	"cmp"
	"fmt"
	"slices"
)

// Bounds of what is kept of one creator's events that cannot enter the graph yet.
const (
	maxWaiting      = 512
	maxWaitingBytes = 8 << 20
)

// waiter is an event that lacks parents, or is ahead of this member's rounds.
type waiter struct {
	ev   *Event
	hash Hash
	size int
}

// waiting holds the waiters: by creator in order of arrival, by hash, and by the
// parents that are not in the graph.
type waiting struct {
	lists    [][]*waiter
	bytes    []int
	index    map[Hash]*waiter
	byParent map[Hash][]*waiter
}

func newWaiting(n int) waiting {
	return waiting{
		lists: make([][]*waiter, n), bytes: make([]int, n),
		index: map[Hash]*waiter{}, byParent: map[Hash][]*waiter{},
	}
}

// park keeps an event until it can enter the graph. When a creator's room is full
// the events that are farthest ahead go: those behind them come first anyway, and
// what went is asked for again when it is needed.
func (c *Core) park(e *Event, h Hash, m int) error {
	w := &waiter{ev: e, hash: h, size: len(e.body(0))}
	for len(c.wait.lists[m]) >= maxWaiting || c.wait.bytes[m]+w.size > maxWaitingBytes {
		far := slices.MaxFunc(c.wait.lists[m], func(a, b *waiter) int { return compareAhead(a.ev, b.ev) })
		if compareAhead(e, far.ev) >= 0 {
			if e.BirthRound > c.engine.Pending() {
				return fmt.Errorf("%w: round %d, pending is %d", ErrFuture, e.BirthRound, c.engine.Pending())
			}
			return ErrFull
		}
		c.unpark(far, m)
	}
	c.wait.lists[m] = append(c.wait.lists[m], w)
	c.wait.bytes[m] += w.size
	c.wait.index[h] = w
	for i := range e.Parents {
		p := &e.Parents[i]
		if p.BirthRound < c.engine.MinBirth() || c.dag.find(p.Hash) != none {
			continue
		}
		ws := c.wait.byParent[p.Hash]
		if len(ws) == 0 && c.wait.index[p.Hash] == nil {
			c.ready.Missing = append(c.ready.Missing, Want{Hash: p.Hash, Creator: p.Creator, Child: e.Creator})
		}
		c.wait.byParent[p.Hash] = append(ws, w)
	}
	return nil
}

func compareAhead(a, b *Event) int {
	return cmp.Or(cmp.Compare(a.BirthRound, b.BirthRound), cmp.Compare(a.Seq, b.Seq))
}

// unpark takes a waiter out of the buffer.
func (c *Core) unpark(w *waiter, m int) {
	same := func(o *waiter) bool { return o == w }
	c.wait.lists[m] = slices.DeleteFunc(c.wait.lists[m], same)
	c.wait.bytes[m] -= w.size
	delete(c.wait.index, w.hash)
	for i := range w.ev.Parents {
		h := w.ev.Parents[i].Hash
		if ws := slices.DeleteFunc(c.wait.byParent[h], same); len(ws) > 0 {
			c.wait.byParent[h] = ws
		} else {
			delete(c.wait.byParent, h)
		}
	}
}

// release looks again at the events that waited for the one with this hash.
func (c *Core) release(h Hash) {
	for _, w := range slices.Clone(c.wait.byParent[h]) {
		c.retry(w)
	}
}

// review looks again at all that waits, after the rounds have moved.
func (c *Core) review() {
	for m := range c.wait.lists {
		for _, w := range slices.Clone(c.wait.lists[m]) {
			c.retry(w)
		}
	}
}

// retry moves a waiter on if it is ready, ancient by now, or found to be invalid.
func (c *Core) retry(w *waiter) {
	m := c.member[w.ev.Creator]
	if w.ev.BirthRound < c.engine.MinBirth() {
		c.unpark(w, m)
		if m == c.self {
			c.adopt(w.ev, w.hash)
		}
		return
	}
	switch res, err := c.resolve(w.ev); {
	case err != nil:
		c.unpark(w, m)
		c.refused++
	case res.ready:
		c.unpark(w, m)
		c.queue = append(c.queue, w.ev)
	}
}

// wanted reports whether an event of another member waits for the one with this
// hash, or for one of the creator's own that waits for it.
func (c *Core) wanted(h Hash, creator uint64) bool {
	for todo := []Hash{h}; len(todo) > 0; {
		ws := c.wait.byParent[todo[len(todo)-1]]
		todo = todo[:len(todo)-1]
		for _, w := range ws {
			if w.ev.Creator != creator {
				return true
			}
			todo = append(todo, w.hash)
		}
	}
	return false
}

// Missing is every parent that is needed and neither here nor kept: Ready.Missing
// names each once, this names them again, for a driver that retries.
func (c *Core) Missing() []Want {
	var out []Want
	seen := map[Hash]bool{}
	for _, list := range c.wait.lists {
		for _, w := range list {
			for i := range w.ev.Parents {
				p := &w.ev.Parents[i]
				if p.BirthRound < c.engine.MinBirth() || seen[p.Hash] || c.Has(p.Hash) {
					continue
				}
				seen[p.Hash] = true
				out = append(out, Want{Hash: p.Hash, Creator: p.Creator, Child: w.ev.Creator})
			}
		}
	}
	return out
}
