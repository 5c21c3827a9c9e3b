package migrate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/dcnode/dcnode/vmm/ramstream"
)

const (
	chunkSize = 64 << 10
	chunks    = 2 // one is read while the other is encoded; more would only be downtime
	// idleFlush is how long the machine's stream may be silent before what was
	// batched leaves.
	idleFlush = time.Millisecond
)

// memoryTotals is what became of the memory stream.
type memoryTotals struct {
	plain, sent int64
	digest      [32]byte
	stats       ramstream.Stats
}

// chunk is what one Read of the machine's stream gave.
type chunk struct {
	buf []byte
	n   int
	err error
}

// startMemory has the machine begin to send its memory.
func (t *sending) startMemory(ctx context.Context, index *ramstream.Index) error {
	t.link.fed()
	mem, err := t.job.Machine.Memory(ctx)
	if err != nil {
		return fmt.Errorf("start to send memory: %w", err)
	}
	free, full := make(chan []byte, chunks), make(chan chunk)
	for range chunks {
		free <- make([]byte, chunkSize)
	}
	t.group.Go(func() error { // a Read that blocks ends when its stream is closed
		select {
		case <-ctx.Done():
		case <-t.finished:
		}
		_ = mem.Close() // read to its end, or given up
		return nil
	})
	t.group.Go(func() error { read(ctx, mem, free, full); return nil })
	t.group.Go(func() error { return t.pump(ctx, index, free, full) })
	return nil
}

// read takes the machine's stream as fast as it is used, to its end.
func read(ctx context.Context, mem io.Reader, free <-chan []byte, full chan<- chunk) {
	for {
		select {
		case buf := <-free:
			n, err := mem.Read(buf)
			select {
			case full <- chunk{buf, n, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// pump encodes the machine's stream and sends it.
func (t *sending) pump(ctx context.Context, index *ramstream.Index, free chan<- []byte, full <-chan chunk) error {
	out := writerFunc(func(p []byte) (int, error) {
		n, err := t.link.send(ctx, kindMemory, p)
		if err != nil {
			return 0, err
		}
		t.memory.sent += n
		t.meter.add(0, n)
		return len(p), nil
	})
	enc, err := ramstream.NewEncoder(out, ramstream.EncoderConfig{Index: index})
	if err != nil {
		return err
	}
	err = t.encode(ctx, enc, free, full)
	t.memory.stats, t.memory.digest = enc.Stats(), enc.Digest()
	if err == nil {
		close(t.pumped)
	}
	return err
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// encode feeds the encoder until the machine's stream ends.
func (t *sending) encode(ctx context.Context, enc *ramstream.Encoder, free chan<- []byte, full <-chan chunk) error {
	idle := time.NewTimer(idleFlush)
	defer idle.Stop()
	for {
		select {
		case c := <-full:
			if _, err := enc.Write(c.buf[:c.n]); err != nil {
				return err
			}
			t.memory.plain += int64(c.n)
			t.meter.add(int64(c.n), 0)
			if errors.Is(c.err, io.EOF) {
				return enc.Close()
			}
			if c.err != nil {
				return fmt.Errorf("read memory of the machine: %w", c.err)
			}
			free <- c.buf
			idle.Reset(idleFlush)
		case <-idle.C:
			if err := enc.Flush(); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
