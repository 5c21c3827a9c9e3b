package order

import "github.com/dcnode/dcnode/consensus"

// InForce is the roster of the round that is being decided. It is not to be changed.
func (l *Loop) InForce() []consensus.Member { return l.roster().Roster }

// Upcoming says whether a roster is ordered that is not in force yet: it takes some
// more rounds, which somebody must make.
func (l *Loop) Upcoming() bool {
	epochs := *l.epochs.Load()
	return epochs[len(epochs)-1].From > l.pending.Load()
}

// Knows says whether a member is in the roster of any round that still counts: only
// its events can mean something.
func (l *Loop) Knows(member uint64) bool {
	for _, ep := range *l.epochs.Load() {
		for _, m := range ep.Roster {
			if m.ID == member {
				return true
			}
		}
	}
	return false
}
