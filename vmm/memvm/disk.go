package memvm

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/dcnode/dcnode/vmm"
)

// What the map says of each block: one byte a block in the file NAME.map.
const (
	inBase  = 0 // the base's, or zero where the base ends
	inData  = 1 // the overlay file's
	inZeros = 2 // zero, whatever the base holds
)

// disk is a base with a writable overlay: a sparse file and a map of it. A block's
// bytes are written before its mark, so that a crash leaves whole old or new blocks
// as far as the host's page cache survives.
type disk struct {
	vmm.Disk
	mu    sync.RWMutex
	base  *os.File // nil: none
	data  *os.File
	index *os.File
	where []byte
	wrote int64  // bytes of data, since it was opened
	dirty bitmap // nil when nobody asks
}

func overlayPath(dir, name string) string { return filepath.Join(dir, name+".overlay") }
func mapPath(dir, name string) string     { return filepath.Join(dir, name+".map") }

// openMode says what to do with the overlay that is there.
type openMode int

const (
	keep     openMode = iota // make it if it is missing
	fresh                    // empty it
	readOnly                 // a missing one is empty
)

// openDisk opens a base and the overlay over it in dir.
func openDisk(dir string, d vmm.Disk, mode openMode) (_ *disk, err error) {
	if d.Name == "" || d.Name != filepath.Base(d.Name) || d.Size <= 0 || d.Size%pageSize != 0 {
		return nil, fmt.Errorf("disk %q of %d bytes: give a plain name and a positive multiple of 4096 bytes", d.Name, d.Size)
	}
	k := &disk{Disk: d, where: make([]byte, d.Size/pageSize)}
	defer func() {
		if err != nil {
			k.close()
		}
	}()
	if d.Base != "" {
		if k.base, err = os.Open(d.Base); err != nil {
			return nil, fmt.Errorf("open base of %s: %w", d.Name, err)
		}
	}
	if err := k.openOverlay(dir, mode); err != nil {
		return nil, err
	}
	for b, w := range k.where {
		if w > inZeros {
			return nil, fmt.Errorf("overlay map of %s is damaged at block %d (%d): remove %s to lose the overlay", d.Name, b, w, mapPath(dir, d.Name))
		}
	}
	return k, nil
}

func (k *disk) openOverlay(dir string, mode openMode) (err error) {
	flags := map[openMode]int{keep: os.O_RDWR | os.O_CREATE, fresh: os.O_RDWR | os.O_CREATE | os.O_TRUNC, readOnly: os.O_RDONLY}[mode]
	k.index, err = os.OpenFile(mapPath(dir, k.Name), flags, 0o600)
	if mode == readOnly && errors.Is(err, os.ErrNotExist) {
		k.index = nil
		return nil
	}
	if err != nil {
		return fmt.Errorf("open overlay map of %s: %w", k.Name, err)
	}
	if k.data, err = os.OpenFile(overlayPath(dir, k.Name), flags, 0o600); err != nil {
		return fmt.Errorf("open overlay of %s: %w", k.Name, err)
	}
	if mode != readOnly {
		if err := errors.Join(k.data.Truncate(k.Size), k.index.Truncate(int64(len(k.where)))); err != nil {
			return fmt.Errorf("size overlay of %s: %w", k.Name, err)
		}
	}
	if _, err := k.index.ReadAt(k.where, 0); err != nil {
		return fmt.Errorf("read overlay map of %s: %w", k.Name, err)
	}
	return nil
}

func (k *disk) close() error {
	var errs []error
	for _, f := range []*os.File{k.base, k.data, k.index} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

func (k *disk) check(off, n int64) error {
	if off < 0 || n < 0 || off%pageSize != 0 || n%pageSize != 0 || off > k.Size-n {
		return fmt.Errorf("disk %s of %d bytes: %d bytes at %d are outside it or not whole blocks of 4096", k.Name, k.Size, n, off)
	}
	return nil
}

func (k *disk) read(p []byte, off int64) error {
	if err := k.check(off, int64(len(p))); err != nil {
		return err
	}
	k.mu.RLock()
	defer k.mu.RUnlock()
	for ; len(p) > 0; p, off = p[pageSize:], off+pageSize {
		var err error
		switch q := p[:pageSize]; k.where[off/pageSize] {
		case inData:
			_, err = k.data.ReadAt(q, off)
		case inZeros:
			clear(q)
		default:
			_, err = k.readBase(q, off)
		}
		if err != nil {
			return fmt.Errorf("read disk %s at %d: %w", k.Name, off, err)
		}
	}
	return nil
}

// readBase reads one block of the base; some is false where it has none.
func (k *disk) readBase(p []byte, off int64) (some bool, err error) {
	clear(p)
	if k.base == nil {
		return false, nil
	}
	n, err := k.base.ReadAt(p, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	return n > 0, nil
}

func (k *disk) write(p []byte, off int64) error {
	if err := k.check(off, int64(len(p))); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, err := k.data.WriteAt(p, off); err != nil {
		return fmt.Errorf("write disk %s at %d: %w", k.Name, off, err)
	}
	k.wrote += int64(len(p))
	return k.mark(off, int64(len(p)), inData)
}

func (k *disk) zero(off, n int64) error {
	if err := k.check(off, n); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.mark(off, n, inZeros)
}

func (k *disk) mark(off, n int64, w byte) error {
	a, b := off/pageSize, (off+n)/pageSize
	for i := a; i < b; i++ {
		k.where[i] = w
		if k.dirty != nil {
			k.dirty.set(i)
		}
	}
	if _, err := k.index.WriteAt(k.where[a:b], a); err != nil {
		return fmt.Errorf("write overlay map of %s: %w", k.Name, err)
	}
	return nil
}

func (k *disk) sync() error { return errors.Join(k.data.Sync(), k.index.Sync()) }

// own is how many bytes of data the overlay holds.
func (k *disk) own() (n int64) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	for _, w := range k.where {
		if w == inData {
			n += pageSize
		}
	}
	return n
}

// track starts to mark writes; everything in the overlay counts as written.
func (k *disk) track() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dirty = newBitmap(int64(len(k.where)))
	for i, w := range k.where {
		if w != inBase {
			k.dirty.set(int64(i))
		}
	}
}

func (k *disk) untrack() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dirty = nil
}

// changes returns the runs written since the call before and forgets them.
func (k *disk) changes(index int) (out []vmm.Extent) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := k.dirty.next(0); i >= 0; i = k.dirty.next(i + 1) {
		e := vmm.Extent{Disk: index, Offset: i * pageSize, Length: pageSize, Zero: k.where[i] == inZeros}
		if n := len(out); n > 0 && out[n-1].Zero == e.Zero && out[n-1].Offset+out[n-1].Length == e.Offset {
			out[n-1].Length += pageSize
			continue
		}
		out = append(out, e)
	}
	clear(k.dirty)
	return out
}
