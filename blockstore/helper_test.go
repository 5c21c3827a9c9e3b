package blockstore

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"golang.org/x/sys/unix"
)

// open opens a store for the length of the test.
func open(t *testing.T, cfg Config) *Store {
	t.Helper()
	s, err := Open(t.TempDir(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// noise is n bytes that do not repeat, the same for a seed.
func noise(seed uint64, n int) []byte {
	var key [32]byte
	key[0], key[1], key[2] = byte(seed), byte(seed>>8), 1
	b := make([]byte, n)
	rand.NewChaCha8(key).Read(b)
	return b
}

// put writes data to a new file, at once.
func put(t *testing.T, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// sparse writes a file of the given size that holds data at offsets, and holes elsewhere.
func sparse(t *testing.T, size int64, at map[int64][]byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sparse.img")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for off, data := range at {
		if _, err := f.WriteAt(data, off); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func importFile(t *testing.T, s *Store, path string) ImageInfo {
	t.Helper()
	info, err := s.Import(t.Context(), Source{Path: path, Author: "alice", Time: 1_700_000_000}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// materialised is the content of disk 0 of the image, written out and read back.
func materialised(t *testing.T, s *Store, c cid.Cid) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "out.img")
	if err := s.Materialise(t.Context(), c, 0, path); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func same(t *testing.T, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		i := 0
		for i < min(len(got), len(want)) && got[i] == want[i] {
			i++
		}
		t.Fatalf("content differs: %d bytes, want %d; first difference at %d", len(got), len(want), i)
	}
}

// allocated is how many bytes the filesystem holds for path.
func allocated(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// leaves are the CIDs of disk 0's leaves, holes left out.
func leaves(t *testing.T, s *Store, c cid.Cid) []leaf {
	t.Helper()
	commit, err := s.localCommit(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	var all []leaf
	w := walker{local: s.local, leaf: func(l leaf) error {
		all = append(all, l)
		return nil
	}}
	if err := w.file(t.Context(), commit.files()[0]); err != nil {
		t.Fatal(err)
	}
	return all
}

// spoil overwrites the stored block c with other bytes of the same length.
func spoil(t *testing.T, s *Store, c cid.Cid) {
	t.Helper()
	data, err := s.local.files.Get(t.Context(), key(c))
	if err != nil {
		t.Fatal(err)
	}
	data = bytes.Clone(data)
	data[len(data)/2] ^= 1
	if err := s.local.files.Put(t.Context(), key(c), data); err != nil {
		t.Fatal(err)
	}
}

// noParts fails where a half-written file is left in dir.
func noParts(t *testing.T, dir string) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(dir, "*.part"))
	if err != nil || len(left) > 0 {
		t.Fatalf("left behind: %v (%v)", left, err)
	}
}

// soon bounds a call that should not take long.
func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, done := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(done)
	return ctx
}

// held is how many blocks the store has.
func held(t *testing.T, s *Store) int {
	t.Helper()
	all, err := s.local.AllKeysChan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for range all {
		n++
	}
	return n
}
