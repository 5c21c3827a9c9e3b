package qemu

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/dcnode/dcnode/vmm"
	"github.com/dcnode/dcnode/vmm/vmmtest"
)

var (
	_ vmm.Featurer  = (*Machine)(nil)
	_ vmm.Sampler   = (*Machine)(nil)
	_ vmm.DiskOwner = (*Machine)(nil)
)

func TestPickedPagesAreRAM(t *testing.T) {
	zones := []zone{{0, 2}, {0x100000, 3}, {1 << 32, 1}}
	want := []int64{0, 4096, 0x100000, 0x101000, 0x102000, 1 << 32}
	if got := pick(zones, 100); !slices.Equal(got, want) {
		t.Errorf("all pages: %x", got)
	}
	zones = []zone{{0, 2}, {0x100000, 99}}
	for n := range 102 {
		got := pick(zones, n)
		if len(got) != n || !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != n {
			t.Fatalf("%d pages are %x", n, got)
		}
		for _, addr := range got {
			if addr > 0x1000 && addr < 0x100000 || addr >= 0x100000+99*vmm.PageSize || addr%vmm.PageSize != 0 {
				t.Fatalf("picked %x", addr)
			}
		}
	}
	if got := pick(nil, 3); len(got) != 0 {
		t.Errorf("picked %x of nothing", got)
	}
}

func TestFlagsGetQEMUsNames(t *testing.T) {
	got := renamed([]string{"sse4_1", "sse4_2", "lahf_lm", "avx2", "3dnowprefetch"})
	if !slices.Equal(got, []string{"3dnowprefetch", "avx2", "lahf-lm", "sse4.1", "sse4.2"}) {
		t.Errorf("got %q", got)
	}
}

// qcow2 is the head of a file with clusters of 64 KiB, and its two tables.
func qcow2(l1, counts []uint64) []byte {
	b := make([]byte, 4<<16)
	be := binary.BigEndian
	be.PutUint32(b, qcowMagic)
	be.PutUint32(b[4:], 3)
	be.PutUint32(b[20:], 16)
	be.PutUint32(b[36:], uint32(len(l1)))
	be.PutUint64(b[40:], 3<<16)
	be.PutUint64(b[48:], 1<<16)
	be.PutUint32(b[56:], 1)
	for i, v := range counts {
		be.PutUint64(b[1<<16+8*i:], v)
	}
	for i, v := range l1 {
		be.PutUint64(b[3<<16+8*i:], v)
	}
	return b
}

func TestTablesOfAnOverlayAreCounted(t *testing.T) {
	const copied = 1 << 63 // a flag, not an offset
	b := qcow2([]uint64{4<<16 | copied, 0, 5 << 16}, []uint64{2 << 16})
	// header, one cluster of counts' table, one of counts, L1, two L2
	if n, err := metadata(bytes.NewReader(b)); err != nil || n != 6<<16 {
		t.Errorf("%d clusters, %v; want 6", n>>16, err)
	}
}

func TestDamagedOverlayIsRefused(t *testing.T) {
	whole := qcow2([]uint64{4 << 16}, nil)
	for name, change := range map[string]func([]byte) []byte{
		"short":          func(b []byte) []byte { return b[:40] },
		"another format": func(b []byte) []byte { b[0] = 'X'; return b },
		"tiny clusters":  func(b []byte) []byte { b[23] = 8; return b },
		"huge clusters":  func(b []byte) []byte { b[23] = 63; return b },
		"huge L1":        func(b []byte) []byte { binary.BigEndian.PutUint32(b[36:], 1<<31); return b },
		"huge counts":    func(b []byte) []byte { binary.BigEndian.PutUint32(b[56:], 1<<31); return b },
		"L1 after all":   func(b []byte) []byte { binary.BigEndian.PutUint64(b[40:], 1<<63+8); return b },
		"L1 cut off":     func(b []byte) []byte { return b[:3<<16+4] },
	} {
		if n, err := metadata(bytes.NewReader(change(slices.Clone(whole)))); err == nil {
			t.Errorf("%s: %d bytes", name, n)
		}
	}
}

func TestProbeTellsTheCPU(t *testing.T) {
	c := newDriver(t, liveQEMU(t)).Probe(t.Context())
	if c.CPUModel == "" || !slices.IsSorted(c.CPUFeatures) {
		t.Errorf("model %q, features %q", c.CPUModel, c.CPUFeatures)
	}
	if lacks := vmm.Lacks(c.CPUFeatures, []string{"cx8", "fpu", "lm", "sse2"}); len(lacks) > 0 {
		t.Errorf("a CPU without %q: %q", lacks, c.CPUFeatures)
	}
	t.Logf("%s %s: %s, %d features", c.Version, c.Accelerator, c.CPUModel, len(c.CPUFeatures))
}

func TestMachineTellsItsOwnCPU(t *testing.T) {
	cfg, ctx, base := liveQEMU(t), deadline(t), bootBase(t)
	d, files := host(t, cfg, base)
	s := testSpec()
	s.CPU = "qemu64,avx2=on,svm=off"
	m, err := d.Start(ctx, s, files)
	must(t, err)
	began := time.Now()
	got, err := m.(vmm.Featurer).CPUFeatures(ctx)
	must(t, err)
	first := time.Since(began)
	if lacks := vmm.Lacks(got, []string{"avx2", "sse2"}); len(lacks) > 0 || slices.Contains(got, "svm") || slices.Contains(got, "aes") {
		t.Errorf("got %q", got)
	}
	got[0] = "changed"
	again, err := m.(vmm.Featurer).CPUFeatures(ctx)
	must(t, err)
	if again[0] == "changed" {
		t.Error("the caller can change what the machine answers")
	}
	t.Logf("asked in %v", first)
}

func TestSampledPagesAreTheGuests(t *testing.T) {
	cfg, ctx, base := liveQEMU(t), deadline(t), bootBase(t)
	d, files := host(t, cfg, base)
	spec := testSpec()
	spec.Memory = 8 * mib
	m, err := d.Start(ctx, spec, files)
	must(t, err)
	_, err = vmmtest.WaitTick(ctx, files.Dir, 40)
	must(t, err)
	must(t, m.Pause(ctx))
	s := m.(vmm.Sampler)
	began := time.Now()
	pages, err := s.SampleMemory(ctx, vmm.MaxSample) // all that there are
	must(t, err)
	t.Logf("%d pages in %v", len(pages)/vmm.PageSize, time.Since(began))
	hole := int(legacyHole.to-legacyHole.from) / vmm.PageSize
	if want := 8*mib/vmm.PageSize - hole; len(pages) != want*vmm.PageSize {
		t.Fatalf("%d pages, want %d", len(pages)/vmm.PageSize, want)
	}
	// The guest fills the 32 pages from 0x20000 on, each with one count.
	for i := range 32 {
		page := pages[0x20000+i*vmm.PageSize:][:vmm.PageSize]
		if n := binary.LittleEndian.Uint32(page); !bytes.Equal(page, bytes.Repeat(page[:4], vmm.PageSize/4)) || int(n%32) != i {
			t.Errorf("page %d holds %x…", i, page[:8])
		}
	}
	few, err := s.SampleMemory(ctx, 7)
	must(t, err)
	if len(few) != 7*vmm.PageSize {
		t.Errorf("%d bytes of 7 pages", len(few))
	}
	for _, n := range []int{0, -1, vmm.MaxSample + 1} {
		if _, err := s.SampleMemory(ctx, n); err == nil {
			t.Errorf("sampled %d pages", n)
		}
	}
	if left, err := filepath.Glob(filepath.Join(files.Dir, "sample*")); err != nil || len(left) > 0 {
		t.Errorf("guest memory is left in %q, %v", left, err)
	}
}

func TestMemoryAboveFourGiBIsFound(t *testing.T) {
	cfg, ctx, base := liveQEMU(t), deadline(t), bootBase(t)
	d, files := host(t, cfg, base)
	s := testSpec()
	s.Memory = 3 << 30
	m, err := d.Start(ctx, s, files)
	must(t, err)
	zones, err := m.(*Machine).zones(ctx)
	must(t, err)
	if want := []zone{{0, 160}, {mib, (2<<30 - mib) / 4096}, {4 << 30, (1 << 30) / 4096}}; !slices.Equal(zones, want) {
		t.Errorf("got %v, want %v", zones, want)
	}
	pages, err := m.(vmm.Sampler).SampleMemory(ctx, 100)
	must(t, err)
	if len(pages) != 100*vmm.PageSize {
		t.Errorf("%d bytes", len(pages))
	}
}

func TestPausedMachineDirtiesNothing(t *testing.T) {
	cfg, ctx, base := liveQEMU(t), deadline(t), bootBase(t)
	for _, memory := range []int64{32 * mib, 256 * mib} { // compared here only, and by QEMU
		d, files := host(t, cfg, base)
		s := testSpec()
		s.Memory = memory
		m, err := d.Start(ctx, s, files)
		must(t, err)
		must(t, m.Pause(ctx))
		rate, err := m.(vmm.Sampler).DirtyRate(ctx, 100*time.Millisecond)
		must(t, err)
		if rate != 0 {
			t.Errorf("%d MiB: a paused machine writes %d bytes a second", memory/mib, rate)
		}
		if _, err := m.(vmm.Sampler).DirtyRate(ctx, time.Hour); err == nil {
			t.Error("watched for an hour")
		}
		wrote, err := m.(vmm.DiskWriter).DiskRate(ctx, 100*time.Millisecond)
		must(t, err)
		if wrote != 0 {
			t.Errorf("%d MiB: a paused machine writes %d bytes a second to its disks", memory/mib, wrote)
		}
	}
}

func TestSampleInAHurryIsSmaller(t *testing.T) {
	cfg, ctx, base := liveQEMU(t), deadline(t), bootBase(t)
	d, files := host(t, cfg, base)
	m, err := d.Start(ctx, testSpec(), files)
	must(t, err)
	const all = 512
	began := time.Now()
	_, err = m.(vmm.Sampler).SampleMemory(ctx, all)
	must(t, err)
	within := time.Since(began) / 2
	for {
		hurry, cancel := context.WithTimeout(ctx, within)
		some, err := m.(vmm.Sampler).SampleMemory(hurry, all)
		cancel()
		must(t, ctx.Err())
		if err == nil {
			if n := len(some) / vmm.PageSize; n*vmm.PageSize != len(some) || n*enough < all || n > all {
				t.Errorf("%d pages of %d", n, all)
			}
			return
		}
		if within += within / 4; !errors.Is(err, context.DeadlineExceeded) { // the host is busier by now
			t.Fatal(err)
		}
	}
}

func TestWhoeverLooksWaitsNoLongerThanHeWants(t *testing.T) {
	m := newMachine(testSpec(), vmm.Files{}, paths{}, New(Config{}).cfg)
	m.looking <- struct{}{}
	m.watching <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.look(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("look: %v", err)
	}
	if _, err := m.rateOver(ctx, time.Second); !errors.Is(err, context.Canceled) {
		t.Errorf("watch: %v", err)
	}
}

func TestOwnBytesAreThoseWritten(t *testing.T) {
	cfg, ctx, base := liveQEMU(t), deadline(t), bootBase(t)
	d, files := host(t, cfg, base)
	m, _, err := d.Receive(ctx, testSpec(), files)
	must(t, err)
	own := func() int64 {
		t.Helper()
		n, err := m.(vmm.DiskOwner).OwnBytes(ctx)
		must(t, err)
		return n
	}
	if n := own(); n > 64<<10 {
		t.Errorf("a fresh overlay holds %d bytes", n)
	}
	must(t, m.Stop(ctx))
	p, err := resolve(files)
	must(t, err)
	for i, size := range []int{1, 3} { // MiB in all
		write := "write -P 7 0 " + strconv.Itoa(size) + "M"
		qemuIO := filepath.Join(filepath.Dir(cfg.ImgBinary), "qemu-io")
		if out, err := exec.Command(qemuIO, "-f", "qcow2", "-c", write, p.overlay("disk0")).CombinedOutput(); err != nil {
			t.Skipf("no qemu-io beside qemu-img: %v: %s", err, out)
		}
		if n := own(); n < int64(size)*mib-64<<10 || n > int64(size)*mib+64<<10 {
			t.Errorf("write %d: %d KiB are its own, want %d", i, n>>10, size<<10)
		}
	}
}
