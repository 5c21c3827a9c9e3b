package node

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/dcnode/dcnode/consensus"
	"github.com/dcnode/dcnode/consensus/ledger"
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
)

// serveSync answers both protocols.
func (n *Node) serveSync() {
	n.overlay.HandleRequest(protoSync, func(ctx context.Context, _ peer.ID, req []byte) ([]byte, error) {
		return n.answer(ctx, req, func(known []consensus.Hash) [][]byte { return n.order.log.after(known, syncReply) })
	})
	n.overlay.HandleRequest(protoEvents, func(ctx context.Context, _ peer.ID, req []byte) ([]byte, error) {
		return n.answer(ctx, req, func(wanted []consensus.Hash) [][]byte {
			var out [][]byte
			for _, h := range wanted {
				if b := n.order.log.event(h); b != nil {
					out = append(out, b)
				}
			}
			return out
		})
	})
}

func (n *Node) answer(ctx context.Context, req []byte, find func([]consensus.Hash) [][]byte) ([]byte, error) {
	hashes, err := splitHashes(req)
	if err != nil {
		return nil, err
	}
	var events [][]byte
	if err := n.order.do(ctx, func() { events = find(hashes) }); err != nil {
		return nil, err
	}
	var reply []byte
	for _, e := range events {
		reply = binary.BigEndian.AppendUint32(reply, uint32(len(e)))
		reply = append(reply, e...)
	}
	return reply, nil
}

// syncLoop asks members for what this one lacks: one that has just come back at
// once, the others in turn.
func (n *Node) syncLoop(ctx context.Context) error {
	turn := 0
	for {
		wait := syncIdle
		if err := n.order.do(ctx, func() {
			if n.order.core.Status().Busy > 0 || len(n.order.missing) > 0 {
				wait = syncBusy
			}
		}); err != nil {
			return nil //nolint:nilerr // the loop ends with its context
		}
		select {
		case <-ctx.Done():
			return nil
		case id := <-n.overlay.Connected():
			n.syncWith(ctx, id)
		case <-time.After(wait):
			peers := n.connectedPeers()
			if len(peers) > 0 {
				turn++
				n.syncWith(ctx, peers[turn%len(peers)])
			}
		}
	}
}

// syncWith pulls from one peer until it has nothing new.
func (n *Node) syncWith(ctx context.Context, id peer.ID) {
	for {
		var known []consensus.Hash
		if n.order.do(ctx, func() { known = n.order.log.locator() }) != nil {
			return
		}
		added, err := n.pull(ctx, id, protoSync, known)
		if err != nil {
			n.log.Debug("sync", "peer", id, "cause", err)
			return
		}
		if added == 0 {
			return
		}
	}
}

// fetchParent asks for one missing parent: first the member that built on it,
// then everyone else.
func (n *Node) fetchParent(ctx context.Context, w consensus.Want) {
	first := n.genesis.peer(ledger.MemberID(w.Child))
	for _, id := range append([]peer.ID{first}, n.connectedPeers()...) {
		if id == "" || id == n.overlay.ID() {
			continue
		}
		if added, err := n.pull(ctx, id, protoEvents, []consensus.Hash{w.Hash}); err == nil && added > 0 {
			return
		}
	}
}

// pull sends hashes, takes events, and says how many of them were new.
func (n *Node) pull(ctx context.Context, id peer.ID, proto string, hashes []consensus.Hash) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, syncTimeout)
	defer cancel()
	var req []byte
	for _, h := range hashes[:min(len(hashes), maxHashes)] {
		req = append(req, h[:]...)
	}
	reply, err := n.overlay.Request(ctx, id, proto, req, syncReply+consensus.MaxEvent+recordHeader)
	if err != nil {
		return 0, err
	}
	events, err := splitEvents(reply)
	if err != nil {
		return 0, fmt.Errorf("events of %s: %w", id, err)
	}
	added := 0
	err = n.order.do(ctx, func() {
		for _, e := range events {
			if !n.order.core.Has(e.Hash()) {
				n.order.add(e)
				if n.order.core.Has(e.Hash()) {
					added++
				}
			}
		}
	})
	return added, err
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

func splitEvents(b []byte) ([]*consensus.Event, error) {
	var out []*consensus.Event
	for len(b) > 0 {
		if len(b) < 4 || uint64(len(b)-4) < uint64(binary.BigEndian.Uint32(b)) {
			return nil, errors.New("reply is cut short")
		}
		n := binary.BigEndian.Uint32(b)
		e, err := consensus.Unmarshal(b[4 : 4+n])
		if err != nil {
			return nil, err
		}
		out = append(out, e)
		b = b[4+n:]
	}
	return out, nil
}
