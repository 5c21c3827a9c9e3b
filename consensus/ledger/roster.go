package ledger

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"iter"
	"slices"
	"strconv"

	"github.com/dcnode/dcnode/consensus/ledger/merkle"
)

// Rotation is the Change of a RosterChange that was no proposal: a member has taken
// another key.
const Rotation Change = "rotate"

// RosterChange is one change of the roster, as the state keeps it for ever: with the
// events that it names, whoever has the founding roster can follow it to that of today.
type RosterChange struct {
	Index  uint64   `json:"index"`  // of the event from which on it holds
	Change Change   `json:"change"` // Join, Leave, Update or Rotation
	Member MemberID `json:"member"`
	Site   string   `json:"site"`   // of the member, as it is now; of a Leave, as it was
	Region string   `json:"region"` // likewise
	Weight uint64   `json:"weight"` // likewise
	Key    []byte   `json:"key"`    // likewise
	// Events are hashes: of a proposal, the event that proposed it and then those in
	// which the votes for it were cast that counted; of a Rotation, the event that said it.
	Events [][]byte `json:"events"`
}

// rosterKey is a change's key in State.changes.
func rosterKey(version uint64) string { return strconv.FormatUint(version, 10) }

// noteRoster counts a change of the roster and takes it down. m is the member as it is
// after the change or, of a Leave, as it was before; see proof for events.
func (s *State) noteRoster(p Place, c Change, m *Member, events [][]byte) {
	s.roster++
	change := &RosterChange{
		Index: p.Index, Change: c, Member: m.ID, Site: m.Site, Region: m.Region, Weight: m.Weight, Key: slices.Clone(m.Key),
		Events: events,
	}
	s.changes = s.changes.Set(rosterKey(s.roster), change)
	s.index.number(change)
}

// LastNumber is the highest number of a member with that key, as far as changes of the
// roster tell of it; 0: none. Founders of whom none tells have no card to join by.
func (s *State) LastNumber(key []byte) MemberID {
	id, _ := s.index.numbers.Get(string(key))
	return id
}

// proof names the events that show that a proposal has passed: to be asked before the
// roster is changed, for only the votes of those in it count.
func (s *State) proof(p *Proposal) [][]byte {
	events := [][]byte{p.Event}
	for _, v := range p.Yes {
		if s.member(v.Member) != nil && !slices.ContainsFunc(events, func(e []byte) bool { return slices.Equal(e, v.Event) }) {
			events = append(events, v.Event)
		}
	}
	return events
}

// RosterChange is the change that made that version of the roster, or nil. Read only.
func (s *State) RosterChange(version uint64) *RosterChange {
	c, _ := s.changes.Get(rosterKey(version))
	return c
}

// RosterChanges are all changes since the overlay was founded, with the version that
// each made, in their order. Read only.
func (s *State) RosterChanges() iter.Seq2[uint64, *RosterChange] {
	return func(yield func(uint64, *RosterChange) bool) {
		for v := uint64(1); v <= s.roster; v++ {
			if !yield(v, s.RosterChange(v)) {
				return
			}
		}
	}
}

// checkChanges says what is wrong with the log of a state that was read.
func (s *State) checkChanges() error {
	if uint64(s.changes.Len()) != s.roster {
		return fmt.Errorf("the roster has changed %d times and %d changes are kept", s.roster, s.changes.Len())
	}
	var last uint64
	for v, c := range s.RosterChanges() {
		if c == nil || len(c.Key) > merkle.MaxKey || c.Index < last || c.Index >= s.next {
			return fmt.Errorf("change %d of the roster is lacking or not at its place", v)
		}
		last = c.Index
	}
	return nil
}

// Digest names a proposal with all that it would do: the Propose itself, the event that
// carried it, who that was by, and whom it is about, which of a Join the ledger says. It
// is kept as Proposal.Content, and votes carry it: the signature of a vote then says by
// itself what was voted for, to someone who has no ledger.
func (t *Propose) Digest(event [32]byte, by, member MemberID) [32]byte {
	b := append([]byte("dcnode proposal v1\x00"), event[:]...)
	for _, s := range []string{string(t.Change), t.Site, t.Region, string(t.Key), string(t.Proof), t.Reason} {
		b = append(binary.BigEndian.AppendUint64(b, uint64(len(s))), s...)
	}
	for _, n := range []uint64{uint64(by), uint64(member), uint64(t.Member), t.Weight} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	if t.Force {
		b = append(b, 1)
	}
	return sha256.Sum256(b)
}

// Vote is the transaction that votes on a proposal.
func (p *Proposal) Vote(yes bool) *CastVote {
	return &CastVote{Proposal: p.ID, Yes: yes, Digest: p.Content}
}

// Changed is the roster after a change, which is checked against nothing but the
// roster: members are sorted, and m is not changed.
func (c *RosterChange) Changed(m []Member) ([]Member, error) {
	i, in := slices.BinarySearchFunc(m, c.Member, func(m Member, id MemberID) int { return cmp.Compare(m.ID, id) })
	if in == (c.Change == Join) {
		return nil, fmt.Errorf("%s of member %d does not fit the roster before it", c.Change, c.Member)
	}
	out := slices.Clone(m)
	switch next := (Member{ID: c.Member, Site: c.Site, Region: c.Region, Weight: c.Weight, Key: c.Key}); c.Change {
	case Join:
		return slices.Insert(out, i, next), nil
	case Leave:
		return slices.Delete(out, i, i+1), nil
	case Update:
		out[i].Site, out[i].Region, out[i].Weight = c.Site, c.Region, c.Weight
		return out, nil
	case Rotation:
		out[i].Key, out[i].Old = c.Key, m[i].Key
		return out, nil
	}
	return nil, fmt.Errorf("a change of the roster of kind %q is not known", c.Change)
}
