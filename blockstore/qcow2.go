package blockstore

import (
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// qcow2 reads a qcow2 image, versions 2 and 3, as specified in QEMU's
// docs/interop/qcow2.txt: standard, zero and compressed clusters (deflate and
// zstd) and backing files. Only the active state is read; internal snapshots
// are left out. Encryption, external data files and extended L2 entries are
// refused.
//
// The image may come from anyone: every offset is checked against the file's
// length when it is opened, and a backing file must lie in the image's own
// directory.
type qcow2 struct {
	f       *os.File
	length  int64 // of the file
	size    int64 // of the disk
	bits    uint  // cluster size is 1<<bits
	v3      bool
	zstd    bool
	l1      []uint64
	backing disk // nil: none

	l2     []uint64 // the table read last
	l2at   uint64
	packed []byte // the compressed cluster read last, unpacked
	packAt uint64
}

// Bounds of a qcow2 image, as QEMU has them.
const (
	maxL1      = 32 << 20 // bytes
	maxBacking = 8        // files in a chain
	offsetMask = 0x00fffffffffffe00
	packedFlag = 1 << 62
)

// convert is the remedy for an image that QEMU can read and this package cannot.
const convert = "flatten it with `qemu-img convert -O qcow2 IN OUT`"

func openQcow2(f *os.File, length int64, depth int) (disk, error) {
	if depth >= maxBacking {
		return nil, fmt.Errorf("%w: more than %d backing files: %s", ErrFormat, maxBacking, convert)
	}
	q := &qcow2{f: f, length: length}
	h := make([]byte, 112)
	n, err := f.ReadAt(h, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if n < 72 {
		return nil, truncated("the header")
	}
	if err := q.header(h[:n]); err != nil {
		return nil, err
	}
	if err := q.readL1(h); err != nil {
		return nil, err
	}
	if err := q.checkClusters(); err != nil {
		return nil, err
	}
	if err := q.openBacking(h, depth); err != nil {
		return nil, err
	}
	return q, nil
}

func truncated(what string) error {
	return fmt.Errorf("%w: qcow2 file is cut short: %s lies beyond its end: copy or download it again", ErrFormat, what)
}

func broken(why string, args ...any) error {
	return fmt.Errorf("%w: qcow2 header is broken: %s: copy or download the file again, or try `qemu-img check`", ErrFormat, fmt.Sprintf(why, args...))
}

// header checks the fixed fields (section "Header" of the specification).
func (q *qcow2) header(h []byte) error {
	be := binary.BigEndian
	version := be.Uint32(h[4:])
	if version != 2 && version != 3 {
		return broken("version %d", version)
	}
	q.v3 = version == 3
	q.bits = uint(min(be.Uint32(h[20:]), 99))
	if q.bits < 9 || q.bits > 21 {
		return broken("clusters of 2^%d bytes", q.bits)
	}
	size := be.Uint64(h[24:])
	if size == 0 || size > maxDiskSize {
		return broken("disk of %d bytes", size)
	}
	if size%512 != 0 {
		return fmt.Errorf("%w: a disk of %d bytes is not a multiple of 512: extend it with `qemu-img resize`", ErrFormat, size)
	}
	q.size = int64(size)
	if be.Uint32(h[32:]) != 0 {
		return fmt.Errorf("%w: qcow2 image is encrypted: decrypt it with `qemu-img convert` first", ErrFormat)
	}
	if !q.v3 {
		return nil
	}
	if len(h) < 104 {
		return truncated("the header")
	}
	return q.features(h)
}

// features checks the incompatible feature bits of version 3.
func (q *qcow2) features(h []byte) error {
	const (
		dirty, corrupt, external, compression, extended = 1, 2, 4, 8, 16
	)
	bits := binary.BigEndian.Uint64(h[72:])
	switch {
	case bits&corrupt != 0:
		return fmt.Errorf("%w: qcow2 image is marked corrupt: repair it with `qemu-img check -r all`", ErrFormat)
	case bits&external != 0:
		return fmt.Errorf("%w: qcow2 image keeps its data in another file: %s", ErrFormat, convert)
	case bits&extended != 0:
		return fmt.Errorf("%w: qcow2 image has extended L2 entries: %s", ErrFormat, convert)
	case bits&^(dirty|compression) != 0:
		return fmt.Errorf("%w: qcow2 image has unknown features %#x: %s", ErrFormat, bits, convert)
	}
	if headerLength := binary.BigEndian.Uint32(h[100:]); bits&compression != 0 {
		if headerLength < 105 || len(h) < 105 || h[104] > 1 {
			return fmt.Errorf("%w: qcow2 image has an unknown compression: %s", ErrFormat, convert)
		}
		q.zstd = h[104] == 1
	}
	return nil
}

func (q *qcow2) cluster() int64   { return 1 << q.bits }
func (q *qcow2) perTable() uint64 { return 1 << (q.bits - 3) }

// table reads n big-endian words at off.
func (q *qcow2) table(off uint64, n int64, what string) ([]uint64, error) {
	if off%uint64(q.cluster()) != 0 || off == 0 {
		return nil, broken("%s at odd offset %#x", what, off)
	}
	if off > uint64(q.length) || n*8 > q.length-int64(off) {
		return nil, truncated(what)
	}
	raw := make([]byte, n*8)
	if _, err := q.f.ReadAt(raw, int64(off)); err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	words := make([]uint64, n)
	for i := range words {
		words[i] = binary.BigEndian.Uint64(raw[i*8:])
	}
	return words, nil
}

func (q *qcow2) readL1(h []byte) error {
	n := int64(binary.BigEndian.Uint32(h[36:]))
	span := q.cluster() * int64(q.perTable())
	if need := (q.size + span - 1) / span; n < need || n*8 > maxL1 {
		return broken("L1 table of %d entries for a disk of %d bytes", n, q.size)
	}
	var err error
	q.l1, err = q.table(binary.BigEndian.Uint64(h[40:]), n, "the L1 table")
	return err
}

// entry is the L2 entry of guest cluster n; 0: unallocated.
func (q *qcow2) entry(n int64) (uint64, error) {
	i := uint64(n) / q.perTable()
	at := q.l1[i] & offsetMask
	if at == 0 {
		return 0, nil
	}
	if q.l2 == nil || q.l2at != at {
		l2, err := q.table(at, int64(q.perTable()), "an L2 table")
		if err != nil {
			return 0, err
		}
		q.l2, q.l2at = l2, at
	}
	return q.l2[uint64(n)%q.perTable()], nil
}

func (q *qcow2) clusters() int64 { return (q.size + q.cluster() - 1) / q.cluster() }

// skip is the first cluster after n that another L1 entry covers.
func (q *qcow2) skip(n int64) int64 {
	per := int64(q.perTable())
	return (n/per + 1) * per
}

// checkClusters sees that all data lies inside the file, before any is read.
func (q *qcow2) checkClusters() error {
	for n := int64(0); n < q.clusters(); n++ {
		if q.l1[uint64(n)/q.perTable()]&offsetMask == 0 {
			n = q.skip(n) - 1
			continue
		}
		e, err := q.entry(n)
		if err != nil {
			return err
		}
		if err := q.checkEntry(n, e); err != nil {
			return err
		}
	}
	return nil
}

func (q *qcow2) checkEntry(n int64, e uint64) error {
	if e&packedFlag != 0 {
		off, _ := q.packedAt(e)
		if off == 0 || off >= q.length {
			return truncated("a compressed cluster")
		}
		return nil
	}
	if q.isZero(e) || e&offsetMask == 0 {
		return nil
	}
	at := int64(e & offsetMask)
	if at%q.cluster() != 0 {
		return broken("cluster at odd offset %#x", at)
	}
	if at+min(q.cluster(), q.size-n*q.cluster()) > q.length {
		return truncated("a cluster of data")
	}
	return nil
}

// isZero reports whether a standard entry reads as zeroes whatever it points at.
func (q *qcow2) isZero(e uint64) bool { return q.v3 && e&1 != 0 }

// packedAt takes a compressed cluster descriptor apart (section "Compressed
// Clusters Descriptor"): where it starts, and how many bytes it has at most.
func (q *qcow2) packedAt(e uint64) (off, size int64) {
	x := 62 - (q.bits - 8)
	off = int64(e & (1<<x - 1))
	sectors := int64(e&(packedFlag-1)) >> x
	return off, (sectors+1)*512 - off%512
}

func (q *qcow2) Size() int64 { return q.size }

func (q *qcow2) Close() error {
	if q.backing != nil {
		return errors.Join(q.backing.Close(), q.f.Close())
	}
	return q.f.Close()
}

// Data implements disk.
func (q *qcow2) Data(off int64) (int64, int64, error) {
	start := int64(-1)
	n := off / q.cluster()
	for ; n < q.clusters(); n++ {
		data, err := q.mayHold(n)
		if err != nil {
			return 0, 0, err
		}
		if data && start < 0 {
			start = n
		}
		if !data && start >= 0 {
			break
		}
		if !data && q.backing == nil && q.l1[uint64(n)/q.perTable()]&offsetMask == 0 {
			n = q.skip(n) - 1
		}
	}
	if start < 0 {
		return 0, 0, io.EOF
	}
	return max(off, start*q.cluster()), min(n*q.cluster(), q.size), nil
}

// mayHold reports whether guest cluster n may be other than zeroes.
func (q *qcow2) mayHold(n int64) (bool, error) {
	e, err := q.entry(n)
	if err != nil {
		return false, err
	}
	if e&packedFlag != 0 {
		return true, nil
	}
	if q.isZero(e) {
		return false, nil
	}
	if e&offsetMask != 0 {
		return true, nil
	}
	if q.backing == nil {
		return false, nil
	}
	start, _, err := q.backing.Data(n * q.cluster())
	if errors.Is(err, io.EOF) {
		return false, nil
	}
	return start < (n+1)*q.cluster(), err
}

// ReadAt implements disk.
func (q *qcow2) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > q.size {
		return 0, fmt.Errorf("read %d bytes at %d of a disk of %d bytes: out of range", len(p), off, q.size)
	}
	done := 0
	for done < len(p) {
		at := off + int64(done)
		within := at % q.cluster()
		n := int(min(q.cluster()-within, int64(len(p)-done)))
		if err := q.readCluster(p[done:done+n], at/q.cluster(), within); err != nil {
			return done, fmt.Errorf("read qcow2 cluster at %d: %w", at-within, err)
		}
		done += n
	}
	return done, nil
}

// readCluster reads part of guest cluster n, from within bytes into it.
func (q *qcow2) readCluster(p []byte, n, within int64) error {
	e, err := q.entry(n)
	if err != nil {
		return err
	}
	switch {
	case e&packedFlag != 0:
		return q.unpack(p, e, within)
	case q.isZero(e):
		clear(p)
		return nil
	case e&offsetMask != 0:
		_, err := q.f.ReadAt(p, int64(e&offsetMask)+within)
		return err
	}
	clear(p)
	at := n*q.cluster() + within
	if q.backing == nil || at >= q.backing.Size() {
		return nil
	}
	_, err = q.backing.ReadAt(p[:min(int64(len(p)), q.backing.Size()-at)], at)
	return err
}

// unpack reads part of a compressed cluster.
func (q *qcow2) unpack(p []byte, e uint64, within int64) error {
	if q.packed == nil || q.packAt != e {
		off, size := q.packedAt(e)
		var r io.Reader = io.NewSectionReader(q.f, off, size)
		if q.zstd {
			z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(64<<20))
			if err != nil {
				return err
			}
			defer z.Close()
			r = z
		} else {
			r = flate.NewReader(r)
		}
		buf := make([]byte, q.cluster())
		if _, err := io.ReadFull(r, buf); err != nil {
			return fmt.Errorf("%w: compressed cluster is damaged (%v): copy or download the file again", ErrFormat, err)
		}
		q.packed, q.packAt = buf, e
	}
	copy(p, q.packed[within:])
	return nil
}

// openBacking opens the file that unallocated clusters are read from.
func (q *qcow2) openBacking(h []byte, depth int) error {
	off, n := binary.BigEndian.Uint64(h[8:]), binary.BigEndian.Uint32(h[16:])
	if off == 0 || n == 0 {
		return nil
	}
	if n > 1023 || off > uint64(q.cluster()) {
		return broken("backing file name of %d bytes at %d", n, off)
	}
	raw := make([]byte, n)
	if _, err := q.f.ReadAt(raw, int64(off)); err != nil {
		return truncated("the backing file's name")
	}
	name := string(raw)
	dir := filepath.Dir(q.f.Name())
	rel := name
	if filepath.IsAbs(name) {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return err
		}
		if rel, err = filepath.Rel(abs, name); err != nil {
			return err
		}
	}
	if strings.Contains(name, ":") || !filepath.IsLocal(rel) {
		return fmt.Errorf("%w: backing file %q is not in the image's own directory: move it there, or %s", ErrFormat, name, convert)
	}
	b, err := openInside(dir, rel, depth+1)
	if err != nil {
		return fmt.Errorf("backing file %q: %w", name, err)
	}
	q.backing = b
	return nil
}

// openInside opens the image rel, which may not lead out of dir by symbolic links.
func openInside(dir, rel string, depth int) (disk, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := root.OpenFile(rel, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	d, err := openDiskFile(f, depth)
	if err != nil {
		f.Close()
		return nil, err
	}
	return d, nil
}
