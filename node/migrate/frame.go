package migrate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"

	"github.com/dcnode/dcnode/vmm/ramstream"
)

// A frame is u8 kind, u32 length of the payload, u32 CRC-32C of kind, length and
// payload; then the payload. Numbers are big-endian.
const (
	// From the source.
	kindBegin  = 1 // "dcmg", u8 version, then u64 size of each base
	kindWrite  = 2 // u16 disk, u64 offset, u32 length, u8 1 if zstd, data
	kindZero   = 3 // u16 disk, u64 offset, u64 length
	kindFlush  = 4 // u32 barrier, u8 1 if the last, SHA-256 of all disk frames so far
	kindMemory = 5 // a frame of package ramstream
	kindEnd    = 6 // u64 bytes of the plain memory stream, SHA-256 of it
	kindAbort  = 7 // reason
	kindPing   = 8 // asks for an ack; not counted as bytes in flight

	// From the destination.
	kindReady   = 16
	kindAck     = 17 // u64: bytes of frames used so far, headers included
	kindFlushed = 18 // u32 barrier
	kindLoaded  = 19
	kindFailed  = 20 // reason
)

const (
	version   = 1
	headBytes = 9
	diskHead  = 2 + 8 + 4 + 1
	// diskRun is the most of a disk that one frame carries. Two frames of
	// incompressible data fit the smallest window, so that even then one is
	// decoded while the other travels.
	diskRun    = 120 << 10
	diskWindow = 128 << 10 // of zstd: a power of two, no less than diskRun
	maxPayload = max(diskRun+diskHead, ramstream.MaxFrame)
	maxReason  = 1024
	maxBases   = 64
	blockSize  = ramstream.PageSize
	maxOffset  = 1 << 60
)

const greeting = "dcmg"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type frame struct {
	kind    byte
	payload []byte
}

// size is what the frame takes on the stream.
func (f frame) size() int64 { return headBytes + int64(len(f.payload)) }

// appendFrame appends a frame with the given payload, in parts.
func appendFrame(b []byte, kind byte, parts ...[]byte) []byte {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	at := len(b)
	b = append(b, kind)
	b = binary.BigEndian.AppendUint32(b, uint32(n))
	b = append(b, 0, 0, 0, 0)
	for _, p := range parts {
		b = append(b, p...)
	}
	binary.BigEndian.PutUint32(b[at+5:], frameSum(b[at:at+5], b[at+headBytes:]))
	return b
}

func frameSum(head, payload []byte) uint32 {
	return crc32.Update(crc32.Checksum(head, castagnoli), castagnoli, payload)
}

// readFrame reads one frame whose payload has at most limit bytes.
func readFrame(r io.Reader, limit int) (frame, error) {
	var head [headBytes]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, &linkError{err}
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > uint32(limit) {
		return frame{}, fmt.Errorf("%w: frame of %d bytes, at most %d", ErrDamaged, n, limit)
	}
	f := frame{head[0], make([]byte, n)}
	if _, err := io.ReadFull(r, f.payload); err != nil {
		return frame{}, &linkError{err}
	}
	if binary.BigEndian.Uint32(head[5:]) != frameSum(head[:5], f.payload) {
		return frame{}, fmt.Errorf("%w: checksum of a frame differs", ErrDamaged)
	}
	return f, nil
}

// reader takes a payload apart; what is missing shows in ok, at the end.
type reader struct {
	b     []byte
	short bool
}

func (r *reader) take(n int) []byte {
	if len(r.b) < n {
		r.short = true
		return make([]byte, n)
	}
	p := r.b[:n]
	r.b = r.b[n:]
	return p
}

func (r *reader) u8() byte    { return r.take(1)[0] }
func (r *reader) u16() uint16 { return binary.BigEndian.Uint16(r.take(2)) }
func (r *reader) u32() uint32 { return binary.BigEndian.Uint32(r.take(4)) }
func (r *reader) u64() uint64 { return binary.BigEndian.Uint64(r.take(8)) }

// end says whether the payload was exactly what was read.
func (r *reader) end() error {
	if r.short || len(r.b) != 0 {
		return fmt.Errorf("%w: frame has the wrong length", ErrDamaged)
	}
	return nil
}

// begin is the first frame.
func beginPayload(bases []ramstream.Base) []byte {
	p := append([]byte(greeting), version)
	for _, b := range bases {
		p = binary.BigEndian.AppendUint64(p, uint64(b.Size))
	}
	return p
}

// checkBegin says why the source's first frame does not fit these bases.
func checkBegin(p []byte, bases []ramstream.Base) error {
	r := reader{b: p}
	if string(r.take(4)) != greeting {
		return errors.New("the other side does not speak this protocol")
	}
	if v := r.u8(); v != version {
		return fmt.Errorf("the source speaks version %d, this node version %d: upgrade the older", v, version)
	}
	if len(r.b) != 8*len(bases) {
		return fmt.Errorf("the source refers to %d base images, this node to %d", len(r.b)/8, len(bases))
	}
	for i, b := range bases {
		if n := r.u64(); n != uint64(b.Size) {
			return fmt.Errorf("base image %d has %d bytes at the source, %d here", i, n, b.Size)
		}
	}
	return r.end()
}

// extent is what a disk frame is about.
type extent struct {
	disk        int
	off, length int64
}

func (e extent) check(limit int64) error {
	if e.off < 0 || e.length <= 0 || e.off > maxOffset || e.length > limit || e.off%blockSize != 0 || e.length%blockSize != 0 {
		return fmt.Errorf("disk %d: extent of %d bytes at %d is out of bounds or not made of blocks", e.disk, e.length, e.off)
	}
	return nil
}

// digest adds a disk frame to the running digest: what it does, and its data
// before compression.
func (e extent) digest(h hash.Hash, kind byte, data []byte) {
	b := []byte{kind}
	b = binary.BigEndian.AppendUint16(b, uint16(e.disk))
	b = binary.BigEndian.AppendUint64(b, uint64(e.off))
	b = binary.BigEndian.AppendUint64(b, uint64(e.length))
	h.Write(b)
	h.Write(data)
}

func reason(err error) []byte {
	s := err.Error()
	return []byte(s[:min(len(s), maxReason)])
}
