package ledger

import (
	"fmt"
	"slices"
)

// maxApproval is how far ahead an approval may hold, at most: whoever carries it can keep
// it back so long.
const maxApproval = 30 * Day

// apply takes the word of an account for the next move.
func (t *Approve) apply(s *State, a *act) ([]Effect, error) {
	m := s.Machine(t.Machine)
	who := t.Account
	if who == "" {
		who = a.who()
	}
	switch {
	case m == nil:
		return nil, refuse("there is no machine %s", t.Machine)
	case !a.speaks(who):
		return nil, refuse("%s cannot approve for account %s", a.who(), who)
	case !s.isMover(m, who):
		return nil, refuse("machine %s needs no approval of %s: its policy does not name it among the movers", m.Name, who)
	case m.Epoch != t.Epoch:
		return nil, refuse("machine %s is in epoch %d, the approval speaks of %d: it has moved meanwhile", m.Name, m.Epoch, t.Epoch)
	case t.To != 0 && s.member(t.To) == nil:
		return nil, refuse("member %d is not in the roster", t.To)
	case t.Until <= s.now:
		return nil, refuse("the approval has expired already: give it more time")
	case t.Until > later(s.now, maxApproval):
		return nil, refuse("the approval holds for more than %d days: give it less time", maxApproval/Day)
	}
	c, _ := edit(m)
	c.Approvals = []Approval{{Account: who, Epoch: t.Epoch, To: t.To, Until: t.Until}}
	for _, p := range m.Approvals { // what no longer counts goes
		if p.Account != who && p.Epoch == m.Epoch && p.Until > s.now && s.isMover(m, p.Account) {
			c.Approvals = append(c.Approvals, p)
		}
	}
	slices.SortFunc(c.Approvals, func(a, b Approval) int { return compare(a.Account, b.Account) })
	s.put(c)
	return []Effect{{Kind: KindApprove, Machine: c.Name, Account: who, Member: t.To}}, nil
}

func (s *State) isMover(m *Machine, account string) bool {
	return slices.ContainsFunc(s.layers(m), func(l layer) bool { return slices.Contains(l.Movers, account) })
}

// approved says whether a move of m to only, or to any if that is 0, has the approvals
// that it needs, and to whom they bind it: 0, nobody.
func (s *State) approved(m *Machine, only MemberID) (MemberID, error) {
	missing := s.unapproved(m, only)
	if missing == "" {
		return only, nil
	}
	if only == 0 { // approvals for one site are enough if there is only one such
		var bound []MemberID
		for _, p := range m.Approvals {
			if p.To != 0 && s.member(p.To) != nil && !slices.Contains(bound, p.To) && s.unapproved(m, p.To) == "" {
				bound = append(bound, p.To)
			}
		}
		if len(bound) == 1 {
			return bound[0], nil
		}
		if len(bound) > 1 {
			return 0, refuse("the move of machine %s is approved for %s and for %s: say to which", m.Name, s.Site(bound[0]), s.Site(bound[1]))
		}
	}
	return 0, refuse("machine %s: %s", m.Name, missing)
}

// unapproved is what approvals are missing; empty: none. An approval for one site
// counts only if that is the only candidate.
func (s *State) unapproved(m *Machine, only MemberID) string {
	return s.lacking(m, s.approving(m, only))
}

// approving are the accounts whose approvals count for a move of m to only, or to any if
// that is 0.
func (s *State) approving(m *Machine, only MemberID) []string {
	var by []string
	for _, p := range m.Approvals {
		if p.Epoch == m.Epoch && p.Until > s.now && (p.To == 0 || p.To == only) {
			by = append(by, p.Account)
		}
	}
	return by
}

// lacking is what approvals a move that these accounts approve of lacks; empty: none.
func (s *State) lacking(m *Machine, by []string) string {
	for _, l := range s.layers(m) {
		if len(l.Movers) == 0 {
			continue
		}
		need, have := max(l.Approvals, 1), 0
		for _, account := range by {
			if slices.Contains(l.Movers, account) {
				have++
			}
		}
		if have < need {
			return fmt.Sprintf("the policy of %s wants the approval of %d of %s, and there are %d", l.whose(), need, listed("account", l.Movers), have)
		}
	}
	return ""
}
