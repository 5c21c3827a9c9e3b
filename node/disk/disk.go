// Package disk is every step by which a log changes the disk. A test can take the place
// of each and so play a full disk, a crash or a power cut.
package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Fault is for tests: it is asked before each step that changes the disk. An error
// takes the step's place. For the step "write" n is the number of bytes to be
// written, and with an error the result is how many of them get there; with other
// steps ("sync", "create", "rename", "syncdir", "truncate", "remove") both are 0. With a
// Fault no sync is waited for: it is for the Fault to say what it was worth.
type Fault func(step string, n int) (int, error)

// Disk takes the steps, as its Fault lets it; nil: all of them.
type Disk struct{ Fault Fault }

// temporary ends the name of a file that is not whole yet.
const temporary = ".new"

func (d Disk) may(step string) error {
	if d.Fault == nil {
		return nil
	}
	_, err := d.Fault(step, 0)
	return err
}

// Create makes an empty file, in place of one that is there.
func (d Disk) Create(path string) (*os.File, error) {
	if err := d.may("create"); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
}

// Write writes b at an offset. With an error, some of it may be there.
func (d Disk) Write(f *os.File, b []byte, off int64) error {
	if d.Fault != nil {
		if n, err := d.Fault("write", len(b)); err != nil {
			_, _ = f.WriteAt(b[:min(n, len(b))], off)
			return err
		}
	}
	_, err := f.WriteAt(b, off)
	return err
}

// Sync makes a file's content durable, and its length.
func (d Disk) Sync(f *os.File) error {
	if err := d.may("sync"); err != nil || d.Fault != nil {
		return err
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	err = raw.Control(func(fd uintptr) {
		for serr = unix.Fdatasync(int(fd)); errors.Is(serr, unix.EINTR); serr = unix.Fdatasync(int(fd)) {
		}
	})
	if err == nil && serr != nil {
		err = os.NewSyscallError("fdatasync", serr)
	}
	return err
}

// SyncDir makes the names in a folder durable.
func (d Disk) SyncDir(dir string) error {
	if err := d.may("syncdir"); err != nil || d.Fault != nil {
		return err
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// Truncate cuts a file.
func (d Disk) Truncate(f *os.File, size int64) error {
	if err := d.may("truncate"); err != nil {
		return err
	}
	return f.Truncate(size)
}

// Rename gives a file another name, in place of a file that has it.
func (d Disk) Rename(from, to string) error {
	if err := d.may("rename"); err != nil {
		return err
	}
	return os.Rename(from, to)
}

// Remove removes a file.
func (d Disk) Remove(path string) error {
	if err := d.may("remove"); err != nil {
		return err
	}
	return os.Remove(path)
}

// Place makes a file with the given content appear in one step, durably.
func (d Disk) Place(path string, parts ...[]byte) error { return d.place(path, true, parts) }

// PlaceUnsynced is Place for what can be made again and carries a checksum: a power cut
// may lose or damage it.
func (d Disk) PlaceUnsynced(path string, parts ...[]byte) error { return d.place(path, false, parts) }

func (d Disk) place(path string, durably bool, parts [][]byte) error {
	f, err := d.Create(path + temporary)
	if err != nil {
		return fmt.Errorf("make %s: %w", path, err)
	}
	var off int64
	for _, p := range parts {
		if err == nil {
			err = d.Write(f, p, off)
			off += int64(len(p))
		}
	}
	if err == nil && durably {
		err = d.Sync(f)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = d.Rename(path+temporary, path)
	}
	if err == nil && durably {
		err = d.SyncDir(filepath.Dir(path))
	}
	if err != nil {
		_ = d.Remove(path + temporary)
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// ClearTemporary removes what a crash left half placed in a folder.
func (d Disk) ClearTemporary(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, "*"+temporary))
	for _, path := range left {
		err = errors.Join(err, d.Remove(path))
	}
	return err
}
