package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dcnode/dcnode/vmm"
	"github.com/dcnode/dcnode/vmm/qmp"
)

const (
	// bootDeadline is what the boot sector may take; a working KVM needs a tenth of
	// a second, SeaBIOS included.
	bootDeadline = 5 * time.Second
	// tcgFixed is the first major version whose TCG logs every dirty page.
	tcgFixed = 9
)

// findings are what probing found.
type findings struct {
	caps    vmm.Capabilities
	binary  string
	img     string
	sandbox bool
	q35     string // what "q35" stands for
	cpu     string // for KVM
	major   int
}

// Probe finds out what works here, by doing it.
func (d *Driver) Probe(ctx context.Context) vmm.Capabilities {
	c := d.findings(ctx).caps
	c.MachineTypes, c.CPUFeatures = slices.Clone(c.MachineTypes), slices.Clone(c.CPUFeatures)
	return c
}

func (d *Driver) findings(ctx context.Context) *findings {
	d.probing.Lock()
	defer d.probing.Unlock()
	if d.found != nil {
		return d.found
	}
	f := &findings{caps: vmm.Capabilities{Driver: driverName}}
	if err := d.probe(ctx, f); err != nil {
		f.caps.Available, f.caps.CanMigrate = false, false
		f.caps.Why = err.Error()
	}
	f.caps.CPUModel, _ = vmm.HostCPU()
	f.caps = f.caps.Bound()
	d.cfg.Log.Info("probed QEMU", "capabilities", f.caps)
	if ctx.Err() == nil {
		d.found = f // a probe cut short is no finding
	}
	return f
}

func (d *Driver) probe(ctx context.Context, f *findings) (err error) {
	if f.binary, err = find(d.cfg.Binary, "qemu-system-x86_64", "qemu-system-x86"); err != nil {
		return err
	}
	if f.img, err = find(d.cfg.ImgBinary, "qemu-img", "qemu-utils"); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("/tmp", "dcnode-probe-")
	if err != nil {
		return fmt.Errorf("probe QEMU: %w", err)
	}
	defer os.RemoveAll(dir)
	f.sandbox = true
	if err := d.ask(ctx, f, dir, "tcg", f.describe); err != nil {
		f.sandbox = false
		if again := d.ask(ctx, f, dir, "tcg", f.describe); again != nil {
			return err
		}
	}
	sector := filepath.Join(dir, "boot.raw")
	if err := os.WriteFile(sector, bootSector(), 0o600); err != nil {
		return fmt.Errorf("probe QEMU: %w", err)
	}
	f.caps.Accelerator = "kvm"
	if why := d.kvm(ctx, f, dir, sector); why != nil {
		f.caps.Why = why.Error()
		f.caps.Accelerator = "tcg"
		if err := boot(ctx, f, "tcg", sector); err != nil {
			return fmt.Errorf("no guest boots here: %w; %w: reinstall QEMU and its firmware (apt-get install --reinstall qemu-system-x86 seabios)", why, err)
		}
	}
	f.caps.WhyNot = stuck(f.caps.Version, f.major, f.caps.Accelerator == "kvm")
	f.caps.Available, f.caps.CanMigrate = true, f.caps.WhyNot == ""
	return nil
}

// stuck says why a machine must not be moved with this QEMU; empty if it may.
func stuck(version string, major int, kvm bool) string {
	if kvm || major >= tcgFixed {
		return ""
	}
	return fmt.Sprintf("QEMU %s loses dirty memory pages when it migrates without KVM (fixed in 9.0): install QEMU 9.0 or later, or use a host with KVM", version)
}

// find names a program, or says how to get it.
func find(given, name, pkg string) (string, error) {
	if given == "" {
		given = name
	}
	path, err := exec.LookPath(given)
	if err != nil {
		return "", fmt.Errorf("no %s: %w: apt-get install %s, or make qemu", name, err, pkg)
	}
	return path, nil
}

// ask runs a machine of nothing and lets fn talk to its monitor.
func (d *Driver) ask(ctx context.Context, f *findings, dir, accel string, fn func(context.Context, *qmp.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.Call)
	defer cancel()
	sock := filepath.Join(dir, "qmp-"+accel)
	args := []string{"-no-user-config", "-nodefaults", "-display", "none", "-machine", "none", "-accel", accel,
		"-chardev", "socket,id=qmp,server=on,wait=on,path=" + escape(sock), "-mon", "chardev=qmp,mode=control"}
	if f.sandbox {
		args = append(args, "-sandbox", sandboxArg)
	}
	cmd := exec.CommandContext(ctx, f.binary, args...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("run %s: %w", f.binary, err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = cmd.Wait() }()
	defer func() { cancel(); <-ended }()
	c, err := dialNew(ctx, sock, ended, d.cfg.Call)
	if err == nil {
		defer c.Disconnect()
		err = fn(ctx, c.Client)
	}
	if err != nil {
		cancel()
		<-ended
		return fmt.Errorf("ask %s what it is: %w %s", f.binary, err, strings.TrimSpace(out.String()))
	}
	return nil
}

func (f *findings) describe(ctx context.Context, c *qmp.Client) error {
	v := c.Version()
	f.caps.Version, f.major = v.String(), v.QEMU.Major
	var types []struct {
		Name, Alias string
		Deprecated  bool
	}
	if err := c.Execute(ctx, "query-machines", nil, &types); err != nil {
		return err
	}
	f.caps.MachineTypes = nil
	for _, t := range types {
		if strings.HasPrefix(t.Name, "pc-q35-") {
			f.caps.MachineTypes = append(f.caps.MachineTypes, t.Name)
		}
		if t.Alias == "q35" {
			f.q35 = t.Name
		}
	}
	if f.q35 == "" {
		return errors.New("it has no q35 machine")
	}
	f.caps.CPUFeatures = defaultFeatures(ctx, c, tcgCPU, nil)
	return nil
}

// kvm says why KVM is of no use here; nil if it is.
func (d *Driver) kvm(ctx context.Context, f *findings, dir, sector string) error {
	if d.cfg.ForceTCG {
		return errors.New("KVM is turned off in the configuration")
	}
	dev, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return errors.New("no /dev/kvm: enable virtualisation in the firmware, or nested virtualisation in the hypervisor")
	case errors.Is(err, os.ErrPermission):
		return errors.New("no access to /dev/kvm: add this user to the group kvm")
	case err != nil:
		return fmt.Errorf("KVM: %w", err)
	}
	dev.Close()
	if err := boot(ctx, f, "kvm", sector); err != nil {
		return fmt.Errorf("/dev/kvm opens, but a guest does not boot with it: %w", err)
	}
	return d.ask(ctx, f, dir, "kvm", f.pickCPU)
}

// models are named CPU models with KVM, the richest first: they migrate between
// different processors, which "host" does not.
func models() []string {
	return []string{
		"SapphireRapids", "EPYC-Genoa", "Icelake-Server", "EPYC-Milan", "Cascadelake-Server-noTSX", "EPYC-Rome",
		"Skylake-Server-noTSX-IBRS", "EPYC", "Skylake-Client-noTSX-IBRS", "Broadwell-noTSX", "Haswell-noTSX",
		"IvyBridge", "SandyBridge", "Westmere", "Nehalem", "Opteron_G3", "qemu64",
	}
}

// pickCPU takes the richest model of which this host lacks no feature.
func (f *findings) pickCPU(ctx context.Context, c *qmp.Client) error {
	var defs []struct {
		Name        string
		Unavailable []string `json:"unavailable-features"`
	}
	if err := c.Execute(ctx, "query-cpu-definitions", nil, &defs); err != nil {
		return err
	}
	whole := map[string]bool{}
	for _, d := range defs {
		whole[d.Name] = d.Unavailable != nil && len(d.Unavailable) == 0
	}
	f.cpu = "host,migratable=on"
	for _, m := range models() {
		if whole[m] {
			f.cpu = m
			break
		}
	}
	_, flags := vmm.HostCPU()
	f.caps.CPUFeatures = defaultFeatures(ctx, c, f.cpu, flags)
	return nil
}

// boot runs the boot sector and expects its exit status.
func boot(ctx context.Context, f *findings, accel, sector string) error {
	ctx, cancel := context.WithTimeout(ctx, bootDeadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, f.binary, "-no-user-config", "-nodefaults", "-display", "none", "-no-reboot",
		"-machine", f.q35, "-accel", accel, "-m", "64",
		"-device", "isa-debug-exit,iobase=0xf4,iosize=1",
		"-blockdev", "driver=raw,node-name=d,read-only=on,file.driver=file,file.filename="+escape(sector),
		"-device", "virtio-blk-pci,drive=d")
	cmd.WaitDelay = time.Second
	said := &words{fatal: "KVM internal error", stop: cancel}
	cmd.Stdout, cmd.Stderr = said, said
	err := cmd.Run()
	if cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == bootedStatus {
		return nil
	}
	switch line := said.line(); {
	case line != "":
		return errors.New(line)
	case ctx.Err() != nil:
		return fmt.Errorf("nothing after %v", bootDeadline)
	}
	return err
}

// words is what QEMU says while it boots; at a fatal word it stops: QEMU would
// stand there for ever.
type words struct {
	said  []byte
	fatal string
	stop  func()
}

func (w *words) Write(p []byte) (int, error) {
	if len(w.said) < 64<<10 {
		w.said = append(w.said, p...)
	}
	if bytes.Contains(w.said, []byte(w.fatal)) {
		w.stop()
	}
	return len(p), nil
}

// line is the first line that is no mere warning.
func (w *words) line() string {
	for l := range strings.Lines(string(w.said)) {
		if l = strings.TrimSpace(l); l != "" && !strings.Contains(l, "warning:") {
			return l
		}
	}
	return ""
}
