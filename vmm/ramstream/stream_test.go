package ramstream

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// qemu writes a stream as QEMU does.
type qemu struct{ bytes.Buffer }

func (q *qemu) u8(v byte)    { q.WriteByte(v) }
func (q *qemu) u16(v uint16) { q.Write(binary.BigEndian.AppendUint16(nil, v)) }
func (q *qemu) u32(v uint32) { q.Write(binary.BigEndian.AppendUint32(nil, v)) }
func (q *qemu) u64(v uint64) { q.Write(binary.BigEndian.AppendUint64(nil, v)) }
func (q *qemu) name(s string) {
	q.u8(byte(len(s)))
	q.WriteString(s)
}

const ramID = 2

func (q *qemu) footer() { q.u8(sectionFooter); q.u32(ramID) }

type ramBlock struct {
	name string
	size uint64
}

var twoBlocks = []ramBlock{{"pc.ram", 4 << 20}, {"vga.vram", 256 << 10}}

func (q *qemu) begin(blocks []ramBlock) {
	q.u32(magic)
	q.u32(streamVersion)
	q.u8(configuration)
	q.u32(6)
	q.WriteString("pc-7.2")
	q.u8(subsection)
	q.name("configuration/capabilities")
	q.u32(1)
	q.u32(1)
	q.name("x-some-capability")
	q.u8(subsection)
	q.name("configuration/uuid")
	q.u32(1)
	q.Write(make([]byte, 16))
	q.u8(command)
	q.u16(1)
	q.u16(0)
	q.u8(sectionStart)
	q.u32(ramID)
	q.name("ram")
	q.u32(0)
	q.u32(ramVersion)
	var total uint64
	for _, b := range blocks {
		total += b.size
	}
	q.u64(total | flagMemSize)
	for _, b := range blocks {
		q.name(b.name)
		q.u64(b.size)
	}
	q.u64(flagEOS)
	q.footer()
}

func (q *qemu) part(kind byte, records func()) {
	q.u8(kind)
	q.u32(ramID)
	records()
	q.u64(flagEOS)
	q.footer()
}

func (q *qemu) page(offset uint64, name string, p []byte) {
	flag, body := uint64(flagPage), p
	if isZero(p) {
		flag, body = flagZero, []byte{0}
	}
	if name == "" {
		flag |= flagContinue
	}
	q.u64(offset | flag)
	if name != "" {
		q.name(name)
	}
	q.Write(body)
}

// guestPages makes n pages: of zeroes, of the disk, equal to each other, or new.
func guestPages(r *rand.Rand, disk []byte, n int) [][]byte {
	pages := make([][]byte, n)
	for i := range pages {
		p := make([]byte, PageSize)
		switch r.IntN(8) {
		case 0:
		case 1, 2, 3:
			if len(disk) > 0 {
				b := r.IntN(len(disk) / PageSize)
				copy(p, disk[b*PageSize:])
			}
		case 4:
			if i > 0 {
				p = pages[r.IntN(i)]
			}
		default:
			for j := range p {
				p[j] = byte(r.Uint32()) & 0x1f
			}
		}
		pages[i] = p
	}
	return pages
}

// guestStream is a whole migration of a small guest over several rounds.
func guestStream(seed uint64, disk []byte, pages int) []byte {
	r := rand.New(rand.NewPCG(seed, 7))
	var q qemu
	q.begin(twoBlocks)
	last := -1
	some := func(n int) {
		at := uint64(r.IntN(64))
		for _, p := range guestPages(r, disk, n) {
			b := r.IntN(40) / 39
			if r.IntN(5) == 0 || b != last {
				at = uint64(r.IntN(int(twoBlocks[b].size / PageSize)))
			}
			at %= twoBlocks[b].size / PageSize
			name := ""
			if b != last {
				name, last = twoBlocks[b].name, b
			}
			q.page(at*PageSize, name, p)
			at++
		}
	}
	for range 3 {
		q.part(sectionPart, func() { some(pages / 4) })
	}
	q.part(sectionEnd, func() { some(pages / 4) })
	q.u8(4) // a FULL section: device state
	q.WriteString("device state of unknown shape")
	tail := make([]byte, 5000)
	for i := range tail {
		tail[i] = byte(i) ^ byte(r.Uint32()&3)
	}
	q.Write(tail)
	return q.Bytes()
}

func newDisk(seed uint64, blocks int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	d := make([]byte, blocks*PageSize)
	for i := range d {
		d[i] = byte(r.Uint32())
	}
	return d
}

func basesOf(disks ...[]byte) []Base {
	var bs []Base
	for _, d := range disks {
		bs = append(bs, Base{bytes.NewReader(d), int64(len(d))})
	}
	return bs
}

// frames collects what an encoder writes.
type frames struct {
	list  [][]byte
	bytes int64
}

func (f *frames) Write(p []byte) (int, error) {
	f.list = append(f.list, bytes.Clone(p))
	f.bytes += int64(len(p))
	return len(p), nil
}

// encode feeds x in pieces of random length, flushing at times.
func encode(t testing.TB, x []byte, c EncoderConfig, seed uint64) (*frames, *Encoder) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 3))
	f := new(frames)
	e, err := NewEncoder(f, c)
	if err != nil {
		t.Fatal(err)
	}
	for rest := x; len(rest) > 0; {
		n := min(len(rest), 1+r.IntN(1<<r.IntN(17)))
		if _, err := e.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
		if r.IntN(20) == 0 {
			if err := e.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	return f, e
}

func decode(f *frames, c DecoderConfig) ([]byte, *Decoder, error) {
	var out bytes.Buffer
	d, err := NewDecoder(&out, c)
	if err != nil {
		return nil, nil, err
	}
	defer d.Close()
	for _, p := range f.list {
		if err := d.Decode(p); err != nil {
			return out.Bytes(), d, err
		}
	}
	return out.Bytes(), d, nil
}

func newIndex(t testing.TB, max int64, bs ...Base) *Index {
	t.Helper()
	x, err := NewIndex(t.Context(), bs, max)
	if err != nil {
		t.Fatal(err)
	}
	return x
}
