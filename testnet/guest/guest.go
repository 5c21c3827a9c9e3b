// Package guest makes the machine that the test network moves about, and reads
// what it says.
//
// The machine is Debian's cloud kernel, an initial RAM disk with busybox, the
// virtio drivers and the workload (package testnet/guest/workload), and a disk
// of 512 MiB with some 90 MiB of real files. Everything comes from Debian's
// packages, unpacked privately, and from files written here; nothing is
// installed and nothing needs root. [Prepare] does it once and caches the
// result under a key of what went in.
//
// The workload prints a tick every 10 ms and, about every second, whether all of
// its memory and disk is still as it should be. [Watch] follows a console file
// and stamps each line as it appears; [Compare] sets the ticks of two sites side
// by side and says how long the machine stood still in between, and whether
// anything is missing, was repeated or ran at both.
package guest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/dcnode/dcnode/scripts"
)

// recipe names what the files are made of and how; it changes when that does.
const recipe = "1"

// kernelLine is the kernel's command line. The kernel is silent but for a panic, and
// leaves out what a guest that lives for minutes does not need.
const kernelLine = "console=ttyS0 quiet loglevel=3 panic=-1 mitigations=off " +
	"random.trust_cpu=on rcupdate.rcu_expedited=1 i8042.noaux 8250.nr_uarts=1 cryptomgr.notests"

// Options say where a guest is made.
type Options struct {
	// CacheDir keeps what was made; empty: ${XDG_CACHE_HOME:-~/.cache}/dcnode.
	// It should be where the scripts keep QEMU, but need not be.
	CacheDir string
	// Workload is the path of the static program dcnode-guest.
	Workload string
	// Log may be nil.
	Log *slog.Logger
}

// Guest is a machine to start, as paths of files that must not be changed.
type Guest struct {
	Kernel string // vmlinuz
	Initrd string // initial RAM disk: cpio, gzip
	Disk   string // raw ext4, sparse, 512 MiB: the base of the machine's /dev/vda
	Append string // kernel command line; dcnode.NAME=N adds parameters of the workload
}

// DiskSize is the size of [Guest.Disk] in bytes.
const DiskSize = 512 << 20

// Prepare makes a guest, or finds the one made before. The first call downloads
// 28 MB and takes about ten seconds. Errors name the cause and the remedy.
func Prepare(ctx context.Context, o Options) (Guest, error) {
	if o.Log == nil {
		o.Log = discard()
	}
	if o.CacheDir == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return Guest{}, fmt.Errorf("find the cache folder: %w; remedy: set XDG_CACHE_HOME", err)
		}
		o.CacheDir = filepath.Join(dir, "dcnode")
	}
	workload, err := os.ReadFile(o.Workload)
	if err != nil {
		return Guest{}, fmt.Errorf("read the guest's workload: %w; remedy: build it with make guest", err)
	}
	packages := filepath.Join(o.CacheDir, "guest-packages-"+recipe)
	if err := scripts.Debs(ctx, o.Log, packages, "linux-image-cloud-amd64", "busybox-static"); err != nil {
		return Guest{}, fmt.Errorf("unpack the guest's packages: %w", err)
	}
	root, err := openPackages(packages)
	if err != nil {
		return Guest{}, err
	}
	g := Guest{Kernel: root.kernel(), Append: kernelLine}
	g.Initrd, err = cached(o, "guest-initrd", "initrd.img", key(root.versions, initScript, workload), func(path string) error {
		return writeInitrd(path, root, workload)
	})
	if err != nil {
		return Guest{}, fmt.Errorf("make the guest's initial RAM disk: %w", err)
	}
	g.Disk, err = cached(o, "guest-disk", "base.raw", key(root.versions), func(path string) error {
		return writeDisk(ctx, path, root, o)
	})
	if err != nil {
		return Guest{}, fmt.Errorf("make the guest's disk: %w", err)
	}
	return g, nil
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// key is the name of what is made of parts by this recipe.
func key(parts ...[]byte) string {
	h := sha256.New()
	h.Write([]byte(recipe))
	for _, part := range parts {
		sum := sha256.Sum256(part)
		h.Write(sum[:])
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// cached returns CACHE/kind-key/name, and makes it first if it is not there. The
// folder appears complete or not at all.
func cached(o Options, kind, name, key string, write func(path string) error) (string, error) {
	dir := filepath.Join(o.CacheDir, kind+"-"+key)
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err == nil {
		now := time.Now()
		_ = os.Chtimes(dir, now, now) // used: see forget
		return path, nil
	}
	forget(o.CacheDir, kind)
	o.Log.Info("makes " + path)
	staging, err := os.MkdirTemp(o.CacheDir, kind+"-part.")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(staging)
	if err := write(filepath.Join(staging, name)); err != nil {
		return "", err
	}
	if err := os.Chmod(staging, 0o755); err != nil {
		return "", err
	}
	err = os.Rename(staging, dir)
	if errors.Is(err, fs.ErrExist) { // another process was faster
		err = nil
	}
	return path, err
}

// forget removes what nobody has used for a week: earlier versions and what was
// left by a process that was killed.
func forget(cacheDir, kind string) {
	folders, _ := filepath.Glob(filepath.Join(cacheDir, kind+"-*"))
	for _, folder := range folders {
		if info, err := os.Stat(folder); err == nil && time.Since(info.ModTime()) > 7*24*time.Hour {
			os.RemoveAll(folder)
		}
	}
}
