package journal

import (
	"os"
	"path/filepath"
)

// Fault is for tests: it is asked before each step that changes the disk. An error
// takes the step's place. For the step "write" n is the number of bytes to be
// written, and with an error the result is how many of them get there; with other
// steps ("create", "sync", "syncdir", "truncate", "rename", "remove") both are 0. With
// a Fault no sync is waited for.
type Fault func(step string, n int) (int, error)

// disk is every step that changes the disk.
type disk struct{ fault Fault }

func (d disk) may(step string) error {
	if d.fault == nil {
		return nil
	}
	_, err := d.fault(step, 0)
	return err
}

func (d disk) create(path string) (*os.File, error) {
	if err := d.may("create"); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
}

func (d disk) write(f *os.File, b []byte, off int64) error {
	if d.fault != nil {
		if n, err := d.fault("write", len(b)); err != nil {
			_, _ = f.WriteAt(b[:min(n, len(b))], off)
			return err
		}
	}
	_, err := f.WriteAt(b, off)
	return err
}

func (d disk) sync(f *os.File) error {
	if err := d.may("sync"); err != nil || d.fault != nil {
		return err
	}
	return f.Sync()
}

// syncDir makes the names in a folder durable.
func (d disk) syncDir(dir string) error {
	if err := d.may("syncdir"); err != nil || d.fault != nil {
		return err
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func (d disk) truncate(f *os.File, size int64) error {
	if err := d.may("truncate"); err != nil {
		return err
	}
	return f.Truncate(size)
}

func (d disk) rename(from, to string) error {
	if err := d.may("rename"); err != nil {
		return err
	}
	return os.Rename(from, to)
}

func (d disk) remove(path string) error {
	if err := d.may("remove"); err != nil {
		return err
	}
	return os.Remove(path)
}

// removeSegment removes a segment and its index, which may not be there.
func (d disk) removeSegment(s *segment) error {
	_ = d.remove(s.indexPath())
	return d.remove(s.path)
}

// temporary ends the name of a file that is not whole yet.
const temporary = ".new"

// place makes a file appear with its content. It is not synced: it is for files that
// can be made again and that carry a checksum.
func (d disk) place(path string, b []byte) error {
	f, err := d.create(path + temporary)
	if err != nil {
		return err
	}
	err = d.write(f, b, 0)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = d.rename(path+temporary, path)
	}
	if err != nil {
		_ = d.remove(path + temporary)
	}
	return err
}

// clearTemporary removes what a crash left half made.
func (d disk) clearTemporary(dir string) {
	left, _ := filepath.Glob(filepath.Join(dir, "*"+temporary)) // the pattern is well formed
	for _, path := range left {
		_ = d.remove(path)
	}
}
