package qemu

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dcnode/dcnode/vmm"
	"github.com/dcnode/dcnode/vmm/vmmtest"
)

func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// host is one site: a driver and a machine's files there.
func host(t *testing.T, cfg Config, base string) (*Driver, vmm.Files) {
	t.Helper()
	cfg.ForceTCG = true
	d := newDriver(t, cfg)
	f := vmm.Files{Dir: t.TempDir(), Disks: []vmm.Disk{{Name: "disk0", Base: base, Size: 8 * mib}}}
	t.Cleanup(func() { d.Discard(context.Background(), testSpec(), f) })
	return d, f
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestZeroedRangesMoveAsHoles(t *testing.T) {
	cfg, ctx, base := liveQEMU(t), deadline(t), bootBase(t)
	alice, at := host(t, cfg, base)
	src, err := alice.Start(ctx, testSpec(), at)
	must(t, err)
	bob, via := host(t, cfg, base)
	mid, in, err := bob.Receive(ctx, testSpec(), via)
	must(t, err)
	must(t, in.ZeroDisk(ctx, 0, 3*mib, mib)) // random bytes in the base
	out, err := src.Outgoing(ctx, vmm.Limits{})
	must(t, err)
	_, err = vmmtest.Migrate(ctx, out, in, nil)
	must(t, err)
	must(t, out.Cancel(ctx, false))
	must(t, mid.Resume(ctx))
	carol, to := host(t, cfg, base)
	_, in, err = carol.Receive(ctx, testSpec(), to)
	must(t, err)
	out, err = mid.Outgoing(ctx, vmm.Limits{})
	must(t, err)
	moved, err := vmmtest.Migrate(ctx, out, in, nil)
	must(t, err)
	if moved.Zeroes != mib {
		t.Errorf("%d bytes moved as zeroes, want %d: %+v", moved.Zeroes, mib, moved)
	}
	if got := image(t, cfg, to, 0); !bytes.Equal(got[3*mib:4*mib], make([]byte, mib)) {
		t.Error("the range does not read as zeroes")
	}
	if st, err := os.Stat(filepath.Join(to.Dir, "disk0.qcow2")); err != nil || st.Size() > 2*mib {
		t.Errorf("the overlay grew to %d bytes: zeroes were stored", st.Size())
	}
}

func TestLoadErrorIsToldInQEMUsWords(t *testing.T) {
	cfg, ctx, base := liveQEMU(t), deadline(t), bootBase(t)
	alice, from := host(t, cfg, base)
	src, err := alice.Start(ctx, testSpec(), from)
	must(t, err)
	bob, to := host(t, cfg, base)
	larger := testSpec()
	larger.Memory *= 2
	_, in, err := bob.Receive(ctx, larger, to)
	must(t, err)
	out, err := src.Outgoing(ctx, vmm.Limits{})
	must(t, err)
	if _, err := vmmtest.CopyMemory(ctx, out, in); err != nil {
		t.Fatal(err)
	}
	err = in.Loaded(ctx)
	if !errors.Is(err, vmm.ErrGone) || !strings.Contains(err.Error(), "load of migration failed") {
		t.Errorf("got %v", err)
	}
	t.Log(err)
	must(t, out.Cancel(ctx, true))
}

func TestMachineOfAnotherNameIsNotAttached(t *testing.T) {
	cfg, ctx, base := liveQEMU(t), deadline(t), bootBase(t)
	alice, files := host(t, cfg, base)
	_, err := alice.Start(ctx, testSpec(), files)
	must(t, err)
	alice.Close()
	other := testSpec()
	other.Name = "web2"
	if _, err := newDriver(t, cfg).Attach(ctx, other, files); err == nil || !strings.Contains(err.Error(), "another machine") {
		t.Errorf("got %v", err)
	}
	again, err := newDriver(t, cfg).Attach(ctx, testSpec(), files)
	must(t, err)
	must(t, again.Pause(ctx))
}

func TestMachineLivesInALongDirectory(t *testing.T) {
	cfg, ctx, base := liveQEMU(t), deadline(t), bootBase(t)
	d, files := host(t, cfg, base)
	files.Dir = filepath.Join(files.Dir, strings.Repeat("long-", 20), "with,comma")
	must(t, os.MkdirAll(files.Dir, 0o700))
	p, err := resolve(files)
	must(t, err)
	_, err = d.Start(ctx, testSpec(), files)
	must(t, err)
	_, err = vmmtest.WaitTick(ctx, files.Dir, 3)
	must(t, err)
	must(t, d.Discard(ctx, testSpec(), files))
	if _, err := os.Stat(p.sock); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("socket directory %s is left: %v", p.sock, err)
	}
}

func TestKilledQEMUIsGoneWithItsWords(t *testing.T) {
	cfg, ctx, base := liveQEMU(t), deadline(t), bootBase(t)
	d, files := host(t, cfg, base)
	m, err := d.Start(ctx, testSpec(), files)
	must(t, err)
	out, err := m.Outgoing(ctx, vmm.Limits{})
	must(t, err)
	must(t, m.(*Machine).proc.kill())
	if err := out.ReadDisk(ctx, 0, make([]byte, mib), 0); !errors.Is(err, vmm.ErrGone) {
		t.Errorf("read disk: %v, want ErrGone", err)
	}
	<-m.Done()
	if err := m.Pause(ctx); !errors.Is(err, vmm.ErrGone) {
		t.Errorf("pause: %v, want ErrGone", err)
	}
	must(t, out.Cancel(ctx, true))
}

// killGuard kills the guard that listens at sock.
func killGuard(t *testing.T, sock string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	must(t, err)
	for _, p := range all {
		line, err := os.ReadFile(p)
		if err != nil || !strings.HasPrefix(string(line), "dcnode-fence\x00") || !strings.Contains(string(line), sock) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(p)))
		must(t, err)
		must(t, syscall.Kill(pid, syscall.SIGKILL))
		return
	}
	t.Fatal("there is no guard")
}

// The kernel stops a machine whose guard is killed: nobody would watch the time.
func TestFencedMachineStandsStillWhenDaemonAndGuardAreKilled(t *testing.T) {
	cfg, ctx, base := liveQEMU(t), deadline(t), bootBase(t)
	alice, from := host(t, cfg, base)
	src, err := alice.Start(ctx, testSpec(), from)
	must(t, err)
	_, err = vmmtest.WaitTick(ctx, from.Dir, 3)
	must(t, err)
	bob, to := host(t, cfg, base)
	dst, in, err := bob.Receive(ctx, testSpec(), to)
	must(t, err)
	out, err := src.Outgoing(ctx, vmm.Limits{})
	must(t, err)
	_, err = vmmtest.Migrate(ctx, out, in, nil)
	must(t, err)
	must(t, out.Cancel(ctx, false))
	must(t, src.Stop(ctx))
	must(t, dst.Fence(ctx, time.Now().Add(time.Hour)))
	must(t, dst.Resume(ctx))
	last, err := vmmtest.WaitTick(ctx, to.Dir, 0)
	must(t, err)
	_, err = vmmtest.WaitTick(ctx, to.Dir, last+3)
	must(t, err)

	bob.Close()
	killGuard(t, dst.(*Machine).paths.fence())
	carol := newDriver(t, cfg)
	for err = nil; !errors.Is(err, vmm.ErrFenced); {
		_, err = carol.Attach(ctx, testSpec(), to)
		must(t, ctx.Err())
		if err == nil {
			carol.Close()
		}
	}
	must(t, carol.Lift(ctx, testSpec(), to))
	dst, err = carol.Attach(ctx, testSpec(), to)
	must(t, err)
	if st, err := dst.State(ctx); st != vmm.Running || err != nil {
		t.Errorf("it is %s, %v", st, err)
	}
}

func TestQEMUThatDoesNotStartSaysWhy(t *testing.T) {
	cfg, ctx, base := liveQEMU(t), deadline(t), bootBase(t)
	d, files := host(t, cfg, base)
	s := testSpec()
	s.CPU = "no-such-cpu"
	_, err := d.Start(ctx, s, files)
	if err == nil || !strings.Contains(err.Error(), "no-such-cpu") {
		t.Errorf("got %v", err)
	}
	left, err := os.ReadDir(files.Dir)
	must(t, err)
	for _, e := range left {
		if n := e.Name(); n != "qemu.log" && n != "disk0.qcow2" && n != "console.log" {
			t.Errorf("left behind: %s", n)
		}
	}
}

// TestLinuxMoves moves a real kernel. DCNODE_GUEST_DISK may name a raw disk for it; a
// guest that checks itself says `check FAIL` when something is wrong.
func TestLinuxMoves(t *testing.T) {
	cfg, ctx := liveQEMU(t), deadline(t)
	kernel, initrd := os.Getenv("DCNODE_GUEST_KERNEL"), os.Getenv("DCNODE_GUEST_INITRD")
	if kernel == "" || initrd == "" {
		t.Fatal("-vm needs DCNODE_GUEST_KERNEL and DCNODE_GUEST_INITRD: a Linux kernel and an initrd that writes `tick N` to ttyS0")
	}
	base := os.Getenv("DCNODE_GUEST_DISK")
	if base == "" {
		base = bootBase(t)
	}
	st, err := os.Stat(base)
	must(t, err)
	spec := testSpec()
	spec.Memory, spec.Append = 256*mib, "console=ttyS0 quiet loglevel=3 panic=-1 mitigations=off"
	alice, from := host(t, cfg, base)
	bob, to := host(t, cfg, base)
	for _, f := range []*vmm.Files{&from, &to} {
		f.Kernel, f.Initrd, f.Disks[0].Size = kernel, initrd, st.Size()
	}
	src, err := alice.Start(ctx, spec, from)
	must(t, err)
	_, err = vmmtest.WaitTick(ctx, from.Dir, 100)
	must(t, err)
	dst, in, err := bob.Receive(ctx, spec, to)
	must(t, err)
	out, err := src.Outgoing(ctx, vmm.Limits{})
	must(t, err)
	moved, err := vmmtest.Migrate(ctx, out, in, nil)
	must(t, err)
	t.Logf("%+v", moved)
	must(t, out.Cancel(ctx, false))
	must(t, dst.Resume(ctx))
	consoles := []string{filepath.Join(from.Dir, "console.log"), filepath.Join(to.Dir, "console.log")}
	ticks, err := vmmtest.Ticks(consoles[0])
	must(t, err)
	_, err = vmmtest.WaitTick(ctx, to.Dir, ticks[len(ticks)-1]+300)
	must(t, err)
	ticks, err = vmmtest.Ticks(consoles...)
	must(t, err)
	must(t, vmmtest.Contiguous(ticks))
	said, err := os.ReadFile(consoles[1])
	must(t, err)
	if strings.Contains(string(said), "FAIL") || strings.Contains(string(said), "panic") {
		t.Errorf("the guest says:\n%s", said)
	}
}
