package qemu

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/dcnode/dcnode/vmm"
)

// maxSocketDir leaves room for the longest name of a socket in sockaddr_un's 108 bytes.
const maxSocketDir = 107 - len("/fence.sock")

// paths are the files of one machine.
type paths struct {
	dir  string // Files.Dir, absolute
	sock string // where sockets are: dir, or a short stand-in
}

// resolve names a machine's files. It makes nothing.
func resolve(f vmm.Files) (paths, error) {
	dir, err := filepath.Abs(f.Dir)
	if err != nil {
		return paths{}, err
	}
	p := paths{dir: dir, sock: dir}
	if len(dir) > maxSocketDir {
		sum := sha256.Sum256([]byte(dir))
		p.sock = filepath.Join("/tmp", "dcnode-"+hex.EncodeToString(sum[:8]))
	}
	return p, nil
}

// ready makes the stand-in for a directory too long for sockets: private, and ours.
func (p paths) ready() error {
	if p.sock == p.dir {
		return nil
	}
	if err := os.Mkdir(p.sock, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make socket directory: %w", err)
	}
	st, err := os.Lstat(p.sock)
	if err != nil {
		return fmt.Errorf("make socket directory: %w", err)
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); !ok || !st.IsDir() || int(sys.Uid) != os.Geteuid() || st.Mode().Perm() != 0o700 {
		return fmt.Errorf("socket directory %s belongs to someone else: remove it, or use a shorter data directory than %s", p.sock, p.dir)
	}
	return nil
}

func (p paths) qmp() string                { return filepath.Join(p.sock, "qmp.sock") }
func (p paths) nbd() string                { return filepath.Join(p.sock, "nbd.sock") }
func (p paths) fence() string              { return filepath.Join(p.sock, "fence.sock") }
func (p paths) pid() string                { return filepath.Join(p.dir, "qemu.pid") }
func (p paths) log() string                { return filepath.Join(p.dir, "qemu.log") }
func (p paths) sample() string             { return filepath.Join(p.dir, "sample.page") }
func (p paths) console() string            { return filepath.Join(p.dir, "console.log") }
func (p paths) overlay(disk string) string { return filepath.Join(p.dir, disk+".qcow2") }

// removeRuntime removes what only a living machine needs.
func (p paths) removeRuntime() error {
	err := errors.Join(remove(p.qmp()), remove(p.nbd()), remove(p.fence()), remove(p.pid()), remove(p.sample()))
	if p.sock != p.dir {
		err = errors.Join(err, remove(p.sock))
	}
	return err
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
