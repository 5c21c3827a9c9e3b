package order

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/dcnode/dcnode/consensus"
	"github.com/dcnode/dcnode/node/eventlog"
)

// doubtFile is there if an earlier run was not sure of this member's last event.
const doubtFile = "doubt"

// Open reads the event log in cfg.Dir and brings hashgraph and Machine to where they
// were. It starts nothing: see [Loop.Run]. Close it in the end.
func Open(cfg Config) (*Loop, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	l := &Loop{
		cfg: cfg, log: cfg.Log, start: time.Now(),
		calls: make(chan func()), wake: make(chan struct{}, 1), ended: make(chan struct{}),
		pool: newPool(cfg.Self), ctx: context.Background(),
	}
	l.timer, _ = cfg.Machine.(Timer)
	l.changer, _ = cfg.Machine.(Changer)
	l.heeds, _ = cfg.Machine.(Follower)
	l.inbox.ready = l.wake
	l.intake = newIntake(l)
	l.net = newNetwork(l)
	var err error
	for _, k := range cfg.Keys {
		if err := l.keys.add(k); err != nil {
			return nil, err
		}
	}
	l.events, err = eventlog.Open(eventlog.Config{Dir: cfg.Dir, Network: cfg.Network, Strict: cfg.Strict, BootID: cfg.BootID})
	if err != nil {
		return nil, err
	}
	if err := l.begin(); err != nil {
		l.events.Abandon()
		return nil, err
	}
	return l, nil
}

// begin makes hashgraph and Machine what they were.
func (l *Loop) begin() error {
	found := l.events.Opened()
	for _, note := range found.Notes {
		l.log.Warn("event log", "note", note)
	}
	cfg := consensus.Config{
		Network: l.cfg.Network, Roster: l.cfg.Roster, Self: l.cfg.Self, Params: l.cfg.Params,
		CheckpointEvery: l.cfg.CheckpointEvery,
	}
	if cp := found.Checkpoint; cp != nil {
		from, err := consensus.UnmarshalCheckpoint(cp.Body)
		if err != nil {
			return fmt.Errorf("read checkpoint of round %d: %w: move the file away, an older one or the others' is used then", cp.Round, err)
		}
		cfg.From = from
		if err := l.cfg.Machine.Restore(cp.Root, cp.Snapshot); err != nil {
			return fmt.Errorf("go on from the checkpoint of round %d: %w", cp.Round, err)
		}
	}
	if l.enteringFirst(found) {
		l.entering = newEntering()
		cfg.Roster, cfg.Self = l.cfg.Trust, 0 // only to look up who they are: nothing is added
	}
	var err error
	if l.core, err = consensus.New(cfg); err != nil {
		return fmt.Errorf("make hashgraph: %w", err)
	}
	if err := l.points.load(l.events); err != nil {
		return err
	}
	l.noteEpochs()
	if err := l.replay(); err != nil {
		return fmt.Errorf("read the events of the log: %w", err)
	}
	if err := l.pool.restore(filepath.Join(l.cfg.Dir, poolFile)); err != nil {
		return err
	}
	return l.beginWatch(found.Condition)
}

// replay adds what is in the log.
func (l *Loop) replay() error {
	l.replays = true
	l.core.Replay(true)
	defer func() {
		l.replays = false
		l.core.Replay(false)
	}()
	for e, err := range l.events.Replay() {
		if err != nil {
			return err
		}
		if err := l.replayed(e); err != nil {
			return err
		}
	}
	// The own last event may be older than what was needed.
	last, err := l.events.Last(l.cfg.Self)
	if err != nil || last == nil {
		return err
	}
	l.knowOwn(last.Seq)
	l.left = last
	return l.replayed(last)
}

// Left is what an earlier run has said and may not have ordered: its last own event, or
// nil, and the transactions that wait for the next one. Between Open and Run.
func (l *Loop) Left() (last *consensus.Event, waiting [][]byte) {
	return l.left, payloads(l.pool.wait)
}

func (l *Loop) replayed(e *consensus.Event) error {
	err := l.core.Add(e)
	if err != nil && !errors.Is(err, consensus.ErrDuplicate) && !errors.Is(err, consensus.ErrAncient) {
		l.log.Warn("an event of the log is not used", "event", e.Hash(), "cause", err)
	}
	return l.drain()
}

// beginWatch decides whether this member may speak at once. If the log may lack an
// own event that others have seen, the next one made here would contradict it.
func (l *Loop) beginWatch(c eventlog.Condition) error {
	if l.cfg.Self == 0 {
		return nil // it watches only. Who is in no roster yet may be in one soon
	}
	_, err := os.Stat(filepath.Join(l.cfg.Dir, doubtFile))
	if c == eventlog.Clean || c == eventlog.SameBoot {
		if err != nil {
			return nil
		}
	}
	if err := os.WriteFile(filepath.Join(l.cfg.Dir, doubtFile), nil, 0o600); err != nil {
		return fmt.Errorf("note that this member is not sure of its last event: %w", err)
	}
	l.watch = newWatching(c)
	if l.entering == nil && l.sure() { // alone
		l.resume()
	}
	return nil
}

// noteEpochs makes the rosters known outside of the loop.
func (l *Loop) noteEpochs() {
	epochs := slices.Clone(l.core.Epochs())
	l.epochs.Store(&epochs)
	l.note()
}

// keepIndexed is how many rounds of events stay in the log's index after they became
// ancient here: for members that are that much slower.
const keepIndexed = 64

// note makes the rounds known outside of the loop.
func (l *Loop) note() {
	l.settled.Store(l.core.Settled())
	if l.core.Pending() == l.pending.Load() {
		return
	}
	st := l.core.Status()
	l.pending.Store(st.Pending)
	l.oldest.Store(st.Oldest)
	if low := max(st.Oldest, keepIndexed+1) - keepIndexed; low >= l.forgot+keepIndexed/4 {
		l.events.Forget(low)
		l.forgot = low
	}
	if ep := l.roster(); ep.From != l.inForce {
		l.inForce = ep.From
		if l.heeds != nil && !l.replays {
			l.heeds.InForce(ep.Roster)
		}
	}
}

// roster is the one in force. It may be called from any goroutine.
func (l *Loop) roster() *consensus.Epoch {
	epochs := *l.epochs.Load()
	at := &epochs[0]
	for i := range epochs {
		if epochs[i].From <= l.pending.Load() {
			at = &epochs[i]
		}
	}
	return at
}

// Close closes the log. Run must have ended.
func (l *Loop) Close() error {
	if errors.Is(l.fatal, ErrTwin) {
		l.events.Abandon()
		return nil
	}
	return l.events.Close()
}

// Sync makes all events that were handed to the Machine so far survive a power cut.
func (l *Loop) Sync() error { return l.events.Sync() }
