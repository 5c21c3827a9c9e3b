package blockstore

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"github.com/ipfs/boxo/bitswap/message"
	bitswapnet "github.com/ipfs/boxo/bitswap/network"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// liar answers every want with bytes that are not what was asked for.
type liar struct {
	net  bitswapnet.BitSwapNetwork
	lies atomic.Int64
}

func (l *liar) ReceiveMessage(ctx context.Context, from peer.ID, m message.BitSwapMessage) {
	lie := message.New(false)
	for _, e := range m.Wantlist() {
		if e.Cancel {
			continue
		}
		// The name is right and the bytes are not; on the wire only the bytes count.
		b, err := blocks.NewBlockWithCid(noise(rand.Uint64(), 1000), e.Cid)
		if err != nil {
			panic(err)
		}
		lie.AddBlock(b)
		l.lies.Add(1)
	}
	if !lie.Empty() {
		go l.net.SendMessage(ctx, from, lie)
	}
}
func (*liar) ReceiveError(error)       {}
func (*liar) PeerConnected(peer.ID)    {}
func (*liar) PeerDisconnected(peer.ID) {}

// deaf takes messages and answers none.
type deaf struct{}

func (*deaf) ReceiveMessage(context.Context, peer.ID, message.BitSwapMessage) {}
func (*deaf) ReceiveError(error)                                              {}
func (*deaf) PeerConnected(peer.ID)                                           {}
func (*deaf) PeerDisconnected(peer.ID)                                        {}

// forgetful serves blocks, but not all of them at the first time of asking.
type forgetful struct {
	deaf
	from   *Store
	net    bitswapnet.BitSwapNetwork
	mu     sync.Mutex
	seen   map[cid.Cid]bool
	forgot int
}

func (f *forgetful) ReceiveMessage(ctx context.Context, to peer.ID, m message.BitSwapMessage) {
	for _, e := range m.Wantlist() {
		f.mu.Lock()
		again := f.seen[e.Cid]
		f.seen[e.Cid] = true
		forget := !again && !e.Cancel && len(f.seen)%10 == 0
		if forget {
			f.forgot++
		}
		f.mu.Unlock()
		if e.Cancel || forget {
			continue
		}
		b, err := f.from.local.Get(ctx, e.Cid)
		if err != nil {
			continue
		}
		answer := message.New(false)
		answer.AddBlock(b)
		_ = f.net.SendMessage(ctx, to, answer)
	}
}
