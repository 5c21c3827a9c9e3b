package gossip

import (
	"net/netip"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	"github.com/libp2p/go-libp2p/x/rate"
)

// Limits of the resource manager. libp2p's defaults suit a node of a public network
// that deals with thousands of strangers. Here at most a few dozen members connect
// and each may move a disk: per-peer limits are raised, those on newcomers stay.
const (
	peerStreams  = 16384
	peerMemory   = 1 << 30 // bytes
	totalMemory  = 4 << 30 // bytes, for all members
	protoStreams = 1024    // of one protocol, with one member
	peerConns    = 16
	peerPings    = 32
	// connsPerAddress and newConnsPerAddress allow for a site whose members share
	// one public address.
	connsPerAddress    = 256
	newConnsPerAddress = 16 // a second, in the long run
)

// bitswapStreams: Bitswap opens a stream for each message and closes it in the
// background. Over the limit it drops the message, and the blocks in it are only
// asked for again half a minute later.
const bitswapStreams = 8192

func newResourceManager(cfg *Config) (network.ResourceManager, error) {
	limits := rcmgr.DefaultLimits
	libp2p.SetDefaultServiceLimits(&limits)

	streams := func(b rcmgr.BaseLimit, n int, memory int64) rcmgr.BaseLimit {
		b.StreamsInbound, b.StreamsOutbound, b.Streams = n, n, 2*n
		b.Memory = memory
		return b
	}
	limits.SystemBaseLimit = streams(limits.SystemBaseLimit, 4*peerStreams, totalMemory)
	limits.SystemBaseLimit.Conns, limits.SystemBaseLimit.ConnsInbound, limits.SystemBaseLimit.ConnsOutbound = 1024, 512, 512
	limits.TransientBaseLimit = streams(limits.TransientBaseLimit, peerStreams, peerMemory/4)
	limits.PeerBaseLimit = streams(limits.PeerBaseLimit, peerStreams, peerMemory)
	limits.PeerBaseLimit.Conns, limits.PeerBaseLimit.ConnsInbound, limits.PeerBaseLimit.ConnsOutbound = 2*peerConns, peerConns, peerConns
	limits.ProtocolBaseLimit = streams(limits.ProtocolBaseLimit, 16*protoStreams, totalMemory)
	limits.ProtocolPeerBaseLimit = streams(limits.ProtocolPeerBaseLimit, protoStreams, peerMemory)

	// libp2p lets a peer ping twice at a time; a bid measures while the keeper does.
	pings := streams(rcmgr.BaseLimit{}, peerPings, peerPings<<10)
	limits.AddServicePeerLimit(ping.ServiceName, pings, rcmgr.BaseLimitIncrease{})
	limits.AddProtocolPeerLimit(ping.ID, pings, rcmgr.BaseLimitIncrease{})

	bitswap := streams(rcmgr.BaseLimit{}, bitswapStreams, peerMemory)
	for _, version := range []protocol.ID{"", "/1.0.0", "/1.1.0", "/1.2.0"} {
		id := cfg.prefix() + "/ipfs/bitswap" + version
		limits.AddProtocolLimit(id, streams(rcmgr.BaseLimit{}, 4*bitswapStreams, totalMemory), rcmgr.BaseLimitIncrease{})
		limits.AddProtocolPeerLimit(id, bitswap, rcmgr.BaseLimitIncrease{})
	}
	return rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(limits.Scale(1<<30, 4096)),
		rcmgr.WithMetricsDisabled(),
		rcmgr.WithLimitPerSubnet(
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 32, ConnCount: connsPerAddress}},
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 56, ConnCount: connsPerAddress}}),
		rcmgr.WithConnRateLimiters(newConnRate()))
}

// newConnRate bounds the handshakes that one address can make this node compute.
func newConnRate() *rate.Limiter {
	per := rate.Limit{RPS: newConnsPerAddress, Burst: connsPerAddress}
	return &rate.Limiter{
		NetworkPrefixLimits: []rate.PrefixLimit{
			{Prefix: netip.MustParsePrefix("127.0.0.0/8")}, {Prefix: netip.MustParsePrefix("::1/128")},
		},
		SubnetRateLimiter: rate.SubnetLimiter{
			IPv4SubnetLimits: []rate.SubnetLimit{{PrefixLength: 32, Limit: per}},
			IPv6SubnetLimits: []rate.SubnetLimit{{PrefixLength: 56, Limit: per}},
		},
	}
}
