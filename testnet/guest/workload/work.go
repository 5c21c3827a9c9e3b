package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	pageSize  = 4096
	blockSize = 64 << 10
	stride    = 8 // blocks read at once by a check
)

// work is the working set: pages in memory, blocks in a file, and what each
// should hold.
type work struct {
	config
	pages    []byte
	pageWant []uint32 // generations
	pageLock sync.Mutex

	file      *os.File
	direct    bool // reads and writes go past the page cache
	blockWant []uint32
	blockLock sync.Mutex
	buffer    []byte // a block for the writer, then a stride for the checker; aligned

	pageWrites, blockWrites atomic.Uint64
	broken                  atomic.Pointer[error] // of a writer
}

// newWork makes pages and file, all of generation 0.
func newWork(c config) (*work, error) {
	w := &work{config: c}
	var err error
	// mmap aligns to pages, as direct I/O wants it.
	anonymous := func(n int) ([]byte, error) {
		return unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	}
	if w.pages, err = anonymous(max(c.memory<<20, pageSize)); err != nil {
		return nil, fmt.Errorf("take %d MiB of memory: %w", c.memory, err)
	}
	if w.buffer, err = anonymous((1 + stride) * blockSize); err != nil {
		return nil, fmt.Errorf("take memory: %w", err)
	}
	w.pageWant = make([]uint32, len(w.pages)/pageSize)
	for i := range w.pageWant {
		w.page(i).fill(uint32(i), 0)
	}
	w.blockWant = make([]uint32, c.disk<<20/blockSize)
	return w, w.createFile()
}

func (w *work) createFile() error {
	_ = os.Remove(w.config.file)
	var err error
	const flags = os.O_RDWR | os.O_CREATE | os.O_EXCL
	w.file, err = os.OpenFile(w.config.file, flags|unix.O_DIRECT, 0o600)
	w.direct = err == nil
	if errors.Is(err, unix.EINVAL) { // a file system without direct I/O
		_ = os.Remove(w.config.file)
		w.file, err = os.OpenFile(w.config.file, flags, 0o600)
	}
	if err != nil {
		return fmt.Errorf("create the file of blocks: %w", err)
	}
	for i := range w.blockWant {
		if err := w.writeBlock(i, 0); err != nil {
			return err
		}
	}
	return w.file.Sync()
}

func (w *work) close() { w.file.Close() }

func (w *work) page(i int) cell { return w.pages[i*pageSize : (i+1)*pageSize] }

func (w *work) writeBlock(i int, generation uint32) error {
	c := cell(w.buffer[:blockSize])
	c.fill(uint32(i), generation)
	if _, err := w.file.WriteAt(c, int64(i)*blockSize); err != nil {
		return fmt.Errorf("write block %d: %w", i, err)
	}
	return nil
}

// writePages rewrites pages in a random but repeatable order at the rate asked for.
func (w *work) writePages(ctx context.Context) {
	choice := uint64(1)
	pace(ctx, w.memoryRate<<10/pageSize, func() bool {
		choice = scramble(choice)
		w.pageLock.Lock()
		defer w.pageLock.Unlock()
		i := int(choice % uint64(len(w.pageWant)))
		w.pageWant[i]++
		w.page(i).fill(uint32(i), w.pageWant[i])
		w.pageWrites.Add(1)
		return true
	})
}

// writeBlocks does the same to blocks.
func (w *work) writeBlocks(ctx context.Context) {
	if len(w.blockWant) == 0 {
		return
	}
	choice := uint64(2)
	pace(ctx, w.diskRate<<10/blockSize, func() bool {
		choice = scramble(choice)
		w.blockLock.Lock()
		defer w.blockLock.Unlock()
		i := int(choice % uint64(len(w.blockWant)))
		w.blockWant[i]++
		if err := w.writeBlock(i, w.blockWant[i]); err != nil {
			w.broken.Store(&err)
			return false
		}
		w.blockWrites.Add(1)
		return true
	})
}

// pace calls do rate times a second until it says no or ctx ends. What the
// machine missed while it stood still is not made up for.
func pace(ctx context.Context, rate int, do func() bool) {
	if rate <= 0 {
		return
	}
	step := max(period, time.Second/time.Duration(rate))
	owed, last := 0.0, now()
	for ctx.Err() == nil {
		sleepUntil(now() + step)
		t := now()
		owed = min(owed+float64(rate)*(t-last).Seconds(), float64(rate)/4+1)
		for last = t; owed >= 1; owed-- {
			if !do() {
				return
			}
		}
	}
}

// checkForever checks about once a second and when asked, and prints what it found.
func (w *work) checkForever(ctx context.Context, asked <-chan struct{}, out io.Writer) error {
	for first := true; ctx.Err() == nil; first = false {
		start := now()
		if err := w.check(); err != nil {
			return err
		}
		pages, blocks := w.pageWrites.Load(), w.blockWrites.Load()
		fmt.Fprintf(out, "check ok pages=%d blocks=%d gen=%d writes=%d seconds=%.2f\n",
			len(w.pageWant), len(w.blockWant), pages+blocks, blocks, (now() - start).Seconds())
		if first {
			fmt.Fprintf(out, "ready pages=%d blocks=%d\n", len(w.pageWant), len(w.blockWant))
		}
		select {
		case <-ctx.Done():
		case <-asked:
		case <-time.After(max(0, time.Second-(now()-start))):
		}
	}
	return nil
}

// check goes through all pages and all blocks.
func (w *work) check() error {
	if err := w.broken.Load(); err != nil {
		return *err
	}
	for i := range w.pageWant {
		w.pageLock.Lock()
		err := w.page(i).check(uint32(i), w.pageWant[i])
		w.pageLock.Unlock()
		if err != nil {
			return fmt.Errorf("page %d: %w", i, err)
		}
	}
	if !w.direct { // else the page cache would answer for the disk
		if err := w.file.Sync(); err != nil {
			return fmt.Errorf("sync: %w", err)
		}
		_ = unix.Fadvise(int(w.file.Fd()), 0, 0, unix.FADV_DONTNEED)
	}
	for i := 0; i < len(w.blockWant); i += stride {
		if err := w.checkBlocks(i, min(i+stride, len(w.blockWant))); err != nil {
			return err
		}
	}
	return nil
}

func (w *work) checkBlocks(first, end int) error {
	p := w.buffer[blockSize:][:(end-first)*blockSize]
	w.blockLock.Lock()
	defer w.blockLock.Unlock()
	if _, err := w.file.ReadAt(p, int64(first)*blockSize); err != nil {
		return fmt.Errorf("blocks %d to %d: %w", first, end-1, err)
	}
	for i := first; i < end; i++ {
		if err := cell(p[:blockSize]).check(uint32(i), w.blockWant[i]); err != nil {
			return fmt.Errorf("block %d: %w", i, err)
		}
		p = p[blockSize:]
	}
	return nil
}

// warm reads up to limit bytes of the files under tree, so that the guest's page
// cache holds what its disk holds, as in any machine that has been up for a
// while. It returns the bytes read.
func warm(tree string, limit int64) int64 {
	left := limit
	buffer := make([]byte, 1<<20)
	_ = filepath.WalkDir(tree, func(path string, entry os.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return nil
		}
		if left <= 0 {
			return filepath.SkipAll
		}
		f, err := os.Open(path)
		if err != nil {
			return nil
		}
		_ = unix.Fadvise(int(f.Fd()), 0, left, unix.FADV_WILLNEED) // in few large requests
		for n := 1; n > 0 && left > 0; left -= int64(n) {
			n, _ = f.Read(buffer[:min(left, int64(len(buffer)))])
		}
		return f.Close()
	})
	return limit - left
}
