package eventlog

import (
	"slices"

	"github.com/dcnode/dcnode/consensus"
)

// window is the index of the newest events, by hash. Positions in it are
// contiguous; those that are forgotten leave when nothing before them is left.
type window struct {
	base  Position
	recs  []entry
	index map[consensus.Hash]Position
	low   uint64 // events born before this round are forgotten
}

// entry is where an event is.
type entry struct {
	hash    consensus.Hash
	seg     *segment
	off     int64 // of the record
	n       int   // bytes of the event
	birth   uint64
	parents []Position // those that are in the window
	gone    bool
}

func (w *window) next() Position { return w.base + Position(len(w.recs)) }

// at is the entry of a position in the window.
func (w *window) at(p Position) *entry { return &w.recs[p-w.base] }

func (w *window) find(h consensus.Hash) *entry {
	if p, ok := w.index[h]; ok {
		return w.at(p)
	}
	return nil
}

// add takes in the event that was written last.
func (w *window) add(s *segment, off int64, n int, e *consensus.Event, h consensus.Hash) {
	x := entry{hash: h, seg: s, off: off, n: n, birth: e.BirthRound, gone: e.BirthRound < w.low}
	for i := range e.Parents {
		if p, ok := w.index[e.Parents[i].Hash]; ok {
			x.parents = append(x.parents, p)
		}
	}
	if !x.gone {
		w.index[h] = w.next()
	}
	w.recs = append(w.recs, x)
}

// forget drops the events born before a round.
func (w *window) forget(birth uint64) {
	if birth <= w.low {
		return
	}
	w.low = birth
	for i := range w.recs {
		if x := &w.recs[i]; !x.gone && x.birth < birth {
			x.gone, x.parents = true, nil
			delete(w.index, x.hash)
		}
	}
	n := slices.IndexFunc(w.recs, func(x entry) bool { return !x.gone })
	if n < 0 {
		n = len(w.recs)
	}
	if n > len(w.recs)/4 {
		w.recs = slices.Clone(w.recs[n:])
		w.base += Position(n)
	}
}

// below marks the events of the window that are the known ones or below them.
func (w *window) below(known []consensus.Hash) []bool {
	has := make([]bool, len(w.recs))
	for _, h := range known {
		if p, ok := w.index[h]; ok {
			has[p-w.base] = true
		}
	}
	for i := len(w.recs) - 1; i >= 0; i-- {
		if !has[i] {
			continue
		}
		for _, p := range w.recs[i].parents {
			if p >= w.base {
				has[p-w.base] = true
			}
		}
	}
	return has
}

// locator names the newest events one by one, and older ones at growing steps.
func (w *window) locator() []consensus.Hash {
	var out []consensus.Hash
	step := 1
	for i := len(w.recs) - 1; i >= 0; i -= step {
		if w.recs[i].gone {
			continue
		}
		out = append(out, w.recs[i].hash)
		if len(out) > 32 {
			step *= 2
		}
	}
	return out
}
