package qemu

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/dcnode/dcnode/vmm"
)

// Marks and bounds of a qcow2 file (docs/interop/qcow2.rst of QEMU).
const (
	qcowMagic      = 0x514649fb
	qcowHead       = 72       // bytes of a header of version 2, and the start of a later one
	maxTable       = 64 << 20 // bytes of a table: an L1 of that size is a disk of 4 PiB
	offsetMask     = 0x00fffffffffffe00
	minClusterBits = 9
	maxClusterBits = 21
)

// OwnBytes is what the overlays' files take on this host, less QEMU's own tables.
// Whole clusters travel, so this is what a move sends, if the file system neither
// compresses nor keeps room for later.
func (m *Machine) OwnBytes(ctx context.Context) (sum int64, err error) {
	for _, d := range m.files.Disks {
		n, err := ownBytes(m.paths.overlay(d.Name))
		if err != nil {
			return 0, fmt.Errorf("look at the overlay of disk %s: %w", d.Name, err)
		}
		sum += n
	}
	return sum, ctx.Err()
}

// ownBytes is what a qcow2 file takes on the disk without its header and tables. A
// machine that runs may add to the tables at the same time: they may come out as some
// clusters fewer.
func ownBytes(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, errors.New("the file system does not say how much a file takes")
	}
	meta, err := metadata(f)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return max(st.Blocks*512-meta, 0), nil
}

// metadata is how many bytes the header, the tables of mappings (L1, L2) and the counts
// of references take.
func metadata(r io.ReaderAt) (int64, error) {
	var h [qcowHead]byte
	if _, err := r.ReadAt(h[:], 0); err != nil {
		return 0, fmt.Errorf("read qcow2 header: %w", err)
	}
	be := binary.BigEndian
	bits := be.Uint32(h[20:])
	if be.Uint32(h[:]) != qcowMagic || bits < minClusterBits || bits > maxClusterBits {
		return 0, errors.New("this is no qcow2 file")
	}
	cluster := int64(1) << bits
	l1Bytes := int64(be.Uint32(h[36:])) * 8
	countBytes := int64(be.Uint32(h[56:])) * cluster
	l2, err := entries(r, be.Uint64(h[40:]), l1Bytes)
	if err != nil {
		return 0, err
	}
	blocks, err := entries(r, be.Uint64(h[48:]), countBytes)
	if err != nil {
		return 0, err
	}
	tables := (l1Bytes+cluster-1)/cluster + countBytes/cluster
	return (1 + tables + l2 + blocks) * cluster, nil
}

// entries counts the clusters that a table of offsets names.
func entries(r io.ReaderAt, at uint64, size int64) (n int64, err error) {
	if size > maxTable || at > 1<<62 {
		return 0, fmt.Errorf("a qcow2 table of %d bytes at %d: the file is damaged", size, at)
	}
	b := make([]byte, size)
	if k, err := r.ReadAt(b, int64(at)); err != nil && !(errors.Is(err, io.EOF) && k == len(b)) {
		return 0, fmt.Errorf("read qcow2 table: %w", err)
	}
	for ; len(b) > 0; b = b[8:] {
		if binary.BigEndian.Uint64(b)&offsetMask != 0 {
			n++
		}
	}
	return n, nil
}

// wroteSince is how many bytes a guest had written to its disks at some time.
type wroteSince struct {
	at    time.Time // zero: not known
	bytes int64
}

// memorable is how far back DiskRate looks: guests keep what they write in memory for up
// to half a minute and then write it at once, so that a second says nothing.
const memorable = 2 * time.Minute

// DiskRate asks QEMU how much the guest has written (query-blockstats) since it began to
// run here, or in the last minutes; if that is not known, or shorter, twice.
func (m *Machine) DiskRate(ctx context.Context, over time.Duration) (int64, error) {
	if over < vmm.MinWatch || over > vmm.MaxWatch {
		return 0, fmt.Errorf("watch disks of %s for %v: use %v to %v", m.spec.Name, over, vmm.MinWatch, vmm.MaxWatch)
	}
	m.mu.Lock()
	since := m.wrote
	m.mu.Unlock()
	var err error
	if since.at.IsZero() || time.Since(since.at) < over {
		since.at = time.Now()
		if since.bytes, err = m.written(ctx); err == nil {
			err = rest(ctx, over)
		}
	}
	var now int64
	if err == nil {
		now, err = m.written(ctx)
	}
	if err != nil {
		return 0, fmt.Errorf("watch disks of %s: %w", m.spec.Name, err)
	}
	took := time.Since(since.at)
	m.mu.Lock()
	if m.wrote.at.IsZero() || took > memorable {
		m.wrote = wroteSince{time.Now(), now}
	}
	m.mu.Unlock()
	return int64(float64(max(now-since.bytes, 0)) / took.Seconds()), nil
}

// written is how many bytes the guest has written to its disks.
func (m *Machine) written(ctx context.Context) (sum int64, err error) {
	var disks []struct {
		Stats struct {
			Written int64 `json:"wr_bytes"`
		} `json:"stats"`
	}
	if err := m.mon.Execute(ctx, "query-blockstats", nil, &disks); err != nil {
		return 0, err
	}
	for _, d := range disks {
		sum += d.Stats.Written
	}
	return sum, nil
}
