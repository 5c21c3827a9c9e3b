// Package ramstream is a lossless codec for the stream that QEMU writes when it
// migrates a machine.
//
// QEMU sends every page of memory that is not zero as it is. Much of a guest's
// memory is its page cache, so most of those pages are blocks of a disk image
// that the destination already holds. The [Encoder] reads the stream as it comes,
// finds the pages in it and replaces each by the least that says the same:
//
//	zero     QEMU's own mark for a page of zeroes: a few bits
//	disk     the number of a 4 KiB block of a base image that both sides hold
//	self     the number of a literal page sent shortly before
//	literal  the page, compressed together with its neighbours
//
// What is not a page (section headers, device state) is opaque: it travels
// compressed, in its place. The [Decoder] rebuilds the stream byte for byte.
//
// The encoder parses and never trusts. At the first thing it does not understand
// it passes everything from there on as opaque bytes: a stream of an unknown
// version, or no QEMU stream at all, costs more bytes and is never wrong. Whatever
// the input, decode(encode(x)) == x.
//
// A reference is made only after the page was compared, byte for byte, with the
// block or page it names; the digests in the tables only find the candidates. So
// tables may keep 64 bits of a SHA-256 and stay small. That the destination's block
// is the same is the caller's promise (it knows images by CID), and is checked
// twice: each frame carries a CRC-32C of the plain bytes it stands for, so a wrong
// base shows in the first frame that uses it, and both sides compute the SHA-256
// of the whole plain stream ([Encoder.Digest], [Decoder.Digest]), which the caller
// compares before the machine may run.
//
// The package starts no goroutine and reads no clock.
package ramstream

import (
	"errors"
	"hash/crc32"
)

// PageSize is the size of a page and of a disk block, in bytes.
const PageSize = 4096

// Bounds of one frame. The encoder keeps them, the decoder enforces them.
const (
	maxData  = 112 << 10 // literal pages and opaque bytes, before compression
	maxOps   = 8 << 10   // operations
	maxPlain = 2 << 20   // bytes of the plain stream that a frame stands for
	maxHead  = 32
	zWindow  = 128 << 10 // of zstd; a power of two

	// MaxFrame is the most bytes one frame takes.
	MaxFrame = maxHead + maxOps + maxData
)

// DefaultWindow is how many literal pages each side remembers for self-references:
// 4096 pages are 16 MiB on each side.
const DefaultWindow = 4096

// ErrCorrupt is wrapped by every error of the decoder that the frame is to blame for.
var ErrCorrupt = errors.New("corrupt memory frame")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Origins counts something by how a part of the stream travels.
type Origins struct {
	Zero    int64 `json:"zero"`
	Disk    int64 `json:"disk"`
	Self    int64 `json:"self"`
	Literal int64 `json:"literal"`
	Opaque  int64 `json:"opaque"`
}

// Total is the sum over all origins.
func (o Origins) Total() int64 { return o.Zero + o.Disk + o.Self + o.Literal + o.Opaque }

// Stats says what a stream was made of and what it cost.
type Stats struct {
	Pages Origins `json:"pages"` // page records; Opaque stays 0, for opaque bytes are no pages
	Plain Origins `json:"plain"` // bytes of QEMU's stream, record headers included
	// Sent is bytes of frames. Literal and opaque bytes of one frame are
	// compressed together; their cost is divided by their plain lengths. Frame
	// headers count as opaque.
	Sent Origins `json:"sent"`
}

func (o *Origins) of(op uint64) *int64 {
	switch op {
	case opZero:
		return &o.Zero
	case opDisk:
		return &o.Disk
	case opSelf:
		return &o.Self
	case opLiteral:
		return &o.Literal
	}
	return &o.Opaque
}

// A frame is
//
//	u8       0: data stored, 1: data compressed with zstd
//	uvarint  bytes of operations
//	uvarint  bytes of data before compression
//	uvarint  bytes of the plain stream
//	u32      CRC-32C of those, big-endian
//	operations, then data to the end of the frame
//
// An operation is a uvarint, argument<<3 | code. Records are QEMU's page records:
// a u64 of page offset and flags, a block name where the flag CONTINUE is missing,
// then a fill byte or the page. Both sides predict the next offset (one page on)
// and, for disk references, the next block.
const (
	opRaw     = iota // argument bytes of data, as they are
	opZero           // argument zero-page records
	opLiteral        // argument page records, pages from data
	opDisk           // argument page records; then a zigzag uvarint: first block minus the predicted one
	opSelf           // argument page records; then a uvarint: how many literals back the first page is
	opSeek           // argument zigzag: pages to add to the predicted offset
	opName           // argument bytes of block name follow: the next record carries them
)

// Flags of a page record (QEMU migration/ram.c, RAM_SAVE_FLAG_*).
const (
	flagZero         = 0x02
	flagMemSize      = 0x04
	flagPage         = 0x08
	flagEOS          = 0x10
	flagContinue     = 0x20
	flagMultifdFlush = 0x200
	flagMask         = PageSize - 1
)

func zigzag(n int64) uint64   { return uint64(n<<1) ^ uint64(n>>63) }
func unzigzag(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }
