package node

import (
	"context"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/dcnode/dcnode/gossip"
	"github.com/dcnode/dcnode/node/order"
)

// events is the overlay as the ordering loop sees it.
type events struct{ *gossip.Overlay }

var _ order.Overlay = events{}

// Receive implements order.Overlay.
func (o events) Receive(ctx context.Context, deliver func(peer.ID, []byte)) error {
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
func (o events) Peers() []order.Peer {
	var out []order.Peer
	for _, p := range o.Overlay.Peers() {
		out = append(out, order.Peer{ID: p.ID, Connected: p.Connected, RTT: p.RTT})
	}
	return out
}
