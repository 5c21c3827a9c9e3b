package blockstore

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// qcow2File writes qcow2 files for tests: one L2 table per span, clusters in
// any order, each standard, compressed, zero, or left to the backing file.
type qcow2File struct {
	version int
	bits    uint
	size    int64
	zstd    bool
	backing string
	data    map[int64][]byte // cluster number to content
	packed  map[int64]bool   // stored compressed
	zero    map[int64]bool   // marked as zeroes
}

const packedBit = uint64(1) << 62

func (q qcow2File) bytes(t testing.TB) []byte {
	t.Helper()
	cluster := int64(1) << q.bits
	per := cluster / 8
	tables := (q.size + cluster*per - 1) / (cluster * per)
	l1At := cluster
	next := l1At + (tables*8+cluster-1)/cluster*cluster
	out := make([]byte, next)
	write := func(at int64, b []byte) {
		if need := at + int64(len(b)); need > int64(len(out)) {
			out = append(out, make([]byte, need-int64(len(out)))...)
		}
		copy(out[at:], b)
	}
	word := func(at int64, v uint64) { write(at, binary.BigEndian.AppendUint64(nil, v)) }
	l2At := func(n int64) int64 {
		at := l1At + n/per*8
		if v := binary.BigEndian.Uint64(out[at:]); v != 0 {
			return int64(v&offsetMask) + n%per*8
		}
		word(at, uint64(next)|1<<63)
		write(next, make([]byte, cluster))
		next += cluster
		return int64(binary.BigEndian.Uint64(out[at:])&offsetMask) + n%per*8
	}
	for n, b := range q.data {
		b = append(bytes.Clone(b), make([]byte, cluster-int64(len(b)))...)
		at := l2At(n)
		if !q.packed[n] {
			word(at, uint64(next)|1<<63)
			write(next, b)
			next += cluster
			continue
		}
		z, off := q.pack(t, b), next+7 // compressed data starts anywhere
		x := 62 - (q.bits - 8)
		sectors := (off+int64(len(z))-1)/512 - off/512
		word(at, packedBit|uint64(sectors)<<x|uint64(off))
		write(off, z)
		next = (off + int64(len(z)) + cluster - 1) / cluster * cluster
		write(next-1, []byte{0})
	}
	for n := range q.zero {
		word(l2At(n), 1)
	}
	q.header(out, l1At, tables)
	return out
}

func (q qcow2File) header(out []byte, l1At, tables int64) {
	be := binary.BigEndian
	copy(out, qcow2Magic)
	be.PutUint32(out[4:], uint32(q.version))
	be.PutUint32(out[20:], uint32(q.bits))
	be.PutUint64(out[24:], uint64(q.size))
	be.PutUint32(out[36:], uint32(tables))
	be.PutUint64(out[40:], uint64(l1At))
	if q.version == 3 {
		be.PutUint32(out[96:], 4)
		be.PutUint32(out[100:], 112)
		if q.zstd {
			be.PutUint64(out[72:], 8)
			out[104] = 1
		}
	}
	if q.backing != "" {
		be.PutUint64(out[8:], 200)
		be.PutUint32(out[16:], uint32(len(q.backing)))
		copy(out[200:], q.backing)
	}
}

func (q qcow2File) pack(t testing.TB, b []byte) []byte {
	t.Helper()
	if q.zstd {
		w, err := zstd.NewWriter(nil)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		return w.EncodeAll(b, nil)
	}
	var buf bytes.Buffer
	w, err := flate.NewWriter(&buf, 6)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// content is the disk that q describes, over a backing disk.
func (q qcow2File) content(backing []byte) []byte {
	disk := make([]byte, q.size)
	copy(disk, backing)
	cluster := int64(1) << q.bits
	for n := range q.zero {
		clear(disk[n*cluster : min((n+1)*cluster, q.size)])
	}
	for n, b := range q.data {
		clear(disk[n*cluster : min((n+1)*cluster, q.size)])
		copy(disk[n*cluster:], b)
	}
	return disk
}

func text(seed uint64, n int) []byte {
	b := noise(seed, n)
	for i := range b {
		b[i] = 'a' + b[i]%7
	}
	return b
}

// sample has standard, compressed, zero and missing clusters, over two L2 tables.
func sample(version int, bits uint, z bool) qcow2File {
	cluster := 1 << bits
	per := int64(cluster / 8)
	last := per + 5
	tail := min(1536, cluster)
	q := qcow2File{
		version: version, bits: bits, size: last*int64(cluster) + int64(tail), zstd: z,
		data: map[int64][]byte{
			0: noise(1, cluster), 1: text(2, cluster), 3: text(3, cluster), 7: noise(4, 100),
			per + 1: noise(5, cluster), per + 2: text(6, cluster), last: noise(7, tail),
		},
		packed: map[int64]bool{1: true, 3: true, per + 2: true},
		zero:   map[int64]bool{},
	}
	if version == 3 {
		q.zero[2] = true
	}
	return q
}

func TestQcow2ReadsAsItsDisk(t *testing.T) {
	for name, q := range map[string]qcow2File{
		"version 2":      sample(2, 12, false),
		"version 3":      sample(3, 12, false),
		"zstd":           sample(3, 12, true),
		"small clusters": sample(3, 9, false),
		"default clusters": {version: 3, bits: 16, size: 5<<16 + 512, packed: map[int64]bool{2: true},
			data: map[int64][]byte{1: noise(1, 1<<16), 2: text(2, 1<<16), 5: noise(3, 512)}},
		"nothing in it": {version: 3, bits: 16, size: 3 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, Config{LeafSize: 64 * kib})
			info := importFile(t, s, put(t, q.bytes(t)))
			want := q.content(nil)
			same(t, materialised(t, s, info.Commit), want)
			if raw := importFile(t, s, put(t, want)); raw.Commit != info.Commit {
				t.Error("the same disk as a raw file has another name")
			}
		})
	}
}

func TestQcow2ReadsThroughItsBackingFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	base := noise(9, 10*4096) // shorter than the overlays
	write("base.raw", base)
	mid := sample(3, 12, false)
	mid.backing = "base.raw"
	write("mid.qcow2", mid.bytes(t))
	top := qcow2File{version: 3, bits: 12, size: mid.size + 8192, backing: filepath.Join(dir, "mid.qcow2"),
		data: map[int64][]byte{4: noise(20, 4096)}, zero: map[int64]bool{0: true}}
	s := open(t, Config{LeafSize: 4 * kib})
	info := importFile(t, s, write("top.qcow2", top.bytes(t)))
	same(t, materialised(t, s, info.Commit), top.content(mid.content(base)))
}

func TestBackingFileElsewhereIsRefused(t *testing.T) {
	secret := put(t, noise(1, 4096))
	dir := t.TempDir()
	if err := os.Symlink(secret, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	s := open(t, Config{})
	for _, name := range []string{secret, "../" + filepath.Base(filepath.Dir(secret)) + "/disk.img", "link", "nbd:host:1", "json:{}", "self.qcow2"} {
		q := qcow2File{version: 3, bits: 12, size: 8192, backing: name}
		path := filepath.Join(dir, "self.qcow2")
		if err := os.WriteFile(path, q.bytes(t), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Import(t.Context(), Source{Path: path}, nil); err == nil {
			t.Errorf("backing file %q was read", name)
		}
	}
}

func TestDamagedQcow2IsRefused(t *testing.T) {
	s := open(t, Config{})
	good := func() []byte { return sample(3, 12, false).bytes(t) }
	edit := func(at int, b ...byte) []byte { d := good(); copy(d[at:], b); return d }
	for name, tc := range map[string]struct {
		data []byte
		want string
	}{
		"half the file":     {good()[:len(good())/2], "cut short"},
		"header only":       {good()[:4096], "cut short"},
		"last cluster gone": {good()[:len(good())-4096], "cut short"},
		"encrypted":         {edit(35, 2), "encrypted"},
		"external data":     {edit(79, 4), "another file"},
		"marked corrupt":    {edit(79, 2), "marked corrupt"},
		"extended L2":       {edit(79, 16), "extended L2"},
		"unknown feature":   {edit(72, 1), "unknown features"},
		"version 9":         {edit(7, 9), "version 9"},
		"huge clusters":     {edit(23, 60), "clusters of"},
		"huge L1":           {edit(36, 0xff, 0xff, 0xff, 0xff), "L1 table"},
		"L1 nowhere":        {edit(40, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xf0, 0), "cut short"},
		"L2 nowhere":        {edit(4096, 0x80, 0, 0x7f, 0, 0, 0, 0, 0), "cut short"},
		"huge disk":         {edit(24, 0x7f), "header is broken"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.Import(t.Context(), Source{Path: put(t, tc.data)}, nil)
			if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v, want one line with %q", err, tc.want)
			}
		})
	}
	q := sample(3, 12, false)
	data := q.bytes(t)
	i := bytes.Index(data, q.pack(t, q.data[3]))
	copy(data[i:], noise(66, 200))
	if _, err := s.Import(t.Context(), Source{Path: put(t, data)}, nil); err == nil {
		t.Error("a damaged compressed cluster was read")
	}
}

// TestQemuImgAgrees reads images that QEMU itself made, where it is installed.
func TestQemuImgAgrees(t *testing.T) {
	tool, err := exec.LookPath("qemu-img")
	if err != nil {
		t.Skip("qemu-img is not installed")
	}
	data := noise(1, 3<<20)
	clear(data[1<<20 : 2<<20])
	copy(data[2<<20:], text(2, 1<<19))
	raw := put(t, data)
	for name, args := range map[string][]string{
		"plain": nil, "compressed": {"-c"}, "version 2": {"-o", "compat=0.10"},
		"zstd": {"-c", "-o", "compression_type=zstd"}, "small clusters": {"-o", "cluster_size=512"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "disk.qcow2")
			cmd := append(append([]string{"convert", "-f", "raw", "-O", "qcow2"}, args...), raw, path)
			if out, err := exec.Command(tool, cmd...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			s := open(t, Config{})
			same(t, materialised(t, s, importFile(t, s, path).Commit), data)
		})
	}
}

// FuzzQcow2 opens and reads damaged images: any error will do, but no panic, and no
// more memory or time than the image's size explains.
func FuzzQcow2(f *testing.F) {
	for _, q := range []qcow2File{sample(2, 9, false), sample(3, 9, false), sample(3, 9, true)} {
		f.Add(q.bytes(f))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		d, err := openDisk(path)
		if err != nil {
			return
		}
		defer d.Close()
		buf := make([]byte, 512)
		for off := int64(0); off < min(d.Size(), 1<<16); off += 512 {
			if _, err := d.ReadAt(buf, off); err != nil {
				return
			}
		}
		if _, _, err := d.Data(0); err != nil {
			return
		}
	})
}
