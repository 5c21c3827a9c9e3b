package eventlog

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dcnode/dcnode/consensus"
)

// A segment file begins with
//
//	magic 8 | format version 4 | network 32 | segment number 8 | position of its
//	first event 8 | salt 8 | CRC-32C 4 of all before
//
// and then has records; the first says which boot of the machine wrote it. A
// segment appears under its name with this much in it, whole and durable.
const (
	segmentMagic  = "dcevents"
	formatVersion = 2 // 1 was a single file without a header
	segmentHead   = 8 + 4 + 32 + 8 + 8 + 8 + 4
)

// blockSize is how many bytes of a segment one entry of its sparse index covers, about.
const blockSize = 64 << 10

// segment is one file of the log.
type segment struct {
	path    string
	network consensus.Hash
	number  uint64
	first   Position // of its first event
	salt    uint64
	size    int64 // bytes of the file up to the end of its last whole record
	summary
}

// summary is what is known of a segment's content without reading it.
type summary struct {
	count    uint64 // events
	maxBirth uint64 // the highest birth round of any
	lasts    []last // by creator, ascending
	blocks   []block
}

// last is where that event of a creator is that has the highest number in a segment.
// It need not be the one that was written last.
type last struct {
	creator uint64
	off     int64
	seq     uint64
}

// block is a stretch of a segment that begins with an event.
type block struct {
	off      int64
	pos      Position // of that event
	maxBirth uint64   // the highest birth round in this block and all before it
}

// note takes an event at off into the summary.
func (s *segment) note(e *consensus.Event, off int64) {
	s.maxBirth = max(s.maxBirth, e.BirthRound)
	if n := len(s.blocks); n == 0 || off >= s.blocks[n-1].off+blockSize {
		s.blocks = append(s.blocks, block{off: off, pos: s.first + Position(s.count)})
	}
	s.blocks[len(s.blocks)-1].maxBirth = s.maxBirth
	i, ok := slices.BinarySearchFunc(s.lasts, e.Creator, byCreator)
	if !ok {
		s.lasts = slices.Insert(s.lasts, i, last{creator: e.Creator})
	}
	if e.Seq >= s.lasts[i].seq {
		s.lasts[i].off, s.lasts[i].seq = off, e.Seq
	}
	s.count++
}

func byCreator(l last, c uint64) int {
	switch {
	case l.creator < c:
		return -1
	case l.creator > c:
		return 1
	}
	return 0
}

// next is the position after its last event.
func (s *segment) next() Position { return s.first + Position(s.count) }

func segmentName(number uint64) string { return fmt.Sprintf("events-%06d.log", number) }

func (s *segment) head() []byte {
	b := append(make([]byte, 0, segmentHead), segmentMagic...)
	b = binary.BigEndian.AppendUint32(b, formatVersion)
	b = append(b, s.network[:]...)
	b = binary.BigEndian.AppendUint64(b, s.number)
	b = binary.BigEndian.AppendUint64(b, uint64(s.first))
	b = binary.BigEndian.AppendUint64(b, s.salt)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// readHead reads the head of a segment file.
func readHead(path string) (*segment, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open event log: %w", err)
	}
	defer f.Close()
	b := make([]byte, segmentHead)
	if n, err := io.ReadFull(f, b); err != nil {
		return nil, &DamageError{File: path, Byte: int64(n), What: "its header is cut short", Remedy: restore}
	}
	if !bytes.HasPrefix(b, []byte(segmentMagic)) {
		return nil, &DamageError{File: path, What: "it is not a segment of an event log", Remedy: restore}
	}
	if v := binary.BigEndian.Uint32(b[8:]); v != formatVersion {
		return nil, fmt.Errorf("open event log: %s is of format %d and this program reads format %d: use the version of dcnode that wrote it", path, v, formatVersion)
	}
	if crc32.Checksum(b[:segmentHead-4], castagnoli) != binary.BigEndian.Uint32(b[segmentHead-4:]) {
		return nil, &DamageError{File: path, What: "its header is damaged", Remedy: restore}
	}
	s := &segment{path: path, size: segmentHead}
	copy(s.network[:], b[12:])
	s.number = binary.BigEndian.Uint64(b[44:])
	s.first = Position(binary.BigEndian.Uint64(b[52:]))
	s.salt = binary.BigEndian.Uint64(b[60:])
	return s, nil
}

// listSegments reads the heads of all segments in a folder, in order.
func listSegments(dir string) ([]*segment, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open event log: %w", err)
	}
	var segs []*segment
	for _, e := range entries { // by name, which is by number
		if !strings.HasPrefix(e.Name(), "events-") || !strings.HasSuffix(e.Name(), ".log") {
			continue
		}
		path := filepath.Join(dir, e.Name())
		s, err := readHead(path)
		if err != nil {
			return nil, err
		}
		if want := segmentName(uint64(len(segs) + 1)); s.number != uint64(len(segs)+1) || e.Name() != want {
			return nil, &DamageError{File: path, What: fmt.Sprintf("it says that it is segment %d, and %s is lacking", s.number, filepath.Join(dir, want)), Remedy: restore}
		}
		if len(segs) > 0 && s.network != segs[0].network {
			return nil, &DamageError{File: path, What: "it is of another overlay than the segment before it", Remedy: restore}
		}
		segs = append(segs, s)
	}
	return segs, nil
}

// stretch is a part of a segment file that begins with a record and ends with one.
type stretch struct {
	path string
	salt uint64
	off  int64
	end  int64
	pos  Position // of the first event at off or after it
}

// whole is all of a segment that is known to be whole.
func (s *segment) whole() stretch {
	return stretch{path: s.path, salt: s.salt, off: segmentHead, end: s.size, pos: s.first}
}

// cursor reads the records of a stretch one after another.
type cursor struct {
	stretch
	f   *os.File
	r   *bufio.Reader
	buf []byte
}

func (s stretch) open() (*cursor, error) {
	f, err := os.Open(s.path)
	if err != nil {
		return nil, fmt.Errorf("read event log: %w", err)
	}
	r := bufio.NewReaderSize(io.NewSectionReader(f, s.off, max(0, s.end-s.off)), 64<<10)
	return &cursor{stretch: s, f: f, r: r}, nil
}

func (c *cursor) close() { c.f.Close() }

// next is the next record, whose body holds until the next call; io.EOF at the
// end, errShort or errWrong where there is no whole record.
func (c *cursor) next() (record, error) {
	if c.off >= c.end {
		return record{}, io.EOF
	}
	rec, err := readRecord(c.r, c.buf, c.salt, c.off, c.end-c.off)
	if err != nil {
		return record{}, err
	}
	c.buf = rec.body[:0]
	c.off = rec.end()
	return rec, nil
}

// wholeAfter looks for a whole record that begins after off: its place, and the
// highest synced of those that follow; -1 if there is none.
func (s *segment) wholeAfter(off, end int64) (place, synced int64, err error) {
	f, err := os.Open(s.path)
	if err != nil {
		return 0, 0, fmt.Errorf("read event log: %w", err)
	}
	defer f.Close()
	const window = recordHead + maxBody // room for any record
	buf := make([]byte, min(2*window, max(0, end-off)))
	place = -1
	for from := off + 1; from < end; from += window {
		n, err := f.ReadAt(buf[:min(int64(len(buf)), end-from)], from)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, 0, fmt.Errorf("read event log: %w", err)
		}
		for i := 0; i < min(n, window); i++ {
			at := from + int64(i)
			rec, err := readRecord(bytes.NewReader(buf[i:n]), nil, s.salt, at, end-at)
			if err != nil {
				continue
			}
			if place < 0 {
				place = at
			}
			synced = max(synced, rec.synced)
			i += recordHead + len(rec.body) - 1
		}
	}
	return place, synced, nil
}

// DamageError is damage that the log does not repair by itself, because an event
// that others may have seen would be lost unnoticed.
type DamageError struct {
	File   string
	Byte   int64
	What   string
	Remedy string
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("event log: %s, byte %d: %s: %s", e.File, e.Byte, e.What, e.Remedy)
}

// restore must not lead to an older state of the log: a member that goes on from one
// contradicts what it has said since.
const restore = "move the whole folder away: this member then gets the history from the others and says nothing before it has; do not restore it from a backup, which does not know what was said since"
