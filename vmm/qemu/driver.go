package qemu

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/dcnode/dcnode/vmm"
	"github.com/dcnode/dcnode/vmm/fence"
)

const driverName = "qemu"

// Config is what a driver may be told; the zero value finds QEMU in PATH.
type Config struct {
	Binary    string // qemu-system-x86_64; empty: from PATH
	ImgBinary string // qemu-img; empty: from PATH
	Log       *slog.Logger
	// Call is the longest that one monitor command may take; 0: 10 s.
	Call time.Duration
	// ForceTCG leaves KVM alone even where it works.
	ForceTCG bool
}

// Driver runs QEMU machines. Use [New].
type Driver struct {
	cfg Config

	probing sync.Mutex // held while probing; guards found
	found   *findings

	mu   sync.Mutex
	live map[string]*Machine // by Files.Dir, absolute
}

// New makes a driver. It starts nothing and looks at nothing.
func New(cfg Config) *Driver {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Call <= 0 {
		cfg.Call = 10 * time.Second
	}
	return &Driver{cfg: cfg, live: make(map[string]*Machine)}
}

// Name is "qemu".
func (d *Driver) Name() string { return driverName }

// Close lets go of all machines; they run on, and Attach finds them again.
func (d *Driver) Close() {
	d.mu.Lock()
	var all []*Machine
	for _, m := range d.live {
		all = append(all, m)
	}
	d.mu.Unlock()
	for _, m := range all {
		m.letGo()
	}
}

// Pin fills machine type, accelerator and CPU model with this host's choice.
func (d *Driver) Pin(ctx context.Context, s vmm.Spec) (vmm.Spec, error) {
	f, err := d.usable(ctx)
	if err != nil {
		return s, err
	}
	if s.Accelerator == "" {
		s.Accelerator = f.caps.Accelerator
	}
	if s.MachineType == "" {
		s.MachineType = f.q35
	}
	if s.CPU == "" {
		s.CPU = tcgCPU
		if s.Accelerator == "kvm" {
			s.CPU = f.cpu
		}
	}
	return s, d.fits(f, s)
}

// usable is what probing found, or ErrUnavailable.
func (d *Driver) usable(ctx context.Context) (*findings, error) {
	f := d.findings(ctx)
	if !f.caps.Available {
		return nil, fmt.Errorf("%w: %s", vmm.ErrUnavailable, f.caps.Why)
	}
	return f, nil
}

// fits says why this host cannot run a pinned machine.
func (d *Driver) fits(f *findings, s vmm.Spec) error {
	switch {
	case !slices.Contains(f.caps.MachineTypes, s.MachineType):
		return fmt.Errorf("%w: QEMU %s here has no machine type %s: install a QEMU that has it", vmm.ErrUnavailable, f.caps.Version, s.MachineType)
	case s.Accelerator == "kvm" && f.caps.Accelerator != "kvm":
		return fmt.Errorf("%w: machine %s needs KVM: %s", vmm.ErrUnavailable, s.Name, f.caps.Why)
	case s.Accelerator != "kvm" && s.Accelerator != "tcg":
		return fmt.Errorf("accelerator %q: use kvm or tcg", s.Accelerator)
	}
	return nil
}

// Start makes missing overlays and runs the machine.
func (d *Driver) Start(ctx context.Context, s vmm.Spec, f vmm.Files) (vmm.Machine, error) {
	m, err := d.launch(ctx, s, f, false)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", s.Name, err)
	}
	if err := m.Resume(ctx); err != nil {
		m.end(ctx)
		return nil, fmt.Errorf("start %s: %w", s.Name, err)
	}
	return m, nil
}

// Receive makes empty overlays and a machine that waits for its state.
func (d *Driver) Receive(ctx context.Context, s vmm.Spec, f vmm.Files) (vmm.Machine, vmm.Incoming, error) {
	m, err := d.launch(ctx, s, f, true)
	if err != nil {
		return nil, nil, fmt.Errorf("receive %s: %w", s.Name, err)
	}
	in, err := m.incoming(ctx)
	if err != nil {
		m.end(ctx)
		return nil, nil, fmt.Errorf("receive %s: %w", s.Name, err)
	}
	return m, in, nil
}

// launch starts a process for a machine and connects to it.
func (d *Driver) launch(ctx context.Context, s vmm.Spec, f vmm.Files, incoming bool) (_ *Machine, err error) {
	found, err := d.usable(ctx)
	if err != nil {
		return nil, err
	}
	if s, err = d.Pin(ctx, s); err != nil {
		return nil, err
	}
	if err := check(s, f); err != nil {
		return nil, err
	}
	p, err := resolve(f)
	if err != nil {
		return nil, err
	}
	free, err := d.reserve(p)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			free(func() {})
		}
	}()
	if err := errors.Join(p.ready(), p.removeRuntimeOfDead()); err != nil {
		return nil, err
	}
	for _, disk := range f.Disks {
		if err := makeOverlay(ctx, found.img, disk, p.overlay(disk.Name), incoming); err != nil {
			return nil, err
		}
	}
	args, err := commandLine(s, f, p, found.sandbox, incoming)
	if err != nil {
		return nil, err
	}
	var guard *fence.Fence
	if incoming { // another may run it too
		if guard, err = fence.New(p.fence()); err != nil {
			return nil, err
		}
		defer guard.Close()
	}
	m := newMachine(s, f, p, d.cfg)
	m.forget = free
	if err := m.start(ctx, found.binary, args, guard); err != nil {
		return nil, err
	}
	if m.fresh = true; !incoming {
		m.wrote.at = time.Now()
	}
	d.enter(m)
	return m, nil
}

// reserve keeps a second machine out of a directory; free undoes it,
// and does then at the same instant.
func (d *Driver) reserve(p paths) (free func(then func()), err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, taken := d.live[p.dir]; taken {
		return nil, fmt.Errorf("a machine lives in %s already: stop it first", p.dir)
	}
	d.live[p.dir] = nil
	return func(then func()) {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.live, p.dir)
		then()
	}, nil
}

func (d *Driver) enter(m *Machine) {
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-m.done: // it has ended and was forgotten meanwhile
	default:
		d.live[m.paths.dir] = m
	}
}

// Attach finds the machine that an earlier process started in f.Dir.
func (d *Driver) Attach(ctx context.Context, s vmm.Spec, f vmm.Files) (vmm.Machine, error) {
	p, err := resolve(f)
	if err != nil {
		return nil, fmt.Errorf("attach %s: %w", s.Name, err)
	}
	d.mu.Lock()
	m := d.live[p.dir]
	d.mu.Unlock()
	if m != nil && m.spec.Name == s.Name {
		return m, nil
	}
	free, err := d.reserve(p)
	if err != nil {
		return nil, fmt.Errorf("attach %s: %w", s.Name, err)
	}
	m = newMachine(s, f, p, d.cfg)
	m.forget = free
	if err := m.attach(ctx); err != nil {
		free(func() {})
		return nil, fmt.Errorf("attach %s: %w", s.Name, err)
	}
	d.enter(m)
	return m, nil
}

// Discard ends the machine in f.Dir, whoever started it, and removes its overlays,
// sockets and logs; console.log stays.
func (d *Driver) Discard(ctx context.Context, s vmm.Spec, f vmm.Files) error {
	p, err := resolve(f)
	if err != nil {
		return fmt.Errorf("discard %s: %w", s.Name, err)
	}
	d.mu.Lock()
	m := d.live[p.dir]
	d.mu.Unlock()
	if m != nil {
		m.end(ctx)
	}
	if err := p.endStray(ctx); err != nil {
		return fmt.Errorf("discard %s: %w", s.Name, err)
	}
	errs := []error{p.removeRuntime(), remove(p.log())}
	for _, disk := range f.Disks {
		if !plainName(disk.Name) {
			return fmt.Errorf("discard %s: disk name %q is not one of this driver", s.Name, disk.Name)
		}
		errs = append(errs, remove(p.overlay(disk.Name)))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("discard %s: %w", s.Name, err)
	}
	return nil
}

// strayOf takes hold of whatever QEMU still lives in a directory; nil if none does.
func (p paths) strayOf() (*process, error) {
	if pr, err := holdBySocket(p.qmp()); err == nil {
		return pr, nil
	}
	pr, err := holdByFile(p.pid())
	switch {
	case err == nil:
		return pr, nil
	case errors.Is(err, os.ErrNotExist), errors.Is(err, os.ErrProcessDone), isNoProcess(err):
		return nil, nil
	}
	return nil, err
}

// endStray kills what lives in the directory without anyone who knows it.
func (p paths) endStray(ctx context.Context) error {
	pr, err := p.strayOf()
	if pr == nil || err != nil {
		return err
	}
	go pr.watch()
	defer pr.release()
	if err := pr.kill(); err != nil {
		return fmt.Errorf("end process %d: %w", pr.pid, err)
	}
	if !waitEnd(context.WithoutCancel(ctx), pr.done, 5*time.Second) {
		return fmt.Errorf("process %d does not end, 5 s after it was killed: see whether its storage hangs", pr.pid)
	}
	return nil
}

// removeRuntimeOfDead makes way for a new process, if none lives here.
func (p paths) removeRuntimeOfDead() error {
	pr, err := p.strayOf()
	if err != nil {
		return err
	}
	if pr != nil {
		defer pr.release()
		return fmt.Errorf("QEMU process %d lives in %s already: attach to it, or discard it", pr.pid, p.dir)
	}
	return errors.Join(remove(p.qmp()), remove(p.nbd()), remove(p.fence()), remove(p.pid()))
}
