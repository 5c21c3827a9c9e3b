package consensus

import (
	"slices"

	"github.com/dcnode/dcnode/consensus/internal/h26"
)

// upcoming is a checkpoint that is not handed out yet: its round is decided, but the
// driver has not applied all that it ordered, which may still change rosters.
type upcoming struct {
	Checkpoint
	marked bool // Copied, Copies and MinBirth are set
	maybe  bool // whether the next round has another roster is not settled
}

// schedule begins the checkpoint of a round that was just decided, if it has one:
// every so often, and two where a roster begins. Its first round has one, and so has
// the round before, which needs none of those that the roster lets in: they begin
// there, and may be needed to decide the next.
func (c *Core) schedule(d *h26.Decision) {
	sure := d.Round%c.every == 0 || c.begins(d.Round) || c.begins(d.Round+1)
	maybe := !sure && d.Round+1 > c.horizon()
	if !sure && !maybe {
		return
	}
	cp := Checkpoint{Network: c.cfg.Network, Round: d.Round, Ordered: c.ordered, LastTime: c.lastTime}
	for _, j := range d.Judges {
		v := c.dag.at(j)
		cp.Judges = append(cp.Judges, Parent{v.hash, v.ev.Creator, v.ev.BirthRound})
	}
	c.due = append(c.due, upcoming{Checkpoint: cp, maybe: maybe})
}

// unschedule drops the checkpoints that turn out to be of no round that has one.
func (c *Core) unschedule() {
	c.due = slices.DeleteFunc(c.due, func(up upcoming) bool {
		return up.maybe && up.Round+1 <= c.horizon() && !c.begins(up.Round+1)
	})
}

// mark notes what the last decided round hands on, when the rules of the round after
// it are settled and that round is not open yet.
func (c *Core) mark() {
	if len(c.due) == 0 {
		return
	}
	if up := &c.due[len(c.due)-1]; !up.marked && up.Round == c.decided {
		s := c.engine.State()
		up.Copied, up.Copies, up.MinBirth, up.marked = s.Copied, uint64(s.Copies), s.MinBirth, true
	}
}

// taken is the first upcoming checkpoint if all up to it is applied, and nothing
// later. Its rosters are then those ordered up to its round, at every member.
func (c *Core) taken() []Checkpoint {
	if len(c.due) == 0 || c.applied() < c.due[0].Round || !c.due[0].marked {
		return nil
	}
	cp := c.due[0].Checkpoint
	cp.Judges = slices.Clone(cp.Judges)
	spent := spentEpochs(c.epochs, min(cp.MinBirth, cp.Round-cp.Copies))
	cp.Epochs = slices.Clone(c.epochs[spent:])
	return []Checkpoint{cp}
}

// resume prepares a new Core to go on from a checkpoint: it takes events, and waits
// for the judges.
func (c *Core) resume(cp *Checkpoint) error {
	if err := cp.check(); err != nil {
		return err
	}
	own := *cp
	own.Judges = slices.Clone(cp.Judges)
	c.from, c.cfg.From = &own, nil
	c.decided, c.ordered, c.lastTime, c.copies = cp.Round, cp.Ordered, cp.LastTime, cp.Copies
	c.births.first = cp.MinBirth
	for i := range cp.Epochs {
		c.open(cp.Epochs[i].clone())
	}
	for _, j := range cp.Judges {
		c.ready.Missing = append(c.ready.Missing, Want{Hash: j.Hash, Creator: j.Creator, Child: j.Creator})
	}
	return nil
}

// join goes on from the checkpoint when the event that just came completes its
// judges. What they have below them was ordered up to its round.
func (c *Core) join(h Hash) {
	cp := c.from
	if !slices.ContainsFunc(cp.Judges, func(j Parent) bool { return j.Hash == h }) {
		return
	}
	s := h26.State{Round: cp.Round, Copied: cp.Copied, Copies: int(cp.Copies), MinBirth: cp.MinBirth}
	for i := range cp.Judges {
		x := c.dag.find(cp.Judges[i].Hash)
		if x == none {
			return
		}
		s.Judges = append(s.Judges, x)
	}
	c.settleBelow(s.Judges)
	c.engine.Begin(s)
	c.from = nil
}

// settleBelow settles what rounds up to that of the checkpoint have received: what
// is below all of its judges, or below any if any judge receives. (A round before
// it may have received by another rule only what all judges of a later round are
// above.)
func (c *Core) settleBelow(judges []int) {
	anyJudge := false
	for k := range c.copies + 1 {
		anyJudge = anyJudge || c.rules(c.decided-k).Params.JudgeAny
	}
	all := uint64(1)<<len(judges) - 1
	below := make([]uint64, len(c.dag.nodes))
	for k, j := range judges {
		below[j-c.dag.base] |= 1 << k
	}
	for i := len(below) - 1; i >= 0; i-- {
		v := &c.dag.nodes[i]
		for k := range v.ev.Parents {
			p := &v.ev.Parents[k]
			if x := c.dag.find(p.Hash); x != none && p.BirthRound >= c.minBirth() {
				below[x-c.dag.base] |= below[i]
			}
		}
		if below[i] == all || anyJudge && below[i] != 0 {
			c.settle(v)
		}
	}
}
