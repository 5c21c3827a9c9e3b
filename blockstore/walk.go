package blockstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
)

// maxDepth bounds a tree: fanout 174 reaches any disk in six levels.
const maxDepth = 10

// child is one link of an interior node.
type child struct {
	cid  cid.Cid
	size int64 // bytes of the file below it
}

// parseNode reads an interior node of a file of the given size. Only trees as
// Import makes them pass: files without data of their own, raw leaves, sizes
// that add up.
func parseNode(c cid.Cid, data []byte, size int64) ([]child, error) {
	bad := func(why string, args ...any) error {
		return fmt.Errorf("%w: node %s: %s", ErrFormat, c, fmt.Sprintf(why, args...))
	}
	node, err := merkledag.DecodeProtobuf(data)
	if err != nil {
		return nil, bad("%v", err)
	}
	fs, err := unixfs.FSNodeFromBytes(node.Data())
	if err != nil {
		return nil, bad("%v", err)
	}
	links := node.Links()
	switch {
	case fs.Type() != unixfs.TFile:
		return nil, bad("not a file")
	case len(fs.Data()) != 0:
		return nil, bad("data in an interior node: import the image with raw leaves")
	case len(links) == 0 || len(links) != fs.NumChildren():
		return nil, bad("%d links but %d sizes", len(links), fs.NumChildren())
	case int64(fs.FileSize()) != size:
		return nil, bad("file of %d bytes where %d are due", fs.FileSize(), size)
	}
	children := make([]child, len(links))
	for i, l := range links {
		n := fs.BlockSize(i)
		if n == 0 || n > uint64(size) {
			return nil, bad("child %d has size %d", i, n)
		}
		if err := checkCID(l.Cid, cid.Raw, cid.DagProtobuf); err != nil {
			return nil, err
		}
		if l.Cid.Prefix().Codec == cid.Raw && n > maxBlock {
			return nil, bad("leaf of %d bytes: at most %d", n, maxBlock)
		}
		children[i] = child{l.Cid, int64(n)}
		size -= int64(n)
	}
	if size != 0 {
		return nil, bad("sizes do not add up")
	}
	return children, nil
}

// leaf is one leaf of a file, where it occurs; it is not all zeroes.
type leaf struct {
	cid  cid.Cid
	off  int64 // bytes from the start of the file
	size int64
}

// walker visits files in order of their bytes. Interior nodes must be local.
// Holes are passed over: a subtree without data is read once, however often the
// file has it, so that a large empty disk costs little.
type walker struct {
	local *local
	// node is asked before an interior node is entered; nil: all are.
	node func(cid.Cid) (enter bool)
	leaf func(leaf) error
	// lost is called with the reason where a node is not local (ErrIncomplete)
	// or corrupt; nil: that ends the walk.
	lost func(cid.Cid, error) error
}

func (w walker) file(ctx context.Context, f file) error {
	_, err := w.visit(ctx, child{f.root, f.size}, place{hollow: make(map[child]bool)})
	return err
}

// place is where a visit is.
type place struct {
	off    int64
	depth  int
	hollow map[child]bool // nodes without data below them
}

// visit returns whether at is a hole altogether.
func (w walker) visit(ctx context.Context, at child, in place) (hollow bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if at.cid.Prefix().Codec == cid.Raw {
		return w.visitLeaf(at, in.off)
	}
	if in.hollow[at] {
		return true, nil
	}
	if in.depth == maxDepth {
		return false, fmt.Errorf("%w: tree deeper than %d", ErrFormat, maxDepth)
	}
	if w.node != nil && !w.node(at.cid) {
		return false, nil
	}
	children, err := w.local.children(ctx, at)
	if w.lost != nil && (errors.Is(err, ErrIncomplete) || errors.Is(err, ErrCorrupt)) {
		return false, w.lost(at.cid, err)
	}
	if err != nil {
		return false, err
	}
	hollow = true
	in.depth++
	for _, c := range children {
		h, err := w.visit(ctx, c, in)
		if err != nil {
			return false, err
		}
		hollow = hollow && h
		in.off += c.size
	}
	if hollow {
		in.hollow[at] = true
	}
	return hollow, nil
}

func (w walker) visitLeaf(at child, off int64) (hollow bool, err error) {
	if at.size > maxBlock {
		return false, fmt.Errorf("%w: leaf %s of %d bytes: at most %d", ErrFormat, at.cid, at.size, maxBlock)
	}
	n, zero := w.local.zeroes[string(at.cid.Hash())]
	if zero && int64(n) != at.size {
		return false, fmt.Errorf("%w: leaf %s has %d bytes where %d are due", ErrFormat, at.cid, n, at.size)
	}
	if zero {
		return true, nil
	}
	return false, w.leaf(leaf{at.cid, off, at.size})
}

// children reads the local interior node at.
func (l *local) children(ctx context.Context, at child) ([]child, error) {
	b, err := l.Get(ctx, at.cid)
	if ipld.IsNotFound(err) {
		return nil, missing(at.cid)
	}
	if err != nil {
		return nil, err
	}
	return parseNode(at.cid, b.RawData(), at.size)
}

func missing(c cid.Cid) error {
	return fmt.Errorf("block %s is not here: %w: fetch it first", c, ErrIncomplete)
}

// once returns a function that is true the first time it sees a CID.
func once() func(cid.Cid) bool {
	seen := make(map[cid.Cid]struct{})
	return func(c cid.Cid) bool {
		if _, ok := seen[c]; ok {
			return false
		}
		seen[c] = struct{}{}
		return true
	}
}

// digest is the first half of a block's hash: enough to tell blocks apart when
// they are counted, at half the memory.
type digest [16]byte

func digestOf(c cid.Cid) (d digest) {
	h := c.Hash()
	copy(d[:], h[len(h)-32:])
	return d
}

// Need is what a store lacks of an image.
type Need struct {
	Blocks int   // leaves; each is counted once, however often it occurs
	Bytes  int64 // in those leaves
}

// lacking counts the leaves of the image c that are not local. Commit and
// interior nodes must be. It takes about 30 bytes of memory a missing leaf.
func (s *Store) lacking(ctx context.Context, c cid.Cid) (Need, error) {
	commit, err := s.localCommit(ctx, c)
	if err != nil {
		return Need{}, err
	}
	var need Need
	counted := make(map[digest]struct{})
	w := walker{local: s.local, node: once(), leaf: func(l leaf) error {
		d := digestOf(l.cid)
		if _, ok := counted[d]; ok {
			return nil
		}
		ok, err := s.local.Has(ctx, l.cid)
		if ok || err != nil {
			return err
		}
		counted[d] = struct{}{}
		need.Blocks++
		need.Bytes += l.size
		return nil
	}}
	for _, f := range commit.files() {
		if err := w.file(ctx, f); err != nil {
			return Need{}, err
		}
	}
	return need, nil
}

// localCommit reads the commit c from this store.
func (s *Store) localCommit(ctx context.Context, c cid.Cid) (Commit, error) {
	if err := checkCID(c, cid.DagCBOR); err != nil {
		return Commit{}, err
	}
	b, err := s.local.Get(ctx, c)
	if ipld.IsNotFound(err) {
		return Commit{}, missing(c)
	}
	if err != nil {
		return Commit{}, err
	}
	return decodeCommit(b.RawData())
}

// declaredSize is the file size that the interior node data states.
func declaredSize(c cid.Cid, data []byte) (int64, error) {
	node, err := merkledag.DecodeProtobuf(data)
	if err != nil {
		return 0, fmt.Errorf("%w: node %s: %w", ErrFormat, c, err)
	}
	fs, err := unixfs.FSNodeFromBytes(node.Data())
	if err != nil {
		return 0, fmt.Errorf("%w: node %s: %w", ErrFormat, c, err)
	}
	if n := fs.FileSize(); n <= maxDiskSize {
		return int64(n), nil
	}
	return 0, fmt.Errorf("%w: node %s: file is too large", ErrFormat, c)
}
