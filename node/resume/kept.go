package resume

import "encoding/binary"

// A record is a byte that says what it is, a number of eight bytes, and if it is data so
// many bytes. Numbers are big-endian.
const (
	recordData = 1 // the number of bytes that follow
	recordAck  = 2 // how many bytes of data were read in all
	recordEnd  = 3 // nothing follows, and nobody reads any more
	recordHead = 9
)

func appendRecord(b []byte, kind byte, number uint64) []byte {
	return binary.BigEndian.AppendUint64(append(b, kind), number)
}

// chunk holds whole records of data as they go on the wire.
type chunk struct {
	buf        []byte
	start, end uint64 // positions of its first byte of data and after its last
	next       *chunk
}

// kept is what was written and not yet acknowledged, and where the wire is in it. It has
// no lock of its own.
type kept struct {
	sent, acked uint64 // positions: written by the user, read by the other side
	first, last *chunk
	count, max  int // chunks
	free        *chunk
	busy        *chunk // being written to a connection: not to be used again

	at      *chunk // where the wire is
	off     int
	written uint64 // position up to which bytes were given to a connection
}

func (k *kept) begin() {
	k.first = &chunk{buf: make([]byte, 0, chunkSize)}
	k.last, k.at, k.count = k.first, k.first, 1
}

// put keeps as much of p as there is room for and returns how much that was.
func (k *kept) put(p []byte) int {
	n := 0
	for n < len(p) {
		c := k.last
		room := cap(c.buf) - len(c.buf) - recordHead
		if room < min(len(p)-n, chunkSize/16) {
			if !k.grow() {
				break
			}
			continue
		}
		part := p[n:min(len(p), n+room)]
		c.buf = append(appendRecord(c.buf, recordData, uint64(len(part))), part...)
		n += len(part)
		c.end += uint64(len(part))
		k.sent = c.end
	}
	return n
}

// grow begins another chunk, if there may be one.
func (k *kept) grow() bool {
	if k.count >= k.max {
		return false
	}
	c := k.free
	if c != nil {
		k.free = c.next
		c.buf = c.buf[:0]
	} else {
		c = &chunk{buf: make([]byte, 0, chunkSize)}
	}
	c.start, c.end, c.next = k.sent, k.sent, nil
	k.last.next, k.last = c, c
	k.count++
	return true
}

// holds says whether sending can go on from a position.
func (k *kept) holds(at uint64) bool { return k.acked <= at && at <= k.sent }

// acknowledge lets go of what the other side has read.
func (k *kept) acknowledge(at uint64) {
	k.acked = at
	for k.first != k.last && k.first.end <= at && k.first != k.at {
		c := k.first
		k.first = c.next
		k.count--
		if c != k.busy {
			c.next, k.free = k.free, c
		}
	}
}

// out is what the wire has to carry next, if there is anything. It stays as it is until
// the next call.
func (k *kept) out() []byte {
	for k.off == len(k.at.buf) && k.at.next != nil {
		k.at, k.off = k.at.next, 0
	}
	b := k.at.buf[k.off:]
	if len(b) > 0 {
		k.busy, k.off, k.written = k.at, len(k.at.buf), k.at.end
	}
	return b
}

// rewind has the wire go on from a position and returns how much of what it has carried
// comes after that. Nobody must be writing what out has returned.
func (k *kept) rewind(at uint64) int64 {
	k.busy = nil
	k.at, k.off = k.first, 0
	for k.at.end <= at && k.at.next != nil {
		k.at = k.at.next
	}
	k.acknowledge(at)
	twice := int64(k.written - at)
	k.written = at
	for p := k.at.start; p < at; {
		n := binary.BigEndian.Uint64(k.at.buf[k.off+1:])
		if p+n > at { // the rest of a record: its head goes where bytes were that nobody needs
			done := int(at - p)
			k.off += done
			appendRecord(k.at.buf[:k.off], recordData, n-uint64(done))
			k.at.buf = k.at.buf[:copy(k.at.buf, k.at.buf[k.off:])]
			k.at.start, k.off = at, 0
			break
		}
		p += n
		k.off += recordHead + int(n)
	}
	return twice
}
