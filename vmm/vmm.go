// Package vmm says what a virtual machine is to dcnode: how it is described,
// started, watched, and moved. Drivers implement it: package qemu drives
// unmodified QEMU, package memvm is a machine of memory for places without one.
//
// A migration has two halves. The source's driver hands out an [Outgoing]: disk
// extents as they change, and one stream of bytes that holds memory and device
// state in the driver's own format. The destination's driver hands out an
// [Incoming] that takes both. Neither half knows how the bytes travel, and
// neither decides who runs: the destination's machine stays paused until its
// owner calls Resume.
package vmm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// Errors that callers branch on. Drivers wrap them with the cause and the remedy.
var (
	// ErrUnavailable: the driver cannot run machines here (no QEMU binary, say).
	ErrUnavailable = errors.New("driver unavailable")
	// ErrCannotMigrate: the driver runs machines here but must not move them.
	ErrCannotMigrate = errors.New("driver cannot migrate")
	// ErrGone: the machine's process has ended.
	ErrGone = errors.New("machine is gone")
	// ErrFenced: the machine stands still behind its fence and cannot be talked to
	// until the fence is lifted.
	ErrFenced = errors.New("machine stands still behind its fence")
)

// Spec describes a machine; it is the same at every site, so it holds no path.
type Spec struct {
	Name        string `json:"name"`
	Driver      string `json:"driver"`                 // "qemu" or "memvm"
	Memory      int64  `json:"memory"`                 // bytes, a multiple of 1 MiB
	VCPUs       int    `json:"vcpus"`                  // at least 1
	CPU         string `json:"cpu,omitempty"`          // CPU model; empty: the driver's migratable default
	MachineType string `json:"machine_type,omitempty"` // pinned by the first start, so that both sides agree
	Accelerator string `json:"accelerator,omitempty"`  // "kvm" or "tcg", pinned by the first start
	Append      string `json:"append,omitempty"`       // kernel command line, with a boot kernel only
	Seed        uint64 `json:"seed,omitempty"`         // memvm: what its CPU computes
}

// Files are a machine's local files, resolved by the node for this site.
type Files struct {
	Dir    string // the machine's own directory: sockets, console.log, overlays; exists
	Kernel string // boot kernel, or empty
	Initrd string // initial RAM disk, or empty
	Disks  []Disk
}

// Disk is one virtual disk: a read-only base shared by machines and the
// machine's own writable overlay over it.
type Disk struct {
	Name string // "disk0", …: the same at both sites
	Base string // raw file, read-only; empty: an empty disk
	Size int64  // bytes, a multiple of 4096
}

// Capabilities are what a driver can do on this host, found by trying.
type Capabilities struct {
	Driver       string   `json:"driver"`
	Version      string   `json:"version,omitempty"`     // of QEMU, as it names itself
	Accelerator  string   `json:"accelerator,omitempty"` // "kvm" or "tcg": the best that really boots
	Why          string   `json:"why,omitempty"`         // why it is not kvm, or why not available
	Available    bool     `json:"available"`             // it can run machines
	CanMigrate   bool     `json:"can_migrate"`           // it can move them without losing pages
	WhyNot       string   `json:"why_not,omitempty"`     // why it cannot migrate, and the remedy
	MachineTypes []string `json:"machine_types,omitempty"`
	CPUModel     string   `json:"cpu_model,omitempty"` // of the host, as it names itself
	// CPUFeatures are those that a machine gets here unless it asks for another CPU,
	// under Accelerator, as the driver calls them, sorted. Empty: not known.
	CPUFeatures []string `json:"cpu_features,omitempty"`
}

// State is what a machine is doing.
type State string

// The states of a machine.
const (
	Running  State = "running"
	Paused   State = "paused"
	Arriving State = "arriving" // waits for, or is loading, a migration
	Fenced   State = "fenced"   // stands still until its fence is lifted
	Ended    State = "ended"    // its process is gone
)

// Driver makes machines. Its methods may be called from any goroutine.
type Driver interface {
	// Name is "qemu" or "memvm".
	Name() string
	// Probe finds out what works on this host. It never fails: what does not
	// work is said in the answer. The first call may take seconds; later ones are cached.
	Probe(ctx context.Context) Capabilities
	// Pin fills the fields of s that must not differ between sites (machine
	// type, CPU model, accelerator) with this host's choice.
	Pin(ctx context.Context, s Spec) (Spec, error)
	// Start makes the overlays if they are missing and runs the machine.
	Start(ctx context.Context, s Spec, f Files) (Machine, error)
	// Receive makes empty overlays and a machine that waits, paused, for its state.
	Receive(ctx context.Context, s Spec, f Files) (Machine, Incoming, error)
	// Attach finds the machine that an earlier process of this node started in
	// f.Dir and that still lives; ErrGone if there is none, ErrFenced if it has to be
	// lifted first.
	Attach(ctx context.Context, s Spec, f Files) (Machine, error)
	// Lift takes away the fence of the machine in f.Dir, whichever process put it
	// there: see Machine.Fence. A machine that stood still behind it runs on; so this is
	// for the one whom the order has made its owner. No fence there is no error.
	Lift(ctx context.Context, s Spec, f Files) error
	// Discard ends whatever machine still lives in f.Dir and removes what the
	// driver put there, except console.log. Nothing there is no error.
	Discard(ctx context.Context, s Spec, f Files) error
}

// Machine is one machine on this host. Its methods may be called from any goroutine.
type Machine interface {
	// State asks the machine, not a cache.
	State(ctx context.Context) (State, error)
	Pause(ctx context.Context) error
	// Resume runs a paused machine; a machine received by migration runs from
	// the state that was loaded.
	Resume(ctx context.Context) error
	// Fence sees to it that the machine stands still from at on, until Lift. It is for
	// machines that were received; a time that has passed is refused. It does so also when
	// this process has ended by then, hangs or was stopped; without anyone to watch the
	// time it stands still at once.
	Fence(ctx context.Context, at time.Time) error
	// Stop ends the machine: politely when the guest heeds it within ctx's
	// deadline or 5 s, then by force. The overlays stay.
	Stop(ctx context.Context) error
	// Done is closed when the machine's process has ended.
	Done() <-chan struct{}
	// Outgoing begins a migration away: from here on disk changes are tracked.
	// One at a time.
	Outgoing(ctx context.Context, l Limits) (Outgoing, error)
}

// Limits are what the user allows a migration to cost the machine.
type Limits struct {
	MaxDowntime int64 // milliseconds the machine may stand still; 0: the driver's 300
	Bandwidth   int64 // bytes per second that the link carries; 0: not known
}

// Extent is a run of bytes of one disk.
type Extent struct {
	Disk   int   // index into Files.Disks
	Offset int64 // bytes, a multiple of 4096
	Length int64 // bytes, a multiple of 4096
	Zero   bool  // reads as zeroes: nothing to read or send
}

// Outgoing is a migration seen from the source. Its methods are called by one
// goroutine at a time, except Paused, Downtime and Cancel.
type Outgoing interface {
	// Changes returns what was written to the disks since the call before, in
	// order and without overlap. The first call returns everything that differs
	// from the bases. After Paused the answer is final.
	Changes(ctx context.Context) ([]Extent, error)
	// ReadDisk reads len(p) bytes of a disk as the guest sees them now.
	ReadDisk(ctx context.Context, disk int, p []byte, off int64) error
	// Memory starts to send memory and device state; ctx bounds the call, not the
	// stream. The stream ends with io.EOF once all of it, the last device state
	// too, has been read and the driver knows the migration as complete: the
	// destination must not run before. Any other end is an error. Closing the
	// reader stops reading and nothing else; Cancel ends the migration.
	Memory(ctx context.Context) (io.ReadCloser, error)
	// Paused is closed when the driver has paused the machine because the rest
	// fits the limit; it then waits for Finish.
	Paused() <-chan struct{}
	// Finish lets the last memory and the device state go. The disks can no
	// longer be read.
	Finish(ctx context.Context) error
	// Downtime is, after the end, the driver's own measure of how long the machine
	// stood still before its state had left; 0 when not known.
	Downtime() int64
	// Cancel gives the migration up at any point and frees what it took. With
	// resume the machine runs on here, if it ran before the migration; without, it
	// is paused, and if it was paused already it does not run in between. After a
	// successful migration call it with resume false. A machine that has ended is
	// no error; the second call does nothing.
	Cancel(ctx context.Context, resume bool) error
}

// Incoming is a migration seen from the destination. Its methods are called by
// one goroutine at a time for the disks and another for the memory.
type Incoming interface {
	WriteDisk(ctx context.Context, disk int, p []byte, off int64) error
	// ZeroDisk makes a range read as zeroes, as a hole where the format has holes.
	ZeroDisk(ctx context.Context, disk int, off, n int64) error
	// Flush makes what was written durable.
	Flush(ctx context.Context) error
	// Memory takes the stream of Outgoing.Memory, byte for byte; ctx bounds the
	// call, not the stream. Close it at its end.
	Memory(ctx context.Context) (io.WriteCloser, error)
	// Loaded waits until the machine has taken all of its state and is ready to
	// Resume; it is paused then. The disks can no longer be written.
	Loaded(ctx context.Context) error
}

// Check says what is wrong with a spec.
func (s Spec) Check() error {
	switch {
	case s.Name == "":
		return errors.New("machine has no name")
	case s.Driver != "qemu" && s.Driver != "memvm":
		return fmt.Errorf("unknown driver %q: use qemu or memvm", s.Driver)
	case s.Memory <= 0 || s.Memory%(1<<20) != 0:
		return fmt.Errorf("memory of %d bytes is not a positive multiple of 1 MiB", s.Memory)
	case s.VCPUs < 1:
		return fmt.Errorf("%d vCPUs: a machine needs at least 1", s.VCPUs)
	}
	return nil
}
