package vmmtest

import (
	"context"
	"fmt"
	"io"

	"github.com/dcnode/dcnode/vmm"
)

// chunk is the most that one ReadDisk or WriteDisk carries.
const chunk = 1 << 20

// Moved is what [Migrate] saw.
type Moved struct {
	Passes   int   // calls of Changes that found something
	Disk     int64 // bytes of disk copied, zero extents left out
	Zeroes   int64 // bytes of zero extents
	Memory   int64 // bytes of the memory stream
	Downtime int64 // milliseconds, as the source's driver says
}

// CopyDisks takes one pass: everything that [vmm.Outgoing.Changes] names goes into in.
func CopyDisks(ctx context.Context, out vmm.Outgoing, in vmm.Incoming, m *Moved) error {
	extents, err := out.Changes(ctx)
	if err != nil {
		return fmt.Errorf("list changes: %w", err)
	}
	if err := ordered(extents); err != nil {
		return err
	}
	if len(extents) > 0 {
		m.Passes++
	}
	buf := make([]byte, chunk)
	for _, e := range extents {
		if e.Zero {
			m.Zeroes += e.Length
			if err := in.ZeroDisk(ctx, e.Disk, e.Offset, e.Length); err != nil {
				return fmt.Errorf("zero %+v: %w", e, err)
			}
			continue
		}
		for done := int64(0); done < e.Length; {
			p := buf[:min(chunk, e.Length-done)]
			if err := out.ReadDisk(ctx, e.Disk, p, e.Offset+done); err != nil {
				return fmt.Errorf("read %+v: %w", e, err)
			}
			if err := in.WriteDisk(ctx, e.Disk, p, e.Offset+done); err != nil {
				return fmt.Errorf("write %+v: %w", e, err)
			}
			done += int64(len(p))
		}
		m.Disk += e.Length
	}
	return nil
}

// ordered holds a driver to what [vmm.Outgoing.Changes] promises.
func ordered(extents []vmm.Extent) error {
	last := vmm.Extent{Disk: -1}
	for _, e := range extents {
		if e.Offset%4096 != 0 || e.Length%4096 != 0 || e.Length <= 0 || e.Offset < 0 {
			return fmt.Errorf("extent %+v is not whole blocks of 4096", e)
		}
		if e.Disk < last.Disk || e.Disk == last.Disk && e.Offset < last.Offset+last.Length {
			return fmt.Errorf("extent %+v after %+v is out of order", e, last)
		}
		last = e
	}
	return nil
}

// Migrate moves a machine by plain copies up to the point where both sides are
// paused and the destination has loaded all of its state. during, if not nil, is
// called once after the first disk pass.
func Migrate(ctx context.Context, out vmm.Outgoing, in vmm.Incoming, during func() error) (m Moved, err error) {
	if err := CopyDisks(ctx, out, in, &m); err != nil {
		return m, err
	}
	if during != nil {
		if err := during(); err != nil {
			return m, err
		}
	}
	copied, err := CopyMemory(ctx, out, in)
	if err != nil {
		return m, err
	}
	for paused := false; !paused; {
		select {
		case <-out.Paused():
			paused = true
		case c := <-copied:
			return m, fmt.Errorf("memory stream ended after %d bytes, before the pause: %w", c.Bytes, c.Err)
		default:
		}
		if err := CopyDisks(ctx, out, in, &m); err != nil {
			return m, err
		}
	}
	if err := in.Flush(ctx); err != nil {
		return m, fmt.Errorf("flush: %w", err)
	}
	if err := out.Finish(ctx); err != nil {
		return m, fmt.Errorf("finish: %w", err)
	}
	select {
	case c := <-copied:
		m.Memory = c.Bytes
		if c.Err != nil {
			return m, fmt.Errorf("copy memory: %w", c.Err)
		}
	case <-ctx.Done():
		return m, fmt.Errorf("copy memory: %w", context.Cause(ctx))
	}
	if err := in.Loaded(ctx); err != nil {
		return m, fmt.Errorf("load: %w", err)
	}
	m.Downtime = out.Downtime()
	return m, nil
}

// Copied is how a memory stream ended.
type Copied struct {
	Bytes int64
	Err   error
}

// CopyMemory connects the two halves' memory streams and tells when they ended.
func CopyMemory(ctx context.Context, out vmm.Outgoing, in vmm.Incoming) (<-chan Copied, error) {
	w, err := in.Memory(ctx)
	if err != nil {
		return nil, fmt.Errorf("open memory to write: %w", err)
	}
	r, err := out.Memory(ctx)
	if err != nil {
		w.Close()
		return nil, fmt.Errorf("open memory to read: %w", err)
	}
	ch := make(chan Copied, 1)
	go func() {
		defer r.Close()
		n, err := io.Copy(w, r)
		if cerr := w.Close(); err == nil {
			err = cerr
		}
		ch <- Copied{n, err}
	}()
	return ch, nil
}
