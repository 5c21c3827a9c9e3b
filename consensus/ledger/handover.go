package ledger

import "cmp"

func compare(a, b string) int { return cmp.Compare(a, b) }

// apply makes the destination the owner. If the law as it is now forbids that, the
// move ends instead: the machine has never left.
func (t *Release) apply(s *State, a *act) ([]Effect, error) {
	m, err := s.owned(t.Machine, a)
	if err != nil {
		return nil, err
	}
	mv := m.Move
	switch {
	case mv == nil || mv.ID != t.Move || mv.Phase != Copying:
		return nil, refuse("there is no move %d of machine %s to release it to", t.Move, t.Machine)
	case t.To != mv.To:
		return nil, refuse("machine %s was promised to %s, not to %s", m.Name, s.Site(mv.To), s.Site(t.To))
	case t.Epoch != m.Epoch+1:
		return nil, refuse("machine %s is in epoch %d: a release makes it %d, not %d", m.Name, m.Epoch, m.Epoch+1, t.Epoch)
	case t.After < 0:
		return nil, refuse("the release of machine %s speaks of %d ns after the destination was ready: it cannot be before", m.Name, t.After)
	}
	if why := s.forbidsMove(m, mv); len(why) > 0 {
		return []Effect{s.end(m, Aborted, KindAbort, a.Place, "the release is forbidden: "+join(why))}, nil
	}
	c, mv := edit(m)
	mv.Accepted, mv.ReleasedAt, mv.After = true, s.now, t.After
	mv.enter(Released, a.Place)
	hand(c, mv.To, KindRelease, a.Place)
	s.put(c)
	return []Effect{effectOf(KindRelease, c.Name, mv)}, nil
}

// apply ends the move well.
func (t *Confirm) apply(s *State, a *act) ([]Effect, error) {
	m, err := s.arriving(t.Machine, t.Epoch, a)
	if err != nil {
		return nil, err
	}
	s.record(a.Author, func(r *Record) {
		r.Kept++
		r.Trust = trust(r.Trust, took(m.Move, 0, s.now), m.Move.Forecast.Millis)
	})
	return s.settled(s.end(m, Done, KindConfirm, a.Place, ""), a.Place), nil
}

// settled is what follows when it is clear again whose a machine is: a member that has
// only waited for that may leave.
func (s *State) settled(e Effect, p Place) []Effect { return append([]Effect{e}, s.decide(p)...) }

// apply gives the machine back to where it came from.
func (t *Decline) apply(s *State, a *act) ([]Effect, error) {
	m, err := s.arriving(t.Machine, t.Epoch, a)
	if err != nil {
		return nil, err
	}
	if err := checkText("reason", t.Reason); err != nil {
		return nil, err
	}
	s.record(a.Author, func(r *Record) { r.Broken++ })
	c, mv := edit(m)
	hand(c, mv.From, KindDecline, a.Place)
	return s.settled(s.end(c, Declined, KindDecline, a.Place, t.Reason), a.Place), nil
}

// apply takes the machine back after the lease.
func (t *Reclaim) apply(s *State, a *act) ([]Effect, error) {
	m, err := s.released(t.Machine, t.Epoch)
	if err != nil {
		return nil, err
	}
	switch {
	case m.Move.From != a.Author:
		return nil, refuse("machine %s came from %s: only it can reclaim it", m.Name, s.Site(m.Move.From))
	case !m.Move.LeaseOver:
		return nil, refuse("the lease of machine %s has not ended", m.Name)
	}
	s.record(m.Move.To, func(r *Record) { r.Broken++ })
	c, mv := edit(m)
	hand(c, mv.From, KindReclaim, a.Place)
	return s.settled(s.end(c, Reclaimed, KindReclaim, a.Place, "the destination did not confirm within the lease"), a.Place), nil
}

// apply ends a move before Release. A destination that says it has broken its word;
// if it had not even accepted, the next best is selected. The source's word says
// nothing of the destination.
func (t *Abort) apply(s *State, a *act) ([]Effect, error) {
	m, err := s.moving(t.Machine, t.Move)
	if err != nil {
		return nil, err
	}
	mv := m.Move
	switch {
	case mv.Phase == Released:
		return nil, refuse("machine %s is released: only its new owner can give it back", m.Name)
	case a.Author != mv.From && a.Author != mv.To:
		return nil, refuse("%s has no part in the move of machine %s", s.Site(a.Author), m.Name)
	}
	if err := checkText("reason", t.Reason); err != nil {
		return nil, err
	}
	if a.Author == mv.To {
		if !mv.Accepted {
			return []Effect{s.passOn(m, a.Place, clip("did not accept: "+t.Reason, maxReason))}, nil
		}
		s.record(a.Author, func(r *Record) { r.Broken++ })
	}
	return []Effect{s.end(m, Aborted, KindAbort, a.Place, t.Reason)}, nil
}

// released is the machine of that name if it waits, in that epoch, for a Confirm.
func (s *State) released(name string, epoch uint64) (*Machine, error) {
	m := s.Machine(name)
	if m == nil || m.Move == nil || m.Move.Phase != Released {
		return nil, refuse("machine %s is not between two members", name)
	}
	if m.Epoch != epoch {
		return nil, refuse("machine %s is in epoch %d, not %d", name, m.Epoch, epoch)
	}
	return m, nil
}

// arriving is what released is, if the transaction's author is the new owner.
func (s *State) arriving(name string, epoch uint64, a *act) (*Machine, error) {
	m, err := s.released(name, epoch)
	if err == nil && m.Owner != a.Author {
		return nil, refuse("machine %s belongs to %s", m.Name, s.Site(m.Owner))
	}
	return m, err
}

// apply keeps what a move was, and learns from it for the machine and the path. The
// destination's record is not touched: it is made of consensus time alone.
func (t *Report) apply(s *State, a *act) ([]Effect, error) {
	m := s.Machine(t.Machine)
	if m == nil || m.Last == nil || m.Last.ID != t.Move || m.Last.Phase != Done {
		return nil, refuse("machine %s has made no move %d, or another since", t.Machine, t.Move)
	}
	mv := m.Last
	switch {
	case a.Author != mv.From:
		return nil, refuse("machine %s came from %s: only it can report", m.Name, s.Site(mv.From))
	case mv.Truth != nil:
		return nil, refuse("the move %d of machine %s is reported already", mv.ID, m.Name)
	case !size(t.Truth.Image) || !size(t.Truth.Disk) || !size(t.Truth.Memory) || t.Truth.Pause < 0 || t.Truth.Pause > maxPause || !size(t.Truth.Millis):
		return nil, refuse("report: sizes are from 0 to %d bytes, the pause from 0 to %d ms", int64(maxSize), maxPause)
	}
	c, _ := edit(m)
	last := *mv
	truth := t.Truth
	truth.Millis = took(mv, t.Truth.Millis, mv.EndedAt)
	last.Truth = &truth
	c.Last = &last
	c.Habit = m.Habit.learn(mv.Forecast, truth)
	s.put(c)
	if s.member(last.To) != nil { // else nothing would ever take the path out again
		s.learnPath(&last)
	}
	return []Effect{effectOf(KindReport, c.Name, &last)}, nil
}
