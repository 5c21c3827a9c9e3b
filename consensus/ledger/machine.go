package ledger

import (
	"cmp"
	"slices"
	"strings"
)

// maxSize bounds every size in bytes that comes from outside: sums of them do not
// overflow.
const maxSize = int64(1) << 50

// maxSpec bounds a machine's description, in bytes.
const maxSpec = 8 << 10

func (t *Define) apply(s *State, a *act) ([]Effect, error) {
	if err := CheckName("machine", t.Name); err != nil {
		return nil, err
	}
	if err := a.here(t.Site); err != nil {
		return nil, err
	}
	if have := s.Machine(t.Name); have != nil {
		return nil, refuse("machine %s exists already (at %s): choose another name", t.Name, s.Site(have.Owner))
	}
	v := s.Version(t.Image)
	if v == nil {
		return nil, refuse("there is no image %.140s: add it with `dcnode image add`", t.Image)
	}
	account := cmp.Or(t.Account, a.who())
	switch {
	case !a.speaks(account):
		return nil, refuse("machine %s is to belong to account %.70q: that has to sign it, not %s", t.Name, account, a.who())
	case t.Memory <= 0 || t.Memory > maxSize:
		return nil, refuse("machine %s: memory of %d bytes", t.Name, t.Memory)
	case len(t.Spec) > maxSpec:
		return nil, refuse("machine %s: a description of %d bytes, at most %d are taken", t.Name, len(t.Spec), maxSpec)
	}
	if err := t.Policy.check(); err != nil {
		return nil, refuse("machine %s: %v", t.Name, err)
	}
	if err := s.foreign(account, &t.Policy); err != nil {
		return nil, refuse("machine %s: %v", t.Name, err)
	}
	if err := s.circle(t.Name, t.Policy.With); err != nil {
		return nil, refuse("machine %s: %v", t.Name, err)
	}
	takes := Quota{Machines: 1, Memory: t.Memory}
	if err := s.room(account, takes); err != nil {
		return nil, err
	}
	name, tag := SplitRef(t.Image)
	m := &Machine{
		Name: t.Name, Account: account, Image: Ref(name, tag), Commit: v.Commit, Spec: t.Spec, Memory: t.Memory,
		Owner: a.Author, Epoch: s.lastEpoch(t.Name), Policy: t.Policy,
	}
	if why := s.forbids(m, a.author); len(why) > 0 {
		return nil, refuse("machine %s may not be at %s: %s", t.Name, a.site(), strings.Join(why, "; "))
	}
	hand(m, a.Author, KindDefine, a.Place)
	s.use(account, takes, 1)
	s.made(m, 1)
	s.graves = s.graves.Delete(m.Name) // its epoch is in the machine now
	s.put(m)
	return []Effect{{Kind: KindDefine, Machine: m.Name, Account: account, Member: a.Author}}, nil
}

func (t *Set) apply(s *State, a *act) ([]Effect, error) {
	m, err := s.owned(t.Name, a)
	if err != nil {
		return nil, err
	}
	if m.Move != nil {
		return nil, refuse("machine %s is moving (%s): wait for the end or cancel the move", m.Name, m.Move.Phase)
	}
	next, _ := edit(m)
	next.Stopped = t.Stopped
	s.put(next)
	return []Effect{{Kind: KindSet, Machine: t.Name, Member: a.Author}}, nil
}

func (t *Delete) apply(s *State, a *act) ([]Effect, error) {
	m := s.Machine(t.Name)
	if m == nil {
		return nil, refuse("there is no machine %.70q", t.Name)
	}
	switch owner := s.member(m.Owner); {
	case owner != nil && (m.Owner != a.Author || a.account != nil):
		return nil, refuse("machine %s belongs to %s: ask there", m.Name, owner.Site)
	case owner == nil && !a.speaks(m.Account):
		return nil, refuse("machine %s was left behind by %s: only its account, %s, can delete it", m.Name, s.Site(m.Owner), m.Account)
	}
	// Of a move between two that have both left nobody is there to end it.
	if mv := m.Move; mv != nil && (s.member(m.Owner) != nil || s.member(mv.From) != nil) {
		return nil, refuse("machine %s is moving (%s): wait for the end or cancel the move", m.Name, mv.Phase)
	}
	s.remove(m)
	s.bury(m)
	s.made(m, -1)
	s.use(m.Account, Quota{Machines: 1, Memory: m.Memory}, -1)
	return s.settled(Effect{Kind: KindDelete, Machine: m.Name, Account: m.Account, Member: m.Owner}, a.Place), nil
}

// owned is the machine of that name if the transaction's author owns it.
func (s *State) owned(name string, a *act) (*Machine, error) {
	m := s.Machine(name)
	if m == nil {
		return nil, refuse("there is no machine %.70s", name)
	}
	if m.Owner != a.Author {
		return nil, refuse("machine %s belongs to %s: ask there", name, s.Site(m.Owner))
	}
	return m, nil
}

// hand gives m, which is the caller's own copy, to another owner with the next epoch.
func hand(m *Machine, to MemberID, why Kind, p Place) {
	m.Owner = to
	m.Epoch++
	h := Handover{Index: p.Index, Event: p.Event[:], Epoch: m.Epoch, Owner: to, Why: why}
	keep := m.Handovers[max(0, len(m.Handovers)-maxHandovers+1):]
	m.Handovers = append(slices.Clip(keep), h)
}
