package eventlog

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math"

	"github.com/dcnode/dcnode/consensus"
)

// A record, all numbers big-endian:
//
//	length of the body 4 | CRC-32C 4 | synced 4 | kind 1 | body
//
// The checksum covers the segment's salt, the record's offset, and all of the
// record but itself. The salt is random, so that no event can carry bytes that
// look like a record of this file; the offset tells a record from a copy of it.
//
// Synced is how many bytes of the file were known to be on the disk when the record
// was written: damage below the synced of any whole record is damage to something
// that was promised.
const recordHead = 4 + 4 + 4 + 1

type kind byte

const (
	kindEvent  kind = 1 // an event's encoding
	kindRun    kind = 2 // a process took over the log; its boot id
	kindClosed kind = 3 // the process has ended well and everything is on the disk
	kindAdopt  kind = 4 // a checkpoint from others: round 8, least birth round 8
)

// maxBody bounds a record's body.
const maxBody = consensus.MaxEvent

// maxSegment bounds a file, so that offsets fit into a record's synced.
const maxSegment = math.MaxUint32

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type record struct {
	kind   kind
	off    int64 // of its head in the file
	synced int64
	body   []byte
}

func (r *record) end() int64 { return r.off + recordHead + int64(len(r.body)) }

func checksum(salt uint64, off int64, head, body []byte) uint32 {
	var seed [16]byte
	binary.BigEndian.PutUint64(seed[:], salt)
	binary.BigEndian.PutUint64(seed[8:], uint64(off))
	c := crc32.Update(0, castagnoli, seed[:])
	c = crc32.Update(c, castagnoli, head[:4])
	c = crc32.Update(c, castagnoli, head[8:recordHead])
	return crc32.Update(c, castagnoli, body)
}

// appendRecord appends a record that will stand at off.
func appendRecord(b []byte, salt uint64, off, synced int64, k kind, body []byte) []byte {
	var head [recordHead]byte
	binary.BigEndian.PutUint32(head[:], uint32(len(body)))
	binary.BigEndian.PutUint32(head[8:], uint32(synced))
	head[12] = byte(k)
	binary.BigEndian.PutUint32(head[4:], checksum(salt, off, head[:], body))
	return append(append(b, head[:]...), body...)
}

// What reading a record can come to besides the record.
var (
	errShort = errors.New("a record is cut short") // the file ends before it does
	errWrong = errors.New("a record is damaged")
)

// readRecord reads the record at off of which at most left bytes are there. The
// body is read into buf if that has room.
func readRecord(r io.Reader, buf []byte, salt uint64, off, left int64) (record, error) {
	var head [recordHead]byte
	if left < recordHead {
		return record{}, errShort
	}
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return record{}, shortOr(err)
	}
	n := int64(binary.BigEndian.Uint32(head[:]))
	switch {
	case n > maxBody || n == 0 && kind(head[12]) != kindClosed:
		return record{}, errWrong
	case recordHead+n > left:
		return record{}, errShort
	}
	if int64(cap(buf)) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	if _, err := io.ReadFull(r, buf); err != nil {
		return record{}, shortOr(err)
	}
	if checksum(salt, off, head[:], buf) != binary.BigEndian.Uint32(head[4:]) {
		return record{}, errWrong
	}
	return record{kind: kind(head[12]), off: off, synced: int64(binary.BigEndian.Uint32(head[8:])), body: buf}, nil
}

// shortOr is errShort where a file ended earlier than it said it would, as one
// that is cut while it is read does.
func shortOr(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errShort
	}
	return err
}

// adoption is the body of a kindAdopt record.
func adoption(round, minBirth uint64) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, round), minBirth)
}
