package memvm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dcnode/dcnode/vmm"
)

const (
	batchPages      = 64 // copied under one hold of the machine's lock
	pageRecordBytes = pageSize + 8
	defaultDowntime = 300 * time.Millisecond
	// rateBytes is the least a round must send to measure the reader's rate anew.
	rateBytes = 256 << 10
)

var errCancelled = errors.New("migration cancelled")

// memoryShare: the last pages may take one part in so many of the pause; the rest
// is for the last disk blocks, the round trips and the loading.
const memoryShare = 2

// outgoing is the source's half of a migration.
type outgoing struct {
	m       *Machine
	limit   time.Duration
	was     vmm.State // before the migration paused the machine
	paused  chan struct{}
	finish  chan struct{}
	quit    chan struct{}
	sent    chan struct{} // the sender has ended; nil until Memory
	pr      *io.PipeReader
	pw      *io.PipeWriter
	down    atomic.Int64 // nanoseconds
	once    sync.Once
	cause   error
	started bool
	final   bool // Finish was called
}

func newOutgoing(m *Machine, l vmm.Limits) *outgoing {
	o := &outgoing{
		m: m, limit: time.Duration(l.MaxDowntime) * time.Millisecond,
		paused: make(chan struct{}), finish: make(chan struct{}), quit: make(chan struct{}),
		sent: make(chan struct{}),
	}
	if o.limit == 0 {
		o.limit = defaultDowntime
	}
	o.pr, o.pw = io.Pipe()
	return o
}

func (o *outgoing) isPaused() bool {
	select {
	case <-o.paused:
		return true
	default:
		return false
	}
}

// usable is nil while the migration can go on.
func (o *outgoing) usable(ctx context.Context) error {
	select {
	case <-o.quit:
		return o.cause
	default:
		return ctx.Err()
	}
}

func (o *outgoing) readable(ctx context.Context) error {
	if o.final {
		return errors.New("disks can no longer be read: the migration is finished")
	}
	return o.usable(ctx)
}

// Changes returns what was written since the call before.
func (o *outgoing) Changes(ctx context.Context) (out []vmm.Extent, err error) {
	o.m.mu.Lock() // no step is cut in two
	defer o.m.mu.Unlock()
	if err := o.readable(ctx); err != nil {
		return nil, fmt.Errorf("list disk changes: %w", err)
	}
	for i, k := range o.m.disks {
		out = append(out, k.changes(i)...)
	}
	return out, nil
}

// ReadDisk reads whole blocks of a disk.
func (o *outgoing) ReadDisk(ctx context.Context, disk int, p []byte, off int64) error {
	if err := o.readable(ctx); err != nil {
		return fmt.Errorf("read disk %d: %w", disk, err)
	}
	if disk < 0 || disk >= len(o.m.disks) {
		return fmt.Errorf("read disk %d: the machine has %d", disk, len(o.m.disks))
	}
	err := o.m.disks[disk].read(p, off)
	if gone := o.usable(ctx); err != nil && gone != nil {
		err = fmt.Errorf("read disk %d: %w", disk, gone)
	}
	return err
}

// Memory starts the sender.
func (o *outgoing) Memory(ctx context.Context) (io.ReadCloser, error) {
	o.m.mu.Lock()
	defer o.m.mu.Unlock()
	if err := o.usable(ctx); err != nil {
		return nil, fmt.Errorf("send memory: %w", err)
	}
	if o.started {
		return nil, errors.New("send memory: it is being sent already")
	}
	o.started = true
	o.m.mem.dirty = newBitmap(o.m.mem.pages())
	for i := range o.m.mem.pages() {
		o.m.mem.dirty.set(i)
	}
	go o.send()
	return o.pr, nil
}

func (o *outgoing) Paused() <-chan struct{} { return o.paused }

// Finish lets the rest go.
func (o *outgoing) Finish(ctx context.Context) error {
	if err := o.usable(ctx); err != nil {
		return fmt.Errorf("finish migration: %w", err)
	}
	if !o.isPaused() {
		return errors.New("finish migration: the machine is not paused yet")
	}
	if !o.final {
		o.final = true
		close(o.finish)
	}
	return nil
}

// Downtime is from the pause until the reader had taken the last byte.
func (o *outgoing) Downtime() int64 { return time.Duration(o.down.Load()).Milliseconds() }

// Cancel ends the migration and says whether the machine runs on.
func (o *outgoing) Cancel(ctx context.Context, resume bool) error {
	o.abort(errCancelled)
	o.m.mu.Lock()
	started := o.started
	o.m.mu.Unlock()
	if started {
		select {
		case <-o.sent:
		case <-ctx.Done():
			return fmt.Errorf("cancel migration: %w", context.Cause(ctx))
		}
	}
	o.m.mu.Lock()
	defer o.m.mu.Unlock()
	if o.m.out != o { // ended, or cancelled before
		return nil
	}
	o.m.out = nil
	o.m.mem.dirty = nil
	for _, k := range o.m.disks {
		k.untrack()
	}
	switch {
	case !resume:
		o.m.state = vmm.Paused
	case o.isPaused():
		o.m.state = o.was
	}
	return nil
}

// abort stops the sender and fails what still asks. It takes no lock.
func (o *outgoing) abort(cause error) {
	o.once.Do(func() {
		o.cause = cause
		close(o.quit)
		o.pw.CloseWithError(cause)
	})
}

func (o *outgoing) send() {
	defer close(o.sent)
	err := o.stream()
	if err != nil {
		o.pw.CloseWithError(fmt.Errorf("send memory of %s: %w", o.m.spec.Name, err))
		return
	}
	o.pw.Close()
}

// stream writes the whole of it: rounds, the pause, the rest, the CPU.
func (o *outgoing) stream() error {
	e := newEncoder(o.pw, o.m.mem.pages())
	e.head()
	rate, err := 0.0, error(nil)
	for {
		start, before := time.Now(), e.n
		if err = o.round(e, secPart); err != nil {
			return err
		}
		if n := e.n - before; rate == 0 || n >= rateBytes {
			rate = float64(n) / max(time.Since(start), time.Microsecond).Seconds()
		}
		o.m.mu.Lock()
		rest := o.m.mem.dirty.count() * pageRecordBytes
		if o.m.state == vmm.Ended {
			o.m.mu.Unlock()
			return o.m.gone()
		}
		if float64(rest) <= rate*o.limit.Seconds()/memoryShare {
			break
		}
		o.m.mu.Unlock()
	}
	stopped := time.Now()
	o.was = o.m.state
	o.m.state = vmm.Paused
	o.m.mu.Unlock()
	close(o.paused)
	select {
	case <-o.finish:
	case <-o.quit:
		return o.cause
	}
	if err := o.round(e, secEnd); err != nil {
		return err
	}
	o.m.mu.Lock()
	s := cpuState{Seed: o.m.plan.seed, Step: o.m.step, Prog: o.m.plan.prog}
	s.Digest = s.seal(o.m.mem.sum)
	o.m.mu.Unlock()
	e.cpu(s)
	err = e.flush()
	o.down.Store(int64(time.Since(stopped)))
	return err
}

// round sends every page that is dirty when its turn comes, in sections of at most
// batchPages; an END section is one, however long.
func (o *outgoing) round(e *encoder, kind byte) error {
	buf := make([]byte, 0, batchPages*pageSize)
	index := make([]int64, 0, batchPages)
	if kind == secEnd {
		e.begin(secEnd, ramID)
	}
	for from := int64(0); from >= 0; {
		buf, index = buf[:0], index[:0]
		o.m.mu.Lock()
		d := o.m.mem.dirty
		for from = d.next(from); from >= 0 && len(index) < batchPages; from = d.next(from + 1) {
			d.unset(from)
			index = append(index, from)
			buf = append(buf, o.m.mem.page(from)...)
		}
		o.m.mu.Unlock()
		if kind == secPart && len(index) > 0 {
			e.begin(secPart, ramID)
		}
		for k, i := range index {
			e.page(i, buf[k*pageSize:(k+1)*pageSize])
		}
		if kind == secPart && len(index) > 0 {
			e.endPages()
		}
		if e.err != nil {
			return e.err
		}
	}
	if kind == secEnd {
		e.endPages()
	}
	return e.flush()
}
