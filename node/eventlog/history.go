package eventlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"

	"github.com/dcnode/dcnode/consensus"
)

// Position is the number of an event in the log: the first that was ever written
// is 0. Events keep their positions.
type Position uint64

// Record is an event of the log, or the place at which this member took over a
// checkpoint of others because it was too far behind: what lies between the event
// before and the one after was never here.
type Record struct {
	Position Position         // of the event; of the next one for an adoption
	Event    *consensus.Event // nil for an adoption
	Adopted  *Adoption        // nil for an event
	raw      []byte
}

// Raw is the event's encoding. It holds until the next record is read.
func (r *Record) Raw() []byte { return r.raw }

// Adoption names a checkpoint that came from other members.
type Adoption struct{ Round, MinBirth uint64 }

// history is the segments of a log, as far as they are whole.
type history struct {
	segs   []*segment
	now    string // boot id of this machine
	boot   string // of the run that wrote last
	closed bool   // that run ended well
	torn   string // what was left out at the very end; empty: nothing
	lossy  bool   // what was left out may have been more than a write that did not finish
}

// load reads the segments of a folder. Finished ones are read from their
// summaries; resummarize is called for each whose summary was lost. visit is told
// of each event that was read on the way, which includes all of the last segment
// and all of any segment that holds an event born in round birth or later.
func load(dir, boot string, birth uint64, resummarize func(*segment), visit func(*segment, *record, *consensus.Event)) (*history, error) {
	h := &history{now: boot}
	var err error
	if h.segs, err = listSegments(dir); err != nil {
		return nil, err
	}
	for i, s := range h.segs {
		if i > 0 && s.first != h.segs[i-1].next() {
			return nil, &DamageError{File: s.path, What: fmt.Sprintf("it begins with event %d, but the file before it ends before event %d", s.first, h.segs[i-1].next()), Remedy: restore}
		}
		end := i == len(h.segs)-1
		had := !end && s.readSummary() == nil
		if !had || s.maxBirth >= birth {
			if err := h.scan(s, end, visit); err != nil {
				return nil, err
			}
		}
		if !end && !had {
			resummarize(s)
		}
		if !end {
			s.blocks = nil
		}
	}
	return h, nil
}

// scan reads all of a segment and makes its summary. If it is the last one, it may
// end in the middle of a record.
func (h *history) scan(s *segment, end bool, visit func(*segment, *record, *consensus.Event)) error {
	st, err := os.Stat(s.path)
	if err != nil {
		return fmt.Errorf("read event log: %w", err)
	}
	s.summary, s.size = summary{}, segmentHead
	all := s.whole()
	all.end = st.Size()
	c, err := all.open()
	if err != nil {
		return err
	}
	defer c.close()
	for {
		rec, err := c.next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, errShort), errors.Is(err, errWrong):
			return h.judge(s, end, st.Size(), err)
		case err != nil:
			return fmt.Errorf("read event log %s: %w", s.path, err)
		}
		h.closed = rec.kind == kindClosed
		switch rec.kind {
		case kindRun:
			h.boot = string(rec.body)
		case kindEvent:
			e, err := consensus.Unmarshal(rec.body)
			if err != nil {
				return &DamageError{File: s.path, Byte: rec.off, What: "a whole record holds no event: " + err.Error(), Remedy: restore}
			}
			visit(s, &rec, e)
			s.note(e, rec.off)
		}
		s.size = rec.end()
	}
}

// judge decides what a record that is not whole means: the end of the log, where
// a crash cut it off, or damage.
//
// Records that a crash took must be at the very end of the last file. After a
// power cut whole records may follow them, because the disk writes in any order;
// but none of those can have known that what is lacking was on the disk.
func (h *history) judge(s *segment, end bool, size int64, cause error) error {
	damage := &DamageError{File: s.path, Byte: s.size, What: cause.Error(), Remedy: restore}
	if !end {
		damage.What += ", and there are files after this one"
		return damage
	}
	place, synced, err := s.wholeAfter(s.size, size)
	if err != nil {
		return err
	}
	if place >= 0 && synced > s.size {
		damage.What += fmt.Sprintf(", and whole ones follow from byte %d on which say that it was safe on the disk", place)
		return damage
	}
	if place >= 0 && h.boot == h.now && h.now != unknown {
		damage.What += fmt.Sprintf(", and whole ones follow from byte %d on although the machine has not been down since", place)
		return damage
	}
	h.torn = fmt.Sprintf("%s: left out its last %d bytes: %v", s.path, size-s.size, cause)
	h.closed = false
	h.lossy = place >= 0 || !errors.Is(cause, errShort)
	return nil
}

// at is the stretches that hold the events from a position on.
func (h *history) at(pos Position) []stretch {
	return h.cut(func(s *segment) bool { return s.next() > pos }, func(b, next *block) bool { return next == nil || next.pos > pos })
}

// born is the stretches that hold all events born in a round or later, and some
// that were born before.
func (h *history) born(birth uint64) []stretch {
	return h.cut(func(s *segment) bool { return s.maxBirth >= birth }, func(b, _ *block) bool { return b.maxBirth >= birth })
}

// cut is what there is from the first segment and the first block in it that are wanted.
func (h *history) cut(want func(*segment) bool, in func(b, next *block) bool) []stretch {
	i := slices.IndexFunc(h.segs, func(s *segment) bool { return s.count > 0 && want(s) })
	if i < 0 {
		return nil
	}
	var out []stretch
	for _, s := range h.segs[i:] {
		out = append(out, s.whole())
	}
	blocks := h.segs[i].blocksOf()
	for k := range blocks {
		var next *block
		if k+1 < len(blocks) {
			next = &blocks[k+1]
		}
		if in(&blocks[k], next) {
			out[0].off, out[0].pos = blocks[k].off, blocks[k].pos
			break
		}
	}
	return out
}

// records reads stretches.
func records(parts []stretch) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		for _, p := range parts {
			if !p.records(yield) {
				return
			}
		}
	}
}

// records reads one stretch and says whether to go on.
func (p stretch) records(yield func(Record, error) bool) bool {
	c, err := p.open()
	if err != nil {
		return yield(Record{}, err) && false
	}
	defer c.close()
	pos := p.pos
	for {
		off := c.off
		rec, err := c.next()
		switch {
		case errors.Is(err, io.EOF):
			return true
		case errors.Is(err, errShort), errors.Is(err, errWrong):
			err = &DamageError{File: p.path, Byte: off, What: err.Error(), Remedy: restore}
		}
		out := Record{Position: pos}
		if err == nil {
			switch rec.kind {
			case kindEvent:
				out.raw = rec.body
				out.Event, err = consensus.Unmarshal(rec.body)
				pos++
			case kindAdopt:
				if out.Adopted, err = readAdoption(rec.body); err != nil {
					err = &DamageError{File: p.path, Byte: off, What: "a whole record holds no adoption", Remedy: restore}
				}
			default:
				continue
			}
		}
		if err != nil {
			return yield(Record{}, fmt.Errorf("read event log: %w", err)) && false
		}
		if !yield(out, nil) {
			return false
		}
	}
}

func readAdoption(b []byte) (*Adoption, error) {
	if len(b) != 16 {
		return nil, errWrong
	}
	return &Adoption{Round: binary.BigEndian.Uint64(b), MinBirth: binary.BigEndian.Uint64(b[8:])}, nil
}
