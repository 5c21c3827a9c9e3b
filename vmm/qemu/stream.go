package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// queueBytes bounds what lies in the socket between QEMU and the reader: bytes
	// that wait there are downtime.
	queueBytes = 128 << 10
	endWait    = 5 * time.Second
)

// pass gives QEMU one end of a socket pair under a name, and returns the other.
func (m *Machine) pass(ctx context.Context, name string, out bool) (net.Conn, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make socket pair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), name), os.NewFile(uintptr(fds[1]), name)
	defer ours.Close()
	defer theirs.Close()
	if out {
		if err := unix.SetsockoptInt(fds[1], unix.SOL_SOCKET, unix.SO_SNDBUF, queueBytes); err != nil {
			return nil, fmt.Errorf("bound the socket's queue: %w", err)
		}
	}
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, fmt.Errorf("use socket pair: %w", err)
	}
	if err := m.why(m.mon.ExecuteFiles(ctx, "getfd", map[string]any{"fdname": name}, nil, theirs)); err != nil {
		conn.Close()
		return nil, err
	}
	m.mu.Lock()
	m.wires = append(m.wires, conn)
	m.mu.Unlock()
	return conn, nil
}

// reader is the memory stream as the migration's owner sees it. Closing it changes
// nothing for QEMU: the connection is closed by Cancel only.
type reader struct {
	m       *Machine
	conn    net.Conn
	mu      sync.Mutex // held while reading
	once    sync.Once
	evicted chan struct{}
}

// Read passes on the end only if QEMU says that the migration is complete.
func (r *reader) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.evicted:
		return 0, errCancelled
	default:
	}
	n, err := r.conn.Read(p)
	if n > 0 || err == nil {
		return n, nil
	}
	select {
	case <-r.evicted:
		return 0, errCancelled
	default:
	}
	ctx, cancel := context.WithTimeout(context.Background(), endWait)
	defer cancel()
	s, serr := r.m.await(ctx, terminal)
	switch {
	case serr != nil:
		return 0, fmt.Errorf("memory stream of %s ended early: %w", r.m.spec.Name, serr)
	case s == "completed" && errors.Is(err, io.EOF):
		return 0, io.EOF
	}
	info, _ := r.m.queryMigrate(ctx) // only for its words
	if info.Error != "" {
		s += ": " + info.Error
	}
	return 0, fmt.Errorf("memory stream of %s ended early: migration %s%s", r.m.spec.Name, s, r.m.words())
}

// Close ends reading; a Read under way returns.
func (r *reader) Close() error {
	r.evict()
	return nil
}

// evict lets no more bytes out and waits until nobody reads.
func (r *reader) evict() {
	r.once.Do(func() {
		close(r.evicted)
		_ = r.conn.SetReadDeadline(time.Unix(1, 0)) // a closed connection needs none
	})
	r.mu.Lock()
	defer r.mu.Unlock()
}

// sink reads the rest into nothing.
func (r *reader) sink() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn.SetReadDeadline(time.Time{}) == nil {
		_, _ = io.Copy(io.Discard, r.conn)
	}
}

// writer is the way into a machine that arrives.
type writer struct {
	m    *Machine
	conn net.Conn
}

// Write says in QEMU's words why it takes no more.
func (w *writer) Write(p []byte) (int, error) {
	n, err := w.conn.Write(p)
	if err != nil {
		err = w.m.whyArrival(err)
	}
	return n, err
}

func (w *writer) Close() error { return w.conn.Close() }

// whyArrival explains a failed arrival by the end of the process, which follows a
// moment after its cause.
func (m *Machine) whyArrival(err error) error {
	if waitEnd(context.Background(), m.done, endWait) {
		return fmt.Errorf("QEMU does not take the state: %w", m.gone())
	}
	return fmt.Errorf("QEMU does not take the state: %w%s", err, m.words())
}
