package gossip

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	ma "github.com/multiformats/go-multiaddr"
)

// Errors that a caller may branch on; they come wrapped with peer, cause and remedy.
var (
	// ErrUnreachable: nobody with this peer ID answers.
	ErrUnreachable = errors.New("unreachable")
	// ErrRefused: the peer answers and turns us away.
	ErrRefused = errors.New("refused")

	errNoAddress = errors.New("no address known yet: name a member with --bootstrap, or wait for it to connect")
)

const (
	connectTimeout = 12 * time.Second // known addresses
	findTimeout    = 10 * time.Second // asking the DHT for others
	doubtTimeout   = 4 * time.Second  // for a sign of life
)

// dial connects to p if it is not, and proves with a ping that p lets us in: a peer
// that does not want us says so after the handshake, when the connection looks good.
func (o *Overlay) dial(ctx context.Context, p peer.ID) (time.Duration, error) {
	if p == o.self {
		return 0, fmt.Errorf("reach %s: that is this node", p)
	}
	if !o.cfg.Allow(p) {
		return 0, fmt.Errorf("reach %s: %w: it is not in the roster here", p, ErrRefused)
	}
	if err := o.connect(ctx, p); err != nil {
		return 0, err
	}
	rtt, err := o.ping(ctx, p)
	switch {
	case err == nil:
		return rtt, nil
	case isGated(err) || !o.isConnected(p):
		return 0, refusedBy(p)
	}
	return 0, fmt.Errorf("reach %s: %w: connected, but it does not answer: %w", p, ErrUnreachable, err)
}

// connect tries the addresses that are known, then those that other members know,
// then the members themselves as relays.
func (o *Overlay) connect(ctx context.Context, p peer.ID) error {
	if o.isConnected(p) {
		return nil
	}
	known := o.book.addrs(p)
	err := errNoAddress
	if len(known) > 0 || len(o.host.Peerstore().Addrs(p)) > 0 {
		cctx, cancel := context.WithTimeout(ctx, connectTimeout)
		defer cancel()
		o.clearBackoff(p)
		err = o.host.Connect(cctx, peer.AddrInfo{ID: p, Addrs: known})
	}
	switch {
	case err == nil:
		return nil
	case isGated(err):
		return refusedBy(p)
	case o.find(ctx, p), o.relay(ctx, p):
		return nil
	}
	return fmt.Errorf("reach %s: %w: %w", p, ErrUnreachable, oneLine(err))
}

// find asks the members that are connected where p is, and dials it there.
func (o *Overlay) find(ctx context.Context, p peer.ID) bool {
	if o.dht.RoutingTable().Size() == 0 {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, findTimeout)
	defer cancel()
	info, err := o.dht.FindPeer(ctx, p)
	if err != nil || len(info.Addrs) == 0 {
		return o.isConnected(p)
	}
	return o.host.Connect(ctx, info) == nil
}

// relay tries to reach p through the members that are connected, in case it waits at
// one of them. Addresses that say so are announced for public relays only, and there
// are few enough members to ask each.
func (o *Overlay) relay(ctx context.Context, p peer.ID) bool {
	if !o.ownsHost || o.cfg.Transports != nil {
		return false
	}
	var circuits []ma.Multiaddr
	for _, q := range o.others() {
		if c := o.conn(q); c != nil && q != p && !isRelayed(c.RemoteMultiaddr()) {
			circuits = append(circuits, ma.StringCast("/p2p/"+q.String()+"/p2p-circuit"))
		}
	}
	if len(circuits) == 0 {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	o.clearBackoff(p)
	return o.host.Connect(ctx, peer.AddrInfo{ID: p, Addrs: circuits}) == nil
}

// clearBackoff: the keeper has its own pauses, swarm's would come on top.
func (o *Overlay) clearBackoff(p peer.ID) {
	if s, ok := o.host.Network().(interface{ Backoff() *swarm.DialBackoff }); ok {
		s.Backoff().Clear(p)
	}
}

// isConnected is true for a connection of any kind that is still open.
func (o *Overlay) isConnected(p peer.ID) bool {
	for _, c := range o.host.Network().ConnsToPeer(p) {
		if !c.IsClosed() {
			return true
		}
	}
	return false
}

// RTT measures the round trip to p now, connecting first if need be.
func (o *Overlay) RTT(ctx context.Context, p peer.ID) (time.Duration, error) {
	if o.isConnected(p) {
		rtt, err := o.ping(ctx, p)
		if err == nil || o.isConnected(p) {
			return rtt, err
		}
	}
	return o.dial(ctx, p)
}

// Doubt asks a member that has fallen silent for a sign of life. If none comes within
// seconds its connections are dropped, so that the next Open dials anew, over any way
// there is: the transports themselves take half a minute to notice.
func (o *Overlay) Doubt(ctx context.Context, p peer.ID) {
	if !o.isConnected(p) {
		return
	}
	ask, cancel := context.WithTimeout(ctx, doubtTimeout)
	defer cancel()
	if _, err := o.ping(ask, p); err == nil || ctx.Err() != nil {
		return
	}
	var closing sync.WaitGroup
	for _, c := range o.host.Network().ConnsToPeer(p) {
		closing.Go(func() { _ = c.Close() }) // says goodbye to the dead
	}
	waitFor(&closing, time.Second)
}

// ping measures one round trip over the connection there is, and notes it.
func (o *Overlay) ping(ctx context.Context, p peer.ID) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(network.WithNoDial(ctx, "ping"), pingTimeout)
	defer cancel()
	res, ok := <-ping.Ping(ctx, o.host, p)
	if !ok {
		res.Error = ctx.Err()
	}
	if res.Error != nil {
		return 0, fmt.Errorf("ping %s: %w", p, res.Error)
	}
	o.mu.Lock()
	o.link(p).rtt = res.RTT
	o.mu.Unlock()
	return res.RTT, nil
}

func refusedBy(p peer.ID) error {
	return fmt.Errorf("%w by %s right after the handshake: is this node in its roster?", ErrRefused, p)
}

// isGated recognises what a gater or a handler says to those outside the roster.
func isGated(err error) bool {
	var c *network.ConnError
	var s *network.StreamError
	return errors.As(err, &c) && c.Remote && c.ErrorCode == network.ConnGated ||
		errors.As(err, &s) && s.Remote && s.ErrorCode == network.StreamGated
}

// oneLine flattens libp2p's list of failed addresses for a log.
func oneLine(err error) error {
	text := err.Error()
	if !strings.Contains(text, "\n") {
		return err
	}
	var parts []string
	for _, s := range strings.Split(text, "\n") {
		parts = append(parts, strings.TrimSpace(s))
	}
	return &flatError{text: strings.Join(parts, " "), err: err}
}

type flatError struct {
	text string
	err  error
}

func (e *flatError) Error() string { return e.text }
func (e *flatError) Unwrap() error { return e.err }
