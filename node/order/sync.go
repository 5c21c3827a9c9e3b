package order

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/dcnode/dcnode/consensus"
)

// What gossip misses, sync repairs: "this is what I have" goes out, the events
// that are lacking come back, parents first.
const (
	protoSync   = "/sync/1"   // request: hashes that I have; reply: events
	protoEvents = "/events/1" // request: hashes that I want; reply: events

	syncReply   = 512 << 10 // bytes in one reply, about
	syncTimeout = 10 * time.Second
	syncBusy    = time.Second      // between two looks at a peer while something is undecided
	syncIdle    = 30 * time.Second // and when nothing is
	maxHashes   = 1024

	// fetchAgain is how long a fetched parent may take before it is asked for again.
	fetchAgain = 2 * time.Second
)

// network is the loop's asking and answering side.
type network struct {
	l       *Loop
	fetches sync.WaitGroup

	asked map[consensus.Hash]time.Time // parents that were asked for; the loop's
}

// serve answers what others ask.
func (n *network) serve(o Overlay) {
	n.handle(o, protoSync, func(known []consensus.Hash) [][]byte { return n.l.events.after(known, syncReply) })
	n.handle(o, protoEvents, func(wanted []consensus.Hash) [][]byte {
		var out [][]byte
		for _, h := range wanted {
			if b := n.l.events.event(h); b != nil {
				out = append(out, b)
			}
		}
		return out
	})
}

func (n *network) handle(o Overlay, proto string, find func([]consensus.Hash) [][]byte) {
	o.HandleRequest(proto, func(ctx context.Context, _ peer.ID, req []byte) ([]byte, error) {
		hashes, err := splitHashes(req)
		if err != nil {
			return nil, err
		}
		var events [][]byte
		if err := n.l.Do(ctx, func() { events = find(hashes) }); err != nil {
			return nil, err
		}
		var reply []byte
		for _, e := range events {
			reply = binary.BigEndian.AppendUint32(reply, uint32(len(e)))
			reply = append(reply, e...)
		}
		return reply, nil
	})
}

// run asks members for what this one lacks: one that has just come back at once, the
// others in turn.
func (n *network) run(ctx context.Context) error {
	defer n.fetches.Wait()
	turn := 0
	for {
		wait := syncIdle
		if err := n.l.Do(ctx, func() {
			if n.l.core.Status().Busy > 0 || len(n.asked) > 0 {
				wait = syncBusy
			}
		}); err != nil {
			return nil //nolint:nilerr // the loop has ended, or its context
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case id := <-n.l.overlay.Connected():
			n.syncWith(ctx, id)
		case <-timer.C:
			if peers := n.connected(); len(peers) > 0 {
				turn++
				n.syncWith(ctx, peers[turn%len(peers)])
			}
		}
		timer.Stop()
	}
}

// connected are the members that can be asked.
func (n *network) connected() []peer.ID {
	var out []peer.ID
	for _, p := range n.l.overlay.Peers() {
		if p.Connected {
			out = append(out, p.ID)
		}
	}
	return out
}

// syncWith pulls from one peer until it has nothing new.
func (n *network) syncWith(ctx context.Context, id peer.ID) {
	for {
		var known []consensus.Hash
		if n.l.Do(ctx, func() { known = n.l.events.locator() }) != nil {
			return
		}
		added, err := n.pull(ctx, id, protoSync, known)
		if err != nil {
			n.l.log.Debug("sync", "peer", id, "cause", err)
			return
		}
		if added == 0 {
			return
		}
	}
}

// want fetches parents that are missing. In the loop.
func (n *network) want(missing []consensus.Want) {
	if n.l.overlay == nil {
		return
	}
	ctx := n.l.ctx
	for _, w := range missing {
		if t, ok := n.asked[w.Hash]; ok && time.Since(t) < fetchAgain {
			continue
		}
		n.asked[w.Hash] = time.Now()
		n.fetches.Go(func() { n.fetch(ctx, w) })
	}
}

// chase asks again for parents that have not come, and says when to do so again. In
// the loop.
func (n *network) chase() time.Duration {
	if len(n.asked) == 0 {
		return idle
	}
	lacking := n.l.core.Missing()
	if len(lacking) == 0 {
		clear(n.asked)
		return idle
	}
	n.want(lacking)
	return fetchAgain
}

// fetch asks for one missing parent: first the member that built on it, then
// everyone else.
func (n *network) fetch(ctx context.Context, w consensus.Want) {
	first := n.l.cfg.Peer(w.Child)
	for i, id := range append([]peer.ID{first}, n.connected()...) {
		if id == "" || i > 0 && id == first || w.Child == n.l.cfg.Self && i == 0 {
			continue
		}
		if added, err := n.pull(ctx, id, protoEvents, []consensus.Hash{w.Hash}); err == nil && added > 0 {
			return
		}
	}
}

// pull sends hashes, takes events, and says how many of them were new.
func (n *network) pull(ctx context.Context, id peer.ID, proto string, hashes []consensus.Hash) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, syncTimeout)
	defer cancel()
	var req []byte
	for _, h := range hashes[:min(len(hashes), maxHashes)] {
		req = append(req, h[:]...)
	}
	reply, err := n.l.overlay.Request(ctx, id, proto, req, syncReply+consensus.MaxEvent+recordHeader)
	if err != nil {
		return 0, err
	}
	events, err := splitEvents(reply)
	if err != nil {
		n.l.intake.blameReply(n.l.cfg.Member(id), err)
		return 0, fmt.Errorf("events of %s: %w", id, err)
	}
	return n.take(ctx, id, events)
}

// take has events verified and added, and says how many were new.
func (n *network) take(ctx context.Context, id peer.ID, events [][]byte) (int, error) {
	from := n.l.cfg.Member(id)
	ends := make(chan bool, len(events))
	for _, raw := range events {
		n.l.intake.push(from, raw, true, func(fresh bool) { ends <- fresh })
	}
	added := 0
	for range events {
		select {
		case fresh := <-ends:
			if fresh {
				added++
			}
		case <-ctx.Done():
			return added, context.Cause(ctx)
		}
	}
	return added, nil
}

func splitHashes(b []byte) ([]consensus.Hash, error) {
	if len(b)%len(consensus.Hash{}) != 0 || len(b) > maxHashes*len(consensus.Hash{}) {
		return nil, fmt.Errorf("%d bytes are not a list of hashes", len(b))
	}
	hashes := make([]consensus.Hash, len(b)/len(consensus.Hash{}))
	for i := range hashes {
		copy(hashes[i][:], b[i*len(hashes[i]):])
	}
	return hashes, nil
}

func splitEvents(b []byte) ([][]byte, error) {
	var out [][]byte
	for len(b) > 0 {
		if len(b) < 4 || uint64(len(b)-4) < uint64(binary.BigEndian.Uint32(b)) {
			return nil, errors.New("reply is cut short")
		}
		n := binary.BigEndian.Uint32(b)
		out = append(out, b[4:4+n])
		b = b[4+n:]
	}
	return out, nil
}
