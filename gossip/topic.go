package gossip

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Message is what a member published.
type Message struct {
	From peer.ID // the member that passed it on, its author or not
	Data []byte
}

const (
	// envelope is what gossipsub may add to a message of MaxMessage.
	envelope = 64 << 10
	// Queues of gossipsub, in messages: its defaults of 32 lose messages in a burst.
	outboundQueue      = 1024 // to one member
	validateQueue      = 1024
	subscriptionBuffer = 256
	// What waits for the reader of Messages.
	maxQueued      = 4096     // messages
	maxQueuedBytes = 64 << 20 // bytes
)

// meshParams suits a few dozen members that all hear the author directly: the mesh
// only repairs, so it is small, and every forwarded copy costs a wide-area link.
func meshParams() pubsub.GossipSubParams {
	p := pubsub.DefaultGossipSubParams()
	p.D, p.Dlo, p.Dhi = 4, 2, 6
	p.Dscore, p.Dout = 2, 1
	p.Dlazy = 4
	return p
}

// newTopic starts gossipsub with one topic. Messages carry neither author nor
// signature of libp2p's: what is in them is signed already, and checked.
func (o *Overlay) newTopic(ctx context.Context) (*pubsub.Topic, error) {
	cfg, self := o.cfg, o.self
	name := string(cfg.prefix()) + "/gossip"
	id := func(m *pb.Message) string { return cfg.MessageID(m.GetData()) }
	ps, err := pubsub.NewGossipSub(ctx, o.host,
		pubsub.WithGossipSubParams(meshParams()),
		pubsub.WithFloodPublish(true),
		pubsub.WithRawTracer(tracer{o}),
		pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign),
		pubsub.WithNoAuthor(),
		pubsub.WithMessageIdFn(id),
		pubsub.WithMaxMessageSize(MaxMessage+envelope),
		pubsub.WithPeerOutboundQueueSize(outboundQueue),
		pubsub.WithValidateQueueSize(validateQueue),
		pubsub.WithSubscriptionFilter(pubsub.NewAllowlistSubscriptionFilter(name)),
		pubsub.WithPeerFilter(func(p peer.ID, _ string) bool { return cfg.Allow(p) }),
	)
	if err != nil {
		return nil, err
	}
	valid := func(_ context.Context, from peer.ID, m *pubsub.Message) pubsub.ValidationResult {
		switch {
		case from == self:
			return pubsub.ValidationAccept
		case len(m.Data) > MaxMessage || !cfg.Allow(from) || !cfg.Validate(from, m.Data):
			return pubsub.ValidationReject
		}
		return pubsub.ValidationAccept
	}
	if err := ps.RegisterTopicValidator(name, valid, pubsub.WithValidatorInline(true)); err != nil {
		return nil, err
	}
	return ps.Join(name)
}

// Publish sends data to every member. It returns once the message is on its way:
// who is not connected gets it from others, or by asking. Data is not to be changed
// afterwards. More than [MaxMessage] bytes are an error.
func (o *Overlay) Publish(ctx context.Context, data []byte) error {
	if len(data) > MaxMessage {
		return fmt.Errorf("publish a message of %d bytes: the limit is %d", len(data), MaxMessage)
	}
	if err := o.topic.Publish(ctx, data); err != nil {
		return fmt.Errorf("publish a message: %w", err)
	}
	return nil
}

// Messages are what other members published, each once, in no order. If the reader
// falls behind by 4096 messages or 64 MiB, further ones are dropped and counted
// ([Overlay.Dropped]).
func (o *Overlay) Messages() <-chan Message { return o.messages }

// Dropped counts the messages that nobody read in time.
func (o *Overlay) Dropped() uint64 { return o.dropped.Load() }

// Connected names members that can be reached again, and that hear what is published
// from now on: what was said before must be asked for. A member may be named more often
// than it was away.
func (o *Overlay) Connected() <-chan peer.ID { return o.connected }

// readTopic hands on what others published.
func (o *Overlay) readTopic(ctx context.Context, sub *pubsub.Subscription, to chan<- Message) error {
	for {
		m, err := sub.Next(ctx)
		if err != nil {
			return fmt.Errorf("read the topic: %w", err)
		}
		if m.ReceivedFrom == o.self {
			continue
		}
		select {
		case to <- Message{From: m.ReceivedFrom, Data: m.Data}:
		case <-ctx.Done():
			return nil
		}
	}
}

// deliver is the queue before Messages. Unlike a channel's it is bounded in bytes.
func (o *Overlay) deliver(ctx context.Context, in <-chan Message) error {
	var queue []Message
	var size int
	for {
		var out chan<- Message // nil, which blocks, while there is nothing
		var head Message
		if len(queue) > 0 {
			out, head = o.messages, queue[0]
		}
		select {
		case m := <-in:
			if len(queue) >= maxQueued || size+len(m.Data) > maxQueuedBytes {
				o.dropped.Add(1)
				continue
			}
			queue, size = append(queue, m), size+len(m.Data)
		case out <- head:
			queue[0] = Message{}
			queue, size = queue[1:], size-len(head.Data)
		case <-ctx.Done():
			return nil
		}
	}
}

// relayEvents turns the topic's events into a signal.
func (o *Overlay) relayEvents(ctx context.Context, events *pubsub.TopicEventHandler) error {
	for {
		if _, err := events.NextPeerEvent(ctx); err != nil {
			return nil
		}
		signal(o.moved)
	}
}

// watchTopic notes who is in the topic: follows it, and can be written to.
func (o *Overlay) watchTopic(ctx context.Context) error {
	for {
		select {
		case <-o.moved:
		case <-ctx.Done():
			return nil
		}
		in := o.topic.ListPeers()
		o.mu.Lock()
		for p := range o.links {
			if !slices.Contains(in, p) {
				o.leftTopic(p)
			}
		}
		for _, p := range in {
			o.enteredTopic(p)
		}
		o.mu.Unlock()
	}
}

// enteredTopic: p has everything to come; it may ask, and be asked, for what was
// before. The caller holds the lock.
func (o *Overlay) enteredTopic(p peer.ID) {
	if l := o.link(p); !l.inTopic {
		l.inTopic, l.wasIn, l.heals = true, true, 0
		o.arrivals.add(p)
	}
}

// leftTopic: p may have missed something. The caller holds the lock.
func (o *Overlay) leftTopic(p peer.ID) {
	l := o.links[p]
	if l == nil || !l.inTopic {
		return
	}
	l.inTopic, l.healAt = false, time.Now().Add(healAfter)
	if o.self > p {
		l.healAt = l.healAt.Add(healAfter)
	}
	signal(o.wake)
}

// notifiee hears of connections as they open and close.
func (o *Overlay) notifiee() network.Notifiee {
	return &network.NotifyBundle{
		ConnectedF: func(_ network.Network, c network.Conn) {
			p := c.RemotePeer()
			if !o.cfg.Allow(p) {
				go c.CloseWithError(network.ConnGated) // only with a Host that has no gater
				return
			}
			o.opened(p)
		},
		DisconnectedF: func(_ network.Network, c network.Conn) { o.lost(c.RemotePeer()) },
	}
}

// arrivals is a queue in which each member stands at most once.
type arrivals struct {
	mu    sync.Mutex
	queue []peer.ID
	more  chan struct{}
}

func newArrivals() *arrivals { return &arrivals{more: make(chan struct{}, 1)} }

func (a *arrivals) add(p peer.ID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, q := range a.queue {
		if q == p {
			return
		}
	}
	a.queue = append(a.queue, p)
	signal(a.more)
}

func (a *arrivals) next() (p peer.ID, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.queue) == 0 {
		return "", false
	}
	p, a.queue = a.queue[0], a.queue[1:]
	return p, true
}

func (a *arrivals) run(ctx context.Context, out chan<- peer.ID) error {
	for {
		p, ok := a.next()
		if !ok {
			select {
			case <-a.more:
				continue
			case <-ctx.Done():
				return nil
			}
		}
		select {
		case out <- p:
		case <-ctx.Done():
			return nil
		}
	}
}
