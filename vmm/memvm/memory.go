package memvm

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math/bits"
)

// digest is a set hash of all pages: the sum, in four lanes modulo 2^64, of
// SHA-256(index, content) over the pages that are not zero. A write changes it in
// constant time. It guards against faults, not against forgers.
type digest [4]uint64

func (d *digest) add(o digest) {
	for i := range d {
		d[i] += o[i]
	}
}

func (d *digest) sub(o digest) {
	for i := range d {
		d[i] -= o[i]
	}
}

func (d digest) bytes() []byte {
	b := make([]byte, 0, 32)
	for _, v := range d {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return b
}

func (d digest) String() string { return hex.EncodeToString(d.bytes()) }

func pageDigest(i int64, p []byte) (d digest) {
	if isZero(p) {
		return d
	}
	var b [8 + pageSize]byte
	binary.BigEndian.PutUint64(b[:], uint64(i))
	copy(b[8:], p)
	s := sha256.Sum256(b[:])
	for k := range d {
		d[k] = binary.BigEndian.Uint64(s[8*k:])
	}
	return d
}

func isZero(p []byte) bool {
	for len(p) >= 8 {
		if binary.LittleEndian.Uint64(p) != 0 {
			return false
		}
		p = p[8:]
	}
	for _, v := range p {
		if v != 0 {
			return false
		}
	}
	return true
}

// memory is the pages of one machine with their digest. Its owner locks it.
type memory struct {
	bytes []byte
	each  []digest // of each page
	sum   digest
	dirty bitmap // nil when nobody asks
	seen  bitmap // the same for who measures the rate
}

func newMemory(size int64) *memory {
	return &memory{bytes: make([]byte, size), each: make([]digest, size/pageSize)}
}

func (m *memory) pages() int64 { return int64(len(m.each)) }

func (m *memory) page(i int64) []byte { return m.bytes[i*pageSize : (i+1)*pageSize] }

func (m *memory) put(i int64, p []byte) {
	copy(m.page(i), p)
	m.sum.sub(m.each[i])
	m.each[i] = pageDigest(i, p)
	m.sum.add(m.each[i])
	if m.dirty != nil {
		m.dirty.set(i)
	}
	if m.seen != nil {
		m.seen.set(i)
	}
}

// bitmap marks pages or blocks.
type bitmap []uint64

func newBitmap(n int64) bitmap { return make(bitmap, (n+63)/64) }

func (b bitmap) set(i int64)      { b[i/64] |= 1 << (i % 64) }
func (b bitmap) unset(i int64)    { b[i/64] &^= 1 << (i % 64) }
func (b bitmap) has(i int64) bool { return b[i/64]>>(i%64)&1 == 1 }

func (b bitmap) count() (n int64) {
	for _, w := range b {
		n += int64(bits.OnesCount64(w))
	}
	return n
}

// next is the first marked index from i on, or -1.
func (b bitmap) next(i int64) int64 {
	for w := i / 64; w < int64(len(b)); w++ {
		v := b[w]
		if w == i/64 {
			v &= ^uint64(0) << (i % 64)
		}
		if v != 0 {
			return w*64 + int64(bits.TrailingZeros64(v))
		}
	}
	return -1
}
