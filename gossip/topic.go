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
)

// meshParams suits a few dozen members of whom most hear the author directly: whoever
// publishes here sends to all that it can (flood publishing), and the mesh carries it to
// those that it cannot. It is small, as every forwarded copy costs a wide-area link.
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
		if from == self {
			return pubsub.ValidationAccept
		}
		if !cfg.Allow(from) {
			return pubsub.ValidationReject
		}
		acc := o.account(from)
		switch {
		case !o.charge(from, acc, acc.topic, 1, len(m.Data)):
			return pubsub.ValidationIgnore
		case o.seen.has(cfg.MessageID(m.Data)): // and was valid, then
		case len(m.Data) > MaxMessage || !cfg.Validate(from, m.Data):
			o.invalid(from, acc)
			return pubsub.ValidationReject
		case !o.mayRelay(len(m.Data)):
			return pubsub.ValidationIgnore
		}
		if !cfg.Verify(m.Data) {
			o.put(from, m.Data) // whose reader knows whom to blame
			return pubsub.ValidationIgnore
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
	o.seen.add(o.cfg.MessageID(data))
	for _, l := range *o.lines.Load() {
		l.push(data)
	}
	if !o.relaying.Load() {
		return nil
	}
	if err := o.topic.Publish(ctx, data); err != nil {
		return fmt.Errorf("publish a message: %w", err)
	}
	return nil
}

// Messages are what other members published, each once, in no order. If the reader
// falls behind by 4096 messages or 64 MiB, further ones are dropped and counted
// ([Overlay.Dropped]).
func (o *Overlay) Messages() <-chan Message { return o.inbox.out }

// Receive gives deliver what other members publish, until ctx ends, in the place of
// [Overlay.Messages] and with less delay: it is called by the goroutines that read from
// the members, by several at once. It must not block, as that holds up the member whose
// message it is, and keeps data. It is not called any more when Receive has returned.
func (o *Overlay) Receive(ctx context.Context, deliver func(from peer.ID, data []byte)) error {
	o.inbox.receive(ctx, deliver)
	return nil
}

// Dropped counts the messages that nobody read in time.
func (o *Overlay) Dropped() uint64 { return o.inbox.dropped.Load() }

// Connected names members that can be reached again, and that hear what is published
// from now on: what was said before must be asked for. A member may be named more often
// than it was away.
func (o *Overlay) Connected() <-chan peer.ID { return o.connected }

// readTopic hands on what others published and had to be relayed.
func (o *Overlay) readTopic(ctx context.Context, sub *pubsub.Subscription) error {
	for {
		m, err := sub.Next(ctx)
		if err != nil {
			return fmt.Errorf("read the topic: %w", err)
		}
		if m.ReceivedFrom != o.self {
			o.put(m.ReceivedFrom, m.Data)
		}
	}
}

// put delivers a message, unless it was here before.
func (o *Overlay) put(from peer.ID, data []byte) {
	if o.seen.add(o.cfg.MessageID(data)) {
		o.inbox.put(Message{From: from, Data: data})
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

// enteredTopic: what is published there reaches p. The caller holds the lock.
func (o *Overlay) enteredTopic(p peer.ID) {
	if l := o.link(p); !l.inTopic {
		l.inTopic, l.wasIn, l.heals = true, true, 0
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
			if !o.cfg.Allow(p) || o.isShunned(p) {
				go c.CloseWithError(network.ConnGated) // only with a Host that has no gater
				return
			}
			o.opened(c)
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
