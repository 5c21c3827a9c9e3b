package order

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/dcnode/dcnode/consensus"
	"github.com/dcnode/dcnode/node/eventlog"
)

// A member that was invited to an overlay knows nothing but the roster that it was told
// (Config.Trust). It asks those members for checkpoints, believes one that enough of
// them signed, and goes on from there. What the checkpoint says of the roster counts
// only then.
const (
	enterPatience = 30 * time.Second // until members of a third of the weight are enough
	enterAgain    = time.Second / 4  // between the first two tries
	enterAgainMax = 10 * time.Second
)

// genesisFile is there if the others said that there is no checkpoint yet, and this
// member is a founder: it begins at the first event.
const genesisFile = "genesis"

// enteringFirst reports whether this member needs a checkpoint of the others.
func (l *Loop) enteringFirst(found eventlog.Opened) bool {
	if found.Checkpoint != nil || l.events.Next() > 0 || len(l.cfg.Trust) == 0 {
		return false
	}
	_, err := os.Stat(filepath.Join(l.cfg.Dir, genesisFile))
	return err != nil
}

// isYoung: this member is a founder, and members of more than two thirds of the weight
// have no checkpoint, this one included.
func (n *network) isYoung(a answers) bool {
	if !names(&consensus.Epoch{Roster: n.l.cfg.Roster}, n.l.cfg.Self) || len(a.offered) > 0 || a.strange > 0 {
		return false
	}
	var held, total uint64
	for _, m := range n.l.cfg.Trust {
		total += m.Weight
		if !slices.Contains(a.silent, m.ID) {
			held += m.Weight
		}
	}
	return held > 2*total/3
}

// beginAtGenesis ends the loop so that the next start begins at the first event. In the
// loop.
func (l *Loop) beginAtGenesis() {
	if l.fatal = ErrRejoined; os.WriteFile(filepath.Join(l.cfg.Dir, genesisFile), nil, 0o600) != nil {
		l.fatal = fmt.Errorf("note that this member begins at the first event: is %s writable?", l.cfg.Dir)
	}
}

// Entering is how far a node is that begins at a checkpoint of the others.
type Entering struct {
	Since  time.Time
	Tries  int      // how often all were asked
	Silent []uint64 // members that did not answer the last time
	Lacks  string   // what is lacking, in words
}

// entering is the same, while it changes. It may be used from any goroutine.
type entering struct {
	mu  sync.Mutex
	now Entering
}

func newEntering() *entering {
	return &entering{now: Entering{Since: time.Now(), Lacks: "no member has been asked yet"}}
}

func (e *entering) status() *Entering {
	if e == nil {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.now
	return &now
}

// note takes down how a try ended.
func (e *entering) note(a answers, lacks string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.now.Tries++
	e.now.Silent, e.now.Lacks = a.silent, lacks
}

// enter asks until there is a checkpoint to begin at, which ends the loop.
func (n *network) enter(ctx context.Context) error {
	began := time.Now()
	for pause := enterAgain; ; pause = min(2*pause, enterAgainMax) {
		a := n.ask(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if n.isYoung(a) {
			n.l.log.Info("the overlay has no checkpoint yet: this founder begins at the first event")
			_ = n.l.Do(ctx, n.l.beginAtGenesis)
			return nil
		}
		few := time.Since(began) >= enterPatience
		best, from := n.choose(a.offered, few)
		lacks := n.lacks(a, few)
		if best != nil {
			n.l.log.Info("this node begins at a checkpoint of the others", "round", best.round, "signed_by", len(from))
			err := n.takeOver(ctx, best, from)
			if err == nil || ctx.Err() != nil {
				return nil
			}
			lacks = fmt.Sprintf("the state of the checkpoint of round %d could not be fetched: %v", best.round, err)
		}
		n.l.entering.note(a, lacks)
		n.l.log.Info("this node has no checkpoint to begin at yet", "cause", lacks)
		if !sleep(ctx, pause) {
			return nil
		}
	}
}

// lacks says why nothing could be chosen of what members answered.
func (n *network) lacks(a answers, few bool) string {
	asked := 0
	for _, m := range n.l.cfg.Trust {
		if m.ID != n.l.cfg.Self {
			asked++
		}
	}
	need := "two thirds"
	if few {
		need = "a third"
	}
	switch {
	case len(a.silent) == asked:
		return fmt.Sprintf("none of the %d members in the invitation answers", asked)
	case len(a.offered) > 0:
		return fmt.Sprintf("no checkpoint is signed alike by members of more than %s of the weight in the invitation; %d of its %d members do not answer, %d sign with other keys", need, len(a.silent), asked, a.strange)
	case a.strange > 0:
		return fmt.Sprintf("%d members sign with other keys than the invitation says: ask for a new one", a.strange)
	}
	return "the members that answer have no checkpoint yet: they take one when a roster with this node is about to begin"
}
