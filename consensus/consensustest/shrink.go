package consensustest

import (
	"slices"

	"github.com/dcnode/dcnode/consensus"
)

// Shrink looks for a smaller scenario that fails too: fewer faults, liars and
// members, shorter, with less loss and jitter. It runs no more than tries of them.
func Shrink(s Scenario, tries int) (Scenario, Result) {
	s.Trace = nil
	best, res := s, Simulate(s)
	for better := true; better && tries > 0; {
		better = false
		for _, smaller := range best.smaller() {
			if tries--; tries < 0 {
				break
			}
			if !smaller.fair() {
				continue
			}
			if r := Simulate(smaller); r.Err != nil {
				best, res, better = smaller, r, true
				break
			}
		}
	}
	return best, res
}

// fair reports whether those who lie, or lose what they said, are less than a third
// of every roster: what happens otherwise is no failure.
func (s *Scenario) fair() bool {
	total := sum(s.Weights)
	bad := map[int]bool{}
	for _, l := range s.Liars {
		bad[l.Member] = true
	}
	for _, f := range s.Faults {
		switch f.Kind {
		case LostTail:
			bad[f.Who[0]] = true
		case Left, Reweighed:
			if w := s.Weights[f.Who[0]]; w > uint64(f.Arg) {
				total -= min(total, w-uint64(f.Arg))
			}
		}
	}
	var held uint64
	for i, w := range s.Weights {
		if bad[i] {
			held += w
		}
	}
	return total > 0 && (3*held < total || len(bad) == 0)
}

// smaller are the scenarios one step below this one, the boldest first.
func (s *Scenario) smaller() []Scenario {
	var out []Scenario
	with := func(change func(*Scenario)) {
		c := *s
		c.Faults, c.Liars = slices.Clone(s.Faults), slices.Clone(s.Liars)
		c.Weights = slices.Clone(s.Weights)
		change(&c)
		out = append(out, c)
	}
	if len(s.Faults) > 1 {
		with(func(c *Scenario) { c.Faults = nil })
	}
	if n := len(s.Weights); n > 1 {
		with(func(c *Scenario) { c.without(n / 2) })
		with(func(c *Scenario) { c.without(n - 1) })
	}
	for i := range s.Faults {
		with(func(c *Scenario) { c.Faults = slices.Delete(c.Faults, i, i+1) })
	}
	for i := range s.Liars {
		with(func(c *Scenario) { c.Liars = slices.Delete(c.Liars, i, i+1) })
	}
	if s.Load > 1 {
		with(func(c *Scenario) { c.Length, c.Load = c.Length/2, c.Load/2 })
		with(func(c *Scenario) { c.Length, c.Load = c.Length*9/10, c.Load*9/10 })
		with(func(c *Scenario) { c.Load /= 2 })
	}
	if s.Loss > 0 {
		with(func(c *Scenario) { c.Loss = 0 })
	}
	if s.Crash > 0 {
		with(func(c *Scenario) { c.Crash = 0 })
	}
	if s.Delays != nil {
		with(func(c *Scenario) { c.Delays, c.Topology = nil, "equal" })
	}
	if s.Jitter > s.Delay/10 {
		with(func(c *Scenario) { c.Jitter = c.Delay / 10 })
	}
	if s.Reach > 0 {
		with(func(c *Scenario) { c.Reach = 0 })
	}
	if s.Checkpoint > 0 {
		with(func(c *Scenario) { c.Checkpoint, c.Compact = 0, false })
	}
	if s.Params != consensus.DefaultParams {
		with(func(c *Scenario) { c.Params = consensus.DefaultParams })
	}
	return out
}

// without leaves only the first n founders, and what befalls them.
func (s *Scenario) without(n int) {
	was := len(s.Weights)
	s.Weights = s.Weights[:n]
	if s.Delays != nil {
		rows := make([][]int64, n)
		for i := range rows {
			rows[i] = s.Delays[i][:n]
		}
		s.Delays = rows
	}
	s.Liars = slices.DeleteFunc(s.Liars, func(l Liar) bool { return l.Member >= n })
	s.Faults = slices.DeleteFunc(s.Faults, func(f Fault) bool {
		return f.Kind != Joined && slices.ContainsFunc(f.Who, func(i int) bool { return i >= n && i < was })
	})
	if sum(s.Weights) == 0 {
		s.Weights[0] = 1
	}
}
