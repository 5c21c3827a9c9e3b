package nbd

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// Info is what the server said of the export.
type Info struct {
	Size     int64
	Flags    Flags
	MinBlock uint32            // requests are multiples of it; at least 1
	MaxBlock uint32            // the longest payload of one request
	Contexts map[uint32]string // metadata contexts in effect, by id
}

// shaker is the negotiation: options one at a time, each with its replies.
type shaker struct {
	w io.Writer
	r *bufio.Reader
}

// shake negotiates until transmission; conn has a deadline.
func shake(conn net.Conn, r *bufio.Reader, export string, contexts []string) (Info, error) {
	s := &shaker{w: conn, r: r}
	info := Info{MinBlock: 1, MaxBlock: defaultMaxBlock, Contexts: map[uint32]string{}}
	hello, err := s.read(18)
	if err != nil {
		return info, fmt.Errorf("read greeting: %w", err)
	}
	if binary.BigEndian.Uint64(hello) != magicServer || binary.BigEndian.Uint64(hello[8:]) != magicOption {
		return info, fmt.Errorf("greeting %x is not of a newstyle NBD server", hello)
	}
	if flags := binary.BigEndian.Uint16(hello[16:]); flags&flagFixed == 0 || flags&flagNoZeroes == 0 {
		return info, fmt.Errorf("server flags %#x lack fixed newstyle", flags)
	}
	if _, err := conn.Write(binary.BigEndian.AppendUint32(nil, flagFixed|flagNoZeroes)); err != nil {
		return info, fmt.Errorf("write client flags: %w", err)
	}
	if err := s.option(optStructured, nil, nil); err != nil {
		return info, fmt.Errorf("negotiate structured replies: %w", err)
	}
	if err := s.meta(export, contexts, &info); err != nil {
		return info, fmt.Errorf("negotiate metadata contexts: %w", err)
	}
	if err := s.begin(export, &info); err != nil {
		return info, fmt.Errorf("open export %q: %w", export, err)
	}
	return info, nil
}

func (s *shaker) read(n int) ([]byte, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(s.r, b); err != nil {
		return nil, noEOF(err)
	}
	return b, nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// option sends one option and hands each reply that is no acknowledgement to got.
func (s *shaker) option(opt uint32, data []byte, got func(kind uint32, p []byte) error) error {
	b := binary.BigEndian.AppendUint64(nil, magicOption)
	b = binary.BigEndian.AppendUint32(b, opt)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	if _, err := s.w.Write(append(b, data...)); err != nil {
		return err
	}
	for range 1000 { // replies to one option
		h, err := s.read(20)
		if err != nil {
			return err
		}
		kind, n := binary.BigEndian.Uint32(h[12:]), binary.BigEndian.Uint32(h[16:])
		if binary.BigEndian.Uint64(h) != magicOptRep || binary.BigEndian.Uint32(h[8:]) != opt || n > maxOptionReply {
			return fmt.Errorf("option reply %x is not one to option %d", h, opt)
		}
		p, err := s.read(int(n))
		if err != nil {
			return err
		}
		switch {
		case kind == repAck:
			return nil
		case kind&repErrorBit != 0:
			return fmt.Errorf("server refuses (error %d): %s", kind&^repErrorBit, p)
		case got == nil:
			return fmt.Errorf("unexpected option reply %d", kind)
		}
		if err := got(kind, p); err != nil {
			return err
		}
	}
	return errors.New("server does not stop to reply")
}

func appendString(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}

func (s *shaker) meta(export string, contexts []string, info *Info) error {
	if len(contexts) == 0 {
		return nil
	}
	b := appendString(nil, export)
	b = binary.BigEndian.AppendUint32(b, uint32(len(contexts)))
	want := map[string]bool{}
	for _, c := range contexts {
		b = appendString(b, c)
		want[c] = true
	}
	err := s.option(optSetMeta, b, func(kind uint32, p []byte) error {
		if kind != repMeta || len(p) < 4 {
			return fmt.Errorf("unexpected option reply %d of %d bytes", kind, len(p))
		}
		id, name := binary.BigEndian.Uint32(p), string(p[4:])
		if _, twice := info.Contexts[id]; twice || !want[name] {
			return fmt.Errorf("server offers context %q (id %d), not asked for or twice", name, id)
		}
		delete(want, name)
		info.Contexts[id] = name
		return nil
	})
	if err != nil {
		return err
	}
	for name := range want {
		return fmt.Errorf("server does not offer %q for export %q", name, export)
	}
	return nil
}

func (s *shaker) begin(export string, info *Info) error {
	b := appendString(nil, export)
	b = binary.BigEndian.AppendUint16(b, 1)
	b = binary.BigEndian.AppendUint16(b, infoBlockSize)
	seen := false
	err := s.option(optGo, b, func(kind uint32, p []byte) error {
		if kind != repInfo || len(p) < 2 {
			return fmt.Errorf("unexpected option reply %d of %d bytes", kind, len(p))
		}
		switch what := binary.BigEndian.Uint16(p); {
		case what == infoExport && len(p) == 12:
			seen = true
			info.Size = int64(binary.BigEndian.Uint64(p[2:]))
			info.Flags = Flags(binary.BigEndian.Uint16(p[10:]))
		case what == infoBlockSize && len(p) == 14:
			info.MinBlock = binary.BigEndian.Uint32(p[2:])
			info.MaxBlock = binary.BigEndian.Uint32(p[10:])
		}
		return nil // other information is no harm
	})
	switch {
	case err != nil:
		return err
	case !seen:
		return errors.New("server does not tell the export's size")
	case info.Size < 0 || info.Flags&HasFlags == 0:
		return fmt.Errorf("server tells size %d, flags %#x", info.Size, info.Flags)
	case info.MinBlock == 0 || info.MinBlock&(info.MinBlock-1) != 0 || info.MinBlock > 64<<10 || info.MaxBlock < info.MinBlock:
		return fmt.Errorf("server tells block sizes %d to %d", info.MinBlock, info.MaxBlock)
	}
	info.MaxBlock = min(info.MaxBlock, defaultMaxBlock) / info.MinBlock * info.MinBlock
	return nil
}

// Config says what to connect to.
type Config struct {
	Dial     func(ctx context.Context) (net.Conn, error)
	Export   string
	Contexts []string      // metadata contexts; all must be offered
	Timeout  time.Duration // of one request whose context says nothing shorter; 0: 30 s
}

// Unix dials the unix socket at path.
func Unix(path string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
}

// Open connects and negotiates, and starts the goroutine that reads replies; Close ends it.
func Open(ctx context.Context, cfg Config) (*Client, error) {
	if cfg.Timeout <= 0 {
		cfg.Timeout = 30 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.Timeout)
	defer cancel()
	conn, err := cfg.Dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect nbd: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	r := bufio.NewReaderSize(conn, 256<<10)
	info, err := shake(conn, r, cfg.Export, cfg.Contexts)
	if !stop() {
		err = errors.Join(context.Cause(ctx), err)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("connect nbd: %w", err)
	}
	c := &Client{
		conn: conn, info: info, timeout: cfg.Timeout, write: make(chan struct{}, 1),
		pending: make(map[uint64]*request), done: make(chan struct{}),
	}
	c.write <- struct{}{}
	go c.read(r)
	return c, nil
}
