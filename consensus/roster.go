package consensus

import (
	"crypto/ed25519"
	"fmt"
)

// maxWeight bounds the sum of weights, so that no product overflows.
const maxWeight = 1 << 48

// maxNonAncient bounds the rounds that are kept.
const maxNonAncient = 1 << 10

// check says what is wrong with a roster or its parameters.
func (ep *Epoch) check() error {
	var total uint64
	for i, m := range ep.Roster {
		if i > 0 && ep.Roster[i-1].ID >= m.ID {
			return fmt.Errorf("the roster is not in the order of IDs at member %d", m.ID)
		}
		if m.Weight > maxWeight || total+m.Weight > maxWeight {
			return fmt.Errorf("the weights add up to more than %d at member %d", uint64(maxWeight), m.ID)
		}
		if len(m.Key) != 0 && len(m.Key) != ed25519.PublicKeySize {
			return fmt.Errorf("the key of member %d has %d bytes, want %d", m.ID, len(m.Key), ed25519.PublicKeySize)
		}
		total += m.Weight
	}
	p := ep.Params
	switch {
	case len(ep.Roster) > MaxMembers:
		return fmt.Errorf("%d members, at most %d are allowed", len(ep.Roster), MaxMembers)
	case total == 0:
		return fmt.Errorf("no member has weight")
	case p.SeeDen == 0 || p.SeeDen > 1000 || p.SeeNum > p.SeeDen || 2*p.SeeNum < p.SeeDen:
		return fmt.Errorf("the see fraction %d/%d is not between 1/2 and 1/1", p.SeeNum, p.SeeDen)
	case p.CoinInterval < 2 || p.NonAncientRounds == 0 || p.NonAncientRounds > maxNonAncient:
		return fmt.Errorf("coin interval %d (2 or more) or non-ancient rounds %d (1 to %d) is out of range", p.CoinInterval, p.NonAncientRounds, maxNonAncient)
	}
	return nil
}

// Change has a new roster and new parameters obeyed from round + ChangeDelay on; round
// is the one that ordered the change. Call it while handling the Ready with that
// round among its Ordered, before its Advance. Of several changes ordered in one
// round the last one counts. Params zero: as they were. An error says what is wrong
// with the change, the same at every member; then nothing is changed.
func (c *Core) Change(round uint64, roster []Member, p Params) error {
	return fmt.Errorf("change the roster in round %d: not possible yet", round)
}

// Epochs are the rosters and parameters in force, those to come, and those of
// earlier rounds whose events are still open. Read only.
func (c *Core) Epochs() []Epoch {
	return []Epoch{{From: 1, Roster: c.cfg.Roster, Params: c.cfg.Params}}
}

// Key is the key that a creator signs events with that are born in a round, and
// whether it is a member then. For rounds so far ahead that their roster can still
// change it is the key of the last roster that is known; an event of such a round is
// dropped again later if its creator turns out to have changed keys.
func (c *Core) Key(creator, birth uint64) (ed25519.PublicKey, bool) {
	m, ok := c.member[creator]
	if !ok {
		return nil, false
	}
	return c.cfg.Roster[m].Key, true
}
