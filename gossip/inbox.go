package gossip

import (
	"context"
	"hash/maphash"
	"sync"
	"sync/atomic"

	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// What waits for the reader of Messages.
	maxQueued      = 4096     // messages
	maxQueuedBytes = 48 << 20 // bytes, and those of readyMessages
	// readyMessages are in the channel already, so that a message that meets a reader
	// who keeps up goes to it without waking a third goroutine.
	readyMessages = 16
)

// inbox is the queue before Messages. Unlike a channel's it is bounded in bytes.
type inbox struct {
	out     chan Message
	dropped atomic.Uint64
	more    chan struct{}

	direct  sync.RWMutex // held for reading while deliver is called
	deliver func(from peer.ID, data []byte)

	mu    sync.Mutex
	queue []Message // its head is being put into out, if there is one
	size  int       // bytes in queue
}

func newInbox() *inbox {
	return &inbox{out: make(chan Message, readyMessages), more: make(chan struct{}, 1)}
}

// put delivers m, or queues it, or drops it if there is no room.
func (b *inbox) put(m Message) {
	b.direct.RLock()
	defer b.direct.RUnlock()
	if b.deliver != nil {
		b.deliver(m.From, m.Data)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.queue) == 0 {
		select {
		case b.out <- m:
			return
		default:
		}
	}
	if len(b.queue) >= maxQueued || b.size+len(m.Data) > maxQueuedBytes {
		b.dropped.Add(1)
		return
	}
	b.queue, b.size = append(b.queue, m), b.size+len(m.Data)
	signal(b.more)
}

// receive has what is put delivered until ctx ends, and what waits already.
func (b *inbox) receive(ctx context.Context, deliver func(from peer.ID, data []byte)) {
	set := func(f func(peer.ID, []byte)) {
		b.direct.Lock()
		defer b.direct.Unlock()
		b.deliver = f
	}
	set(deliver)
	defer set(nil)
	for {
		select {
		case m := <-b.out:
			deliver(m.From, m.Data)
		case <-ctx.Done():
			return
		}
	}
}

// run hands the queue to the reader until ctx ends.
func (b *inbox) run(ctx context.Context) error {
	for {
		m, ok := b.head()
		if !ok {
			select {
			case <-b.more:
				continue
			case <-ctx.Done():
				return nil
			}
		}
		select {
		case b.out <- m:
			b.pop()
		case <-ctx.Done():
			return nil
		}
	}
}

func (b *inbox) head() (m Message, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.queue) == 0 {
		return Message{}, false
	}
	return b.queue[0], true
}

func (b *inbox) pop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.size -= len(b.queue[0].Data)
	b.queue[0] = Message{}
	if b.queue = b.queue[1:]; len(b.queue) == 0 {
		b.queue = nil
	}
}

// seenMessages remembers the IDs of messages, so that each is delivered once whichever
// way it came: the last 65536 at least and twice that at most. It keeps 64 bits of each,
// mixed with a secret, so that nobody can make two collide.
type seenMessages struct {
	seed maphash.Seed

	mu       sync.Mutex
	now, old map[uint64]struct{}
}

const seenGeneration = 1 << 16

func newSeenMessages() *seenMessages {
	return &seenMessages{seed: maphash.MakeSeed(), now: map[uint64]struct{}{}}
}

// has says whether the message was here.
func (s *seenMessages) has(id string) bool {
	h := maphash.String(s.seed, id)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.contains(h)
}

func (s *seenMessages) contains(h uint64) bool {
	if _, ok := s.now[h]; ok {
		return true
	}
	_, ok := s.old[h]
	return ok
}

// add notes the message and says whether it is new.
func (s *seenMessages) add(id string) bool {
	h := maphash.String(s.seed, id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.contains(h) {
		return false
	}
	if len(s.now) >= seenGeneration {
		s.old, s.now = s.now, make(map[uint64]struct{}, seenGeneration)
	}
	s.now[h] = struct{}{}
	return true
}
