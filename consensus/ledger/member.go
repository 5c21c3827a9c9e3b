package ledger

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"encoding/binary"
	"math"
	"slices"
)

// MaxMembers is how many members an overlay may have: as many as the order takes.
const MaxMembers = 64

// Bounds of the roster.
const (
	maxWeight      = 1 << 32 // of one member
	maxProposals   = 16      // that are open, without those that somebody leaves
	maxProposalsOf = 4       // by one member
)

// CardBytes are what a new member's key signs of its card, and so what Propose.Proof
// is a signature of: whoever puts a key into the roster shows that its holder wants
// to be there as that site, in that region and with that weight.
//
// network is the overlay's name, so that the card is of no use in another; it is zero in
// the card of a founder, which its overlay is named after. before is the number that a
// member with that key had last, see State.LastNumber: who has joined by a card and left
// does not join by it again. 0: none.
func CardBytes(network [32]byte, site, region string, weight uint64, key []byte, before MemberID) []byte {
	b := signed("dcnode member card v2\x00", network[:], []byte(site), []byte(region), key)
	b = binary.BigEndian.AppendUint64(b, weight)
	return binary.BigEndian.AppendUint64(b, uint64(before))
}

// RotateBytes are what the new key of a member signs, and so what Rotate.Proof is a
// signature of. network is the overlay's name.
func RotateBytes(network [32]byte, member MemberID, key []byte) []byte {
	b := signed("dcnode key rotation v1\x00", network[:], key)
	return binary.BigEndian.AppendUint64(b, uint64(member))
}

// signed is a domain and parts of it, each after its length: no two lists of parts
// have the same bytes.
func signed(domain string, parts ...[]byte) []byte {
	b := []byte(domain)
	for _, p := range parts {
		b = append(binary.BigEndian.AppendUint64(b, uint64(len(p))), p...)
	}
	return b
}

// apply opens a proposal, with its author's vote for it.
func (t *Propose) apply(s *State, a *act) ([]Effect, error) {
	if err := checkText("reason", t.Reason); err != nil {
		return nil, err
	}
	p := &Proposal{
		ID: a.Index, Event: a.Event[:], Change: t.Change, Member: t.Member, Site: t.Site, Region: t.Region, Weight: t.Weight,
		Key: t.Key, Force: t.Force, By: a.Author, Reason: t.Reason, Round: a.Round,
	}
	var err error
	switch t.Change {
	case Join:
		err = t.join(s, a, p)
	case Leave:
		err = t.leave(s, p)
	case Update:
		err = t.update(s, p)
	default:
		err = refuse("a proposal is to %s, %s or %s, not to %.70q", Join, Leave, Update, string(t.Change))
	}
	if err == nil {
		err = s.mayPropose(a, p)
	}
	if err != nil {
		return nil, err
	}
	if t.Change == Join {
		s.lastID = p.Member
	}
	content := t.Digest(a.Event, a.Author, p.Member)
	p.Content = content[:]
	p.Yes = []Vote{{Member: a.Author, Event: a.Event[:]}}
	s.votes = append(s.votes, p)
	return append([]Effect{{Kind: KindPropose, Member: p.Member}}, s.decide(a.Place)...), nil
}

// mayPropose bounds the proposals that are open.
func (s *State) mayPropose(a *act, p *Proposal) error {
	open, own := 0, 0
	for _, o := range s.votes {
		if o.Change != Leave { // whoever fills the list can still be voted out
			open++
		}
		if o.By == a.Author {
			own++
		}
		if o.Change == p.Change && o.Change != Join && o.Member == p.Member && o.Region == p.Region && o.Weight == p.Weight && o.Force == p.Force {
			return refuse("proposal %d asks for that already: vote for it", o.ID)
		}
		if o.ID == p.ID {
			return refuse("another proposal stands in the same event: make this one again")
		}
	}
	switch {
	case p.Change != Leave && open >= maxProposals:
		return refuse("%d proposals wait for votes: vote on them first", open)
	case own >= maxProposalsOf:
		return refuse("%d proposals of %s wait for votes: let them be voted on first", own, a.site())
	}
	return nil
}

// join checks a new member's card, and allots its number: whatever becomes of the
// proposal, nobody else will have that.
func (t *Propose) join(s *State, a *act, p *Proposal) error {
	if t.Member != 0 || t.Force {
		return refuse("a new member is given its number by the ledger, and force is for leaving")
	}
	if err := CheckName("site", t.Site); err != nil {
		return err
	}
	if t.Region != "" {
		if err := CheckName("region", t.Region); err != nil {
			return err
		}
	}
	if t.Weight == 0 || t.Weight > maxWeight {
		return refuse("site %s: a weight of %d is not between 1 and 2^32", t.Site, t.Weight)
	}
	coming := 0
	for _, o := range s.votes {
		if o.Change == Join {
			coming++
			if o.Site == t.Site {
				return refuse("site %s is proposed already, by proposal %d: vote for that", t.Site, o.ID)
			}
		}
	}
	switch acc, found := s.accounts.Get(t.Site); {
	case s.BySite(t.Site) != nil:
		return refuse("site %s is a member already: choose another name", t.Site)
	case found && !acc.left(t.Key):
		return refuse("site %s: an account has that name: choose another", t.Site)
	case len(s.members)+coming >= MaxMembers:
		return refuse("an overlay has %d members at most, proposed ones among them", MaxMembers)
	case s.lastID == math.MaxUint64:
		return refuse("there is no number left for another member")
	}
	if err := s.freeKey(t.Key); err != nil {
		return err
	}
	if !verify(t.Key, CardBytes(a.network, t.Site, t.Region, t.Weight, t.Key, s.LastNumber(t.Key)), t.Proof) {
		return refuse("site %s: its key has not signed this card for this overlay, or was a member's by it before: let that site make another with `dcnode init`", t.Site)
	}
	p.Member = s.lastID + 1
	return nil
}

// freeKey refuses a key that is not of Ed25519, or that somebody has, had before a
// rotation that is not over, or would have.
func (s *State) freeKey(key []byte) error {
	if len(key) != ed25519.PublicKeySize {
		return refuse("a key of %d bytes: an Ed25519 key has %d", len(key), ed25519.PublicKeySize)
	}
	for _, m := range s.members {
		if bytes.Equal(m.Key, key) || bytes.Equal(m.Old, key) {
			return refuse("that key is of %s: each member has a key of its own", m.Site)
		}
	}
	for _, p := range s.votes {
		if bytes.Equal(p.Key, key) {
			return refuse("that key is of site %s, of proposal %d: each member has a key of its own", p.Site, p.ID)
		}
	}
	return nil
}

func (t *Propose) leave(s *State, p *Proposal) error {
	m := s.member(t.Member)
	switch {
	case m == nil:
		return refuse("member %d is not in the roster", t.Member)
	case t.Site != "" || t.Region != "" || t.Weight != 0 || len(t.Key)+len(t.Proof) > 0:
		return refuse("a proposal that %s leaves names it and nothing else", m.Site)
	}
	p.Site = m.Site
	return s.mayLeave(m, t.Force)
}

// update checks a change of region or weight. A site keeps its name: policies and
// accounts know it by that.
func (t *Propose) update(s *State, p *Proposal) error {
	m := s.member(t.Member)
	switch {
	case m == nil:
		return refuse("member %d is not in the roster", t.Member)
	case t.Site != "" && t.Site != m.Site:
		return refuse("site %s keeps its name: policies and accounts know it by that", m.Site)
	case len(t.Key)+len(t.Proof) > 0 || t.Force:
		return refuse("site %s: only its region and weight can be changed by votes; its key is its own to rotate", m.Site)
	case t.Weight > maxWeight:
		return refuse("site %s: a weight of %d is not between 1 and 2^32", m.Site, t.Weight)
	case (t.Region == "" || t.Region == m.Region) && (t.Weight == 0 || t.Weight == m.Weight):
		return refuse("site %s has that region and weight already", m.Site)
	}
	if t.Region != "" {
		if err := CheckName("region", t.Region); err != nil {
			return err
		}
	}
	p.Site = m.Site
	return nil
}

// apply counts a vote; the last word of a member counts.
func (t *CastVote) apply(s *State, a *act) ([]Effect, error) {
	i := slices.IndexFunc(s.votes, func(p *Proposal) bool { return p.ID == t.Proposal })
	if i < 0 {
		return nil, refuse("there is no proposal %d that waits for votes", t.Proposal)
	}
	p := *s.votes[i]
	if !bytes.Equal(t.Digest, p.Content) {
		return nil, refuse("the vote is on another proposal %d than this one: look again, and vote again", p.ID)
	}
	p.Yes, p.No = drop(p.Yes, a.Author), drop(p.No, a.Author)
	list := &p.No
	if t.Yes {
		list = &p.Yes
	}
	k, _ := slices.BinarySearchFunc(*list, a.Author, func(v Vote, id MemberID) int { return cmp.Compare(v.Member, id) })
	*list = slices.Insert(*list, k, Vote{Member: a.Author, Event: a.Event[:]})
	if t.Yes && s.weighed(p.Yes).passes(s.Weight()) {
		if err := s.mayEnact(&p); err != nil {
			return nil, err
		}
	}
	s.votes[i] = &p
	return append([]Effect{{Kind: KindVote, Member: p.Member}}, s.decide(a.Place)...), nil
}

// drop is a list of votes without that of one member; the list is the caller's own.
func drop(votes []Vote, id MemberID) []Vote {
	return slices.DeleteFunc(slices.Clone(votes), func(v Vote) bool { return v.Member == id })
}

// weight of votes. With at most MaxMembers of at most maxWeight, three times all of it
// is far from an overflow.
type weight uint64

// weighed is the weight of those that voted so and are members now.
func (s *State) weighed(votes []Vote) weight {
	var sum weight
	for _, v := range votes {
		if m := s.member(v.Member); m != nil {
			sum += weight(m.Weight)
		}
	}
	return sum
}

// passes says that it is more than two thirds of all.
func (w weight) passes(total uint64) bool { return 3*uint64(w) > 2*total }

// stops says that the others are not more than two thirds of all.
func (w weight) stops(total uint64) bool { return 3*uint64(w) >= total }

// decide carries out what has its votes, and drops what cannot have them any more,
// until nothing changes: each change of the roster changes what is enough. So a proposal
// that a member leaves may have its votes while the member still owns machines. It waits
// for the last of them to go, or for its time to be over; see settled.
func (s *State) decide(p Place) []Effect {
	var out []Effect
	for i := 0; i < len(s.votes); i++ {
		v, total := s.votes[i], s.Weight()
		switch {
		case s.weighed(v.Yes).passes(total) && s.mayEnact(v) == nil:
			proof := s.proof(v)
			s.votes = slices.Delete(s.votes, i, i+1)
			out = append(out, s.enact(v, proof, p)...)
			i = -1 // all over again
		case s.weighed(v.No).stops(total):
			s.votes = slices.Delete(s.votes, i, i+1)
			out = append(out, Effect{Kind: KindRejected, Member: v.Member})
			i--
		}
	}
	return out
}

// lapse gives proposals their time to find votes, which counts as deadlines of moves
// do, and drops those whose time is over.
func (s *State) lapse(p Place) []Effect {
	var out []Effect
	for i := 0; i < len(s.votes); i++ {
		v := s.votes[i]
		switch {
		case v.Expires == 0 && p.Round > v.Round:
			next := *v
			next.Expires = later(s.now, s.rules.Vote)
			s.votes[i] = &next
		case v.Expires != 0 && s.now >= v.Expires:
			s.votes = slices.Delete(s.votes, i, i+1)
			out = append(out, Effect{Kind: KindLapsed, Member: v.Member})
			i--
		}
	}
	return out
}

// A member may take some keys in a row, for it may fear for the last one too, and then one
// in a while: nobody votes on it, and each makes a new roster, with a checkpoint to begin
// at, and an entry that the state keeps for ever.
const (
	rotateEvery = 6 * Hour
	rotateAhead = 3 * rotateEvery // four in a row
)

// apply gives the author another key or, without one, forgets the key before.
func (t *Rotate) apply(s *State, a *act) ([]Effect, error) {
	next := *a.author
	effects := []Effect{{Kind: KindRotate, Member: a.Author}, {Kind: KindRoster, Member: a.Author}}
	if len(t.Key) == 0 {
		if len(t.Proof) > 0 || len(next.Old) == 0 {
			return nil, refuse("%s has no key before this one to forget", a.site())
		}
		next.Old = nil
		s.putMember(&next)
		return effects, nil
	}
	if len(next.Old) > 0 {
		return nil, refuse("%s has not ended its last rotation: let it forget the key before first", a.site())
	}
	if wait := next.Rotated - later(s.now, rotateAhead); wait > 0 {
		return nil, refuse("%s has changed its key too often: it may again in %s", a.site(), seconds(int64((wait+Minute)/Millisecond)))
	}
	if err := s.freeKey(t.Key); err != nil {
		return nil, err
	}
	if !verify(t.Key, RotateBytes(a.network, a.Author, t.Key), t.Proof) {
		return nil, refuse("%s: the new key has not signed the rotation", a.site())
	}
	next.Key, next.Old, next.Rotated = t.Key, a.author.Key, later(max(next.Rotated, s.now), rotateEvery)
	s.putMember(&next)
	s.noteRoster(a.Place, Rotation, &next, [][]byte{a.Event[:]})
	return effects, nil
}
