package gossip

import (
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// healAfter is how long a connected member may be missing from the topic. Both
	// ends may see that; the larger peer ID leaves the smaller one this time again.
	healAfter = 5 * time.Second
	// healStreams is how often its streams are renewed before the connection is.
	healStreams = 2
	// startAfter is the patience with a member that has not followed yet.
	startAfter = time.Minute
)

// heal brings back a member that is connected but lost to the topic.
//
// Members tell each other once, at the start of a gossipsub stream, what they follow;
// there is one such stream each way. If the one that we write to is lost and the
// connection is not (a duplicate connection closed, a limit was hit), gossipsub
// forgets what the member follows and opens a new stream, but the member, whose own
// stream is well, has no reason to say it again: it would get nothing from us directly
// until the next reconnect. Ending the streams of both directions makes both sides say
// it again. gossipsub gives up on a peer after a few such losses; then only a new
// connection helps.
//
// A member that never followed since it connected is more likely starting; it gets a
// new connection, after a minute and then ever less often, in case its first stream
// failed, which gossipsub does not try again either.
//
// It returns when to look again.
func (o *Overlay) heal(p peer.ID, now time.Time) time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	l := o.link(p)
	switch {
	case !l.up || l.inTopic:
		return rosterCheck
	case now.Before(l.healAt):
		return l.healAt.Sub(now)
	}
	pause, reconnect := healAfter, l.heals >= healStreams
	if !l.wasIn {
		pause, reconnect = startAfter, true
	}
	pause <<= min(l.heals, 4)
	l.heals, l.healAt = l.heals+1, now.Add(pause)
	go o.renew(p, reconnect)
	return pause
}

// renew ends the topic's streams with p, or the connections.
func (o *Overlay) renew(p peer.ID, connections bool) {
	o.log.Debug("a connected member is not in the topic", "peer", p, "reconnect", connections)
	for _, c := range o.host.Network().ConnsToPeer(p) {
		if connections {
			c.Close()
			continue
		}
		for _, s := range c.GetStreams() {
			if strings.HasPrefix(string(s.Protocol()), "/meshsub/") {
				s.Reset()
			}
		}
	}
}
