package order

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/dcnode/dcnode/consensus"
	"github.com/dcnode/dcnode/node/eventlog"
)

// Checkpoints are kept so that a restart reads little, and so that a member that is
// far behind can go on from one: it believes what members of enough weight signed.
const (
	protoCheckpoint = "/checkpoint/1" // request: nothing; reply: oldest open birth round 8, signed checkpoints
	protoSnapshot   = "/snapshot/1"   // request: state root, offset; reply: size, bytes

	keptCheckpoints = 2
	snapshotPart    = 1 << 20   // bytes in one reply
	maxSnapshot     = 256 << 20 // bytes

	checkpointDomain = "dcnode checkpoint v1\x00"
)

// checkpoints are those that are kept here, the oldest first.
type checkpoints struct {
	saving sync.Mutex // held while one is written to disk
	leapt  bool       // one of others was taken over: none of this run's is kept

	mu      sync.Mutex
	kept    []point
	waiting []point // to be written to disk
	busy    bool    // somebody writes
}

// point is a checkpoint with the state that the order had led to by then.
type point struct {
	round    uint64
	minBirth uint64
	body     []byte // the checkpoint's encoding
	hash     consensus.Hash
	root     [32]byte // of the state, as the Machine has it
	snapshot []byte
}

// signed is what a member signs to say that it came to this state there.
func (p *point) signed(network consensus.Hash) []byte {
	b := append([]byte(checkpointDomain), network[:]...)
	b = append(b, p.hash[:]...)
	return append(b, p.root[:]...)
}

// load finds those on disk.
func (c *checkpoints) load(log *eventlog.Log) error {
	found, err := log.Checkpoints()
	if err != nil {
		return err
	}
	for i := len(found) - 1; i >= 0; i-- {
		cp, err := consensus.UnmarshalCheckpoint(found[i].Body)
		if err != nil {
			return fmt.Errorf("read checkpoint of round %d: %w: move the file away, an older one or the others' is used then", found[i].Round, err)
		}
		f := &found[i]
		c.add(point{round: f.Round, minBirth: f.MinBirth, body: f.Body, hash: cp.Hash(), root: f.Root, snapshot: f.Snapshot})
	}
	return nil
}

func (c *checkpoints) add(p point) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept = append(c.kept, p)
	if n := len(c.kept); n > keptCheckpoints {
		c.kept = append([]point(nil), c.kept[n-keptCheckpoints:]...)
	}
}

// due notes a checkpoint that is to be written, and says whether to begin. Of several
// that wait only the newest are of use.
func (c *checkpoints) due(p point) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = append(c.waiting, p)
	c.waiting = c.waiting[max(0, len(c.waiting)-keptCheckpoints):]
	begin := !c.busy
	c.busy = true
	return begin
}

// next is one that is to be written; none: whoever asks is done.
func (c *checkpoints) next() (point, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.waiting) == 0 {
		c.busy = false
		return point{}, false
	}
	p := c.waiting[0]
	c.waiting = c.waiting[1:]
	return p, true
}

func (c *checkpoints) all() []point {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]point(nil), c.kept...)
}

// newest is the round of the newest, 0 if there is none.
func (c *checkpoints) newest() uint64 {
	if all := c.all(); len(all) > 0 {
		return all[len(all)-1].round
	}
	return 0
}

// take makes a checkpoint of the state now. In the loop; the disk's part is done
// beside it.
func (l *Loop) take(cp *consensus.Checkpoint) error {
	if cp.Round <= l.points.newest() {
		return nil // read again after a restart
	}
	root, snapshot, err := l.cfg.Machine.Snapshot()
	if err != nil {
		return fmt.Errorf("take a checkpoint in round %d: %w", cp.Round, err)
	}
	p := point{round: cp.Round, minBirth: cp.MinBirth, body: cp.Marshal(), hash: cp.Hash(), root: root, snapshot: snapshot}
	if l.replays {
		return l.keep(p)
	}
	if l.points.due(p) {
		l.group.Go(l.keepDue)
	}
	return nil
}

// keep writes a checkpoint to disk. What is before it is not read again.
func (l *Loop) keep(p point) error {
	if k, ok := l.cfg.Machine.(Keeper); ok {
		k.Keep()
	}
	err := l.events.SaveCheckpoint(eventlog.Checkpoint{Round: p.round, MinBirth: p.minBirth, Body: p.body, Root: p.root, Snapshot: p.snapshot})
	if err != nil {
		return fmt.Errorf("keep the checkpoint of round %d: %w", p.round, err)
	}
	l.points.add(p)
	return nil
}

// keepDue writes the checkpoints that are due, one after another, until there is none.
func (l *Loop) keepDue() error {
	for {
		l.points.saving.Lock()
		p, ok := l.points.next()
		var err error
		if ok && !l.points.leapt {
			err = l.keep(p)
		}
		l.points.saving.Unlock()
		if !ok || err != nil {
			return err
		}
	}
}

// serveCheckpoints answers members that are far behind.
func (n *network) serveCheckpoints(o Overlay) {
	o.HandleRequest(protoCheckpoint, func(context.Context, peer.ID, []byte) ([]byte, error) {
		reply := binary.BigEndian.AppendUint64(nil, n.l.oldest.Load())
		key := n.l.keys.of(n.l.roster(), n.l.cfg.Self)
		if key == nil {
			return reply, nil // nobody asks those who are not members what they sign
		}
		for _, p := range n.l.points.all() {
			reply = binary.BigEndian.AppendUint32(reply, uint32(len(p.body)))
			reply = append(reply, p.body...)
			reply = append(reply, p.root[:]...)
			reply = append(reply, ed25519.Sign(key, p.signed(n.l.cfg.Network))...)
		}
		return reply, nil
	})
	o.HandleRequest(protoSnapshot, func(_ context.Context, _ peer.ID, req []byte) ([]byte, error) {
		if len(req) != 40 {
			return nil, errors.New("a request of 40 bytes is wanted: state root and offset")
		}
		for _, p := range n.l.points.all() {
			if p.root != [32]byte(req) {
				continue
			}
			off := min(binary.BigEndian.Uint64(req[32:]), uint64(len(p.snapshot)))
			part := p.snapshot[off:min(off+snapshotPart, uint64(len(p.snapshot)))]
			return append(binary.BigEndian.AppendUint64(nil, uint64(len(p.snapshot))), part...), nil
		}
		return nil, errors.New("this state is not kept here any more")
	})
}

// offer is a checkpoint as a member offers it.
type offer struct {
	point
	cp  *consensus.Checkpoint
	sig []byte
}

// splitOffers reads a reply. Only offers that the member has signed are in the result;
// strange says that there are others: the member may have changed its key since.
func splitOffers(b []byte, network consensus.Hash, key ed25519.PublicKey) (out []offer, strange bool, err error) {
	for n := 0; len(b) > 0; n++ {
		if n == keptCheckpoints {
			return nil, false, errCut
		}
		o, rest, err := splitOffer(b)
		if err != nil {
			return nil, false, err
		}
		b = rest
		if o.cp.Network != network {
			return nil, false, errors.New("a checkpoint is of another network")
		}
		if len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, o.signed(network), o.sig) {
			strange = true
			continue
		}
		out = append(out, o)
	}
	return out, strange, nil
}

// splitOffer reads one offer and gives what follows it.
func splitOffer(b []byte) (o offer, rest []byte, err error) {
	if len(b) < 4 {
		return o, nil, errCut
	}
	n := uint64(binary.BigEndian.Uint32(b))
	if n > consensus.MaxCheckpoint || uint64(len(b)) < 4+n+32+ed25519.SignatureSize {
		return o, nil, errCut
	}
	o.body, b = b[4:4+n], b[4+n:]
	copy(o.root[:], b)
	o.sig, b = b[32:32+ed25519.SignatureSize], b[32+ed25519.SignatureSize:]
	if o.cp, err = consensus.UnmarshalCheckpoint(o.body); err != nil {
		return o, nil, err
	}
	o.round, o.hash = o.cp.Round, o.cp.Hash()
	return o, b, nil
}
