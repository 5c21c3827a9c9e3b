package merkle

import (
	"bytes"
	"crypto/sha256"
	"fmt"

	"github.com/ipfs/go-cid"
)

// cidPrefix is a CID up to its digest: version 1, dag-cbor, SHA-256, 32 bytes.
const cidPrefix = "\x01\x71\x12\x20"

// The fixed parts of the blocks.
const (
	leafHead  = "\xa1\x61e"                           // {"e":
	innerHead = "\xa2\x61c\x90"                       // {"c": [16
	innerTail = "\x61n"                               // "n":
	linkHead  = "\xd8\x2a\x58\x25\x00" + cidPrefix    // 42(h'00 …
	linkSize  = len(linkHead) + sha256.Size           //
	innerMost = len(innerHead) + fanout*linkSize + 11 // with the largest count
)

// Sum is the CID of a block: version 1, dag-cbor, SHA-256.
func Sum(block []byte) cid.Cid { return cidOf(sha256.Sum256(block)) }

func cidOf(sum [sha256.Size]byte) cid.Cid {
	var raw [len(cidPrefix) + sha256.Size]byte
	copy(raw[:], cidPrefix)
	copy(raw[len(cidPrefix):], sum[:])
	_, c, err := cid.CidFromBytes(raw[:])
	if err != nil {
		panic(err) // the prefix above is a CID's
	}
	return c
}

// sumOf is the digest in a CID like Sum's.
func sumOf(c cid.Cid) (sum [sha256.Size]byte, err error) {
	raw := c.KeyString()
	if len(raw) != len(cidPrefix)+len(sum) || raw[:len(cidPrefix)] != cidPrefix {
		return sum, invalid("the CID %s is not one of DAG-CBOR with SHA-256", c)
	}
	copy(sum[:], raw[len(cidPrefix):])
	return sum, nil
}

// Root is the CID of the top block. It costs what has changed since a Root of a map that
// this one came from. The error is that of a value which Encode refuses, or which is
// larger than MaxValue.
func (m Map[V]) Root() (cid.Cid, error) {
	top, err := m.seal()
	if err != nil {
		return cid.Undef, err
	}
	return cidOf(top.sealed.sum), nil
}

// Blocks yields every block, children before their parents and the top last: the same
// sequence for equal maps, and no block twice. The bytes must not be changed.
func (m Map[V]) Blocks(yield func(cid.Cid, []byte) bool) error {
	top, err := m.seal()
	if err == nil {
		top.blocks(yield)
	}
	return err
}

func (n *node[V]) blocks(yield func(cid.Cid, []byte) bool) bool {
	if n.kids != nil {
		for _, kid := range n.kids {
			if kid != nil && !kid.blocks(yield) {
				return false
			}
		}
	}
	return yield(cidOf(n.sealed.sum), n.sealed.block)
}

// seal is the top node with all blocks made; an empty leaf for the empty map.
func (m Map[V]) seal() (*node[V], error) {
	top := m.top
	if top == nil {
		top = newLeaf[V](nil)
	}
	return top, top.seal(new(bytes.Buffer))
}

// seal makes the blocks of the subtree that are not made yet, using buf.
func (n *node[V]) seal(buf *bytes.Buffer) error {
	if n.sealed != nil {
		return nil
	}
	var block []byte
	if n.kids != nil {
		for _, kid := range n.kids {
			if kid != nil {
				if err := kid.seal(buf); err != nil {
					return err
				}
			}
		}
		block = n.innerBlock(buf)
	} else {
		var err error
		if block, err = n.leafBlock(buf); err != nil {
			return err
		}
	}
	n.sealed = &sealed{sum: sha256.Sum256(block), block: block}
	return nil
}

func (n *node[V]) innerBlock(buf *bytes.Buffer) []byte {
	buf.Reset()
	buf.Grow(innerMost)
	b := append(buf.AvailableBuffer(), innerHead...)
	for _, kid := range n.kids {
		if kid == nil {
			b = append(b, cborNull)
			continue
		}
		b = append(b, linkHead...)
		b = append(b, kid.sealed.sum[:]...)
	}
	b = append(b, innerTail...)
	return bytes.Clone(appendHead(b, majorUint, uint64(n.n)))
}

func (n *node[V]) leafBlock(buf *bytes.Buffer) ([]byte, error) {
	buf.Reset()
	buf.WriteString(leafHead)
	buf.Write(appendHead(buf.AvailableBuffer(), majorList, uint64(len(n.entries))))
	for i := range n.entries {
		e := &n.entries[i]
		buf.Write(appendHead(appendHead(buf.AvailableBuffer(), majorList, 2), majorBytes, uint64(len(e.key))))
		buf.WriteString(e.key)
		start := buf.Len()
		if err := encodeTo(buf, &e.value); err != nil {
			return nil, fmt.Errorf("the value of %q: %w", e.key, err)
		}
		if size := buf.Len() - start; size > MaxValue {
			return nil, fmt.Errorf("the value of %q: %d bytes are more than %d", e.key, size, MaxValue)
		}
	}
	return bytes.Clone(buf.Bytes()), nil
}
