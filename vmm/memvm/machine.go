package memvm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/dcnode/dcnode/vmm"
)

// Machine is one machine of memory.
type Machine struct {
	spec    vmm.Spec
	files   vmm.Files
	log     *slog.Logger
	forget  func()
	disks   []*disk
	console *os.File
	quit    chan struct{} // closed: the CPU goroutine ends
	done    chan struct{}
	ending  sync.Once

	mu    sync.Mutex // guards what follows
	plan  plan
	state vmm.State
	mem   *memory
	step  uint64
	fault error     // why it ended by itself
	fence time.Time // from when on it stands still; zero: no fence
	out   *outgoing
}

// newMachine opens the machine's files; it is paused and its memory empty.
func newMachine(s vmm.Spec, f vmm.Files, cfg Config, mode openMode) (_ *Machine, err error) {
	m := &Machine{
		spec: s, files: f, log: cfg.Log.With("machine", s.Name), state: vmm.Paused,
		quit: make(chan struct{}), done: make(chan struct{}),
		mem: newMemory(s.Memory),
	}
	defer func() {
		if err != nil {
			m.closeFiles()
		}
	}()
	for _, d := range f.Disks {
		k, err := openDisk(f.Dir, d, mode)
		if err != nil {
			return nil, err
		}
		m.disks = append(m.disks, k)
	}
	m.plan = newPlan(s, f, cfg.Program, m.disks)
	m.console, err = os.OpenFile(filepath.Join(f.Dir, consoleName), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open console: %w", err)
	}
	return m, nil
}

func newPlan(s vmm.Spec, f vmm.Files, prog Program, disks []*disk) plan {
	pl := plan{seed: s.Seed, prog: prog, pages: s.Memory / pageSize}
	pl.heed(s.Append)
	for _, d := range f.Disks {
		pl.blocks = append(pl.blocks, d.Size/pageSize)
	}
	if len(disks) > 0 && disks[0].base != nil {
		pl.cached = func(block int64, p []byte) bool {
			some, err := disks[0].readBase(p, block*pageSize)
			return err == nil && some && block < pl.blocks[0]
		}
	}
	return pl
}

func (m *Machine) closeFiles() {
	for _, k := range m.disks {
		k.close()
	}
	if m.console != nil {
		m.console.Close()
	}
}

// boot computes memory as it is at the step that the disks tell, and runs.
func (m *Machine) boot() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	head, err := lastStep(m.spec.Seed, m.disks)
	if err != nil {
		return err
	}
	if head.Step > 0 {
		m.plan.prog = head.Prog
	}
	m.step = head.Step
	var p [pageSize]byte
	for i := range m.mem.pages() {
		m.plan.page(i, m.step, p[:])
		m.mem.put(i, p[:])
	}
	if m.step > 0 {
		if err := m.writeDisks(); err != nil {
			return err
		}
	}
	m.state = vmm.Running
	return m.say()
}

// run is the CPU.
func (m *Machine) run(every time.Duration) {
	defer m.end()
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-m.quit:
			return
		case <-t.C:
		}
		if err := m.tick(); err != nil {
			m.log.Error("machine stops on a fault", "err", err)
			return
		}
	}
}

// tick does one step if the machine runs, all of it under the lock: a pause never
// cuts a step, and no step shows after it.
func (m *Machine) tick() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state == vmm.Running && m.behindFence() {
		m.state = vmm.Fenced
		m.log.Warn("machine stands still: it was not confirmed in time")
	}
	if m.state != vmm.Running {
		return nil
	}
	m.step++
	m.writePages()
	err := m.writeDisks()
	if err == nil {
		err = m.say()
	}
	m.fault = err
	return err
}

func (m *Machine) writePages() {
	per := int64(m.plan.prog.PagesPerStep)
	hot, first := m.plan.hotPages(), m.plan.hotFirst()
	var p [pageSize]byte
	for w := int64(m.step-1) * per; w < int64(m.step)*per; w++ {
		i := first + w%hot
		m.plan.hotPage(i, w, p[:])
		m.mem.put(i, p[:])
	}
}

func (m *Machine) writeDisks() error {
	if m.plan.hotBlocks() == 0 {
		return nil
	}
	per := m.plan.blocksPerStep()
	var p [pageSize]byte
	for w := int64(m.step-1) * per; w < int64(m.step)*per; w++ {
		b := m.plan.diskWrite(w, p[:])
		var err error
		if b.data == nil {
			err = m.disks[b.disk].zero(b.block*pageSize, pageSize)
		} else {
			err = m.disks[b.disk].write(b.data, b.block*pageSize)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// say appends the console's line of this step.
func (m *Machine) say() error {
	_, err := fmt.Fprintf(m.console, "tick %d %.8s\n", m.step, m.mem.sum)
	return err
}

// end is the last thing that happens to a machine.
func (m *Machine) end() {
	m.ending.Do(func() {
		m.mu.Lock()
		m.state = vmm.Ended
		out := m.out
		m.out = nil
		m.closeFiles()
		m.mu.Unlock()
		if out != nil {
			out.abort(m.gone())
		}
		m.forget()
		close(m.done)
	})
}

// gone is the error for one who asks too much of a machine that has ended.
func (m *Machine) gone() error {
	if m.fault != nil {
		return fmt.Errorf("machine %s: %w: %w", m.spec.Name, vmm.ErrGone, m.fault)
	}
	return fmt.Errorf("machine %s: %w", m.spec.Name, vmm.ErrGone)
}

// State tells what the machine does.
func (m *Machine) State(ctx context.Context) (vmm.State, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state == vmm.Running && m.behindFence() {
		return vmm.Fenced, ctx.Err() // the next step will not be done
	}
	return m.state, ctx.Err()
}

// Fence is looked at before each step: a machine lives and hangs with its process.
func (m *Machine) Fence(ctx context.Context, at time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch m.state {
	case vmm.Ended:
		return m.gone()
	case vmm.Fenced:
		return fmt.Errorf("fence %s: it stands still behind one already", m.spec.Name)
	}
	if !at.After(time.Now()) {
		return fmt.Errorf("fence %s: the time has passed already", m.spec.Name)
	}
	m.fence = at
	return ctx.Err()
}

func (m *Machine) behindFence() bool { return !m.fence.IsZero() && !time.Now().Before(m.fence) }

func (m *Machine) lift() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fence = time.Time{}
	if m.state == vmm.Fenced {
		m.state = vmm.Running
	}
}

// Pause stops the CPU between two steps.
func (m *Machine) Pause(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch m.state {
	case vmm.Ended:
		return m.gone()
	case vmm.Arriving:
		return fmt.Errorf("pause %s: it waits for its state", m.spec.Name)
	case vmm.Running:
		m.state = vmm.Paused
	}
	return ctx.Err()
}

// Resume lets the CPU run.
func (m *Machine) Resume(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.state == vmm.Ended:
		return m.gone()
	case m.state == vmm.Arriving:
		return fmt.Errorf("resume %s: its state has not arrived", m.spec.Name)
	case m.behindFence():
		return fmt.Errorf("resume %s: %w", m.spec.Name, vmm.ErrFenced)
	case m.out != nil && m.out.isPaused():
		return fmt.Errorf("resume %s: it is about to leave: cancel the migration first", m.spec.Name)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	m.state = vmm.Running
	return nil
}

// Stop ends the machine after the step it is in. It heeds no one else.
func (m *Machine) Stop(ctx context.Context) error {
	m.mu.Lock()
	select {
	case <-m.quit:
	default:
		close(m.quit)
	}
	m.mu.Unlock()
	select {
	case <-m.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop %s: %w", m.spec.Name, context.Cause(ctx))
	}
}

// Done is closed when the machine has ended.
func (m *Machine) Done() <-chan struct{} { return m.done }

// Step is how many steps the machine has done since its first start, anywhere.
func (m *Machine) Step() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.step
}

// Outgoing begins a migration away.
func (m *Machine) Outgoing(ctx context.Context, l vmm.Limits) (vmm.Outgoing, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.state == vmm.Ended:
		return nil, m.gone()
	case m.state == vmm.Arriving:
		return nil, fmt.Errorf("migrate %s: its state has not arrived", m.spec.Name)
	case m.out != nil:
		return nil, fmt.Errorf("migrate %s: another migration of it is under way: cancel that first", m.spec.Name)
	case l.MaxDowntime < 0:
		return nil, errors.New("the longest pause cannot be negative")
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for _, k := range m.disks {
		k.track()
	}
	m.out = newOutgoing(m, l)
	return m.out, nil
}
