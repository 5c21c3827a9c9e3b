package gossip

import (
	"log/slog"
	"sync"

	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// gater lets members connect and nobody else. A stranger is turned away when the
// handshake has proved its peer ID and the connection can carry a reason, and
// before the connection is handed to any protocol: it learns that somebody is here
// and what peer ID they have.
type gater struct {
	admit  func(peer.ID) bool // now
	member func(peer.ID) bool
	log    *slog.Logger

	mu     sync.Mutex
	warned map[peer.ID]bool
}

// maxWarned bounds what strangers can make the gater remember.
const maxWarned = 1024

func newGater(admit, member func(peer.ID) bool, log *slog.Logger) *gater {
	return &gater{admit: admit, member: member, log: log, warned: make(map[peer.ID]bool)}
}

// InterceptPeerDial keeps us from dialing strangers, wherever their ID came from.
func (g *gater) InterceptPeerDial(p peer.ID) bool { return g.admit(p) }

// InterceptAddrDial allows any address of a member.
func (g *gater) InterceptAddrDial(peer.ID, ma.Multiaddr) bool { return true }

// InterceptAccept allows any address: who it is turns out in the handshake.
func (g *gater) InterceptAccept(network.ConnMultiaddrs) bool { return true }

// InterceptSecured leaves the decision to InterceptUpgraded, which follows at once:
// there the refusal carries a code, so that the far side can tell its operator.
func (g *gater) InterceptSecured(network.Direction, peer.ID, network.ConnMultiaddrs) bool {
	return true
}

// InterceptUpgraded refuses strangers with network.ConnGated.
func (g *gater) InterceptUpgraded(c network.Conn) (bool, control.DisconnectReason) {
	if g.admit(c.RemotePeer()) {
		return true, 0
	}
	if !g.member(c.RemotePeer()) {
		g.warn(c)
	}
	return false, 0
}

// warn tells the operator once per stranger.
func (g *gater) warn(c network.Conn) {
	p := c.RemotePeer()
	g.mu.Lock()
	known := g.warned[p] || len(g.warned) >= maxWarned
	if !known {
		g.warned[p] = true
	}
	g.mu.Unlock()
	if !known {
		g.log.Warn("refused a peer that is not in the roster", "peer", p, "addr", c.RemoteMultiaddr())
	}
}
