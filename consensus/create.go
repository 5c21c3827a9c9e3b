package consensus

// layer is the layer of an event with parents at the given places: the highest of
// theirs, and one more if members of a supermajority of weight have reached that
// in what the event has below it.
func (c *Core) layer(places []int) uint64 {
	var top uint64 = 1
	for _, p := range places {
		top = max(top, c.dag.layerOf(p))
	}
	var held uint64
	for m := range c.cfg.Roster {
		last := none
		for _, p := range places {
			last = c.dag.later(last, c.dag.lasts(p)[m])
		}
		if c.dag.layerOf(last) >= top {
			held += c.cfg.Roster[m].Weight
		}
	}
	if c.engine.Super(held) {
		return top + 1
	}
	return top
}

// Next makes this member's next event. Its parents are the own last event and the
// last event of every member that has news since then; t is the wall clock, coin 32
// random bits, payload what to order, within MaxPayload, MaxTransaction and
// PayloadRoom(MaxMembers). The caller signs it and Adds it before it calls Next
// again: two events from one place would be a fork. An observer gets nil, and so
// does a member that Observes.
func (c *Core) Next(t Timestamp, coin uint32, payload [][]byte) *Event {
	if c.self == none || c.observing {
		return nil
	}
	e := &Event{
		Network: c.cfg.Network, Creator: c.cfg.Self, BirthRound: c.engine.Pending(),
		Time: max(t, 0), Coin: coin, Payload: payload,
	}
	own := none
	if c.own.any {
		own = c.dag.find(c.own.Hash)
		e.Seq = c.own.seq + 1
		e.Time = max(e.Time, c.own.time+Timestamp(max(1, c.ownPayload(own))))
		e.Parents = append(e.Parents, c.own.Parent)
	}
	for m := range c.chains {
		x := c.chains[m].head
		if m == c.self || x == none || own != none && c.dag.lasts(own)[m] == x {
			continue
		}
		v := c.dag.at(x)
		e.Parents = append(e.Parents, Parent{v.hash, v.ev.Creator, v.ev.BirthRound})
	}
	c.clock.asked = c.busy == 0
	return e
}

// ownPayload is the number of transactions in the own last event, if it is here.
func (c *Core) ownPayload(own int) int {
	if own == none {
		return 0
	}
	return len(c.dag.at(own).ev.Payload)
}
