package order_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/dcnode/dcnode/node/order"
	"github.com/dcnode/dcnode/node/order/ordertest"
)

// keeper is a journal that keeps something on disk beside the checkpoints of dir.
type keeper struct {
	ordertest.Journal
	dir  string
	hold chan struct{} // not nil: each Keep waits until it is closed

	mu     sync.Mutex
	times  int
	points map[string]bool // checkpoints that were on the disk at any Keep
	late   int             // calls of Keep that came after their checkpoint
}

func (k *keeper) Keep() {
	k.mu.Lock()
	k.look()
	if len(k.points) > k.times {
		k.late++
	}
	k.times++
	k.mu.Unlock()
	if k.hold != nil {
		<-k.hold
	}
}

// look notes the checkpoints on the disk. Older ones are removed, but not the newest two.
func (k *keeper) look() {
	_ = filepath.WalkDir(k.dir, func(path string, d os.DirEntry, err error) error {
		if name := filepath.Base(path); err == nil && strings.HasPrefix(name, "checkpoint-") && !strings.HasSuffix(name, ".new") {
			k.points[name] = true
		}
		return nil
	})
}

// counts are how often Keep was called, how often too late, and how many checkpoints
// there have been.
func (k *keeper) counts() (times, late, points int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.look()
	return k.times, k.late, len(k.points)
}

// withKeeper gives member 0 of a world a keeper and all of them a checkpoint every 16 rounds.
func withKeeper(w *world, hold chan struct{}) *keeper {
	k := &keeper{dir: w.members[0].dir, hold: hold, points: map[string]bool{}}
	for i, m := range w.members {
		m.config = func(c *order.Config) {
			fewRounds(c)
			if i == 0 {
				c.Machine, m.journal = k, &k.Journal
			}
		}
	}
	return k
}

func TestKeeperKeepsBeforeEachCheckpointIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4)
		k := withKeeper(w, nil)
		w.start()
		w.members[0].pass(100, 10)
		w.settled(0, 1, 2, 3)
		times, late, points := k.counts()
		if points < 3 || times != points || late > 0 {
			t.Errorf("Keep was called %d times for %d checkpoints, %d times after its checkpoint", times, points, late)
		}
	})
}

func TestSlowKeeperHoldsCheckpointsUpAndNotTheOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4)
		hold := make(chan struct{})
		k := withKeeper(w, hold)
		w.start()
		w.members[0].pass(100, 10)
		if times, _, points := k.counts(); times != 1 || points != 0 {
			t.Errorf("while the first Keep lasts, there are %d of them and %d checkpoints", times, points)
		}
		close(hold)
		w.settled(0, 1, 2, 3)
		times, late, points := k.counts()
		if points == 0 || times != points || late > 0 {
			t.Errorf("afterwards Keep was called %d times for %d checkpoints, %d times after its checkpoint", times, points, late)
		}
	})
}
