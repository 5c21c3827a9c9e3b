package memvm

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// QEMU's migration stream, version 3: numbers are big-endian. Names as in QEMU's
// migration/savevm.c and migration/ram.c.
const (
	streamMagic   = 0x5145564d // "QEVM"
	streamVersion = 3

	secEOF    = 0x00
	secStart  = 0x01
	secPart   = 0x02
	secEnd    = 0x03
	secFull   = 0x04
	secConfig = 0x07
	secFooter = 0x7e

	ramZero     = 0x02
	ramSizes    = 0x04
	ramPage     = 0x08
	ramEOS      = 0x10
	ramContinue = 0x20

	ramID, ramName, ramVersion = 2, "ram", 4
	cpuID, cpuName, cpuVersion = 3, "memvm/cpu", 1
)

// vramBytes is the size of the second RAM block, at the end of memory.
const vramBytes = 64 << 10

// ramBlock is a named run of pages.
type ramBlock struct {
	name  string
	first int64 // page
	pages int64
}

func ramBlocks(pages int64) []ramBlock {
	v := int64(vramBytes / pageSize)
	return []ramBlock{{"pc.ram", 0, pages - v}, {"vga.vram", pages - v, v}}
}

// cpuState is the device section.
type cpuState struct {
	Seed, Step uint64
	Prog       Program
	Digest     [32]byte
}

// seal is a digest of all pages and of the registers beside it.
func (s cpuState) seal(pages digest) [32]byte {
	b := binary.BigEndian.AppendUint64(pages.bytes(), s.Seed)
	b = binary.BigEndian.AppendUint64(b, s.Step)
	return sha256.Sum256(appendProgram(b, s.Prog))
}

const cpuStateLen = 8 + 8 + 16 + 32

// encoder writes the stream; the first error stays.
type encoder struct {
	w      *bufio.Writer
	n      int64 // bytes written
	blocks []ramBlock
	cur    int // block of the last page record, or -1
	err    error
}

func newEncoder(w io.Writer, pages int64) *encoder {
	return &encoder{w: bufio.NewWriterSize(w, 64<<10), blocks: ramBlocks(pages), cur: -1}
}

func (e *encoder) bytes(p []byte) {
	if e.err == nil {
		var n int
		n, e.err = e.w.Write(p)
		e.n += int64(n)
	}
}

func (e *encoder) u8(v byte)    { e.bytes([]byte{v}) }
func (e *encoder) u32(v uint32) { e.bytes(binary.BigEndian.AppendUint32(nil, v)) }
func (e *encoder) u64(v uint64) { e.bytes(binary.BigEndian.AppendUint64(nil, v)) }
func (e *encoder) name(s string) {
	e.u8(byte(len(s)))
	e.bytes([]byte(s))
}

func (e *encoder) flush() error {
	if e.err == nil {
		e.err = e.w.Flush()
	}
	return e.err
}

func (e *encoder) begin(kind byte, id uint32) {
	e.u8(kind)
	e.u32(id)
}

func (e *encoder) open(kind byte, id uint32, name string, version uint32) {
	e.begin(kind, id)
	e.name(name)
	e.u32(0) // instance
	e.u32(version)
}

func (e *encoder) close(id uint32) {
	e.u8(secFooter)
	e.u32(id)
}

func (e *encoder) head() {
	e.u32(streamMagic)
	e.u32(streamVersion)
	e.u8(secConfig)
	e.u32(uint32(len(machineType)))
	e.bytes([]byte(machineType))
	e.open(secStart, ramID, ramName, ramVersion)
	var total int64
	for _, b := range e.blocks {
		total += b.pages
	}
	e.u64(uint64(total)*pageSize | ramSizes)
	for _, b := range e.blocks {
		e.name(b.name)
		e.u64(uint64(b.pages) * pageSize)
	}
	e.u64(ramEOS)
	e.close(ramID)
}

func (e *encoder) page(i int64, p []byte) {
	b := 0
	for i >= e.blocks[b].first+e.blocks[b].pages {
		b++
	}
	v := uint64(i-e.blocks[b].first) * pageSize
	zero := isZero(p)
	if zero {
		v |= ramZero
	} else {
		v |= ramPage
	}
	if b == e.cur {
		e.u64(v | ramContinue)
	} else {
		e.u64(v)
		e.name(e.blocks[b].name)
		e.cur = b
	}
	if zero {
		e.u8(0)
		return
	}
	e.bytes(p)
}

// endPages closes a PART or END section.
func (e *encoder) endPages() {
	e.u64(ramEOS)
	e.close(ramID)
}

func (e *encoder) cpu(s cpuState) {
	e.open(secFull, cpuID, cpuName, cpuVersion)
	e.u64(s.Seed)
	e.u64(s.Step)
	e.bytes(appendProgram(nil, s.Prog))
	e.bytes(s.Digest[:])
	e.close(cpuID)
	e.u8(secEOF)
}

// decoder reads the stream and trusts none of it.
type decoder struct {
	r      *bufio.Reader
	blocks []ramBlock
	cur    int
	put    func(page int64, p []byte)
	buf    [pageSize]byte
	begun  bool // the ram section
	ended  bool
}

var errStream = errors.New("migration stream is not a memvm's")

func bad(format string, a ...any) error {
	return fmt.Errorf("%w: %s", errStream, fmt.Sprintf(format, a...))
}

func newDecoder(r io.Reader, pages int64, put func(int64, []byte)) *decoder {
	return &decoder{r: bufio.NewReaderSize(r, 64<<10), blocks: ramBlocks(pages), cur: -1, put: put}
}

func (d *decoder) read(n int) ([]byte, error) {
	if _, err := io.ReadFull(d.r, d.buf[:n]); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("read migration stream: %w", err)
	}
	return d.buf[:n], nil
}

func (d *decoder) u8() (byte, error) {
	p, err := d.read(1)
	if err != nil {
		return 0, err
	}
	return p[0], nil
}

func (d *decoder) u32() (uint32, error) {
	p, err := d.read(4)
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint32(p), nil
}

func (d *decoder) u64() (uint64, error) {
	p, err := d.read(8)
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint64(p), nil
}

func (d *decoder) name() (string, error) {
	n, err := d.u8()
	if err != nil {
		return "", err
	}
	p, err := d.read(int(n))
	return string(p), err
}

// want reads a number that must be v.
func (d *decoder) want(what string, v uint32) error {
	got, err := d.u32()
	if err == nil && got != v {
		err = bad("%s is %#x, not %#x", what, got, v)
	}
	return err
}

// all reads the whole stream.
func (d *decoder) all() (s cpuState, err error) {
	if err := d.want("magic", streamMagic); err != nil {
		return s, err
	}
	if err := d.want("version", streamVersion); err != nil {
		return s, err
	}
	seen := false
	for {
		kind, err := d.u8()
		if err != nil {
			return s, err
		}
		switch kind {
		case secConfig:
			err = d.config()
		case secStart:
			err = d.start()
		case secPart, secEnd:
			err = d.part(kind == secEnd)
		case secFull:
			s, err = d.cpu()
			seen = true
		case secEOF:
			return s, d.finish(seen)
		default:
			err = bad("section type %#x", kind)
		}
		if err != nil {
			return s, err
		}
	}
}

func (d *decoder) finish(cpu bool) error {
	if !d.ended || !cpu {
		return bad("it ends before the last section")
	}
	if n, err := d.r.Read(d.buf[:1]); n != 0 || !errors.Is(err, io.EOF) {
		return bad("bytes after its end (%v)", err)
	}
	return nil
}

func (d *decoder) config() error {
	if err := d.want("length of the machine type", uint32(len(machineType))); err != nil {
		return err
	}
	p, err := d.read(len(machineType))
	if err == nil && string(p) != machineType {
		err = bad("machine type %q", p)
	}
	return err
}

func (d *decoder) open(id uint32, name string, version uint32) error {
	if err := d.want("section id", id); err != nil {
		return err
	}
	got, err := d.name()
	if err == nil && got != name {
		err = bad("section %q, not %q", got, name)
	}
	if err == nil {
		err = d.want("instance", 0)
	}
	if err == nil {
		err = d.want("section version", version)
	}
	return err
}

func (d *decoder) close(id uint32) error {
	k, err := d.u8()
	if err == nil && k != secFooter {
		err = bad("section footer is %#x", k)
	}
	if err == nil {
		err = d.want("section id in the footer", id)
	}
	return err
}

func (d *decoder) start() error {
	if d.begun {
		return bad("a second ram section")
	}
	d.begun = true
	if err := d.open(ramID, ramName, ramVersion); err != nil {
		return err
	}
	v, err := d.u64()
	if err != nil {
		return err
	}
	last := d.blocks[len(d.blocks)-1]
	if total := uint64(last.first+last.pages) * pageSize; v != total|ramSizes {
		return bad("memory of %d bytes, this machine has %d: the definitions differ", v&^0xfff, total)
	}
	for _, b := range d.blocks {
		name, err := d.name()
		if err != nil {
			return err
		}
		if n, err := d.u64(); err != nil || name != b.name || n != uint64(b.pages)*pageSize {
			return bad("ram block %q of %d bytes (%v)", name, n, err)
		}
	}
	return d.endOfPages()
}

func (d *decoder) endOfPages() error {
	v, err := d.u64()
	if err == nil && v != ramEOS {
		err = bad("record %#x instead of an end", v)
	}
	if err == nil {
		err = d.close(ramID)
	}
	return err
}

func (d *decoder) part(end bool) error {
	if err := d.want("section id", ramID); err != nil {
		return err
	}
	if !d.begun || d.ended {
		return bad("pages outside the ram section")
	}
	d.ended = end
	for {
		v, err := d.u64()
		if err != nil {
			return err
		}
		if v == ramEOS {
			return d.close(ramID)
		}
		if err := d.page(v); err != nil {
			return err
		}
	}
}

func (d *decoder) page(v uint64) error {
	if v&ramContinue == 0 {
		name, err := d.name()
		if err != nil {
			return err
		}
		d.cur = -1
		for i, b := range d.blocks {
			if b.name == name {
				d.cur = i
			}
		}
	}
	if d.cur < 0 {
		return bad("a page of no known block")
	}
	b, off := d.blocks[d.cur], v&^0xfff
	if off >= uint64(b.pages)*pageSize {
		return bad("page at %#x of block %s is outside it", off, b.name)
	}
	i := b.first + int64(off/pageSize)
	switch v & 0xfff &^ ramContinue {
	case ramZero:
		fill, err := d.u8()
		if err != nil || fill != 0 {
			return bad("zero page filled with %d (%v)", fill, err)
		}
		clear(d.buf[:])
		d.put(i, d.buf[:])
	case ramPage:
		p, err := d.read(pageSize)
		if err != nil {
			return err
		}
		d.put(i, p)
	default:
		return bad("page flags %#x", v&0xfff)
	}
	return nil
}

func (d *decoder) cpu() (s cpuState, err error) {
	if !d.ended {
		return s, bad("device state before the end of memory")
	}
	if err := d.open(cpuID, cpuName, cpuVersion); err != nil {
		return s, err
	}
	p, err := d.read(cpuStateLen)
	if err != nil {
		return s, err
	}
	s.Seed = binary.BigEndian.Uint64(p)
	s.Step = binary.BigEndian.Uint64(p[8:])
	s.Prog = program(p[16:])
	copy(s.Digest[:], p[32:])
	return s, d.close(cpuID)
}
