package memvm

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/dcnode/dcnode/vmm"
	"github.com/dcnode/dcnode/vmm/vmmtest"
)

const mib = 1 << 20

func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func testSpec(name string) vmm.Spec {
	return vmm.Spec{Name: name, Driver: "memvm", Memory: 8 * mib, VCPUs: 1, Seed: 42}
}

// testBase writes 3 MiB of a base for a disk of 4 MiB.
func testBase(t *testing.T) string {
	t.Helper()
	b := make([]byte, 3*mib)
	rng := rand.NewChaCha8([32]byte{1})
	rng.Read(b[:2*mib])
	path := filepath.Join(t.TempDir(), "base.raw")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func testFiles(t *testing.T, base string) vmm.Files {
	t.Helper()
	return vmm.Files{Dir: t.TempDir(), Disks: []vmm.Disk{
		{Name: "disk0", Base: base, Size: 4 * mib}, {Name: "disk1", Size: mib},
	}}
}

func TestMovedMachineIsTheSameToTheByte(t *testing.T) {
	ctx := deadline(t)
	d := New(Config{Step: time.Millisecond})
	base := testBase(t)
	spec, from, to := testSpec("web1"), testFiles(t, base), testFiles(t, base)
	src, err := d.Start(ctx, spec, from)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := vmmtest.WaitTick(ctx, from.Dir, 300); err != nil {
		t.Fatal(err)
	}
	dst, in, err := d.Receive(ctx, spec, to)
	if err != nil {
		t.Fatal(err)
	}
	out, err := src.Outgoing(ctx, vmm.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	moved, err := vmmtest.Migrate(ctx, out, in, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", moved)
	if s := dst.(*Machine).Step(); s != src.(*Machine).Step() {
		t.Errorf("destination is at step %d, source at %d", s, src.(*Machine).Step())
	}
	if err := dst.(*Machine).Verify(); err != nil {
		t.Error(err)
	}
	r, err := CheckDisks(spec, to)
	if err != nil || r.Step != src.(*Machine).Step() || r.Blocks == 0 {
		t.Errorf("CheckDisks = %+v, %v", r, err)
	}
	if err := out.Cancel(ctx, false); err != nil {
		t.Error(err)
	}
	if err := dst.Resume(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := vmmtest.WaitTick(ctx, to.Dir, int(r.Step)+50); err != nil {
		t.Error(err)
	}
	if err := dst.(*Machine).Verify(); err != nil {
		t.Error(err)
	}
	for _, m := range []vmm.Machine{src, dst} {
		if err := m.Stop(ctx); err != nil {
			t.Error(err)
		}
	}
	if _, err := CheckDisks(spec, to); err != nil {
		t.Error(err)
	}
}
