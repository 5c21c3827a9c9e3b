package ramstream

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/zstd"
)

// DecoderConfig must agree with the encoder's.
type DecoderConfig struct {
	Bases  []Base // the encoder's index was made of the same content, in this order
	Window int    // as EncoderConfig.Window
}

// Decoder rebuilds the plain stream from frames. Hostile frames give errors, take
// bounded memory (the window and about 4 MiB) and bounded time. It is not safe for
// use by several goroutines.
type Decoder struct {
	w      io.Writer
	bases  bases
	window *window
	zstd   *zstd.Decoder
	sha    hash.Hash
	plain  int64
	err    error

	out, data, blocks []byte
	offset            uint64
	block             int64
}

// NewDecoder returns a decoder that writes the plain stream to w. Close it.
func NewDecoder(w io.Writer, c DecoderConfig) (*Decoder, error) {
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecodeAllCapLimit(true),
		zstd.WithDecoderMaxMemory(zWindow), zstd.WithDecoderMaxWindow(zWindow))
	if err != nil {
		return nil, fmt.Errorf("prepare zstd: %w", err)
	}
	if err := bases(c.Bases).check(); err != nil {
		return nil, err
	}
	return &Decoder{
		w: w, bases: c.Bases, zstd: z, sha: sha256.New(),
		window: newWindow(windowSize(c.Window), false),
		data:   make([]byte, 0, maxData),
		blocks: make([]byte, 16*PageSize),
	}, nil
}

// Decode takes one frame and writes what it stands for, after its checksum was
// found right. After an error every call returns it.
func (d *Decoder) Decode(frame []byte) error {
	if d.err == nil {
		d.err = d.decode(frame)
	}
	return d.err
}

// Digest is the SHA-256 of the plain stream so far.
func (d *Decoder) Digest() [sha256.Size]byte { return [sha256.Size]byte(d.sha.Sum(nil)) }

// Plain is how many bytes of the plain stream were written.
func (d *Decoder) Plain() int64 { return d.plain }

// Close frees the decoder. It does not close the writer.
func (d *Decoder) Close() { d.zstd.Close() }

// corrupt names a fault of the frame itself.
func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(format, args...))
}

func (d *Decoder) decode(frame []byte) error {
	h, rest, err := readHead(frame)
	if err != nil {
		return err
	}
	ops, body := rest[:h.ops], rest[h.ops:]
	data := body
	if h.packed {
		if data, err = d.zstd.DecodeAll(body, d.data[:0:h.data]); err != nil {
			return corrupt("%v", err)
		}
	}
	if len(data) != h.data {
		return corrupt("%d bytes of data, not %d", len(data), h.data)
	}
	d.out = d.out[:0]
	if err := d.replay(ops, data, h.plain); err != nil {
		return err
	}
	if sum := crc32.Checksum(d.out, castagnoli); sum != h.crc {
		return corrupt("checksum differs: a base image differs from the source's, or the frame was changed")
	}
	d.sha.Write(d.out)
	d.plain += int64(len(d.out))
	if _, err := d.w.Write(d.out); err != nil {
		return fmt.Errorf("write memory: %w", err)
	}
	return nil
}

// head is the decoded start of a frame.
type head struct {
	packed           bool
	ops, data, plain int
	crc              uint32
}

func readHead(frame []byte) (head, []byte, error) {
	var h head
	if len(frame) == 0 || len(frame) > MaxFrame || frame[0] > 1 {
		return h, nil, corrupt("%d bytes, or an unknown kind", len(frame))
	}
	h.packed = frame[0] == 1
	rest := frame[1:]
	for _, f := range []struct {
		to  *int
		max uint64
	}{{&h.ops, maxOps}, {&h.data, maxData}, {&h.plain, maxPlain}} {
		v, n := binary.Uvarint(rest)
		if n <= 0 || v > f.max {
			return h, nil, corrupt("length out of bounds")
		}
		*f.to, rest = int(v), rest[n:]
	}
	if len(rest) < 4+h.ops {
		return h, nil, corrupt("cut short")
	}
	h.crc = binary.BigEndian.Uint32(rest)
	return h, rest[4:], nil
}

// replay carries the operations out. They must give exactly plain bytes and use up
// all the data.
func (d *Decoder) replay(ops, data []byte, plain int) error {
	var name []byte
	for len(ops) > 0 {
		u, n := binary.Uvarint(ops)
		if n <= 0 {
			return corrupt("operation cut short")
		}
		ops = ops[n:]
		op, arg := u&7, u>>3
		left := plain - len(d.out)
		switch op {
		case opRaw:
			if arg > uint64(min(len(data), left)) {
				return corrupt("%d raw bytes are not there", arg)
			}
			d.out, data = append(d.out, data[:arg]...), data[arg:]
			continue
		case opSeek:
			d.offset += uint64(unzigzag(arg)) * PageSize
			continue
		case opName:
			if arg > 255 || arg > uint64(len(ops)) || name != nil {
				return corrupt("block name out of place")
			}
			name, ops = ops[:arg:arg], ops[arg:]
			continue
		}
		if arg == 0 || arg > uint64(left/recordSize(op)) {
			return corrupt("%d records do not fit", arg)
		}
		r := records{d: d, op: op, count: int64(arg), name: name}
		used, taken, err := r.replay(ops, data)
		if err != nil {
			return err
		}
		ops, data, name = ops[used:], data[taken:], nil
	}
	if len(d.out) != plain || len(data) != 0 || name != nil {
		return corrupt("%d bytes, not %d, %d left over", len(d.out), plain, len(data))
	}
	return nil
}

// recordSize is the least a record of op takes in the plain stream.
func recordSize(op uint64) int {
	if op == opZero {
		return 8 + 1
	}
	return 8 + PageSize
}

// records is one run of page records.
type records struct {
	d     *Decoder
	op    uint64
	count int64
	name  []byte
}

// replay returns how much of ops and of data it used.
func (r records) replay(ops, data []byte) (used, taken int, err error) {
	d := r.d
	switch r.op {
	case opZero:
		for range r.count {
			r.header(flagZero)
			d.out = append(d.out, 0)
		}
		return 0, 0, nil
	case opLiteral:
		taken = int(r.count) * PageSize // the caller bounded it by the frame's plain bytes
		if taken > len(data) {
			return 0, 0, corrupt("literal pages are not there")
		}
		for i := 0; i < taken; i += PageSize {
			r.literal(data[i : i+PageSize])
		}
		return 0, taken, nil
	}
	u, n := binary.Uvarint(ops)
	if n <= 0 {
		return 0, 0, corrupt("reference cut short")
	}
	if r.op == opSelf {
		return n, 0, r.self(u)
	}
	if r.op == opDisk {
		return n, 0, r.disk(unzigzag(u))
	}
	return 0, 0, corrupt("unknown operation %d", r.op)
}

// header writes the start of a record; the name goes to the first only.
func (r *records) header(flag uint64) {
	d := r.d
	if r.name == nil {
		flag |= flagContinue
	}
	d.out = binary.BigEndian.AppendUint64(d.out, d.offset|flag)
	if r.name != nil {
		d.out = append(append(d.out, byte(len(r.name))), r.name...)
		r.name = nil
	}
	d.offset += PageSize
}

func (r *records) literal(page []byte) {
	r.header(flagPage)
	r.d.out = append(r.d.out, page...)
	r.d.window.add(0, page)
}

func (r *records) self(back uint64) error {
	w := r.d.window
	if back > uint64(w.size) {
		return corrupt("page before the window")
	}
	first := w.next - int64(back)
	for n := first; n < first+r.count; n++ {
		if !w.holds(n) {
			return corrupt("page that was not sent")
		}
		r.header(flagPage)
		r.d.out = append(r.d.out, w.page(n)...)
	}
	return nil
}

func (r *records) disk(skip int64) error {
	d := r.d
	block := d.block + skip
	if block < 0 {
		return corrupt("negative block")
	}
	for left := r.count; left > 0; {
		p := d.blocks[:min(left*PageSize, int64(len(d.blocks)))]
		if err := d.bases.read(p, block); err != nil {
			return fmt.Errorf("resolve disk reference: %w", err)
		}
		n := int64(len(p)) / PageSize
		for ; len(p) > 0; p = p[PageSize:] {
			r.header(flagPage)
			d.out = append(d.out, p[:PageSize]...)
		}
		left, block = left-n, block+n
	}
	d.block = block
	return nil
}
