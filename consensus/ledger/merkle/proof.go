package merkle

import (
	"fmt"

	"github.com/ipfs/go-cid"
)

// Proof is the blocks on the way from the top to the node that has key or, if the map
// lacks it, shows so. With the map's root, Find needs no more. The bytes must not be
// changed.
func (m Map[V]) Proof(key string) ([][]byte, error) {
	if err := CheckKey(key); err != nil {
		return nil, fmt.Errorf("prove: %w", err)
	}
	n, err := m.seal()
	if err != nil {
		return nil, fmt.Errorf("prove %q: %w", key, err)
	}
	p := pathOf(key)
	var blocks [][]byte
	for depth := 0; n != nil; depth++ {
		blocks = append(blocks, n.sealed.block)
		if n.kids == nil {
			break
		}
		n = n.kids[p.nibble(depth)]
	}
	return blocks, nil
}

// Find looks key up in the map of which only the root is known, by a Proof from anyone.
// The value is its own DAG-CBOR, a part of proof, or nil and false if the proof shows
// that the map lacks key. A proof of nothing, and any block that is not on the way, is
// an error that wraps ErrInvalid.
func Find(root cid.Cid, proof [][]byte, key string) (value []byte, found bool, err error) {
	if err := CheckKey(key); err != nil {
		return nil, false, fmt.Errorf("find: %w", err)
	}
	want, err := sumOf(root)
	if err != nil {
		return nil, false, fmt.Errorf("find %q: %w", key, err)
	}
	at := pathOf(key)
	for depth, block := range proof {
		if c := cidOf(want); !Sum(block).Equals(c) {
			return nil, false, fmt.Errorf("find %q: %w", key, invalid("block %d of the proof is not %s", depth, c))
		}
		raw, err := parseNode(block, &at, depth)
		if err != nil {
			return nil, false, fmt.Errorf("find %q: block %d of the proof: %w", key, depth, err)
		}
		i := 0
		if raw.inner {
			if i = at.nibble(depth); raw.has[i] {
				want = raw.kids[i]
				continue
			}
		}
		if more := len(proof) - depth - 1; more > 0 {
			return nil, false, fmt.Errorf("find %q: %w", key, invalid("the proof ends %d blocks before its end", more))
		}
		for _, e := range raw.entries[:raw.count()] {
			if string(e.key) == key {
				return e.value, true, nil
			}
		}
		return nil, false, nil
	}
	return nil, false, fmt.Errorf("find %q: %w", key, invalid("the proof of %d blocks is cut short", len(proof)))
}

// count is how many entries the node itself holds.
func (raw *rawNode) count() uint64 {
	if raw.inner {
		return 0
	}
	return raw.n
}
