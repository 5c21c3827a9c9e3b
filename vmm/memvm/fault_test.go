package memvm

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/dcnode/dcnode/vmm"
	"github.com/dcnode/dcnode/vmm/vmmtest"
)

// record moves a machine into a buffer and leaves it paused: the stream, and
// the disks' extents with their bytes.
func record(t *testing.T, src vmm.Machine) []byte {
	t.Helper()
	ctx := deadline(t)
	out, err := src.Outgoing(ctx, vmm.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := out.Memory(ctx)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		<-out.Paused()
		if err := out.Finish(ctx); err != nil {
			t.Error(err)
		}
	}()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := out.Cancel(ctx, false); err != nil {
		t.Fatal(err)
	}
	return b
}

// load gives a stream to a fresh machine without disks.
func load(t *testing.T, spec vmm.Spec, stream []byte) error {
	t.Helper()
	ctx := deadline(t)
	dst, in, err := New(Config{}).Receive(ctx, spec, vmm.Files{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Stop(ctx)
	w, err := in.Memory(ctx)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write(stream) // fails where the loader stops, which is what Loaded tells
	w.Close()
	if err := in.Loaded(ctx); err != nil {
		return err
	}
	if err := dst.(*Machine).Verify(); err != nil {
		t.Errorf("loaded what is not the machine: %v", err)
	}
	return nil
}

func recorded(t *testing.T) (vmm.Spec, []byte) {
	t.Helper()
	ctx := deadline(t)
	spec := testSpec("web1")
	spec.Memory = 2 * mib
	files := vmm.Files{Dir: t.TempDir()}
	src, err := New(Config{Step: time.Millisecond}).Start(ctx, spec, files)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { src.Stop(context.Background()) })
	if _, err := vmmtest.WaitTick(ctx, files.Dir, 20); err != nil {
		t.Fatal(err)
	}
	return spec, record(t, src)
}

func TestDamagedStreamNeverLoads(t *testing.T) {
	spec, whole := recorded(t)
	if err := load(t, spec, whole); err != nil {
		t.Fatalf("whole stream: %v", err)
	}
	// The first page record with content that continues its block, in the first PART section.
	rec := bytes.Index(whole, binary.BigEndian.AppendUint64(nil, 1*pageSize|ramPage|ramContinue))
	if rec < 0 {
		t.Fatal("no page 1 in the stream")
	}
	end := rec + 8 + pageSize
	for name, b := range map[string][]byte{
		"one bit":     edit(whole, func(b []byte) { b[rec+100] ^= 1 }),
		"torn page":   edit(whole, func(b []byte) { clear(b[rec+8+2048 : end]) }),
		"misplaced":   edit(whole, func(b []byte) { b[rec+6] = 0x30 | b[rec+6]&0xf }),
		"lost page":   append(bytes.Clone(whole[:rec]), whole[end:]...),
		"cut":         whole[:len(whole)-1],
		"longer":      append(bytes.Clone(whole), 0),
		"empty":       nil,
		"other magic": edit(whole, func(b []byte) { b[0] = 'X' }),
		"step":        edit(whole, func(b []byte) { b[len(b)-6-32-16-1]++ }),
	} {
		t.Run(name, func(t *testing.T) {
			if err := load(t, spec, b); err == nil {
				t.Error("loaded")
			}
		})
	}
	twice := append(append(bytes.Clone(whole[:end]), whole[rec:end]...), whole[end:]...)
	if err := load(t, spec, twice); err != nil {
		t.Errorf("a page that was sent twice is allowed, as in every pre-copy: %v", err)
	}
}

func edit(b []byte, f func([]byte)) []byte {
	b = bytes.Clone(b)
	f(b)
	return b
}

func TestStreamOfAnotherMachineIsRefused(t *testing.T) {
	spec, whole := recorded(t)
	other := spec
	other.Seed++
	if err := load(t, other, whole); err == nil || !strings.Contains(err.Error(), "seed") {
		t.Errorf("other seed: %v", err)
	}
	other = spec
	other.Memory *= 2
	if err := load(t, other, whole); err == nil || !strings.Contains(err.Error(), "definitions differ") {
		t.Errorf("other size: %v", err)
	}
}

func TestLostDiskWriteIsFound(t *testing.T) {
	ctx := deadline(t)
	base := testBase(t)
	spec, files := testSpec("web1"), testFiles(t, base)
	m, err := New(Config{Step: time.Millisecond}).Start(ctx, spec, files)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := vmmtest.WaitTick(ctx, files.Dir, 50); err != nil {
		t.Fatal(err)
	}
	if err := m.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	report, err := CheckDisks(spec, files)
	if err != nil || report.Step < 50 || report.Blocks < 50 {
		t.Fatalf("whole disks: %+v, %v", report, err)
	}
	index, err := os.ReadFile(mapPath(files.Dir, "disk0"))
	if err != nil {
		t.Fatal(err)
	}
	hot := bytes.IndexByte(index, inData)
	for name, to := range map[string]byte{"block lost": inBase, "block zeroed": inZeros} {
		bad := edit(index, func(b []byte) { b[hot] = to })
		if err := os.WriteFile(mapPath(files.Dir, "disk0"), bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := CheckDisks(spec, files); err == nil {
			t.Errorf("%s: not found", name)
		}
	}
	stray := edit(index, func(b []byte) { b[5] = inData }) // reads as zeroes, the base holds bytes
	if err := os.WriteFile(mapPath(files.Dir, "disk0"), stray, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := CheckDisks(spec, files); err == nil || !strings.Contains(err.Error(), "never written") {
		t.Errorf("block that nobody wrote: %v", err)
	}
}

func TestRestartGoesOnWithTheLastStep(t *testing.T) {
	ctx := deadline(t)
	spec, files := testSpec("web1"), testFiles(t, testBase(t))
	for range 3 {
		before, err := CheckDisks(spec, files)
		if err != nil {
			t.Fatal(err)
		}
		m, err := New(Config{Step: time.Millisecond}).Start(ctx, spec, files)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := vmmtest.WaitTick(ctx, files.Dir, int(before.Step)+30); err != nil {
			t.Fatal(err)
		}
		if err := m.Pause(ctx); err != nil {
			t.Fatal(err)
		}
		if err := m.(*Machine).Verify(); err != nil {
			t.Error(err)
		}
		if err := m.Stop(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWriterThatNeverRestsIsNotPaused(t *testing.T) {
	ctx := deadline(t)
	spec, files := testSpec("web1"), testFiles(t, "")
	m, err := New(Config{Step: time.Millisecond, Program: Program{HotPages: 512, PagesPerStep: 64}}).Start(ctx, spec, files)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Stop(ctx)
	out, err := m.Outgoing(ctx, vmm.Limits{MaxDowntime: 1})
	if err != nil {
		t.Fatal(err)
	}
	r, err := out.Memory(ctx)
	if err != nil {
		t.Fatal(err)
	}
	// A link of some 4 MB/s, by the machine's own clock: 40 KiB at each step.
	for step := 30; step < 400; step += 10 {
		if _, err := io.CopyN(io.Discard, r, 40<<10); err != nil {
			t.Fatal(err)
		}
		if _, err := vmmtest.WaitTick(ctx, files.Dir, step); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-out.Paused():
		t.Error("paused a machine whose rest does not fit the limit")
	default:
	}
	if err := out.Cancel(ctx, true); err != nil {
		t.Fatal(err)
	}
}

func FuzzLoad(f *testing.F) {
	var b bytes.Buffer
	e := newEncoder(&b, 256)
	e.head()
	e.begin(secPart, ramID)
	e.page(3, make([]byte, pageSize))
	e.page(4, bytes.Repeat([]byte{1}, pageSize))
	e.endPages()
	e.begin(secEnd, ramID)
	e.endPages()
	e.cpu(cpuState{})
	if e.flush() != nil {
		f.Fatal(e.err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(_ *testing.T, b []byte) {
		m := newMemory(mib)
		_, _ = newDecoder(bytes.NewReader(b), 256, m.put).all() // must not panic nor write outside
	})
}
