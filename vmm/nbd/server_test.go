package nbd

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// fake is a small server in memory. answer, if set, replies in place of it.
type fake struct {
	t      *testing.T
	data   []byte
	flags  Flags
	block  uint32           // minimum block size
	status func() []Segment // of the one context
	answer func(s *session, q ask) bool
	skip   map[uint32]bool // contexts, by index, that it does not offer
}

type ask struct {
	flags, cmd uint16
	id         uint64
	off        int64
	n          uint32
	data       []byte
}

type session struct {
	*fake
	w io.Writer
	r *bufio.Reader
}

const allFlags = HasFlags | CanFlush | CanTrim | CanZero | CanMultiConn

// serve listens on a unix socket and serves every connection in turn.
func (f *fake) serve() func(context.Context) (net.Conn, error) {
	path := filepath.Join(f.t.TempDir(), "nbd")
	l, err := net.Listen("unix", path)
	if err != nil {
		f.t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.SetDeadline(time.Now().Add(10 * time.Second))
			s := &session{f, conn, bufio.NewReader(conn)}
			if s.shake() {
				s.run()
			}
			conn.Close()
		}
	})
	f.t.Cleanup(func() { l.Close(); wg.Wait() })
	return Unix(path)
}

func be(vs ...any) (b []byte) {
	for _, v := range vs {
		switch v := v.(type) {
		case []byte:
			b = append(b, v...)
		case string:
			b = append(b, v...)
		default:
			b, _ = binary.Append(b, binary.BigEndian, v)
		}
	}
	return b
}

func (s *session) say(vs ...any) { s.w.Write(be(vs...)) }

func (s *session) get(n uint32) []byte {
	b := make([]byte, n)
	if _, err := io.ReadFull(s.r, b); err != nil {
		return nil
	}
	return b
}

func (s *session) option(opt, kind uint32, data []byte) {
	s.say(uint64(magicOptRep), opt, kind, uint32(len(data)), data)
}

func (s *session) shake() bool {
	s.say(uint64(magicServer), uint64(magicOption), uint16(flagFixed|flagNoZeroes))
	if s.get(4) == nil {
		return false
	}
	for {
		h := s.get(16)
		if h == nil {
			return false
		}
		opt := binary.BigEndian.Uint32(h[8:])
		data := s.get(binary.BigEndian.Uint32(h[12:]))
		switch opt {
		case optStructured:
			s.option(opt, repAck, nil)
		case optSetMeta:
			n := binary.BigEndian.Uint32(data)
			count := binary.BigEndian.Uint32(data[4+n:])
			rest := data[8+n:]
			for i := range count {
				k := binary.BigEndian.Uint32(rest)
				if !s.skip[i] {
					s.option(opt, repMeta, be(i+7, rest[4:4+k]))
				}
				rest = rest[4+k:]
			}
			s.option(opt, repAck, nil)
		case optGo:
			s.option(opt, repInfo, be(uint16(infoExport), uint64(len(s.data)), uint16(s.flags)))
			s.option(opt, repInfo, be(uint16(infoBlockSize), s.block, uint32(4096), uint32(2<<20)))
			s.option(opt, repAck, nil)
			return true
		}
	}
}

func (s *session) run() {
	for {
		h := s.get(headerLen)
		if h == nil {
			return
		}
		u := binary.BigEndian
		q := ask{flags: u.Uint16(h[4:]), cmd: u.Uint16(h[6:]), id: u.Uint64(h[8:]), off: int64(u.Uint64(h[16:])), n: u.Uint32(h[24:])}
		if q.cmd == cmdWrite {
			q.data = s.get(q.n)
		}
		if s.answer != nil && s.answer(s, q) {
			continue
		}
		if q.cmd == cmdDisconnect {
			return
		}
		s.obey(q)
	}
}

func (s *session) chunk(q ask, flags, kind uint16, vs ...any) {
	b := be(vs...)
	s.say(uint32(magicStruct), flags, kind, q.id, uint32(len(b)), b)
}

func (s *session) obey(q ask) {
	switch q.cmd {
	case cmdRead: // the second half first, then a hole where it is zero
		half := int64(q.n / 2)
		s.chunk(q, 0, chunkData, uint64(q.off+half), s.data[q.off+half:q.off+int64(q.n)])
		s.chunk(q, chunkDone, chunkData, uint64(q.off), s.data[q.off:q.off+half])
		return
	case cmdWrite:
		copy(s.data[q.off:], q.data)
	case cmdWriteZeroes, cmdTrim:
		clear(s.data[q.off : q.off+int64(q.n)])
	case cmdBlockStatus:
		b := be(uint32(7))
		for _, g := range s.status() {
			if g.Offset+g.Length > q.off {
				b = be(b, uint32(g.Offset+g.Length-max(q.off, g.Offset)), g.Status)
				break // one at a time: less than asked is allowed
			}
		}
		s.chunk(q, chunkDone, chunkStatus, b)
		return
	}
	s.say(uint32(magicSimple), uint32(0), q.id)
}
