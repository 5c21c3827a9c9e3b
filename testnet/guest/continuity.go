package guest

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Continuity is what the ticks of a machine say about its move from one site to
// another, as seen from outside.
type Continuity struct {
	// Gap is the longest time without a tick at either site, from tick GapAfter
	// to the next. Period, 10 ms, is no gap at all.
	Gap      time.Duration
	GapAfter uint64
	// Handover is the time from the source's last tick to the destination's
	// first: the pause, as a user of the machine sees it. It is 0 if one side
	// has no tick, and negative if the machine ran at both sites at once.
	Handover time.Duration
	// Missing are the numbers that neither site printed, between the first and
	// the last that one did. A machine that lost no state misses none.
	Missing uint64
	// Duplicate are the ticks printed more than once: the machine ran on at both
	// sites, or from an earlier state.
	Duplicate uint64
	// Backwards are the ticks that came, in time, after a higher number.
	Backwards uint64
	// First and Last are the lowest and the highest number.
	First, Last uint64
	// Ticks counts all ticks.
	Ticks int
}

// Whole: was each tick printed exactly once, in order, and first at the source
// and then at the destination only?
func (c Continuity) Whole() bool {
	return c.Ticks > 0 && c.Missing == 0 && c.Duplicate == 0 && c.Backwards == 0 && c.Handover >= 0
}

// String says it in one line.
func (c Continuity) String() string {
	return fmt.Sprintf("ticks %d to %d, longest gap %v after tick %d, handover %v, %d missing, %d duplicate, %d backwards",
		c.First, c.Last, c.Gap.Round(time.Millisecond), c.GapAfter, c.Handover.Round(time.Millisecond),
		c.Missing, c.Duplicate, c.Backwards)
}

// Compare sets the ticks of a machine at the source and at the destination side
// by side. Either may be empty; each is in the order in which it was seen, all
// on one clock. For a machine that did not move, give its ticks as the source's.
func Compare(source, destination []Tick) Continuity {
	all := slices.Concat(source, destination)
	if len(all) == 0 {
		return Continuity{}
	}
	slices.SortStableFunc(all, func(a, b Tick) int { return cmp.Compare(a.At, b.At) })
	c := Continuity{First: all[0].N, Last: all[0].N, Ticks: len(all)}
	seen := make(map[uint64]bool, len(all))
	for i, tick := range all {
		if seen[tick.N] {
			c.Duplicate++
		}
		seen[tick.N] = true
		if i > 0 {
			if tick.N < c.Last {
				c.Backwards++
			}
			if gap := tick.At - all[i-1].At; gap > c.Gap {
				c.Gap, c.GapAfter = gap, all[i-1].N
			}
		}
		c.First, c.Last = min(c.First, tick.N), max(c.Last, tick.N)
	}
	c.Missing = c.Last - c.First + 1 - uint64(len(seen))
	if len(source) > 0 && len(destination) > 0 {
		c.Handover = destination[0].At - source[len(source)-1].At
	}
	return c
}
