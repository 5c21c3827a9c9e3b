package migrate

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"sync/atomic"
	"time"

	"github.com/dcnode/dcnode/vmm/ramstream"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"
)

// cancelTimeout bounds the cancelling of a migration that failed.
const cancelTimeout = 10 * time.Second

// sending is one Send.
type sending struct {
	job   Job
	link  *link
	meter *meter
	group *errgroup.Group
	zstd  *zstd.Encoder

	ready, loaded chan struct{} // the destination said so
	flushed       chan struct{} // the destination flushed a barrier, see lastFlushed
	finished      chan struct{} // Send has succeeded: what waits may go
	pumped        chan struct{} // all of memory was sent
	released      chan struct{} // Release has returned nil
	called        atomic.Bool   // Release was called
	ending        atomic.Bool   // the end frame is on its way
	lastFlushed   atomic.Uint32 // barrier
	peer          *PeerError    // of listen
	pausedAt      time.Time     // of release, complete when released is closed
	memory        memoryTotals  // of pump, complete when pumped is closed

	// Of the driving goroutine.
	report   Report
	disks    hash.Hash
	buf, out []byte
	barrier  uint32
	unsynced int64 // bytes of disk since the last barrier
}

// Send moves a machine out over s. On success the destination has loaded it and the
// machine here stands still; the caller ends the migration with Machine.Cancel(ctx,
// false) once the order confirms it. On failure the error is an *Error; unless its
// Released is set, Send has cancelled and the machine runs on here. If it is set, Send
// has only stopped sending: the caller cancels, resuming or not, as the order says.
func Send(ctx context.Context, s Stream, j Job) (Report, error) {
	j, err := j.withDefaults()
	if err != nil {
		return Report{}, &Error{Phase: Preparing, Err: err}
	}
	t := &sending{
		job: j, link: newLink(s, j.MaxBandwidth), meter: newMeter(j.Progress), disks: sha256.New(),
		ready: make(chan struct{}), loaded: make(chan struct{}), flushed: make(chan struct{}, 1),
		finished: make(chan struct{}), pumped: make(chan struct{}), released: make(chan struct{}),
		buf: make([]byte, diskRun),
	}
	if t.zstd, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(diskWindow)); err == nil {
		err = t.crew(ctx)
	}
	if err != nil {
		err = t.fail(ctx, err)
	}
	return t.summary(), err
}

// crew runs the goroutines of a Send and waits for the last of them.
func (t *sending) crew(parent context.Context) error {
	group, ctx := errgroup.WithContext(parent)
	t.group = group
	group.Go(func() error { return t.interrupt(ctx) })
	group.Go(func() error { return t.listen(ctx) })
	group.Go(func() error { return t.watch(ctx) })
	group.Go(func() error { return t.release(ctx) })
	group.Go(func() error {
		if err := t.drive(ctx); err != nil {
			return err
		}
		close(t.finished)
		return nil
	})
	err := group.Wait()
	switch {
	case err != nil && parent.Err() != nil:
		return context.Cause(parent)
	case err != nil && t.peer != nil:
		return t.peer
	}
	return err
}

// drive is the migration from beginning to end.
func (t *sending) drive(ctx context.Context) error {
	if err := t.greet(ctx); err != nil {
		return err
	}
	building := t.buildIndex(ctx)
	t.meter.enter(Disk)
	if err := t.copyDisks(ctx); err != nil {
		return err
	}
	index, err := take(ctx, building)
	if err != nil {
		return err
	}
	t.meter.enter(Memory)
	if err := t.startMemory(ctx, index); err != nil {
		return err
	}
	if err := t.followDisks(ctx); err != nil {
		return err
	}
	t.meter.enter(Switchover)
	if err := t.switchOver(ctx); err != nil {
		return err
	}
	t.meter.enter(Loading)
	if err := wait(ctx, t.loaded); err != nil {
		return err
	}
	t.meter.enter(Done)
	return nil
}

// greet says what is coming and waits until the destination is ready for it.
func (t *sending) greet(ctx context.Context) error {
	if _, err := t.link.send(ctx, kindBegin, beginPayload(t.job.Bases)); err != nil {
		return err
	}
	return wait(ctx, t.ready)
}

// buildIndex indexes the bases while the disks are copied. The channel gives the
// index, or nothing if that failed.
func (t *sending) buildIndex(ctx context.Context) <-chan *ramstream.Index {
	made := make(chan *ramstream.Index, 1)
	t.group.Go(func() error {
		index, err := t.job.Index, error(nil)
		if index == nil && len(t.job.Bases) > 0 {
			index, err = ramstream.NewIndex(ctx, t.job.Bases, 0)
		}
		if err != nil {
			return err
		}
		made <- index
		return nil
	})
	return made
}

// call asks the machine for something that must not take longer than StallTimeout.
func (t *sending) call(ctx context.Context, what string, f func(context.Context) error) error {
	late := fmt.Errorf("%w: the machine here did not answer for %v", ErrStalled, t.job.StallTimeout)
	ctx, cancel := context.WithTimeoutCause(ctx, t.job.StallTimeout, late)
	defer cancel()
	err := f(ctx)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// switchOver sends what is left after the pause. The destination holds memory that
// comes after the barrier back until its disks are flushed.
func (t *sending) switchOver(ctx context.Context) error {
	if err := wait(ctx, t.released); err != nil {
		return err
	}
	if _, err := t.pass(ctx); err != nil {
		return err
	}
	if err := t.sendBarrier(ctx, true); err != nil {
		return err
	}
	if err := t.call(ctx, "finish migration", t.job.Machine.Finish); err != nil {
		return err
	}
	if err := wait(ctx, t.pumped); err != nil {
		return err
	}
	t.ending.Store(true)
	end := binary.BigEndian.AppendUint64(nil, uint64(t.memory.plain))
	n, err := t.link.send(ctx, kindEnd, end, t.memory.digest[:])
	t.memory.sent += n
	t.meter.add(0, n)
	return err
}

// fail ends a Send that did not succeed. All its goroutines have ended.
func (t *sending) fail(parent context.Context, cause error) error {
	failed := &Error{Phase: t.meter.phase(), Released: t.called.Load(), Err: cause}
	if !failed.Released {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(parent), cancelTimeout)
		defer cancel()
		if err := t.job.Machine.Cancel(ctx, true); err != nil {
			failed.Err = errors.Join(cause, fmt.Errorf("cancel migration: %w", err))
		}
	}
	t.job.Log.Error("send machine", "phase", failed.Phase, "released", failed.Released, "err", failed.Err)
	if t.link.sound() && mayTell(cause) {
		goodbye(t.link.s, kindAbort, cause)
	}
	return failed
}

func (t *sending) summary() Report {
	r := t.report
	r.Phases = t.meter.finish()
	r.MemoryPlain, r.Digest, r.Stream = t.memory.plain, t.memory.digest, t.memory.stats
	r.MemorySent = t.memory.sent
	r.PausedAt, r.Released = t.pausedAt, t.called.Load()
	if r.Released {
		r.Downtime = t.job.Machine.Downtime()
	}
	return r
}

// release calls Release as soon as the machine has paused, whatever the driving
// goroutine is doing then.
func (t *sending) release(ctx context.Context) error {
	select {
	case <-t.job.Machine.Paused():
	case <-ctx.Done():
		return nil
	}
	if ctx.Err() != nil {
		return nil // it failed first: the machine runs on here
	}
	t.pausedAt = time.Now()
	t.called.Store(true)
	if err := t.job.Release(ctx); err != nil {
		return fmt.Errorf("release machine: %w", err)
	}
	close(t.released)
	return nil
}
