package migrate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// listen takes what the destination says, until it says that it has loaded.
func (t *sending) listen(ctx context.Context) error {
	defer close(t.link.deaf)
	for {
		f, err := readFrame(t.link.s, maxReason)
		if err != nil {
			return hearing("destination", err)
		}
		t.link.hear()
		if err := t.onFrame(f); err != nil {
			return err
		}
		if f.kind == kindLoaded {
			return nil
		}
	}
}

func (t *sending) onFrame(f frame) error {
	r := reader{b: f.payload}
	switch f.kind {
	case kindAck:
		total := int64(r.u64())
		return errors.Join(r.end(), t.link.acknowledge(total))
	case kindReady:
		return once(t.ready)
	case kindFlushed:
		t.lastFlushed.Store(r.u32())
		select {
		case t.flushed <- struct{}{}:
		default:
		}
		return r.end()
	case kindLoaded:
		if !t.ending.Load() {
			return fmt.Errorf("%w: the destination says loaded before the end", ErrDamaged)
		}
		return once(t.loaded)
	case kindFailed:
		t.peer = &PeerError{"destination", string(f.payload)}
		return t.peer
	}
	return fmt.Errorf("%w: unknown frame %d from the destination", ErrDamaged, f.kind)
}

// once closes c; what is said twice is a fault of the other side.
func once(c chan struct{}) error {
	select {
	case <-c:
		return fmt.Errorf("%w: the destination repeats itself", ErrDamaged)
	default:
		close(c)
		return nil
	}
}

// hearing names a failure to read from a side.
func hearing(side string, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &linkError{fmt.Errorf("the link from the %s was cut: %w", side, io.ErrUnexpectedEOF)}
	}
	return fmt.Errorf("hear from the %s: %w", side, err)
}

// watch asks for signs of life and ends the Send when there are none. It falls
// silent after the end frame: the destination may no longer read then.
func (t *sending) watch(ctx context.Context) error {
	timeout := t.job.StallTimeout
	tick := time.NewTicker(timeout / 8)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-t.finished:
			return nil
		case <-ctx.Done():
			return nil
		}
		if err := t.link.stalled(timeout); err != nil {
			return err
		}
		if p := t.meter.phase(); (p == Memory || p == Switchover) && t.link.starved() > timeout {
			return fmt.Errorf("%w: the machine here gave neither memory nor disk changes for %v: look at its driver's log", ErrStalled, timeout)
		}
		if _, cut := cuts(t.link.s); cut || t.link.quiet() < timeout/4 || t.ending.Load() {
			continue
		}
		if err := t.link.ping(); err != nil {
			return err
		}
	}
}

// interrupt unblocks reads and writes when the Send fails.
func (t *sending) interrupt(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return expire(t.link.s)
	case <-t.finished:
		return nil
	}
}

// expire sets a deadline that has passed.
func expire(s Stream) error {
	if err := s.SetDeadline(time.Unix(1, 0)); err != nil {
		return fmt.Errorf("interrupt stream: %w", err)
	}
	return nil
}

// take receives from c, or fails with ctx.
func take[T any](ctx context.Context, c <-chan T) (T, error) {
	select {
	case v := <-c:
		return v, nil
	case <-ctx.Done():
		var none T
		return none, context.Cause(ctx)
	}
}

func wait(ctx context.Context, c <-chan struct{}) error {
	_, err := take(ctx, c)
	return err
}
