package ledger

import "github.com/dcnode/dcnode/consensus/ledger/merkle"

// maxGraves bounds the names of deleted machines that are remembered one by one.
const maxGraves = 1 << 14

// bury remembers the epoch that a deleted machine had. Somebody may run it still: a
// site that was voted out, or has not heard of it. A machine that gets the name later
// begins with a newer epoch, so that whoever compares epochs tells the two apart, and no
// word that was said of the old one is of the new one.
//
// None is ever forgotten: too many names become one floor below all of them, from which
// every new machine goes on.
func (s *State) bury(m *Machine) {
	s.graves = s.graves.Set(m.Name, m.Epoch)
	if s.graves.Len() <= maxGraves {
		return
	}
	for _, epoch := range s.graves.All() {
		s.floor = max(s.floor, epoch)
	}
	s.graves = merkle.Map[uint64]{}
}

// lastEpoch is what a new machine of that name goes on from: 0 if there was none.
func (s *State) lastEpoch(name string) uint64 {
	epoch, _ := s.graves.Get(name)
	return max(epoch, s.floor)
}
