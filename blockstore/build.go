package blockstore

import (
	"context"
	"fmt"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
)

// fanout is how many children an interior node has: what Kubo uses, so that the
// same content imported there has the same root.
const fanout = 174

// link is a child as its parent will name it.
type link struct {
	cid  cid.Cid
	size int64  // bytes of the file below it
	cost uint64 // bytes of blocks below it: dag-pb's Tsize
}

// builder makes the balanced tree over a file's leaves from left to right. It
// holds at most fanout links a level, whatever the file's size.
type builder struct {
	put    func(blocks.Block) error
	levels [][]link
}

// leaf appends a leaf whose block is stored, or is known to be zeroes.
func (b *builder) leaf(c cid.Cid, size int64) error {
	return b.add(0, link{c, size, uint64(size)})
}

func (b *builder) add(level int, l link) error {
	if level == len(b.levels) {
		b.levels = append(b.levels, nil)
	}
	b.levels[level] = append(b.levels[level], l)
	if len(b.levels[level]) < fanout {
		return nil
	}
	return b.flush(level)
}

// flush makes the node over the links of a level and hands it one level up.
func (b *builder) flush(level int) error {
	up, err := interior(b.levels[level], b.put)
	if err != nil {
		return err
	}
	b.levels[level] = b.levels[level][:0]
	return b.add(level+1, up)
}

// root closes the tree. A file of one leaf is that leaf.
func (b *builder) root() (cid.Cid, error) {
	for level := 0; level < len(b.levels); level++ {
		top := level == len(b.levels)-1
		switch n := len(b.levels[level]); {
		case n == 0:
		case n == 1 && top:
			return b.levels[level][0].cid, nil
		default:
			if err := b.flush(level); err != nil {
				return cid.Undef, err
			}
		}
	}
	return cid.Undef, fmt.Errorf("%w: file is empty", ErrFormat)
}

// interior makes and stores the node over links.
func interior(links []link, put func(blocks.Block) error) (link, error) {
	file := unixfs.NewFSNode(unixfs.TFile)
	for _, l := range links {
		file.AddBlockSize(uint64(l.size))
	}
	data, err := file.GetBytes()
	if err != nil {
		return link{}, fmt.Errorf("encode UnixFS node: %w", err)
	}
	node := merkledag.NodeWithData(data)
	if err := node.SetCidBuilder(merkledag.V1CidPrefix()); err != nil {
		return link{}, fmt.Errorf("encode UnixFS node: %w", err)
	}
	var below uint64
	for _, l := range links {
		below += l.cost
		if err := node.AddRawLink("", &ipld.Link{Size: l.cost, Cid: l.cid}); err != nil {
			return link{}, fmt.Errorf("encode UnixFS node: %w", err)
		}
	}
	raw, err := node.EncodeProtobuf(false)
	if err != nil {
		return link{}, fmt.Errorf("encode UnixFS node: %w", err)
	}
	if err := put(node); err != nil {
		return link{}, err
	}
	return link{node.Cid(), int64(file.FileSize()), below + uint64(len(raw))}, nil
}

// batch collects blocks and stores them some at a time: one sync covers many.
// Blocks that are there already are left alone.
type batch struct {
	ctx   context.Context // of the one call that made it
	to    *local
	ready []blocks.Block
	size  int64
	seen  map[cid.Cid]bool // in ready
	bytes int64            // newly stored
	count int              // newly stored
}

// batchBytes is how much is stored at once: enough to share a sync, little enough to hold.
const batchBytes = 8 << 20

func newBatch(ctx context.Context, to *local) *batch {
	return &batch{ctx: ctx, to: to, seen: make(map[cid.Cid]bool)}
}

func (b *batch) put(blk blocks.Block) error {
	c := blk.Cid()
	if b.seen[c] {
		return nil
	}
	if ok, err := b.to.Has(b.ctx, c); ok || err != nil {
		return err
	}
	b.seen[c] = true
	b.ready = append(b.ready, blk)
	b.size += int64(len(blk.RawData()))
	if b.size < batchBytes {
		return nil
	}
	return b.flush()
}

func (b *batch) flush() error {
	if len(b.ready) == 0 {
		return nil
	}
	if err := b.to.PutMany(b.ctx, b.ready); err != nil {
		return err
	}
	b.count += len(b.ready)
	b.bytes += b.size
	b.ready, b.size = nil, 0
	clear(b.seen)
	return nil
}
