package ledgertest

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/dcnode/dcnode/consensus/ledger"
)

// timeStep checks what the passing of time has done: each phase that began in an
// earlier round has its deadline, and none lasts longer than it.
func (m *model) timeStep(st *step) error {
	if st.post.Now() != max(st.pre.Now(), st.place.Time) || st.post.Next() != st.place.Index+1 {
		return fmt.Errorf("it is %d, before event %d", st.post.Now(), st.post.Next())
	}
	now := st.post.Now()
	for x := range st.post.Machines() {
		mv := x.Move
		if mv == nil {
			continue
		}
		switch {
		case mv.LeaseOver:
			if mv.Phase != ledger.Released || now < mv.Deadline || mv.Deadline == 0 {
				return fmt.Errorf("machine %s: its lease is over before its time", x.Name)
			}
			continue
		case mv.Deadline == 0 && mv.Round < st.place.Round:
			return fmt.Errorf("machine %s has been %s since round %d, and has no deadline in round %d", x.Name, mv.Phase, mv.Round, st.place.Round)
		case mv.Deadline != 0 && mv.Deadline <= now:
			return fmt.Errorf("machine %s is %s beyond its deadline %d, at %d", x.Name, mv.Phase, mv.Deadline, now)
		}
		if err := m.deadline(st, x); err != nil {
			return err
		}
	}
	for _, p := range st.post.Proposals() {
		switch was := proposal(st.pre, p.ID); {
		case p.Expires == 0 && p.Round < st.place.Round:
			return fmt.Errorf("proposal %d has no deadline", p.ID)
		case p.Expires != 0 && p.Expires <= now:
			return fmt.Errorf("proposal %d is open beyond its time", p.ID)
		case was != nil && was.Expires != 0 && was.Expires != p.Expires, was != nil && was.Expires == 0 && p.Expires != 0 && p.Expires != now+m.rules.Vote:
			return fmt.Errorf("proposal %d had until %d, then %d", p.ID, was.Expires, p.Expires)
		}
	}
	return nil
}

// deadline checks one that was set just now, and that none is moved.
func (m *model) deadline(st *step, x *ledger.Machine) error {
	mv, now := x.Move, st.post.Now()
	was := st.pre.Machine(x.Name)
	if was == nil || was.Move == nil || was.Move.ID != mv.ID {
		return fmt.Errorf("machine %s moves because time has passed", x.Name)
	}
	if mv.Deadline == 0 || was.Move.Phase != mv.Phase || was.Move.To != mv.To {
		return nil
	}
	if was.Move.Deadline != 0 {
		if was.Move.Deadline != mv.Deadline {
			return fmt.Errorf("machine %s: its deadline is moved from %d to %d", x.Name, was.Move.Deadline, mv.Deadline)
		}
		return nil
	}
	most := map[ledger.Phase]ledger.Time{ledger.Bidding: m.rules.BidWindow, ledger.Copying: m.rules.Accept, ledger.Released: m.rules.Lease}[mv.Phase]
	if mv.Phase == ledger.Copying && mv.Accepted {
		most = m.rules.Copy
		if end, begun := m.copiedBy(x); begun {
			most = min(most, max(end-now, 1))
		}
	}
	if mv.Deadline > now+most || mv.Deadline <= now {
		return fmt.Errorf("machine %s is %s from %d to %d", x.Name, mv.Phase, now, mv.Deadline)
	}
	short := mv.Deadline < now+most
	switch {
	case short && mv.Phase != ledger.Copying:
		return fmt.Errorf("machine %s is %s from %d to %d only", x.Name, mv.Phase, now, mv.Deadline)
	case short && opened(st.post, x, mv.Deadline) && opened(st.post, x, now):
		return fmt.Errorf("machine %s is to be copied until %d, and its windows are open then", x.Name, mv.Deadline)
	case mv.Phase == ledger.Copying && mv.Deadline > now+1 && !opened(st.post, x, mv.Deadline-1):
		return fmt.Errorf("machine %s may be copied until %d, when its windows are closed", x.Name, mv.Deadline)
	}
	return nil
}

// copiedBy is when the copying of a machine ends at the latest: an hour, or what the
// rules say, and eight times the longest predicted time after the first sign of life of
// its source; a year at most.
func (m *model) copiedBy(x *ledger.Machine) (end ledger.Time, begun bool) {
	first := m.beats[fmt.Sprint(x.Name, " ", x.Move.ID)]
	const year = 366 * 24 * 3600 * 1000 // milliseconds
	ms := int64(m.rules.Whole/ledger.Millisecond) + 8*min(x.Move.Forecast.High, year)
	return first + ledger.Time(min(ms, year))*ledger.Millisecond, first != 0
}

func proposal(s *ledger.State, id uint64) *ledger.Proposal {
	i := slices.IndexFunc(s.Proposals(), func(p *ledger.Proposal) bool { return p.ID == id })
	if i < 0 {
		return nil
	}
	return s.Proposals()[i]
}

// opened says whether all windows of a machine and of its account are open at t, by
// the calendar of another package.
func opened(s *ledger.State, x *ledger.Machine, t ledger.Time) bool {
	at := time.Unix(0, int64(t)).UTC()
	minute, day := at.Hour()*60+at.Minute(), int(at.Weekday())
	yesterday := (day + 6) % 7
	for _, p := range policies(s, x) {
		open := len(p.Windows) == 0
		for _, w := range p.Windows {
			on := func(d int) bool { return len(w.Days) == 0 || slices.Contains(w.Days, d) }
			switch {
			case w.From < w.To:
				open = open || on(day) && w.From <= minute && minute < w.To
			default:
				open = open || on(day) && w.From <= minute || on(yesterday) && minute < w.To
			}
		}
		if !open {
			return false
		}
	}
	return true
}

// policies are those that hold for a machine: its own, and its account's unless that
// says nothing at all.
func policies(s *ledger.State, x *ledger.Machine) []*ledger.Policy {
	out := []*ledger.Policy{&x.Policy}
	for _, a := range s.Accounts() {
		if said, err := json.Marshal(a.Policy); a.Name == x.Account && (err != nil || string(said) != "{}") {
			out = append(out, &a.Policy)
		}
	}
	return out
}
