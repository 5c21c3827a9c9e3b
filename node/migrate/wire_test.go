package migrate

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"sync"
	"time"
)

var errCut = errors.New("connection reset")

// wire is a link between two nodes: two directions with a rate, a delay and a send
// buffer, and the faults that a test asks for.
type wire struct {
	mu      sync.Mutex
	changed chan struct{} // closed and replaced at every change
	dir     [2]direction
	cut     bool
	opaque  bool // what is written is not frames

	pings, used int64   // bytes of pings, bytes that the destination has acknowledged
	flying      []int64 // bytes in flight after each write of the source
}

// direction 0 leads from the source to the destination.
type direction struct {
	rate    float64 // bytes per second; 0: no limit
	delay   time.Duration
	buffer  int64 // bytes that a write may be ahead of the wire; 0: 64 KiB
	cutAt   int64 // both directions end after so many bytes; -1: never
	lostAt  int64 // nothing arrives after so many bytes, and nobody is told; -1: never
	flipAt  int64 // this byte is changed; -1: none
	hit     bool  // a fault took effect: acknowledgements merge, so lengths differ between runs
	written int64
	free    time.Time // when the wire is free again
	queue   []segment
}

type segment struct {
	due time.Time
	p   []byte
}

func newWire() *wire {
	w := &wire{changed: make(chan struct{})}
	for i := range w.dir {
		w.dir[i] = direction{cutAt: -1, lostAt: -1, flipAt: -1}
	}
	return w
}

func (w *wire) ends() (source, destination *end) {
	return &end{w: w, in: 1, out: 0}, &end{w: w, in: 0, out: 1}
}

func (w *wire) change() {
	close(w.changed)
	w.changed = make(chan struct{})
}

// end is a node's Stream.
type end struct {
	w        *wire
	in, out  int
	deadline time.Time
}

func (e *end) SetDeadline(t time.Time) error {
	e.w.mu.Lock()
	defer e.w.mu.Unlock()
	e.deadline = t
	e.w.change()
	return nil
}

// wait waits with the lock let go, for a change or until due.
func (e *end) wait(due time.Time) error {
	now := time.Now()
	if !e.deadline.IsZero() && !now.Before(e.deadline) {
		return os.ErrDeadlineExceeded
	}
	if due.IsZero() || !e.deadline.IsZero() && e.deadline.Before(due) {
		due = e.deadline
	}
	changed := e.w.changed
	e.w.mu.Unlock()
	defer e.w.mu.Lock()
	if due.IsZero() {
		<-changed
		return nil
	}
	t := time.NewTimer(due.Sub(now))
	defer t.Stop()
	select {
	case <-changed:
	case <-t.C:
	}
	return nil
}

func (e *end) expired() bool { return !e.deadline.IsZero() && !time.Now().Before(e.deadline) }

func (e *end) Read(p []byte) (int, error) {
	w, d := e.w, &e.w.dir[e.in]
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		if e.expired() {
			return 0, os.ErrDeadlineExceeded
		}
		var due time.Time
		if len(d.queue) > 0 {
			if due = d.queue[0].due; !time.Now().Before(due) {
				n := copy(p, d.queue[0].p)
				if d.queue[0].p = d.queue[0].p[n:]; len(d.queue[0].p) == 0 {
					d.queue = d.queue[1:]
				}
				w.change()
				return n, nil
			}
		} else if w.cut {
			return 0, io.EOF
		}
		if err := e.wait(due); err != nil {
			return 0, err
		}
	}
}

func (e *end) Write(p []byte) (int, error) {
	w, d := e.w, &e.w.dir[e.out]
	w.mu.Lock()
	defer w.mu.Unlock()
	w.watch(e, p)
	for n := 0; n < len(p); {
		if w.cut {
			return n, errCut
		}
		if e.expired() {
			return n, os.ErrDeadlineExceeded
		}
		limit := d.buffer
		if limit == 0 {
			limit = 64 << 10
		}
		if ahead := d.free.Sub(time.Now()); d.rate > 0 && ahead.Seconds()*d.rate > float64(limit) {
			if err := e.wait(time.Now().Add(ahead - time.Duration(float64(limit)/d.rate*1e9) + time.Microsecond)); err != nil {
				return n, err
			}
			continue
		}
		n += w.carry(d, p[n:min(len(p), n+16<<10)])
	}
	return len(p), nil
}

// carry puts p on the wire, with its faults, and returns how much of it went.
func (w *wire) carry(d *direction, p []byte) int {
	now := time.Now()
	if d.free.Before(now) {
		d.free = now
	}
	if d.rate > 0 {
		d.free = d.free.Add(time.Duration(float64(len(p)) / d.rate * 1e9))
	}
	n := len(p)
	if d.cutAt >= 0 && d.written+int64(n) > d.cutAt {
		n = int(d.cutAt - d.written)
		w.cut, d.hit = true, true
	}
	q := bytes.Clone(p[:n])
	if at := d.flipAt - d.written; d.flipAt >= 0 && at >= 0 && at < int64(n) {
		q[at] ^= 0x10
		d.hit = true
	}
	if d.lostAt >= 0 && d.written+int64(n) > d.lostAt {
		q = q[:max(0, d.lostAt-d.written)]
		d.hit = true
	}
	d.written += int64(n)
	if len(q) > 0 {
		d.queue = append(d.queue, segment{d.free.Add(d.delay), q})
	}
	w.change()
	return n
}

// watch counts the bytes that the source has written and the destination has not
// yet acknowledged. Each Write is whole frames.
func (w *wire) watch(e *end, p []byte) {
	if w.opaque {
		return
	}
	if e.out == 0 {
		if p[0] == kindPing {
			w.pings += int64(len(p)) // never acknowledged
		}
		w.flying = append(w.flying, w.dir[0].written+int64(len(p))-w.pings-w.used)
		return
	}
	for len(p) >= headBytes {
		n := headBytes + int(binary.BigEndian.Uint32(p[1:]))
		if p[0] == kindAck {
			w.used = int64(binary.BigEndian.Uint64(p[headBytes:]))
		}
		p = p[n:]
	}
}
