package memvm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dcnode/dcnode/vmm"
)

const (
	driverName  = "memvm"
	machineType = "memvm-1"
	consoleName = "console.log"
)

// Config is what a driver may be told; the zero value works.
type Config struct {
	Log     *slog.Logger
	Step    time.Duration // between two steps; 0: 10 ms
	Program Program       // of machines started here

	// What this host seems to be, for tests of sites that differ. Empty: as all are.
	Version      string
	MachineTypes []string // the last is what new machines get
	// CPUFeatures are pinned to a new machine as its CPU if they are given; a driver
	// that lacks one of them then refuses it, as QEMU does.
	CPUFeatures []string
}

// defaultFeatures are what the CPU of a memvm can do.
func defaultFeatures() []string { return []string{"count", "fill", "seal"} }

// Driver makes machines of memory. Use [New].
type Driver struct {
	cfg  Config
	mu   sync.Mutex
	live map[string]*Machine // by Files.Dir, cleaned
}

// New makes a driver. It starts nothing.
func New(cfg Config) *Driver {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Step <= 0 {
		cfg.Step = 10 * time.Millisecond
	}
	cfg.Program = cfg.Program.withDefaults()
	if cfg.Version == "" {
		cfg.Version = machineType
	}
	if len(cfg.MachineTypes) == 0 {
		cfg.MachineTypes = []string{machineType}
	}
	return &Driver{cfg: cfg, live: make(map[string]*Machine)}
}

// Name is "memvm".
func (d *Driver) Name() string { return driverName }

// Probe says that everything works: nothing is needed.
func (d *Driver) Probe(context.Context) vmm.Capabilities {
	return vmm.Capabilities{
		Driver: driverName, Version: d.cfg.Version, Available: true, CanMigrate: true,
		MachineTypes: d.cfg.MachineTypes, CPUModel: driverName, CPUFeatures: d.features(),
	}.Bound()
}

func (d *Driver) features() []string {
	if len(d.cfg.CPUFeatures) == 0 {
		return defaultFeatures()
	}
	return vmm.BoundNames(d.cfg.CPUFeatures)
}

// Pin sets the machine type, and the CPU if Config names its features; a memvm has no
// accelerator.
func (d *Driver) Pin(_ context.Context, s vmm.Spec) (vmm.Spec, error) {
	if s.MachineType == "" {
		s.MachineType = d.cfg.MachineTypes[len(d.cfg.MachineTypes)-1]
	}
	if s.CPU == "" && len(d.cfg.CPUFeatures) > 0 {
		s.CPU = strings.Join(d.features(), ",")
	}
	return s, d.check(s)
}

// featuresOf are those of a machine's CPU.
func featuresOf(s vmm.Spec) []string {
	if s.CPU == "" {
		return defaultFeatures()
	}
	return vmm.BoundNames(strings.Split(s.CPU, ","))
}

func (d *Driver) check(s vmm.Spec) error {
	if err := s.Check(); err != nil {
		return err
	}
	if s.Driver != driverName {
		return fmt.Errorf("machine %s is for driver %s, not %s", s.Name, s.Driver, driverName)
	}
	if s.MachineType != "" && !slices.Contains(d.cfg.MachineTypes, s.MachineType) {
		return fmt.Errorf("machine %s has type %s; this driver makes %s: update dcnode at the older site", s.Name, s.MachineType, strings.Join(d.cfg.MachineTypes, ", "))
	}
	if lacks := vmm.Lacks(d.features(), featuresOf(s)); s.CPU != "" && len(lacks) > 0 {
		return fmt.Errorf("machine %s needs the CPU features %s, which this host lacks: choose another site", s.Name, strings.Join(lacks, ", "))
	}
	return nil
}

// Start runs the machine. On overlays that hold steps already it goes on with the
// last of them, which it writes again in case a crash cut it short.
func (d *Driver) Start(ctx context.Context, s vmm.Spec, f vmm.Files) (vmm.Machine, error) {
	m, err := d.build(ctx, s, f, keep)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", s.Name, err)
	}
	if err := m.boot(); err != nil {
		m.end()
		return nil, fmt.Errorf("start %s: %w", s.Name, err)
	}
	go m.run(d.cfg.Step)
	return m, nil
}

// Receive makes a machine that waits for its state.
func (d *Driver) Receive(ctx context.Context, s vmm.Spec, f vmm.Files) (vmm.Machine, vmm.Incoming, error) {
	m, err := d.build(ctx, s, f, fresh)
	if err != nil {
		return nil, nil, fmt.Errorf("receive %s: %w", s.Name, err)
	}
	m.state = vmm.Arriving
	go m.run(d.cfg.Step)
	return m, newIncoming(m), nil
}

// build makes a machine that does nothing yet and enters it in the driver's list.
func (d *Driver) build(ctx context.Context, s vmm.Spec, f vmm.Files, mode openMode) (*Machine, error) {
	if err := errors.Join(ctx.Err(), d.check(s)); err != nil {
		return nil, err
	}
	key := filepath.Clean(f.Dir)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.live[key] != nil {
		return nil, fmt.Errorf("a machine runs in %s already: stop it first", key)
	}
	if err := d.cfg.Program.check(0); err != nil {
		return nil, err
	}
	m, err := newMachine(s, f, d.cfg, mode)
	if err != nil {
		return nil, err
	}
	m.forget = func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.live, key)
	}
	d.live[key] = m
	return m, nil
}

// Attach finds a machine that this very driver started: others died with their process.
func (d *Driver) Attach(_ context.Context, s vmm.Spec, f vmm.Files) (vmm.Machine, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := d.live[filepath.Clean(f.Dir)]
	if m == nil || m.spec.Name != s.Name {
		return nil, fmt.Errorf("attach %s: %w: a memvm ends with the process that started it", s.Name, vmm.ErrGone)
	}
	return m, nil
}

// Lift takes the fence of the machine in f.Dir away.
func (d *Driver) Lift(ctx context.Context, s vmm.Spec, f vmm.Files) error {
	d.mu.Lock()
	m := d.live[filepath.Clean(f.Dir)]
	d.mu.Unlock()
	if m != nil {
		m.lift()
	}
	return ctx.Err()
}

// Discard ends the machine in f.Dir and removes its overlays.
func (d *Driver) Discard(ctx context.Context, s vmm.Spec, f vmm.Files) error {
	d.mu.Lock()
	m := d.live[filepath.Clean(f.Dir)]
	d.mu.Unlock()
	if m != nil {
		if err := m.Stop(ctx); err != nil {
			return fmt.Errorf("discard %s: %w", s.Name, err)
		}
	}
	var errs []error
	for _, k := range f.Disks {
		for _, p := range []string{overlayPath(f.Dir, k.Name), mapPath(f.Dir, k.Name)} {
			if err := os.Remove(p); err != nil && !errors.Is(err, os.ErrNotExist) {
				errs = append(errs, fmt.Errorf("discard %s: %w", s.Name, err))
			}
		}
	}
	return errors.Join(errs...)
}
