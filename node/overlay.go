package node

import (
	"github.com/dcnode/dcnode/gossip"
	"github.com/dcnode/dcnode/node/order"
)

// events is the overlay as the ordering loop sees it.
type events struct{ *gossip.Overlay }

var (
	_ order.Overlay = events{}
	_ order.Blamer  = events{}
)

// Peers implements order.Overlay.
func (o events) Peers() []order.Peer {
	var out []order.Peer
	for _, p := range o.Overlay.Peers() {
		out = append(out, order.Peer{ID: p.ID, Connected: p.Connected, RTT: p.RTT})
	}
	return out
}
