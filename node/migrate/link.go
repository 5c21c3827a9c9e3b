package migrate

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// link is the source's side of the stream: it sends frames one after another, each
// when the window and the bandwidth allow it. There is no queue: who has a frame to
// send waits, and bytes that wait are still in the machine.
//
// Its locks are channels, so that waiting for them ends with the context.
type link struct {
	s     Stream
	turn  chan struct{} // held by whose frame is next, in the order of asking
	wire  chan struct{} // held during a write
	acks  chan struct{} // an acknowledgement came
	deaf  chan struct{} // closed when nobody listens to the other side any more
	buf   []byte        // under wire
	pacer pacer         // under turn

	mu       sync.Mutex
	flow     flow
	lastSent time.Time // anything, pings too
	lastData time.Time
	heard    time.Time // last frame of the destination
	moved    time.Time // when bytes in flight last became fewer, or began to be some
	torn     bool      // a write failed within a frame
	cuts     int       // of the stream
}

func newLink(s Stream, bandwidth int64) *link {
	now := time.Now()
	return &link{
		s: s, turn: make(chan struct{}, 1), wire: make(chan struct{}, 1), acks: make(chan struct{}, 1), deaf: make(chan struct{}),
		pacer: pacer{rate: bandwidth}, lastSent: now, lastData: now, heard: now, moved: now,
	}
}

// hold waits for a lock of capacity 1.
func hold(ctx context.Context, lock chan struct{}) error {
	select {
	case lock <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// send sends a frame and returns how many bytes it took on the stream.
func (l *link) send(ctx context.Context, kind byte, parts ...[]byte) (int64, error) {
	n := int64(headBytes)
	for _, p := range parts {
		n += int64(len(p))
	}
	if err := hold(ctx, l.turn); err != nil {
		return 0, err
	}
	defer func() { <-l.turn }()
	if err := l.waitRoom(ctx, n); err != nil {
		return 0, err
	}
	if err := sleep(ctx, l.pacer.delay(n, time.Now())); err != nil {
		return 0, err
	}
	if err := hold(ctx, l.wire); err != nil {
		return 0, err
	}
	defer func() { <-l.wire }()
	l.count(n)
	err := l.write(kind, parts...)
	if err != nil {
		hearOut(ctx, l.deaf)
	}
	return n, err
}

// hearOut gives the listener a moment to find out why the other side takes nothing
// more; a reason is better than "broken pipe".
func hearOut(ctx context.Context, deaf <-chan struct{}) {
	t := time.NewTimer(500 * time.Millisecond)
	defer t.Stop()
	select {
	case <-deaf:
	case <-t.C:
	case <-ctx.Done():
	}
}

// sound says whether a further frame would be understood.
func (l *link) sound() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.torn
}

// mayTell says whether the other side may still listen, and has not told us itself.
func mayTell(cause error) bool {
	var broken *linkError
	var peer *PeerError
	return !errors.As(cause, &broken) && !errors.As(cause, &peer) && !errors.Is(cause, ErrStalled)
}

// ping asks for an acknowledgement unless a frame is on its way already.
func (l *link) ping() error {
	select {
	case l.wire <- struct{}{}:
	default:
		return nil
	}
	defer func() { <-l.wire }()
	return l.write(kindPing)
}

// write sends a frame; the caller holds wire.
func (l *link) write(kind byte, parts ...[]byte) error {
	l.buf = appendFrame(l.buf[:0], kind, parts...)
	n, err := l.s.Write(l.buf)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lastSent = time.Now()
	if err != nil {
		l.torn = n > 0
		return &linkError{fmt.Errorf("send to the destination: %w", err)}
	}
	return nil
}

func (l *link) waitRoom(ctx context.Context, n int64) error {
	for !l.fits(n) {
		select {
		case <-l.acks:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

func (l *link) fits(n int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.flow.fits(n)
}

func (l *link) count(n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if l.flow.inFlight() == 0 {
		l.moved = now
	}
	l.flow.onSend(n, now)
	l.lastData = now
}

// fed says that the machine has given something, or is only now asked to.
func (l *link) fed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lastData = time.Now()
}

// starved is for how long nobody had anything to send.
func (l *link) starved() time.Duration {
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	default:
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Since(l.lastData)
}

// acknowledge takes the destination's count of bytes used.
func (l *link) acknowledge(total int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.excuse(now)
	if total > l.flow.acked {
		l.moved = now
	}
	if err := l.flow.onAck(total, now); err != nil {
		return err
	}
	select {
	case l.acks <- struct{}{}:
	default:
	}
	return nil
}

// excuse begins all patience anew when the stream is cut, or was since the last time:
// nobody is to blame for that, and no bytes that it held up say anything of the path. The
// caller holds mu.
func (l *link) excuse(now time.Time) {
	times, cut := cuts(l.s)
	if times == l.cuts && !cut {
		return
	}
	l.cuts = times
	l.heard, l.moved, l.lastData = now, now, now
	l.flow.disregard()
}

func (l *link) hear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard = time.Now()
}

// rate is bytes per second; 0: not known.
func (l *link) rate() float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.flow.rate()
}

// quiet is for how long nothing was sent.
func (l *link) quiet() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Since(l.lastSent)
}

// stalled says what did not happen for so long, or nil.
func (l *link) stalled(timeout time.Duration) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.excuse(now)
	switch {
	case l.flow.inFlight() > 0 && now.Sub(l.moved) > timeout:
		return fmt.Errorf("%w: the destination used none of %d bytes for %v: is its disk or its machine stuck, or the link?", ErrStalled, l.flow.inFlight(), timeout)
	case now.Sub(l.heard) > timeout:
		return fmt.Errorf("%w: nothing came from the destination for %v: check the link", ErrStalled, timeout)
	}
	return nil
}

// goodbye sends a reason for giving up, if the stream is still at the start of a
// frame. It is a courtesy: the other side finds out anyway.
func goodbye(s Stream, kind byte, cause error) {
	if s.SetDeadline(time.Now().Add(time.Second)) == nil {
		// The outcome does not depend on whether it arrives.
		_, _ = s.Write(appendFrame(nil, kind, reason(cause)))
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
