package order

import (
	"crypto/ed25519"
	"errors"
	"sync"

	"github.com/dcnode/dcnode/consensus"
)

var errForged = errors.New("its signature was found to be forged before")

// signed names an event together with its signature and the key that it was checked
// with. The signature must be part of the name: a forged one would else make the true
// event look like a duplicate. So must the key: rosters may change it.
type signed struct {
	hash consensus.Hash
	sig  [ed25519.SignatureSize]byte
	key  [ed25519.PublicKeySize]byte
}

// seen remembers whose signatures were checked, the last 8192 at least.
type seen struct {
	mu       *sync.Mutex
	now, old map[signed]bool
}

const seenHalf = 8192

func newSeen() seen { return seen{mu: new(sync.Mutex), now: map[signed]bool{}} }

func (s *seen) look(n signed) (valid, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if valid, known = s.now[n]; !known {
		valid, known = s.old[n]
	}
	return valid, known
}

func (s *seen) note(n signed, valid bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.now) >= seenHalf {
		s.old, s.now = s.now, make(map[signed]bool, seenHalf)
	}
	s.now[n] = valid
}
