package order

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/dcnode/dcnode/consensus"
)

// ErrOutside is what those get who submit at a node that was a member and is none any
// more: nobody would order it.
var ErrOutside = errors.New("this node is no longer a member: what it says is not ordered. A member that is one can have it let in again")

// keyring is the own keys by their public halves. While a key is changed there are
// two: rosters belong to rounds, and so do the keys in them. It may be used from any
// goroutine.
type keyring struct {
	mu   sync.RWMutex
	keys map[string]ed25519.PrivateKey
}

// add takes one more key.
func (r *keyring) add(k ed25519.PrivateKey) error {
	if len(k) != ed25519.PrivateKeySize {
		return fmt.Errorf("own key: it has %d bytes, want %d", len(k), ed25519.PrivateKeySize)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.keys == nil {
		r.keys = map[string]ed25519.PrivateKey{}
	}
	r.keys[string(k.Public().(ed25519.PublicKey))] = k
	return nil
}

// private is the key with that public half, or nil.
func (r *keyring) private(public ed25519.PublicKey) ed25519.PrivateKey {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.keys[string(public)]
}

// AddKey gives this member one more key, which a roster to come may name it by.
func (l *Loop) AddKey(key ed25519.PrivateKey) error {
	defer l.Wake()
	return l.keys.add(key)
}

// of is the own key by which a roster names a member; nil: none is.
func (r *keyring) of(ep *consensus.Epoch, id uint64) ed25519.PrivateKey {
	for i := range ep.Roster {
		if ep.Roster[i].ID == id {
			return r.private(ep.Roster[i].Key)
		}
	}
	return nil
}

// signed is the own key that an old event is signed with.
func (r *keyring) signed(e *consensus.Event) (ed25519.PublicKey, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, k := range r.keys {
		if pub := k.Public().(ed25519.PublicKey); e.Verify(pub) == nil {
			return pub, nil
		}
	}
	return nil, errPast
}

// voice is what a member may say, and why not. The loop's.
type voice struct {
	key     ed25519.PrivateKey // for an event born in the pending round; nil: it is silent
	outside bool               // in no roster in force
	unnamed bool               // the roster names it by a key that it does not have
}

// hear finds out whether this member may speak now. In the loop.
func (l *Loop) hear() {
	pub, member := l.core.Key(l.cfg.Self, l.core.Pending())
	v := voice{outside: !member || l.entering != nil}
	if !v.outside {
		v.key = l.keys.private(pub)
		v.unnamed = v.key == nil
	}
	switch {
	case v.unnamed && !l.voice.unnamed:
		l.log.Error("this member cannot speak: the roster names it by a key that it does not have", "member", l.cfg.Self, "round", l.core.Pending(), "key", fmt.Sprintf("%x", []byte(pub)))
	case v.outside && !l.voice.outside && l.spoken:
		l.log.Warn("this node is no longer a member", "round", l.core.Pending())
	}
	l.voice = v
	l.core.Observe(l.watch != nil || v.key == nil)
	l.gone.Store(v.outside && l.spoken && l.entering == nil && l.enters() == 0)
	if l.gone.Load() {
		l.pool.refuse()
	}
}

// enters is the first round that has this member in its roster, of those to come; 0:
// none is known.
func (l *Loop) enters() uint64 {
	for _, ep := range *l.epochs.Load() {
		if ep.From > l.core.Pending() && names(&ep, l.cfg.Self) {
			return ep.From
		}
	}
	return 0
}

func names(ep *consensus.Epoch, id uint64) bool {
	return slices.ContainsFunc(ep.Roster, func(m consensus.Member) bool { return m.ID == id })
}

// known reports whether a member is in a roster that is kept: of before, in force or
// to come. It may be called from any goroutine, as may hasLeft.
func (l *Loop) known(id uint64) bool {
	return slices.ContainsFunc(*l.epochs.Load(), func(ep consensus.Epoch) bool { return names(&ep, id) })
}

// hasLeft reports whether one who was a member is in no roster in force or to come:
// there is nothing to ask it for.
func (l *Loop) hasLeft(id uint64) bool {
	now := l.roster().From
	for _, ep := range *l.epochs.Load() {
		if ep.From >= now && names(&ep, id) {
			return false
		}
	}
	return l.known(id)
}
