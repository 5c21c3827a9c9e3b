// Package ordertest joins ordering loops to overlays, for tests and benchmarks.
package ordertest

import (
	"github.com/dcnode/dcnode/gossip"
	"github.com/dcnode/dcnode/node/order"
)

// Events is a gossip overlay as an ordering loop takes it.
type Events struct{ *gossip.Overlay }

var (
	_ order.Overlay = Events{}
	_ order.Blamer  = Events{}
)

// Peers implements order.Overlay.
func (o Events) Peers() []order.Peer {
	var out []order.Peer
	for _, p := range o.Overlay.Peers() {
		out = append(out, order.Peer{ID: p.ID, Connected: p.Connected, RTT: p.RTT})
	}
	return out
}
