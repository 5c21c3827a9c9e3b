package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"
	"strings"
)

// A segment file begins with
//
//	magic 8 | format version 4 | network 32 | segment number 8 | first index 8 | CRC-32C 4
//
// and then has records. All entries of one index are in one segment.
const (
	segmentMagic  = "dcjournl"
	formatVersion = 1
	segmentHead   = 8 + 4 + 32 + 8 + 8 + 4
)

// Beside each segment that is full there is an index of it, made again if need be:
//
//	magic 8 | format version 4 | segment number 8 | bytes of the segment 8
//	first index 8 | last index 8 | for each block: offset 8, index 8 | CRC-32C 4
const (
	indexMagic = "dcjouidx"
	indexHead  = 8 + 4 + 8 + 8 + 8 + 8
)

// blockSize is how many bytes one entry of the sparse index covers, about; they are
// read at once.
const blockSize = 64 << 10

// segment is one file of the journal. Once it is full it does not change.
type segment struct {
	path   string
	number uint64
	first  uint64 // index of its first entry
	last   uint64 // the highest index it speaks of
	size   int64  // bytes of the file up to the end of its last whole record
	blocks []block
	full   bool // blocks are in the file beside it
}

// block is a stretch of a segment that begins with a record.
type block struct {
	off   int64
	index uint64 // of its first entry, of which the block before may have some too
}

// bytes is what the segment and its index take on the disk, at most: two blocks after
// each other are more than blockSize.
func (s *segment) bytes() int64 { return s.size + indexHead + 4 + 32*(s.size/blockSize+1) }

func segmentName(number uint64) string { return fmt.Sprintf("journal-%06d.log", number) }

func (s *segment) indexPath() string { return strings.TrimSuffix(s.path, ".log") + ".idx" }

// head is what a segment file begins with.
func (s *segment) head(network [32]byte) []byte {
	b := append(make([]byte, 0, segmentHead), segmentMagic...)
	b = binary.BigEndian.AppendUint32(b, formatVersion)
	b = append(b, network[:]...)
	b = binary.BigEndian.AppendUint64(b, s.number)
	b = binary.BigEndian.AppendUint64(b, s.first)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// damageError is of a file that is not what was written.
type damageError struct{ what string }

func (e *damageError) Error() string { return e.what }

// readHead reads the head of a segment file; a *damageError says that it is none.
func readHead(f *os.File, path string, number uint64, network [32]byte) (*segment, error) {
	b := make([]byte, segmentHead)
	if _, err := f.ReadAt(b, 0); err != nil {
		return nil, &damageError{"its header cannot be read: " + err.Error()}
	}
	if crc32.Checksum(b[:segmentHead-4], castagnoli) != binary.BigEndian.Uint32(b[segmentHead-4:]) || !bytes.HasPrefix(b, []byte(segmentMagic)) {
		return nil, &damageError{"its header is damaged"}
	}
	if v := binary.BigEndian.Uint32(b[8:]); v != formatVersion {
		return nil, fmt.Errorf("%s is of format %d and this program reads format %d: use the version of dcnode that wrote it, or move the folder away, and a new journal begins", path, v, formatVersion)
	}
	if !bytes.Equal(b[12:44], network[:]) {
		return nil, fmt.Errorf("%s is of another overlay: use another data directory", path)
	}
	if n := binary.BigEndian.Uint64(b[44:]); n != number {
		return nil, &damageError{fmt.Sprintf("it says that it is segment %d", n)}
	}
	return &segment{path: path, number: number, first: binary.BigEndian.Uint64(b[52:])}, nil
}

// note takes n bytes of records at off, the first of them of an index, into the
// sparse index.
func (s *segment) note(off int64, n int, index uint64) {
	if l := len(s.blocks); l == 0 || off+int64(n)-s.blocks[l-1].off > blockSize {
		s.blocks = append(s.blocks, block{off, index})
	}
}

// scan reads all of a segment of which only the head is known. whole is where the
// last index ends of which all entries are there; a *damageError says why there is
// something after it, or after the last whole record.
func (s *segment) scan(f *os.File) (whole int64, err error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	var v view
	var buf []byte
	s.size, s.blocks, s.last, whole = segmentHead, nil, 0, segmentHead
	left := info.Size() - s.size // not yet in buf
	at := 0                      // in buf
	for {
		n, err := v.cutRecord(buf[at:])
		if errors.Is(err, errShort) && left > 0 {
			buf = append(buf[:0], buf[at:]...)
			have, more := len(buf), int(min(left, blockSize+maxBody))
			buf = slices.Grow(buf, more)[:have+more]
			if _, err := f.ReadAt(buf[have:], s.size+int64(have)); err != nil {
				return whole, &damageError{err.Error()}
			}
			at, left = 0, left-int64(more)
			continue
		}
		switch {
		case at == len(buf) && whole == s.size:
			return whole, nil
		case at == len(buf):
			return whole, &damageError{"the last event is not whole"}
		case err == nil && v.index < max(s.first, s.last):
			return whole, &damageError{"its entries are not in order"}
		case err != nil:
			return whole, &damageError{err.Error()}
		}
		s.note(s.size, n, v.index)
		s.last = max(s.last, v.last())
		s.size += int64(n)
		at += n
		if !v.more {
			whole = s.size
		}
	}
}

func (s *segment) marshalIndex() []byte {
	b := append(make([]byte, 0, indexHead+16*len(s.blocks)+4), indexMagic...)
	b = binary.BigEndian.AppendUint32(b, formatVersion)
	for _, n := range []uint64{s.number, uint64(s.size), s.first, s.last} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	for _, k := range s.blocks {
		b = binary.BigEndian.AppendUint64(b, uint64(k.off))
		b = binary.BigEndian.AppendUint64(b, k.index)
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// unmarshalIndex reads an index into a segment of which the head is known, and
// reports whether it is one of this segment.
func (s *segment) unmarshalIndex(b []byte, fileSize int64) bool {
	be := binary.BigEndian
	n := len(b) - indexHead - 4
	if n < 16 || n%16 != 0 || !bytes.HasPrefix(b, []byte(indexMagic)) || be.Uint32(b[8:]) != formatVersion ||
		crc32.Checksum(b[:len(b)-4], castagnoli) != be.Uint32(b[len(b)-4:]) {
		return false
	}
	if be.Uint64(b[12:]) != s.number || be.Uint64(b[20:]) != uint64(fileSize) || be.Uint64(b[28:]) != s.first {
		return false
	}
	blocks := make([]block, 0, n/16)
	low := int64(segmentHead)
	for at := indexHead; at < len(b)-4; at += 16 {
		k := block{int64(be.Uint64(b[at:])), be.Uint64(b[at+8:])}
		if k.off < low || k.off >= fileSize {
			return false
		}
		low = k.off + 1
		blocks = append(blocks, k)
	}
	s.size, s.last, s.blocks = fileSize, be.Uint64(b[36:]), blocks
	return blocks[0].off == segmentHead && s.last >= s.first
}

// readIndex reads the index beside a segment, or makes it from the segment, f. A
// *damageError says up to where there is something.
func (s *segment) readIndex(f *os.File) (made bool, err error) {
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	// An index of the largest segment there can be is small; a larger file is none.
	if g, err := os.Open(s.indexPath()); err == nil {
		b, err := io.ReadAll(io.LimitReader(g, 64<<20))
		g.Close()
		if err == nil && s.unmarshalIndex(b, info.Size()) {
			return false, nil
		}
	}
	_, err = s.scan(f)
	return true, err
}
