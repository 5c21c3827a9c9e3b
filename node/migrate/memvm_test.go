package migrate

import (
	"context"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/dcnode/dcnode/vmm"
	"github.com/dcnode/dcnode/vmm/memvm"
	"github.com/dcnode/dcnode/vmm/ramstream"
)

const mib = 1 << 20

// tcp is a connection on this host's loopback.
func tcp(t *testing.T) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// embedded is a machine of package memvm that runs at alice's and is awaited at bob's.
type embedded struct {
	spec     vmm.Spec
	files    vmm.Files // bob's
	src, dst *memvm.Machine
	in       vmm.Incoming
	base     ramstream.Base
}

func newEmbedded(ctx context.Context, t *testing.T) *embedded {
	t.Helper()
	content := make([]byte, 4*mib)
	rng := rand.NewChaCha8([32]byte{1})
	if _, err := rng.Read(content[:3*mib]); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "base.raw")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	files := func() vmm.Files {
		return vmm.Files{Dir: t.TempDir(), Disks: []vmm.Disk{
			{Name: "disk0", Base: path, Size: 4 * mib}, {Name: "disk1", Size: mib},
		}}
	}
	e := &embedded{
		spec:  vmm.Spec{Name: "web1", Driver: "memvm", Memory: 16 * mib, VCPUs: 1, Seed: 42},
		files: files(), base: ramstream.Base{R: file, Size: 4 * mib},
	}
	d := memvm.New(memvm.Config{Step: time.Millisecond})
	src, err := d.Start(ctx, e.spec, files())
	if err != nil {
		t.Fatal(err)
	}
	dst, in, err := d.Receive(ctx, e.spec, e.files)
	if err != nil {
		t.Fatal(err)
	}
	e.src, e.dst, e.in = src.(*memvm.Machine), dst.(*memvm.Machine), in
	t.Cleanup(func() {
		stop, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		for _, m := range []vmm.Machine{src, dst} {
			if err := m.Stop(stop); err != nil {
				t.Error(err)
			}
		}
	})
	return e
}

func (e *embedded) state(ctx context.Context, t *testing.T, m vmm.Machine) vmm.State {
	t.Helper()
	s, err := m.State(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestEmbeddedMachineMovesOverTCP(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	e := newEmbedded(ctx, t)
	out, err := e.src.Outgoing(ctx, vmm.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	a, b := tcp(t)
	bases := []ramstream.Base{e.base}
	arrived := make(chan error, 1)
	go func() {
		_, err := Receive(ctx, b, Sink{Machine: e.in, Bases: bases})
		arrived <- err
	}()
	released := 0
	release := func(ctx context.Context) error {
		released++
		if s := e.state(ctx, t, e.src); s != vmm.Paused {
			t.Errorf("released while %s", s)
		}
		return nil
	}
	sent, err := Send(ctx, a, Job{Machine: out, Bases: bases, Release: release})
	if err != nil {
		t.Fatal(err)
	}
	if err := <-arrived; err != nil {
		t.Fatal(err)
	}
	if released != 1 || sent.Stream.Pages.Disk == 0 || sent.Stream.Pages.Total() < 16*mib/page {
		t.Errorf("released %d times, pages %+v", released, sent.Stream.Pages)
	}
	t.Logf("memory %d → %d, disk %d → %d bytes, %d passes, pages %+v", sent.MemoryPlain, sent.MemorySent, sent.DiskPlain, sent.DiskSent, sent.Passes, sent.Stream.Pages)
	if err := e.dst.Verify(); err != nil {
		t.Error(err)
	}
	if r, err := memvm.CheckDisks(e.spec, e.files); err != nil || r.Step != e.src.Step() {
		t.Errorf("disks: %+v, %v; the source is at step %d", r, err, e.src.Step())
	}
	if err := out.Cancel(ctx, false); err != nil {
		t.Error(err)
	}
	if s := e.state(ctx, t, e.src); s != vmm.Paused {
		t.Errorf("the source is %s after the move", s)
	}
	if err := e.dst.Resume(ctx); err != nil {
		t.Error(err)
	}
}

func TestEmbeddedMachineRunsOnAfterACut(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	e := newEmbedded(ctx, t)
	out, err := e.src.Outgoing(ctx, vmm.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	a, b := tcp(t)
	arrived := make(chan error, 1)
	go func() {
		_, err := Receive(ctx, b, Sink{Machine: e.in, Progress: func(p Progress) {
			if p.Phase == Memory {
				b.Close()
			}
		}})
		arrived <- err
	}()
	_, err = Send(ctx, a, Job{Machine: out, Release: func(context.Context) error {
		t.Error("released over a cut link")
		return nil
	}})
	if got := <-arrived; err == nil || got == nil {
		t.Fatalf("send: %v; receive: %v", err, got)
	}
	if s := e.state(ctx, t, e.src); s != vmm.Running {
		t.Errorf("the source is %s", s)
	}
	if s := e.state(ctx, t, e.dst); s == vmm.Running {
		t.Error("the destination runs")
	}
}
