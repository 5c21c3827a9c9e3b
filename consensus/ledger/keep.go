package ledger

import (
	"fmt"
	"slices"
	"strings"
)

// Bounds that keep a machine with its move, whatever its policy and however many bid
// for it, below what a map of the state takes: merkle.MaxValue. A state that cannot be
// encoded would stop every member.
const (
	maxTerm   = 64      // bytes: a driver, its version, a processor
	maxLists  = 8 << 10 // bytes of all names in a policy, or of the features that a machine needs
	maxMovers = 16      // accounts that a policy names as movers
)

// text is how many bytes of each reason the state keeps with a move: the fewer the more
// members may have one.
func (s *State) text() int {
	const all = 8 << 10
	return min(max(all/len(s.members), all/MaxMembers), maxReason)
}

// kept is a bid as the state keeps it: what it says of machine types and features is
// compared with what is needed, and only what is lacking stays.
func (b *Bid) kept(n *Needs, text int) *Bid {
	c := *b
	c.Reason = clip(b.Reason, text)
	c.Lacks = ""
	if lacks := missing(n.CPUFeatures, b.CPUFeatures); len(lacks) > 0 {
		c.Lacks = clip(listed("feature", lacks), text)
	}
	c.CPUFeatures = nil
	c.Machines = nil
	if !b.knows(n.MachineType) {
		c.Machines = []string{strings.Clone(clip(b.Machines[0], maxTerm))} // not the memory of all
	}
	return &c
}

// knows says whether a driver that bids knows a machine type, as far as it says. What
// kept leaves of the list is another type or nothing.
func (b *Bid) knows(machineType string) bool {
	return machineType == "" || len(b.Machines) == 0 || slices.Contains(b.Machines, machineType)
}

// lacks names what the processor of a bidder has not; "" if nothing.
func (b *Bid) lacks(n *Needs) string {
	if b.Index != 0 { // kept
		return b.Lacks
	}
	if lacks := missing(n.CPUFeatures, b.CPUFeatures); len(lacks) > 0 {
		return listed("feature", lacks)
	}
	return ""
}

// brief are reasons as the state keeps them: one of several, if they are long.
func brief(reasons []string, text int) []string {
	n := 0
	for _, r := range reasons {
		n += len(r)
	}
	if n <= text && len(reasons) <= 8 {
		return reasons
	}
	return []string{clip(join(reasons), text)}
}

// fits says whether lists of names are together as short as the state needs them.
func fits(what string, lists ...[]string) error {
	n := 0
	for _, l := range lists {
		for _, s := range l {
			n += len(s) + 2
		}
	}
	if n > maxLists {
		return fmt.Errorf("%s: %d bytes of names, at most %d are allowed", what, n, maxLists)
	}
	return nil
}
