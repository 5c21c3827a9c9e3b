package blockstore

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/ipfs/boxo/bitswap/message"
	"github.com/ipfs/boxo/bitswap/network"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/bitswap/server"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// What the server is tuned to. boxo's defaults are for a public network of many
// strangers: 8 workers and 1 MiB unsent a peer hold one link of 1 Gbit/s and
// 30 ms to a fifth of its rate, and wants over 1024 are dropped without a word.
const (
	serveWorkers     = 32       // messages being sent at once, to all peers
	serveOutstanding = 32 << 20 // bytes handed to the transport and not yet sent, a peer
	serveWants       = 16384    // wants remembered a peer
)

// exchange is a store on the network: boxo's server for those who ask, and the
// hub that hands arriving messages to this store's own pulls.
type exchange struct {
	net    network.BitSwapNetwork
	server *server.Server
	host   host.Host
	protos []protocol.ID
	stop   context.CancelFunc

	mu    sync.Mutex
	pulls map[*pull]struct{}

	received, receivedBytes atomic.Int64
}

// Join serves this store's blocks on h, and lets Fetch ask others, by Bitswap
// 1.2 under prefix: the protocol is prefix + "/ipfs/bitswap/1.2.0". Only peers
// for which allowed is true are served, others are told that the block is not
// here; nil: all peers are. It is asked for each block, so it must be quick, and
// a peer that is expelled gets nothing more. ctx bounds the serving; Close ends
// it too. A store joins once.
//
// Each answer travels on a stream of its own, so the host's resource manager
// must allow some thousands of streams a peer for the protocol.
func (s *Store) Join(ctx context.Context, h host.Host, prefix protocol.ID, allowed func(peer.ID) bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.exchange != nil {
		return errors.New("join network: the store is closed or has joined already")
	}
	if allowed == nil {
		allowed = func(peer.ID) bool { return true }
	}
	ctx, stop := context.WithCancel(ctx)
	x := &exchange{
		net: bsnet.NewFromIpfsHost(h, bsnet.Prefix(prefix)), host: h, stop: stop,
		pulls: make(map[*pull]struct{}),
	}
	before := h.Mux().Protocols()
	x.server = server.New(ctx, x.net, served{s.local},
		server.TaskWorkerCount(serveWorkers),
		server.EngineTaskWorkerCount(serveWorkers),
		server.MaxOutstandingBytesPerPeer(serveOutstanding),
		server.MaxQueuedWantlistEntriesPerPeer(serveWants),
		server.WithPeerBlockRequestFilter(func(p peer.ID, _ cid.Cid) bool { return allowed(p) }),
	)
	// The server comes first: a pull may hold a message back while the disk is slow.
	x.net.Start(x.server, hub{x})
	x.protos = added(before, h.Mux().Protocols())
	s.exchange = x
	return nil
}

// served is the store as the server sees it: a corrupt block, which was logged
// when it was found, is one that is not here.
type served struct{ *local }

// Get implements boxo's Blockstore.
func (s served) Get(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	b, err := s.local.Get(ctx, c)
	if errors.Is(err, ErrCorrupt) {
		return nil, ipld.ErrNotFound{Cid: c}
	}
	return b, err
}

// added is what after has and before has not.
func added(before, after []protocol.ID) []protocol.ID {
	old := make(map[protocol.ID]bool)
	for _, p := range before {
		old[p] = true
	}
	var fresh []protocol.ID
	for _, p := range after {
		if !old[p] {
			fresh = append(fresh, p)
		}
	}
	return fresh
}

func (x *exchange) close() {
	for _, p := range x.protos {
		x.host.RemoveStreamHandler(p)
	}
	x.stop()
	x.mu.Lock()
	for p := range x.pulls {
		p.cancel(errors.New("the store was closed"))
	}
	x.mu.Unlock()
	x.net.Stop()
	x.server.Close()
}

func (x *exchange) count(st *Stats) {
	if sent, err := x.server.Stat(); err == nil {
		st.BlocksSent, st.BytesSent = int64(sent.BlocksSent), int64(sent.DataSent)
	}
	st.BlocksReceived, st.BytesReceived = x.received.Load(), x.receivedBytes.Load()
}

// stored tells the server of new blocks, for peers that asked before they came.
func (x *exchange) stored(ctx context.Context, bs []blocks.Block) {
	_ = x.server.NotifyNewBlocks(ctx, bs...) // its only error is that it is closed
	for _, b := range bs {
		x.received.Add(1)
		x.receivedBytes.Add(int64(len(b.RawData())))
	}
}

// each calls f with every pull that p holds blocks for.
func (x *exchange) each(p peer.ID, f func(*pull)) {
	x.mu.Lock()
	var of []*pull
	for q := range x.pulls {
		if _, ok := q.holders[p]; ok {
			of = append(of, q)
		}
	}
	x.mu.Unlock()
	for _, q := range of {
		f(q)
	}
}

// hub receives what the network brings for the asking side. Messages of peers
// that were not asked fall through.
type hub struct{ x *exchange }

// ReceiveMessage implements network.Receiver. The CIDs of the blocks were
// computed from their bytes when the message was decoded, so a block is what its
// CID says; whether anyone asked for it, the pull decides.
func (h hub) ReceiveMessage(_ context.Context, from peer.ID, m message.BitSwapMessage) {
	if len(m.Blocks()) == 0 && len(m.DontHaves()) == 0 {
		return
	}
	h.x.each(from, func(p *pull) {
		p.deliver(arrival{from: from, blocks: m.Blocks(), refused: m.DontHaves()})
	})
}

// ReceiveError implements network.Receiver; errors of single streams show as silence.
func (hub) ReceiveError(error) {}

// PeerConnected implements network.Receiver.
func (hub) PeerConnected(peer.ID) {}

// PeerDisconnected implements network.Receiver.
func (h hub) PeerDisconnected(id peer.ID) {
	h.x.each(id, func(p *pull) {
		p.deliver(arrival{from: id, down: errors.New("the connection was lost")})
	})
}
