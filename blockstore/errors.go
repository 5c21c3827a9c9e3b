package blockstore

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Errors that callers branch on; the text around them has the cause and the remedy.
var (
	// ErrCorrupt: a stored block does not match its CID.
	ErrCorrupt = errors.New("block is corrupt")
	// ErrIncomplete: blocks of the image are missing from this store.
	ErrIncomplete = errors.New("image is incomplete here")
	// ErrNotHeld: every holder says that it does not have, or may not give, a block.
	ErrNotHeld = errors.New("no holder gives the block")
	// ErrStalled: no block arrived for Config.StallTimeout.
	ErrStalled = errors.New("transfer stalled")
	// ErrNoSpace: the filesystem has not enough room.
	ErrNoSpace = errors.New("not enough disk space")
	// ErrBusy: blocks cannot be removed while images are read or written.
	ErrBusy = errors.New("store is busy")
	// ErrLocked: another process has the store open.
	ErrLocked = errors.New("store is in use")
	// ErrFormat: an image, commit or DAG is malformed, or of a kind that is not read here.
	ErrFormat = errors.New("not a usable image")
	// ErrOffline: Join was not called, so nothing can be fetched.
	ErrOffline = errors.New("store has not joined the network")
)

// outOfSpace turns a full disk into an error that names the place; other errors pass.
func outOfSpace(err error, path string, need int64) error {
	if err == nil || !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
		return err
	}
	return fmt.Errorf("write below %s: %w: %s needed: free some, or use a larger disk: %w",
		path, ErrNoSpace, bytesText(need), err)
}

// bytesText says a number of bytes as people read it.
func bytesText(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d bytes", n)
	}
	v, suffix := float64(n)/unit, 0
	for v >= unit && suffix < 4 {
		v, suffix = v/unit, suffix+1
	}
	return fmt.Sprintf("%.1f %s (%d bytes)", v, [...]string{"KiB", "MiB", "GiB", "TiB", "PiB"}[suffix], n)
}
