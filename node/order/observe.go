package order

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/dcnode/dcnode/consensus"
	"github.com/dcnode/dcnode/node/eventlog"
)

// A member whose log may lack own events that others have seen must not make one:
// it might contradict what it said. It asks the others for the last event of its
// that they know. Any own event that mattered to a decision is known to members of a
// supermajority of weight, so that it is known to one of those that answer if they
// and this member hold a supermajority.
const (
	protoHead = "/head/1" // request: nothing; reply: the asker's last event, or nothing

	headTimeout = 5 * time.Second
	askHeads    = 50 * time.Millisecond // until those who did not answer are asked again, at first
	askHeadsMax = 2 * time.Second
	quietLeast  = 50 * time.Millisecond // that must pass without an own event from others
)

// watching is what a member that is not sure of its last event has learned. The loop's.
type watching struct {
	why      eventlog.Condition
	answered map[uint64]bool // members that said what they know, and that is here
	here     map[consensus.Hash]bool
	heard    int // own events that came from others
}

func newWatching(c eventlog.Condition) *watching {
	return &watching{why: c, answered: map[uint64]bool{}, here: map[consensus.Hash]bool{}}
}

// surprised deals with an own event that this member did not know, and says whether
// it must not be taken. Once it speaks, there cannot be one. In the loop.
func (l *Loop) surprised(e *consensus.Event) bool {
	if l.longAgo(e) {
		return true // it was in the log's index once
	}
	if l.watch != nil {
		l.watch.heard++
		l.learned++
		return false
	}
	l.fatal = ErrTwin
	if err := os.WriteFile(filepath.Join(l.cfg.Dir, doubtFile), nil, 0o600); err != nil {
		l.log.Error("note that this member is not sure of its last event", "cause", err)
	}
	return true
}

// longAgo reports whether an own event is below the last one that is known here and so
// old that nothing can be built on it. It says nothing new, however often it is sent.
func (l *Loop) longAgo(e *consensus.Event) bool {
	return l.spoken && e.Seq <= l.ownSeq && e.BirthRound < l.oldest.Load()
}

// knowOwn notes that the own event of a number is here.
func (l *Loop) knowOwn(seq uint64) { l.spoken, l.ownSeq = true, max(l.ownSeq, seq) }

// has reports whether an own event is known here. In the loop.
func (l *Loop) has(e *consensus.Event) bool {
	h := e.Hash()
	return l.watch != nil && l.watch.here[h] || l.core.Event(h) != nil || l.events.Has(h) || l.longAgo(e)
}

// sure reports whether enough members have said what they know. In the loop.
func (l *Loop) sure() bool {
	r := l.roster().Roster
	var held, total uint64
	for i := range r {
		total += r[i].Weight
		if r[i].ID == l.cfg.Self || l.watch.answered[r[i].ID] {
			held += r[i].Weight
		}
	}
	return held > 2*total/3
}

// waitsFor are the members that have not said what they know, while it matters. In
// the loop.
func (l *Loop) waitsFor() []uint64 {
	if l.watch == nil || l.sure() {
		return nil
	}
	var out []uint64
	for _, m := range l.roster().Roster {
		if m.ID != l.cfg.Self && m.Weight > 0 && !l.watch.answered[m.ID] {
			out = append(out, m.ID)
		}
	}
	return out
}

// resume lets this member speak again. In the loop.
func (l *Loop) resume() {
	err := os.Remove(filepath.Join(l.cfg.Dir, doubtFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.log.Error("note that this member is sure of its last event", "cause", err)
		return
	}
	if err == nil && l.watch.why != eventlog.Fresh {
		l.log.Info("this member knows its last event and speaks again", "number", l.ownSeq, "learned", l.learned)
	}
	l.watch = nil
	l.hear()
}

// serveHeads answers members that want to know their own last event.
func (n *network) serveHeads(o Overlay) {
	o.HandleRequest(protoHead, func(_ context.Context, from peer.ID, _ []byte) ([]byte, error) {
		if n.l.entering != nil {
			return nil, errors.New("this member has nothing yet: what it does not know says nothing")
		}
		e, err := n.l.events.Last(n.l.cfg.Member(from))
		if err != nil || e == nil {
			return nil, err
		}
		return e.Marshal(), nil
	})
}

// observe asks until this member is sure of its last event. It returns at once if it is.
func (n *network) observe(ctx context.Context) error {
	pause := askHeads
	for ctx.Err() == nil {
		var watching, sure bool
		var heard int
		look := func() {
			if watching = n.l.watch != nil; watching {
				sure, heard = n.l.sure(), n.l.watch.heard
			}
		}
		if n.l.Do(ctx, look) != nil || !watching {
			return nil
		}
		if sure {
			before := heard
			if !sleep(ctx, n.quiet()) || n.l.Do(ctx, func() {
				if look(); sure && heard == before {
					n.l.resume()
				}
			}) != nil {
				return nil
			}
			continue
		}
		n.askHeads(ctx)
		if !sleep(ctx, pause) {
			return nil
		}
		pause = min(2*pause, askHeadsMax)
	}
	return nil
}

// quiet is how long no own event may come from others: twice the longest round trip.
func (n *network) quiet() time.Duration {
	if n.l.overlay == nil {
		return 0
	}
	longest := time.Duration(0)
	for _, p := range n.l.overlay.Peers() {
		if p.Connected {
			longest = max(longest, p.RTT)
		}
	}
	return max(2*longest, quietLeast)
}

// askHeads asks all members that have not answered.
func (n *network) askHeads(ctx context.Context) {
	if n.l.overlay == nil {
		return
	}
	var answered []uint64
	if n.l.Do(ctx, func() {
		for id := range n.l.watch.answered {
			answered = append(answered, id)
		}
	}) != nil {
		return
	}
	var asked sync.WaitGroup
	for _, id := range n.connected() {
		if m := n.l.cfg.Member(id); m != 0 && !slices.Contains(answered, m) {
			asked.Go(func() { n.askHead(ctx, id, m) })
		}
	}
	asked.Wait()
}

// askHead asks one member. What it names counts as an answer once it is here.
func (n *network) askHead(ctx context.Context, id peer.ID, m uint64) {
	ctx, cancel := context.WithTimeout(ctx, headTimeout)
	defer cancel()
	raw, err := n.l.overlay.Request(ctx, id, protoHead, nil, consensus.MaxEvent)
	if err != nil {
		return
	}
	var e *consensus.Event
	if len(raw) > 0 {
		if e, err = consensus.Unmarshal(raw); err != nil || e.Creator != n.l.cfg.Self {
			n.l.intake.blameReply(m, err)
			return
		}
		if _, err := n.take(ctx, m, [][]byte{raw}); err != nil {
			return
		}
	}
	_ = n.l.Do(ctx, func() {
		// One of so long ago that its key is not known any more cannot be checked, and
		// nothing can be built on it: as if the member knew none.
		if n.l.watch != nil && (e == nil || n.l.has(e) || e.BirthRound < n.l.core.Epochs()[0].From) {
			n.l.watch.answered[m] = true
		}
	})
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
