package merkle

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"iter"
	"slices"
	"strings"
)

const (
	// MaxKey bounds a key, in bytes; a key has at least one.
	MaxKey = 255
	// MaxValue bounds an encoded value, in bytes.
	MaxValue = 120 << 10
	// MaxBlock bounds a block, in bytes: a leaf full of the largest keys and values,
	// and still below the 2 MiB that Bitswap carries.
	MaxBlock = leafSize*(MaxValue+MaxKey+8) + 64

	leafSize = 16              // the most entries of a leaf
	fanout   = 16              // one child for each nibble
	maxPath  = 2 * sha256.Size // nibbles of a hash: no node is deeper
)

// Map is an immutable map from keys to values; the zero value is empty. Values are
// shared between maps: whoever changes what a value points to changes the past.
type Map[V any] struct{ top *node[V] }

// node is a leaf or, when it has kids, an inner node. It never changes once it is in a
// map, but that seal gives it its block.
type node[V any] struct {
	n       int // entries here and below
	kids    *[fanout]*node[V]
	entries []entry[V] // of a leaf, by key
	sealed  *sealed    // apart: most nodes are replaced before anyone asks for a root
}

type sealed struct {
	sum   [sha256.Size]byte
	block []byte
}

// inner is an inner node and its children in one allocation.
type inner[V any] struct {
	node[V]
	array [fanout]*node[V]
}

type entry[V any] struct {
	hash  uint64 // the first 8 bytes of the path
	key   string
	value V
}

// path is where a key belongs: its SHA-256.
type path [sha256.Size]byte

func pathOf(key string) path { return sha256.Sum256([]byte(key)) }

func (p *path) nibble(depth int) int { return int(p[depth/2]>>(4*(1-depth&1))) & 15 }

func (p *path) prefix() uint64 { return binary.BigEndian.Uint64(p[:8]) }

// nibble is the entry's own, for which the kept start of its path suffices but in a trie
// that someone has spent 2^64 hashes on.
func (e *entry[V]) nibble(depth int) int {
	if depth < 16 {
		return int(e.hash>>(60-4*depth)) & 15
	}
	p := pathOf(e.key)
	return p.nibble(depth)
}

func newInner[V any](n int) *node[V] {
	x := &inner[V]{node: node[V]{n: n}}
	x.kids = &x.array
	return &x.node
}

func newLeaf[V any](entries []entry[V]) *node[V] {
	return &node[V]{n: len(entries), entries: entries}
}

// CheckKey says why a key cannot be one.
func CheckKey(key string) error {
	if len(key) == 0 || len(key) > MaxKey {
		return fmt.Errorf("a key of %d bytes: it needs 1 to %d", len(key), MaxKey)
	}
	return nil
}

// Len is the number of entries.
func (m Map[V]) Len() int {
	if m.top == nil {
		return 0
	}
	return m.top.n
}

// Get is the value of key, and whether there is one.
func (m Map[V]) Get(key string) (v V, found bool) {
	p := pathOf(key)
	return m.top.get(&p, key)
}

func (n *node[V]) get(p *path, key string) (v V, found bool) {
	for depth := 0; n != nil && n.kids != nil; depth++ {
		n = n.kids[p.nibble(depth)]
	}
	if n == nil {
		return v, false
	}
	if i := n.find(p.prefix(), key); i >= 0 {
		return n.entries[i].value, true
	}
	return v, false
}

// find is the place of key among a leaf's entries, or -1. The hash comes first: it is at
// hand, and keys are somewhere else in memory.
func (n *node[V]) find(hash uint64, key string) int {
	for i := range n.entries {
		if e := &n.entries[i]; e.hash == hash && e.key == key {
			return i
		}
	}
	return -1
}

// Set is m with key set to v. It panics on a key that CheckKey refuses, which is for
// the caller to have asked.
func (m Map[V]) Set(key string, v V) Map[V] {
	if err := CheckKey(key); err != nil {
		panic("merkle: " + err.Error())
	}
	p := pathOf(key)
	e := entry[V]{hash: p.prefix(), key: key, value: v}
	if m.top == nil {
		return Map[V]{newLeaf([]entry[V]{e})}
	}
	return Map[V]{m.top.set(&p, 0, &e)}
}

func (n *node[V]) set(p *path, depth int, e *entry[V]) *node[V] {
	if n.kids == nil {
		return n.setHere(depth, e)
	}
	i := p.nibble(depth)
	x := newInner[V](n.n)
	*x.kids = *n.kids
	if old := n.kids[i]; old != nil {
		kid := old.set(p, depth+1, e)
		x.kids[i] = kid
		x.n += kid.n - old.n
	} else {
		x.kids[i] = newLeaf([]entry[V]{*e})
		x.n++
	}
	return x
}

// setHere sets in a leaf, which may grow too large for one.
func (n *node[V]) setHere(depth int, e *entry[V]) *node[V] {
	if i := n.find(e.hash, e.key); i >= 0 {
		entries := slices.Clone(n.entries)
		entries[i] = *e
		return newLeaf(entries)
	}
	i := 0
	for i < len(n.entries) && n.entries[i].key < e.key {
		i++
	}
	entries := make([]entry[V], len(n.entries)+1)
	copy(entries, n.entries[:i])
	entries[i] = *e
	copy(entries[i+1:], n.entries[i:])
	return grow(entries, depth)
}

// grow is the subtree of these entries, which are sorted by key.
func grow[V any](entries []entry[V], depth int) *node[V] {
	if len(entries) <= leafSize {
		return newLeaf(entries)
	}
	if depth >= maxPath {
		panic("merkle: 17 keys with one SHA-256")
	}
	var parts [fanout][]entry[V]
	for _, e := range entries {
		i := e.nibble(depth)
		parts[i] = append(parts[i], e)
	}
	x := newInner[V](len(entries))
	for i := range parts {
		if len(parts[i]) > 0 {
			x.kids[i] = grow(slices.Clip(parts[i]), depth+1)
		}
	}
	return x
}

// Delete is m without key; m itself if it has no such key.
func (m Map[V]) Delete(key string) Map[V] {
	p := pathOf(key)
	if _, found := m.top.get(&p, key); !found {
		return m
	}
	return Map[V]{m.top.without(&p, 0, key)}
}

// without is the subtree without key, which it holds; nil if it was the last.
func (n *node[V]) without(p *path, depth int, key string) *node[V] {
	if n.n == 1 {
		return nil
	}
	if n.kids == nil || n.n-1 <= leafSize {
		entries := make([]entry[V], 0, n.n-1)
		n.walk(func(e *entry[V]) bool {
			if e.key != key {
				entries = append(entries, *e)
			}
			return true
		})
		slices.SortFunc(entries, func(a, b entry[V]) int { return strings.Compare(a.key, b.key) })
		return newLeaf(entries)
	}
	i := p.nibble(depth)
	x := newInner[V](n.n - 1)
	*x.kids = *n.kids
	x.kids[i] = n.kids[i].without(p, depth+1, key)
	return x
}

// All is every entry in the order of the keys' hashes: the same for equal maps, and of
// two entries always the same one first.
func (m Map[V]) All() iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		if m.top != nil {
			m.top.walk(func(e *entry[V]) bool { return yield(e.key, e.value) })
		}
	}
}

func (n *node[V]) walk(visit func(*entry[V]) bool) bool {
	if n.kids != nil {
		for _, kid := range n.kids {
			if kid != nil && !kid.walk(visit) {
				return false
			}
		}
		return true
	}
	var array [leafSize]*entry[V]
	order := array[:len(n.entries)]
	for i := range n.entries {
		order[i] = &n.entries[i]
	}
	if len(order) > 1 {
		slices.SortFunc(order, byHash)
	}
	for _, e := range order {
		if !visit(e) {
			return false
		}
	}
	return true
}

func byHash[V any](a, b *entry[V]) int {
	if a.hash != b.hash {
		return cmp.Compare(a.hash, b.hash)
	}
	p, q := pathOf(a.key), pathOf(b.key)
	return bytes.Compare(p[:], q[:])
}
