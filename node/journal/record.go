package journal

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// A record, numbers big-endian:
//
//	length of the body 4 | CRC-32C 4 of the length and the body | body
//
// The body is an entry. Zeroes, which a power cut leaves at the end of a file, are no
// record, as the checksum of a length of zero is not zero.
const (
	recordHead = 4 + 4
	maxBody    = 1 << 20 // a transaction has 64 KiB at most; the rest are sentences and names
)

// castagnoli is built once; on most processors the sum is an instruction.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// What reading a record can come to besides the record.
var (
	errShort = errors.New("a record is cut short") // what there is ends before it does
	errWrong = errors.New("a record is damaged")
)

func appendRecord(b []byte, e *Entry, more bool) []byte {
	at := len(b)
	b = e.append(append(b, make([]byte, recordHead)...), more)
	head, body := b[at:at+recordHead], b[at+recordHead:]
	binary.BigEndian.PutUint32(head, uint32(len(body)))
	binary.BigEndian.PutUint32(head[4:], checksum(head[:4], body))
	return b
}

func checksum(length, body []byte) uint32 {
	return crc32.Update(crc32.Update(0, castagnoli, length), castagnoli, body)
}

// cutRecord reads the record that b begins with and says how long it is.
func (v *view) cutRecord(b []byte) (int, error) {
	if len(b) < recordHead {
		return 0, errShort
	}
	n := binary.BigEndian.Uint32(b)
	switch {
	case n == 0 || n > maxBody:
		return 0, errWrong
	case int(n) > len(b)-recordHead:
		return 0, errShort
	}
	end := recordHead + int(n)
	if checksum(b[:4], b[recordHead:end]) != binary.BigEndian.Uint32(b[4:]) {
		return 0, errWrong
	}
	return end, v.parse(b[recordHead:end])
}
