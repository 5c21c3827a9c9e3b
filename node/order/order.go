// Package order is the ordering loop of one member: one goroutine that owns the
// hashgraph and the event log, takes events from the overlay, makes this member's
// own, and hands the total order to a state machine.
//
//	overlay ──► intake: bounded for each sender ──► verifiers, on all cores ──┐
//	   ▲                                                                     ▼
//	   └──── publish ◄── write ◄── sign ◄── hashgraph: is an event due? ◄── loop ──► Machine
//
// The loop knows neither what is ordered nor how events travel: it drives any
// [Machine] over any [Overlay]. An owner opens it, joins it to its overlay, runs it
// and talks to it:
//
//	l, err := order.Open(cfg) // reads the log: the Machine is where it was
//	l.Join(overlay)           // before the overlay runs
//	go l.Run(ctx)
//	place, err := l.Submit(ctx, transaction)
//	err = l.Do(ctx, func() { … look at the Machine … })
package order

import (
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"

	"github.com/dcnode/dcnode/consensus"
	"github.com/dcnode/dcnode/node/eventlog"
)

// Machine is the state machine that the order drives. All its methods are called
// in the loop, one at a time, and must not block, except where it says otherwise.
type Machine interface {
	// Apply takes the next event of the order. What an event says that makes no
	// sense is for the machine to ignore, the same at every member. An error ends the
	// loop: the machine cannot go on. During [Open] it takes what the log holds again.
	Apply(ev consensus.Ordered) error
	// Snapshot is the whole state and its root, a digest of it. Members that applied
	// the same events come to the same root: it is what they sign. The loop keeps the
	// bytes and does not change them.
	Snapshot() (root [32]byte, snapshot []byte, err error)
	// Restore replaces the state by one that Snapshot gave, here or at another member.
	// A snapshot that does not lead to the root is an error, and changes nothing.
	Restore(root [32]byte, snapshot []byte) error
	// Check says whether a snapshot that another member sent leads to the root. It
	// does not look at the state, and is called from any goroutine.
	Check(root [32]byte, snapshot []byte) error
}

// Timer is what a [Machine] is too if the passing of consensus time alone changes
// something in it: consensus time stands still while nothing is ordered.
type Timer interface {
	// Due is when that will be, in ns since the Unix epoch; 0: never.
	Due() int64
	// Tick is a transaction that means nothing. When Due has passed and nobody says
	// anything, it is ordered so that time goes on.
	Tick() ([]byte, error)
}

// Changer is what a [Machine] is too if what it applies can change the roster or the
// parameters of the order.
type Changer interface {
	// Changes is called once after each Apply, also while the log is read again, and
	// gives what that event changed, in order. A change holds from
	// consensus.ChangeDelay rounds after the event's on. Of all changes of one round,
	// by one event or several, the last that is not refused counts: each gives the
	// whole roster as it is to be, with what the earlier ones changed in it.
	//
	// Nothing may be held back for later: a state that was taken by Snapshot and the
	// rosters in its checkpoint must tell the same. The state should know the rosters
	// that it asked for, and must not depend on which is in force: see [Follower].
	Changes() []Change
	// Refused is called for a change that cannot be obeyed, such as a roster without
	// weight or out of order: before the next Apply, Changes or Snapshot. The roster
	// stays as it was. It is the same change at every member, so that the state may
	// depend on it; it must not depend on the words of the cause.
	Refused(ch Change, cause error)
}

// Change is a new roster, ordered by ID, and new parameters; zero: as they were before
// the change.
type Change struct {
	Roster []consensus.Member
	Params consensus.Params
}

// Follower is what a [Machine] is too if it is to know when another roster comes into
// force, because who is in none any more must be cut off at once.
type Follower interface {
	// InForce takes the roster of the round that is decided next whenever it is another
	// than before, except while the log is read again. It is called in the loop, must not
	// block, and must not change the state. The roster is not to be changed.
	InForce(roster []consensus.Member)
}

// Keeper is what a [Machine] is too if it keeps something on disk that a replay from a
// checkpoint would not make again.
type Keeper interface {
	// Keep makes what it has of all events so far survive a power cut. It is called before
	// a checkpoint is written, beside the loop, and may take as long as the disk does.
	Keep()
}

// Peer is how this member stands with another.
type Peer struct {
	ID        peer.ID
	Connected bool
	RTT       time.Duration // 0: not known
}

// Overlay is what the loop needs of the network. Its methods are called from several
// goroutines.
type Overlay interface {
	// Receive hands what other members publish to deliver, until ctx ends. from is
	// the member that sent it to this one, which need not be its author. deliver does
	// not block and keeps data.
	Receive(ctx context.Context, deliver func(from peer.ID, data []byte)) error
	// Publish sends data to every member. Who does not get it will ask.
	Publish(ctx context.Context, data []byte) error
	// Connected names members that can be reached again.
	Connected() <-chan peer.ID
	// Request asks a member one thing and takes an answer of at most max bytes.
	Request(ctx context.Context, to peer.ID, proto string, req []byte, max int) ([]byte, error)
	// HandleRequest serves such requests.
	HandleRequest(proto string, h func(ctx context.Context, from peer.ID, req []byte) ([]byte, error))
	// Peers are the other members of the roster.
	Peers() []Peer
}

// Blamer is what an [Overlay] is too if it limits members that send what is invalid.
type Blamer interface {
	// Blame counts a fault of a member; reason is one of a few.
	Blame(p peer.ID, reason string)
}

// Config is what a Loop is made of. Network, Roster or Trust, Dir, Machine, Peer and
// Member are needed.
type Config struct {
	Network consensus.Hash
	Roster  []consensus.Member // the founding roster, by ID
	Self    uint64             // this member; one that is not in the roster only listens; 0: none
	// Keys are those of Self, the current one first. It signs with the one that the
	// roster of the round names: while it changes its key it has both.
	Keys []ed25519.PrivateKey
	// Trust is for a member that joins an overlay that it was invited to: the roster
	// as the invitation has it, by ID. While its log is empty it takes nothing of the
	// others but a checkpoint that members of more than two thirds of the weight of
	// Trust signed; after half a minute of asking, of more than one third. Then Run
	// returns ErrRejoined. Later starts ignore it. A founder goes the same way, and
	// begins at the first event if members of more than two thirds have no checkpoint
	// yet. Empty: this member begins with Roster, at the first event.
	Trust   []consensus.Member
	Params  consensus.Params // zero: consensus.DefaultParams
	Dir     string           // where the event log is; it must exist
	Machine Machine

	// Strict makes every own event survive a power cut before anyone sees it, at the
	// price of a sync to disk for each.
	Strict bool
	// Precise has short waits measured by the kernel instead of the runtime, whose
	// timers are a millisecond late in an idle process. The kernel's clock is not that
	// of a synctest bubble: leave it off there.
	Precise bool
	// BootID tells one boot of the host from the next. Empty: the kernel's.
	BootID string
	// CheckpointEvery is the number of rounds from one checkpoint to the next, the
	// same at every member. 0: consensus.CheckpointEvery.
	CheckpointEvery uint64

	// Peer and Member translate between members and the overlay's peers; they give
	// "" and 0 for who is not known. They are called from several goroutines, and what
	// they say may change. While a member changes its key, two peers may be one member.
	Peer   func(member uint64) peer.ID
	Member func(id peer.ID) uint64

	Log *slog.Logger // nil: discarded
}

// Place is where in the total order something stands.
type Place struct {
	Index uint64              // of its event
	Round uint64              // in which its event was received
	Time  consensus.Timestamp // consensus time of its event
}

// What Run and the others return. Use errors.Is.
var (
	// ErrEnded is what those get who talk to a loop that has ended or is about to.
	// What they submitted may still be ordered, if it left before.
	ErrEnded = errors.New("this node stops or opens itself again: see what has become of it and ask again")
	// ErrRejoined: this member was new, or too far behind to follow, and has taken over
	// a checkpoint of the others, or learned that there is none yet. Close the loop and open it again: it goes on from
	// there. What it had not ordered yet is submitted again, and may then be ordered
	// twice; whoever waits for it gets ErrEnded.
	ErrRejoined = errors.New("this member was new or far behind and has taken over a checkpoint of the others")
	// ErrTwin: there is an event with this member's signature that it did not make.
	ErrTwin = errors.New("another program signs events with the key of this member: find it and stop it, for two that speak for one member contradict themselves before everybody; then start this one again")
)

// Loop is the ordering loop. Its methods may be called from several goroutines,
// except where they say otherwise.
type Loop struct {
	cfg     Config
	log     *slog.Logger
	start   time.Time
	events  *eventlog.Log
	timer   Timer    // the Machine, or nil
	changer Changer  // the Machine, or nil
	heeds   Follower // the Machine, or nil

	calls chan func()
	wake  chan struct{} // there is something in the inbox or the pool
	ended chan struct{} // closed when Run has returned

	overlay Overlay // nil: alone
	intake  *intake
	inbox   inbox
	pool    pool
	net     *network
	points  checkpoints

	keys     keyring
	entering *entering // it begins at a checkpoint of the others, and has none yet; else nil

	epochs  atomic.Pointer[[]consensus.Epoch] // the rosters
	pending atomic.Uint64                     // the round that is decided next
	oldest  atomic.Uint64                     // the first birth round that is not ancient
	settled atomic.Uint64                     // the last round whose roster is certain
	gone    atomic.Bool                       // it was a member and is none any more

	// What follows belongs to the loop.
	ctx     context.Context // of Run
	group   *errgroup.Group // what runs beside the loop until Run ends
	alarm   *alarm          // for short waits; nil: the runtime's timers do
	core    *consensus.Core
	replays bool // the log is being read: nothing is written, sent or made
	voice   voice
	watch   *watching        // not sure of the own last event; nil: sure
	spoken  bool             // an own event is here
	ownSeq  uint64           // of the last of them
	left    *consensus.Event // the last that an earlier run made; see Left
	learned uint64           // own events that others had and this member had lost
	fatal   error            // why the loop must end
	forgot  uint64           // the log's index begins with this birth round
	inForce uint64           // the first round of the roster in force
}

// Join connects the loop to its overlay. Call it once, before Run.
func (l *Loop) Join(o Overlay) {
	l.overlay = o
	l.intake.blamer, _ = o.(Blamer)
	l.net.serve(o)
}

// Do runs f in the loop, where it may look at the Machine, and waits for it. If ctx ends
// before it has begun it does not run; once it has, it is waited for, so that what f
// writes to is nobody else's meanwhile.
func (l *Loop) Do(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case l.calls <- func() { defer close(done); f() }:
	case <-l.ended:
		return ErrEnded
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	<-done
	return nil
}

// Ended is closed when Run has returned.
func (l *Loop) Ended() <-chan struct{} { return l.ended }

// Wake makes the loop look again whether the Machine's timer is due. The loop does so
// by itself after each event and each call of Do.
func (l *Loop) Wake() { signal(l.wake) }

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
