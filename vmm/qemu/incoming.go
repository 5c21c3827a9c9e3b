package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/dcnode/dcnode/vmm/nbd"
)

// incoming is the destination's half of a migration.
type incoming struct {
	m *Machine

	mu      sync.Mutex
	disks   []*nbd.Client // nil once loaded
	stream  *writer
	loaded  bool
	loading bool // Memory was called
}

// incoming exports the overlays and waits for disks and memory.
func (m *Machine) incoming(ctx context.Context) (*incoming, error) {
	if err := m.setMigration(ctx, false, nil); err != nil {
		return nil, err
	}
	disks, err := m.export(ctx, true)
	if err != nil {
		return nil, err
	}
	return &incoming{m: m, disks: disks}, nil
}

func (in *incoming) disk(i int) (*nbd.Client, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	select {
	case <-in.m.done:
		return nil, in.m.gone()
	default:
	}
	switch {
	case in.loaded:
		return nil, errors.New("the machine has taken its state: its disks are its own")
	case i < 0 || i >= len(in.disks):
		return nil, fmt.Errorf("there is no disk %d: the machine has %d", i, len(in.disks))
	}
	return in.disks[i], nil
}

// with runs fn on a disk's connection.
func (in *incoming) with(what string, i int, fn func(*nbd.Client) error) error {
	c, err := in.disk(i)
	if err == nil {
		if err = fn(c); err != nil {
			err = in.m.whyNBD(err, c)
		}
	}
	if err != nil {
		return fmt.Errorf("%s %d: %w", what, i, err)
	}
	return nil
}

func (in *incoming) WriteDisk(ctx context.Context, disk int, p []byte, off int64) error {
	return in.with("write disk", disk, func(c *nbd.Client) error { return c.WriteAt(ctx, p, off) })
}

func (in *incoming) ZeroDisk(ctx context.Context, disk int, off, n int64) error {
	return in.with("zero disk", disk, func(c *nbd.Client) error { return c.WriteZeroes(ctx, off, n, false) })
}

func (in *incoming) Flush(ctx context.Context) error {
	for i := range in.m.files.Disks {
		if err := in.with("flush disk", i, func(c *nbd.Client) error { return c.Flush(ctx) }); err != nil {
			return err
		}
	}
	return nil
}

// Memory gives QEMU one end of a socket pair and hands out the other.
func (in *incoming) Memory(ctx context.Context) (io.WriteCloser, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.loading {
		return nil, errors.New("receive memory: it is being received already")
	}
	conn, err := in.m.pass(ctx, "dcnode-in", false)
	if err != nil {
		return nil, fmt.Errorf("receive memory: %w", err)
	}
	in.m.migration.set("setup")
	if err := in.m.run(ctx, "migrate-incoming", map[string]any{"uri": "fd:dcnode-in"}); err != nil {
		conn.Close()
		return nil, fmt.Errorf("receive memory: %w", err)
	}
	in.loading = true
	in.stream = &writer{m: in.m, conn: conn}
	return in.stream, nil
}

// Loaded waits for QEMU to have loaded everything, and takes the disks away from
// the exports.
func (in *incoming) Loaded(ctx context.Context) error {
	s, err := in.m.await(ctx, func(s string) bool { return terminal(s) && s != "none" })
	if err != nil {
		return fmt.Errorf("load %s: %w", in.m.spec.Name, err)
	}
	if s != "completed" {
		return fmt.Errorf("load %s: %w", in.m.spec.Name, in.m.whyArrival(fmt.Errorf("migration %s", s)))
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.loaded {
		return nil
	}
	in.loaded = true
	for _, c := range in.disks {
		c.Close()
	}
	if in.disks != nil {
		err = in.m.stopNBD(ctx)
	}
	in.disks = nil
	if err == nil {
		s, err = in.m.runState(ctx)
	}
	if err == nil && (s == "inmigrate" || s == "running") {
		err = fmt.Errorf("QEMU is %s after the load", s)
	}
	if err != nil {
		return fmt.Errorf("load %s: %w", in.m.spec.Name, err)
	}
	return nil
}
