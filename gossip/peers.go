package gossip

import (
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// PeerState is how we stand with a member.
type PeerState struct {
	ID        peer.ID
	Connected bool
	Hears     bool          // what is published here goes straight to it
	Addr      string        // multiaddr of the far end of the connection
	Transport string        // "tcp", "quic-v1" or "relay"
	RTT       time.Duration // round trip when last measured; 0: never
	Since     time.Time     // connected, or disconnected, since then; zero: never was
	Err       error         // why it is not connected, if known

	Unsent     uint64    // messages left out, as it was slower than what is published, or cut off
	Invalid    uint64    // messages of its, or passed on by it, that were refused
	Dropped    uint64    // messages and requests of its that were over the limit
	MutedUntil time.Time // nothing is taken from it until then, or less; may be over
	Reason     string    // why it was muted last
}

// Peers are the members but this one, in the order of the roster.
func (o *Overlay) Peers() []PeerState {
	var out []PeerState
	for _, p := range o.others() {
		s := PeerState{ID: p}
		o.mu.Lock()
		if l := o.links[p]; l != nil {
			s.RTT, s.Since, s.Err, s.Hears, s.Unsent = l.rtt, l.lost, l.err, l.line != nil, l.unsent
		}
		for _, l := range *o.lines.Load() {
			if l.to == p {
				s.Unsent += l.leftOut()
			}
		}
		o.mu.Unlock()
		o.account(p).describe(&s)
		if c := o.conn(p); c != nil {
			s.Connected, s.Err = true, nil
			s.Addr, s.Transport, s.Since = c.RemoteMultiaddr().String(), transportOf(c), c.Stat().Opened
		}
		out = append(out, s)
	}
	return out
}

// conn is the connection to p that new streams take: a direct one if there is one.
func (o *Overlay) conn(p peer.ID) (best network.Conn) {
	for _, c := range o.host.Network().ConnsToPeer(p) {
		if c.IsClosed() {
			continue
		}
		if best == nil || isRelayed(best.RemoteMultiaddr()) && !isRelayed(c.RemoteMultiaddr()) {
			best = c
		}
	}
	return best
}

func transportOf(c network.Conn) string {
	if isRelayed(c.RemoteMultiaddr()) {
		return "relay"
	}
	return strings.TrimPrefix(c.ConnState().Transport, "/")
}
