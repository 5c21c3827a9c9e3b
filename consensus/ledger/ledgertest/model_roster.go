package ledgertest

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/dcnode/dcnode/consensus/ledger"
)

// rosterStep follows the votes, and checks that the roster changes by them alone.
func (m *model) rosterStep(st *step) error {
	m.count(st)
	for v := st.pre.RosterVersion() + 1; v <= st.post.RosterVersion(); v++ {
		c := st.post.RosterChange(v)
		if c == nil || c.Index != st.place.Index {
			return fmt.Errorf("change %d of the roster is not taken down", v)
		}
		if st.tx == nil {
			return errors.New("the roster changes because time has passed")
		}
		if err := m.change(st, c); err != nil {
			return fmt.Errorf("%s of member %d: %w", c.Change, c.Member, err)
		}
	}
	members := st.post.Members()
	if len(members) != len(m.roster) || len(members) == 0 {
		return fmt.Errorf("the roster has %d members, votes have made %d", len(members), len(m.roster))
	}
	for _, x := range members {
		if m.roster[x.ID] != entryOf(x) {
			return fmt.Errorf("member %d is %+v, votes and rotations have made it %+v", x.ID, entryOf(x), m.roster[x.ID])
		}
	}
	return m.ballots(st)
}

// count takes a vote down.
func (m *model) count(st *step) {
	if t, ok := body[*ledger.Propose](st); ok {
		b := &ballot{change: t.Change, member: t.Member, t: *t, yes: map[ledger.MemberID]bool{st.place.Author: true}, no: map[ledger.MemberID]bool{}}
		if t.Change == ledger.Join {
			m.lastID++
			b.member = m.lastID
		}
		m.open[st.place.Index] = b
	}
	if t, ok := body[*ledger.CastVote](st); ok {
		if b := m.open[t.Proposal]; b != nil {
			delete(b.yes, st.place.Author)
			delete(b.no, st.place.Author)
			if t.Yes {
				b.yes[st.place.Author] = true
			} else {
				b.no[st.place.Author] = true
			}
		}
	}
}

// change checks one change of the roster, and makes it.
func (m *model) change(st *step, c *ledger.RosterChange) error {
	if c.Change == ledger.Rotation {
		t, ok := body[*ledger.Rotate](st)
		if !ok || c.Member != st.place.Author || len(t.Key) == 0 || string(t.Key) != string(c.Key) {
			return errors.New("nobody may say that")
		}
		for id, e := range m.roster {
			if e.key == string(t.Key) {
				return fmt.Errorf("member %d has that key", id)
			}
		}
		times := append(m.rotated[c.Member], st.post.Now())
		for i, since := range times { // four, and one more each six hours
			if n := len(times) - i; ledger.Time(n-4)*6*ledger.Hour > st.post.Now()-since {
				return fmt.Errorf("it has changed its key %d times since %d, and it is %d", n, since, st.post.Now())
			}
		}
		m.rotated[c.Member] = times
		e := m.roster[c.Member]
		e.key = string(t.Key)
		m.roster[c.Member] = e
		return nil
	}
	for _, id := range slices.Sorted(maps.Keys(m.open)) {
		b := m.open[id]
		if b.change != c.Change || b.member != c.Member || 3*m.weighs(b.yes) <= 2*m.total() || !b.makes(c) {
			continue
		}
		delete(m.open, id)
		e, in := m.roster[c.Member]
		switch c.Change {
		case ledger.Join:
			if in || b.t.Weight == 0 {
				return errors.New("it is a member already, or has no weight")
			}
			if m.cards[string(b.t.Proof)] { // of one card there is one signature
				return errors.New("it has joined by that card before")
			}
			m.cards[string(b.t.Proof)] = true
			m.roster[c.Member] = entry{b.t.Site, b.t.Region, string(b.t.Key), b.t.Weight}
		case ledger.Leave:
			if !in || !b.t.Force && owns(st.post, c.Member) {
				return errors.New("it is no member, or owns machines")
			}
			delete(m.roster, c.Member)
			for other, o := range m.open {
				if o.change != ledger.Join && o.member == c.Member {
					delete(m.open, other)
				}
			}
		case ledger.Update:
			if b.t.Region != "" {
				e.region = b.t.Region
			}
			if b.t.Weight != 0 {
				e.weight = b.t.Weight
			}
			m.roster[c.Member] = e
		}
		return nil
	}
	return fmt.Errorf("no proposal has more than two thirds of %d for it", m.total())
}

// makes says whether a proposal makes that change.
func (b *ballot) makes(c *ledger.RosterChange) bool {
	return b.change != ledger.Update || (b.t.Region == "" || b.t.Region == c.Region) && (b.t.Weight == 0 || b.t.Weight == c.Weight)
}

// owns says whether machines are a member's, or may be its again.
func owns(s *ledger.State, id ledger.MemberID) bool {
	for x := range s.Machines() {
		if x.Owner == id || x.Move != nil && x.Move.Phase == ledger.Released && x.Move.From == id {
			return true
		}
	}
	return false
}

// ballots compares the proposals that are open, and checks that none is that has its
// votes, or cannot have them any more.
func (m *model) ballots(st *step) error {
	for _, p := range st.post.Proposals() {
		b := m.open[p.ID]
		if b == nil {
			return fmt.Errorf("proposal %d is open, which nobody made or which is decided", p.ID)
		}
		if len(p.Yes) != len(b.yes) || len(p.No) != len(b.no) {
			return fmt.Errorf("proposal %d has %d votes for it and %d against, cast were %d and %d", p.ID, len(p.Yes), len(p.No), len(b.yes), len(b.no))
		}
		for _, v := range p.Yes {
			if !b.yes[v.Member] {
				return fmt.Errorf("proposal %d has a vote of %d", p.ID, v.Member)
			}
		}
		blocked := p.Change == ledger.Leave && (!p.Force && owns(st.post, p.Member) || len(m.roster) == 1 || m.roster[p.Member].weight == m.total())
		if 3*m.weighs(b.yes) > 2*m.total() && !blocked {
			return fmt.Errorf("proposal %d has its votes and is open", p.ID)
		}
		if 3*m.weighs(b.no) >= m.total() {
			return fmt.Errorf("proposal %d cannot pass and is open", p.ID)
		}
	}
	for id, b := range m.open {
		if proposal(st.post, id) != nil {
			continue
		}
		delete(m.open, id)
		refused := 3*m.weighs(b.no) >= m.total()
		said := slices.ContainsFunc(st.out, func(e ledger.Effect) bool { return e.Kind == ledger.KindRejected && e.Member == b.member })
		was := proposal(st.pre, id)
		lapsed := st.tx == nil && was != nil && (was.Expires != 0 && was.Expires <= st.post.Now() || m.rules.Vote <= 0)
		changed := st.pre.RosterVersion() != st.post.RosterVersion() // weights were others when it was refused
		if !lapsed && !refused && !(said && changed) {
			return fmt.Errorf("proposal %d is gone: it was neither refused nor too old", id)
		}
	}
	return nil
}
