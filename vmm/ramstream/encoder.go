package ramstream

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/zstd"
)

// EncoderConfig says what an encoder may use. The zero value is ready to use.
type EncoderConfig struct {
	Index *Index // disk content that the destination holds; nil: none
	// Window is how many literal pages are remembered for self-references; the
	// decoder must use the same. 0: DefaultWindow; negative: none.
	Window int
	// Level is the level of zstd, 1 (fastest) to 4 (best); 0: 1.
	Level int
}

func windowSize(n int) int64 {
	if n == 0 {
		return DefaultWindow
	}
	return int64(max(n, 0))
}

// Encoder turns a plain migration stream into frames. It is not safe for use by
// several goroutines.
type Encoder struct {
	w      io.Writer
	index  *Index
	window *window
	parser *parser
	zstd   *zstd.Encoder
	sha    hash.Hash
	stats  Stats
	err    error // the first error of w; nothing is written after it
	closed bool

	// The frame under construction.
	ops, data, out []byte
	plain          int
	crc            uint32
	literal        int // bytes of data that are literal pages
	run            run
	offset         uint64 // predicted offset of the next record
	block          int64  // predicted disk block of the next reference
	onDisk         bool   // the last page was a disk reference
	scratch        []byte
}

// run is the operation that the next record may still extend.
type run struct {
	op    uint64
	count int64 // 0: no run
	ref   int64 // of the first record: disk block or literal number
	from  int64 // what ref is told relative to: the predicted block or the next literal
}

// NewEncoder returns an encoder that gives each frame to w in one Write of at most
// MaxFrame bytes. The transport has to keep frames apart.
func NewEncoder(w io.Writer, c EncoderConfig) (*Encoder, error) {
	level := zstd.EncoderLevel(max(c.Level, 1))
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(zWindow), zstd.WithEncoderCRC(false))
	if err != nil {
		return nil, fmt.Errorf("prepare zstd: %w", err)
	}
	e := &Encoder{
		w: w, index: c.Index, zstd: z, sha: sha256.New(),
		window:  newWindow(windowSize(c.Window), true),
		scratch: make([]byte, PageSize),
	}
	e.parser = newParser(e)
	return e, nil
}

// Write takes the next bytes of the plain stream. Frames leave when they are full;
// see Flush. An error is the writer's, and final.
func (e *Encoder) Write(p []byte) (int, error) {
	if e.closed {
		return 0, errors.New("encode memory: write after close")
	}
	n := len(p)
	for len(p) > 0 && e.err == nil {
		part := p[:min(len(p), maxData)]
		e.sha.Write(part)
		e.parser.feed(part)
		p = p[len(part):]
	}
	return n - len(p), e.err
}

// Flush sends what was batched. A record that is not complete stays. Call it when
// the source has no more bytes ready, so that batching delays nothing.
func (e *Encoder) Flush() error {
	if e.plain > 0 && e.err == nil {
		e.cut()
	}
	return e.err
}

// Close sends all that is left. It does not close the writer.
func (e *Encoder) Close() error {
	if !e.closed {
		e.closed = true
		e.parser.close()
	}
	return e.Flush()
}

// Digest is the SHA-256 of the plain stream so far.
func (e *Encoder) Digest() [sha256.Size]byte { return [sha256.Size]byte(e.sha.Sum(nil)) }

// Stats says what has been sent so far.
func (e *Encoder) Stats() Stats { return e.stats }

func (e *Encoder) opaque(p []byte) {
	for len(p) > 0 {
		e.room(1, 1)
		part := p[:min(len(p), maxData-len(e.data), maxPlain-e.plain)]
		if e.run.op != opRaw {
			e.endRun()
		}
		e.run.op = opRaw
		e.run.count += int64(len(part))
		e.data = append(e.data, part...)
		e.account(opRaw, part)
		p = p[len(part):]
	}
}

func (e *Encoder) zero(rec []byte, offset uint64, name []byte) {
	e.room(len(rec), 0)
	e.record(opZero, offset, name, 0)
	e.account(opZero, rec)
}

func (e *Encoder) page(rec []byte, offset uint64, name []byte) {
	page := rec[len(rec)-PageSize:]
	op, ref, key := e.classify(page)
	need := 0
	if op == opLiteral {
		need = PageSize
	}
	e.room(len(rec), need)
	e.record(op, offset, name, ref)
	if op == opLiteral {
		e.data = append(e.data, page...)
		e.literal += PageSize
		e.window.add(key, page)
	}
	e.account(op, rec)
}

// classify finds the cheapest way to say what is in page. Files lie in memory in
// pieces, so the block after the last one found is tried before anything is hashed.
func (e *Encoder) classify(page []byte) (op uint64, ref int64, key uint64) {
	if e.onDisk && e.index.equal(e.block, page, e.scratch) {
		return opDisk, e.block, 0
	}
	e.onDisk = false
	if e.index == nil && e.window.size == 0 {
		return opLiteral, 0, 0
	}
	key = keyOf(page)
	if e.index != nil {
		if block, ok := e.index.find(key, page, e.scratch); ok {
			e.onDisk = true
			return opDisk, block, key
		}
	}
	if n, ok := e.window.find(key, page); ok {
		return opSelf, n, key
	}
	return opLiteral, 0, key
}

// record adds a page record to the run, or begins one.
func (e *Encoder) record(op, offset uint64, name []byte, ref int64) {
	r := &e.run
	follows := op != opDisk && op != opSelf || ref == r.ref+r.count
	if r.count > 0 && r.op == op && name == nil && offset == e.offset && follows {
		r.count++
	} else {
		e.endRun()
		before := len(e.ops)
		if name != nil {
			e.ops = append(binary.AppendUvarint(e.ops, uint64(len(name))<<3|opName), name...)
		}
		if offset != e.offset {
			pages := int64(offset-e.offset) / PageSize
			e.ops = binary.AppendUvarint(e.ops, zigzag(pages)<<3|opSeek)
		}
		*e.stats.Sent.of(op) += int64(len(e.ops) - before)
		*r = run{op: op, count: 1, ref: ref, from: e.window.next}
		if op == opDisk {
			r.from = e.block
		}
	}
	e.offset = offset + PageSize
	if op == opDisk {
		e.block = ref + 1
	}
	*e.stats.Pages.of(op)++
}

// endRun writes the operation of the run.
func (e *Encoder) endRun() {
	r := e.run
	if r.count == 0 {
		return
	}
	before := len(e.ops)
	e.ops = binary.AppendUvarint(e.ops, uint64(r.count)<<3|r.op)
	switch r.op {
	case opDisk:
		e.ops = binary.AppendUvarint(e.ops, zigzag(r.ref-r.from))
	case opSelf:
		e.ops = binary.AppendUvarint(e.ops, uint64(r.from-r.ref))
	}
	*e.stats.Sent.of(r.op) += int64(len(e.ops) - before)
	e.run = run{}
}

func (e *Encoder) account(op uint64, rec []byte) {
	e.plain += len(rec)
	e.crc = crc32.Update(e.crc, castagnoli, rec)
	*e.stats.Plain.of(op) += int64(len(rec))
}

// room begins a new frame if this one cannot take so much more.
func (e *Encoder) room(plain, data int) {
	const longestOp = 1 + 255 + 5*binary.MaxVarintLen64 // a run's end, a name, a seek, a run
	if e.plain+plain > maxPlain || len(e.data)+data > maxData || len(e.ops)+longestOp > maxOps {
		e.cut()
	}
}

// cut sends the frame under construction and begins the next.
func (e *Encoder) cut() {
	e.endRun()
	if e.err == nil {
		frame := e.frame()
		if _, err := e.w.Write(frame); err != nil {
			e.err = fmt.Errorf("send memory: %w", err)
		}
	}
	e.ops, e.data = e.ops[:0], e.data[:0]
	e.plain, e.crc, e.literal = 0, 0, 0
}

// frame encodes the frame under construction.
func (e *Encoder) frame() []byte {
	f := append(e.out[:0], 1)
	f = binary.AppendUvarint(f, uint64(len(e.ops)))
	f = binary.AppendUvarint(f, uint64(len(e.data)))
	f = binary.AppendUvarint(f, uint64(e.plain))
	f = binary.BigEndian.AppendUint32(f, e.crc)
	head := len(f)
	f = append(f, e.ops...)
	body := len(f)
	f = e.zstd.EncodeAll(e.data, f)
	if len(f)-body >= len(e.data) {
		f[0] = 0
		f = append(f[:body], e.data...)
	}
	e.out = f
	e.stats.Sent.Opaque += int64(head)
	if cost := int64(len(f) - body); cost > 0 {
		literal := cost * int64(e.literal) / int64(len(e.data))
		e.stats.Sent.Literal += literal
		e.stats.Sent.Opaque += cost - literal
	}
	return f
}
