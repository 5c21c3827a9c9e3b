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
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/dcnode/dcnode/consensus"
)

// Machine is the state machine that the order drives. All its methods are called
// in the loop, one at a time, and must not block.
type Machine interface {
	// Apply takes the next event of the order. What an event says that makes no
	// sense is for the machine to ignore, the same at every member. An error ends the
	// loop: the machine cannot go on. During [Open] it takes what the log holds again.
	Apply(ev consensus.Ordered) error
	// Snapshot is the whole state, with one encoding only: members that applied the
	// same events make the same bytes. Their SHA-256 is the state root.
	Snapshot() ([]byte, error)
	// Restore replaces the state by one that Snapshot gave, here or at another member.
	Restore(snapshot []byte) error
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

// Config is what a Loop is made of. Network, Roster, Dir and Machine are needed.
type Config struct {
	Network consensus.Hash
	Roster  []consensus.Member // the founding roster, by ID
	Self    uint64             // this member; one that is not in the roster only observes
	Key     ed25519.PrivateKey // of Self
	Params  consensus.Params   // zero: consensus.DefaultParams
	Dir     string             // where the event log is; it must exist
	Machine Machine

	// Strict makes every own event survive a power cut before anyone sees it, at the
	// price of a sync to disk for each.
	Strict bool
	// BootID tells one boot of the host from the next. Empty: the kernel's.
	BootID string

	// Peer and Member translate between members and the overlay's peers; they give
	// "" and 0 for who is not known. They are called from several goroutines.
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

// ErrEnded is what those get who talk to a loop that has ended or is about to. What
// they submitted may still be ordered, if it left before.
var ErrEnded = errors.New("this node is stopping")

// Loop is the ordering loop. Its methods may be called from several goroutines,
// except where they say otherwise.
type Loop struct {
	cfg   Config
	log   *slog.Logger
	start time.Time
	timer Timer // the Machine, or nil

	calls chan func()
	wake  chan struct{} // there is something in the inbox or the pool
	ended chan struct{} // closed when Run has returned

	overlay Overlay // nil: alone
	intake  *intake
	inbox   inbox
	net     *network

	// What follows belongs to the loop.
	ctx     context.Context // of Run
	core    *consensus.Core
	events  *eventLog
	replays bool // the log is being read: nothing is written, sent or made
	pool    pool
}

// Open reads the event log in cfg.Dir and brings hashgraph and Machine to where they
// were. It starts nothing: see [Loop.Run]. Close it in the end.
func Open(cfg Config) (*Loop, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	l := &Loop{
		cfg: cfg, log: cfg.Log, start: time.Now(),
		calls: make(chan func()), wake: make(chan struct{}, 1), ended: make(chan struct{}),
		pool: newPool(cfg.Self),
	}
	l.timer, _ = cfg.Machine.(Timer)
	l.inbox.ready = l.wake
	l.intake = newIntake(l)
	l.net = &network{l: l, asked: map[consensus.Hash]time.Time{}}
	if err := l.replay(); err != nil {
		return nil, err
	}
	return l, nil
}

// replay reads the log.
func (l *Loop) replay() (err error) {
	l.core, err = consensus.New(consensus.Config{
		Network: l.cfg.Network, Roster: l.cfg.Roster, Self: l.cfg.Self, Params: l.cfg.Params,
	})
	if err != nil {
		return fmt.Errorf("make hashgraph: %w", err)
	}
	l.replays = true
	l.events, err = openEventLog(filepath.Join(l.cfg.Dir, "events.log"), func(e *consensus.Event) error {
		if err := l.core.Add(e); err != nil && !errors.Is(err, consensus.ErrDuplicate) {
			l.log.Warn("an event of the log is not used", "event", e.Hash(), "cause", err)
		}
		return l.drain()
	})
	l.replays = false
	return err
}

// Close closes the log. Run must have ended.
func (l *Loop) Close() error { return l.events.close() }

// Sync makes all events that were handed to the Machine so far survive a power cut.
func (l *Loop) Sync() error { return l.events.sync() }

// Join connects the loop to its overlay. Call it once, before the overlay runs and
// before Run.
func (l *Loop) Join(o Overlay) {
	l.overlay = o
	l.net.serve(o)
}

// Do runs f in the loop, where it may look at the Machine, and waits for it.
func (l *Loop) Do(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case l.calls <- func() { defer close(done); f() }:
	case <-l.ended:
		return ErrEnded
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
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

// inbox is what waits for the loop: events whose signature is checked.
type inbox struct {
	mu    sync.Mutex
	list  []arrival
	ready chan<- struct{}
}

// arrival is a checked event and who sent it to this member.
type arrival struct {
	ev   *consensus.Event
	hash consensus.Hash
	from uint64
	done func(fresh bool) // called in the loop when it was looked at; may be nil
}

func (b *inbox) put(as ...arrival) {
	b.mu.Lock()
	b.list = append(b.list, as...)
	b.mu.Unlock()
	signal(b.ready)
}

func (b *inbox) take() []arrival {
	b.mu.Lock()
	defer b.mu.Unlock()
	as := b.list
	b.list = nil
	return as
}
