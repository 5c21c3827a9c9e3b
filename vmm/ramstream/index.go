package ramstream

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"
	"os"
	"runtime"
)

// DefaultMaxBlocks bounds an index to 64 GiB of data, 240 MiB of memory.
const DefaultMaxBlocks = 16 << 20

// Index finds the disk block that equals a page. It may be shared by any number of
// encoders at once and outlives none of its bases.
//
// It is an open-addressed table of 12 bytes per slot, 8 of SHA-256 and 4 of block
// number, with 5 slots for 4 blocks: 15 bytes for each 4 KiB of data, holes not
// counted. It is allocated once, at its full size. Eight bytes of digest do not
// prove equality; Find reads the block and compares.
type Index struct {
	bases  bases
	keys   []uint64
	blocks []uint32 // number + 1; 0: empty slot
	count  int64
	left   int64
}

// NewIndex reads the bases and indexes their blocks of data: not holes, not
// blocks of zeroes, and of equal blocks the first. Above maxBlocks blocks of data
// (0: DefaultMaxBlocks) the rest is left out. It reads about as fast as one CPU
// computes SHA-256. The offset of a base that is an *os.File moves.
func NewIndex(ctx context.Context, list []Base, maxBlocks int64) (*Index, error) {
	if maxBlocks <= 0 {
		maxBlocks = DefaultMaxBlocks
	}
	x := &Index{bases: list}
	if err := x.bases.check(); err != nil {
		return nil, err
	}
	var spans []span
	var first, total int64
	for _, b := range list {
		if b.R != nil {
			for _, s := range dataSpans(b) {
				s.number += first
				spans, total = append(spans, s), total+s.blocks
			}
		}
		first += b.blocks()
	}
	x.left = max(0, total-maxBlocks)
	slots := min(total, maxBlocks)*5/4 + 8
	x.keys, x.blocks = make([]uint64, slots), make([]uint32, slots)
	room := maxBlocks
	for _, s := range spans {
		s.blocks = min(s.blocks, room)
		if err := x.add(ctx, s); err != nil {
			return nil, err
		}
		room -= s.blocks
	}
	return x, nil
}

// Blocks is how many different blocks the index knows.
func (x *Index) Blocks() int64 { return x.count }

// LeftOut is how many blocks of data were not indexed because of the bound.
func (x *Index) LeftOut() int64 { return x.left }

// span is a run of blocks that may hold data.
type span struct {
	number int64 // of its first block, over all bases
	blocks int64
}

// Values of lseek's whence on Linux; other systems have no such promise here.
const seekData, seekHole = 3, 4

// dataSpans skips the holes of b where it is a file on a system that can tell.
func dataSpans(b Base) []span {
	whole := []span{{0, b.blocks()}}
	f, ok := b.R.(*os.File)
	if !ok || runtime.GOOS != "linux" {
		return whole
	}
	var spans []span
	for end := int64(0); end < b.blocks(); {
		from, err := f.Seek(end*PageSize, seekData)
		if err != nil { // ENXIO: only a hole is left
			if _, err := f.Seek(0, io.SeekStart); err != nil || len(spans) == 0 && end == 0 {
				return whole // a file system that cannot tell looks the same at offset 0
			}
			break
		}
		to, err := f.Seek(from, seekHole)
		if err != nil {
			return whole
		}
		start := max(from/PageSize, end)
		end = min((to+PageSize-1)/PageSize, b.blocks())
		if end <= start {
			break
		}
		spans = append(spans, span{start, end - start})
	}
	return spans
}

func (x *Index) add(ctx context.Context, s span) error {
	buf := make([]byte, min(256<<10, s.blocks*PageSize))
	for s.blocks > 0 {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("index bases: %w", context.Cause(ctx))
		}
		p := buf[:min(int64(len(buf)), s.blocks*PageSize)]
		if err := x.bases.read(p, s.number); err != nil {
			return fmt.Errorf("index bases: %w", err)
		}
		for ; len(p) > 0; p = p[PageSize:] {
			if !isZero(p[:PageSize]) {
				x.insert(keyOf(p[:PageSize]), uint32(s.number))
			}
			s.number, s.blocks = s.number+1, s.blocks-1
		}
	}
	return nil
}

func (x *Index) insert(key uint64, block uint32) {
	i := x.slot(key)
	for ; x.blocks[i] != 0; i = (i + 1) % uint64(len(x.blocks)) {
		if x.keys[i] == key {
			return
		}
	}
	x.keys[i], x.blocks[i] = key, block+1
	x.count++
}

// find returns the block whose digest begins with key and that equals page.
func (x *Index) find(key uint64, page, scratch []byte) (int64, bool) {
	for i := x.slot(key); x.blocks[i] != 0; i = (i + 1) % uint64(len(x.blocks)) {
		if x.keys[i] == key {
			block := int64(x.blocks[i]) - 1
			return block, x.equal(block, page, scratch)
		}
	}
	return 0, false
}

// equal compares page with a block. A block that cannot be read equals nothing.
func (x *Index) equal(block int64, page, scratch []byte) bool {
	return x.bases.read(scratch, block) == nil && bytes.Equal(scratch, page)
}

func (x *Index) slot(key uint64) uint64 {
	hi, _ := bits.Mul64(key, uint64(len(x.keys)))
	return hi
}

func keyOf(page []byte) uint64 {
	sum := sha256.Sum256(page)
	return binary.LittleEndian.Uint64(sum[:])
}

var zeroPage [PageSize]byte

func isZero(p []byte) bool { return bytes.Equal(p, zeroPage[:]) }
