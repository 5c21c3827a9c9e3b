package ramstream

import (
	"errors"
	"fmt"
	"io"
)

// Base is the content of one disk image that both sides hold. Its blocks are
// numbered in the order of the list of bases, Size/PageSize for each, so both
// sides must list the same images in the same order.
type Base struct {
	R    io.ReaderAt // complete and unchanging; nil: not held, its blocks are not referred to
	Size int64       // bytes; a last part of a block is not used
}

func (b Base) blocks() int64 { return max(b.Size, 0) / PageSize }

// bases is a list of images as one row of blocks.
type bases []Base

// check keeps block numbers within what an index can hold.
func (bs bases) check() error {
	var n int64
	for _, b := range bs {
		if n += b.blocks(); n >= 1<<32-1 {
			return errors.New("bases hold 16 TiB or more: refer to fewer images")
		}
	}
	return nil
}

// read fills p, a number of whole blocks, from block on.
func (bs bases) read(p []byte, block int64) error {
	for _, b := range bs {
		n := b.blocks()
		if block >= n {
			block -= n
			continue
		}
		if b.R == nil {
			return errors.New("base is not held here")
		}
		part := p[:min(int64(len(p)), (n-block)*PageSize)]
		if k, err := b.R.ReadAt(part, block*PageSize); k < len(part) {
			return fmt.Errorf("read base at %d: %w", block*PageSize, err)
		}
		if p = p[len(part):]; len(p) == 0 {
			return nil
		}
		block = 0
	}
	return fmt.Errorf("no such block in the bases")
}
