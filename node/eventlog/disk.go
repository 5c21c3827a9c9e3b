package eventlog

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

// disk is every step that changes the disk.
type disk struct{ fault Fault }

func (d disk) may(step string) error {
	if d.fault == nil {
		return nil
	}
	_, err := d.fault(step, 0)
	return err
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

// sync makes a file's content durable.
func (d disk) sync(f *os.File) error {
	if err := d.may("sync"); err != nil || d.fault != nil {
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

func (d disk) truncate(f *os.File, size int64) error {
	if err := d.may("truncate"); err != nil {
		return err
	}
	return f.Truncate(size)
}

func (d disk) remove(path string) error {
	if err := d.may("remove"); err != nil {
		return err
	}
	return os.Remove(path)
}

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

func (d disk) rename(from, to string) error {
	if err := d.may("rename"); err != nil {
		return err
	}
	return os.Rename(from, to)
}

// temporary ends the name of a file that is not whole yet.
const temporary = ".new"

// place makes a file with the given content appear in one step, durably.
func (d disk) place(path string, parts ...[]byte) error {
	if err := d.may("create"); err != nil {
		return fmt.Errorf("make %s: %w", path, err)
	}
	f, err := os.OpenFile(path+temporary, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("make %s: %w", path, err)
	}
	var off int64
	for _, p := range parts {
		if err == nil {
			err = d.write(f, p, off)
			off += int64(len(p))
		}
	}
	if err == nil {
		err = d.sync(f)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = d.rename(path+temporary, path)
	}
	if err == nil {
		err = d.syncDir(filepath.Dir(path))
	}
	if err != nil {
		_ = d.remove(path + temporary)
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
