// Package gossip is the overlay: it finds the members of a permissioned network,
// keeps a connection to each, and carries opaque bytes between them.
//
// Three ways of carrying, all over one libp2p host with one port:
//
//   - a topic ([Overlay.Publish], [Overlay.Messages]): what one member says goes to
//     every member in one hop, over a stream that each keeps to each. Members that its
//     author has no connection to, and others have, get it through gossipsub. Delivery
//     is best effort and unordered: whoever needs everything repairs by asking, and
//     [Overlay.Connected] says when.
//   - streams ([Overlay.Handle], [Overlay.Open]): a connection to one member, for as
//     many bytes as there are.
//   - requests ([Overlay.HandleRequest], [Overlay.Request]): one question, one answer,
//     both bounded in size and time.
//
// Nobody else takes part. The roster belongs to the caller (Config.Members and
// Config.Allow); a connection gater closes a connection whose far end is not in it
// as soon as the handshake has proved who that is, before any protocol is spoken.
// A bootstrap address is therefore a place to ask for addresses and gives no rights.
//
// A member that sends far more than it may, or what is invalid, is named in the log and
// in [Overlay.Peers], and not listened to for a while ([Limits]).
//
// Addresses of members are found in a Kademlia DHT of their own, kept across
// restarts in a file, and tried until the member answers.
package gossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
	"golang.org/x/sync/errgroup"
)

// Config is what an overlay is made of. Its functions are called from several
// goroutines at once, often, and must be quick.
type Config struct {
	// Key is the identity of this member. Its peer ID is what rosters name.
	Key crypto.PrivKey
	// Network tells overlays apart: letters, digits, '-', '_' and '.', at most 64. All
	// protocols start with "/dcnode/" + Network.
	Network string
	// Listen are the multiaddrs to listen on. None: port 4001, TCP and QUIC, IPv4
	// and, where the host has it, IPv6. Port 0 takes a free one.
	Listen []string
	// Advertise are the multiaddrs to announce instead of those found, for a node
	// behind a port forward.
	Advertise []string
	// Private says that this member cannot be dialed from other sites, by no port
	// forward either. It dials them, and they reach it through members that relay.
	Private bool
	// Bootstrap are multiaddrs, with /p2p/ID, of any members; this one is ignored.
	Bootstrap []string
	// Members is the roster now. It may or may not include this member.
	Members func() []peer.ID
	// Allow says who may connect. Nil: whoever is in Members().
	Allow func(peer.ID) bool
	// Validate is a cheap check of a message before it is delivered.
	// from is the member that sent it to us, not always its author. Nil: all pass.
	Validate func(from peer.ID, data []byte) bool
	// Verify is the whole check of a message, signatures included, that is to be passed
	// on to others: who passes on what is forged would answer for it. A message that it
	// refuses is delivered here like any that Validate lets pass. It must be quick. Nil:
	// all pass.
	Verify func(data []byte) bool
	// MessageID names a message, so that copies are recognised. Nil: its SHA-256. It is
	// asked before Validate is, about any bytes.
	MessageID func(data []byte) string
	// Limits bound what one member may send.
	Limits Limits
	// AddrBook is the file that keeps addresses of members across restarts. Empty: none.
	AddrBook string
	// Log takes what an operator wants to know. Nil: discarded.
	Log *slog.Logger
	// Host is used instead of building one. Key, Listen, Advertise and Transports then
	// do not matter, Close leaves it open, and a connection from outside the roster
	// is closed just after it opened instead of before.
	Host host.Host
	// Transports take the place of TCP and QUIC: a simulated network in tests. NAT
	// traversal and relaying are then off.
	Transports []libp2p.Option
}

// MaxMessage is the largest message of the topic, in bytes.
const MaxMessage = 1 << 20

// Overlay is this member's end of the network. Its methods may be called from
// several goroutines.
type Overlay struct {
	cfg      Config
	self     peer.ID
	log      *slog.Logger
	host     host.Host
	ownsHost bool
	book     *addrBook
	dht      *dht.IpfsDHT
	topic    *pubsub.Topic

	inbox     *inbox
	seen      *seenMessages
	lines     atomic.Pointer[[]*line] // to those connected; replaced as a whole
	relaying  atomic.Bool             // somebody has no line from here, and one from others
	connected chan peer.ID
	arrivals  *arrivals
	wake      chan struct{} // the keeper should look again
	measure   chan struct{} // somebody new to measure
	moved     chan struct{} // somebody came to the topic or left it

	mu       sync.Mutex
	links    map[peer.ID]*link
	accounts map[peer.ID]*account
	relays   struct {
		mu           sync.Mutex
		count, bytes bucket
	}
	closed   bool
	handlers sync.WaitGroup

	// handlerContext makes a context that ends with the overlay.
	handlerContext func() (context.Context, context.CancelFunc)
	cancel         context.CancelFunc
}

// New opens the port and joins nothing yet: register handlers, then call [Overlay.Run].
// A port that is taken gives an error that names the address.
func New(cfg Config) (*Overlay, error) {
	boot, err := cfg.check()
	if err != nil {
		return nil, err
	}
	o := &Overlay{
		cfg: cfg, log: cfg.Log, host: cfg.Host,
		inbox: newInbox(), seen: newSeenMessages(), connected: make(chan peer.ID), arrivals: newArrivals(),
		wake: make(chan struct{}, 1), measure: make(chan struct{}, 1), moved: make(chan struct{}, 1),
		links: make(map[peer.ID]*link), accounts: make(map[peer.ID]*account),
	}
	o.lines.Store(new([]*line))
	if o.host == nil {
		admit := func(p peer.ID) bool { return cfg.Allow(p) && !o.isShunned(p) }
		if o.host, err = newHost(cfg, admit); err != nil {
			return nil, err
		}
		o.ownsHost = true
	}
	o.self = o.host.ID()
	ctx, cancel := context.WithCancel(context.Background())
	o.cancel = cancel
	o.handlerContext = func() (context.Context, context.CancelFunc) { return context.WithCancel(ctx) }
	if err := o.join(ctx, boot); err != nil {
		return nil, errors.Join(err, o.Close())
	}
	return o, nil
}

// join sets up what runs on the host.
func (o *Overlay) join(ctx context.Context, boot []peer.AddrInfo) (err error) {
	if o.book, err = openAddrBook(o.cfg.AddrBook); err != nil {
		return err
	}
	for _, info := range boot {
		if info.ID != o.self {
			o.book.seed(info)
		}
	}
	o.Handle(protoLine, o.receive)
	o.host.Network().Notify(o.notifiee())
	if o.dht, err = newDHT(o.host, o.cfg); err != nil {
		return fmt.Errorf("start the DHT: %w", err)
	}
	if o.topic, err = o.newTopic(ctx); err != nil {
		return fmt.Errorf("join the topic: %w", err)
	}
	return nil
}

// newDHT finds addresses of members and stores nothing: neither values nor
// providers, which the ledger holds.
func newDHT(h host.Host, cfg Config) (*dht.IpfsDHT, error) {
	allowed := func(_ any, p peer.ID) bool { return cfg.Allow(p) }
	return dht.New(h,
		dht.Mode(dht.ModeServer),
		dht.ProtocolPrefix(cfg.prefix()),
		dht.DisableValues(),
		dht.DisableProviders(),
		dht.RoutingTableFilter(allowed),
		dht.QueryFilter(func(_ any, info peer.AddrInfo) bool { return cfg.Allow(info.ID) }),
	)
}

// Run finds the members, stays connected to them, and reads the topic, until ctx
// ends; then it returns nil. It is called once.
func (o *Overlay) Run(ctx context.Context) error {
	sub, err := o.topic.Subscribe(pubsub.WithBufferSize(subscriptionBuffer))
	if err != nil {
		return fmt.Errorf("subscribe to the topic: %w", err)
	}
	defer sub.Cancel()
	events, err := o.topic.EventHandler()
	if err != nil {
		return fmt.Errorf("watch the topic: %w", err)
	}
	defer events.Cancel()

	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return o.readTopic(gctx, sub) })
	g.Go(func() error { return o.inbox.run(gctx) })
	g.Go(func() error { return o.relayEvents(gctx, events) })
	g.Go(func() error { return o.watchTopic(gctx) })
	g.Go(func() error { return o.arrivals.run(gctx, o.connected) })
	g.Go(func() error { return o.keepConnected(gctx) })
	g.Go(func() error { return o.measureLinks(gctx) })
	err = g.Wait()
	if ctx.Err() != nil {
		err = nil // what the members of the group say then is that they were stopped
	}
	for _, p := range o.others() {
		if o.isConnected(p) {
			o.book.learn(p, o.host.Peerstore().Addrs(p))
		}
	}
	return errors.Join(err, o.book.save())
}

// Close ends every handler and stream and frees the port. Run should have ended.
func (o *Overlay) Close() error {
	o.mu.Lock()
	if o.closed {
		o.mu.Unlock()
		return nil
	}
	o.closed = true
	o.mu.Unlock()

	o.cancel()
	var errs []error
	if o.dht != nil {
		errs = append(errs, o.dht.Close())
	}
	if o.ownsHost {
		errs = append(errs, o.host.Close())
	}
	if !waitFor(&o.handlers, closeGrace) {
		errs = append(errs, fmt.Errorf("close the overlay: handlers still run after %v", closeGrace))
	}
	return errors.Join(errs...)
}

// closeGrace is how long Close waits for handlers, whose streams are reset by then.
const closeGrace = 5 * time.Second

func waitFor(wg *sync.WaitGroup, limit time.Duration) bool {
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

// Refresh looks at the roster at once: it dials who is new and cuts off who is
// gone. Without it that happens within seconds.
func (o *Overlay) Refresh() { signal(o.wake) }

// Host is the libp2p host, for protocols that bring their own (Bitswap).
func (o *Overlay) Host() host.Host { return o.host }

// ID is the peer ID of this member.
func (o *Overlay) ID() peer.ID { return o.self }

// Addrs are the multiaddrs at which others reach this member, with /p2p/ID.
func (o *Overlay) Addrs() []string {
	suffix := ma.StringCast("/p2p/" + o.self.String())
	var out []string
	for _, a := range o.host.Addrs() {
		out = append(out, a.Encapsulate(suffix).String())
	}
	return out
}

// BitswapPrefix is what Bitswap's protocol IDs start with in this overlay.
func (o *Overlay) BitswapPrefix() protocol.ID { return o.cfg.prefix() }

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
