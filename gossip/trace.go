package gossip

import (
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// tracer hears from gossipsub's own goroutine what it does not tell otherwise: that a
// stream to a member was opened or lost, and what was dropped.
type tracer struct{ o *Overlay }

var _ pubsub.RawTracer = tracer{}

// OnNewOutboundStream: what is published may reach p now.
func (t tracer) OnNewOutboundStream(peer.ID, protocol.ID) { signal(t.o.moved) }

// OnClosedOutboundStream: what was on its way to p may be lost.
func (t tracer) OnClosedOutboundStream(p peer.ID) {
	t.o.mu.Lock()
	t.o.leftTopic(p)
	t.o.mu.Unlock()
	signal(t.o.moved)
}

// DropRPC: a member is too slow, or just gone; it will ask.
func (t tracer) DropRPC(_ *pubsub.RPC, p peer.ID) {
	t.o.log.Debug("gossip to a member was dropped", "peer", p)
}

// UndeliverableMessage: our own reader is too slow.
func (t tracer) UndeliverableMessage(*pubsub.Message) { t.o.inbox.dropped.Add(1) }

func (tracer) Join(string)                                          {}
func (tracer) Leave(string)                                         {}
func (tracer) Graft(peer.ID, string)                                {}
func (tracer) Prune(peer.ID, string)                                {}
func (tracer) ValidateMessage(*pubsub.Message)                      {}
func (tracer) DeliverMessage(*pubsub.Message)                       {}
func (tracer) RejectMessage(*pubsub.Message, string)                {}
func (tracer) DuplicateMessage(*pubsub.Message)                     {}
func (tracer) ThrottlePeer(peer.ID)                                 {}
func (tracer) RecvRPC(*pubsub.RPC)                                  {}
func (tracer) SendRPC(*pubsub.RPC, peer.ID)                         {}
func (tracer) SendRPCCompleted(*pubsub.RPC, peer.ID, time.Duration) {}
