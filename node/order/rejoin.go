package order

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/dcnode/dcnode/consensus"
	"github.com/dcnode/dcnode/node/eventlog"
)

const (
	checkpointTimeout = 10 * time.Second
	snapshotTimeout   = 30 * time.Second // for one part
	rejoinAgain       = 10 * time.Second // between two tries
)

// claims is what members say of how far they are. One that says that it is far ahead
// may lie: all are asked then, and members of more than half of the weight believed.
type claims struct {
	mu     sync.Mutex
	oldest map[uint64]uint64 // first birth round that is not ancient, by member
	tried  time.Time
	trying bool
}

// claim notes what a member says, and says whether all are being asked because of it.
func (n *network) claim(member, oldest uint64) bool {
	n.claims.mu.Lock()
	defer n.claims.mu.Unlock()
	n.claims.oldest[member] = oldest
	if n.l.entering != nil || oldest <= n.l.pending.Load() || n.claims.trying || time.Since(n.claims.tried) < rejoinAgain {
		return false
	}
	n.claims.trying, n.claims.tried = true, time.Now()
	n.l.inbox.post(func() { // the loop may start what Run waits for
		n.l.group.Go(func() error {
			n.rejoin(n.l.ctx)
			n.claims.mu.Lock()
			defer n.claims.mu.Unlock()
			n.claims.trying = false
			return nil
		})
	})
	return true
}

// isBehind: what this member lacks is ancient at members of more than half of the
// weight, as they say.
func (n *network) isBehind() bool {
	n.claims.mu.Lock()
	defer n.claims.mu.Unlock()
	var ahead, total uint64
	for _, m := range n.l.roster().Roster {
		total += m.Weight
		if m.ID != n.l.cfg.Self && n.claims.oldest[m.ID] > n.l.pending.Load() {
			ahead += m.Weight
		}
	}
	return 2*ahead > total
}

// rejoin takes over the newest checkpoint that enough members signed, if it is ahead
// of this member. If there is none, the ordinary way goes on: the others still have
// the events.
func (n *network) rejoin(ctx context.Context) {
	best, from := n.choose(n.ask(ctx).offered, true)
	if !n.isBehind() || best == nil || best.round <= n.l.pending.Load() {
		return
	}
	n.l.log.Info("this member is far behind: it takes over a checkpoint", "round", best.round, "pending", n.l.pending.Load(), "signed_by", len(from))
	_ = n.takeOver(ctx, best, from)
}

// takeOver fetches the state of a checkpoint from one of those that signed it, and
// ends the loop with it.
func (n *network) takeOver(ctx context.Context, best *offer, from []peer.ID) error {
	var last error
	for _, id := range from {
		snapshot, err := n.snapshot(ctx, id, best.root)
		if err != nil {
			n.l.log.Warn("fetch the state of a checkpoint", "peer", id, "cause", err)
			last = err
			continue
		}
		return n.l.Do(ctx, func() { n.l.adopt(best, snapshot) })
	}
	return last
}

// adopt makes a checkpoint of others this member's own and ends the loop. In the loop.
func (l *Loop) adopt(o *offer, snapshot []byte) {
	if l.fatal != nil || o.round <= l.core.Pending() {
		return
	}
	l.points.saving.Lock()
	defer l.points.saving.Unlock()
	l.points.leapt = true
	err := l.pool.save(filepath.Join(l.cfg.Dir, poolFile), o.cp.MinBirth)
	if err == nil {
		err = l.events.Adopt(eventlog.Checkpoint{Round: o.round, MinBirth: o.cp.MinBirth, Body: o.body, Root: o.root, Snapshot: snapshot})
	}
	if l.fatal = ErrRejoined; err != nil {
		l.fatal = fmt.Errorf("take over the checkpoint of round %d: %w", o.round, err)
	}
}

// offered is who signed which checkpoint.
type offered struct {
	offer
	by     []peer.ID
	weight uint64
}

// answers is what members said when they were asked for checkpoints.
type answers struct {
	offered []offered
	silent  []uint64 // members that did not answer
	strange int      // members that sign with a key that is not known here
}

// ask collects the checkpoints of all members.
func (n *network) ask(ctx context.Context) answers {
	ctx, cancel := context.WithTimeout(ctx, checkpointTimeout)
	defer cancel()
	var mu sync.Mutex
	var all answers
	var asked sync.WaitGroup
	for _, m := range n.l.roster().Roster {
		id := n.l.cfg.Peer(m.ID)
		if m.ID == n.l.cfg.Self {
			continue
		}
		if id == "" {
			mu.Lock()
			all.silent = append(all.silent, m.ID)
			mu.Unlock()
			continue
		}
		asked.Go(func() {
			reply, err := n.l.overlay.Request(ctx, id, protoCheckpoint, nil, 8+keptCheckpoints*(consensus.MaxCheckpoint+128))
			if err != nil {
				mu.Lock()
				defer mu.Unlock()
				all.silent = append(all.silent, m.ID)
				return
			}
			var offers []offer
			strange := false
			if err = errCut; len(reply) >= 8 {
				offers, strange, err = splitOffers(reply[8:], n.l.cfg.Network, m.Key)
			}
			if err != nil {
				n.l.intake.blameReply(m.ID, err)
				return
			}
			n.claim(m.ID, binary.BigEndian.Uint64(reply))
			mu.Lock()
			defer mu.Unlock()
			if strange {
				all.strange++
			}
			for _, o := range offers {
				all.add(o, id, m.Weight)
			}
		})
	}
	asked.Wait()
	slices.Sort(all.silent)
	return all
}

// add counts a member for a checkpoint.
func (a *answers) add(o offer, id peer.ID, weight uint64) {
	i := slices.IndexFunc(a.offered, func(x offered) bool { return x.hash == o.hash && x.root == o.root })
	if i < 0 {
		i = len(a.offered)
		a.offered = append(a.offered, offered{offer: o})
	}
	if x := &a.offered[i]; !slices.Contains(x.by, id) {
		x.by, x.weight = append(x.by, id), x.weight+weight
	}
}

// choose is the newest checkpoint that members of more than two thirds of the weight
// signed alike, or else, if few will do, the newest that more than a third signed: one
// of them is honest. Nil: there is none that is ahead of this member.
func (n *network) choose(all []offered, few bool) (*offer, []peer.ID) {
	var total uint64
	for _, m := range n.l.roster().Roster {
		total += m.Weight
	}
	slices.SortFunc(all, func(a, b offered) int {
		return cmp.Or(cmp.Compare(b.round, a.round), cmp.Compare(b.weight, a.weight), bytes.Compare(a.root[:], b.root[:]))
	})
	enough := []uint64{2 * total / 3, total / 3}
	if !few {
		enough = enough[:1]
	}
	for _, least := range enough {
		for i := range all {
			if all[i].weight > least && all[i].round > n.l.pending.Load() {
				return &all[i].offer, all[i].by
			}
		}
	}
	return nil, nil
}

// snapshot fetches a state in parts.
func (n *network) snapshot(ctx context.Context, id peer.ID, root [32]byte) ([]byte, error) {
	var out []byte
	for {
		req := binary.BigEndian.AppendUint64(root[:len(root):len(root)], uint64(len(out)))
		rctx, cancel := context.WithTimeout(ctx, snapshotTimeout)
		reply, err := n.l.overlay.Request(rctx, id, protoSnapshot, req, 8+snapshotPart)
		cancel()
		if err != nil {
			return nil, err
		}
		if len(reply) < 8 {
			return nil, errCut
		}
		size := binary.BigEndian.Uint64(reply)
		out = append(out, reply[8:]...)
		switch {
		case size > maxSnapshot || uint64(len(out)) > size:
			return nil, fmt.Errorf("a state of %d bytes: at most %d are taken", size, maxSnapshot)
		case uint64(len(out)) < size && len(reply) > 8:
			continue
		}
		if err := n.l.cfg.Machine.Check(root, out); err != nil {
			n.l.intake.blameReply(n.l.cfg.Member(id), err)
			return nil, fmt.Errorf("the state is not the one that was signed: %w", err)
		}
		return out, nil
	}
}
