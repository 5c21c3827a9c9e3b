package consensus

// Status is for people.
type Status struct {
	Pending  uint64 // round to be decided next
	Oldest   uint64 // first birth round that is not ancient
	Ordered  uint64 // events in the order
	LastTime Timestamp
	Live     int    // events in the graph
	Waiting  int    // events that lack parents or are ahead
	Busy     int    // events with a payload whose place is not decided
	Forks    uint64 // events that forked their creator's chain
	Copied   uint64 // rounds that took over the judges before them
	Late     uint64 // rounds decided later than the first chance
	Refused  uint64 // kept events that turned out to break a rule
	Joining  bool   // the judges of the checkpoint are not all here yet: nothing is decided or created
	Changing bool   // a roster or parameters are ordered that no decided round has obeyed yet
	Halted   bool   // the order has ended for good: a third of the weight or more is lying
	Delta    int64  // ns: how long stragglers are waited for now
	Members  []MemberStatus
}

// MemberStatus is what the graph says of one member.
type MemberStatus struct {
	ID    uint64
	Seq   uint64 // of its last event
	Layer uint64 // of its last event; 0: none in the graph
	Live  bool   // waited for: not behind, not often late
	RTT   int64  // ns from an own event to the answer; 0: not known
}

// Status is the state for people to look at. Members are those of the pending
// round, in the order of IDs.
func (c *Core) Status() Status {
	s := Status{
		Pending: c.Pending(), Oldest: c.minBirth(), Ordered: c.ordered, LastTime: c.lastTime,
		Live: len(c.dag.nodes), Busy: c.busy, Forks: c.forks, Copied: c.copied, Late: c.late,
		Refused: c.refused, Joining: c.from != nil, Changing: c.changing(), Halted: c.engine.Halted(), Delta: c.delta(),
	}
	var top uint64
	for m := range c.seats {
		top = max(top, c.layerAt(m))
		s.Waiting += len(c.seats[m].wait)
	}
	for _, m := range c.roster {
		l, seat := c.layerAt(m), &c.seats[m]
		s.Members = append(s.Members, MemberStatus{
			ID: seat.id, Seq: seat.chain.seq, Layer: l, RTT: c.distance(m),
			Live: l > 0 && l+liveLag >= top && !seat.clock.out && !seat.clock.away,
		})
	}
	return s
}

// Pending is the round to be decided next; own events are born in it.
func (c *Core) Pending() uint64 {
	if c.from != nil {
		return c.from.Round + 1
	}
	return c.engine.Pending()
}

// Has reports whether an event is in the graph or kept for later. Events that have
// left the graph are not here; nobody needs them.
func (c *Core) Has(h Hash) bool { return c.dag.find(h) != none || c.wait.index[h] != nil }

// Event returns an event of the graph, or nil.
func (c *Core) Event(h Hash) *Event {
	if x := c.dag.find(h); x != none {
		return c.dag.at(x).ev
	}
	return nil
}

// Heads names the events that no other is built on: who has these has everything
// that is in the graph.
func (c *Core) Heads() []Hash {
	var out []Hash
	for i := range c.dag.nodes {
		if v := &c.dag.nodes[i]; !v.parent {
			out = append(out, v.hash)
		}
	}
	return out
}

// Lacking is what someone lacks whose Heads are given, parents first: the events of
// the graph that are not below those heads. Heads that are not here are passed over.
func (c *Core) Lacking(heads []Hash) []*Event {
	below := make([]bool, len(c.dag.nodes))
	for _, h := range heads {
		if x := c.dag.find(h); x != none {
			below[x-c.dag.base] = true
		}
	}
	var out []*Event
	for i := len(c.dag.nodes) - 1; i >= 0; i-- {
		e := c.dag.nodes[i].ev
		if !below[i] {
			continue
		}
		for k := range e.Parents {
			if x := c.dag.find(e.Parents[k].Hash); x != none {
				below[x-c.dag.base] = true
			}
		}
	}
	for i := range c.dag.nodes {
		if !below[i] {
			out = append(out, c.dag.nodes[i].ev)
		}
	}
	return out
}
