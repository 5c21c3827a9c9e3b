package gossip

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
)

const (
	firstRetry  = 500 * time.Millisecond
	lastRetry   = 15 * time.Second
	rosterCheck = 15 * time.Second // without Refresh, a change is noticed by then
	yieldFirst  = time.Second      // head start of the smaller peer ID after a cut
	dialTimeout = 30 * time.Second
	pingEvery   = 15 * time.Second
	pingTimeout = 10 * time.Second
)

// link is what the keeper knows of one member.
type link struct {
	dialing bool
	up      bool      // connected, and it told us who it is
	tries   int       // that failed in a row
	next    time.Time // no dial before
	lost    time.Time // of the last connection
	rtt     time.Duration
	err     error // of the last try

	lining  bool           // somebody keeps a line to it
	again   chan struct{}  // it should not wait: there is another connection
	line    *line          // which it took over
	from    network.Stream // its line to us
	hearers []peer.ID      // who hears it, it says
	unsent  uint64         // messages that were left out, or waited when a line broke

	inTopic bool      // follows it and hears what we publish there
	wasIn   bool      // since it is up
	heals   int       // since it was in the topic
	healAt  time.Time // not before
}

// keepConnected dials every member that is not connected, for ever, less and less
// often, and cuts off who left the roster.
func (o *Overlay) keepConnected(ctx context.Context) error {
	identified, err := o.host.EventBus().Subscribe(new(event.EvtPeerIdentificationCompleted), eventbus.BufSize(256))
	if err != nil {
		return fmt.Errorf("watch connections: %w", err)
	}
	defer identified.Close()
	var dials sync.WaitGroup
	defer dials.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-identified.Out():
			o.identified(e.(event.EvtPeerIdentificationCompleted).Conn)
			continue
		case <-timer.C:
			if err := o.book.save(); err != nil {
				o.log.Warn("addresses of members are not kept", "err", err)
			}
		case <-o.wake:
		}
		timer.Reset(o.tend(ctx, &dials))
	}
}

// tend starts the dials that are due and says when to look again.
func (o *Overlay) tend(ctx context.Context, dials *sync.WaitGroup) time.Duration {
	o.cutStrangers()
	now, wait := time.Now(), rosterCheck
	for _, p := range o.others() {
		if o.isConnected(p) {
			wait = min(wait, o.heal(p, now))
			continue
		}
		shunned := o.isShunned(p)
		o.mu.Lock()
		l := o.link(p)
		due := !l.dialing && !now.Before(l.next) && !shunned
		if due {
			l.dialing = true
		} else if !l.dialing && !shunned {
			wait = min(wait, l.next.Sub(now))
		}
		o.mu.Unlock()
		if due {
			dials.Go(func() { o.try(ctx, p) })
		}
	}
	return max(wait, time.Millisecond)
}

// try dials once and notes how it went.
func (o *Overlay) try(ctx context.Context, p peer.ID) {
	dctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	rtt, err := o.dial(dctx, p)

	o.mu.Lock()
	l := o.link(p)
	l.dialing = false
	before := l.err
	l.err = err
	if err != nil {
		pause := min(firstRetry<<min(l.tries, 10), lastRetry)
		l.tries++
		l.next = time.Now().Add(pause + rand.N(pause/4))
	} else {
		l.tries, l.rtt = 0, rtt
	}
	o.mu.Unlock()
	if err != nil && ctx.Err() == nil {
		o.complain(p, err, before)
	}
	signal(o.wake)
}

// complain tells the operator once, and again if the reason changed in kind.
func (o *Overlay) complain(p peer.ID, err, before error) {
	refused := errors.Is(err, ErrRefused)
	switch {
	case before != nil && errors.Is(before, ErrRefused) == refused:
		o.log.Debug("member is still not connected", "peer", p, "err", err)
	case refused:
		o.log.Warn("a member refuses us", "peer", p, "err", err)
	default:
		o.log.Info("a member cannot be reached, trying on", "peer", p, "err", err)
	}
}

// others are the members but this one.
func (o *Overlay) others() []peer.ID {
	var out []peer.ID
	for _, p := range o.cfg.Members() {
		if p != o.self && o.cfg.Allow(p) {
			out = append(out, p)
		}
	}
	return out
}

// cutStrangers closes connections of who is no longer in the roster and forgets them.
func (o *Overlay) cutStrangers() {
	for _, p := range o.host.Network().Peers() {
		if !o.cfg.Allow(p) {
			o.log.Info("cut off a peer that is no longer in the roster", "peer", p)
			for _, c := range o.host.Network().ConnsToPeer(p) {
				go c.CloseWithError(network.ConnGated)
			}
		}
	}
	o.book.forget(o.cfg.Allow)
	o.mu.Lock()
	defer o.mu.Unlock()
	for p, l := range o.links {
		if !l.dialing && !l.lining && l.from == nil && !o.cfg.Allow(p) {
			delete(o.links, p)
			delete(o.accounts, p)
		}
	}
}

// link returns the entry of p, made if need be. The caller holds the lock.
func (o *Overlay) link(p peer.ID) *link {
	l := o.links[p]
	if l == nil {
		l = &link{again: make(chan struct{}, 1)}
		o.links[p] = l
	}
	return l
}

// identified notes that the far end of c is in and where it can be found. Whoever
// could not be found so far may be known to it.
func (o *Overlay) identified(c network.Conn) {
	p := c.RemotePeer()
	if !o.cfg.Allow(p) || !o.isConnected(p) {
		return
	}
	o.book.learn(p, o.host.Peerstore().Addrs(p))
	o.mu.Lock()
	l := o.link(p)
	news := !l.up
	l.up, l.err, l.tries = true, nil, 0
	if news {
		l.wasIn, l.heals, l.healAt = l.inTopic, 0, time.Now().Add(startAfter)
	}
	for _, l := range o.links {
		if errors.Is(l.err, errNoAddress) {
			l.tries, l.next = 0, time.Now().Add(firstRetry/4)
		}
	}
	o.mu.Unlock()
	if news {
		o.log.Info("connected", "peer", p, "addr", c.RemoteMultiaddr(), "transport", transportOf(c))
	}
	signal(o.measure)
	signal(o.wake)
}

// lost notes the end of a connection. Both ends notice and one dial is enough: the
// smaller peer ID goes first.
func (o *Overlay) lost(p peer.ID) {
	if o.isConnected(p) {
		return // there was another
	}
	o.mu.Lock()
	l := o.links[p]
	if o.closed || l == nil || !l.up {
		o.mu.Unlock()
		return
	}
	now := time.Now()
	l.up, l.lost, l.next = false, now, now
	if o.self > p {
		l.next = now.Add(yieldFirst)
	}
	o.mu.Unlock()
	o.log.Info("disconnected", "peer", p)
	signal(o.wake)
}

// measureLinks pings the members now and then, so that Peers knows the round trips.
func (o *Overlay) measureLinks(ctx context.Context) error {
	ticker := time.NewTicker(pingEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case <-o.measure:
		}
		var pings sync.WaitGroup
		for _, p := range o.others() {
			if o.isConnected(p) {
				pings.Go(func() { o.ping(ctx, p) })
			}
		}
		pings.Wait()
	}
}
