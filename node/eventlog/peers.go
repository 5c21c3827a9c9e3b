package eventlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"

	"github.com/dcnode/dcnode/consensus"
)

// Next is the position that the next event gets.
func (l *Log) Next() Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last().next()
}

// Has reports whether an event is in the index.
func (l *Log) Has(h consensus.Hash) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.win.find(h) != nil
}

// Forget drops the events born before a round from the index. They stay on disk.
// Calls with a round that is not higher than before do nothing.
func (l *Log) Forget(minBirth uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.win.forget(minBirth)
}

// Indexed is how many events the index has.
func (l *Log) Indexed() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.win.index)
}

// Event is the encoding of an event, or nil if it is not in the index.
func (l *Log) Event(h consensus.Hash) ([]byte, error) {
	l.mu.Lock()
	x := l.win.find(h)
	if x == nil {
		l.mu.Unlock()
		return nil, nil
	}
	seg, off, n, f := x.seg, x.off, x.n, l.f
	here := seg == l.last()
	l.mu.Unlock()
	if here {
		if raw, err := readAt(f, seg, off, n); !errors.Is(err, os.ErrClosed) {
			return raw, err
		}
	}
	return seg.event(off, n)
}

// event reads the event whose record of n bytes is at off.
func (s *segment) event(off int64, n int) ([]byte, error) {
	f, err := os.Open(s.path)
	if err != nil {
		return nil, fmt.Errorf("read event log: %w", err)
	}
	defer f.Close()
	return readAt(f, s, off, n)
}

func readAt(f *os.File, s *segment, off int64, n int) ([]byte, error) {
	rec, err := readRecord(io.NewSectionReader(f, off, int64(recordHead+n)), nil, s.salt, off, int64(recordHead+n))
	if errors.Is(err, errShort) || errors.Is(err, errWrong) {
		err = &DamageError{File: s.path, Byte: off, What: err.Error(), Remedy: restore}
	}
	if err != nil {
		return nil, fmt.Errorf("read an event: %w", err)
	}
	return rec.body, nil
}

// Last is a member's last event in the log, the one with the highest number, whatever
// its age; or nil. A member's own is what it builds on, even if the checkpoint has left
// it behind: one of a lower number, written later, must not take its place.
func (l *Log) Last(creator uint64) (*consensus.Event, error) {
	l.mu.Lock()
	segs := l.hist.segs
	var from *segment
	var at last
	for _, s := range segs {
		i, ok := slices.BinarySearchFunc(s.lasts, creator, byCreator)
		if ok && (from == nil || s.lasts[i].seq >= at.seq) {
			from, at = s, s.lasts[i]
		}
	}
	l.mu.Unlock()
	if from == nil {
		return nil, nil
	}
	for r, err := range records([]stretch{{path: from.path, salt: from.salt, off: at.off, end: maxSegment}}) {
		return r.Event, err
	}
	return nil, nil
}

// Locator names what is in the index, for someone else's Since: the newest events
// one by one, and older ones at growing steps.
func (l *Log) Locator() []consensus.Hash {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.win.locator()
}

// between gives the events from one position up to another.
func (l *Log) between(from, to Position) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		l.mu.Lock()
		parts := l.hist.at(from)
		l.mu.Unlock()
		for r, err := range records(parts) {
			if err == nil && (r.Event == nil || r.Position < from) {
				continue
			}
			if r.Position >= to || !yield(r, err) {
				return
			}
		}
	}
}

// From gives all events born in a round or later that were in the log when the
// loop over them began, in the order in which they were written.
func (l *Log) From(birth uint64) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		l.mu.Lock()
		parts := l.hist.born(birth)
		l.mu.Unlock()
		for r, err := range records(parts) {
			if err == nil && (r.Event == nil || r.Event.BirthRound < birth) {
				continue
			}
			if !yield(r, err) {
				return
			}
		}
	}
}

// Query is what another member asks for.
type Query struct {
	Birth uint64           // only events born in this round or later
	From  Position         // Next of the answer before; 0 in the first question
	Known []consensus.Hash // it has these and all that is below them
	Limit int              // bytes of the answer, about; one event is given in any case
}

// Answer is what there is of it.
type Answer struct {
	Events [][]byte // encodings, parents first
	Next   Position // where to go on
	More   bool     // there may be more from Next on
}

// maxLook bounds the bytes that are read for one Query.
const maxLook = 8 << 20

// Since gives the events that someone lacks. What it has is only known for events
// in the index: older ones are all given. Any position will do.
func (l *Log) Since(q Query) (Answer, error) {
	l.mu.Lock()
	base, end := l.win.base, l.win.next()
	old := l.hist.born(q.Birth)
	if len(old) > 0 && q.From > old[0].pos {
		old = l.hist.at(q.From)
	}
	if len(old) > 0 && old[0].pos >= base {
		old = nil
	}
	lacks := l.lacking(q)
	l.mu.Unlock()

	a := Answer{Next: q.From}
	looked := 0
	for r, err := range records(old) {
		if err != nil {
			return a, err
		}
		if r.Position >= base {
			break
		}
		if r.Event == nil || r.Position < q.From {
			continue
		}
		looked += len(r.raw)
		if r.Event.BirthRound >= q.Birth {
			if q.Limit -= len(r.raw); q.Limit < 0 && len(a.Events) > 0 || looked > maxLook {
				a.Next, a.More = r.Position, true
				return a, nil
			}
			a.Events = append(a.Events, bytes.Clone(r.raw))
		}
		a.Next = r.Position + 1
	}
	var in *segment
	var f *os.File
	defer func() { f.Close() }() // of nil, too
	for _, x := range lacks {
		if q.Limit -= x.n; q.Limit < 0 && len(a.Events) > 0 {
			a.Next, a.More = x.pos, true
			return a, nil
		}
		if x.seg != in {
			f.Close()
			var err error
			if f, err = os.Open(x.seg.path); err != nil {
				return a, fmt.Errorf("read event log: %w", err)
			}
			in = x.seg
		}
		raw, err := readAt(f, x.seg, x.off, x.n)
		if err != nil {
			return a, err
		}
		a.Events = append(a.Events, raw)
	}
	a.Next = max(a.Next, end)
	return a, nil
}

// lack is an event of the window that someone lacks.
type lack struct {
	pos Position
	seg *segment
	off int64
	n   int
}

// lacking is what the asker lacks of the window, from its position on, as much as
// fits into the answer and one event more.
func (l *Log) lacking(q Query) []lack {
	has := l.win.below(q.Known)
	var out []lack
	room := q.Limit
	for i := range l.win.recs {
		x := &l.win.recs[i]
		pos := l.win.base + Position(i)
		if has[i] || pos < q.From || x.birth < q.Birth {
			continue
		}
		out = append(out, lack{pos, x.seg, x.off, x.n})
		if room -= x.n; room < 0 && len(out) > 1 {
			break
		}
	}
	return out
}
