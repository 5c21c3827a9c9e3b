// Package resume makes one stream of bytes out of connections that come and go.
//
//	Write ─► kept until acknowledged ─► connection 1 ─╳
//	                              └───► connection 2 ───► Read
//
// The bytes each way are numbered from the start of the session. Each side keeps what
// it has written until the other says that it has read it; after a cut both say how far
// they have read, and the rest is sent again, so that every byte is read once and in
// order. What is kept is bounded: Write waits then. Acknowledgements come in while
// somebody reads.
//
// One side dials (Config.Dial) and the other waits for it ([Link.Resume]). A connection
// is given up when it fails, or when nothing was heard for Config.Silence while somebody
// was reading: both sides say something more often than that. A slow connection is heard,
// and so is one whose far side does not read: its acknowledgements do not wait for that.
//
// Who the other side is and that the bytes are right is for the connection to see to,
// and which session a connection is of for the caller.
package resume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// Stream is a connection. Its Read and Write may run at the same time, and Reset ends
// both at once.
type Stream interface {
	io.ReadWriteCloser                  // Close: what was written still arrives
	Reset() error                       // drop everything
	SetReadDeadline(t time.Time) error  // also for a Read that already waits
	SetWriteDeadline(t time.Time) error // also for a Write that already waits
}

// Defaults of Config.
const (
	DefaultSilence = 6 * time.Second
	DefaultWithin  = 10 * time.Minute
	DefaultKeep    = 48 << 20
)

// Config is what a Link is made of.
type Config struct {
	// Silence is for how long nothing may be heard: the connection counts as cut then.
	Silence time.Duration
	// Within is how long a cut may last, counted from when bytes last came across.
	Within time.Duration
	// Keep bounds the bytes that are kept for sending again. It should be more than the
	// user of the link has in flight, or Write waits for acknowledgements.
	Keep int
	// Dial makes a new connection and exchanges how far either side has read: received
	// is this side's, what it returns the other's. attempt grows; ctx bounds it. An
	// error that wraps ErrOver ends the link, another is tried again. Nil: the other
	// side dials.
	Dial func(ctx context.Context, attempt, received uint64) (Stream, uint64, error)
	// Tell is called now and then while the link is cut: for how long it has been, of
	// how long it may be. It must not block. It may be nil.
	Tell func(cut, within time.Duration)
}

// Errors that callers branch on.
var (
	// ErrOver: the session has ended at the other side; nothing is left to continue.
	ErrOver = errors.New("the session is over")
	// ErrCut: the cut lasted too long.
	ErrCut = errors.New("the link stayed cut")

	errStrange = errors.New("the other side does not keep to the protocol")
	errSilence = errors.New("nothing was heard")
	errClosed  = errors.New("the link is closed")
)

// Over is an ErrOver with the other side's reason.
func Over(reason string) error { return &overError{reason} }

// overError and cutError do not unwrap: what they say is what people need to know, more
// than the innermost cause.
type overError struct{ reason string }

func (e *overError) Error() string        { return ErrOver.Error() + ": " + e.reason }
func (e *overError) Is(target error) bool { return target == ErrOver }

type cutError struct {
	within time.Duration
	why    error // of the last attempt
}

func (e *cutError) Error() string        { return fmt.Sprintf("%v for %v: %v", ErrCut, e.within, e.why) }
func (e *cutError) Is(target error) bool { return target == ErrCut || errors.Is(e.why, target) }

// Stats is what the cuts of a link have cost.
type Stats struct {
	Cuts  int
	Down  time.Duration // how long there was no connection; silence before a cut was noticed is not in it
	Twice int64         // bytes that were sent again
}

const (
	chunkSize  = 256 << 10
	ackEvery   = 256 << 10        // bytes read, after which the other side is told
	linger     = time.Second      // for the last bytes to leave
	dialWithin = 20 * time.Second // for one attempt
	firstRetry = 250 * time.Millisecond
	lastRetry  = 4 * time.Second
)

// New makes a link that begins with a connection on which nothing else follows.
// Close it in the end.
func New(s Stream, c Config) *Link {
	if c.Silence <= 0 {
		c.Silence = DefaultSilence
	}
	if c.Within <= 0 {
		c.Within = DefaultWithin
	}
	if c.Keep <= 0 {
		c.Keep = DefaultKeep
	}
	if c.Tell == nil {
		c.Tell = func(_, _ time.Duration) {}
	}
	l := &Link{cfg: c, changed: make(chan struct{})}
	l.kept.max = max(2, c.Keep/chunkSize)
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.kept.begin()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.use(s, 0)
	l.work.Go(l.keep)
	return l
}

// Resume takes a connection that the other side has dialed, instead of the one there
// was. theirs is how far the other side has read, and answer tells it how far this one
// has. The connection is the link's until gone is closed.
func (l *Link) Resume(s Stream, attempt, theirs uint64, answer func(received uint64) error) (gone <-chan struct{}, err error) {
	l.resuming.Lock()
	defer l.resuming.Unlock()
	if err := l.admit(attempt, theirs); err != nil {
		return nil, err
	}
	received := l.received()
	if err := answer(received); err != nil {
		return nil, fmt.Errorf("answer who resumes: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return nil, l.over()
	}
	return l.use(s, theirs).gone, nil
}

// admit drops the connection there is in favour of a newer one. A stray one that comes
// late is refused, as are positions that cannot be.
func (l *Link) admit(attempt, theirs uint64) error {
	l.mu.Lock()
	var err error
	switch c := l.conn; {
	case l.err != nil || l.closing:
		err = l.over()
	case attempt <= l.attempt:
		err = fmt.Errorf("attempt %d comes after attempt %d: it is refused", attempt, l.attempt)
	case !l.kept.holds(theirs):
		err = fmt.Errorf("%w: it has read %d bytes, between %d and %d are possible", errStrange, theirs, l.kept.acked, l.kept.sent)
	default:
		l.attempt = attempt
		l.why = errors.New("it was resumed and broke off again")
		if c != nil {
			l.drop(c)
		}
	}
	last := l.last
	l.mu.Unlock()
	if err != nil {
		return err
	}
	return await(last.done, linger)
}

// over says that the session has ended, to the side that would continue.
func (l *Link) over() error {
	if l.err == nil || errors.Is(l.err, io.EOF) || errors.Is(l.err, errClosed) {
		return ErrOver
	}
	return Over(l.err.Error())
}

// await waits for the writer of a connection that was reset.
func await(done <-chan struct{}, limit time.Duration) error {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-done:
		return nil
	case <-t.C:
		return errors.New("the earlier connection does not end")
	}
}

// redial makes a new connection after a cut, again and again until keep finds that it
// has lasted too long.
func (l *Link) redial(last *conn, pause time.Duration) {
	for {
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-l.ctx.Done():
			t.Stop()
			return
		}
		err := l.dial(last)
		if err == nil || l.ctx.Err() != nil {
			return
		}
		if errors.Is(err, ErrOver) || errors.Is(err, errStrange) {
			l.fail(err)
			return
		}
		l.note(err)
		pause = min(max(firstRetry, 2*pause), lastRetry)
	}
}

// dial is one attempt.
func (l *Link) dial(last *conn) error {
	ctx, cancel := context.WithTimeout(l.ctx, dialWithin)
	defer cancel()
	if err := await(last.done, linger); err != nil {
		return err
	}
	l.attempt++
	s, theirs, err := l.cfg.Dial(ctx, l.attempt, l.received())
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.err != nil:
		_ = s.Reset()
		return l.err
	case !l.kept.holds(theirs):
		_ = s.Reset()
		return fmt.Errorf("%w: it has read %d bytes, between %d and %d are possible", errStrange, theirs, l.kept.acked, l.kept.sent)
	}
	l.use(s, theirs)
	return nil
}
