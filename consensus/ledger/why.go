package ledger

import (
	"fmt"
	"strings"
)

// Standing is how far a machine has come, and what is missing for it to go on.
type Standing struct {
	Phase    Phase     // of the move that is under way; empty: none is
	Since    Time      // when that phase began, or the last move ended; 0: not known
	Deadline Time      // of the phase; 0: it has none, or the next round will set it
	Missing  []Missing // any of it takes the move on; in bidding all of it does
	Text     string    // all that in one sentence, but for the times
}

// Missing is a transaction that has not been ordered yet, and the member that owes it.
type Missing struct {
	What Kind
	By   MemberID
}

// Standing says how machine m stands.
func (s *State) Standing(m *Machine) Standing {
	w := &words{s: s}
	mv := m.Move
	if mv == nil {
		return w.atRest(m)
	}
	st := Standing{Phase: mv.Phase, Deadline: mv.Deadline}
	from, to := w.site(mv.From), w.site(mv.To)
	owed := func(k Kind, by MemberID) { st.Missing = append(st.Missing, Missing{k, by}) }
	switch {
	case mv.Phase == Bidding:
		st.Since = mv.IntentAt
		var of []string
		for by := range s.awaited(m) {
			owed(KindBid, by)
			of = append(of, w.site(by))
		}
		st.Text = fmt.Sprintf("%s wants to move %s%s and waits for the bids of %s; at the deadline the ledger selects among those who have bid",
			from, name(m.Name), w.only(mv.Only), list(of, "nobody"))
	case mv.Phase == Copying && !mv.Accepted:
		st.Since = mv.SelectedAt
		owed(KindAccept, mv.To)
		st.Text = fmt.Sprintf("%s was selected for %s and waits for %s to accept; at the deadline the next best is selected", to, name(m.Name), to)
	case mv.Phase == Copying:
		st.Since = mv.SelectedAt
		owed(KindRelease, mv.From)
		st.Text = fmt.Sprintf("%s is being copied from %s to %s, %s so far as the order knows, and waits for %s to release it; %s, and it runs on at %s",
			name(m.Name), from, to, Bytes(mv.Moved), from, s.copyEnds(m), from)
	case mv.LeaseOver:
		st.Since, st.Deadline = mv.ReleasedAt, 0
		owed(KindReclaim, mv.From)
		owed(KindConfirm, mv.To)
		st.Text = fmt.Sprintf("%s is released to %s, epoch %d, and its lease is over: it waits for %s to take it back or for %s to confirm that it runs, whichever is ordered first",
			name(m.Name), to, m.Epoch, from, to)
	default:
		st.Since = mv.ReleasedAt
		owed(KindConfirm, mv.To)
		st.Text = fmt.Sprintf("%s is released to %s, epoch %d, and waits for %s to confirm that it runs, or to give it back; after the deadline %s may take it back",
			name(m.Name), to, m.Epoch, to, from)
	}
	return st
}

// atRest is how a machine stands that does not move.
func (w *words) atRest(m *Machine) Standing {
	does := "is to run there"
	if m.Stopped {
		does = "is stopped"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s belongs to %s, epoch %d, and %s: it does not move, and nothing is missing", name(m.Name), w.site(m.Owner), m.Epoch, does)
	var st Standing
	if l := m.Last; l != nil {
		st.Since = l.EndedAt
		if l.Phase != Done {
			fmt.Fprintf(&b, "; its last move%s ended %s%s", w.where(l.To), l.Phase, because(l.Reason))
		}
	}
	st.Text = b.String()
	return st
}

// copyEnds is what the deadline of a copying means: its source can put it off, unless
// the window or the whole time for copying ends with it.
func (s *State) copyEnds(m *Machine) string {
	mv := m.Move
	end, _ := s.windowEnd(m, s.now)
	switch mv.Deadline {
	case 0:
		return "without a sign of life of its source the move ends"
	case mv.Until:
		return "at the deadline copying has lasted as long as it may: the move ends"
	case end:
		return "at the deadline its window closes: the move ends"
	}
	return "if no more bytes are told of by the deadline, the move ends"
}

// Quorum is the weight of the members that somebody sees, beside what the order needs
// to move.
type Quorum struct {
	Total  uint64
	Needed uint64 // more than two thirds of Total
	Seen   uint64
	Away   []MemberID // who is not seen, ascending
}

// Quorum counts the members of which seen says yes.
func (s *State) Quorum(seen func(MemberID) bool) Quorum {
	q := Quorum{Total: s.Weight()}
	q.Needed = q.Total*2/3 + 1
	for _, m := range s.members {
		if seen(m.ID) {
			q.Seen += m.Weight
		} else {
			q.Away = append(q.Away, m.ID)
		}
	}
	return q
}

// Lacks is the weight that is missing for the order to move; 0: none.
func (q Quorum) Lacks() uint64 { return max(q.Needed, q.Seen) - q.Seen }
