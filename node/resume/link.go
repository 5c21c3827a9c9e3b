package resume

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// Link is a stream over connections that come and go. Read is for one goroutine at a
// time; the other methods may be called at any time.
type Link struct {
	cfg      Config
	ctx      context.Context
	cancel   context.CancelFunc
	work     sync.WaitGroup
	resuming sync.Mutex // held through one Resume

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced at every change that somebody waits for
	conn     *conn         // nil: cut
	last     *conn         // conn, or the one before the cut
	kept     kept
	read     uint64 // position up to which Read has given bytes
	told     uint64 // position that the other side was told
	attempt  uint64 // of the newest connection; of redial while that runs
	deadline time.Time
	closing  bool
	err      error     // final; io.EOF: the other side has ended
	why      error     // the last thing that went wrong with a connection
	cutAt    time.Time // this cut
	since    time.Time // the first cut after which nothing has come across
	progress uint64    // bytes that had come across both ways by then
	vain     int       // cuts since then
	stats    Stats
}

// conn is one connection.
type conn struct {
	s    Stream
	work chan struct{} // of size 1: there is something to write
	gone chan struct{} // closed when the link has dropped it
	done chan struct{} // closed when its writer has ended

	// Of Read.
	head [recordHead]byte
	got  int    // bytes of head
	left uint64 // bytes of the record that are still to come

	// Under the link's lock.
	reading bool
	heard   time.Time // the last byte, or the beginning of reading
	spoken  time.Time // the last write
	owes    bool      // an acknowledgement
}

// use makes s the connection, the other side having read up to theirs. The caller holds
// mu, and the writer of the connection before has ended.
func (l *Link) use(s Stream, theirs uint64) *conn {
	now := time.Now()
	c := &conn{
		s: s, work: make(chan struct{}, 1), gone: make(chan struct{}), done: make(chan struct{}), heard: now, spoken: now,
	}
	if l.stats.Cuts > 0 {
		l.stats.Twice += l.kept.rewind(theirs)
		l.stats.Down += now.Sub(l.cutAt)
	}
	l.conn, l.last, l.told = c, c, l.read
	_ = s.SetReadDeadline(l.deadline)
	_ = s.SetWriteDeadline(time.Time{})
	l.work.Go(func() { l.write(c) })
	l.change()
	return c
}

// change wakes all who wait. The caller holds mu.
func (l *Link) change() {
	close(l.changed)
	l.changed = make(chan struct{})
}

func (c *conn) wake() {
	select {
	case c.work <- struct{}{}:
	default:
	}
}

// drop gives up a connection. The caller holds mu.
func (l *Link) drop(c *conn) {
	l.cutAt = time.Now()
	if across := l.read + l.kept.acked; l.stats.Cuts == 0 || across != l.progress {
		l.progress, l.since, l.vain = across, l.cutAt, 0
	} else {
		l.vain++
	}
	l.stats.Cuts++
	l.part(c)
}

// part lets go of a connection at once. The caller holds mu.
func (l *Link) part(c *conn) {
	l.conn = nil
	close(c.gone)
	// Not every Reset wakes who is inside Read or Write, and one may itself wait for a
	// connection that is dead.
	_ = c.s.SetReadDeadline(past)
	_ = c.s.SetWriteDeadline(past)
	go func() { _ = c.s.Reset() }()
	l.change()
}

var past = time.Unix(1, 0)

// sever drops a connection that has failed, unless that was done.
func (l *Link) sever(c *conn, cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != c {
		return
	}
	l.why = cause
	l.drop(c)
	if l.cfg.Dial != nil && !l.closing {
		pause := time.Duration(0)
		if l.vain > 0 {
			pause = min(firstRetry<<min(l.vain, 10), lastRetry)
		}
		l.work.Go(func() { l.redial(c, pause) })
	}
}

// note keeps why a connection could not be made.
func (l *Link) note(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.why = err
}

// fail ends the link.
func (l *Link) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return
	}
	l.err = err
	if l.conn != nil {
		l.part(l.conn)
	}
	l.cancel()
	l.change()
}

// Read gives the other side's bytes: it waits through cuts. io.EOF: the other side has
// closed the link.
func (l *Link) Read(p []byte) (int, error) {
	for len(p) > 0 {
		c, err := l.reader()
		if err != nil {
			return 0, err
		}
		n, err := c.take(p)
		if n, err = l.took(c, n, err); n > 0 || err != nil {
			return n, err
		}
	}
	return 0, nil
}

// reader is the connection to read from, once there is one.
func (l *Link) reader() (*conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		switch {
		case l.err != nil:
			return nil, l.err
		case l.expired():
			return nil, os.ErrDeadlineExceeded
		case l.conn != nil:
			if !l.conn.reading {
				l.conn.reading, l.conn.heard = true, time.Now()
			}
			return l.conn, nil
		}
		l.wait()
	}
}

// wait waits for a change or the deadline. The caller holds mu, which is let go.
func (l *Link) wait() {
	changed, late := l.changed, (<-chan time.Time)(nil)
	if !l.deadline.IsZero() {
		t := time.NewTimer(time.Until(l.deadline))
		defer t.Stop()
		late = t.C
	}
	l.mu.Unlock()
	defer l.mu.Lock()
	select {
	case <-changed:
	case <-late:
	}
}

func (l *Link) expired() bool { return !l.deadline.IsZero() && !time.Now().Before(l.deadline) }

// take reads the head of a record or some of its data: n bytes of it into p.
func (c *conn) take(p []byte) (n int, err error) {
	if c.left > 0 {
		n, err = c.s.Read(p[:min(uint64(len(p)), c.left)])
		c.left -= uint64(n)
		return n, err
	}
	n, err = c.s.Read(c.head[c.got:])
	c.got += n
	return 0, err
}

// took enters what was read from a connection: n bytes of data, and a head that may be
// complete. Bytes of a connection that was dropped meanwhile come again over another.
func (l *Link) took(c *conn, n int, err error) (int, error) {
	l.mu.Lock()
	if l.conn != c {
		l.mu.Unlock()
		return 0, nil
	}
	c.heard = time.Now()
	l.read += uint64(n)
	if l.read-l.told >= ackEvery {
		c.owes = true
		c.wake()
	}
	c.reading = n == 0 // else until the next Read
	var strange error
	if c.got == recordHead {
		c.got = 0
		strange = l.record(c, c.head[0], binary.BigEndian.Uint64(c.head[1:]))
	}
	late := l.expired()
	l.mu.Unlock()
	switch {
	case strange != nil:
		l.fail(strange)
		return n, strange
	case n > 0 || err == nil:
		return n, nil // an error comes again
	case late:
		return 0, os.ErrDeadlineExceeded
	}
	l.sever(c, err)
	return 0, nil
}

// record heeds a head. The caller holds mu.
func (l *Link) record(c *conn, kind byte, number uint64) error {
	switch {
	case kind == recordData && number > 0 && number <= chunkSize:
		c.left = number
		return nil
	case kind == recordAck && number >= l.kept.acked && number <= l.kept.written:
		full := l.kept.count == l.kept.max
		if l.kept.acknowledge(number); full {
			l.change()
		}
		return nil
	case kind == recordEnd:
		return io.EOF
	}
	return fmt.Errorf("%w: a record of kind %d with %d", errStrange, kind, number)
}

// Write keeps p and has it sent; it waits only when too much is kept.
func (l *Link) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for n := 0; ; {
		switch {
		case errors.Is(l.err, io.EOF):
			return n, io.ErrClosedPipe
		case l.err != nil:
			return n, l.err
		case l.closing:
			return n, errClosed
		case l.expired():
			return n, os.ErrDeadlineExceeded
		}
		n += l.kept.put(p[n:])
		if l.conn != nil {
			l.conn.wake()
		}
		if n == len(p) {
			return n, nil
		}
		l.wait()
	}
}

// write sends what there is over one connection until that is dropped, or all is said.
func (l *Link) write(c *conn) {
	defer close(c.done)
	var head [recordHead]byte
	for {
		b, last := l.next(c, head[:0])
		if len(b) > 0 {
			if _, err := c.s.Write(b); err != nil {
				l.sever(c, fmt.Errorf("send: %w", err))
				return
			}
		}
		switch {
		case last:
			return
		case len(b) > 0:
			continue
		}
		select {
		case <-c.work:
		case <-c.gone:
			return
		}
	}
}

// next is what goes over a connection next; nothing for the moment: empty. After the
// last there is nothing more. Short records are made in buf.
func (l *Link) next(c *conn, buf []byte) (b []byte, last bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != c {
		return nil, true
	}
	c.spoken = time.Now()
	if c.owes {
		c.owes, l.told = false, l.read
		return appendRecord(buf, recordAck, l.read), false
	}
	b = l.kept.out()
	if len(b) == 0 && l.closing {
		return appendRecord(buf, recordEnd, 0), true
	}
	return b, false
}

// keep looks after the connection, and ends the link when a cut has lasted too long.
func (l *Link) keep() {
	tick := time.NewTicker(l.cfg.Silence / 8)
	defer tick.Stop()
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-tick.C:
		}
		l.mu.Lock()
		c, cut, why := l.conn, time.Since(l.since), l.why
		silent := false
		if c != nil {
			silent = c.reading && time.Since(c.heard) > l.cfg.Silence
			if time.Since(c.spoken) > l.cfg.Silence/4 || l.read > l.told {
				c.owes = true
				c.wake()
			}
		}
		l.mu.Unlock()
		switch {
		case silent:
			l.sever(c, fmt.Errorf("%w for %v", errSilence, l.cfg.Silence))
		case c == nil && cut > l.cfg.Within:
			l.fail(&cutError{l.cfg.Within, why})
		case c == nil:
			l.cfg.Tell(cut, l.cfg.Within)
		}
	}
}

// SetDeadline bounds Read, and Write where it waits. What was written still leaves.
func (l *Link) SetDeadline(t time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.deadline = t
	l.change()
	if l.conn == nil {
		return nil
	}
	if err := l.conn.s.SetReadDeadline(t); err != nil {
		return fmt.Errorf("bound reading: %w", err)
	}
	return nil
}

// Cut says how often the link was cut, and whether it is now.
func (l *Link) Cut() (times int, now bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stats.Cuts, l.conn == nil && l.err == nil
}

// Stats is what the cuts have cost so far.
func (l *Link) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.stats
	if l.conn == nil && l.err == nil {
		s.Down += time.Since(l.cutAt)
	}
	return s
}

func (l *Link) received() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.read
}

// Close gives what was written a second to leave, and ends the link on both sides. It
// does not wait for a link that is cut.
func (l *Link) Close() error {
	l.mu.Lock()
	c := l.conn
	l.closing = true
	if c != nil {
		_ = c.s.SetWriteDeadline(time.Now().Add(linger))
		c.wake()
	}
	l.change()
	l.mu.Unlock()
	if c != nil && await(c.done, 2*linger) == nil {
		l.depart(c)
	}
	l.fail(errClosed)
	l.work.Wait()
	return nil
}

// depart closes a connection whose writer has said all there was.
func (l *Link) depart(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != c {
		return
	}
	l.conn = nil
	close(c.gone)
	l.change()
	go func() { _ = c.s.Close() }() // it may wait for a connection that is dead
}
