package migrate

import (
	"bytes"
	"context"
	"flag"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/dcnode/dcnode/vmm"
	"github.com/dcnode/dcnode/vmm/qemu"
	"github.com/dcnode/dcnode/vmm/ramstream"
)

var withVM = flag.Bool("vm", false, "run the tests that need a real QEMU and the guest: DCNODE_QEMU and the others name them")

// TestEstimateOfAGuestIsWhatItSends boots Linux, lets it fill its page cache and write
// 4 MiB of memory a second, asks for the facts and compares.
func TestEstimateOfAGuestIsWhatItSends(t *testing.T) {
	if !*withVM {
		t.Skip("needs a real QEMU: run with -vm")
	}
	const rate = 4096 << 10
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute) // for a host with much other work
	defer cancel()
	base := os.Getenv("DCNODE_GUEST_DISK")
	st, err := os.Stat(base)
	if err != nil {
		t.Fatal(err)
	}
	spec := vmm.Spec{
		Name: "web1", Driver: "qemu", Memory: 256 * mib, VCPUs: 1,
		Append: "console=ttyS0 quiet loglevel=3 panic=-1 mitigations=off dcnode.memory=64 dcnode.memory-rate=4096",
	}
	files := vmm.Files{
		Dir: t.TempDir(), Kernel: os.Getenv("DCNODE_GUEST_KERNEL"), Initrd: os.Getenv("DCNODE_GUEST_INITRD"),
		Disks: []vmm.Disk{{Name: "disk0", Base: base, Size: st.Size()}},
	}
	d := qemu.New(qemu.Config{Binary: os.Getenv("DCNODE_QEMU"), ImgBinary: os.Getenv("DCNODE_QEMU_IMG"), ForceTCG: true})
	defer d.Close()
	m, err := d.Start(ctx, spec, files)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Discard(context.WithoutCancel(ctx), spec, files)
	awaitWord(ctx, t, filepath.Join(files.Dir, "console.log"), "warm bytes")
	awaitWord(ctx, t, filepath.Join(files.Dir, "console.log"), "check ok")

	for _, over := range []time.Duration{time.Second, 3 * time.Second} {
		got, err := m.(vmm.Sampler).DirtyRate(ctx, over)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("over %v: %.2f MiB/s dirty, of which the guest's writer makes 4", over, float64(got)/mib)
		if got < rate/2 || got > 4*rate {
			t.Errorf("over %v: %d bytes a second, the guest writes %d and a little", over, got, rate)
		}
	}
	own, err := m.(vmm.DiskOwner).OwnBytes(ctx)
	if err != nil || own < 30*mib || own > 60*mib { // a file of 32 MiB, and ext4's own
		t.Errorf("%d bytes of the disk are the machine's own, %v", own, err)
	}
	compareEstimate(ctx, t, m, spec, ramstream.Base{R: open(t, base), Size: st.Size()})
}

func open(t *testing.T, path string) *os.File {
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func compareEstimate(ctx context.Context, t *testing.T, m vmm.Machine, spec vmm.Spec, base ramstream.Base) {
	t.Helper()
	index, err := ramstream.NewIndex(ctx, []ramstream.Base{base}, 0)
	if err != nil {
		t.Fatal(err)
	}
	var told []Estimate
	for _, n := range []int{256, 1024} {
		began := time.Now()
		pages, err := m.(vmm.Sampler).SampleMemory(ctx, n)
		if err != nil {
			t.Fatal(err)
		}
		took := time.Since(began)
		e, err := EstimateMemory(pages, spec.Memory, index)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%d pages in %v: %+v", n, took, e)
		told = append(told, e)
	}
	out, err := m.Outgoing(ctx, vmm.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer out.Cancel(context.WithoutCancel(ctx), false)
	mem, err := out.Memory(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	defer context.AfterFunc(ctx, func() { mem.Close() })()
	go func() { // over a socket of this host QEMU is soon content with what is left
		select {
		case <-out.Paused():
			_ = out.Finish(ctx)
		case <-ctx.Done():
		}
	}()
	got := sendOnce(t, mem, spec.Memory, index)
	for _, e := range told {
		off := float64(e.SentBytes)/float64(got) - 1
		t.Logf("%d pages: %+.1f %% off the %d KiB that were sent", e.Pages, 100*off, got>>10)
		if math.Abs(off) > 0.4 {
			t.Errorf("told %d bytes, %d were sent", e.SentBytes, got)
		}
	}
}

func awaitWord(ctx context.Context, t *testing.T, path, word string) {
	t.Helper()
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		b, err := os.ReadFile(path)
		if err == nil && bytes.Contains(b, []byte(word)) {
			tick.Stop()
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("the guest does not say %q: %v: %s", word, ctx.Err(), b[max(0, len(b)-300):])
		}
	}
}
