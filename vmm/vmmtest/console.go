package vmmtest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Ticks reads the numbers of all whole `tick N` lines of consoles, in order, as if
// they were one: a guest that moves in the middle of a line ends it at the next.
// A console that is not there yet has none.
func Ticks(paths ...string) ([]int, error) {
	var all []byte
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("read console: %w", err)
		}
		all = append(all, b...)
	}
	all = all[:bytes.LastIndexByte(all, '\n')+1]
	var ticks []int
	for s := bufio.NewScanner(bytes.NewReader(all)); s.Scan(); {
		at := strings.LastIndex(s.Text(), "tick ") // a guest that was stopped in a line and started again
		if at < 0 {
			continue
		}
		word, _, _ := strings.Cut(s.Text()[at+len("tick "):], " ")
		n, err := strconv.Atoi(word)
		if err != nil {
			return nil, fmt.Errorf("console line %q: %w", s.Text(), err)
		}
		ticks = append(ticks, n)
	}
	return ticks, nil
}

// Contiguous says whether ticks count up by one.
func Contiguous(ticks []int) error {
	for i := 1; i < len(ticks); i++ {
		if ticks[i] != ticks[i-1]+1 {
			return fmt.Errorf("tick %d follows tick %d", ticks[i], ticks[i-1])
		}
	}
	return nil
}

// WaitTick waits until the console in dir shows a tick of at least n and returns
// the newest. It sleeps in inotify(7), not in a loop.
func WaitTick(ctx context.Context, dir string, n int) (int, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return 0, fmt.Errorf("watch console: %w", err)
	}
	w := os.NewFile(uintptr(fd), "inotify")
	defer w.Close()
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MODIFY|unix.IN_CREATE); err != nil {
		return 0, fmt.Errorf("watch %s: %w", dir, err)
	}
	defer context.AfterFunc(ctx, func() { w.SetReadDeadline(time.Unix(1, 0)) })()
	path := filepath.Join(dir, "console.log")
	var buf [4096]byte
	for {
		ticks, err := Ticks(path)
		if err != nil {
			return 0, err
		}
		last := -1
		if len(ticks) > 0 {
			last = ticks[len(ticks)-1]
		}
		if last >= n {
			return last, nil
		}
		if _, err := w.Read(buf[:]); err != nil {
			return last, fmt.Errorf("wait for tick %d in %s, the last is %d: %w", n, dir, last, errors.Join(context.Cause(ctx), err))
		}
	}
}
