package order

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"

	"github.com/dcnode/dcnode/consensus"
)

// maxPool bounds what waits for an own event, in bytes: when the order stands still,
// who submits must hear of it.
const maxPool = 64 << 20

// pending is one transaction of this member on its way into the order.
type pending struct {
	raw  []byte
	done chan Place // of size 1; nil: nobody waits
}

// flight is the transactions of one own event.
type flight struct {
	birth uint64
	load  []*pending
}

// pool is this member's transactions that are not ordered yet.
type pool struct {
	self   uint64
	mu     sync.Mutex
	wait   []*pending                // for the next own event
	bytes  int                       // of wait
	flying map[consensus.Hash]flight // in an own event
}

func newPool(self uint64) pool {
	return pool{self: self, flying: map[consensus.Hash]flight{}}
}

func (p *pool) put(t *pending) error {
	if len(t.raw) > consensus.MaxTransaction {
		return fmt.Errorf("a transaction of %d bytes: at most %d are allowed", len(t.raw), consensus.MaxTransaction)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bytes+len(t.raw) > maxPool {
		return fmt.Errorf("%d transactions wait to be ordered already: see `dcnode status` for why the order does not move", len(p.wait))
	}
	p.wait, p.bytes = append(p.wait, t), p.bytes+len(t.raw)
	return nil
}

func (p *pool) waiting() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.wait) > 0
}

func (p *pool) empty() bool { return p.size() == 0 }

// size is how many transactions are not ordered yet.
func (p *pool) size() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.wait)
	for _, f := range p.flying {
		n += len(f.load)
	}
	return n
}

// load takes what fits into one event.
func (p *pool) load() []*pending {
	p.mu.Lock()
	defer p.mu.Unlock()
	room, n := consensus.PayloadRoom(consensus.MaxMembers), 0
	for n < len(p.wait) && n < consensus.MaxPayload {
		if room -= len(p.wait[n].raw) + 4; room < 0 {
			break
		}
		p.bytes -= len(p.wait[n].raw)
		n++
	}
	out := slices.Clone(p.wait[:n])
	clear(p.wait[:n])
	if p.wait = p.wait[n:]; len(p.wait) == 0 {
		p.wait = nil
	}
	return out
}

func payloads(ts []*pending) [][]byte {
	var out [][]byte
	for _, t := range ts {
		out = append(out, t.raw)
	}
	return out
}

// flies notes in which event transactions are.
func (p *pool) flies(e *consensus.Event, load []*pending) {
	if len(load) == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.flying[e.Hash()] = flight{e.BirthRound, load}
}

// ordered tells those who wait for the transactions of an event.
func (p *pool) ordered(ev consensus.Ordered) {
	if ev.Event.Creator != p.self || len(ev.Event.Payload) == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	h := ev.Event.Hash()
	for _, t := range p.flying[h].load {
		if t.done != nil {
			t.done <- Place{Index: ev.Index, Round: ev.Round, Time: ev.Time}
		}
	}
	delete(p.flying, h)
}

// retract puts the transactions of own events that will never be ordered back. Who
// waits for them goes on waiting.
func (p *pool) retract(stale []*consensus.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range stale {
		h := e.Hash()
		f, known := p.flying[h]
		ts := f.load
		if !known { // it was made before the last restart
			for _, raw := range e.Payload {
				ts = append(ts, &pending{raw: raw})
			}
		}
		delete(p.flying, h)
		for _, t := range ts {
			p.wait, p.bytes = append(p.wait, t), p.bytes+len(t.raw)
		}
	}
}

// poolFile holds what was not ordered when a member took over a checkpoint.
const poolFile = "pool"

// save writes down what would be lost when the events born before a round are let go
// of, for restore.
func (p *pool) save(path string, minBirth uint64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var b []byte
	add := func(ts []*pending) {
		for _, t := range ts {
			b = binary.BigEndian.AppendUint32(b, uint32(len(t.raw)))
			b = append(b, t.raw...)
		}
	}
	var lost []flight
	for _, f := range p.flying {
		if f.birth < minBirth {
			lost = append(lost, f)
		}
	}
	slices.SortFunc(lost, func(a, b flight) int { return cmp.Compare(a.birth, b.birth) })
	for _, f := range lost {
		add(f.load)
	}
	add(p.wait)
	if len(b) == 0 {
		return nil
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return fmt.Errorf("keep what is not ordered yet: %w", err)
	}
	return nil
}

// restore takes what save wrote back and removes it. A file that was cut short gives
// what is whole of it.
func (p *pool) restore(path string) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read what is not ordered yet: %w", err)
	}
	for len(b) >= 4 {
		n := uint64(binary.BigEndian.Uint32(b))
		if n > uint64(len(b)-4) || p.put(&pending{raw: b[4 : 4+n]}) != nil {
			break
		}
		b = b[4+n:]
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("read what is not ordered yet: %w", err)
	}
	return nil
}

// refuse lets go of all that waits for an own event: there will be none. Who waits for
// a place gets ErrOutside.
func (p *pool) refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range p.wait {
		if t.done != nil {
			close(t.done)
		}
	}
	p.wait, p.bytes = nil, 0
}

// Enqueue puts a transaction into this member's next event and waits for nothing.
// The loop keeps trying while it runs. An error means that it was not taken: it is
// too large, too many wait already, or it is ErrOutside. It may be called in the loop.
func (l *Loop) Enqueue(transaction []byte) error {
	if l.gone.Load() {
		return ErrOutside
	}
	if err := l.pool.put(&pending{raw: transaction}); err != nil {
		return err
	}
	signal(l.wake)
	return nil
}

// Submit orders a transaction of at most consensus.MaxTransaction bytes and waits for
// its place in the order; the Machine has applied it by then. If ctx or the loop ends
// first it may still be ordered later.
func (l *Loop) Submit(ctx context.Context, transaction []byte) (Place, error) {
	if l.gone.Load() {
		return Place{}, ErrOutside
	}
	t := &pending{raw: transaction, done: make(chan Place, 1)}
	if err := l.pool.put(t); err != nil {
		return Place{}, err
	}
	signal(l.wake)
	select {
	case at, ok := <-t.done:
		if !ok {
			return Place{}, ErrOutside
		}
		return at, nil
	case <-l.ended:
		return Place{}, ErrEnded
	case <-ctx.Done():
		return Place{}, fmt.Errorf("the transaction is not ordered yet: %w", context.Cause(ctx))
	}
}
