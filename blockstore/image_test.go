package blockstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/chunker"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs/importer/balanced"
	"github.com/ipfs/boxo/ipld/unixfs/importer/helpers"
	unixfsio "github.com/ipfs/boxo/ipld/unixfs/io"
	"github.com/ipfs/go-cid"
	"golang.org/x/sys/unix"
)

const kib = 1 << 10

// TestWhatGoesInComesOut covers sizes around leaves, levels of the tree, and tails.
func TestWhatGoesInComesOut(t *testing.T) {
	for _, size := range []int{512, 4096, 4*kib + 512, 8 * kib, 173 * 4 * kib, 174 * 4 * kib, 174*4*kib + 512, 175 * 4 * kib, 174*174*4*kib + 4*kib} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			s := open(t, Config{LeafSize: 4 * kib})
			data := make([]byte, size)
			copy(data, noise(1, min(size, 1<<20))) // a large disk is mostly empty
			copy(data[max(0, size-700):], noise(2, min(size, 700)))
			info := importFile(t, s, put(t, data))
			if info.Size != int64(size) {
				t.Fatalf("size %d, want %d", info.Size, size)
			}
			same(t, materialised(t, s, info.Commit), data)
			if err := s.Verify(t.Context(), info.Commit); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestHolesStayHoles(t *testing.T) {
	s := open(t, Config{})
	const size = 1 << 30
	at := map[int64][]byte{
		0:                      noise(1, 4096),
		300<<20 + 8192:         noise(2, 20000),
		size - 512:             noise(3, 512),
		500 << 20:              make([]byte, 1<<20), // zeroes that are written
		600<<20 - 4096 - 1<<18: noise(4, 4096),
	}
	path := sparse(t, size, at)
	info := importFile(t, s, path)
	if info.Blocks != 4 || info.Bytes != 4*defaultLeaf {
		t.Errorf("%d leaves and %d bytes are no holes, want 4 and %d", info.Blocks, info.Bytes, 4*defaultLeaf)
	}
	if info.Stored > 2<<20 {
		t.Errorf("%d bytes stored for 4 leaves", info.Stored)
	}
	out := filepath.Join(t.TempDir(), "out.img")
	if err := s.Materialise(t.Context(), info.Commit, 0, out); err != nil {
		t.Fatal(err)
	}
	if got := allocated(t, out); got > 128*kib {
		t.Errorf("materialised file takes %d bytes of disk", got)
	}
	f, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || st.Size() != size {
		t.Fatalf("size %v, want %d (%v)", st.Size(), size, err)
	}
	for off, want := range at {
		got := make([]byte, len(want))
		if _, err := f.ReadAt(got, off); err != nil {
			t.Fatal(err)
		}
		same(t, got, want)
	}
	if n, err := unix.Seek(int(f.Fd()), 4096, unix.SEEK_DATA); err != nil || n < 300<<20 {
		t.Errorf("first data after the first page is at %d, want a hole until 300 MiB (%v)", n, err)
	}
}

// TestLargeEmptyDiskIsCheap walks a disk of 16 TiB in less time than it takes to visit its leaves.
func TestLargeEmptyDiskIsCheap(t *testing.T) {
	s := open(t, Config{})
	full := put(t, noise(1, 4096))
	b := newBatch(t.Context(), s.local)
	i := importer{store: s, batch: b, zero: map[int64]cid.Cid{}}
	leafCID, err := i.leaf(must(openDisk(full))(t), 0, 4096, false)
	if err != nil {
		t.Fatal(err)
	}
	top := link{cid: cid.NewCidV1(cid.Raw, hashOf(s.local.nothing[:maxBlock])), size: maxBlock, cost: maxBlock}
	for range 3 { // 2 MiB * 174^3
		links := make([]link, fanout)
		for n := range links {
			links[n] = top
		}
		if top, err = interior(links, b.put); err != nil {
			t.Fatal(err)
		}
	}
	root, err := interior([]link{{leafCID, 4096, 4096}, top, {leafCID, 4096, 4096}}, b.put)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.flush(); err != nil {
		t.Fatal(err)
	}
	var at []int64
	w := walker{local: s.local, leaf: func(l leaf) error { at = append(at, l.off); return nil }}
	if err := w.file(t.Context(), file{root.cid, root.size}); err != nil {
		t.Fatal(err)
	}
	if len(at) != 2 || at[1] != root.size-4096 || root.size < 10<<40 {
		t.Errorf("leaves at %v of %d bytes", at, root.size)
	}
}

func TestHolesAreNotRead(t *testing.T) {
	s := open(t, Config{LeafSize: 1 << 20})
	seen := &countingDisk{disk: must(openDisk(sparse(t, 1<<38, map[int64][]byte{1 << 37: noise(1, 4096)})))(t)}
	defer seen.Close()
	i := importer{store: s, batch: newBatch(t.Context(), s.local), zero: map[int64]cid.Cid{}}
	root, err := i.content(t.Context(), seen, func(int64, int64) {})
	if err != nil || !root.Defined() {
		t.Fatal(err)
	}
	if seen.read != 1<<20 {
		t.Errorf("%d bytes read of a disk of 256 GiB with 4 KiB of data", seen.read)
	}
}

type countingDisk struct {
	disk
	read int
}

func (d *countingDisk) ReadAt(p []byte, off int64) (int, error) {
	d.read += len(p)
	return d.disk.ReadAt(p, off)
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestSameContentSameName(t *testing.T) {
	a, b := open(t, Config{}), open(t, Config{})
	data := noise(1, 3<<20)
	clear(data[1<<20 : 2<<20])
	holed := sparse(t, 3<<20, map[int64][]byte{0: data[:1<<20], 2 << 20: data[2<<20:]})
	one, two := importFile(t, a, put(t, data)), importFile(t, b, holed)
	if one.Commit != two.Commit {
		t.Errorf("the same disk is %s and %s", one.Commit, two.Commit)
	}
	if again := importFile(t, a, holed); again.Stored != 0 || again.Commit != one.Commit {
		t.Errorf("importing again stored %d bytes", again.Stored)
	}
}

// TestSimilarImagesShareLeavesAndNodes changes one leaf of 700 and counts what is new.
func TestSimilarImagesShareLeavesAndNodes(t *testing.T) {
	s := open(t, Config{LeafSize: 4 * kib})
	data := noise(1, 700*4*kib)
	importFile(t, s, put(t, data))
	data[350*4*kib] ^= 1
	info := importFile(t, s, put(t, data))
	// One leaf, the node over it, the root, the commit.
	if want := int64(4*kib + 3*16*kib); info.Stored > want || info.Stored < 4*kib {
		t.Errorf("%d bytes are new for one changed leaf, want at most %d", info.Stored, want)
	}
}

// TestDiskIsAnOrdinaryUnixFSFile reads a disk with boxo's reader, as Kubo
// would, and builds the same disk with boxo's importer: the roots are equal.
func TestDiskIsAnOrdinaryUnixFSFile(t *testing.T) {
	s := open(t, Config{LeafSize: 4 * kib})
	for _, size := range []int{4 * kib, 100 * 4 * kib, 174 * 4 * kib, 180*4*kib + 512} {
		data := noise(7, size)
		clear(data[size/3 : size/2])
		info := importFile(t, s, put(t, data))
		commit, err := s.Commit(t.Context(), info.Commit, nil)
		if err != nil {
			t.Fatal(err)
		}
		dag := merkledag.NewDAGService(blockservice.New(s.local, nil))
		node, err := dag.Get(t.Context(), commit.Disks[0].Root)
		if err != nil {
			t.Fatal(err)
		}
		r, err := unixfsio.NewDagReader(t.Context(), node, dag)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		same(t, got, data)

		other := merkledag.NewDAGService(blockservice.New(open(t, Config{}).local, nil))
		params := helpers.DagBuilderParams{Maxlinks: fanout, RawLeaves: true, CidBuilder: merkledag.V1CidPrefix(), Dagserv: other}
		b, err := params.New(chunk.NewSizeSplitter(bytes.NewReader(data), 4*kib))
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := balanced.Layout(b)
		if err != nil {
			t.Fatal(err)
		}
		if theirs.Cid() != commit.Disks[0].Root {
			t.Errorf("disk of %d bytes: root %s, boxo's importer makes %s", size, commit.Disks[0].Root, theirs.Cid())
		}
	}
}

func TestBootFilesComeOutWhole(t *testing.T) {
	s := open(t, Config{})
	kernel, initrd := noise(1, 1_000_001), noise(2, 77)
	info, err := s.Import(t.Context(), Source{
		Path: put(t, noise(3, 4096)), Kernel: put(t, kernel), Initrd: put(t, initrd),
		Append: "console=ttyS0", Kind: Environment, Author: "bob",
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.Commit(t.Context(), info.Commit, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Append != "console=ttyS0" || c.Kind != Environment || c.Author != "bob" || c.Time == 0 || c.Bytes != info.Bytes {
		t.Errorf("commit is %+v", c)
	}
	dir := t.TempDir()
	for i, want := range [][]byte{kernel, initrd} {
		path := filepath.Join(dir, fmt.Sprint(i))
		if err := s.Extract(t.Context(), []cid.Cid{c.Kernel, c.Initrd}[i], path); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		same(t, got, want)
	}
}

func TestUnusableImagesAreRefused(t *testing.T) {
	s := open(t, Config{})
	for name, tc := range map[string]struct {
		data []byte
		want string
	}{
		"empty":        {nil, "empty"},
		"odd size":     {noise(1, 1000), "multiple of 512"},
		"vmdk":         {append([]byte("KDMV"), make([]byte, 508)...), "VMDK"},
		"gzip":         {append([]byte("\x1f\x8b"), make([]byte, 510)...), "gzip"},
		"broken qcow2": {append([]byte(qcow2Magic), noise(1, 1020)...), "qcow2 header is broken"},
		"short qcow2":  {[]byte(qcow2Magic + "\x00\x00\x00\x03"), "cut short"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.Import(t.Context(), Source{Path: put(t, tc.data)}, nil)
			if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v, want one line with %q", err, tc.want)
			}
		})
	}
	fifo := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Import(t.Context(), Source{Path: fifo}, nil); !errors.Is(err, ErrFormat) {
		t.Errorf("a pipe: %v", err)
	}
	if _, err := s.Import(t.Context(), Source{Path: filepath.Join(t.TempDir(), "none")}, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func TestCancelledImportLeavesAWorkingStore(t *testing.T) {
	s := open(t, Config{LeafSize: 64 * kib})
	data := noise(1, 20<<20)
	path := put(t, data)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := s.Import(ctx, Source{Path: path}, func(done, total int64) {
		if done > total/2 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("import: %v", err)
	}
	if s.Stats().Bytes < 4<<20 {
		t.Fatal("nothing was stored before the cut, so the test shows nothing")
	}
	info := importFile(t, s, path)
	same(t, materialised(t, s, info.Commit), data)
	if _, err := s.Collect(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if n := held(t, s); n != 0 {
		t.Errorf("%d blocks are left after everything was collected", n)
	}
}
