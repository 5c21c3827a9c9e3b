package memvm

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dcnode/dcnode/vmm"
)

var (
	_ vmm.Featurer  = (*Machine)(nil)
	_ vmm.Sampler   = (*Machine)(nil)
	_ vmm.DiskOwner = (*Machine)(nil)
)

func TestSitesCanDiffer(t *testing.T) {
	old := New(Config{Version: "1.0", MachineTypes: []string{"memvm-0"}, CPUFeatures: []string{"fill"}})
	young := New(Config{Version: "2.0", MachineTypes: []string{"memvm-0", "memvm-1"}, CPUFeatures: []string{"fill", "count"}})
	c := old.Probe(t.Context())
	if c.Version != "1.0" || !slices.Equal(c.MachineTypes, []string{"memvm-0"}) || !slices.Equal(c.CPUFeatures, []string{"fill"}) {
		t.Errorf("got %+v", c)
	}
	s, err := young.Pin(t.Context(), testSpec("web1"))
	if err != nil || s.MachineType != "memvm-1" || s.CPU != "count,fill" {
		t.Fatalf("pinned %+v, %v", s, err)
	}
	if _, err := old.Pin(t.Context(), s); err == nil || !strings.Contains(err.Error(), "memvm-1") {
		t.Errorf("another machine type: %v", err)
	}
	s.MachineType = "memvm-0"
	if _, err := old.Pin(t.Context(), s); err == nil || !strings.Contains(err.Error(), "features count,") {
		t.Errorf("a CPU with more features: %v", err)
	}
	s, err = old.Pin(t.Context(), testSpec("web2"))
	if err != nil {
		t.Fatal(err)
	}
	m, _, err := young.Receive(t.Context(), s, testFiles(t, testBase(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Stop(t.Context())
	if got, err := m.(vmm.Featurer).CPUFeatures(t.Context()); err != nil || !slices.Equal(got, []string{"fill"}) {
		t.Errorf("features %q, %v: not those that it was pinned with", got, err)
	}
}

func TestDefaultMachineIsPinnedAsBefore(t *testing.T) {
	s, err := New(Config{}).Pin(t.Context(), testSpec("web1"))
	if err != nil || s.MachineType != machineType || s.CPU != "" {
		t.Errorf("pinned %+v, %v", s, err)
	}
}

// In the bubble's time a step comes every 10 ms, exactly.
func TestDirtyRateIsWhatTheProgramWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(Config{Step: 10 * time.Millisecond, Program: Program{PagesPerStep: 5, HotPages: 700}})
		m, err := d.Start(t.Context(), testSpec("web1"), testFiles(t, testBase(t)))
		if err != nil {
			t.Fatal(err)
		}
		hot := m.(*Machine).plan.hotPages()
		for _, over := range []time.Duration{100 * time.Millisecond, time.Second, 40 * time.Second} {
			rate, err := m.(vmm.Sampler).DirtyRate(t.Context(), over)
			if err != nil {
				t.Fatal(err)
			}
			pages := min(5*over.Milliseconds()/10, hot) // a page counts once
			want := pages * pageSize * 1000 / over.Milliseconds()
			if rate < want*9/10 || rate > want*11/10 {
				t.Errorf("over %v: %d bytes a second, want %d", over, rate, want)
			}
		}
		if m.(*Machine).mem.seen != nil {
			t.Error("it is watched on")
		}
		if err := m.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestDiskRateIsWhatTheProgramWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := New(Config{Step: 10 * time.Millisecond, Program: Program{BlocksPerStep: 1}}).Start(t.Context(), testSpec("web1"), testFiles(t, testBase(t)))
		if err != nil {
			t.Fatal(err)
		}
		rate, err := m.(vmm.DiskWriter).DiskRate(t.Context(), time.Second)
		if want := int64(100 * pageSize); err != nil || rate < want*9/10 || rate > want*11/10 {
			t.Errorf("%d bytes a second, want %d: %v", rate, want, err)
		}
		if err := m.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestCommandLineSaysWhatMemoryHolds(t *testing.T) {
	for words, want := range map[string]struct {
		content string
		pages   uint32
	}{
		"":                                {"", 8},
		"console=ttyS0 memory=zero":       {"zero", 8},
		"memory=text writes=32":           {"text", 32},
		"writes=0":                        {"", 1},
		"writes=65535":                    {"", maxPerStep},
		"writes=many memory=random quiet": {"random", 8},
	} {
		s := testSpec("web1")
		s.Append = words
		pl := newPlan(s, vmm.Files{}, Program{}.withDefaults(), nil)
		if pl.content != want.content || pl.prog.PagesPerStep != want.pages {
			t.Errorf("%q: memory of %q, %d pages a step", words, pl.content, pl.prog.PagesPerStep)
		}
		var p [pageSize]byte
		pl.coldPage(7, p[:])
		if isZero(p[:]) != (want.content == "zero") {
			t.Errorf("%q: page 7 is zero: %v", words, isZero(p[:]))
		}
	}
}

func TestOwnBytesAreDataBlocks(t *testing.T) {
	d := New(Config{})
	m, in, err := d.Receive(t.Context(), testSpec("web1"), testFiles(t, testBase(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Stop(t.Context())
	if err := in.WriteDisk(t.Context(), 0, make([]byte, 5*pageSize), 0); err != nil {
		t.Fatal(err)
	}
	if err := in.ZeroDisk(t.Context(), 0, pageSize, pageSize); err != nil {
		t.Fatal(err)
	}
	if n, err := m.(vmm.DiskOwner).OwnBytes(t.Context()); err != nil || n != 4*pageSize {
		t.Errorf("%d bytes, %v; want 4 blocks", n, err)
	}
}

func TestWholeSampleIsTheMemory(t *testing.T) {
	d := New(Config{})
	m, err := d.Start(t.Context(), testSpec("web1"), testFiles(t, testBase(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Stop(t.Context())
	if err := m.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := m.(vmm.Sampler).SampleMemory(t.Context(), vmm.MaxSample)
	if err != nil || !slices.Equal(got, m.(*Machine).mem.bytes) {
		t.Errorf("%d bytes, %v: not the memory of %d", len(got), err, len(m.(*Machine).mem.bytes))
	}
}
