package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
)

func TestCellOfAnotherTimePlaceOrContentIsFound(t *testing.T) {
	right := make(cell, pageSize)
	right.fill(7, 3)
	if err := right.check(7, 3); err != nil {
		t.Fatal(err)
	}
	if right.check(7, 4) == nil || right.check(8, 3) == nil {
		t.Error("a stale or misplaced cell passes")
	}
	for _, at := range []int{0, 4, headSize, pageSize / 2, pageSize - tailSize - 1, pageSize - 1} {
		wrong := bytes.Clone(right)
		wrong[at] ^= 0x80
		if cell(wrong).check(7, 3) == nil {
			t.Errorf("a changed byte at %d passes", at)
		}
	}
}

func TestLostPageWriteFailsTheCheck(t *testing.T) {
	w := small(t)
	old := bytes.Clone(w.page(5))
	w.pageWant[5]++
	w.page(5).fill(5, w.pageWant[5])
	if err := w.check(); err != nil {
		t.Fatal(err)
	}
	copy(w.page(5), old) // as if the write had not been carried over
	if err := w.check(); err == nil || !strings.HasPrefix(err.Error(), "page 5: ") {
		t.Errorf("got %v", err)
	}
}

func TestLostBlockWriteFailsTheCheck(t *testing.T) {
	w := small(t)
	w.blockWant[3]++
	if err := w.check(); err == nil || !strings.HasPrefix(err.Error(), "block 3: ") {
		t.Errorf("got %v", err)
	}
	if err := w.writeBlock(3, w.blockWant[3]); err != nil {
		t.Fatal(err)
	}
	if err := w.check(); err != nil {
		t.Errorf("after the write: %v", err)
	}
}

func TestOutputTicksWithoutHolesAndChecks(t *testing.T) {
	c := config{memory: 1, memoryRate: 4096, disk: 1, diskRate: 1024, file: filepath.Join(t.TempDir(), "blocks"), tree: "/nowhere"}
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	done := make(chan error, 1)
	asked := make(chan struct{}, 1)
	go func() {
		done <- run(ctx, c, asked, in)
		in.Close()
	}()
	var seen strings.Builder
	next := 1
	for checks := 0; checks < 3 || next < 20; {
		line := readLine(t, out)
		switch word, _, _ := strings.Cut(line, " "); word {
		case "tick":
			if want := fmt.Sprint("tick ", next); line != want {
				t.Fatalf("got %q, want %q", line, want)
			}
			next++
		case "check":
			if !strings.HasPrefix(line, "check ok pages=256 blocks=16 gen=") {
				t.Fatalf("got %q", line)
			}
			checks++
			select {
			case asked <- struct{}{}:
			default:
			}
		default:
			seen.WriteString(line + "\n")
		}
	}
	if !strings.Contains(seen.String(), "ready pages=256 blocks=16\n") {
		t.Errorf("not ready: %q", seen.String())
	}
	cancel()
	go io.Copy(io.Discard, out)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestKernelCommandLineSetsParameters(t *testing.T) {
	c := config{memory: 16, disk: 32}
	c.fromKernel("console=ttyS0 dcnode.memory=64 dcnode.memory-rate=8192 memory=1 dcnode.disk=x dcnode.what=1\n")
	if c.memory != 64 || c.memoryRate != 8192 || c.disk != 32 {
		t.Errorf("got %+v", c)
	}
}

func small(t *testing.T) *work {
	t.Helper()
	w, err := newWork(config{memory: 1, disk: 1, file: filepath.Join(t.TempDir(), "blocks")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	return w
}

// readLine reads one write: each line is one.
func readLine(t *testing.T, r io.Reader) string {
	t.Helper()
	buffer := make([]byte, 256)
	n, err := r.Read(buffer)
	if err != nil || n == 0 || bytes.IndexByte(buffer[:n], '\n') != n-1 {
		t.Fatalf("not one line: %q %v", buffer[:n], err)
	}
	return string(buffer[:n-1])
}
