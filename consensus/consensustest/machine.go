package consensustest

import (
	"fmt"
	"slices"

	"github.com/dcnode/dcnode/consensus"
)

// machine is what the order drives: who the members are and what the rules are. It
// is a value; whoever changes the roster makes a new one.
type machine struct {
	applied uint64
	roster  []consensus.Member
	params  consensus.Params
}

func (s *machine) weight(id uint64) uint64 {
	for i := range s.roster {
		if s.roster[i].ID == id {
			return s.roster[i].Weight
		}
	}
	return 0
}

func (s *machine) has(id uint64) bool {
	return slices.ContainsFunc(s.roster, func(m consensus.Member) bool { return m.ID == id })
}

func (s *machine) total() uint64 {
	var t uint64
	for i := range s.roster {
		t += s.roster[i].Weight
	}
	return t
}

// change is what a transaction changes in roster or rules.
type change struct {
	kind   Kind // Joined, Left, Reweighed or RulesChanged
	id     uint64
	weight uint64
	params consensus.Params
}

func (c *change) apply(s *machine) {
	at := slices.IndexFunc(s.roster, func(m consensus.Member) bool { return m.ID == c.id })
	roster := slices.Clone(s.roster)
	switch {
	case c.kind == RulesChanged:
		s.params = c.params
	case c.kind == Joined && at < 0:
		roster = append(roster, consensus.Member{ID: c.id, Key: keyOf(c.id), Weight: c.weight})
		slices.SortFunc(roster, func(a, b consensus.Member) int { return int(a.ID) - int(b.ID) })
	case c.kind == Left && at >= 0 && s.total() > roster[at].Weight:
		roster = slices.Delete(roster, at, at+1)
	case c.kind == Reweighed && at >= 0 && s.total()+c.weight > roster[at].Weight:
		roster[at].Weight = c.weight
	}
	s.roster = roster
}

// change has a change of roster or rules ordered, submitted by member i.
func (w *Network) change(i int, c change) {
	tx := fmt.Sprintf("change %d", len(w.changes))
	w.changes[tx] = c
	w.Submit(i, tx)
}

// apply applies the first n of the ordered events, and what else there is if that is all.
func (m *Member) apply(rd *consensus.Ready, n int) {
	w := m.net
	cps := rd.Checkpoints
	for i := range rd.Ordered[:n] {
		o := &rd.Ordered[i]
		for ; len(cps) > 0 && cps[0].Ordered <= o.Index; cps = cps[1:] {
			m.checkpoint(cps[0])
		}
		w.check(m, o)
		m.state.applied++
		for _, tx := range o.Event.Payload {
			if c, ok := w.changes[string(tx)]; ok {
				c.apply(&m.state)
				w.tracef("member %d obeys %q from round %d on", m.index, tx, o.Round+consensus.ChangeDelay)
				if err := m.Core.Change(o.Round, m.state.roster, m.state.params); err != nil {
					w.fail("member %d cannot change the rules: %v", m.index, err)
				}
				w.changed(m, o, &c)
			}
		}
	}
	if n < len(rd.Ordered) {
		return
	}
	for _, cp := range cps {
		m.checkpoint(cp)
	}
	for _, e := range rd.Stale {
		w.stale(m, e)
	}
}

// speaks reports whether the member is in the roster of its pending round.
func (m *Member) speaks() bool {
	in := false
	for _, ep := range m.Core.Epochs() {
		if ep.From <= m.Core.Pending() {
			in = slices.ContainsFunc(ep.Roster, func(o consensus.Member) bool { return o.ID == m.ID })
		}
	}
	return in
}

// moveOut gives what a member that is none any more wants ordered to one that is.
func (m *Member) moveOut() {
	w := m.net
	if len(m.pool) == 0 || m.liar != nil || m.speaks() {
		return
	}
	for _, o := range w.Members {
		if o != m && o.liar == nil && !o.down && o.speaks() {
			pool := m.pool
			m.pool = nil
			w.after(1, func() {
				o.pool = append(o.pool, pool...)
				o.wake()
			})
			return
		}
	}
}
