package resume

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"
)

// half is one direction of a connection: a buffer of limited size.
type half struct {
	mu      sync.Mutex
	changed chan struct{}
	buf     []byte
	ended   error // nothing comes any more
	budget  int   // bytes until the connection is cut; -1: no end
	lost    bool  // what is written disappears
	carried int
}

func (h *half) change() {
	close(h.changed)
	h.changed = make(chan struct{})
}

// wire is a connection between two links.
type wire struct {
	half  [2]half
	limit int
}

func newWire(limit int, budget [2]int) *wire {
	w := &wire{limit: limit}
	for i := range w.half {
		w.half[i] = half{changed: make(chan struct{}), budget: budget[i]}
	}
	return w
}

// cut ends both directions; what is in them is gone.
func (w *wire) cut() {
	for i := range w.half {
		h := &w.half[i]
		h.mu.Lock()
		if h.ended == nil {
			h.ended, h.buf = errors.New("connection reset"), nil
			h.change()
		}
		h.mu.Unlock()
	}
}

// end is one side's Stream.
type end struct {
	w           *wire
	in, out     *half
	mu          sync.Mutex
	read, write time.Time
}

func (w *wire) ends() (a, b *end) {
	return &end{w: w, in: &w.half[1], out: &w.half[0]}, &end{w: w, in: &w.half[0], out: &w.half[1]}
}

func (e *end) set(at *time.Time, h *half, t time.Time) error {
	e.mu.Lock()
	*at = t
	e.mu.Unlock()
	h.mu.Lock()
	h.change()
	h.mu.Unlock()
	return nil
}

func (e *end) SetReadDeadline(t time.Time) error  { return e.set(&e.read, e.in, t) }
func (e *end) SetWriteDeadline(t time.Time) error { return e.set(&e.write, e.out, t) }
func (e *end) Reset() error                       { e.w.cut(); return nil }

func (e *end) Close() error {
	e.out.mu.Lock()
	defer e.out.mu.Unlock()
	if e.out.ended == nil {
		e.out.ended = io.EOF
		e.out.change()
	}
	return nil
}

// wait waits for a change of h, whose lock is held, or for a deadline.
func (e *end) wait(h *half, at *time.Time) error {
	e.mu.Lock()
	t := *at
	e.mu.Unlock()
	changed, late := h.changed, (<-chan time.Time)(nil)
	if !t.IsZero() {
		if !time.Now().Before(t) {
			return os.ErrDeadlineExceeded
		}
		timer := time.NewTimer(time.Until(t))
		defer timer.Stop()
		late = timer.C
	}
	h.mu.Unlock()
	defer h.mu.Lock()
	select {
	case <-changed:
	case <-late:
	}
	return nil
}

func (e *end) Read(p []byte) (int, error) {
	h := e.in
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		if len(h.buf) > 0 {
			n := copy(p, h.buf)
			h.buf = h.buf[n:]
			h.change()
			return n, nil
		}
		if h.ended != nil {
			return 0, h.ended
		}
		if err := e.wait(h, &e.read); err != nil {
			return 0, err
		}
	}
}

func (e *end) Write(p []byte) (int, error) {
	h := e.out
	n, cut := 0, false
	h.mu.Lock()
	for n < len(p) && !cut {
		if h.ended != nil {
			h.mu.Unlock()
			return n, io.ErrClosedPipe
		}
		room := min(len(p)-n, e.w.limit-len(h.buf))
		if room == 0 {
			if err := e.wait(h, &e.write); err != nil {
				h.mu.Unlock()
				return n, err
			}
			continue
		}
		if h.budget >= 0 && room >= h.budget {
			room, cut = h.budget, true
		}
		if h.budget >= 0 {
			h.budget -= room
		}
		if !h.lost {
			h.buf = append(h.buf, p[n:n+room]...)
		}
		h.carried += room
		n += room
		h.change()
	}
	h.mu.Unlock()
	if cut {
		e.w.cut()
		return n, errors.New("connection reset")
	}
	return n, nil
}

// pair is a link with both its sides, the dialing one first.
type pair struct {
	a, b  *Link
	limit int

	mu      sync.Mutex
	budgets [][2]int // of the next connections; none: they hold
	refuse  int      // attempts that fail
	down    bool     // no connection can be made
	wires   []*wire
}

var errNoWay = errors.New("no route to host")

// budget is that of the next connection.
func (p *pair) budget() [2]int {
	if len(p.budgets) == 0 {
		return [2]int{-1, -1}
	}
	b := p.budgets[0]
	p.budgets = p.budgets[1:]
	return b
}

func newPair(t *testing.T, limit int, dialer, other Config, budgets ...[2]int) *pair {
	t.Helper()
	p := &pair{limit: limit, budgets: budgets}
	w := newWire(limit, p.budget())
	p.wires = append(p.wires, w)
	dialer.Dial = p.dial
	a, b := w.ends()
	p.b = New(b, other)
	p.a = New(a, dialer)
	t.Cleanup(func() {
		var both sync.WaitGroup
		both.Go(func() { _ = p.a.Close() })
		both.Go(func() { _ = p.b.Close() })
		both.Wait()
	})
	return p
}

func (p *pair) dial(_ context.Context, attempt, received uint64) (Stream, uint64, error) {
	p.mu.Lock()
	if p.down || p.refuse > 0 {
		p.refuse--
		p.mu.Unlock()
		return nil, 0, errNoWay
	}
	w := newWire(p.limit, p.budget())
	p.wires = append(p.wires, w)
	p.mu.Unlock()
	a, b := w.ends()
	theirs := make(chan uint64, 1)
	if _, err := p.b.Resume(b, attempt, received, func(n uint64) error { theirs <- n; return nil }); err != nil {
		return nil, 0, err
	}
	return a, <-theirs, nil
}

// last is the newest connection.
func (p *pair) last() *wire {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.wires[len(p.wires)-1]
}

// exchange has both sides write so many bytes at once, in pieces, and compares.
func (p *pair) exchange(t *testing.T, seed uint64, there, back int) {
	t.Helper()
	var all sync.WaitGroup
	one := func(from, to *Link, n int, seed uint64) {
		want := make([]byte, n)
		_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), 1}).Read(want)
		all.Go(func() {
			rng := rand.New(rand.NewPCG(seed, 2))
			for rest := want; len(rest) > 0; {
				k := min(len(rest), 1+rng.IntN(1<<rng.IntN(18)))
				if m, err := from.Write(rest[:k]); m != k || err != nil {
					t.Errorf("write: %d of %d, %v", m, k, err)
					return
				}
				rest = rest[k:]
			}
		})
		all.Go(func() {
			got := make([]byte, n)
			if m, err := io.ReadFull(to, got); err != nil {
				t.Errorf("read: %d of %d, %v", m, n, err)
			} else if !bytes.Equal(got, want) {
				t.Error("what was read is not what was written")
			}
		})
	}
	one(p.a, p.b, there, seed)
	one(p.b, p.a, back, seed+1000)
	all.Wait()
}
