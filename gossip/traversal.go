package gossip

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/autorelay"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	ma "github.com/multiformats/go-multiaddr"
)

// traversal is how members that cannot be dialed are reached: they ask members that
// can be for a place to wait at (circuit relay v2), and both ends of a relayed
// connection try to make it a direct one (hole punching). Every other member relays,
// for members only.
//
// Which kind this node is the operator says (Config.Private). libp2p could find out by
// AutoNAT, but that has others dial back under a throwaway peer ID, which is a stranger
// here and refused. Routers are not asked to map ports: in a data centre that is for
// the operator to do.
func traversal(cfg *Config) []libp2p.Option {
	opts := []libp2p.Option{libp2p.EnableRelay(), libp2p.EnableHolePunching()}
	if !cfg.Private {
		anyAddr := func(ma.Multiaddr) bool { return true } // sites may share a private network
		return append(opts, libp2p.ForceReachabilityPublic(),
			// A circuit is as good as a connection: no limit on its bytes or its age.
			libp2p.EnableRelayService(relay.WithACL(relayACL(cfg.Allow)), relay.WithInfiniteLimits(),
				relay.WithReservationAddressFilter(anyAddr)))
	}
	return append(opts, libp2p.ForceReachabilityPrivate(),
		libp2p.EnableAutoRelayWithPeerSource(relayCandidates(cfg),
			autorelay.WithBootDelay(0), autorelay.WithMinCandidates(1), autorelay.WithNumRelays(4),
			autorelay.WithMinInterval(5*time.Second), autorelay.WithBackoff(time.Minute)))
}

// relayCandidates are all members: which of them relay turns out on asking.
func relayCandidates(cfg *Config) autorelay.PeerSource {
	return func(ctx context.Context, num int) <-chan peer.AddrInfo {
		out := make(chan peer.AddrInfo)
		go func() {
			defer close(out)
			for _, p := range cfg.Members() {
				if num == 0 {
					return
				}
				select {
				case out <- peer.AddrInfo{ID: p}: // its addresses are in the peerstore
					num--
				case <-ctx.Done():
					return
				}
			}
		}()
		return out
	}
}

// relayACL relays between members only.
type relayACL func(peer.ID) bool

func (allow relayACL) AllowReserve(p peer.ID, _ ma.Multiaddr) bool { return allow(p) }

func (allow relayACL) AllowConnect(src peer.ID, _ ma.Multiaddr, dest peer.ID) bool {
	return allow(src) && allow(dest)
}

func isRelayed(a ma.Multiaddr) bool {
	_, err := a.ValueForProtocol(ma.P_CIRCUIT)
	return err == nil
}
