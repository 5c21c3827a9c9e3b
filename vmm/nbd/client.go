package nbd

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// pieces of a long read or write that are under way at once, and their size.
const (
	pieceBytes = 1 << 20
	inflight   = 8
)

// ErrClosed is the cause when the client itself closed the connection.
var ErrClosed = errors.New("nbd connection closed")

// Client is one connection to one export. Its methods may be called from any
// goroutine; requests are pipelined. Use [Open].
type Client struct {
	conn    net.Conn
	info    Info
	timeout time.Duration
	write   chan struct{} // holds one token: the right to write

	mu      sync.Mutex
	next    uint64
	pending map[uint64]*request
	err     error
	done    chan struct{} // closed when the reader has ended
}

// request is one command under way. Once sent it belongs to the reader until over is closed.
type request struct {
	cmd    uint16
	flags  uint16
	off    int64
	length uint32
	data   []byte // payload to send, or buffer to fill
	got    []span // of data: what has been filled
	status map[uint32][]Segment
	over   chan struct{}
	err    error
}

type span struct{ from, to int64 }

// Info is what the server said of the export.
func (c *Client) Info() Info { return c.info }

// Close tells the server and ends the connection.
func (c *Client) Close() error {
	select {
	case <-c.write:
		c.conn.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = c.conn.Write(header(&request{cmd: cmdDisconnect}, 0)) // a courtesy
		c.write <- struct{}{}
	default: // a writer is stuck; it fails with the connection
	}
	c.fail(ErrClosed)
	<-c.done
	return nil
}

// Done is closed when the connection has ended.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err is why the connection has ended; nil while it lives.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// fail ends the connection; the first cause stays.
func (c *Client) fail(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = cause
	}
	c.conn.Close()
}

// ReadAt fills p from off.
func (c *Client) ReadAt(ctx context.Context, p []byte, off int64) error {
	return c.pieces(ctx, cmdRead, 0, p, off)
}

// WriteAt writes p at off.
func (c *Client) WriteAt(ctx context.Context, p []byte, off int64) error {
	if err := c.writable(cmdWrite, 0); err != nil {
		return err
	}
	return c.pieces(ctx, cmdWrite, 0, p, off)
}

// WriteZeroes makes a range read as zeroes; with noHole it stays allocated, without
// it the server may punch a hole.
func (c *Client) WriteZeroes(ctx context.Context, off, n int64, noHole bool) error {
	if err := c.writable(cmdWriteZeroes, CanZero); err != nil {
		return err
	}
	var flags uint16
	if noHole {
		flags = cmdFlagNoHole
	}
	return c.ranges(ctx, cmdWriteZeroes, flags, off, n)
}

// Trim tells the server that a range is of no interest any more; what it reads as
// afterwards is not said.
func (c *Client) Trim(ctx context.Context, off, n int64) error {
	if err := c.writable(cmdTrim, CanTrim); err != nil {
		return err
	}
	return c.ranges(ctx, cmdTrim, 0, off, n)
}

// Flush makes every write that has returned durable.
func (c *Client) Flush(ctx context.Context) error {
	if c.info.Flags&CanFlush == 0 {
		return errors.New("nbd flush: the export does not take it")
	}
	return c.finish(ctx, []*request{{cmd: cmdFlush}})
}

// BlockStatus tells the status of a range in one metadata context, adjacent
// segments of the same status joined.
func (c *Client) BlockStatus(ctx context.Context, name string, off, n int64) ([]Segment, error) {
	id, ok := c.context(name)
	if !ok {
		return nil, fmt.Errorf("nbd block status: context %q was not negotiated", name)
	}
	if err := c.check(cmdBlockStatus, off, n); err != nil {
		return nil, err
	}
	var out []Segment
	for end := off + n; off < end; {
		q := &request{cmd: cmdBlockStatus, off: off, length: uint32(min(end-off, c.maxRange())), status: map[uint32][]Segment{}}
		if err := c.finish(ctx, []*request{q}); err != nil {
			return nil, err
		}
		segs := q.status[id]
		if len(segs) == 0 {
			err := fmt.Errorf("nbd block status: server says nothing of %q at %d", name, off)
			c.fail(err)
			return nil, err
		}
		for _, s := range segs {
			if k := len(out); k > 0 && out[k-1].Status == s.Status {
				out[k-1].Length += s.Length
			} else {
				out = append(out, s)
			}
			off += s.Length
		}
	}
	return out, nil
}

func (c *Client) context(name string) (uint32, bool) {
	for id, n := range c.info.Contexts {
		if n == name {
			return id, true
		}
	}
	return 0, false
}

func (c *Client) writable(cmd uint16, need Flags) error {
	switch {
	case c.info.Flags&ReadOnly != 0:
		return fmt.Errorf("nbd %s: the export is read-only", opNames[cmd])
	case c.info.Flags&need != need:
		return fmt.Errorf("nbd %s: the export does not take it", opNames[cmd])
	}
	return nil
}

func (c *Client) check(cmd uint16, off, n int64) error {
	b := int64(c.info.MinBlock)
	if off < 0 || n < 0 || off > c.info.Size-n || off%b != 0 || n%b != 0 {
		return fmt.Errorf("nbd %s: %d bytes at %d are outside the export of %d bytes or not multiples of %d", opNames[cmd], n, off, c.info.Size, b)
	}
	return nil
}

// maxRange is the longest range of a request without payload.
func (c *Client) maxRange() int64 { return 1 << 30 }

// pieces runs a long transfer as several requests at once.
func (c *Client) pieces(ctx context.Context, cmd, flags uint16, p []byte, off int64) error {
	if err := c.check(cmd, off, int64(len(p))); err != nil {
		return err
	}
	size := max(min(pieceBytes, int(c.info.MaxBlock)), int(c.info.MinBlock))
	for len(p) > 0 {
		var qs []*request
		for len(p) > 0 && len(qs) < inflight {
			n := min(size, len(p))
			qs = append(qs, &request{cmd: cmd, flags: flags, off: off, length: uint32(n), data: p[:n]})
			p, off = p[n:], off+int64(n)
		}
		if err := c.finish(ctx, qs); err != nil {
			return err
		}
	}
	return nil
}

// ranges runs a command without payload over a range of any length.
func (c *Client) ranges(ctx context.Context, cmd, flags uint16, off, n int64) error {
	if err := c.check(cmd, off, n); err != nil {
		return err
	}
	for n > 0 {
		k := min(n, c.maxRange())
		if err := c.finish(ctx, []*request{{cmd: cmd, flags: flags, off: off, length: uint32(k)}}); err != nil {
			return err
		}
		off, n = off+k, n-k
	}
	return nil
}

// finish sends requests and waits until all of them are over. If ctx ends before,
// the connection does too.
func (c *Client) finish(ctx context.Context, qs []*request) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("nbd %s: %w", opNames[qs[0].cmd], err)
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		c.fail(fmt.Errorf("nbd %s given up: %w", opNames[qs[0].cmd], context.Cause(ctx)))
	})
	defer stop()
	sent := 0
	for _, q := range qs {
		q.over = make(chan struct{})
		if c.send(q) != nil {
			break // the connection has ended
		}
		sent++
	}
	var errs []error
	for _, q := range qs[:sent] {
		<-q.over
		errs = append(errs, q.err)
	}
	if sent < len(qs) {
		errs = append(errs, c.Err())
	}
	return first(errs)
}

func first(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func header(q *request, id uint64) []byte {
	b := binary.BigEndian.AppendUint32(make([]byte, 0, headerLen), magicRequest)
	b = binary.BigEndian.AppendUint16(b, q.flags)
	b = binary.BigEndian.AppendUint16(b, q.cmd)
	b = binary.BigEndian.AppendUint64(b, id)
	b = binary.BigEndian.AppendUint64(b, uint64(q.off))
	return binary.BigEndian.AppendUint32(b, q.length)
}

// send writes one request. An error means that it is not pending and the connection has ended.
func (c *Client) send(q *request) error {
	select {
	case <-c.write:
		defer func() { c.write <- struct{}{} }()
	case <-c.done:
		return c.Err()
	}
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return c.err
	}
	id := c.next
	c.next++
	c.pending[id] = q
	c.mu.Unlock()
	bufs := net.Buffers{header(q, id)}
	if q.cmd == cmdWrite {
		bufs = append(bufs, q.data)
	}
	if _, err := bufs.WriteTo(c.conn); err != nil {
		c.fail(fmt.Errorf("nbd connection lost: write: %w", err))
	}
	return nil // the reader ends every pending request, this one too
}

// read is the reader: when it ends, every request is over.
func (c *Client) read(r *bufio.Reader) {
	for {
		if err := c.reply(r); err != nil {
			c.fail(fmt.Errorf("nbd connection lost: %w", noEOF(err)))
			break
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.done) // first: whoever gets the error may ask whether it has ended
	for id, q := range c.pending {
		delete(c.pending, id)
		q.err = c.err
		close(q.over)
	}
}
