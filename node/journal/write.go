package journal

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Append takes entries, in ascending order of their indexes; all of one index belong
// into one call. Those of an index that is not above Last are ignored. It does not
// wait for the disk: what finds no room in memory is dropped and becomes a gap. An
// error is the caller's mistake, and nothing was taken.
func (j *Journal) Append(entries []Entry) error {
	for i := range entries {
		e := &entries[i]
		switch {
		case i > 0 && e.Index < entries[i-1].Index:
			return fmt.Errorf("append to the journal: index %d after %d: they must ascend", e.Index, entries[i-1].Index)
		case e.Kind == KindGap || e.Until != 0:
			return fmt.Errorf("append to the journal: the entry at index %d is a gap: call Gap", e.Index)
		case e.N < -1 || e.N > math.MaxInt32:
			return fmt.Errorf("append to the journal: number %d in the event at index %d", e.N, e.Index)
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return errClosed
	}
	for len(entries) > 0 {
		n := 1
		for n < len(entries) && entries[n].Index == entries[0].Index {
			n++
		}
		if !j.any || entries[0].Index > j.last {
			j.take(entries[:n])
		}
		entries = entries[n:]
	}
	j.wake()
	return nil
}

// Gap records that nothing is known of the order from one index to another, both
// included, and why. What is here already stays.
func (j *Journal) Gap(from, to uint64, why string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.any && from <= j.last {
		if j.last == math.MaxUint64 {
			return
		}
		from = j.last + 1
	}
	if j.closed || from > to {
		return
	}
	e := gapEntry(from, to, why)
	switch {
	case j.lost != nil && !j.settle(e.room()):
		j.lost.to = to
	case j.bytes+e.room() > j.cfg.Buffer:
		j.lost = &loss{from, to, why}
	default:
		j.put(&e, false, false)
	}
	j.last, j.any = to, true
	j.wake()
}

// longestWhy bounds the reason of a gap, in bytes.
const longestWhy = 1000

func gapEntry(from, to uint64, why string) Entry {
	why = strings.ToValidUTF8(why[:min(len(why), longestWhy)], "")
	return Entry{
		Index: from, Until: to, N: -1, Kind: KindGap,
		Text: fmt.Sprintf("What the order said from index %d to %d is not in this journal: %s.", from, to, why),
	}
}

// wake tells readers and the writer.
func (j *Journal) wake() {
	if j.changed != nil {
		close(j.changed)
		j.changed = nil
	}
	if j.bytes > 0 {
		poke(j.dirty)
	}
	if j.bytes > j.cfg.Buffer/8 {
		poke(j.hurry)
	}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// take takes all entries of one index, or drops them.
func (j *Journal) take(entries []Entry) {
	index := entries[0].Index
	j.last, j.any = index, true
	room, why := 0, ""
	for i := range entries {
		n := entries[i].room()
		if n > recordHead+maxBody {
			why = fmt.Sprintf("an entry has %d bytes, and at most %d are kept", n, maxBody)
		}
		room += n
	}
	switch {
	case why != "":
	case j.bytes+room > j.cfg.Buffer || j.lost != nil && !j.settle(room):
		why = "the disk did not keep up"
		if j.trouble != nil {
			why = fmt.Sprintf("it could not be written: %v", errors.Unwrap(j.trouble))
		}
	}
	if why != "" {
		j.dropped += uint64(len(entries))
		if j.lost == nil {
			j.lost = &loss{from: index, why: why}
		}
		j.lost.to = index
		return
	}
	for i := range entries {
		j.put(&entries[i], i > 0, i < len(entries)-1)
	}
}

// settle puts what was dropped on record as a gap, if there is room for that and as
// many bytes again as the caller needs.
func (j *Journal) settle(room int) bool {
	e := gapEntry(j.lost.from, j.lost.to, j.lost.why)
	if j.bytes+e.room()+room > j.cfg.Buffer {
		return false
	}
	j.put(&e, false, false)
	j.lost = nil
	return true
}

// put adds one record to what waits; middle and more say whether others of its index
// are before and after it.
func (j *Journal) put(e *Entry, middle, more bool) {
	var c *chunk
	if n := len(j.pending); n > 0 {
		c = j.pending[n-1]
	}
	if c == nil || c.sealed || len(c.data) >= blockSize {
		// After a full one there is much to come.
		var data []byte
		if c != nil && !c.sealed {
			data = make([]byte, 0, blockSize+blockSize/8)
		}
		c = &chunk{data: data, index: e.Index, middle: middle}
		j.pending = append(j.pending, c)
	}
	n := len(c.data)
	c.data = appendRecord(c.data, e, more)
	c.last = e.last()
	j.bytes += len(c.data) - n
}

// Run writes what was appended, until ctx ends. Failing to write does not end it: it
// tries again.
func (j *Journal) Run(ctx context.Context) error {
	wait := time.NewTimer(0)
	defer wait.Stop()
	for {
		select {
		case <-j.dirty:
		case <-ctx.Done():
			_ = j.flush() // Close says what is lost
			return nil
		}
		delay, hurry := j.cfg.Delay, j.hurry
		for {
			wait.Reset(delay)
			select {
			case <-wait.C:
			case <-hurry:
			case <-ctx.Done():
			}
			if j.flush() == nil || ctx.Err() != nil {
				break
			}
			delay, hurry = j.cfg.Retry, nil
		}
	}
}

// Sync writes all that was appended before it and makes it survive the death of the
// machine.
func (j *Journal) Sync() error {
	if err := j.flush(); err != nil {
		return err
	}
	j.writing.Lock()
	defer j.writing.Unlock()
	return j.sync()
}

func (j *Journal) sync() error {
	if j.f == nil {
		return nil
	}
	err := j.disk.Sync(j.f)
	if err == nil {
		err = j.disk.SyncDir(j.dir)
	}
	if err != nil {
		return fmt.Errorf("sync the journal in %s: %w", j.dir, err)
	}
	return nil
}

// Close writes everything and lets go of the files. The error says what is lost.
func (j *Journal) Close() error {
	j.mu.Lock()
	was := j.closed
	j.closed = true
	if j.changed != nil {
		close(j.changed)
		j.changed = nil
	}
	j.mu.Unlock()
	if was {
		return nil
	}
	err := j.Sync()
	j.writing.Lock()
	defer j.writing.Unlock()
	j.ended = true
	if j.f != nil {
		j.f.Close()
		j.f = nil
	}
	if err != nil {
		return fmt.Errorf("close journal: the newest entries may be lost: %w", err)
	}
	return nil
}

// flush writes what waits now.
func (j *Journal) flush() error {
	j.writing.Lock()
	defer j.writing.Unlock()
	for {
		j.mu.Lock()
		n := len(j.pending)
		j.mu.Unlock()
		for ; n > 0; n-- {
			if err := j.writeOne(); err != nil {
				return j.failed(err)
			}
		}
		if j.caughtUp() {
			return nil
		}
	}
}

// caughtUp ends a time of trouble, and is false if there is a gap to be written that
// it left.
func (j *Journal) caughtUp() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.trouble != nil {
		j.note("for a while nothing could be written: %v", errors.Unwrap(j.trouble))
		j.trouble = nil
	}
	return j.lost == nil || !j.settle(0)
}

// failed notes why nothing can be written now.
func (j *Journal) failed(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		err = fmt.Errorf("write the journal in %s: %w: make room on the disk", j.dir, err)
	} else {
		err = fmt.Errorf("write the journal in %s: %w: see to the disk", j.dir, err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.trouble = err
	return err
}

// writeOne writes the oldest chunk that waits. writing is held, and with it the last
// segment and the files do not change; mu is not, so that nobody waits for the disk.
func (j *Journal) writeOne() error {
	if j.ended {
		return errClosed
	}
	j.mu.Lock()
	c := j.pending[0]
	c.sealed = true
	data := c.data
	var s *segment
	if j.f != nil {
		s = j.segs[len(j.segs)-1]
	}
	j.mu.Unlock()
	if s != nil && !c.middle && s.size+int64(len(data)) > j.cfg.SegmentSize {
		if err := j.fill(s); err != nil {
			return err
		}
		s = nil
	}
	j.makeRoom(int64(len(data)) + segmentHead)
	begun := s == nil
	if begun {
		var err error
		if s, err = j.begin(c.index); err != nil {
			return err
		}
	}
	// What a failure leaves in the file is beyond its size, and written over later.
	if err := j.disk.Write(j.f, data, s.size); err != nil {
		if begun {
			j.f.Close()
			j.f = nil
			_ = j.disk.Remove(s.path)
		}
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if begun {
		j.segs, j.next = append(j.segs, s), s.number
	}
	s.note(s.size, len(data), c.index)
	s.size += int64(len(data))
	s.last = c.last
	j.bytes -= len(data)
	j.pending[0] = nil
	j.pending = j.pending[1:]
	return nil
}

// begin makes the next segment's file.
func (j *Journal) begin(first uint64) (*segment, error) {
	// A number is not used again: a reader may know the file that had it.
	s := &segment{number: j.next + 1, first: first, size: segmentHead}
	s.path = filepath.Join(j.dir, segmentName(s.number))
	f, err := j.disk.Create(s.path)
	if err != nil {
		return nil, err
	}
	if err := j.disk.Write(f, s.head(j.cfg.Network), 0); err != nil {
		f.Close()
		_ = j.disk.Remove(s.path)
		return nil, err
	}
	j.f = f
	return s, nil
}

// fill finishes the last segment.
func (j *Journal) fill(s *segment) error {
	if info, err := j.f.Stat(); err == nil && info.Size() > s.size { // a write had failed
		if err := j.disk.Truncate(j.f, s.size); err != nil {
			return err
		}
	}
	if err := j.sync(); err != nil {
		// The kernel may have dropped what it could not write, and to ask again would
		// not tell. A reader finds out.
		j.mu.Lock()
		j.note("%s: %v: entries of it may be lacking after a power cut", s.path, err)
		j.mu.Unlock()
	}
	_ = j.disk.PlaceUnsynced(s.indexPath(), s.marshalIndex())
	j.f.Close()
	j.f = nil
	j.mu.Lock()
	defer j.mu.Unlock()
	s.full, s.blocks = true, nil
	return nil
}

// makeRoom removes the oldest segments so that n bytes more are within the limit. The
// one being written stays.
func (j *Journal) makeRoom(n int64) {
	if j.cfg.MaxBytes == 0 {
		return
	}
	j.mu.Lock()
	var total int64
	for _, s := range j.segs {
		total += s.bytes()
	}
	var gone []*segment
	for len(j.segs) > 0 && j.segs[0].full && total+n > j.cfg.MaxBytes {
		total -= j.segs[0].bytes()
		delete(j.damaged, j.segs[0].number)
		gone = append(gone, j.segs[0])
		j.segs = j.segs[1:]
	}
	j.mu.Unlock()
	for _, s := range gone {
		if err := j.removeSegment(s); err != nil && !errors.Is(err, os.ErrNotExist) {
			j.mu.Lock()
			j.note("remove an old segment: %v", err)
			j.mu.Unlock()
		}
	}
}
