package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ipfs/go-cid"

	"github.com/dcnode/dcnode/blockstore"
	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/vmm"
	"github.com/dcnode/dcnode/vmm/ramstream"
)

// record is what this node remembers of a machine that is or was here, durable
// before it is acted upon. It never decides who owns the machine: the ledger
// does. It says what a restart may do with what it finds.
type record struct {
	Spec   vmm.Spec `json:"spec"`
	Commit string   `json:"commit"`
	Step   step     `json:"step"`
	Move   uint64   `json:"move,omitempty"`  // of the steps that belong to a move
	Epoch  uint64   `json:"epoch,omitempty"` // in which this node may run it
}

// step is how far a machine has come here.
type step string

const (
	stepHere     step = "here"     // it is ours and runs, or ran, here
	stepReleased step = "released" // Release was submitted: never resume unless the order says so
	stepArriving step = "arriving" // it is being received and has never run here
	stepLoaded   step = "loaded"   // it has arrived whole and has never run here
)

// machine is one machine on this host.
type machine struct {
	record
	vm     vmm.Machine
	driver vmm.Driver
	files  vmm.Files
}

func (n *Node) machineDir(name string) string { return filepath.Join(n.cfg.Dir, "machines", name) }

func (n *Node) recordPath(name string) string {
	return filepath.Join(n.machineDir(name), "machine.json")
}

func (n *Node) saveRecord(r record) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode machine record: %w", err)
	}
	if err := os.MkdirAll(n.machineDir(r.Spec.Name), 0o700); err != nil {
		return fmt.Errorf("save machine record: %w", err)
	}
	return writeFile(n.recordPath(r.Spec.Name), b, 0o600)
}

func (n *Node) readRecords() ([]record, error) {
	entries, err := os.ReadDir(filepath.Join(n.cfg.Dir, "machines"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read machines: %w", err)
	}
	var out []record
	for _, e := range entries {
		var r record
		err := readJSON(n.recordPath(e.Name()), &r)
		if err == nil && r.Spec.Name != e.Name() {
			err = fmt.Errorf("it is of machine %q", r.Spec.Name)
		}
		switch {
		case err == nil:
			out = append(out, r)
		case !errors.Is(err, fs.ErrNotExist): // the other machines are not to suffer for it
			n.log.Error("read machine record: the machine is left alone", "machine", e.Name(), "cause", err)
		}
	}
	return out, nil
}

// driver is the driver of that name.
func (n *Node) driver(name string) (vmm.Driver, error) {
	for _, d := range n.cfg.Drivers {
		if d.Name() == name {
			return d, nil
		}
	}
	return nil, fmt.Errorf("there is no driver %q here", name)
}

// bestDriver is the first driver that works here, or why none does.
func (n *Node) bestDriver(ctx context.Context) (vmm.Driver, error) {
	why := vmm.ErrUnavailable
	for _, d := range n.cfg.Drivers {
		c := d.Probe(ctx)
		if c.Available {
			return d, nil
		}
		why = fmt.Errorf("%w: %s", why, c.Why)
	}
	return nil, why
}

// layout says where a machine's local files are, and what they are made of. It
// makes nothing.
func (n *Node) layout(ctx context.Context, name, commit string) (vmm.Files, cid.Cid, blockstore.Commit, error) {
	f := vmm.Files{Dir: n.machineDir(name)}
	c, err := cid.Decode(commit)
	if err != nil {
		return f, c, blockstore.Commit{}, fmt.Errorf("commit of machine %s: %w", name, err)
	}
	com, err := n.store.Commit(ctx, c, nil)
	if err != nil {
		return f, c, com, err
	}
	base := filepath.Join(n.cfg.Dir, "images", commit)
	for _, d := range com.Disks {
		f.Disks = append(f.Disks, vmm.Disk{Name: d.Name, Base: filepath.Join(base, d.Name+".raw"), Size: d.Size})
	}
	if com.Kernel.Defined() {
		f.Kernel = filepath.Join(base, "kernel")
	}
	if com.Initrd.Defined() {
		f.Initrd = filepath.Join(base, "initrd")
	}
	return f, c, com, nil
}

// files makes a machine's local files ready: its directory, and the base images
// of its disks materialised from the store.
func (n *Node) files(ctx context.Context, name, commit string) (vmm.Files, error) {
	f, c, com, err := n.layout(ctx, name, commit)
	if err != nil {
		return f, err
	}
	if err := os.MkdirAll(f.Dir, 0o700); err != nil {
		return f, fmt.Errorf("make machine directory: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(n.cfg.Dir, "images", commit), 0o700); err != nil {
		return f, fmt.Errorf("make image directory: %w", err)
	}
	for i, d := range f.Disks {
		if err := n.store.Materialise(ctx, c, i, d.Base); err != nil {
			return f, err
		}
	}
	if f.Kernel != "" {
		err = n.store.Extract(ctx, com.Kernel, f.Kernel)
	}
	if f.Initrd != "" && err == nil {
		err = n.store.Extract(ctx, com.Initrd, f.Initrd)
	}
	return f, err
}

// keep enters a machine into the table of those on this host.
func (n *Node) keep(m *machine) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.machines[m.Spec.Name] = m
}

// local is the machine of that name on this host, or nil.
func (n *Node) local(name string) *machine {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.machines[name]
}

// process is a machine's process, or nil if none was started or found.
func (n *Node) process(m *machine) vmm.Machine {
	n.mu.Lock()
	defer n.mu.Unlock()
	return m.vm
}

// lives says whether a machine has a process. One that does not answer has.
func (n *Node) lives(ctx context.Context, m *machine) bool {
	vm := n.process(m)
	if vm == nil {
		return false
	}
	st, err := vm.State(ctx)
	return !errors.Is(err, vmm.ErrGone) && (err != nil || st != vmm.Ended)
}

// boot starts a machine's process from its disks.
func (n *Node) boot(ctx context.Context, m *machine) error {
	vm, err := m.driver.Start(ctx, m.Spec, m.files)
	if err != nil {
		return fmt.Errorf("start machine %s: %w", m.Spec.Name, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	m.vm = vm
	return nil
}

// discard ends a machine's copy on this host and removes what it left, except
// its console log.
func (n *Node) discard(ctx context.Context, m *machine) error {
	n.mu.Lock()
	if n.machines[m.Spec.Name] == m {
		delete(n.machines, m.Spec.Name)
		delete(n.looks, m.Spec.Name)
	}
	n.mu.Unlock()
	if err := m.driver.Discard(ctx, m.Spec, m.files); err != nil {
		return fmt.Errorf("discard machine %s: %w", m.Spec.Name, err)
	}
	err := os.Remove(n.recordPath(m.Spec.Name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// mark makes a step of a machine durable, and before it the events that it rests
// on: a record that knows more than the history would be taken for a leftover.
func (n *Node) mark(m *machine, s step, move, epoch uint64) error {
	n.mu.Lock()
	r := m.record
	n.mu.Unlock()
	r.Step, r.Move, r.Epoch = s, move, epoch
	err := n.order.loop.Sync()
	if err == nil {
		err = n.saveRecord(r)
	}
	if err != nil {
		return err
	}
	n.mu.Lock()
	m.Step, m.Move, m.Epoch = s, move, epoch
	n.mu.Unlock()
	return nil
}

// owns says whether the ledger has this node as the owner of a machine.
func (n *Node) owns(m *ledger.Machine) bool { return m != nil && m.Owner == n.self }

// openBases opens a machine's base images, which both sides hold.
func openBases(f vmm.Files) ([]ramstream.Base, func(), error) {
	var bases []ramstream.Base
	var files []*os.File
	closeAll := func() {
		for _, f := range files {
			_ = f.Close()
		}
	}
	for _, d := range f.Disks {
		if d.Base == "" {
			bases = append(bases, ramstream.Base{})
			continue
		}
		file, err := os.Open(d.Base)
		if err != nil {
			closeAll()
			return nil, nil, fmt.Errorf("open base image: %w", err)
		}
		files = append(files, file)
		bases = append(bases, ramstream.Base{R: file, Size: d.Size})
	}
	return bases, closeAll, nil
}
