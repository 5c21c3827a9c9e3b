package order

import (
	"context"

	"github.com/dcnode/dcnode/consensus"
)

// Status is what a loop tells of itself. Joining says that it has taken over a
// checkpoint and still fetches the events that it begins with.
type Status struct {
	consensus.Status
	Waiting  int // own transactions that are not ordered yet
	Suspects []Suspect

	// Observing: this member is not sure that it knows the last event that it made,
	// because its host was down or its log is new. It listens and makes none, until
	// the members of WaitsFor, or enough of them, have said what they know of it.
	Observing bool
	WaitsFor  []uint64
	Learned   uint64 // own events that others had and this member had lost
	// Behind: so many other members are so far ahead that this one takes over a
	// checkpoint of theirs.
	Behind bool
	// Outside: this node is in no roster in force, listens and says nothing. Left: it
	// was a member before. Enters: the round from which on a roster to come has it.
	Outside bool
	Left    bool
	Enters  uint64
	// Unnamed: the roster has this member with a key that is not among its own. It
	// listens and says nothing.
	Unnamed bool
	// Entering: this node is new and has no checkpoint of the others to begin at yet.
	Entering *Entering
	// Checkpoint is the round of the newest one that is kept here; 0: none.
	Checkpoint uint64
}

// Status is the state for people to look at.
func (l *Loop) Status(ctx context.Context) (Status, error) {
	var s Status
	err := l.Do(ctx, func() {
		l.hear()
		s = Status{Status: l.core.Status(), Waiting: l.pool.size()}
		s.Suspects = append(l.intake.suspects(), l.forked()...)
		s.Observing, s.WaitsFor, s.Learned = l.watch != nil, l.waitsFor(), l.learned
		s.Behind = l.net.isBehind()
		s.Checkpoint = l.points.newest()
		s.Outside, s.Unnamed, s.Enters = l.voice.outside, l.voice.unnamed, l.enters()
		s.Left = s.Outside && l.spoken && l.entering == nil
		s.Entering = l.entering.status()
	})
	return s, err
}
