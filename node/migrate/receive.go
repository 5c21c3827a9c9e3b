package migrate

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync/atomic"
	"time"

	"github.com/dcnode/dcnode/vmm/ramstream"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"
)

// laneFrames is how many frames wait for the disks, and for the memory, of the
// machine. It bounds the memory that a source can make this side use.
const laneFrames = 32

// toldTimeout bounds how long the news of the machine's arrival may take to leave.
const toldTimeout = time.Second

// receiving is one Receive. Frames go two ways: the disk lane and the memory lane
// each have a goroutine, so that a slow flush does not keep memory waiting.
type receiving struct {
	s       Stream
	sink    Sink
	meter   *meter
	box     *outbox
	group   *errgroup.Group
	zstd    *zstd.Decoder
	decoder *ramstream.Decoder

	diskLane   chan frame
	memoryLane chan frame
	synced     chan struct{} // the last barrier was flushed
	whole      chan struct{} // all of memory was given to the machine
	finished   chan struct{}

	alive   atomic.Int64  // unix nanoseconds of the last progress
	blocked atomic.Bool   // the reader waits for a lane
	ended   atomic.Bool   // the end frame came: the source is no longer needed
	peer    *PeerError    // of the reader
	last    bool          // of the reader: the last barrier came
	deaf    chan struct{} // the reader has ended

	disks  hash.Hash // of the disk lane, like the next
	page   []byte
	mem    io.WriteCloser // of the memory lane
	report Report         // each field belongs to one lane
}

// Receive takes a machine in from s. It returns nil only when all disk and memory
// bytes came, their digests equal the source's, the disks are flushed and the
// machine has loaded its state; the machine is paused then and belongs to nobody
// until the order says so. After an error, an *Error, the machine holds rubbish:
// discard it.
//
// If the link is lost after the last byte came, Receive still succeeds, and Send,
// which cannot know, fails with Released set.
func Receive(ctx context.Context, s Stream, k Sink) (Report, error) {
	k, err := k.withDefaults()
	if err != nil {
		return Report{}, &Error{Phase: Preparing, Err: err}
	}
	r := &receiving{
		s: s, sink: k, meter: newMeter(k.Progress), box: newOutbox(), disks: sha256.New(),
		diskLane: make(chan frame, laneFrames), memoryLane: make(chan frame, laneFrames),
		synced: make(chan struct{}), whole: make(chan struct{}), finished: make(chan struct{}), deaf: make(chan struct{}),
		page: make([]byte, 0, diskRun),
	}
	r.touch()
	if err = r.prepare(); err == nil {
		defer r.zstd.Close()
		defer r.decoder.Close()
		err = r.crew(ctx)
	}
	if err != nil {
		err = r.fail(err)
	}
	r.report.Phases = r.meter.finish()
	return r.report, err
}

func (r *receiving) prepare() (err error) {
	r.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return fmt.Errorf("prepare zstd: %w", err)
	}
	r.decoder, err = ramstream.NewDecoder(writerFunc(r.writeMemory), ramstream.DecoderConfig{Bases: r.sink.Bases})
	if err != nil {
		r.zstd.Close()
	}
	return err
}

// crew runs the goroutines of a Receive and waits for the last of them.
func (r *receiving) crew(parent context.Context) error {
	group, ctx := errgroup.WithContext(parent)
	r.group = group
	group.Go(func() error { return r.interrupt(ctx) })
	group.Go(func() error { return r.watch(ctx) })
	group.Go(func() error { return r.answer(ctx) })
	group.Go(func() error { return r.takeDisks(ctx) })
	group.Go(func() error { return r.takeMemory(ctx) })
	group.Go(func() error { return r.drive(ctx) })
	err := group.Wait()
	switch {
	case err != nil && parent.Err() != nil:
		return context.Cause(parent)
	case err != nil && r.peer != nil:
		return r.peer
	}
	return err
}

// drive is the arrival from beginning to end.
func (r *receiving) drive(ctx context.Context) error {
	if err := r.takeFrames(ctx); err != nil {
		return err
	}
	if err := wait(ctx, r.synced); err != nil {
		return err
	}
	if err := wait(ctx, r.whole); err != nil {
		return err
	}
	r.meter.enter(Loading)
	r.touch()
	if err := r.sink.Machine.Loaded(ctx); err != nil {
		return fmt.Errorf("load machine: %w", err)
	}
	close(r.finished)
	// The deadline frees answer, should the source be gone. It is past the point
	// where the stream matters.
	if err := r.s.SetDeadline(time.Now().Add(toldTimeout)); err != nil {
		r.sink.Log.Debug("bound the last answer", "err", err)
	}
	r.box.put(kindLoaded, nil)
	r.box.close()
	r.meter.enter(Done)
	return nil
}

// takeFrames reads the source's frames and hands them to the lanes, to the end.
func (r *receiving) takeFrames(ctx context.Context) error {
	defer close(r.deaf)
	defer close(r.diskLane)
	defer close(r.memoryLane)
	in := bufio.NewReaderSize(&lively{r}, 64<<10)
	f, err := readFrame(in, maxPayload)
	if err != nil {
		return hearing("source", err)
	}
	if f.kind != kindBegin {
		return fmt.Errorf("%w: the first frame is of kind %d", ErrDamaged, f.kind)
	}
	if err := checkBegin(f.payload, r.sink.Bases); err != nil {
		return err
	}
	r.box.used(f.size())
	r.box.put(kindReady, nil)
	r.meter.enter(Disk)
	for !r.ended.Load() {
		f, err := readFrame(in, maxPayload)
		if err != nil {
			return hearing("source", err)
		}
		if err := r.dispatch(ctx, f); err != nil {
			return err
		}
	}
	return nil
}

// dispatch checks that a frame may come now and passes it on.
func (r *receiving) dispatch(ctx context.Context, f frame) error {
	switch f.kind {
	case kindWrite, kindZero, kindFlush:
		if r.last {
			return fmt.Errorf("%w: disk frame after the last barrier", ErrDamaged)
		}
		if f.kind == kindFlush && len(f.payload) > 4 && f.payload[4] == 1 {
			r.last = true
			r.meter.enter(Switchover)
			// What comes after the barrier waits for the disks, in the memory lane.
			return errors.Join(r.pass(ctx, r.memoryLane, frame{kind: kindFlush}), r.pass(ctx, r.diskLane, f))
		}
		return r.pass(ctx, r.diskLane, f)
	case kindMemory:
		if r.meter.phase() == Disk {
			r.meter.enter(Memory)
		}
		return r.pass(ctx, r.memoryLane, f)
	case kindEnd:
		if !r.last {
			return fmt.Errorf("%w: end before the last barrier", ErrDamaged)
		}
		r.ended.Store(true)
		return r.pass(ctx, r.memoryLane, f)
	case kindAbort:
		r.peer = &PeerError{"source", string(f.payload[:min(len(f.payload), maxReason)])}
		return r.peer
	case kindPing:
		r.box.used(0)
		return nil
	}
	return fmt.Errorf("%w: unknown frame %d from the source", ErrDamaged, f.kind)
}

func (r *receiving) pass(ctx context.Context, lane chan<- frame, f frame) error {
	r.blocked.Store(true)
	defer r.blocked.Store(false)
	select {
	case lane <- f:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// used tells the source that a frame was dealt with.
func (r *receiving) used(f frame, done int64) {
	r.touch()
	r.box.used(f.size())
	r.meter.add(done, f.size())
}

func (r *receiving) touch() { r.alive.Store(time.Now().UnixNano()) }

// lively notes when bytes come.
type lively struct{ r *receiving }

func (l *lively) Read(p []byte) (int, error) {
	n, err := l.r.s.Read(p)
	if n > 0 {
		l.r.touch()
	}
	return n, err
}

// watch ends the Receive when nothing has come, or gone on, for too long.
func (r *receiving) watch(ctx context.Context) error {
	timeout := r.sink.StallTimeout
	tick := time.NewTicker(timeout / 8)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-r.finished:
			return nil
		case <-ctx.Done():
			return nil
		}
		if _, cut := cuts(r.s); cut {
			r.touch()
		}
		if time.Since(time.Unix(0, r.alive.Load())) <= timeout {
			continue
		}
		if r.blocked.Load() || r.ended.Load() {
			return fmt.Errorf("%w: the machine here took nothing for %v: look at its driver's log", ErrStalled, timeout)
		}
		return fmt.Errorf("%w: nothing came from the source for %v: check the link", ErrStalled, timeout)
	}
}

// interrupt unblocks reads and writes when the Receive fails.
func (r *receiving) interrupt(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return expire(r.s)
	case <-r.finished:
		return nil
	}
}

func (r *receiving) fail(cause error) error {
	failed := &Error{Phase: r.meter.phase(), Err: cause}
	r.sink.Log.Error("receive machine", "phase", failed.Phase, "err", cause)
	if !r.box.torn.Load() && mayTell(cause) {
		goodbye(r.s, kindFailed, cause)
	}
	return failed
}
