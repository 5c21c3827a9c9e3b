package migrate

import (
	"context"
	"crypto/sha256"
	"fmt"
)

// takeDisks writes the disks.
func (r *receiving) takeDisks(ctx context.Context) error {
	for f := range r.diskLane {
		if ctx.Err() != nil {
			return nil
		}
		done, err := r.takeDisk(ctx, f)
		if err != nil {
			return err
		}
		r.used(f, done)
	}
	return nil
}

func (r *receiving) takeDisk(ctx context.Context, f frame) (int64, error) {
	var done int64
	var err error
	switch f.kind {
	case kindWrite:
		done, err = r.writeDisk(ctx, f.payload)
	case kindZero:
		done, err = r.zeroDisk(ctx, f.payload)
	default:
		err = r.flush(ctx, f.payload)
	}
	r.report.DiskSent += f.size()
	if f.kind == kindWrite {
		r.report.DiskPlain += done
	} else {
		r.report.DiskZero += done
	}
	return done, err
}

func (r *receiving) writeDisk(ctx context.Context, payload []byte) (int64, error) {
	p := reader{b: payload}
	x := extent{disk: int(p.u16()), off: int64(p.u64())}
	x.length = int64(p.u32())
	packed := p.u8()
	if err := x.check(diskRun); p.short || packed > 1 || err != nil {
		return 0, fmt.Errorf("%w: bad disk frame: %v", ErrDamaged, err)
	}
	data := p.b
	if packed == 1 {
		var err error
		if data, err = r.zstd.DecodeAll(data, r.page[:0:x.length]); err != nil {
			return 0, fmt.Errorf("%w: unpack disk %d at %d: %v", ErrDamaged, x.disk, x.off, err)
		}
	}
	if int64(len(data)) != x.length {
		return 0, fmt.Errorf("%w: disk frame of %d bytes, not %d", ErrDamaged, len(data), x.length)
	}
	x.digest(r.disks, kindWrite, data)
	if err := r.sink.Machine.WriteDisk(ctx, x.disk, data, x.off); err != nil {
		return 0, fmt.Errorf("write disk %d at %d: %w", x.disk, x.off, err)
	}
	return x.length, nil
}

func (r *receiving) zeroDisk(ctx context.Context, payload []byte) (int64, error) {
	p := reader{b: payload}
	x := extent{disk: int(p.u16()), off: int64(p.u64())}
	x.length = int64(p.u64())
	if err := p.end(); err != nil {
		return 0, err
	}
	if err := x.check(maxOffset); err != nil {
		return 0, fmt.Errorf("%w: %v", ErrDamaged, err)
	}
	x.digest(r.disks, kindZero, nil)
	if err := r.sink.Machine.ZeroDisk(ctx, x.disk, x.off, x.length); err != nil {
		return 0, fmt.Errorf("zero disk %d at %d: %w", x.disk, x.off, err)
	}
	return x.length, nil
}

// flush compares the digest of the disk frames and makes the disks durable.
func (r *receiving) flush(ctx context.Context, payload []byte) error {
	p := reader{b: payload}
	barrier, last := p.take(4), p.u8()
	sum := [sha256.Size]byte(p.take(sha256.Size))
	if err := p.end(); err != nil {
		return err
	}
	if sum != [sha256.Size]byte(r.disks.Sum(nil)) {
		return fmt.Errorf("%w: the digest of the disks differs from the source's", ErrDamaged)
	}
	if err := r.sink.Machine.Flush(ctx); err != nil {
		return fmt.Errorf("flush disks: %w", err)
	}
	r.box.put(kindFlushed, barrier)
	if last == 1 {
		close(r.synced)
	}
	return nil
}

// takeMemory rebuilds the machine's stream.
func (r *receiving) takeMemory(ctx context.Context) error {
	for f := range r.memoryLane {
		if ctx.Err() != nil {
			return nil
		}
		var err error
		before := r.decoder.Plain()
		switch f.kind {
		case kindFlush: // counted by the disk lane
			if err := wait(ctx, r.synced); err != nil {
				return err
			}
			continue
		case kindMemory:
			if err = r.openMemory(ctx); err == nil {
				err = r.decoder.Decode(f.payload)
			}
		default:
			err = r.endMemory(ctx, f.payload)
		}
		if err != nil {
			return err
		}
		plain := r.decoder.Plain()
		r.report.MemoryPlain = plain
		r.report.MemorySent += f.size()
		r.used(f, plain-before)
	}
	return nil
}

// openMemory has the machine begin to load, once.
func (r *receiving) openMemory(ctx context.Context) error {
	if r.mem != nil {
		return nil
	}
	mem, err := r.sink.Machine.Memory(ctx)
	if err != nil {
		return fmt.Errorf("start to load memory: %w", err)
	}
	r.mem = mem
	r.group.Go(func() error { // a Write that blocks ends when its stream is closed
		select {
		case <-ctx.Done():
			_ = mem.Close() // given up: the machine is discarded
		case <-r.finished:
		}
		return nil
	})
	return nil
}

func (r *receiving) writeMemory(p []byte) (int, error) { return r.mem.Write(p) }

// endMemory compares the digest of the whole stream, then lets the machine load.
func (r *receiving) endMemory(ctx context.Context, payload []byte) error {
	p := reader{b: payload}
	plain := int64(p.u64())
	sum := [sha256.Size]byte(p.take(sha256.Size))
	if err := p.end(); err != nil {
		return err
	}
	if plain != r.decoder.Plain() || sum != r.decoder.Digest() {
		return fmt.Errorf("%w: the digest of the memory differs from the source's", ErrDamaged)
	}
	r.report.Digest = sum
	if err := r.openMemory(ctx); err != nil { // a stream without a byte
		return err
	}
	if err := r.mem.Close(); err != nil {
		return fmt.Errorf("end memory: %w", err)
	}
	close(r.whole)
	return nil
}
