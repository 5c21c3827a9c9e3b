package merkle

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"reflect"

	"github.com/ipfs/go-cid"
)

// Load reads the map that has this root; get finds blocks by CID. Whatever it returns
// was checked: each block against its CID, the shape (a map with the same content and
// another shape does not exist), the order, the values' encoding and all bounds. It
// costs no more than the blocks under root have bytes. The Map keeps the slices that
// get returned: they must not be changed.
func Load[V any](root cid.Cid, get func(cid.Cid) ([]byte, bool)) (Map[V], error) {
	sum, err := sumOf(root)
	if err != nil {
		return Map[V]{}, fmt.Errorf("load: %w", err)
	}
	l := loader[V]{get: get, values: NewDecoder(reflect.TypeFor[V]())}
	top, err := l.node(sum, 0)
	if err != nil {
		return Map[V]{}, fmt.Errorf("load: %w", err)
	}
	if top.n == 0 {
		return Map[V]{}, nil
	}
	return Map[V]{top}, nil
}

type loader[V any] struct {
	get    func(cid.Cid) ([]byte, bool)
	values Decoder
	at     path // the nibbles down to the node being read
}

func (l *loader[V]) node(sum [sha256.Size]byte, depth int) (*node[V], error) {
	c := cidOf(sum)
	block, found := l.get(c)
	if !found {
		return nil, fmt.Errorf("block %s is missing: fetch it and load again", c)
	}
	if sha256.Sum256(block) != sum {
		return nil, invalid("block %s has other content than its CID says", c)
	}
	raw, err := parseNode(block, &l.at, depth)
	if err != nil {
		return nil, fmt.Errorf("block %s: %w", c, err)
	}
	n, err := l.content(raw, depth)
	if err != nil {
		return nil, err
	}
	n.sealed = &sealed{sum: sum, block: block}
	return n, nil
}

func (l *loader[V]) content(raw rawNode, depth int) (*node[V], error) {
	if !raw.inner {
		entries := make([]entry[V], raw.n)
		for i := range entries {
			r := &raw.entries[i]
			entries[i].hash = r.path.prefix()
			entries[i].key = string(r.key)
			if err := l.values.Decode(r.value, &entries[i].value); err != nil {
				return nil, fmt.Errorf("the value of %q: %w", r.key, err)
			}
		}
		return newLeaf(entries), nil
	}
	n := newInner[V](int(raw.n))
	var below uint64
	for i := range raw.kids {
		if !raw.has[i] {
			continue
		}
		l.at.setNibble(depth, i)
		kid, err := l.node(raw.kids[i], depth+1)
		if err != nil {
			return nil, err
		}
		n.kids[i] = kid
		below += uint64(kid.n)
	}
	if below != raw.n {
		return nil, invalid("an inner node counts %d entries and has %d", raw.n, below)
	}
	return n, nil
}

func (p *path) setNibble(depth, v int) {
	shift := 4 * (1 - depth&1)
	p[depth/2] = p[depth/2]&^(15<<shift) | byte(v)<<shift
}

// under reports whether p and at have the same first depth nibbles.
func (p *path) under(at *path, depth int) bool {
	return bytes.Equal(p[:depth/2], at[:depth/2]) && (depth&1 == 0 || p.nibble(depth-1) == at.nibble(depth-1))
}

// rawNode is a node's block, read without knowing what values are.
type rawNode struct {
	inner   bool
	n       uint64 // entries, here or below
	has     [fanout]bool
	kids    [fanout][sha256.Size]byte
	entries [leafSize]rawEntry
}

type rawEntry struct {
	path       path
	key, value []byte
}

// parseNode reads the block of a node whose entries all begin with the first depth
// nibbles of at, and checks all that can be checked of it alone.
func parseNode(block []byte, at *path, depth int) (raw rawNode, err error) {
	if len(block) > MaxBlock {
		return raw, invalid("%d bytes are more than %d", len(block), MaxBlock)
	}
	s := scanner{b: block}
	if bytes.HasPrefix(block, []byte(leafHead)) {
		err = raw.parseLeaf(&s, at, depth)
	} else {
		err = raw.parseInner(&s, depth)
	}
	if err == nil {
		err = s.end()
	}
	return raw, err
}

func (raw *rawNode) parseLeaf(s *scanner, at *path, depth int) (err error) {
	if err := s.literal(leafHead); err != nil {
		return err
	}
	if raw.n, err = s.want(majorList, leafSize); err != nil {
		return err
	}
	if raw.n == 0 && depth > 0 {
		return invalid("an empty leaf below the top")
	}
	for i := range int(raw.n) {
		e := &raw.entries[i]
		if err := e.parse(s); err != nil {
			return err
		}
		if i > 0 && bytes.Compare(raw.entries[i-1].key, e.key) >= 0 {
			return invalid("the key %q comes after %q", e.key, raw.entries[i-1].key)
		}
		if e.path = sha256.Sum256(e.key); !e.path.under(at, depth) {
			return invalid("the key %q belongs elsewhere", e.key)
		}
	}
	return nil
}

func (e *rawEntry) parse(s *scanner) error {
	if n, err := s.want(majorList, 2); err != nil || n != 2 {
		return invalid("byte %d: an entry that is no pair", s.at)
	}
	n, err := s.want(majorBytes, MaxKey)
	if err != nil {
		return err
	}
	if n == 0 {
		return invalid("byte %d: an empty key", s.at)
	}
	if e.key, err = s.take(n); err != nil {
		return err
	}
	start := s.at
	if err := s.item(0); err != nil {
		return fmt.Errorf("the value of %q: %w", e.key, err)
	}
	if e.value = s.b[start:s.at:s.at]; len(e.value) > MaxValue {
		return invalid("the value of %q: %d bytes are more than %d", e.key, len(e.value), MaxValue)
	}
	return nil
}

func (raw *rawNode) parseInner(s *scanner, depth int) (err error) {
	raw.inner = true
	if depth >= maxPath {
		return invalid("an inner node deeper than %d", maxPath)
	}
	if err := s.literal(innerHead); err != nil {
		return err
	}
	for i := range raw.kids {
		if s.at < len(s.b) && s.b[s.at] == cborNull {
			s.at++
			continue
		}
		if err := s.literal(linkHead); err != nil {
			return err
		}
		sum, err := s.take(sha256.Size)
		if err != nil {
			return err
		}
		raw.has[i], raw.kids[i] = true, [sha256.Size]byte(sum)
	}
	if err := s.literal(innerTail); err != nil {
		return err
	}
	if raw.n, err = s.want(majorUint, 1<<40); err != nil {
		return err
	}
	if raw.n <= leafSize {
		return invalid("an inner node of %d entries, which are one leaf", raw.n)
	}
	return nil
}
