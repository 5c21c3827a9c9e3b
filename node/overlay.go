package node

import (
	"github.com/dcnode/dcnode/gossip"
	"github.com/dcnode/dcnode/node/order"
)

// events is the overlay as the ordering loop sees it.
type events struct {
	*gossip.Overlay
	node *Node
}

var (
	_ order.Overlay = events{}
	_ order.Blamer  = events{}
)

// Peers implements order.Overlay. A member that changes its key is there once.
func (o events) Peers() []order.Peer {
	var out []order.Peer
	for _, p := range o.Overlay.Peers() {
		if id := o.node.roster.member(p.ID); id != 0 && id != o.node.self && o.node.peer(id) == p.ID {
			out = append(out, order.Peer{ID: p.ID, Connected: p.Connected, RTT: p.RTT})
		}
	}
	return out
}
