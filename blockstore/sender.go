package blockstore

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/ipfs/boxo/bitswap/message"
	pb "github.com/ipfs/boxo/bitswap/message/pb"
	"github.com/ipfs/boxo/bitswap/network"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// sender is the outgoing side towards one holder: it connects, and sends wants
// and cancels in batches. It reports through the pull's inbox.
type sender struct {
	pull *pull
	id   peer.ID

	mu      sync.Mutex
	entries map[cid.Cid]entry
	reset   bool // open a new stream first
	wake    chan struct{}
}

// entry is a want or a cancel for one block.
type entry struct {
	cancel   bool
	priority int32 // of a want: higher is served first
}

// sendTimeout bounds connecting, and sending one message.
const sendTimeout = 10 * time.Second

func newSender(p *pull, id peer.ID) *sender {
	return &sender{pull: p, id: id, entries: make(map[cid.Cid]entry), wake: make(chan struct{}, 1)}
}

// queue adds an entry; the later of two for one block counts.
func (s *sender) queue(c cid.Cid, e entry) {
	s.mu.Lock()
	s.entries[c] = e
	s.mu.Unlock()
	s.signal()
}

// restart makes the next message go by a new stream, connecting again if need be.
func (s *sender) restart() {
	s.mu.Lock()
	s.reset = true
	s.mu.Unlock()
	s.signal()
}

func (s *sender) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run connects and sends until ctx ends, and then once more what is queued:
// cancels, so that the holder does not go on sending.
func (s *sender) run(ctx context.Context) {
	var out network.MessageSender
	for ctx.Err() == nil {
		if out == nil {
			fresh, err := s.connect(ctx)
			if err != nil {
				s.pull.deliver(arrival{from: s.id, down: err})
				if !pause(ctx, time.Second) {
					return
				}
				continue
			}
			out = fresh
			s.pull.deliver(arrival{from: s.id, up: true})
			s.signal() // for what was queued meanwhile
		}
		select {
		case <-ctx.Done():
		case <-s.wake:
			if s.takeReset() {
				_ = out.Reset()
				out = nil
				continue
			}
			if err := s.flush(ctx, out); err != nil && ctx.Err() == nil {
				s.pull.deliver(arrival{from: s.id, down: err})
				_ = out.Reset()
				out = nil
			}
		}
	}
	if out != nil {
		last, done := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer done()
		_ = s.flush(last, out) // best effort: the holder's own limits end it otherwise
		_ = out.Reset()
	}
}

func (s *sender) connect(ctx context.Context) (network.MessageSender, error) {
	ctx, done := context.WithTimeout(ctx, sendTimeout)
	defer done()
	opts := &network.MessageSenderOpts{MaxRetries: 1, SendTimeout: sendTimeout}
	out, err := s.pull.x.net.NewMessageSender(ctx, s.id, opts)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	s.mu.Lock()
	s.reset = false
	s.mu.Unlock()
	return out, nil
}

func (s *sender) takeReset() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.reset
	s.reset = false
	return r
}

// flush sends everything queued as one message.
func (s *sender) flush(ctx context.Context, out network.MessageSender) error {
	s.mu.Lock()
	entries := s.entries
	s.entries = make(map[cid.Cid]entry)
	s.mu.Unlock()
	if len(entries) == 0 {
		return nil
	}
	m := wantMessage(entries)
	ctx, done := context.WithTimeout(ctx, sendTimeout)
	defer done()
	if err := out.SendMsg(ctx, m); err != nil {
		return fmt.Errorf("send wants: %w", err)
	}
	return nil
}

// pause waits for d; false where ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// wantMessage makes the Bitswap message for a batch of wants and cancels.
func wantMessage(entries map[cid.Cid]entry) message.BitSwapMessage {
	m := message.New(false)
	for c, e := range entries {
		if e.cancel {
			m.Cancel(c)
		} else {
			m.AddEntry(c, e.priority, pb.Message_Wantlist_Block, true)
		}
	}
	return m
}
