package blockstore

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/ipfs/go-cid"
	"golang.org/x/sys/unix"
)

func TestOneProcessHasTheStore(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, Config{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Config{}); !errors.Is(err, ErrLocked) {
		t.Errorf("second open: %v", err)
	}
	info := importFile(t, s, put(t, noise(1, 1<<20)))
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	s, err = Open(dir, Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	same(t, materialised(t, s, info.Commit), noise(1, 1<<20))
}

func TestOddLeafSizeIsRefused(t *testing.T) {
	for _, n := range []int{-1, 1000, 2048, 240 << 10, 2 << 20} {
		if s, err := Open(t.TempDir(), Config{LeafSize: n}); err == nil {
			s.Close()
			t.Errorf("leaf size %d was accepted", n)
		}
	}
}

func TestCorruptBlockIsNeverRead(t *testing.T) {
	s := open(t, Config{})
	data := noise(1, 2<<20)
	path := put(t, data)
	info := importFile(t, s, path)
	bad := leaves(t, s, info.Commit)[3].cid
	spoil(t, s, bad)
	dir := t.TempDir()
	err := s.Materialise(t.Context(), info.Commit, 0, filepath.Join(dir, "out"))
	if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), bad.String()) {
		t.Fatalf("materialise: %v", err)
	}
	noParts(t, dir)
	if kept, err := os.ReadFile(filepath.Join(s.dir, "corrupt", bad.String())); err != nil || len(kept) != defaultLeaf {
		t.Errorf("the corrupt block was not kept aside: %v", err)
	}
	if ok, err := s.Has(t.Context(), info.Commit); ok || err != nil {
		t.Errorf("has: %v, %v", ok, err)
	}
	if again := importFile(t, s, path); again.Stored != defaultLeaf {
		t.Errorf("importing again stored %d bytes, want the one leaf", again.Stored)
	}
	same(t, materialised(t, s, info.Commit), data)
}

func TestVerifyNamesEveryCorruptBlock(t *testing.T) {
	s := open(t, Config{LeafSize: 4 * kib})
	info := importFile(t, s, put(t, noise(1, 400*4*kib)))
	all := leaves(t, s, info.Commit)
	commit, err := s.localCommit(t.Context(), info.Commit)
	if err != nil {
		t.Fatal(err)
	}
	children, err := s.local.children(t.Context(), child{commit.Disks[0].Root, commit.Disks[0].Size})
	if err != nil {
		t.Fatal(err)
	}
	bad := []cid.Cid{all[0].cid, all[399].cid, children[1].cid} // two leaves and a node
	for _, c := range bad {
		spoil(t, s, c)
	}
	err = s.Verify(t.Context(), info.Commit)
	if !errors.Is(err, ErrCorrupt) {
		t.Fatal(err)
	}
	for _, c := range bad {
		if !strings.Contains(err.Error(), c.String()) {
			t.Errorf("%s is not named in: %v", c, err)
		}
	}
}

func TestCompleteFileIsKept(t *testing.T) {
	s := open(t, Config{})
	info := importFile(t, s, put(t, noise(1, 1<<20)))
	path := filepath.Join(t.TempDir(), "out")
	if err := os.WriteFile(path+".part", noise(2, 9<<20), 0o600); err != nil { // of an earlier crash
		t.Fatal(err)
	}
	if err := s.Materialise(t.Context(), info.Commit, 0, path); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Materialise(t.Context(), info.Commit, 0, path); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(path)
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("the file was written again (%v)", err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	same(t, got, noise(1, 1<<20))
	noParts(t, filepath.Dir(path))
}

func TestTwoMaterialiseToOnePath(t *testing.T) {
	s := open(t, Config{LeafSize: 4 * kib})
	data := noise(1, 1<<20)
	info := importFile(t, s, put(t, data))
	path := filepath.Join(t.TempDir(), "out")
	var both sync.WaitGroup
	for range 4 {
		both.Go(func() {
			if err := s.Materialise(t.Context(), info.Commit, 0, path); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	same(t, got, data)
	noParts(t, filepath.Dir(path))
}

func TestMaterialiseNeedsRoom(t *testing.T) {
	s := open(t, Config{})
	info := importFile(t, s, put(t, noise(1, 4<<20)))
	s.free = func(string) (int64, error) { return 4<<20 - 1, nil }
	dir := t.TempDir()
	err := s.Materialise(t.Context(), info.Commit, 0, filepath.Join(dir, "out"))
	if !errors.Is(err, ErrNoSpace) || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "4194304") {
		t.Errorf("materialise: %v", err)
	}
	noParts(t, dir)
}

// TestFullDiskLeavesAWorkingStore fills a small filesystem for real.
func TestFullDiskLeavesAWorkingStore(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=6m"); err != nil {
		t.Skipf("cannot mount a tmpfs here: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, 0) })
	s, err := Open(filepath.Join(dir, "store"), Config{LeafSize: 64 * kib})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	small := importFile(t, s, put(t, noise(1, 1<<20)))
	_, err = s.Import(t.Context(), Source{Path: put(t, noise(2, 9<<20))}, nil)
	if !errors.Is(err, ErrNoSpace) || !strings.Contains(err.Error(), s.dir) {
		t.Fatalf("import: %v", err)
	}
	if err := s.Verify(t.Context(), small.Commit); err != nil {
		t.Error(err)
	}
	if _, err := s.Collect(t.Context(), []cid.Cid{small.Commit}); err != nil {
		t.Fatal(err)
	}
	// The disk fills while a file is written, after the check of free space.
	s.free = func(string) (int64, error) { return 1 << 40, nil }
	full := filepath.Join(dir, "full")
	if err := os.Mkdir(full, 0o700); err != nil {
		t.Fatal(err)
	}
	free, err := freeBytes(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(full, "ballast"), make([]byte, free-300*kib), 0o600); err != nil {
		t.Fatal(err)
	}
	err = s.Materialise(t.Context(), small.Commit, 0, filepath.Join(full, "out"))
	if !errors.Is(err, ErrNoSpace) || !strings.Contains(err.Error(), full) {
		t.Errorf("materialise: %v", err)
	}
	noParts(t, full)
	if err := s.Verify(t.Context(), small.Commit); err != nil {
		t.Error(err)
	}
}

func TestRemoveKeepsWhatOthersUse(t *testing.T) {
	s := open(t, Config{LeafSize: 4 * kib})
	data := noise(1, 600*4*kib)
	other := bytes.Clone(data)
	copy(other[200*4*kib:], noise(2, 100*4*kib))
	one, two := importFile(t, s, put(t, data)), importFile(t, s, put(t, other))
	before := held(t, s)
	freed, err := s.Remove(t.Context(), one.Commit, []cid.Cid{two.Commit})
	if err != nil {
		t.Fatal(err)
	}
	// The hundred leaves that differ, and little more: nodes over them, root, commit.
	if gone := before - held(t, s); gone < 100 || gone > 104 || freed < 100*4*kib {
		t.Errorf("%d blocks and %d bytes are gone", gone, freed)
	}
	same(t, materialised(t, s, two.Commit), other)
	if ok, err := s.Has(t.Context(), one.Commit); ok || err != nil {
		t.Errorf("the removed image is still here (%v)", err)
	}
	if again, err := s.Remove(t.Context(), one.Commit, nil); again != 0 || err != nil {
		t.Errorf("removing again freed %d (%v)", again, err)
	}
	if _, err := s.Remove(t.Context(), two.Commit, nil); err != nil || held(t, s) != 0 {
		t.Errorf("%d blocks are left (%v)", held(t, s), err)
	}
}

func TestNothingIsRemovedDuringAnImport(t *testing.T) {
	s := open(t, Config{})
	info := importFile(t, s, put(t, noise(1, 1<<20)))
	var during error
	_, err := s.Import(t.Context(), Source{Path: put(t, noise(1, 1<<20))}, func(int64, int64) {
		_, during = s.Remove(t.Context(), info.Commit, nil)
	})
	if err != nil || !errors.Is(during, ErrBusy) {
		t.Errorf("remove during import: %v (%v)", during, err)
	}
	if _, err := s.Remove(t.Context(), info.Commit, nil); err != nil {
		t.Error(err)
	}
}

func TestOfflineStoreSaysSo(t *testing.T) {
	s := open(t, Config{})
	if _, err := s.Fetch(t.Context(), blockOf(t, nil), nil, nil); !errors.Is(err, ErrOffline) {
		t.Errorf("fetch: %v", err)
	}
	if _, err := s.Commit(t.Context(), blockOf(t, nil), nil); !errors.Is(err, ErrIncomplete) {
		t.Errorf("commit: %v", err)
	}
}
