package main

import (
	"encoding/binary"
	"fmt"
	"math/bits"
)

// A cell is the unit that is rewritten and checked: a page of memory, a block of
// the file. It names itself and its generation, so that a cell of an earlier
// time or another place is told from the right one, and ends in a checksum:
//
//	index uint32 | generation uint32 | random bytes ... | checksum uint64
//
// The random bytes follow from index and generation; they do not compress. The
// checksum is one that an emulated CPU computes quickly, which CRC-32C is not:
// QEMU computes that one bit by bit.
type cell []byte

const headSize, tailSize = 8, 8

// fill writes generation of cell index.
func (c cell) fill(index, generation uint32) {
	binary.LittleEndian.PutUint32(c, index)
	binary.LittleEndian.PutUint32(c[4:], generation)
	state := uint64(index)<<32 | uint64(generation) | 1<<63
	body := c[headSize : len(c)-tailSize]
	for len(body) >= 8 {
		state = scramble(state)
		binary.LittleEndian.PutUint64(body, state)
		body = body[8:]
	}
	binary.LittleEndian.PutUint64(c[len(c)-tailSize:], c.sum())
}

// check says how the cell differs from what it should be.
func (c cell) check(index, generation uint32) error {
	haveIndex, haveGeneration := binary.LittleEndian.Uint32(c), binary.LittleEndian.Uint32(c[4:])
	switch {
	case haveIndex != index || haveGeneration != generation:
		return fmt.Errorf("index %d generation %d, want %d and %d", haveIndex, haveGeneration, index, generation)
	case binary.LittleEndian.Uint64(c[len(c)-tailSize:]) != c.sum():
		return fmt.Errorf("generation %d, checksum wrong", generation)
	}
	return nil
}

// sum is FNV-1a by words of 8 bytes, with a rotation so that high bits count too.
func (c cell) sum() uint64 {
	const offset, prime = 0xcbf29ce484222325, 0x100000001b3
	sum := uint64(offset)
	for body := c[:len(c)-tailSize]; len(body) >= 8; body = body[8:] {
		sum = bits.RotateLeft64(sum^binary.LittleEndian.Uint64(body), 29) * prime
	}
	return sum
}

// scramble is one step of xorshift64 (Marsaglia, "Xorshift RNGs", 2003).
func scramble(x uint64) uint64 {
	x ^= x << 13
	x ^= x >> 7
	return x ^ x<<17
}
