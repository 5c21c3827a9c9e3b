package blockstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
)

// page is the grain of holes in a materialised file, in bytes.
const page = 4096

// Materialise writes disk number disk of the image c to path: a sparse raw file
// in which everything that is zero is a hole. Every block is hashed as it is
// read. The file is written beside path and renamed when it is complete and
// synced, so a file at path is whole; one that is there already, with the disk's
// size, is kept as it is. On an error nothing is left behind.
func (s *Store) Materialise(ctx context.Context, c cid.Cid, disk int, path string) error {
	s.use.RLock()
	defer s.use.RUnlock()
	commit, err := s.localCommit(ctx, c)
	if err != nil {
		return fmt.Errorf("materialise image %s: %w", c, err)
	}
	if disk < 0 || disk >= len(commit.Disks) {
		return fmt.Errorf("materialise image %s: it has %d disks and no number %d", c, len(commit.Disks), disk)
	}
	d := commit.Disks[disk]
	if err := s.writeFile(ctx, file{d.Root, d.Size}, path); err != nil {
		return fmt.Errorf("materialise disk %s of image %s: %w", d.Name, c, err)
	}
	return nil
}

// Extract writes the UnixFS file root, such as a commit's Kernel, to path, as
// Materialise does.
func (s *Store) Extract(ctx context.Context, root cid.Cid, path string) error {
	s.use.RLock()
	defer s.use.RUnlock()
	size, err := s.fileSize(ctx, root)
	if err == nil {
		err = s.writeFile(ctx, file{root, size}, path)
	}
	if err != nil {
		return fmt.Errorf("extract file %s: %w", root, err)
	}
	return nil
}

// writeFile does the work of Materialise and Extract.
func (s *Store) writeFile(ctx context.Context, f file, path string) error {
	done, err := s.outputs.take(ctx, path)
	if err != nil {
		return err
	}
	defer done()
	if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() && st.Size() == f.size {
		return nil
	}
	need, err := s.writable(ctx, f)
	if err != nil {
		return err
	}
	if err := s.room(filepath.Dir(path), need); err != nil {
		return err
	}
	part := path + ".part"
	out, err := os.OpenFile(part, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	err = s.fill(ctx, f, out)
	err = errors.Join(err, out.Close())
	if err == nil {
		err = os.Rename(part, path)
	}
	if err != nil {
		return errors.Join(outOfSpace(err, filepath.Dir(path), need), removeIfThere(part))
	}
	return syncDir(filepath.Dir(path))
}

// writable is the number of bytes that writing f takes; all its blocks must be here.
func (s *Store) writable(ctx context.Context, f file) (int64, error) {
	var need int64
	absent, first := 0, cid.Undef
	w := walker{local: s.local, leaf: func(l leaf) error {
		need += l.size
		ok, err := s.local.Has(ctx, l.cid)
		if err == nil && !ok {
			if absent++; !first.Defined() {
				first = l.cid
			}
		}
		return err
	}}
	if err := w.file(ctx, f); err != nil {
		return 0, err
	}
	if absent > 0 {
		return 0, fmt.Errorf("%d blocks are not here, the first is %s: %w: fetch the image first", absent, first, ErrIncomplete)
	}
	return need, nil
}

// fill writes the content of f to out and syncs it.
func (s *Store) fill(ctx context.Context, f file, out *os.File) error {
	if err := out.Truncate(f.size); err != nil {
		return err
	}
	w := walker{local: s.local, leaf: func(l leaf) error {
		data, err := s.leafData(ctx, l)
		if err != nil {
			return err
		}
		return writeSparse(out, data, l.off)
	}}
	if err := w.file(ctx, f); err != nil {
		return err
	}
	return out.Sync()
}

// leafData reads and checks a leaf.
func (s *Store) leafData(ctx context.Context, l leaf) ([]byte, error) {
	b, err := s.local.Get(ctx, l.cid)
	if ipld.IsNotFound(err) {
		return nil, missing(l.cid)
	}
	if err != nil {
		return nil, err
	}
	if int64(len(b.RawData())) != l.size {
		return nil, fmt.Errorf("%w: leaf %s has %d bytes where %d are due", ErrFormat, l.cid, len(b.RawData()), l.size)
	}
	return b.RawData(), nil
}

// writeSparse writes data at off, leaving out pages of zeroes. The file must be
// zero there.
func writeSparse(out *os.File, data []byte, off int64) error {
	for len(data) > 0 {
		skip := zeroPages(data)
		data, off = data[skip:], off+int64(skip)
		n := 0
		for n < len(data) && zeroPages(data[n:]) == 0 {
			n = min(n+page, len(data))
		}
		if n == 0 {
			continue
		}
		if _, err := out.WriteAt(data[:n], off); err != nil {
			return err
		}
		data, off = data[n:], off+int64(n)
	}
	return nil
}

// zeroPages is the length of the run of zero pages at the start of data.
func zeroPages(data []byte) int {
	var none [page]byte
	n := 0
	for n < len(data) {
		end := min(n+page, len(data))
		if !bytes.Equal(data[n:end], none[:end-n]) {
			break
		}
		n = end
	}
	return n
}

// allZero reports whether data is zeroes only.
func allZero(data []byte) bool { return zeroPages(data) == len(data) }

// fileSize is the size of the UnixFS file root, whose root block must be local.
func (s *Store) fileSize(ctx context.Context, root cid.Cid) (int64, error) {
	if err := checkCID(root, cid.Raw, cid.DagProtobuf); err != nil {
		return 0, err
	}
	b, err := s.local.Get(ctx, root)
	if ipld.IsNotFound(err) {
		return 0, missing(root)
	}
	if err != nil {
		return 0, err
	}
	if root.Prefix().Codec == cid.Raw {
		return int64(len(b.RawData())), nil
	}
	return declaredSize(root, b.RawData())
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// syncDir makes a rename in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// outputs are the paths that are being written: a second caller for the same
// path waits for the first, and then finds the file complete.
type outputs struct {
	mu   sync.Mutex
	busy map[string]chan struct{}
}

// take waits until nobody writes path; call done when it is written.
func (o *outputs) take(ctx context.Context, path string) (done func(), err error) {
	for {
		o.mu.Lock()
		other := o.busy[path]
		if other == nil {
			mine := make(chan struct{})
			if o.busy == nil {
				o.busy = make(map[string]chan struct{})
			}
			o.busy[path] = mine
			o.mu.Unlock()
			return func() {
				o.mu.Lock()
				delete(o.busy, path)
				o.mu.Unlock()
				close(mine)
			}, nil
		}
		o.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
