package memvm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/dcnode/dcnode/vmm"
)

// incoming is the destination's half of a migration.
type incoming struct {
	m      *Machine
	pr     *io.PipeReader
	pw     *io.PipeWriter
	once   sync.Once
	taken  chan struct{} // closed by the first Memory
	loaded chan struct{} // closed when the loader has ended
	state  cpuState
	err    error // of the loader, valid after loaded

	mu    sync.Mutex
	ready bool // Loaded has succeeded
}

func newIncoming(m *Machine) *incoming {
	in := &incoming{m: m, taken: make(chan struct{}), loaded: make(chan struct{})}
	in.pr, in.pw = io.Pipe()
	go in.load()
	return in
}

// load stores pages until the stream or the machine ends.
func (in *incoming) load() {
	defer close(in.loaded)
	over := make(chan struct{})
	defer close(over)
	go func() {
		select {
		case <-in.m.done:
			in.pr.CloseWithError(in.m.gone())
		case <-over:
		}
	}()
	in.state, in.err = newDecoder(in.pr, in.m.mem.pages(), in.put).all()
	if in.err == nil {
		in.err = in.accept()
	}
	select {
	case <-in.m.done:
		in.err = in.m.gone()
	default:
	}
	if in.err != nil {
		in.pr.CloseWithError(in.err)
	}
}

func (in *incoming) put(i int64, p []byte) {
	in.m.mu.Lock()
	defer in.m.mu.Unlock()
	in.m.mem.put(i, p)
}

// accept compares what was stored with what the source says it sent.
func (in *incoming) accept() error {
	in.m.mu.Lock()
	defer in.m.mu.Unlock()
	s := in.state
	if s.Seed != in.m.spec.Seed {
		return bad("it is the state of seed %d, this machine has seed %d", s.Seed, in.m.spec.Seed)
	}
	if err := s.Prog.check(s.Step); err != nil {
		return bad("%v", err)
	}
	if got := s.seal(in.m.mem.sum); got != s.Digest {
		return fmt.Errorf("state of %s arrived damaged: digest %.8x, the source sent %.8x: a page was lost, torn, stale or misplaced", in.m.spec.Name, got, s.Digest)
	}
	return nil
}

func (in *incoming) disk(ctx context.Context, i int) (*disk, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	select {
	case <-in.m.done:
		return nil, in.m.gone()
	default:
	}
	switch {
	case in.ready:
		return nil, errors.New("the machine has taken its state: its disks are its own")
	case i < 0 || i >= len(in.m.disks):
		return nil, fmt.Errorf("there is no disk %d: the machine has %d", i, len(in.m.disks))
	}
	return in.m.disks[i], ctx.Err()
}

func (in *incoming) WriteDisk(ctx context.Context, disk int, p []byte, off int64) error {
	k, err := in.disk(ctx, disk)
	if err == nil {
		err = k.write(p, off)
	}
	return in.why("write disk", err)
}

func (in *incoming) ZeroDisk(ctx context.Context, disk int, off, n int64) error {
	k, err := in.disk(ctx, disk)
	if err == nil {
		err = k.zero(off, n)
	}
	return in.why("zero disk", err)
}

func (in *incoming) Flush(ctx context.Context) error {
	for i := range in.m.disks {
		k, err := in.disk(ctx, i)
		if err == nil {
			err = k.sync()
		}
		if err != nil {
			return in.why("flush disks", err)
		}
	}
	return nil
}

// why names the machine's end as the cause of what failed because of it.
func (in *incoming) why(what string, err error) error {
	if err == nil {
		return nil
	}
	select {
	case <-in.m.done:
		return fmt.Errorf("%s: %w", what, in.m.gone())
	default:
		return fmt.Errorf("%s: %w", what, err)
	}
}

// Memory hands out the way in, once.
func (in *incoming) Memory(ctx context.Context) (io.WriteCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	first := false
	in.once.Do(func() { first = true; close(in.taken) })
	if !first {
		return nil, errors.New("receive memory: it is being received already")
	}
	return in.pw, nil
}

// Loaded waits for the loader, then compares every hot disk block with what the
// machine has written by that step.
func (in *incoming) Loaded(ctx context.Context) error {
	select {
	case <-in.loaded:
	case <-ctx.Done():
		return fmt.Errorf("load %s: %w", in.m.spec.Name, context.Cause(ctx))
	}
	if in.err != nil {
		return fmt.Errorf("load %s: %w", in.m.spec.Name, in.err)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.m.mu.Lock()
	defer in.m.mu.Unlock()
	if in.ready {
		return nil
	}
	if in.m.state == vmm.Ended {
		return fmt.Errorf("load %s: %w", in.m.spec.Name, in.m.gone())
	}
	in.m.plan.prog = in.state.Prog
	if err := in.m.plan.checkDisks(in.m.disks, in.state.Step); err != nil {
		return fmt.Errorf("load %s: %w", in.m.spec.Name, err)
	}
	in.m.step = in.state.Step
	in.m.state = vmm.Paused
	in.ready = true
	return nil
}
