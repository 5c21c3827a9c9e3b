package nbd

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"syscall"
)

func lie(format string, a ...any) error {
	return fmt.Errorf("server breaks the protocol: %s", fmt.Sprintf(format, a...))
}

// reply reads one simple reply or one chunk of a structured one.
func (c *Client) reply(r *bufio.Reader) error {
	var h [20]byte
	if _, err := io.ReadFull(r, h[:4]); err != nil {
		return err
	}
	switch m := binary.BigEndian.Uint32(h[:]); m {
	case magicSimple:
		if _, err := io.ReadFull(r, h[4:16]); err != nil {
			return err
		}
		return c.simple(binary.BigEndian.Uint64(h[8:]), syscall.Errno(binary.BigEndian.Uint32(h[4:])))
	case magicStruct:
		if _, err := io.ReadFull(r, h[4:20]); err != nil {
			return err
		}
		k := chunk{
			flags: binary.BigEndian.Uint16(h[4:]), kind: binary.BigEndian.Uint16(h[6:]),
			id: binary.BigEndian.Uint64(h[8:]), length: int64(binary.BigEndian.Uint32(h[16:])),
		}
		return c.chunk(r, k)
	default:
		return lie("reply magic %#x", m)
	}
}

type chunk struct {
	flags, kind uint16
	id          uint64
	length      int64
}

func (c *Client) find(id uint64) (*request, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	q := c.pending[id]
	if q == nil {
		return nil, lie("reply to request %d, which is not under way", id)
	}
	return q, nil
}

// end takes a request off the list and lets its owner go on.
func (c *Client) end(id uint64, q *request) {
	c.mu.Lock()
	delete(c.pending, id)
	c.mu.Unlock()
	close(q.over)
}

func (c *Client) simple(id uint64, errno syscall.Errno) error {
	q, err := c.find(id)
	if err != nil {
		return err
	}
	if q.cmd == cmdRead || q.cmd == cmdBlockStatus {
		return lie("simple reply to a %s", opNames[q.cmd])
	}
	if errno != 0 {
		q.err = &Error{Op: opNames[q.cmd], Errno: errno}
	}
	c.end(id, q)
	return nil
}

func (c *Client) chunk(r *bufio.Reader, k chunk) error {
	q, err := c.find(k.id)
	if err != nil {
		return err
	}
	switch {
	case k.kind&chunkErrorBit != 0:
		err = q.takeError(r, k)
	case k.kind == chunkNone && k.length == 0 && k.flags&chunkDone != 0:
	case k.kind == chunkData && q.cmd == cmdRead:
		err = q.takeData(r, k)
	case k.kind == chunkHole && q.cmd == cmdRead:
		err = q.takeHole(r, k)
	case k.kind == chunkStatus && q.cmd == cmdBlockStatus:
		err = q.takeStatus(r, k, c.info)
	default:
		err = lie("chunk of type %#x, %d bytes, flags %#x, in reply to a %s", k.kind, k.length, k.flags, opNames[q.cmd])
	}
	if err != nil || k.flags&chunkDone == 0 {
		return err
	}
	if q.err == nil && q.cmd == cmdRead && q.covered() != int64(q.length) {
		return lie("read of %d bytes at %d ends with %d", q.length, q.off, q.covered())
	}
	c.end(k.id, q)
	return nil
}

func (q *request) takeError(r *bufio.Reader, k chunk) error {
	if k.length < 6 || k.length > maxErrorText {
		return lie("error chunk of %d bytes", k.length)
	}
	b := make([]byte, k.length)
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	errno, n := syscall.Errno(binary.BigEndian.Uint32(b)), int(binary.BigEndian.Uint16(b[4:]))
	rest := len(b) - 6
	if k.kind == chunkErrorOffset {
		rest -= 8
	}
	if errno == 0 || n > rest {
		return lie("error chunk with error %d and a text of %d in %d bytes", errno, n, len(b))
	}
	if q.err == nil {
		q.err = &Error{Op: opNames[q.cmd], Errno: errno, Text: string(b[6 : 6+n])}
	}
	return nil
}

// cover marks what a chunk fills: within the request, and nothing twice.
func (q *request) cover(off, n int64) ([]byte, error) {
	s := span{off - q.off, off - q.off + n}
	if n <= 0 || off < q.off || off > q.off+int64(q.length)-n {
		return nil, lie("%d bytes at %d in reply to a read of %d at %d", n, off, q.length, q.off)
	}
	for i := range q.got {
		if g := q.got[i]; s.from < g.to && g.from < s.to {
			return nil, lie("bytes %d to %d of a read come twice", off, off+n)
		}
	}
	if k := len(q.got); k > 0 && q.got[k-1].to == s.from { // the usual case
		q.got[k-1].to = s.to
	} else if q.got = append(q.got, s); len(q.got) > maxReadChunks {
		return nil, lie("a read in more than %d pieces", maxReadChunks)
	}
	return q.data[s.from:s.to], nil
}

func (q *request) covered() (n int64) {
	for _, g := range q.got {
		n += g.to - g.from
	}
	return n
}

func (q *request) takeData(r *bufio.Reader, k chunk) error {
	var b [8]byte
	if k.length <= 8 {
		return lie("data chunk of %d bytes", k.length)
	}
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return err
	}
	p, err := q.cover(int64(binary.BigEndian.Uint64(b[:])), k.length-8)
	if err != nil {
		return err
	}
	_, err = io.ReadFull(r, p)
	return err
}

func (q *request) takeHole(r *bufio.Reader, k chunk) error {
	var b [12]byte
	if k.length != 12 {
		return lie("hole chunk of %d bytes", k.length)
	}
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return err
	}
	p, err := q.cover(int64(binary.BigEndian.Uint64(b[:])), int64(binary.BigEndian.Uint32(b[8:])))
	clear(p)
	return err
}

// takeStatus keeps the segments of one context, cut to the request's end.
func (q *request) takeStatus(r *bufio.Reader, k chunk, info Info) error {
	if k.length < 12 || k.length > maxStatusChunk || (k.length-4)%8 != 0 {
		return lie("status chunk of %d bytes", k.length)
	}
	b := make([]byte, k.length)
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	id := binary.BigEndian.Uint32(b)
	if _, known := info.Contexts[id]; !known {
		return lie("status of context %d, which was not negotiated", id)
	}
	if _, twice := q.status[id]; twice {
		return lie("status of context %d comes twice", id)
	}
	var segs []Segment
	at, end := q.off, q.off+int64(q.length)
	for b = b[4:]; len(b) > 0; b = b[8:] {
		n := int64(binary.BigEndian.Uint32(b))
		if n == 0 || n%int64(info.MinBlock) != 0 || at >= end {
			return lie("status segment of %d bytes at %d, request ends at %d", n, at, end)
		}
		n = min(n, end-at) // the last may reach further
		segs = append(segs, Segment{Offset: at, Length: n, Status: binary.BigEndian.Uint32(b[4:])})
		at += n
	}
	q.status[id] = segs
	return nil
}
