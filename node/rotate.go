package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/dcnode/dcnode/consensus"
	"github.com/dcnode/dcnode/consensus/ledger"
)

// A member changes its key in four steps, each of which a crash may interrupt:
//
//  1. the next key is made and kept beside the present one;
//  2. Rotate is ordered: the ledger has both, and the others admit both;
//  3. the new roster is in force: the node opens itself again and is reached at the
//     next key;
//  4. Rotate with no key is ordered: the old one is forgotten, and removed here.
//
// How far it has come is not written down anywhere but in the ledger: stage compares
// the keys that are here with those that it names.
type stage int

const (
	stageNone   stage = iota // no rotation is under way
	stageSay                 // the ledger has not heard of the next key
	stageWait                // it has, and the roster with it is not in force yet
	stageReopen              // the node is still reached at the old key
	stageForget              // the ledger still has the old key
	stageDone                // the ledger has the next key only
)

// stageOf is how far a rotation is. host is the peer that the node is now, inForce the
// roster of the round that is being decided.
func (n *Node) stageOf(m *ledger.Member, inForce []consensus.Member) stage {
	keys := n.identity()
	if keys.next == nil || m == nil {
		return stageNone
	}
	next := publicOf(keys.next)
	if !bytes.Equal(m.Key, next) {
		return stageSay
	}
	for _, c := range inForce {
		if c.ID == uint64(n.self) && !bytes.Equal(c.Key, next) {
			return stageWait
		}
	}
	switch {
	case n.host != peerOf(next):
		return stageReopen
	case len(m.Old) > 0:
		return stageForget
	}
	return stageDone
}

// stageNow is how far a rotation is now.
func (n *Node) stageNow(ctx context.Context) (st stage) {
	_ = n.order.do(ctx, func() { st = n.stageOf(n.order.state.Member(n.self), n.order.loop.InForce()) })
	return st
}

// identity are the keys now.
func (n *Node) identity() identity {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.keys
}

// turn carries on with a rotation, if there is one and nobody does so yet.
func (n *Node) turn(ctx context.Context) {
	n.turning.Lock()
	defer n.turning.Unlock()
	if err := n.rotation(ctx); err != nil && ctx.Err() == nil {
		n.log.Error("change the key of this member", "cause", err)
	}
}

// rotation carries a rotation on from wherever it is, until there is none.
func (n *Node) rotation(ctx context.Context) error {
	for {
		st := n.stageNow(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var err error
		switch st {
		case stageNone:
			return nil
		case stageSay:
			_, err = n.order.Submit(ctx, n.rotate())
		case stageWait:
			err = pause(ctx, lookAgain)
		case stageReopen:
			if err = n.rest(ctx); err == nil {
				n.end(fmt.Errorf("%w: with its new key", ErrReopen))
				return nil
			}
		case stageForget:
			if err = n.order.loop.Sync(); err == nil { // a start must never believe less than the others
				_, err = n.order.Submit(ctx, &ledger.Rotate{})
			}
		case stageDone:
			err = n.promote()
		}
		if err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			// Refused: the next key is kept all the same, for an earlier word about it
			// may be on its way.
			var refused *ledger.RefusedError
			if errors.As(err, &refused) && st == stageSay && n.stageNow(ctx) == stageSay {
				return err
			}
			n.log.Warn("change the key of this member", "cause", err)
			if err := pause(ctx, tryAgain); err != nil {
				return err
			}
		}
	}
}

// tryAgain is between two tries of a step.
const tryAgain = 5 * time.Second

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// rotate is the transaction that names the next key.
func (n *Node) rotate() *ledger.Rotate {
	next := n.identity().next
	public := publicOf(next)
	proof, err := next.Sign(ledger.RotateBytes(n.network, n.self, public))
	if err != nil {
		n.log.Error("sign with the next key", "cause", err)
	}
	return &ledger.Rotate{Key: public, Proof: proof}
}

// errResting is said to who wants to begin what opening the node again would cut.
var errResting = errors.New("this node is about to open itself again with its new key: ask again in a moment")

// embark counts a move or a bid in that begins here, until the function that it returns
// is called. A node that rests begins nothing.
func (n *Node) embark() (end func(), err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.begun++
	if n.resting {
		err = errResting
	}
	return sync.OnceFunc(func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.begun--
	}), err
}

// rest lets no move begin and waits a while until none is under way from here or to
// here: opening the node again would cut it.
func (n *Node) rest(ctx context.Context) error {
	n.mu.Lock()
	n.resting = true
	n.mu.Unlock()
	late := time.Now().Add(restWithin)
	for {
		moving, err := n.takesPart(ctx)
		if err != nil {
			return err
		}
		if !moving || time.Now().After(late) {
			return n.order.loop.Sync()
		}
		if err := pause(ctx, lookAgain); err != nil {
			return err
		}
	}
}

// takesPart says whether this node moves a machine or may be selected to take one.
func (n *Node) takesPart(ctx context.Context) (bool, error) {
	n.mu.Lock()
	busy := n.begun > 0 || len(n.outs)+len(n.ins) > 0
	n.mu.Unlock()
	s, err := n.order.State(ctx) // after that look: what had begun is in the ledger by now
	if err != nil || busy {
		return busy, err
	}
	ours := func(b *ledger.Bid) bool { return b.Member == n.self && b.Able }
	for m := range s.Machines() {
		mv := m.Move
		if mv != nil && (mv.From == n.self || mv.To == n.self || mv.Phase == ledger.Bidding && slices.ContainsFunc(mv.Bids, ours)) {
			return true, nil
		}
	}
	return false, nil
}

// makeNext makes the next key, or finds the one that was made before.
func (n *Node) makeNext() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.keys.next != nil {
		return nil
	}
	key, raw, err := newIdentity()
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(n.cfg.Dir, nextKeyFile), raw, 0o600); err != nil {
		return err
	}
	if err := syncDir(n.cfg.Dir); err != nil {
		return err
	}
	private, err := key.Raw()
	if err == nil {
		err = n.order.loop.AddKey(private)
	}
	if err != nil {
		return fmt.Errorf("take the next key: %w", err)
	}
	n.keys.next = key
	return nil
}

// promote makes the next key the only one.
func (n *Node) promote() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := os.Rename(filepath.Join(n.cfg.Dir, nextKeyFile), filepath.Join(n.cfg.Dir, identityFile)); err != nil {
		return fmt.Errorf("keep the new key: %w", err)
	}
	n.keys = identity{key: n.keys.next}
	n.log.Info("this member has another key; the old one is forgotten", "peer", n.host)
	return syncDir(n.cfg.Dir)
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}
