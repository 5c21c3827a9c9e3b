package consensustest

import (
	"fmt"
	"strings"
)

// Kind is something that can happen to a network, or in it.
type Kind int

// The kinds. A kind is counted when it had an effect: a partition when it cut a
// message, a crash between save and send when an own event was saved and not sent.
const (
	Jittered           Kind = iota // a message overtook an earlier one of the same link
	Lost                           // a message was lost
	CutMinority                    // a message was cut off while a quorum was together
	CutNoQuorum                    // a message was cut off while no group was a quorum
	CutOneWay                      // a message was cut off that could have been answered
	QuorumDown                     // more than a third of the weight was down at once, and came back
	CrashBeforeSave                // with something to save
	CrashWhileSaving               // with a part of it saved
	CrashBeforeSend                // with an own event saved that nobody else has
	CrashWhileSending              // with an own event sent to some
	CrashBeforeApply               // with ordered events that are not applied
	CrashWhileApplying             // with a part of them applied
	CrashBeforeAdvance             // with all done and Advance not called
	LostTail                       // a reboot lost events that were written and not synced
	LostOwnTail                    // among them an own event that others had seen; it was learned again
	LostForGood                    // among them an own event that nobody asked had seen
	SlowDisk                       // messages waited for a disk
	SkewedClock                    // an event was made by a clock that is off by more than a delay
	SteppedClock                   // an event was made by a clock that shows less than at the event before
	LiarEquivocates                // two branches, one to each half
	LiarWithholds                  // events kept back for layers and sent all at once
	LiarGoesBack                   // an own old event as self-parent
	LiarBornLater                  // a birth round in the future
	LiarBornEarlier                // a birth round below a parent's
	LiarMisnames                   // a parent's creator or birth round that is not its own
	LiarOffTime                    // a time far in the future or the past
	LiarJustInTime                 // every event late by a layer or two
	LiarGrindsCoin                 // the coin and the hash chosen
	LiarFloods                     // many branches from one place
	LiarReplays                    // events of another network
	LiarSilent                     // hears all and says nothing
	LiarGone                       // goes away and stays away
	Joined                         // a new member's event was ordered
	Left                           // a roster without a former member is obeyed
	Reweighed                      // a roster with another weight is obeyed
	RulesChanged                   // other parameters are obeyed
	Rejoined                       // a member too far behind went on from a checkpoint that others signed
	Compacted                      // a member restarted from its own checkpoint
	WokeUp                         // something was submitted while nothing was undecided
	WentStale                      // an own event of an honest member was never to be ordered
	ForkNamed                      // an honest member saw both branches, and named the liar
	LateRound                      // a round was decided later than the first chance
	kinds
)

var kindNames = [kinds]string{
	"messages overtaken", "messages lost", "minority cut off", "no quorum together", "one-way cut", "quorum down and back",
	"crash before save", "crash while saving", "crash between save and send", "crash while sending", "crash before apply",
	"crash while applying", "crash before Advance",
	"reboot loses unsynced tail", "reboot loses own events, learned again", "reboot loses own events for good",
	"slow disk", "skewed clock", "stepped clock",
	"liar equivocates", "liar withholds", "liar goes back", "liar born later", "liar born earlier", "liar misnames a parent",
	"liar off time", "liar just in time", "liar grinds coins", "liar floods", "liar replays another network", "liar silent", "liar gone",
	"member joined", "member left", "weight changed", "rules changed", "rejoined from a checkpoint", "restarted from own checkpoint",
	"woke from idle", "event stale", "fork named", "round late",
}

func (k Kind) String() string { return kindNames[k] }

// Counts says how often each kind had an effect.
type Counts [kinds]int

// Add adds the counts of another run.
func (c *Counts) Add(o *Counts) {
	for k, n := range o {
		c[k] += n
	}
}

// String is one line for each kind.
func (c *Counts) String() string {
	var b strings.Builder
	for k, n := range c {
		fmt.Fprintf(&b, "%10d  %s\n", n, Kind(k))
	}
	return b.String()
}

// Unseen lists the kinds that had no effect.
func (c *Counts) Unseen() []Kind {
	var out []Kind
	for k, n := range c {
		if n == 0 {
			out = append(out, Kind(k))
		}
	}
	return out
}
