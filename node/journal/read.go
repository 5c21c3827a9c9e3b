package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"slices"
	"sort"
)

// Read gives the entries that are wanted from an index on, in order, as they are when
// the loop begins; also those that are not on the disk yet. A gap is given if it
// reaches the index. Damage is passed over and noted; an error ends the reading.
func (j *Journal) Read(from uint64, want Filter) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		segs, mem := j.snapshot(from)
		r := reader{j: j}
		defer r.close()
		give := func(v *view) bool {
			return v.last() < from || !want.fits(v) || yield(v.entry(), nil)
		}
		for _, s := range segs {
			if err := r.open(s); err != nil {
				yield(Entry{}, err)
				return
			}
			for i := startAt(r.blocks, from); i < len(r.blocks); i++ {
				if !r.records(i, give) {
					return
				}
			}
		}
		for _, data := range mem {
			if _, ended, _ := walk(data, give); ended { // ours, from memory: whole
				return
			}
		}
	}
}

// At gives all entries of one index, and the gap that it lies in.
func (j *Journal) At(index uint64) ([]Entry, error) {
	var out []Entry
	for e, err := range j.Read(index, Filter{}) {
		switch {
		case err != nil:
			return out, err
		case e.Index > index:
			return out, nil
		}
		out = append(out, e)
	}
	return out, nil
}

// Latest gives the newest n entries that are wanted, gaps included, the oldest of them
// first. It reads backwards and no further than it needs; n bounds its memory.
func (j *Journal) Latest(n int, want Filter) ([]Entry, error) {
	segs, mem := j.snapshot(0)
	l := latest{n: n, want: want}
	for _, data := range slices.Backward(mem) {
		if l.n <= 0 {
			break
		}
		l.take(data)
	}
	r := reader{j: j}
	defer r.close()
	for _, s := range slices.Backward(segs) {
		if l.n <= 0 {
			break
		}
		if err := r.open(s); err != nil {
			return nil, err
		}
		for i := len(r.blocks) - 1; i >= 0 && l.n > 0; i-- {
			data, err := r.load(i)
			at := 0
			if err == nil {
				at, err = l.take(data)
			}
			if err != nil {
				j.damage(s, r.blocks[i].off+int64(at), err)
			}
		}
	}
	slices.Reverse(l.found)
	return l.found, nil
}

// latest collects entries from the newest to the oldest.
type latest struct {
	n     int // still wanted
	want  Filter
	found []Entry
	at    []span // of the wanted ones in a block, reused
}

func (l *latest) take(data []byte) (int, error) {
	l.at = l.at[:0]
	n, _, err := walk(data, func(v *view) bool {
		if l.want.fits(v) {
			l.at = append(l.at, span{v.at, v.at + len(v.body)})
		}
		return true
	})
	for _, s := range slices.Backward(l.at) {
		if l.n == 0 {
			break
		}
		var v view
		if v.parse(data[s.from:s.to]) == nil { // it was parsed before
			l.found = append(l.found, v.entry())
			l.n--
		}
	}
	return n, err
}

// snapshot is what there is now from an index on: segments, and records in memory.
func (j *Journal) snapshot(from uint64) ([]*segment, [][]byte) {
	j.mu.Lock()
	defer j.mu.Unlock()
	i := sort.Search(len(j.segs), func(i int) bool { return j.segs[i].first > from })
	segs := slices.Clone(j.segs[max(i-1, 0):])
	if n := len(segs); n > 0 && !segs[n-1].full {
		s := *segs[n-1] // it goes on growing
		segs[n-1] = &s
	}
	i = sort.Search(len(j.pending), func(i int) bool { return j.pending[i].index >= from })
	var mem [][]byte
	for _, c := range j.pending[max(i-1, 0):] {
		mem = append(mem, c.data)
	}
	return segs, mem
}

// startAt is the block at which reading from an index on begins. The block before the
// first one that begins with the index may end with it.
func startAt(blocks []block, from uint64) int {
	return max(0, sort.Search(len(blocks), func(i int) bool { return blocks[i].index >= from })-1)
}

// reader reads segments block by block.
type reader struct {
	j      *Journal
	f      *os.File
	s      *segment
	blocks []block
	end    int64
	buf    []byte
}

func (r *reader) close() {
	if r.f != nil {
		r.f.Close()
	}
	r.f, r.blocks = nil, nil
}

// open turns to a segment. One that was removed meanwhile, as the oldest are, has no
// blocks.
func (r *reader) open(s *segment) error {
	r.close()
	f, err := os.Open(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read journal: %w", err)
	}
	r.f, r.s, r.blocks, r.end = f, s, s.blocks, s.size
	if !s.full {
		return nil
	}
	own := *s // as others may read it too
	_, err = own.readIndex(f)
	var bad *damageError
	switch {
	case errors.As(err, &bad):
		r.j.damage(s, own.size, err)
	case err != nil:
		return fmt.Errorf("read journal: %w", err)
	}
	r.blocks, r.end = own.blocks, own.size
	return nil
}

// load reads a block; the bytes hold until the next one.
func (r *reader) load(i int) ([]byte, error) {
	off, end := r.blocks[i].off, r.end
	if i+1 < len(r.blocks) {
		end = r.blocks[i+1].off
	}
	n := end - off
	if n > blockSize+recordHead+maxBody {
		return nil, errWrong
	}
	r.buf = slices.Grow(r.buf[:0], int(n))[:n]
	if _, err := r.f.ReadAt(r.buf, off); err != nil {
		return nil, err
	}
	return r.buf, nil
}

// records gives the records of a block, and is false when the caller has enough.
func (r *reader) records(i int, give func(*view) bool) bool {
	data, err := r.load(i)
	at, ended := 0, false
	if err == nil {
		at, ended, err = walk(data, give)
	}
	if err != nil {
		r.j.damage(r.s, r.blocks[i].off+int64(at), err)
	}
	return !ended
}

// walk gives the records that data is made of, until one is damaged or give is false:
// ended. The result is where it came to.
func walk(data []byte, give func(*view) bool) (at int, ended bool, err error) {
	var v view
	for at < len(data) {
		n, err := v.cutRecord(data[at:])
		if err != nil {
			return at, false, err
		}
		v.at = at + recordHead
		if !give(&v) {
			return at, true, nil
		}
		at += n
	}
	return at, false, nil
}
