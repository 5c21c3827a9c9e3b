package consensus

import (
	"bytes"
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
	ev    *Event
	hash  Hash
	slot  int
	size  int
	far   bool   // it came when the roster of its birth round could still change
	lacks int    // parents that count and are not in the graph
	low   uint64 // when this birth round becomes ancient it has to be looked at again

	atSeat, atLow, atAhead int // places in the lists that it is in
}

// waiting finds the waiters by hash, by the parents that are not in the graph, and
// by the rounds whose coming changes something for them.
type waiting struct {
	index    map[Hash]*waiter
	byParent map[Hash][]*waiter
	low      map[uint64][]*waiter
	ahead    map[uint64][]*waiter // by birth round, those ahead of the pending one
}

func newWaiting() waiting {
	return waiting{
		index: map[Hash]*waiter{}, byParent: map[Hash][]*waiter{},
		low: map[uint64][]*waiter{}, ahead: map[uint64][]*waiter{},
	}
}

// park keeps an event until it can enter the graph. When a creator's room is full
// the events that are farthest ahead go: those behind them come first anyway, and
// what went is asked for again when it is needed.
func (c *Core) park(w *waiter) error {
	s := &c.seats[w.slot]
	w.size = w.ev.size()
	for len(s.wait) >= maxWaiting || s.bytes+w.size > maxWaitingBytes {
		far := slices.MaxFunc(s.wait, func(a, b *waiter) int { return compareAhead(a.ev, b.ev) })
		if compareAhead(w.ev, far.ev) >= 0 {
			if w.ev.BirthRound > c.Pending() {
				return fmt.Errorf("%w: round %d, pending is %d", ErrFuture, w.ev.BirthRound, c.Pending())
			}
			return ErrFull
		}
		c.unpark(far)
	}
	w.atSeat = len(s.wait)
	s.wait = append(s.wait, w)
	s.bytes += w.size
	c.wait.index[w.hash] = w
	c.link(w)
	return nil
}

func compareAhead(a, b *Event) int {
	return cmp.Or(cmp.Compare(a.BirthRound, b.BirthRound), cmp.Compare(a.Seq, b.Seq))
}

// link puts a waiter where what it waits for will find it, and asks for parents
// that nobody has asked for.
func (c *Core) link(w *waiter) {
	e, low := w.ev, c.minBirth()
	w.lacks, w.low, w.atAhead = 0, e.BirthRound, none
	for i := range e.Parents {
		p := &e.Parents[i]
		if p.BirthRound < low || c.dag.find(p.Hash) != none {
			continue
		}
		w.lacks++
		w.low = min(w.low, p.BirthRound)
		ws := c.wait.byParent[p.Hash]
		if len(ws) == 0 && c.wait.index[p.Hash] == nil {
			c.ready.Missing = append(c.ready.Missing, Want{Hash: p.Hash, Creator: p.Creator, Child: e.Creator})
		}
		c.wait.byParent[p.Hash] = append(ws, w)
	}
	w.atLow = len(c.wait.low[w.low])
	c.wait.low[w.low] = append(c.wait.low[w.low], w)
	if e.BirthRound > c.Pending() {
		w.atAhead = len(c.wait.ahead[e.BirthRound])
		c.wait.ahead[e.BirthRound] = append(c.wait.ahead[e.BirthRound], w)
	}
}

// unlink undoes link.
func (c *Core) unlink(w *waiter) {
	for i := range w.ev.Parents {
		h := w.ev.Parents[i].Hash
		ws := c.wait.byParent[h]
		if at := slices.Index(ws, w); at < 0 {
			continue
		} else if ws = pluck(ws, at); len(ws) > 0 {
			c.wait.byParent[h] = ws
		} else {
			delete(c.wait.byParent, h)
		}
	}
	unlist(c.wait.low, w.low, w.atLow, func(o *waiter) { o.atLow = w.atLow })
	unlist(c.wait.ahead, w.ev.BirthRound, w.atAhead, func(o *waiter) { o.atAhead = w.atAhead })
	w.atLow, w.atAhead = none, none
}

// unlist takes the waiter at a place out of the list of a round; moved is told which
// one took the place.
func unlist(lists map[uint64][]*waiter, round uint64, at int, moved func(*waiter)) {
	if at == none {
		return
	}
	ws := pluck(lists[round], at)
	if len(ws) == 0 {
		delete(lists, round)
		return
	}
	if lists[round] = ws; at < len(ws) {
		moved(ws[at])
	}
}

// pluck takes one out of a list and puts the last in its place.
func pluck(ws []*waiter, at int) []*waiter {
	last := len(ws) - 1
	ws[at], ws[last] = ws[last], nil
	return ws[:last]
}

// unpark takes a waiter out of the buffer.
func (c *Core) unpark(w *waiter) {
	c.unlink(w)
	s := &c.seats[w.slot]
	if s.wait = pluck(s.wait, w.atSeat); w.atSeat < len(s.wait) {
		s.wait[w.atSeat].atSeat = w.atSeat
	}
	s.bytes -= w.size
	delete(c.wait.index, w.hash)
}

// release tells the events that waited for the one with this hash that it is here.
func (c *Core) release(h Hash) {
	ws := c.wait.byParent[h]
	if len(ws) == 0 {
		return
	}
	delete(c.wait.byParent, h)
	for _, w := range ws {
		w.lacks--
		c.promote(w)
	}
}

// promote queues a waiter that waits for nothing any more.
func (c *Core) promote(w *waiter) {
	if w.lacks == 0 && w.ev.BirthRound <= c.Pending() {
		c.unpark(w)
		c.queue = append(c.queue, w)
	}
}

// review looks at the events that waited for a round to become pending, or for which
// something became ancient. Each is looked at once for each round that it names.
func (c *Core) review(pending, low uint64) {
	for r := c.seen.low; r < low; r++ {
		ws := c.wait.low[r]
		delete(c.wait.low, r)
		for _, w := range ws {
			w.atLow = none
		}
		for _, w := range ws {
			if w.ev.BirthRound < low {
				c.unpark(w)
				c.adopt(w.ev, w.hash)
				continue
			}
			c.unlink(w)
			c.link(w)
			c.promote(w)
		}
	}
	for r := c.seen.pending + 1; r <= pending; r++ {
		ws := c.wait.ahead[r]
		delete(c.wait.ahead, r)
		for _, w := range ws {
			w.atAhead = none
		}
		for _, w := range ws {
			c.promote(w)
		}
	}
}

// wanted reports whether an event of another member waits for the one with this
// hash, or for one of the creator's own that waits for it. Each is looked at once: a
// creator can name one event many times, and so lay more ways than can be walked.
func (c *Core) wanted(h Hash, creator uint64) bool {
	if c.from != nil && slices.ContainsFunc(c.from.Judges, func(j Parent) bool { return j.Hash == h }) {
		return true
	}
	met := map[Hash]bool{h: true}
	for todo := []Hash{h}; len(todo) > 0; {
		ws := c.wait.byParent[todo[len(todo)-1]]
		todo = todo[:len(todo)-1]
		for _, w := range ws {
			if w.ev.Creator != creator {
				return true
			}
			if !met[w.hash] {
				met[w.hash] = true
				todo = append(todo, w.hash)
			}
		}
	}
	return false
}

// Missing is every parent that is needed and neither here nor kept, and every judge
// of the checkpoint that is not here: Ready.Missing names each once, this names them
// again, for a driver that retries.
func (c *Core) Missing() []Want {
	var out []Want
	seen := map[Hash]bool{}
	want := func(p *Parent, child uint64) {
		if p.BirthRound >= c.minBirth() && !seen[p.Hash] && !c.Has(p.Hash) {
			seen[p.Hash] = true
			out = append(out, Want{Hash: p.Hash, Creator: p.Creator, Child: child})
		}
	}
	if c.from != nil {
		for i := range c.from.Judges {
			want(&c.from.Judges[i], c.from.Judges[i].Creator)
		}
	}
	for s := range c.seats {
		for _, w := range c.seats[s].wait {
			for i := range w.ev.Parents {
				want(&w.ev.Parents[i], w.ev.Creator)
			}
		}
	}
	return out
}

// steadyKey reports whether a member has one key in all rosters that are kept. An
// event that came before its roster was settled was checked with some key of them.
func (c *Core) steadyKey(id uint64) bool {
	var key []byte
	for i := range c.epochs {
		m := c.epochs[i].find(id)
		if m == nil {
			continue
		}
		if key != nil && !bytes.Equal(key, m.Key) {
			return false
		}
		key = append([]byte{}, m.Key...)
	}
	return true
}
