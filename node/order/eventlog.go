package order

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"github.com/dcnode/dcnode/consensus"
)

// eventLog keeps all events of the overlay on disk in an order in which parents
// come before children. A record is its length and CRC-32C, both big-endian
// uint32, and the event's encoding.
type eventLog struct {
	f     *os.File
	end   int64
	index map[consensus.Hash]int
	recs  []eventRecord
}

type eventRecord struct {
	off     int64
	n       int
	hash    consensus.Hash
	parents []consensus.Hash
}

const recordHeader = 8

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// openEventLog opens or makes the log and hands each event in it to replay. What a
// crash cut short at the end is removed; damage before a whole record is an error,
// because an event that others have seen must not be lost.
func openEventLog(path string, replay func(*consensus.Event) error) (*eventLog, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open event log: %w", err)
	}
	l := &eventLog{f: f, index: map[consensus.Hash]int{}}
	if err := l.load(replay); err != nil {
		f.Close()
		return nil, fmt.Errorf("read event log %s: %w", path, err)
	}
	return l, nil
}

func (l *eventLog) load(replay func(*consensus.Event) error) error {
	st, err := l.f.Stat()
	if err != nil {
		return err
	}
	r := bufio.NewReaderSize(l.f, int(min(1<<20, st.Size())))
	for l.end < st.Size() {
		e, n, err := readRecord(r, st.Size()-l.end)
		if err != nil {
			return l.repair(st.Size(), err)
		}
		l.note(e, n)
		if err := replay(e); err != nil {
			return fmt.Errorf("at byte %d: %w", l.end, err)
		}
	}
	return nil
}

// repair cuts the log off at its end if no whole record follows: then a crash wrote
// only part of it.
func (l *eventLog) repair(size int64, cause error) error {
	const window = recordHeader + consensus.MaxEvent // room for any record
	buf := make([]byte, min(2*window, size-l.end))
	for from := l.end + 1; from < size; from += window {
		n, err := l.f.ReadAt(buf[:min(int64(len(buf)), size-from)], from)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		for i := range min(n, window) {
			if _, _, err := readRecord(bytes.NewReader(buf[i:n]), size-from-int64(i)); err == nil {
				return fmt.Errorf("at byte %d: %w, and whole events follow from byte %d on: restore the file, or start anew with `dcnode init` and a new membership", l.end, cause, from+int64(i))
			}
		}
	}
	return l.f.Truncate(l.end)
}

var errDamaged = errors.New("an event is damaged")

// readRecord reads one record of at most left bytes.
func readRecord(r io.Reader, left int64) (*consensus.Event, int, error) {
	var head [recordHeader]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, 0, errDamaged
	}
	n := int64(binary.BigEndian.Uint32(head[:4]))
	if n == 0 || n > consensus.MaxEvent || recordHeader+n > left {
		return nil, 0, errDamaged
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, 0, errDamaged
	}
	if crc32.Checksum(b, castagnoli) != binary.BigEndian.Uint32(head[4:]) {
		return nil, 0, errDamaged
	}
	e, err := consensus.Unmarshal(b)
	return e, int(n), err
}

func (l *eventLog) note(e *consensus.Event, n int) {
	rec := eventRecord{off: l.end + recordHeader, n: n, hash: e.Hash()}
	for _, p := range e.Parents {
		rec.parents = append(rec.parents, p.Hash)
	}
	l.index[rec.hash] = len(l.recs)
	l.recs = append(l.recs, rec)
	l.end += int64(recordHeader + n)
}

// append writes events; with sync they survive a power cut when it returns.
func (l *eventLog) append(events []*consensus.Event, sync bool) error {
	var buf []byte
	var sizes []int
	for _, e := range events {
		b := e.Marshal()
		buf = binary.BigEndian.AppendUint32(buf, uint32(len(b)))
		buf = binary.BigEndian.AppendUint32(buf, crc32.Checksum(b, castagnoli))
		buf = append(buf, b...)
		sizes = append(sizes, len(b))
	}
	if _, err := l.f.WriteAt(buf, l.end); err != nil {
		return fmt.Errorf("save events: %w", err)
	}
	if sync {
		if err := l.f.Sync(); err != nil {
			return fmt.Errorf("save events: %w", err)
		}
	}
	for i, e := range events {
		l.note(e, sizes[i])
	}
	return nil
}

// sync makes what was appended survive a power cut.
func (l *eventLog) sync() error {
	if err := l.f.Sync(); err != nil {
		return fmt.Errorf("save events: %w", err)
	}
	return nil
}

func (l *eventLog) close() error { return l.f.Close() }

// event is the encoding of the event of that hash, or nil.
func (l *eventLog) event(h consensus.Hash) []byte {
	i, ok := l.index[h]
	if !ok {
		return nil
	}
	b := make([]byte, l.recs[i].n)
	if _, err := l.f.ReadAt(b, l.recs[i].off); err != nil {
		return nil
	}
	return b
}

// after is what someone lacks who has the given events and all that is below
// them: encodings, parents first, up to about max bytes.
func (l *eventLog) after(known []consensus.Hash, limit int) [][]byte {
	has := make([]bool, len(l.recs))
	for _, h := range known {
		if i, ok := l.index[h]; ok {
			has[i] = true
		}
	}
	for i := len(l.recs) - 1; i >= 0; i-- {
		if !has[i] {
			continue
		}
		for _, p := range l.recs[i].parents {
			if j, ok := l.index[p]; ok {
				has[j] = true
			}
		}
	}
	var out [][]byte
	for i := range l.recs {
		if has[i] {
			continue
		}
		if limit -= l.recs[i].n; limit < 0 && len(out) > 0 {
			break
		}
		out = append(out, l.event(l.recs[i].hash))
	}
	return out
}

// locator names what this log has: its newest events and, at growing steps back,
// older ones, so that a member that lacks the newest still finds common ground.
func (l *eventLog) locator() []consensus.Hash {
	var out []consensus.Hash
	step := 1
	for i := len(l.recs) - 1; i >= 0; i -= step {
		out = append(out, l.recs[i].hash)
		if len(out) > 32 {
			step *= 2
		}
	}
	return out
}
