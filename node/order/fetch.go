package order

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/dcnode/dcnode/consensus"
)

const (
	protoEvents = "/events/1" // request: hashes that I want; reply: events

	fetchGrace   = time.Millisecond // an event that was overtaken is on its way
	fetchTimeout = 2 * time.Second  // for one member's answer
	fetchAgain   = 2 * time.Second  // until all are asked again
	fetchLook    = 20 * time.Millisecond
	maxFetch     = 256 // parents that are asked for at once, of those one member named
)

// want notes parents that are missing. In the loop.
func (n *network) want(missing []consensus.Want) {
	if n.l.overlay == nil {
		return
	}
	now := time.Now()
	for _, w := range missing {
		if _, ok := n.asked[w.Hash]; !ok {
			n.asked[w.Hash] = now.Add(fetchGrace)
			n.chaseAt = earlier(n.chaseAt, now.Add(fetchGrace))
		}
	}
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// chase asks for parents that have not come, and says when to look again. In the loop.
func (n *network) chase() time.Duration {
	if len(n.asked) == 0 {
		return idle
	}
	now := time.Now()
	if now.Before(n.chaseAt) {
		return n.chaseAt.Sub(now)
	}
	lacking := n.l.core.Missing()
	if len(lacking) == 0 {
		clear(n.asked)
		n.chaseAt = time.Time{}
		return idle
	}
	kept := make(map[consensus.Hash]time.Time, len(lacking))
	due := map[uint64][]consensus.Hash{} // by the member that named them
	n.chaseAt = time.Time{}
	for _, w := range lacking {
		at, ok := n.asked[w.Hash]
		if !ok {
			at = now.Add(fetchGrace)
		}
		switch {
		case at.After(now):
		case n.fetching[w.Child] || len(due[w.Child]) == maxFetch:
			at = now.Add(fetchLook)
		default:
			due[w.Child] = append(due[w.Child], w.Hash)
			at = now.Add(fetchAgain)
		}
		kept[w.Hash] = at
		n.chaseAt = earlier(n.chaseAt, at)
	}
	n.asked = kept
	for child, hashes := range due {
		n.fetching[child] = true
		n.l.group.Go(func() error {
			n.fetch(n.l.ctx, child, hashes)
			n.l.inbox.post(func() { delete(n.fetching, child) })
			return nil
		})
	}
	return time.Until(n.chaseAt)
}

// fetch asks for missing parents: first the member that built on them, which must
// have them, then everyone else for those that did not come.
func (n *network) fetch(ctx context.Context, child uint64, hashes []consensus.Hash) {
	first := n.l.cfg.Peer(child)
	for i, id := range append([]peer.ID{first}, n.connected()...) {
		if id == "" || child == n.l.cfg.Self && i == 0 || i > 0 && id == first {
			continue
		}
		rctx, cancel := context.WithTimeout(ctx, fetchTimeout)
		if reply, err := n.l.overlay.Request(rctx, id, protoEvents, joinHashes(hashes), replyRoom); err == nil {
			if events, err := splitEvents(reply); err != nil {
				n.l.intake.blameReply(n.l.cfg.Member(id), err)
			} else {
				_, _ = n.take(rctx, n.l.cfg.Member(id), events)
			}
		}
		cancel()
		var left []consensus.Hash
		if n.l.Do(ctx, func() {
			for _, h := range hashes {
				if !n.l.core.Has(h) {
					left = append(left, h)
				}
			}
		}) != nil || len(left) == 0 {
			return
		}
		hashes = left
	}
}

// serveEvents answers members that want events by hash.
func (n *network) serveEvents(o Overlay) {
	o.HandleRequest(protoEvents, func(_ context.Context, _ peer.ID, req []byte) ([]byte, error) {
		hashes, err := splitHashes(req)
		if err != nil {
			return nil, err
		}
		var reply []byte
		for _, h := range hashes {
			raw, err := n.l.events.Event(h)
			if err != nil {
				return nil, err
			}
			if raw == nil {
				continue
			}
			if len(reply)+len(raw) > syncReply && len(reply) > 0 {
				break
			}
			reply = appendEvent(reply, raw)
		}
		return reply, nil
	})
}
