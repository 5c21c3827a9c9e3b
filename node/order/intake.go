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
	l      *Loop
	blamer Blamer // the overlay, or nil

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
	queued bool // is in turn
	held   int  // events that came unasked and that the loop has not taken
	bytes  int  // of those

	credit int       // invalid events that are forgiven for now
	since  time.Time // when credit was last counted
	paused time.Time // until then what it publishes is dropped
	faults map[fault]*Suspect
}

// item is an encoded event on its way through the verifiers.
type item struct {
	raw  []byte
	from *sender
	lot  *lot // the reply that it is the i-th event of; nil: it came unasked
	i    int
}

func newIntake(l *Loop) *intake {
	in := &intake{l: l, senders: map[uint64]*sender{}, seen: newSeen()}
	in.more = sync.NewCond(&in.mu)
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
	id := in.l.cfg.Member(from)
	if id == 0 || in.l.entering != nil || !in.l.known(id) {
		return // who is not known yet will be asked, once it is
	}
	in.mu.Lock()
	s := in.sender(id)
	switch now := time.Now(); {
	case now.Before(s.paused):
		in.blame(s, dropped, nil)
	case s.held >= maxQueued || s.bytes+len(data) > maxQueuedBytes:
		in.blame(s, flood, nil)
	default:
		s.held, s.bytes = s.held+1, s.bytes+len(data)
		in.push(s, &item{raw: data, from: s})
	}
	in.mu.Unlock()
	in.more.Signal()
}

// answered takes the events of a reply, which are bounded by the request.
func (in *intake) answered(from uint64, events [][]byte) *lot {
	t := newLot(&in.l.inbox, len(events))
	in.mu.Lock()
	s := in.sender(from)
	for i, raw := range events {
		in.push(s, &item{raw: raw, from: s, lot: t, i: i})
	}
	in.mu.Unlock()
	in.more.Broadcast()
	return t
}

// push queues an event for the verifiers. The caller holds the lock.
func (in *intake) push(s *sender, it *item) {
	s.queue = append(s.queue, it)
	if !s.queued {
		s.queued, in.turn = true, append(in.turn, s)
	}
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
	s.queue = s.queue[1:]
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
		a := arrival{from: it.from.id}
		var err error
		if err = in.check(it.raw, &a); err != nil {
			a.ev = nil
			if !errors.Is(err, errAhead) && !errors.Is(err, errPast) {
				in.accuse(it.from, badEvent, err)
			}
		}
		switch {
		case it.lot != nil:
			it.lot.checked(it.i, a)
		case err == nil:
			a.size = len(it.raw)
			in.l.inbox.put(a)
		default:
			in.release(it.from.id, len(it.raw))
		}
	}
	return nil
}

// release makes room for as much as the loop has taken, or a verifier thrown away.
func (in *intake) release(id uint64, size int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	s := in.sender(id)
	s.held, s.bytes = s.held-1, s.bytes-size
}

var (
	errStranger = errors.New("its creator is not a member, or it is of another network")
	errAhead    = errors.New("it is of a roster that is not known here yet")
	errPast     = errors.New("its creator was or will be a member, but is none in its round, or the roster of its round is not known any more")
)

// check reads an event and checks its signature, unless the same event with the same
// signature was checked before.
func (in *intake) check(raw []byte, a *arrival) error {
	e, err := consensus.Unmarshal(raw)
	if err != nil {
		return err
	}
	if e.Network != in.l.cfg.Network {
		return errStranger
	}
	a.ev, a.hash = e, e.Hash()
	ahead := e.BirthRound > in.l.settled.Load() // before the rosters are looked at
	if a.key, err = in.key(e); err != nil {
		if ahead {
			return errAhead
		}
		return err
	}
	name := signed{a.hash, [ed25519.SignatureSize]byte(e.Signature), [ed25519.PublicKeySize]byte(a.key)}
	if valid, known := in.seen.look(name); known {
		switch {
		case valid:
			return nil
		case ahead:
			return errAhead
		}
		return errForged
	}
	err = e.Verify(a.key)
	in.seen.note(name, err == nil)
	if err != nil && ahead {
		return errAhead
	}
	return err
}

// key is what an event must be signed with: by the roster of its birth round, or by the
// last one that is known.
func (in *intake) key(e *consensus.Event) (ed25519.PublicKey, error) {
	epochs := *in.l.epochs.Load()
	if e.BirthRound < epochs[0].From {
		if e.Creator == in.l.cfg.Self { // what others know of it, for one that has forgotten
			return in.l.keys.signed(e)
		}
		return nil, errPast
	}
	at := &epochs[0]
	for i := range epochs {
		if epochs[i].From <= e.BirthRound {
			at = &epochs[i]
		}
	}
	for i := range at.Roster {
		if m := &at.Roster[i]; m.ID == e.Creator && len(m.Key) == ed25519.PublicKeySize {
			return m.Key, nil
		}
	}
	if in.l.known(e.Creator) {
		return nil, errPast
	}
	return nil, errStranger
}

// judge draws the consequences of what the hashgraph said of an event. Its signature
// is true by now, so that it is its creator's doing, whoever sent it.
func (in *intake) judge(a arrival, err error) {
	f := badEvent
	switch {
	case errors.Is(err, consensus.ErrFlood):
		f = flood
	case !errors.Is(err, consensus.ErrInvalid):
		return
	}
	in.mu.Lock()
	s := in.sender(a.ev.Creator)
	in.mu.Unlock()
	in.accuse(s, f, err)
}

// Verify reports whether an encoded event is signed by its creator, for an overlay
// that must not pass on what is not. What is verified here is not verified again.
func (l *Loop) Verify(raw []byte) bool { return l.intake.check(raw, new(arrival)) == nil }
