package migrate

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
)

// outbox holds what the destination has to say. Nobody waits for it to be said;
// acknowledgements that were overtaken are left out.
type outbox struct {
	ready chan struct{} // something is there
	torn  atomic.Bool   // a write failed within a frame

	mu     sync.Mutex
	total  int64  // bytes used
	ack    bool   // total is to be told
	frames []byte // other frames
	closed bool
}

func newOutbox() *outbox { return &outbox{ready: make(chan struct{}, 1)} }

// used counts n more bytes and has the total told.
func (b *outbox) used(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.total += n
	b.ack = true
	b.wake()
}

func (b *outbox) put(kind byte, payload []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.frames = appendFrame(b.frames, kind, payload)
	b.wake()
}

// close has answer return once all is told.
func (b *outbox) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.wake()
}

func (b *outbox) wake() {
	select {
	case b.ready <- struct{}{}:
	default:
	}
}

// next is all there is to say now.
func (b *outbox) next() (out []byte, closed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ack {
		out = appendFrame(out, kindAck, binary.BigEndian.AppendUint64(nil, uint64(b.total)))
	}
	out = append(out, b.frames...)
	b.ack, b.frames = false, nil
	return out, b.closed
}

// answer tells the source what is in the outbox. Once the source has sent all, a
// failure to tell is no failure of the arrival.
func (r *receiving) answer(ctx context.Context) error {
	for {
		if err := wait(ctx, r.box.ready); err != nil {
			return nil // what failed is told by who failed
		}
		out, closed := r.box.next()
		if len(out) > 0 {
			if n, err := r.s.Write(out); err != nil {
				r.box.torn.Store(n > 0)
				hearOut(ctx, r.deaf)
				if r.ended.Load() {
					return nil
				}
				return &linkError{fmt.Errorf("answer the source: %w", err)}
			}
		}
		if closed {
			return nil
		}
	}
}
