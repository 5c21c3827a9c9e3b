package certificate

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"

	"github.com/dcnode/dcnode/consensus"
	"github.com/dcnode/dcnode/consensus/ledger"
)

// ever are all keys that a member has had.
func (v *verifier) ever(id ledger.MemberID) []ed25519.PublicKey { return v.keys[id] }

// lately are a member's key and the one before: a vote may be older than a rotation.
func (v *verifier) lately(id ledger.MemberID) []ed25519.PublicKey {
	k := v.keys[id]
	return k[max(len(k)-2, 0):]
}

// now is a member's key.
func (v *verifier) now(id ledger.MemberID) []ed25519.PublicKey {
	k := v.keys[id]
	return k[max(len(k)-1, 0):]
}

// follow goes from the founding roster to that of the state, change by change.
func (v *verifier) follow() error {
	var last uint64
	for i := range v.cert.Roster {
		t := &v.cert.Roster[i]
		err := error(nil)
		if t.Index < last {
			err = fmt.Errorf("index %d is before that of the change before it", t.Index)
		}
		last = t.Index
		if err == nil {
			err = v.transition(t)
		}
		if err != nil {
			return fmt.Errorf("change %d (%s of member %d): %w", i+1, t.Change, t.Member, err)
		}
	}
	return nil
}

// transition checks one change, and makes it.
func (v *verifier) transition(t *Transition) error {
	change := ledger.RosterChange{
		Index: t.Index, Change: t.Change, Member: t.Member, Site: t.Site, Region: t.Region, Weight: t.Weight, Key: t.Key,
	}
	if len(t.Events) == 0 || len(t.Events) > ledger.MaxMembers+1 || len(t.Key) != ed25519.PublicKeySize || t.Weight > 1<<32 {
		return errors.New("it has no events, or too many, or a key or a weight that cannot be")
	}
	for _, raw := range t.Events {
		e, err := consensus.Unmarshal(raw)
		if err != nil {
			return err
		}
		h := e.Hash()
		change.Events = append(change.Events, h[:])
	}
	err := error(nil)
	if t.Change == ledger.Rotation {
		err = v.rotated(t)
	} else {
		err = v.voted(t)
	}
	if err != nil {
		return err
	}
	before := member(v.roster, t.Member)
	next, err := change.Changed(v.roster)
	if err != nil {
		return err
	}
	// What the change leaves as it was must be shown as it was.
	if after := member(next, t.Member); before != nil && (t.Change == ledger.Leave || t.Change == ledger.Rotation) {
		if t.Site != before.Site || t.Region != before.Region || t.Weight != before.Weight || t.Change == ledger.Leave && !bytes.Equal(t.Key, before.Key) {
			return errors.New("it shows another member than was in the roster before it")
		}
	} else if after != nil && !bytes.Equal(after.Key, t.Key) {
		return errors.New("it shows another key than was in the roster before it")
	}
	if total(next) == 0 || len(next) > ledger.MaxMembers {
		return fmt.Errorf("it leaves %d members with weight %d", len(next), total(next))
	}
	if t.Change == ledger.Join {
		if _, again := v.keys[t.Member]; again {
			return fmt.Errorf("number %d was another member's: numbers are never used again", t.Member)
		}
	}
	if t.Change == ledger.Join || t.Change == ledger.Rotation {
		v.keys[t.Member] = append(v.keys[t.Member], ed25519.PublicKey(t.Key))
	}
	v.sites[t.Member] = t.Site
	v.roster, v.log = next, append(v.log, change)
	return nil
}

// rotated checks that the old key has named the new one, and that the new one is there.
func (v *verifier) rotated(t *Transition) error {
	if len(t.Events) != 1 {
		return fmt.Errorf("%d events, want the one that says it", len(t.Events))
	}
	e, err := v.event(t.Events[0], v.now)
	if err != nil {
		return err
	}
	if ledger.MemberID(e.Creator) != t.Member {
		return fmt.Errorf("event %x is by member %d: only a member itself takes another key", short(e), e.Creator)
	}
	if !slices.ContainsFunc(said[*ledger.Rotate](e), func(r *ledger.Rotate) bool {
		return bytes.Equal(r.Key, t.Key) && signedBy(ed25519.PublicKey(t.Key), ledger.RotateBytes(v.network, t.Member, t.Key), r.Proof)
	}) {
		return fmt.Errorf("event %x does not name key %x with its proof", short(e), t.Key[:8])
	}
	return nil
}

// voted checks that members of more than two thirds of the weight agreed to a proposal.
func (v *verifier) voted(t *Transition) error {
	first, err := v.event(t.Events[0], v.lately)
	if err != nil {
		return fmt.Errorf("the proposal: %w", err)
	}
	for _, p := range said[*ledger.Propose](first) {
		if !v.proposes(p, t) {
			continue
		}
		by := ledger.MemberID(first.Creator)
		digest := p.Digest(first.Hash(), by, t.Member)
		if v.used[digest] {
			return errors.New("its proposal has been carried out before")
		}
		if err = v.votes(t, by, digest); err == nil {
			v.used[digest] = true
			return nil
		}
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("event %x does not propose it", short(first))
}

// proposes says whether a proposal leads to what the change says.
func (v *verifier) proposes(p *ledger.Propose, t *Transition) bool {
	if p.Change != t.Change {
		return false
	}
	same := func(said, is string) bool { return said == "" || said == is }
	switch was := member(v.roster, t.Member); t.Change {
	case ledger.Join:
		return p.Site == t.Site && p.Region == t.Region && p.Weight == t.Weight && bytes.Equal(p.Key, t.Key) &&
			signedBy(ed25519.PublicKey(t.Key), ledger.CardBytes(v.network, p.Site, p.Region, p.Weight, p.Key, v.lastNumber(p.Key)), p.Proof)
	case ledger.Leave:
		return p.Member == t.Member
	case ledger.Update:
		return was != nil && p.Member == t.Member && same(p.Site, t.Site) && same(p.Region, t.Region) &&
			(p.Weight == t.Weight || p.Weight == 0 && was.Weight == t.Weight) &&
			(p.Site != "" || was.Site == t.Site) && (p.Region != "" || was.Region == t.Region)
	}
	return false
}

// lastNumber is what State.LastNumber was before the change that is being followed.
func (v *verifier) lastNumber(key []byte) (id ledger.MemberID) {
	for i := range v.log {
		if bytes.Equal(v.log[i].Key, key) {
			id = max(id, v.log[i].Member)
		}
	}
	return id
}

// votes counts the votes for a proposal, by the roster before it is carried out. Who
// proposed it has voted for it by that.
func (v *verifier) votes(t *Transition, by ledger.MemberID, digest [32]byte) error {
	var yes uint64
	counted := map[ledger.MemberID]bool{}
	take := func(id ledger.MemberID) error {
		m := member(v.roster, id)
		switch {
		case m == nil:
			return fmt.Errorf("member %d votes and is not in the roster", id)
		case counted[id] && id != by:
			return fmt.Errorf("member %d votes twice", id)
		case !counted[id]:
			yes += m.Weight
		}
		counted[id] = true
		return nil
	}
	if member(v.roster, by) != nil {
		if err := take(by); err != nil {
			return err
		}
	}
	for _, raw := range t.Events[1:] {
		e, err := v.event(raw, v.lately)
		if err != nil {
			return fmt.Errorf("a vote: %w", err)
		}
		about := slices.DeleteFunc(said[*ledger.CastVote](e), func(c *ledger.CastVote) bool { return !bytes.Equal(c.Digest, digest[:]) })
		if len(about) == 0 || !about[len(about)-1].Yes { // the last word counts
			return fmt.Errorf("event %x holds no vote for it", short(e))
		}
		if err := take(ledger.MemberID(e.Creator)); err != nil {
			return err
		}
	}
	if all := total(v.roster); !enough(yes, all) {
		return fmt.Errorf("members of weight %d of %d voted for it, it takes more than two thirds", yes, all)
	}
	return nil
}
