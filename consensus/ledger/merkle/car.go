package merkle

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/ipfs/go-cid"
)

// The header of a CARv1 (https://ipld.io/specs/transport/car/carv1/) of one root, around
// the root's digest: length, {"roots": [link], "version": 1}.
const (
	carHead    = "\x3a\xa2\x65roots\x81" + linkHead
	carTail    = "\x67version\x01"
	carHeader  = len(carHead) + sha256.Size + len(carTail)
	sectionMin = len(cidPrefix) + sha256.Size
)

// WriteCAR is a CARv1 file of what blocks yields: first what is linked, last the root.
// It asks for the blocks twice, once for their size, so that the file is one allocation.
// A block that is yielded again, as equal maps in one state do, is written once.
func WriteCAR(root cid.Cid, blocks func(yield func(cid.Cid, []byte) bool) error) ([]byte, error) {
	top, err := sumOf(root)
	if err != nil {
		return nil, fmt.Errorf("write CAR: %w", err)
	}
	size, count := carHeader, 0
	err = blocks(func(_ cid.Cid, block []byte) bool {
		n := sectionMin + len(block)
		size += uvarintSize(uint64(n)) + n
		count++
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("write CAR: %w", err)
	}
	b := append(make([]byte, 0, size), carHead...)
	b = append(append(b, top[:]...), carTail...)
	seen := make(map[[sha256.Size]byte]struct{}, count)
	var last [sha256.Size]byte
	var bad error
	err = blocks(func(c cid.Cid, block []byte) bool {
		var sum [sha256.Size]byte
		if sum, bad = sumOf(c); bad != nil {
			return false
		}
		if len(block) == 0 || len(block) > MaxBlock {
			bad = fmt.Errorf("block %s has %d bytes: it needs 1 to %d", c, len(block), MaxBlock)
			return false
		}
		if _, again := seen[sum]; again {
			return true
		}
		seen[sum], last = struct{}{}, sum
		b = binary.AppendUvarint(b, uint64(sectionMin+len(block)))
		b = append(append(append(b, cidPrefix...), sum[:]...), block...)
		return true
	})
	if err == nil {
		err = bad
	}
	if err == nil && (len(seen) == 0 || last != top) {
		err = fmt.Errorf("the last block is not the root %s", root)
	}
	if err != nil {
		return nil, fmt.Errorf("write CAR: %w", err)
	}
	return b, nil
}

// ReadCAR reads what WriteCAR wrote: one root, whose block is the last; each block
// hashed and compared with its CID, none twice, nothing after them. That all are there,
// and that all are linked, is for who follows the root: write what was loaded again and
// compare. get returns parts of b, which must not be changed.
func ReadCAR(b []byte) (root cid.Cid, get func(cid.Cid) ([]byte, bool), err error) {
	if len(b) < carHeader || string(b[:len(carHead)]) != carHead || string(b[carHeader-len(carTail):carHeader]) != carTail {
		return cid.Undef, nil, fmt.Errorf("read CAR: %w", invalid("the header is not that of a CARv1 with one root"))
	}
	top := [sha256.Size]byte(b[len(carHead):])
	index := make(map[[sha256.Size]byte][]byte, len(b)/1024)
	var last [sha256.Size]byte
	for at := carHeader; at < len(b); {
		sum, block, next, err := section(b, at)
		if err != nil {
			return cid.Undef, nil, fmt.Errorf("read CAR: %w", err)
		}
		if _, again := index[sum]; again {
			return cid.Undef, nil, fmt.Errorf("read CAR: %w", invalid("byte %d: block %s is there twice", at, cidOf(sum)))
		}
		index[sum] = block
		last, at = sum, next
	}
	if len(index) == 0 || last != top {
		return cid.Undef, nil, fmt.Errorf("read CAR: %w", invalid("the last block is not the root %s", cidOf(top)))
	}
	get = func(c cid.Cid) ([]byte, bool) {
		sum, err := sumOf(c)
		if err != nil {
			return nil, false
		}
		block, found := index[sum]
		return block, found
	}
	return cidOf(top), get, nil
}

// section reads the block at b[at:] and says where the next one begins.
func section(b []byte, at int) (sum [sha256.Size]byte, block []byte, next int, err error) {
	size, n := binary.Uvarint(b[at:])
	if n <= 0 || n != uvarintSize(size) {
		return sum, nil, 0, invalid("byte %d: a length that is none", at)
	}
	rest := b[at+n:]
	if size > uint64(len(rest)) {
		return sum, nil, 0, invalid("byte %d: cut off", at)
	}
	if size <= uint64(sectionMin) || size > uint64(sectionMin+MaxBlock) {
		return sum, nil, 0, invalid("byte %d: a section of %d bytes", at, size)
	}
	end := int(size)
	if !bytes.HasPrefix(rest, []byte(cidPrefix)) {
		return sum, nil, 0, invalid("byte %d: a CID that is not one of DAG-CBOR with SHA-256", at)
	}
	copy(sum[:], rest[len(cidPrefix):])
	block = rest[sectionMin:end:end]
	if sha256.Sum256(block) != sum {
		return sum, nil, 0, invalid("byte %d: block %s has other content than its CID says", at, cidOf(sum))
	}
	return sum, block, at + n + end, nil
}

func uvarintSize(n uint64) int {
	size := 1
	for ; n >= 0x80; n >>= 7 {
		size++
	}
	return size
}
