package blockstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
)

// Source says what to import.
type Source struct {
	Path   string // disk image, raw or qcow2 by its content; empty: no disk
	Kernel string // file to boot; empty: none
	Initrd string // initial RAM disk; empty: none
	Append string // kernel command line
	Kind   Kind   // empty: OS
	Parent cid.Cid
	Author string
	Time   int64 // seconds since 1970; 0: now
}

// ImageInfo is what Import made.
type ImageInfo struct {
	Commit cid.Cid
	Size   int64 // bytes of the disk
	Bytes  int64 // bytes of leaves that are not holes
	Blocks int   // leaves that are not holes
	Stored int64 // bytes that were new to this store, interior nodes included
}

// Import reads a disk image and its boot files into the store and makes a
// commit over them. Equal content gives equal blocks and an equal disk root;
// with equal Author and Time, an equal commit. Holes of a sparse file are not
// read. progress, which may be nil, is told bytes of the disk seen so far and
// in all. A broken-off import leaves blocks that the next one uses, or Collect
// removes.
func (s *Store) Import(ctx context.Context, src Source, progress func(done, total int64)) (ImageInfo, error) {
	s.use.RLock()
	defer s.use.RUnlock()
	if progress == nil {
		progress = func(int64, int64) {}
	}
	i := importer{store: s, batch: newBatch(ctx, s.local), progress: progress, zero: make(map[int64]cid.Cid)}
	info, err := i.run(ctx, src)
	if err != nil {
		return ImageInfo{}, fmt.Errorf("import %s: %w", src.name(), err)
	}
	return info, nil
}

func (src Source) name() string {
	if src.Path != "" {
		return src.Path
	}
	return src.Kernel
}

// importer is one Import.
type importer struct {
	store    *Store
	batch    *batch
	progress func(done, total int64)
	zero     map[int64]cid.Cid // leaves of zeroes by size, hashed once
	info     ImageInfo
}

func (i *importer) run(ctx context.Context, src Source) (ImageInfo, error) {
	c := Commit{
		Version: commitVersion, Parent: src.Parent, Kind: src.Kind,
		Append: src.Append, Author: src.Author, Time: src.Time,
	}
	if c.Kind == "" {
		c.Kind = OS
	}
	if c.Time == 0 {
		c.Time = time.Now().Unix()
	}
	if src.Path != "" {
		root, err := i.disk(ctx, src.Path)
		if err != nil {
			return ImageInfo{}, err
		}
		c.Disks = []Disk{{Name: "disk0", Size: i.info.Size, Root: root}}
	}
	var err error
	if c.Kernel, c.KernelSize, err = i.bootFile(ctx, src.Kernel); err != nil {
		return ImageInfo{}, err
	}
	if c.Initrd, c.InitrdSize, err = i.bootFile(ctx, src.Initrd); err != nil {
		return ImageInfo{}, err
	}
	c.Bytes = i.info.Bytes
	top, err := c.encode()
	if err != nil {
		return ImageInfo{}, err
	}
	// The commit goes last: where it is, what it names is.
	if err := i.batch.flush(); err != nil {
		return ImageInfo{}, err
	}
	if err := i.batch.put(top); err != nil {
		return ImageInfo{}, err
	}
	if err := i.batch.flush(); err != nil {
		return ImageInfo{}, err
	}
	i.info.Commit, i.info.Stored = top.Cid(), i.batch.bytes
	return i.info, nil
}

func (i *importer) disk(ctx context.Context, path string) (cid.Cid, error) {
	d, err := openDisk(path)
	if err != nil {
		return cid.Undef, err
	}
	defer d.Close()
	i.info.Size = d.Size()
	return i.content(ctx, d, i.progress)
}

// bootFile imports a file of any size; an empty path is none.
func (i *importer) bootFile(ctx context.Context, path string) (cid.Cid, int64, error) {
	if path == "" {
		return cid.Undef, 0, nil
	}
	f, err := openRead(path)
	if err != nil {
		return cid.Undef, 0, err
	}
	d := &rawDisk{f: f}
	defer d.Close()
	st, err := f.Stat()
	if err != nil {
		return cid.Undef, 0, err
	}
	if !st.Mode().IsRegular() || st.Size() == 0 {
		return cid.Undef, 0, fmt.Errorf("%w: %s is empty or not a regular file", ErrFormat, path)
	}
	d.size = st.Size()
	root, err := i.content(ctx, d, func(int64, int64) {})
	return root, d.size, err
}

// content stores the leaves of d and the tree over them, and returns its root.
func (i *importer) content(ctx context.Context, d disk, progress func(done, total int64)) (cid.Cid, error) {
	leafSize, size := int64(i.store.cfg.LeafSize), d.Size()
	tree := builder{put: i.batch.put}
	var dataFrom, dataTo int64 // the run of data that is at or after the leaf
	for off := int64(0); off < size; off += leafSize {
		if err := ctx.Err(); err != nil {
			return cid.Undef, err
		}
		n := min(leafSize, size-off)
		if dataTo <= off {
			var err error
			dataFrom, dataTo, err = d.Data(off)
			if errors.Is(err, io.EOF) {
				dataFrom, dataTo = size, size
			} else if err != nil {
				return cid.Undef, err
			}
		}
		c, err := i.leaf(d, off, n, dataFrom >= off+n)
		if err != nil {
			return cid.Undef, err
		}
		if err := tree.leaf(c, n); err != nil {
			return cid.Undef, err
		}
		progress(off+n, size)
	}
	return tree.root()
}

// leaf stores the leaf of n bytes at off; hole says that it is known to be zeroes.
func (i *importer) leaf(d disk, off, n int64, hole bool) (cid.Cid, error) {
	data := i.store.local.nothing[:n]
	if !hole {
		data = make([]byte, n)
		if _, err := d.ReadAt(data, off); err != nil {
			return cid.Undef, err
		}
		if bytes.Equal(data, i.store.local.nothing[:n]) {
			hole = true
		}
	}
	c, known := i.zero[n]
	if !hole || !known {
		c = cid.NewCidV1(cid.Raw, hashOf(data))
	}
	if hole {
		i.zero[n] = c
	}
	b, err := blocks.NewBlockWithCid(data, c)
	if err != nil {
		return cid.Undef, err
	}
	if i.store.local.isZero(c) {
		return c, nil
	}
	i.info.Blocks++
	i.info.Bytes += n
	return c, i.batch.put(b)
}
