package consensus

import (
	"cmp"
	"slices"
)

// layer is the layer of event x with parents at the given places, before it is in
// its own row: the highest of theirs, and one more if members of a supermajority of
// weight have reached that in what the event has below it. The roster is that of the
// event's birth round and not the one in force when it came: members that disagree
// about layers wait for each other.
func (c *Core) layer(x int, places []int) uint64 {
	var top uint64 = 1
	for _, p := range places {
		top = max(top, c.dag.layerOf(p))
	}
	var held, total uint64
	row := c.dag.lasts(x)
	if ep := c.rules(c.dag.at(x).ev.BirthRound); ep.From == c.since {
		total = c.total
		for _, s := range c.roster {
			if c.dag.layerOf(row[s]) >= top {
				held += c.seats[s].weight
			}
		}
	} else {
		for i := range ep.Roster {
			m := &ep.Roster[i]
			total += m.Weight
			if c.dag.layerOf(row[c.slot[m.ID]]) >= top {
				held += m.Weight
			}
		}
	}
	if 3*held > 2*total {
		return top + 1
	}
	return top
}

// Next makes this member's next event. Its parents are the own last event and the
// last event of every member that has news since then; t is the wall clock, coin 32
// random bits, payload what to order, within MaxPayload, MaxTransaction and
// PayloadRoom(MaxMembers). The caller signs it and Adds it before it calls Next
// again: two events from one place would be a fork. Who may not create gets nil: an
// observer, one whose membership has not begun or has ended, one that Observes or
// that is Joining.
func (c *Core) Next(t Timestamp, coin uint32, payload [][]byte) *Event {
	if !c.creates() {
		return nil
	}
	e := &Event{
		Network: c.cfg.Network, Creator: c.cfg.Self, BirthRound: c.Pending(),
		Time: max(t, 0), Coin: coin, Payload: payload,
	}
	own := none
	if c.own.any {
		own = c.dag.find(c.own.Hash)
		e.Seq = c.own.seq + 1
		e.Time = max(e.Time, c.own.time+Timestamp(max(1, c.ownPayload(own))))
		e.Parents = append(e.Parents, c.own.Parent)
	}
	// Members first, then those that left, each in the order of IDs.
	for _, s := range c.roster {
		c.addParent(e, own, s)
	}
	var left []int
	for s := range c.seats {
		if !c.seats[s].in {
			left = append(left, s)
		}
	}
	slices.SortFunc(left, func(a, b int) int { return cmp.Compare(c.seats[a].id, c.seats[b].id) })
	for _, s := range left {
		c.addParent(e, own, s)
	}
	// One that only brings a roster nearer asks nobody for an answer: the others may be
	// done with it.
	c.clock.asked = c.busy == 0 && (len(payload) > 0 || !c.changing())
	return e
}

// creates reports whether this member may make events now.
func (c *Core) creates() bool {
	return c.self != none && c.seats[c.self].in && !c.observing && c.from == nil
}

// addParent lets e build on the last event of a seat, if that is news above the own
// last event.
func (c *Core) addParent(e *Event, own, s int) {
	x := c.seats[s].chain.head
	if s == c.self || x == none || own != none && c.dag.lasts(own)[s] == x || len(e.Parents) >= MaxMembers {
		return
	}
	v := c.dag.at(x)
	e.Parents = append(e.Parents, Parent{v.hash, v.ev.Creator, v.ev.BirthRound})
}

// ownPayload is the number of transactions in the own last event, if it is here.
func (c *Core) ownPayload(own int) int {
	if own == none {
		return 0
	}
	return len(c.dag.at(own).ev.Payload)
}
