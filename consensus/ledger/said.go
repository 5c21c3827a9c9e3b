package ledger

// LastSaid is the highest number that an own transaction of a member, once ordered,
// has had; 0: none. Its next must be higher.
func (s *State) LastSaid(id MemberID) uint64 {
	said, _ := s.said.Get(memberKey(id))
	return said.last()
}

func (h *Said) last() uint64 {
	if h == nil {
		return 0
	}
	if n := len(h.Seen); n > 0 {
		return h.Seen[n-1]
	}
	return h.Floor
}

// LastSaidBy is the same for an account whose keys sign.
func (s *State) LastSaidBy(account string) uint64 {
	said, _ := s.said.Get("a/" + account)
	return said.last()
}
