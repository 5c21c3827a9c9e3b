package order

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/dcnode/dcnode/consensus"
	"github.com/dcnode/dcnode/node/eventlog"
)

// What gossip misses, sync repairs: how far this member is and what it has goes out,
// how far the other is and what this one lacks comes back, parents first.
//
//	request: pending round 8 | oldest open birth round 8 | where to go on 8 | hashes
//	reply:   pending round 8 | oldest open birth round 8 | where to go on 8 | more 1 |
//	         events, each: length 4, bytes
const (
	protoSync = "/sync/2"

	syncHead    = 24
	replyHead   = 25
	syncReply   = 512 << 10 // bytes of events in one reply, about
	replyRoom   = replyHead + syncReply + consensus.MaxEvent + 8
	syncTimeout = 5 * time.Second
	syncTurn    = 3 * time.Second  // until it is the next one's turn, whatever is left
	syncBusy    = time.Second      // between two looks at a peer while something is undecided
	syncIdle    = 30 * time.Second // and when nothing is
	syncNudge   = time.Second / 2  // between two syncs with one that has more
	maxHashes   = 1024
	maxStale    = 16 // replies in a row without anything new
	newest      = 8  // hashes of a request that are looked at: has the asker what this member lacks?
)

var errCut = errors.New("the reply is cut short")

// network is the loop's asking and answering side.
type network struct {
	l      *Loop
	claims claims
	ahead  chan peer.ID // members that have what this one lacks

	// What follows belongs to the loop.
	asked    map[consensus.Hash]time.Time // missing parents: when to ask for them next
	chaseAt  time.Time                    // the earliest of those; zero: none
	fetching map[uint64]bool              // members whose events' parents are being asked for
}

func newNetwork(l *Loop) *network {
	return &network{
		l: l, claims: claims{oldest: map[uint64]uint64{}}, ahead: make(chan peer.ID, consensus.MaxMembers),
		asked: map[consensus.Hash]time.Time{}, fetching: map[uint64]bool{},
	}
}

// serve answers what others ask.
func (n *network) serve(o Overlay) {
	n.serveSync(o)
	n.serveEvents(o)
	n.serveHeads(o)
	n.serveCheckpoints(o)
}

func (n *network) serveSync(o Overlay) {
	o.HandleRequest(protoSync, func(_ context.Context, from peer.ID, req []byte) ([]byte, error) {
		if len(req) < syncHead {
			return nil, errCut
		}
		known, err := splitHashes(req[syncHead:])
		if err != nil {
			return nil, err
		}
		be := binary.BigEndian
		birth := be.Uint64(req[8:])
		if m := n.l.cfg.Member(from); m != 0 {
			n.claim(m, birth)
		}
		if slices.ContainsFunc(known[:min(len(known), newest)], func(h consensus.Hash) bool { return !n.l.events.Has(h) }) {
			n.nudge(from)
		}
		a, err := n.l.events.Since(eventlog.Query{Birth: birth, From: eventlog.Position(be.Uint64(req[16:])), Known: known, Limit: syncReply})
		if err != nil {
			return nil, err
		}
		reply := be.AppendUint64(nil, n.l.pending.Load())
		reply = be.AppendUint64(reply, n.l.oldest.Load())
		reply = be.AppendUint64(reply, uint64(a.Next))
		more := byte(0)
		if a.More {
			more = 1
		}
		reply = append(reply, more)
		for _, raw := range a.Events {
			reply = appendEvent(reply, raw)
		}
		return reply, nil
	})
}

// run asks members for what this one lacks: one that has just come back at once, the
// others in turn.
func (n *network) run(ctx context.Context) error {
	turn, turnAt := 0, time.Time{}
	last := map[peer.ID]time.Time{} // nudged syncs
	soon := map[peer.ID]bool{}      // will be nudged again
	left := map[peer.ID]uint64{}    // where to go on with those whose turn was too short
	for {
		wait := syncIdle
		if err := n.l.Do(ctx, func() {
			if st := n.l.core.Status(); st.Busy > 0 || st.Joining || st.Changing || len(n.asked) > 0 || n.l.watch != nil {
				wait = syncBusy
			}
		}); err != nil {
			return nil //nolint:nilerr // the loop has ended, or its context
		}
		// Whoever nudges this member all the time does not put off the others' turns.
		if at := time.Now().Add(wait); turnAt.IsZero() || at.Before(turnAt) {
			turnAt = at
		}
		timer := time.NewTimer(time.Until(turnAt))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case id := <-n.l.overlay.Connected():
			switch wait := syncNudge - time.Since(last[id]); {
			case wait <= 0:
				last[id] = time.Now()
				n.turn(ctx, id, left)
			case !soon[id]:
				soon[id] = true
				time.AfterFunc(wait, func() { n.nudge(id) })
			}
		case id := <-n.ahead:
			delete(soon, id)
			// Not again and again for what cannot be taken here.
			_, half := left[id]
			if now := time.Now(); half || now.Sub(last[id]) >= syncNudge {
				last[id] = now
				n.turn(ctx, id, left)
			}
		case <-timer.C:
			turnAt = time.Time{}
			if peers := n.connected(); len(peers) > 0 {
				turn++
				n.turn(ctx, peers[turn%len(peers)], left)
			}
		}
		timer.Stop()
	}
}

// reachEvery is how often the hashgraph is told who is connected.
const reachEvery = time.Second

// reach tells the hashgraph who is connected and how far away.
func (n *network) reach(ctx context.Context) error {
	for {
		near := n.nearest()
		if n.l.Do(ctx, func() {
			for m, p := range near {
				n.l.core.Reach(m, p.Connected, int64(p.RTT))
			}
		}) != nil || !sleep(ctx, reachEvery) {
			return nil
		}
	}
}

// nearest is how this member stands with each other one. One that changes its key may
// be two peers for a while; the better one counts.
func (n *network) nearest() map[uint64]Peer {
	out := map[uint64]Peer{}
	for _, p := range n.l.overlay.Peers() {
		m := n.l.cfg.Member(p.ID)
		if was, ok := out[m]; m != 0 && m != n.l.cfg.Self && (!ok || p.Connected && !was.Connected) {
			out[m] = p
		}
	}
	return out
}

// connected are the members that can be asked; those that have left cannot.
func (n *network) connected() []peer.ID {
	var out []peer.ID
	for _, p := range n.l.overlay.Peers() {
		if p.Connected && !n.l.hasLeft(n.l.cfg.Member(p.ID)) {
			out = append(out, p.ID)
		}
	}
	return out
}

// turn syncs with one peer for a while. If that was not enough the others come first.
func (n *network) turn(ctx context.Context, id peer.ID, left map[peer.ID]uint64) {
	from, done := n.syncWith(ctx, id, left[id])
	if done {
		delete(left, id)
		return
	}
	left[id] = from
	n.nudge(id)
}

// nudge has a peer synced with soon, unless many are: then its regular turn comes.
func (n *network) nudge(id peer.ID) {
	select {
	case n.ahead <- id:
	default:
	}
}

// syncWith pulls from one peer until it has nothing new or its turn is over. It says
// where to go on, and whether there is nothing left.
func (n *network) syncWith(ctx context.Context, id peer.ID, from uint64) (next uint64, done bool) {
	until := time.Now().Add(syncTurn)
	for stale := 0; stale < maxStale; {
		next, more, fresh, err := n.pull(ctx, id, from)
		if err != nil {
			n.l.log.Debug("sync", "peer", id, "cause", err)
			return 0, true
		}
		if stale++; fresh > 0 {
			stale = 0
		}
		if from = next; !more {
			return 0, true
		}
		if time.Now().After(until) {
			return from, false
		}
	}
	return 0, true
}

// pull asks for one reply's worth, from a place in the other's log on, and takes it.
func (n *network) pull(ctx context.Context, id peer.ID, from uint64) (next uint64, more bool, fresh int, err error) {
	ctx, cancel := context.WithTimeout(ctx, syncTimeout)
	defer cancel()
	be := binary.BigEndian
	req := be.AppendUint64(nil, n.l.pending.Load())
	req = be.AppendUint64(req, n.l.oldest.Load())
	req = be.AppendUint64(req, from)
	known := n.l.events.Locator()
	req = append(req, joinHashes(known[:min(len(known), maxHashes)])...)
	reply, err := n.l.overlay.Request(ctx, id, protoSync, req, replyRoom)
	if err != nil {
		return 0, false, 0, err
	}
	m := n.l.cfg.Member(id)
	var events [][]byte
	if err = errCut; len(reply) >= replyHead {
		events, err = splitEvents(reply[replyHead:])
	}
	if err != nil {
		n.l.intake.blameReply(m, err)
		return 0, false, 0, fmt.Errorf("reply of %s: %w", id, err)
	}
	asking := n.claim(m, be.Uint64(reply[8:]))
	fresh, err = n.take(ctx, m, events)
	return be.Uint64(reply[16:]), reply[24] == 1 && !asking, fresh, err
}

// take has events verified and added, and says how many were new.
func (n *network) take(ctx context.Context, from uint64, events [][]byte) (int, error) {
	if len(events) == 0 {
		return 0, nil
	}
	t := n.l.intake.answered(from, events)
	select {
	case fresh := <-t.ended:
		return fresh, nil
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

func joinHashes(hashes []consensus.Hash) []byte {
	b := make([]byte, 0, len(hashes)*len(consensus.Hash{}))
	for i := range hashes {
		b = append(b, hashes[i][:]...)
	}
	return b
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

func appendEvent(b, raw []byte) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(raw))), raw...)
}

func splitEvents(b []byte) ([][]byte, error) {
	var out [][]byte
	for len(b) > 0 {
		if len(b) < 4 || uint64(len(b)-4) < uint64(binary.BigEndian.Uint32(b)) {
			return nil, errCut
		}
		n := binary.BigEndian.Uint32(b)
		out = append(out, b[4:4+n])
		b = b[4+n:]
	}
	return out, nil
}
