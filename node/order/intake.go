package order

import (
	"context"
	"crypto/ed25519"
	"errors"
	"runtime"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/dcnode/dcnode/consensus"
)

// What may wait for a verifier, of one sender. A member that keeps to the rules
// sends about one event a layer; a burst of this size comes of nobody's bad luck.
const (
	maxQueued      = 1024     // events
	maxQueuedBytes = 16 << 20 // bytes
)

// verifiers is how many signatures are checked at a time.
func verifiers() int { return runtime.GOMAXPROCS(0) }

// intake is the way of an event from the network to the loop: a queue for each
// sender, served in turn, so that one that floods delays itself only, and verifiers
// that check what is in them on all cores. A sender is the member that sent the event
// to this one: its author may be innocent.
type intake struct {
	l       *Loop
	members map[uint64]ed25519.PublicKey

	mu      sync.Mutex
	more    *sync.Cond
	closed  bool
	senders map[uint64]*sender
	turn    []*sender // those with work, the next first
	seen    seen
}

// sender is what is known of one who sends.
type sender struct {
	id     uint64
	queue  []*item
	bytes  int
	queued bool // is in turn

	credit int       // invalid events that are forgiven for now
	since  time.Time // when credit was last counted
	paused time.Time // until then what it publishes is dropped
	faults map[fault]*Suspect
}

// item is an encoded event on its way through the verifiers.
type item struct {
	raw   []byte
	from  *sender
	asked bool             // it answers a request of this member
	done  func(fresh bool) // called when its way has ended, in the loop or in a verifier; may be nil
}

func newIntake(l *Loop) *intake {
	in := &intake{l: l, senders: map[uint64]*sender{}, members: map[uint64]ed25519.PublicKey{}, seen: newSeen()}
	in.more = sync.NewCond(&in.mu)
	for _, m := range l.cfg.Roster {
		in.members[m.ID] = m.Key
	}
	return in
}

// sender finds or makes the record of a member. The caller holds the lock.
func (in *intake) sender(id uint64) *sender {
	s := in.senders[id]
	if s == nil {
		s = &sender{id: id, credit: maxCredit, since: time.Now(), faults: map[fault]*Suspect{}}
		in.senders[id] = s
	}
	return s
}

// deliver takes what a member published. It does not block.
func (in *intake) deliver(from peer.ID, data []byte) {
	if id := in.l.cfg.Member(from); id != 0 {
		in.push(id, data, false, nil)
	}
}

// push queues an event for the verifiers. What answers a request is bounded by the
// request; what comes unasked is dropped when the sender has too much there already.
func (in *intake) push(from uint64, raw []byte, asked bool, done func(bool)) {
	in.mu.Lock()
	s := in.sender(from)
	switch now := time.Now(); {
	case asked:
	case now.Before(s.paused):
		in.blame(s, dropped, nil)
		in.mu.Unlock()
		return
	case len(s.queue) >= maxQueued || s.bytes+len(raw) > maxQueuedBytes:
		in.blame(s, flood, nil)
		in.mu.Unlock()
		return
	}
	s.queue, s.bytes = append(s.queue, &item{raw: raw, from: s, asked: asked, done: done}), s.bytes+len(raw)
	if !s.queued {
		s.queued, in.turn = true, append(in.turn, s)
	}
	in.mu.Unlock()
	in.more.Signal()
}

// next is the next event of the sender whose turn it is; nil at the end.
func (in *intake) next() *item {
	in.mu.Lock()
	defer in.mu.Unlock()
	for len(in.turn) == 0 && !in.closed {
		in.more.Wait()
	}
	if in.closed {
		return nil
	}
	s := in.turn[0]
	in.turn = in.turn[1:]
	it := s.queue[0]
	s.queue[0] = nil
	s.queue, s.bytes = s.queue[1:], s.bytes-len(it.raw)
	if s.queued = len(s.queue) > 0; s.queued {
		in.turn = append(in.turn, s)
	}
	return it
}

// verify is one verifier.
func (in *intake) verify(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		in.mu.Lock()
		in.closed = true
		in.mu.Unlock()
		in.more.Broadcast()
	})
	defer stop()
	for it := in.next(); it != nil; it = in.next() {
		e, h, err := in.check(it.raw)
		if err != nil {
			in.accuse(it.from, badEvent, err)
			if it.done != nil {
				it.done(false)
			}
			continue
		}
		in.l.inbox.put(arrival{ev: e, hash: h, from: it.from.id, done: it.done})
	}
	return nil
}

var errStranger = errors.New("its creator is not a member, or it is of another network")

// check reads an event and checks its signature, unless the same event with the same
// signature was checked before.
func (in *intake) check(raw []byte) (*consensus.Event, consensus.Hash, error) {
	e, err := consensus.Unmarshal(raw)
	if err != nil {
		return nil, consensus.Hash{}, err
	}
	h := e.Hash()
	key := in.members[e.Creator]
	if key == nil || e.Network != in.l.cfg.Network {
		return nil, h, errStranger
	}
	name := signed{hash: h, sig: [ed25519.SignatureSize]byte(e.Signature)}
	if valid, known := in.seen.look(name); known {
		if !valid {
			return nil, h, errForged
		}
		return e, h, nil
	}
	err = e.Verify(key)
	in.seen.note(name, err == nil)
	return e, h, err
}

// judge draws the consequences of what the hashgraph said of an event.
func (in *intake) judge(a arrival, err error) {
	if !errors.Is(err, consensus.ErrInvalid) && !errors.Is(err, consensus.ErrFlood) {
		return
	}
	in.mu.Lock()
	s := in.sender(a.from)
	in.mu.Unlock()
	if errors.Is(err, consensus.ErrFlood) {
		in.accuse(s, flood, err)
		return
	}
	in.accuse(s, badEvent, err)
}
