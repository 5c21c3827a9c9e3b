package eventlog

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"strings"
)

// A segment that is finished has its summary in a file beside it:
//
//	magic 8 | size 8 | count 8 | maxBirth 8
//	creators 4, each: creator 8, offset 8, number of the event 8
//	blocks 4, each: offset 8, position 8, maxBirth 8
//	CRC-32C 4 of all before
//
// It can be made again from the segment, so it is not worth a sync.
const summaryMagic = "dcindex3"

func (s *segment) summaryPath() string { return strings.TrimSuffix(s.path, ".log") + ".idx" }

func (s *segment) marshalSummary() []byte {
	be := binary.BigEndian
	b := append([]byte(nil), summaryMagic...)
	for _, n := range []uint64{uint64(s.size), s.count, s.maxBirth} {
		b = be.AppendUint64(b, n)
	}
	b = be.AppendUint32(b, uint32(len(s.lasts)))
	for _, l := range s.lasts {
		b = be.AppendUint64(be.AppendUint64(be.AppendUint64(b, l.creator), uint64(l.off)), l.seq)
	}
	b = be.AppendUint32(b, uint32(len(s.blocks)))
	for _, k := range s.blocks {
		b = be.AppendUint64(be.AppendUint64(be.AppendUint64(b, uint64(k.off)), uint64(k.pos)), k.maxBirth)
	}
	return be.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

var errSummary = errors.New("the summary of a segment is not usable")

// readSummary fills in the summary from its file. It must fit the segment's size.
func (s *segment) readSummary() error {
	b, err := os.ReadFile(s.summaryPath())
	if err != nil {
		return err
	}
	st, err := os.Stat(s.path)
	if err != nil {
		return err
	}
	return s.unmarshalSummary(b, st.Size())
}

func (s *segment) unmarshalSummary(b []byte, fileSize int64) error {
	be := binary.BigEndian
	if len(b) < 8+24+4+4+4 || string(b[:8]) != summaryMagic || crc32.Checksum(b[:len(b)-4], castagnoli) != be.Uint32(b[len(b)-4:]) {
		return errSummary
	}
	size := int64(be.Uint64(b[8:]))
	sum := summary{count: be.Uint64(b[16:]), maxBirth: be.Uint64(b[24:])}
	b = b[32 : len(b)-4]
	n := int(be.Uint32(b))
	if b = b[4:]; n > len(b)/24 {
		return errSummary
	}
	for range n {
		sum.lasts = append(sum.lasts, last{creator: be.Uint64(b), off: int64(be.Uint64(b[8:])), seq: be.Uint64(b[16:])})
		b = b[24:]
	}
	if len(b) < 4 {
		return errSummary
	}
	n = int(be.Uint32(b))
	if b = b[4:]; n != len(b)/24 || len(b)%24 != 0 || size != fileSize {
		return errSummary
	}
	for range n {
		sum.blocks = append(sum.blocks, block{off: int64(be.Uint64(b)), pos: Position(be.Uint64(b[8:])), maxBirth: be.Uint64(b[16:])})
		b = b[24:]
	}
	s.size, s.summary = size, sum
	return nil
}

// blocksOf are the blocks of a segment: from memory for the last one, else from
// its file or, if that is lost, from the segment itself.
func (s *segment) blocksOf() []block {
	if s.blocks != nil || s.count == 0 {
		return s.blocks
	}
	t := *s
	if t.readSummary() == nil {
		return t.blocks
	}
	return []block{{off: segmentHead, pos: s.first, maxBirth: s.maxBirth}}
}
