package blockstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/ipfs/boxo/datastore/dshelp"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	flatfs "github.com/ipfs/go-ds-flatfs"
	ipld "github.com/ipfs/go-ipld-format"
	mh "github.com/multiformats/go-multihash"
)

// maxBlock bounds every block: what Bitswap implementations accept.
const maxBlock = 2 << 20

// local is the blocks on this disk, one file a block, and the blocks of zeroes,
// which need none. It implements boxo's Blockstore interface, which its Bitswap
// server reads from, with one difference: what Get returns matches its CID.
type local struct {
	dir     string // for messages
	aside   string // where corrupt blocks go
	files   *flatfs.Datastore
	zeroes  map[string]int // multihash of n zero bytes -> n
	nothing []byte         // maxBlock zero bytes, never written
	log     *slog.Logger

	mu      sync.Mutex // guards setting aside
	corrupt atomic.Int64
}

// openLocal opens or makes the files below dir/blocks. Writes are synced: a
// block that Has reports survives a power cut.
func openLocal(dir string, log *slog.Logger) (*local, error) {
	files, err := flatfs.CreateOrOpen(filepath.Join(dir, "blocks"), flatfs.NextToLast(2), true)
	if err != nil {
		return nil, fmt.Errorf("open blocks below %s: %w", dir, err)
	}
	l := &local{
		dir: dir, aside: filepath.Join(dir, "corrupt"), files: files, log: log,
		zeroes: make(map[string]int), nothing: make([]byte, maxBlock),
	}
	for n := minLeaf; n <= maxBlock; n *= 2 {
		l.zeroes[string(hashOf(l.nothing[:n]))] = n
	}
	return l, nil
}

// hashOf is the SHA-256 multihash of data. Summing bytes in memory cannot fail:
// the function is registered and the length is its own.
func hashOf(data []byte) mh.Multihash {
	sum, err := mh.Sum(data, mh.SHA2_256, -1)
	if err != nil {
		panic(fmt.Sprintf("sha2-256 is not registered: %v", err))
	}
	return sum
}

// isZero reports whether c is a leaf of zeroes whose content needs no storage.
func (l *local) isZero(c cid.Cid) bool {
	_, ok := l.zeroes[string(c.Hash())]
	return ok
}

func key(c cid.Cid) ds.Key { return dshelp.MultihashToDsKey(c.Hash()) }

// Get returns the block c, hashed and found right. A missing block is an
// ipld.ErrNotFound; one that does not match its CID is set aside, and the error
// is ErrCorrupt.
func (l *local) Get(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	if n, ok := l.zeroes[string(c.Hash())]; ok {
		return blocks.NewBlockWithCid(l.nothing[:n], c)
	}
	data, err := l.files.Get(ctx, key(c))
	if errors.Is(err, ds.ErrNotFound) {
		return nil, ipld.ErrNotFound{Cid: c}
	}
	if err != nil {
		return nil, fmt.Errorf("read block %s: %w", c, err)
	}
	if err := matches(c, data); err != nil {
		return nil, l.setAside(ctx, c)
	}
	return blocks.NewBlockWithCid(data, c)
}

// matches says whether data is what c names.
func matches(c cid.Cid, data []byte) error {
	sum, err := c.Prefix().Sum(data)
	if err != nil {
		return fmt.Errorf("hash block %s: %w", c, err)
	}
	if !sum.Equals(c) {
		return fmt.Errorf("%w: %s", ErrCorrupt, c)
	}
	return nil
}

// setAside moves a corrupt block out of the store, so that it counts as missing
// and can be fetched again. It reads once more first: the block may just have
// been replaced by a good one.
func (l *local) setAside(ctx context.Context, c cid.Cid) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	data, err := l.files.Get(ctx, key(c))
	if errors.Is(err, ds.ErrNotFound) {
		return l.corruptError(c)
	}
	if err != nil {
		return fmt.Errorf("read block %s: %w", c, err)
	}
	if matches(c, data) == nil {
		return fmt.Errorf("read block %s: its content changed while it was read; try again: %w", c, ErrCorrupt)
	}
	l.corrupt.Add(1)
	l.log.Error("block on disk does not match its CID", "cid", c.String(), "dir", l.dir)
	if err := os.MkdirAll(l.aside, 0o700); err == nil {
		err = os.WriteFile(filepath.Join(l.aside, c.String()), data, 0o600)
		if err != nil {
			l.log.Warn("keep corrupt block for inspection", "cid", c.String(), "err", err)
		}
	}
	if err := l.files.Delete(ctx, key(c)); err != nil {
		return fmt.Errorf("set corrupt block %s aside: %w", c, err)
	}
	return l.corruptError(c)
}

func (l *local) corruptError(c cid.Cid) error {
	return fmt.Errorf("block %s below %s does not match its CID and was set aside: %w: fetch the image again from another holder, and check this disk", c, l.dir, ErrCorrupt)
}

// Has reports whether c is here, without reading it.
func (l *local) Has(ctx context.Context, c cid.Cid) (bool, error) {
	if l.isZero(c) {
		return true, nil
	}
	ok, err := l.files.Has(ctx, key(c))
	if err != nil {
		return false, fmt.Errorf("look up block %s: %w", c, err)
	}
	return ok, nil
}

// GetSize is the size of c in bytes, or ipld.ErrNotFound.
func (l *local) GetSize(ctx context.Context, c cid.Cid) (int, error) {
	if n, ok := l.zeroes[string(c.Hash())]; ok {
		return n, nil
	}
	n, err := l.files.GetSize(ctx, key(c))
	if errors.Is(err, ds.ErrNotFound) {
		return -1, ipld.ErrNotFound{Cid: c}
	}
	return n, err
}

// Put stores one block.
func (l *local) Put(ctx context.Context, b blocks.Block) error {
	return l.PutMany(ctx, []blocks.Block{b})
}

// PutMany stores blocks, synced to disk when it returns. The caller has checked
// them. On an error some may be stored; nothing half-written is left.
func (l *local) PutMany(ctx context.Context, bs []blocks.Block) error {
	var size int64
	batch, err := l.files.Batch(ctx)
	if err != nil {
		return outOfSpace(fmt.Errorf("store blocks: %w", err), l.dir, 0)
	}
	for _, b := range bs {
		size += int64(len(b.RawData()))
		if l.isZero(b.Cid()) {
			continue
		}
		if err = batch.Put(ctx, key(b.Cid()), b.RawData()); err != nil {
			break
		}
	}
	if err == nil {
		err = batch.Commit(ctx)
	}
	if err == nil {
		return nil
	}
	if d, ok := batch.(flatfs.DiscardableBatch); ok {
		err = errors.Join(err, d.Discard(context.WithoutCancel(ctx)))
	}
	return outOfSpace(fmt.Errorf("store %d blocks: %w", len(bs), err), l.dir, size)
}

// DeleteBlock removes c; a block that is not here is no error.
func (l *local) DeleteBlock(ctx context.Context, c cid.Cid) error {
	if err := l.files.Delete(ctx, key(c)); err != nil && !errors.Is(err, ds.ErrNotFound) {
		return fmt.Errorf("remove block %s: %w", c, err)
	}
	return nil
}

// AllKeysChan lists every stored block as a raw CID.
func (l *local) AllKeysChan(ctx context.Context) (<-chan cid.Cid, error) {
	found, err := l.files.Query(ctx, query.Query{KeysOnly: true})
	if err != nil {
		return nil, fmt.Errorf("list blocks: %w", err)
	}
	out := make(chan cid.Cid)
	go func() {
		defer close(out)
		defer found.Close()
		for r := range found.Next() {
			if r.Error != nil {
				l.log.Warn("list blocks", "err", r.Error)
				return
			}
			h, err := dshelp.DsKeyToMultihash(ds.RawKey(r.Key))
			if err != nil {
				continue // not a block's file
			}
			select {
			case out <- cid.NewCidV1(cid.Raw, h):
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, nil
}
