package memvm

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"strconv"
	"strings"
)

const (
	pageSize = 4096
	// cacheBlocks bounds the pages that mirror the base: 16 MiB.
	cacheBlocks = 4096
)

// Program says how much the CPU writes. It is a part of the machine: it travels
// with a migration and stands in every disk block. Zero fields take the defaults.
type Program struct {
	HotPages      uint32 // pages rewritten in turn; 1024, at most a quarter of memory
	PagesPerStep  uint32 // 8 (3.2 MB/s)
	HotBlocks     uint32 // disk blocks of 4 KiB rewritten in turn on each disk; 512, at most half of it
	BlocksPerStep uint32 // 2 (0.8 MB/s)
}

func (p Program) withDefaults() Program {
	for _, f := range []struct {
		v   *uint32
		def uint32
	}{{&p.HotPages, 1024}, {&p.PagesPerStep, 8}, {&p.HotBlocks, 512}, {&p.BlocksPerStep, 2}} {
		if *f.v == 0 {
			*f.v = f.def
		}
	}
	return p
}

// Words of the kernel command line that the machine heeds; others are left to others.
const (
	contentWord = "memory=" // zero, text, random, or mixed: a quarter each, and one of the disk
	writesWord  = "writes=" // pages per step, in place of Program.PagesPerStep
)

// heed takes from a machine's kernel command line what its memory is to hold and how
// much of it is written. Both travel with the machine's description.
func (pl *plan) heed(words string) {
	for w := range strings.FieldsSeq(words) {
		if kind, ok := strings.CutPrefix(w, contentWord); ok {
			pl.content = kind
		}
		if n, ok := strings.CutPrefix(w, writesWord); ok {
			if v, err := strconv.ParseUint(n, 10, 16); err == nil {
				pl.prog.PagesPerStep = min(max(uint32(v), 1), maxPerStep)
			}
		}
	}
}

// plan is a program bound to one machine's sizes: pure functions of the step.
type plan struct {
	seed    uint64
	prog    Program
	pages   int64
	content string                           // of memory as it boots; see heed
	blocks  []int64                          // of each disk
	cached  func(block int64, p []byte) bool // reads the first disk's base; false: nothing there
}

func (pl *plan) hotPages() int64 { return min(int64(pl.prog.HotPages), pl.pages/4) }

// hotFirst is the first hot page: the hot pages lie in the middle of memory.
func (pl *plan) hotFirst() int64 { return pl.pages / 2 }

func (pl *plan) hotBlocksOf(disk int) int64 {
	return min(int64(pl.prog.HotBlocks), pl.blocks[disk]/2)
}

func (pl *plan) hotBlocks() (n int64) {
	for d := range pl.blocks {
		n += pl.hotBlocksOf(d)
	}
	return n
}

// blocksPerStep is at most the number of hot blocks: a step writes none twice.
func (pl *plan) blocksPerStep() int64 {
	return min(int64(pl.prog.BlocksPerStep), pl.hotBlocks())
}

// place turns the i-th hot block into a disk and a block there: the end of each disk.
func (pl *plan) place(i int64) (disk int, block int64) {
	for d := range pl.blocks {
		n := pl.hotBlocksOf(d)
		if i < n {
			return d, pl.blocks[d] - n + i
		}
		i -= n
	}
	panic("memvm: hot block out of range")
}

// lastWrite is the highest write number below total that hits slot i of hot slots
// written in turn, or -1.
func lastWrite(i, hot, total int64) int64 {
	if i >= total {
		return -1
	}
	return i + (total-1-i)/hot*hot
}

// page computes what page i holds after n steps.
func (pl *plan) page(i int64, n uint64, p []byte) {
	hot := pl.hotPages()
	if h := i - pl.hotFirst(); h >= 0 && h < hot {
		if w := lastWrite(h, hot, int64(n)*int64(pl.prog.PagesPerStep)); w >= 0 {
			pl.hotPage(i, w, p)
			return
		}
	}
	pl.coldPage(i, p)
}

// hotPage is page i as write number w leaves it: three times in four only a cache
// line differs from the write before.
func (pl *plan) hotPage(i, w int64, p []byte) {
	if w%4 == 0 {
		random(p, pl.seed, 1, uint64(w))
		return
	}
	random(p, pl.seed, 2, uint64(i))
	line := p[w%64*64:]
	random(line[:64], pl.seed, 3, uint64(w))
}

// coldPage is page i as the machine booted.
func (pl *plan) coldPage(i int64, p []byte) {
	kind := i % 4
	switch pl.content {
	case "zero":
		kind = 0
	case "text":
		kind = 1
	case "random":
		kind = 3
	}
	switch kind {
	case 0:
		clear(p)
	case 1:
		text(p, uint64(i))
	case 2:
		if k := i / 4; k >= cacheBlocks || pl.cached == nil || !pl.cached(k, p) {
			text(p, uint64(i))
		}
	default:
		random(p, pl.seed, 4, uint64(i))
	}
}

// blockWrite is disk write number w: where, and what; nil content is a discard.
type blockWrite struct {
	disk  int
	block int64
	data  []byte
}

// diskWrite computes write number w, of step w/BlocksPerStep+1. The first of each
// step always carries data, so that a disk tells its step.
func (pl *plan) diskWrite(w int64, p []byte) blockWrite {
	per := pl.blocksPerStep()
	d, b := pl.place(w % pl.hotBlocks())
	if w%per != 0 && mix(pl.seed, 5, uint64(w))%8 == 0 {
		return blockWrite{disk: d, block: b}
	}
	putBlock(p, blockHeader{Seed: pl.seed, Step: uint64(w/per) + 1, Disk: uint32(d), Block: uint64(b), Prog: pl.prog})
	return blockWrite{disk: d, block: b, data: p}
}

// blockHeader begins every block that the machine writes; a SHA-256 of the header
// and the body follows it, then the body.
type blockHeader struct {
	Seed, Step uint64
	Disk       uint32
	Block      uint64
	Prog       Program
}

var blockMagic = [8]byte{'d', 'c', 'm', 'e', 'm', 'v', 'm', '1'}

const (
	headerLen = 8 + 8 + 8 + 4 + 8 + 16
	bodyStart = headerLen + sha256.Size
)

func putBlock(p []byte, h blockHeader) {
	b := append(p[:0], blockMagic[:]...)
	b = binary.BigEndian.AppendUint64(b, h.Seed)
	b = binary.BigEndian.AppendUint64(b, h.Step)
	b = binary.BigEndian.AppendUint32(b, h.Disk)
	b = binary.BigEndian.AppendUint64(b, h.Block)
	appendProgram(b, h.Prog)
	random(p[bodyStart:], h.Seed, 6, h.Step<<16^h.Block)
	sum := blockSum(p)
	copy(p[headerLen:], sum[:])
}

func blockSum(p []byte) [sha256.Size]byte {
	s := sha256.New()
	s.Write(p[:headerLen])
	s.Write(p[bodyStart:])
	return [sha256.Size]byte(s.Sum(nil))
}

// getBlock reads a block's header; ok is false when no machine wrote it, whole is
// false when its checksum does not match.
func getBlock(p []byte) (h blockHeader, ok, whole bool) {
	if !bytes.Equal(p[:8], blockMagic[:]) {
		return h, false, false
	}
	h.Seed = binary.BigEndian.Uint64(p[8:])
	h.Step = binary.BigEndian.Uint64(p[16:])
	h.Disk = binary.BigEndian.Uint32(p[24:])
	h.Block = binary.BigEndian.Uint64(p[28:])
	h.Prog = program(p[36:])
	sum := blockSum(p)
	return h, true, bytes.Equal(sum[:], p[headerLen:bodyStart])
}

func appendProgram(b []byte, p Program) []byte {
	for _, v := range []uint32{p.HotPages, p.PagesPerStep, p.HotBlocks, p.BlocksPerStep} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return b
}

func program(b []byte) Program {
	u := binary.BigEndian.Uint32
	return Program{u(b), u(b[4:]), u(b[8:]), u(b[12:])}
}

// mix is a hash of three numbers (the finaliser of SplitMix64, Steele et al. 2014, figure 15).
func mix(a, b, c uint64) uint64 {
	z := a
	for _, v := range [...]uint64{b, c} {
		z += 0x9e3779b97f4a7c15 * (v + 1)
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		z ^= z >> 31
	}
	return z
}

// random fills p with bytes that follow from three numbers and do not compress.
func random(p []byte, a, b, c uint64) {
	x := mix(a, b, c) | 1
	for len(p) >= 8 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		binary.LittleEndian.PutUint64(p, x*0x2545f4914f6cdd1d)
		p = p[8:]
	}
	for i := range p {
		p[i] = byte(x >> (8 * i))
	}
}

// text fills p with phrases of 24 bytes out of 64, each with 8 bytes of its own: it
// compresses to about a third, and is the same for every seed.
func text(p []byte, c uint64) {
	for k := uint64(0); len(p) >= 32; k++ {
		random(p[:8], 0, 7, c<<16^k)
		random(p[8:32], 0, 8, uint64(p[0])%64)
		p = p[32:]
	}
}
