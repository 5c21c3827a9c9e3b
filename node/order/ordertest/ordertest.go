// Package ordertest joins ordering loops to overlays, for tests and benchmarks.
package ordertest

import (
	"context"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/dcnode/dcnode/gossip"
	"github.com/dcnode/dcnode/node/order"
)

// Events is a gossip overlay as an ordering loop takes it.
type Events struct{ *gossip.Overlay }

var _ order.Overlay = Events{}

// Receive implements order.Overlay.
func (o Events) Receive(ctx context.Context, deliver func(peer.ID, []byte)) error {
	for {
		select {
		case m := <-o.Messages():
			deliver(m.From, m.Data)
		case <-ctx.Done():
			return nil
		}
	}
}

// Peers implements order.Overlay.
func (o Events) Peers() []order.Peer {
	var out []order.Peer
	for _, p := range o.Overlay.Peers() {
		out = append(out, order.Peer{ID: p.ID, Connected: p.Connected, RTT: p.RTT})
	}
	return out
}
