package ramstream

import "bytes"

// window remembers the last literal pages, numbered from 0. The encoder also keeps
// where each digest is; the decoder leaves that map nil.
type window struct {
	pages []byte // size pages, number n at n % size
	keys  []uint64
	where map[uint64]int64
	size  int64
	next  int64 // number of the next literal
}

func newWindow(size int64, searchable bool) *window {
	w := &window{size: size}
	if searchable && size > 0 {
		w.keys, w.where = make([]uint64, size), make(map[uint64]int64)
	}
	return w
}

// page is literal n; the caller has checked that it is still held.
func (w *window) page(n int64) []byte {
	i := n % w.size * PageSize
	return w.pages[i : i+PageSize]
}

func (w *window) holds(n int64) bool { return n >= 0 && n < w.next && w.next-n <= w.size }

// find returns the number of a literal that equals page.
func (w *window) find(key uint64, page []byte) (int64, bool) {
	n, ok := w.where[key]
	if !ok || !bytes.Equal(w.page(n), page) {
		return 0, false
	}
	return n, true
}

func (w *window) add(key uint64, page []byte) {
	if w.size > 0 {
		w.keep(key, page)
	}
	w.next++
}

func (w *window) keep(key uint64, page []byte) {
	if w.next < w.size {
		w.pages = append(w.pages, page...)
	} else {
		if w.where != nil {
			if old := w.keys[w.next%w.size]; w.where[old] == w.next-w.size {
				delete(w.where, old)
			}
		}
		copy(w.page(w.next), page)
	}
	if w.where != nil {
		w.keys[w.next%w.size] = key
		w.where[key] = w.next
	}
}
