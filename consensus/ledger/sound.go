package ledger

import (
	"errors"
	"fmt"
	"slices"
)

// sound says what is wrong with a state that was read, as far as what is done with it
// later takes it for granted. Whether it is the state that members have is for its root
// to say.
func (s *State) sound() error {
	if s.now < 0 || len(s.members) == 0 || s.lastID < s.members[len(s.members)-1].ID {
		return errors.New("its time is before 1970, it has no members, or numbers that were not given")
	}
	for i, p := range s.votes {
		if p == nil || i > 0 && s.votes[i-1].ID >= p.ID || p.Change == Leave && s.member(p.Member) == nil || p.Change == Update && s.member(p.Member) == nil {
			return fmt.Errorf("proposal %d is none, stands at the wrong place, or is about nobody", i)
		}
	}
	for name, a := range s.accounts.All() {
		if a == nil || a.Name != name {
			return fmt.Errorf("account %q is none or has another name", name)
		}
	}
	for name, i := range s.images.All() {
		if i == nil || i.Name != name || s.Account(i.Account) == nil {
			return fmt.Errorf("image %q is none, has another name, or belongs to nobody", name)
		}
	}
	for name, m := range s.machines.All() {
		if err := s.soundMachine(name, m); err != nil {
			return fmt.Errorf("machine %q: %w", name, err)
		}
	}
	for key, p := range s.paths.All() {
		if p == nil || pathKey(p.From, p.To) != key {
			return fmt.Errorf("path %q is none or another", key)
		}
	}
	for key, h := range s.said.All() {
		if h == nil {
			return fmt.Errorf("what %q has said is not told", key)
		}
	}
	return nil
}

func (s *State) soundMachine(name string, m *Machine) error {
	switch {
	case m == nil || m.Name != name:
		return errors.New("it is none or has another name")
	case s.Account(m.Account) == nil:
		return errors.New("it belongs to nobody")
	case s.VersionOf(m) == nil:
		return errors.New("there is no image that it is made from")
	}
	for _, mv := range []*Move{m.Move, m.Last} {
		if mv != nil && slices.Contains(mv.Bids, nil) {
			return errors.New("a bid of its move is none")
		}
	}
	mv := m.Move
	if mv == nil {
		return nil
	}
	r := mv.Reserved
	switch {
	case mv.Phase != Bidding && mv.Phase != Copying && mv.Phase != Released:
		return fmt.Errorf("it moves and is %q", mv.Phase)
	case (mv.To == 0) != (mv.Phase == Bidding) || mv.LeaseOver && mv.Phase != Released:
		return errors.New("its move is in two phases")
	case mv.Deadline < 0 || mv.LeaseOver && mv.Deadline == 0:
		return errors.New("its move has a deadline before 1970")
	case min(r.Memory, r.Disk, r.VCPUs, r.Moves) < 0 || max(r.Memory, r.Disk, r.VCPUs, r.Moves) > 2*maxSize:
		return errors.New("its move reserves more or less than there can be")
	}
	return nil
}
