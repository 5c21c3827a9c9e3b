package memvm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dcnode/dcnode/vmm"
)

// CPUFeatures are those that the machine was started with.
func (m *Machine) CPUFeatures(ctx context.Context) ([]string, error) {
	return featuresOf(m.spec), ctx.Err()
}

// SampleMemory copies pages chosen at random.
func (m *Machine) SampleMemory(ctx context.Context, n int) ([]byte, error) {
	if n < 1 || n > vmm.MaxSample {
		return nil, fmt.Errorf("sample memory of %s: %d pages: ask for 1 to %d", m.spec.Name, n, vmm.MaxSample)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := errors.Join(m.has(), ctx.Err()); err != nil {
		return nil, fmt.Errorf("sample memory of %s: %w", m.spec.Name, err)
	}
	index := vmm.PickPages(n, m.mem.pages())
	out := make([]byte, 0, len(index)*pageSize)
	for _, i := range index {
		out = append(out, m.mem.page(i)...)
	}
	return out, nil
}

// has says why the machine has no memory to look at. The caller holds the lock.
func (m *Machine) has() error {
	switch m.state {
	case vmm.Ended:
		return m.gone()
	case vmm.Arriving:
		return errors.New("its state has not arrived")
	}
	return nil
}

// DirtyRate counts the pages that the CPU writes in the given time.
func (m *Machine) DirtyRate(ctx context.Context, over time.Duration) (int64, error) {
	if over < vmm.MinWatch || over > vmm.MaxWatch {
		return 0, fmt.Errorf("watch memory of %s for %v: use %v to %v", m.spec.Name, over, vmm.MinWatch, vmm.MaxWatch)
	}
	mine, err := m.startWatch()
	if err != nil {
		return 0, fmt.Errorf("watch memory of %s: %w", m.spec.Name, err)
	}
	began := time.Now()
	t := time.NewTimer(over)
	defer t.Stop()
	select {
	case <-t.C:
	case <-m.done:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mem.seen = nil
	if err = errors.Join(err, m.has()); err != nil {
		return 0, fmt.Errorf("watch memory of %s: %w", m.spec.Name, err)
	}
	return int64(float64(mine.count()*pageSize) / time.Since(began).Seconds()), nil
}

func (m *Machine) startWatch() (bitmap, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.has(); err != nil {
		return nil, err
	}
	if m.mem.seen != nil {
		return nil, errors.New("it is being watched already: wait for the answer")
	}
	m.mem.seen = newBitmap(m.mem.pages())
	return m.mem.seen, nil
}

// OwnBytes counts the blocks of data in the overlays.
func (m *Machine) OwnBytes(ctx context.Context) (int64, error) {
	var n int64
	for _, k := range m.disks {
		n += k.own()
	}
	return n, ctx.Err()
}

// DiskRate counts what is written to the disks in the given time.
func (m *Machine) DiskRate(ctx context.Context, over time.Duration) (int64, error) {
	if over < vmm.MinWatch || over > vmm.MaxWatch {
		return 0, fmt.Errorf("watch disks of %s for %v: use %v to %v", m.spec.Name, over, vmm.MinWatch, vmm.MaxWatch)
	}
	before, began := m.written(), time.Now()
	t := time.NewTimer(over)
	defer t.Stop()
	select {
	case <-t.C:
	case <-m.done:
	case <-ctx.Done():
		return 0, fmt.Errorf("watch disks of %s: %w", m.spec.Name, context.Cause(ctx))
	}
	return int64(float64(m.written()-before) / time.Since(began).Seconds()), nil
}

func (m *Machine) written() (n int64) {
	for _, k := range m.disks {
		k.mu.RLock()
		n += k.wrote
		k.mu.RUnlock()
	}
	return n
}
