package ledger

import (
	"bytes"
	"iter"
	"slices"
	"strings"
)

// RosterEntry is what the order has to know of a member.
type RosterEntry struct {
	ID     MemberID
	Key    []byte // Ed25519 public key
	Weight uint64
}

// Roster is who orders, from the next roster on, by ID.
func (s *State) Roster() []RosterEntry {
	out := make([]RosterEntry, len(s.members))
	for i, m := range s.members {
		out[i] = RosterEntry{m.ID, m.Key, m.Weight}
	}
	return out
}

// mayEnact says why a proposal cannot be carried out as things are.
func (s *State) mayEnact(p *Proposal) error {
	if p.Change != Leave {
		return nil // see freeKey and SetAccount: what it needs is kept free for it
	}
	return s.mayLeave(s.member(p.Member), p.Force)
}

// mayLeave says why a member cannot leave.
func (s *State) mayLeave(m *Member, force bool) error {
	if len(s.members) == 1 {
		return refuse("%s is the last member", m.Site)
	}
	if s.Weight() == m.Weight {
		return refuse("%s has all the weight: nobody could order anything without it", m.Site)
	}
	if force {
		return nil
	}
	for name := range s.mayReturn(m.ID) {
		return refuse("machine %s has left %s and is not confirmed elsewhere: it may come back, so wait for the end of its move, or force it", name, m.Site)
	}
	const most = 8
	var names []string
	for o := range s.At(m.ID) {
		if names = append(names, o.Name); len(names) > most {
			names[most] = "and others"
			break
		}
	}
	if len(names) > 0 {
		return refuse("%s owns machines: move %s away first, or force it and lose them", m.Site, strings.Join(names, ", "))
	}
	return nil
}

// mayReturn are the machines that a member has released and that nobody has confirmed,
// also those whose lease is over.
func (s *State) mayReturn(id MemberID) iter.Seq[string] {
	return func(yield func(string) bool) {
		s.index.coming.Scan(func(e entry) bool {
			mv := s.Machine(e.name).Move
			return mv.From != id || mv.Phase != Released || yield(e.name)
		})
	}
}

// enact carries out a proposal; see mayEnact.
func (s *State) enact(v *Proposal, proof [][]byte, p Place) []Effect {
	var out []Effect
	switch v.Change {
	case Join:
		m := &Member{ID: v.Member, Site: v.Site, Region: v.Region, Weight: v.Weight, Key: v.Key, Since: p.Index}
		i, _ := slices.BinarySearchFunc(s.members, m.ID, byID)
		s.members = slices.Insert(s.members, i, m)
		s.noteRoster(p, Join, m, proof)
		s.resume(m)
	case Leave:
		m := s.member(v.Member)
		i := s.rank(v.Member)
		s.members = slices.Delete(s.members, i, i+1)
		s.noteRoster(p, Leave, m, proof)
		out = s.farewell(m, p)
	case Update:
		next := *s.member(v.Member)
		if v.Region != "" {
			next.Region = v.Region
		}
		if v.Weight != 0 {
			next.Weight = v.Weight
		}
		s.putMember(&next)
		s.noteRoster(p, Update, &next, proof)
	}
	return append([]Effect{{Kind: KindRoster, Member: v.Member}}, out...)
}

// farewell takes a member that has left out of everything that waits for it or speaks
// of it. Machines that it owns stay its own: nobody else may run them.
func (s *State) farewell(m *Member, p Place) []Effect {
	out := s.endMoves(m, p)
	for i := 0; i < len(s.votes); i++ {
		if v := s.votes[i]; v.Change != Join && v.Member == m.ID {
			s.votes = slices.Delete(s.votes, i, i+1)
			out = append(out, Effect{Kind: KindLapsed, Member: m.ID})
			i--
		}
	}
	s.dropHolder(m.ID)
	s.said = s.said.Delete(memberKey(m.ID))
	for _, o := range s.members {
		s.paths = s.paths.Delete(pathKey(m.ID, o.ID)).Delete(pathKey(o.ID, m.ID))
	}
	s.retire(m)
	return out
}

// endMoves aborts the moves that need a member which has left, unless they are
// released: then the new owner confirms or declines, or the old one reclaims. Its bids
// are taken back, and nobody waits for one of it.
func (s *State) endMoves(gone *Member, p Place) []Effect {
	var out []Effect
	for _, name := range s.underWay() {
		m := s.Machine(name)
		mv := m.Move
		switch {
		case mv.Phase == Released:
		case mv.From == gone.ID || mv.To == gone.ID || mv.Only == gone.ID:
			out = append(out, s.end(m, Aborted, KindAbort, p, gone.Site+" has left the overlay"))
		case mv.Phase == Bidding:
			next, mv := edit(m)
			mv.Bids = slices.DeleteFunc(slices.Clone(mv.Bids), func(b *Bid) bool { return b.Member == gone.ID })
			s.put(next)
			if !s.awaits(next) { // it was the last that was waited for
				out = append(out, s.selectFor(next, p))
			}
		}
	}
	return out
}

// retire gives the account of a site that has left the key that its member had, if
// anything belongs to it: who has that key can still speak for it.
func (s *State) retire(m *Member) {
	acc, found := s.accounts.Get(m.Site)
	if !found {
		return
	}
	if acc.Used == (Quota{}) {
		s.index.sponsor(acc, -1)
		s.accounts = s.accounts.Delete(acc.Name)
		return
	}
	next := *acc
	next.Keys, next.Threshold = [][]byte{m.Key}, 1
	s.putAccount(&next)
}

// left says that an account is that of a site which has left, with that key.
func (a *Account) left(key []byte) bool { return len(a.Keys) == 1 && bytes.Equal(a.Keys[0], key) }

// resume gives the account that a site had before it left back to its member.
func (s *State) resume(m *Member) {
	if acc, found := s.accounts.Get(m.Site); found {
		next := *acc
		next.Keys, next.Threshold, next.Sponsor = nil, 0, m.ID
		s.putAccount(&next)
	}
}
