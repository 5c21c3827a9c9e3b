package migrate

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/dcnode/dcnode/vmm"
)

const (
	maxPasses  = 8        // over the disks before memory is begun
	flushEvery = 16 << 20 // bytes of disk between barriers: bounds what the last one has to flush
	followWait = 100 * time.Millisecond
	// zeroRun is the granularity at which zeroes are told from data: a cluster of
	// qcow2, below which the destination could not keep a hole.
	zeroRun = 64 << 10
)

// copyDisks makes passes until what one found is small, or passes help no more. It
// returns when the destination has flushed all of it.
func (t *sending) copyDisks(ctx context.Context) error {
	last := int64(-1)
	for range maxPasses {
		found, err := t.pass(ctx)
		if err != nil {
			return err
		}
		if found <= t.small() || last >= 0 && found > last*3/4 {
			break
		}
		last = found
	}
	if err := t.sendBarrier(ctx, false); err != nil {
		return err
	}
	for t.lastFlushed.Load() != t.barrier {
		if err := wait(ctx, t.flushed); err != nil {
			return err
		}
	}
	return nil
}

// small is how many bytes of disk may be left for the pause.
func (t *sending) small() int64 {
	return int64(t.link.rate() * t.job.MaxDowntime.Seconds() / 4)
}

// followDisks keeps what is left of the disks small until the machine has paused.
func (t *sending) followDisks(ctx context.Context) error {
	for {
		select {
		case <-t.job.Machine.Paused():
			return nil
		case <-t.pumped:
			return errors.New("send memory: the machine's stream ended before the machine paused")
		default:
		}
		found, err := t.pass(ctx)
		if err != nil {
			return err
		}
		if found > 0 {
			if err := t.sendBarrier(ctx, false); err != nil {
				return err
			}
		}
		if found > t.small() {
			continue
		}
		if err := t.pauseFor(ctx, followWait); err != nil {
			return err
		}
	}
}

// pauseFor waits, but no longer than until the machine has paused.
func (t *sending) pauseFor(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.job.Machine.Paused():
	case <-t.pumped:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// pass sends what was written since the pass before and returns how much it was.
func (t *sending) pass(ctx context.Context) (int64, error) {
	var extents []vmm.Extent
	err := t.call(ctx, "list disk changes", func(ctx context.Context) (err error) {
		extents, err = t.job.Machine.Changes(ctx)
		return err
	})
	if err != nil {
		return 0, err
	}
	t.report.Passes++
	var found int64
	for _, e := range extents {
		found += e.Length
	}
	t.meter.remaining(found)
	for _, e := range extents {
		if err := t.sendExtent(ctx, e); err != nil {
			return 0, err
		}
	}
	return found, nil
}

func (t *sending) sendExtent(ctx context.Context, e vmm.Extent) error {
	if e.Zero {
		return t.sendZero(ctx, extent{e.Disk, e.Offset, e.Length})
	}
	for off, end := e.Offset, e.Offset+e.Length; off < end; {
		p := t.buf[:min(end-off, diskRun)]
		err := t.call(ctx, fmt.Sprintf("read disk %d at %d", e.Disk, off), func(ctx context.Context) error {
			return t.job.Machine.ReadDisk(ctx, e.Disk, p, off)
		})
		if err != nil {
			return err
		}
		if err := t.sendRuns(ctx, e.Disk, off, p); err != nil {
			return err
		}
		off += int64(len(p))
	}
	return nil
}

// sendRuns sends p as runs of zeroes and of data.
func (t *sending) sendRuns(ctx context.Context, disk int, off int64, p []byte) error {
	for len(p) > 0 {
		n, zero := nextRun(off, p)
		var err error
		if x := (extent{disk, off, int64(n)}); zero {
			err = t.sendZero(ctx, x)
		} else {
			err = t.sendData(ctx, x, p[:n])
		}
		if err != nil {
			return err
		}
		off, p = off+int64(n), p[n:]
	}
	return nil
}

var zeroes [zeroRun]byte

// nextRun is the length of the run of zeroes, or of data, at the start of p, in
// steps of zeroRun aligned to the disk.
func nextRun(off int64, p []byte) (n int, zero bool) {
	for n < len(p) {
		step := min(int(zeroRun-(off+int64(n))%zeroRun), len(p)-n)
		z := bytes.Equal(p[n:n+step], zeroes[:step])
		if n > 0 && z != zero {
			break
		}
		zero = z
		n += step
	}
	return n, zero
}

func (t *sending) sendZero(ctx context.Context, x extent) error {
	p := binary.BigEndian.AppendUint16(nil, uint16(x.disk))
	p = binary.BigEndian.AppendUint64(p, uint64(x.off))
	p = binary.BigEndian.AppendUint64(p, uint64(x.length))
	n, err := t.link.send(ctx, kindZero, p)
	x.digest(t.disks, kindZero, nil)
	t.report.DiskZero += x.length
	t.report.DiskSent += n
	t.meter.add(x.length, n)
	return err
}

func (t *sending) sendData(ctx context.Context, x extent, data []byte) error {
	head := binary.BigEndian.AppendUint16(make([]byte, 0, diskHead), uint16(x.disk))
	head = binary.BigEndian.AppendUint64(head, uint64(x.off))
	head = binary.BigEndian.AppendUint32(head, uint32(x.length))
	packed := byte(1)
	t.out = t.zstd.EncodeAll(data, t.out[:0])
	body := t.out
	if len(body) >= len(data) {
		packed, body = 0, data
	}
	n, err := t.link.send(ctx, kindWrite, append(head, packed), body)
	if err != nil {
		return err
	}
	x.digest(t.disks, kindWrite, data)
	t.report.DiskPlain += x.length
	t.report.DiskSent += n
	t.meter.add(x.length, n)
	if t.unsynced += x.length; t.unsynced >= flushEvery {
		return t.sendBarrier(ctx, false)
	}
	return nil
}

// sendBarrier has the destination compare the digest of all disk frames so far and
// flush its disks.
func (t *sending) sendBarrier(ctx context.Context, final bool) error {
	t.barrier++
	t.unsynced = 0
	p := binary.BigEndian.AppendUint32(nil, t.barrier)
	last := byte(0)
	if final {
		last = 1
	}
	n, err := t.link.send(ctx, kindFlush, t.disks.Sum(append(p, last)))
	t.report.DiskSent += n
	t.meter.add(0, n)
	return err
}
