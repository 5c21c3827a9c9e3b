package consensus

import (
	"fmt"

	"github.com/dcnode/dcnode/consensus/internal/h26"
)

// maxPerRound bounds the events of one creator in one birth round. A member that
// keeps to the rules makes about one.
const maxPerRound = 1024

// Core is the hashgraph of one member. It is driven from one goroutine; see the
// package comment for the loop.
type Core struct {
	cfg    Config
	every  uint64      // rounds between checkpoints
	from   *Checkpoint // while its judges are not all here
	engine *h26.Engine
	dag    dag

	epochs []Epoch // from the oldest that is needed on
	seats  []seat  // by slot
	slot   map[uint64]int
	self   int // slot of the own seat, or none

	// Of the roster of the pending round.
	since  uint64 // From of its epoch
	roster []int  // slots in the order of IDs
	total  uint64 // weight

	wait   waiting
	queue  []*waiter // ready to enter the graph
	places []int     // of the parents of the event that resolve looked at
	births births
	seen   struct{ pending, low uint64 } // what turn has acted upon

	own   ownHead
	busy  int // events in the graph with a payload that is neither ordered nor stale
	clock clock

	decided  uint64 // last decided round
	ordered  uint64
	lastTime Timestamp
	copies   uint64 // rounds in a row, up to the last decided, that took over the judges before them
	copied   uint64
	late     uint64
	forks    uint64
	refused  uint64

	observing bool // the driver does not want own events
	replaying bool // what is added was in the graph before
	due       []upcoming
	ready     Ready
	given     Ready // what the last Ready handed out
}

// ownHead is this member's last event, which may have left the graph.
type ownHead struct {
	Parent
	seq  uint64
	time Timestamp
	any  bool
}

// New makes a Core, with an empty graph or one that is to go on from a checkpoint.
// Errors say what is wrong with the config.
func New(cfg Config) (*Core, error) {
	if cfg.Params == (Params{}) {
		cfg.Params = DefaultParams
	}
	c := &Core{
		cfg: cfg, every: cfg.CheckpointEvery, self: none, slot: map[uint64]int{},
		dag: dag{index: map[Hash]int{}}, wait: newWaiting(), births: births{first: 1},
	}
	if c.every == 0 {
		c.every = CheckpointEvery
	}
	if cfg.From != nil {
		if cfg.From.Network != cfg.Network {
			return nil, fmt.Errorf("set up consensus from a checkpoint: it is of another network")
		}
		if err := c.resume(cfg.From); err != nil {
			return nil, fmt.Errorf("set up consensus from a checkpoint: %w", err)
		}
	} else {
		ep := Epoch{From: 1, Roster: cfg.Roster, Params: cfg.Params}
		if err := ep.check(); err != nil {
			return nil, fmt.Errorf("set up consensus: %w", err)
		}
		c.open(ep.clone())
	}
	c.seen.pending, c.seen.low = c.Pending(), c.minBirth()
	c.enforce()
	return c, nil
}

// minBirth is the first birth round that is not ancient.
func (c *Core) minBirth() uint64 {
	if c.from != nil {
		return c.from.MinBirth
	}
	return c.engine.MinBirth()
}

// Add takes an event whose signature the caller has checked. Nil means that it is
// in the graph, or kept until its parents (see Ready.Missing) or this member's
// rounds catch up with it; what is kept is bounded for each creator. Otherwise the
// error is ErrDuplicate, ErrAncient, ErrInvalid, ErrFuture, ErrFull or ErrFlood; all
// but ErrInvalid may happen between members that keep to the rules.
//
// An event by this member that Next did not make, as after a restart, becomes its
// last event like one that Next made, even if it is ancient.
func (c *Core) Add(e *Event) error {
	if err := c.checkFields(e); err != nil {
		return err
	}
	h := e.Hash()
	if c.Has(h) {
		return ErrDuplicate
	}
	if low := c.minBirth(); e.BirthRound < low {
		c.adopt(e, h)
		return fmt.Errorf("%w: in round %d, rounds from %d on are open", ErrAncient, e.BirthRound, low)
	}
	slot, known := c.slot[e.Creator]
	far := e.BirthRound > c.horizon()
	switch {
	case far && !known:
		return fmt.Errorf("%w: round %d, and its creator %d is not known yet", ErrFuture, e.BirthRound, e.Creator)
	case !far && !c.isMember(e.Creator, e.BirthRound):
		return fmt.Errorf("%w: %d is not a member in round %d", ErrInvalid, e.Creator, e.BirthRound)
	}
	self, lacks, err := c.resolve(e)
	if err != nil {
		return err
	}
	if lacks > 0 || e.BirthRound > c.Pending() {
		return c.park(&waiter{ev: e, hash: h, slot: slot, far: far})
	}
	if err := c.insert(e, h, slot, self); err != nil {
		return err
	}
	c.drain()
	return nil
}

// resolve looks up the parents and leaves the places of those that count, in signed
// order, in c.places; self is that of the self-parent among them, lacks how many are
// not in the graph. A parent is named by hash, creator and birth round together: a
// name that does not fit the event with that hash can never be linked. Parents born
// in an ancient round do not count, here or anywhere.
func (c *Core) resolve(e *Event) (self, lacks int, err error) {
	self, c.places = none, c.places[:0]
	low := c.minBirth()
	for i := range e.Parents {
		p := &e.Parents[i]
		if p.BirthRound < low {
			continue
		}
		x := c.dag.find(p.Hash)
		if x == none {
			if p.BirthRound <= c.horizon() && !c.isMember(p.Creator, p.BirthRound) {
				return self, 0, fmt.Errorf("%w: a parent is by %d, who is not a member in round %d", ErrInvalid, p.Creator, p.BirthRound)
			}
			lacks++
			continue
		}
		q := c.dag.at(x).ev
		if q.Creator != p.Creator || q.BirthRound != p.BirthRound {
			return self, 0, fmt.Errorf("%w: it misnames a parent, as of member %d in round %d", ErrInvalid, p.Creator, p.BirthRound)
		}
		if p.Creator == e.Creator {
			if self = x; e.Time <= q.Time || e.Seq != q.Seq+1 {
				return self, 0, fmt.Errorf("%w: number %d at %d does not follow number %d at %d", ErrInvalid, e.Seq, e.Time, q.Seq, q.Time)
			}
		}
		c.places = append(c.places, x)
	}
	return self, lacks, nil
}

// checkFields checks what can be checked without graph and roster.
func (c *Core) checkFields(e *Event) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
	}
	if err := e.checkSize(); err != nil {
		return err
	}
	switch {
	case e.Network != c.cfg.Network:
		return bad("it is of another network")
	case e.BirthRound == 0:
		return bad("rounds begin at 1")
	case e.Time < 0 || e.Time > MaxTime:
		return bad("its time %d is out of range", e.Time)
	case (e.Seq == 0) != (len(e.Parents) == 0 || e.Parents[0].Creator != e.Creator):
		return bad("number %d does not fit its self-parent", e.Seq)
	}
	for i := range e.Parents {
		p := &e.Parents[i]
		switch {
		case p.Creator == e.Creator && i > 0:
			return bad("its self-parent is not the first parent")
		case p.BirthRound == 0 || p.BirthRound > e.BirthRound:
			return bad("it is born in round %d, its parent in %d", e.BirthRound, p.BirthRound)
		case i > 0 && p.Creator > e.Parents[i-1].Creator && (i < 2 || e.Parents[0].Creator == e.Creator || e.Parents[0].Creator < p.Creator):
			continue // in order of IDs, as members that keep to the rules have them
		}
		for k := range i {
			if e.Parents[k].Creator == p.Creator {
				return bad("two parents are by member %d", p.Creator)
			}
		}
	}
	return nil
}

// drain lets the events in that became ready, and those that become ready by it.
func (c *Core) drain() {
	for len(c.queue) > 0 {
		w := c.queue[0]
		c.queue[0] = nil
		c.queue = c.queue[1:]
		if c.dag.find(w.hash) == none && c.enterLate(w) != nil {
			c.refused++
		}
	}
	c.queue = nil
}

// enterLate puts a waiter into the graph.
func (c *Core) enterLate(w *waiter) error {
	e := w.ev
	if e.BirthRound < c.minBirth() {
		c.adopt(e, w.hash)
		return nil
	}
	if w.far && (!c.isMember(e.Creator, e.BirthRound) || !c.steadyKey(e.Creator)) {
		return ErrInvalid
	}
	self, lacks, err := c.resolve(e)
	if err != nil {
		return err
	}
	if lacks > 0 {
		return c.park(w)
	}
	return c.insert(e, w.hash, w.slot, self)
}

// insert puts an event into the graph and draws the consequences. Its parents are
// there, as resolve left them.
func (c *Core) insert(e *Event, h Hash, slot, self int) error {
	if err := c.admit(e, h, slot, self); err != nil {
		return err
	}
	x := c.dag.add(node{ev: e, hash: h, slot: slot}, c.places)
	c.dag.at(x).layer = c.layer(x, c.places)
	c.dag.lasts(x)[slot] = x
	c.births.add(e.BirthRound, slot, x)
	c.seats[slot].open++
	c.extend(slot, x, self)
	if len(e.Payload) > 0 {
		c.busy++
	}
	c.ready.Save = append(c.ready.Save, e)
	if slot == c.self {
		c.ready.Send = append(c.ready.Send, e)
		c.adopt(e, h)
	} else {
		c.clock.asked = false
	}
	c.engine.Add(h26.Vertex{
		Creator: slot, Birth: e.BirthRound, Time: int64(e.Time), Coin: e.Coin,
		SelfParent: self, Parents: c.places, Hash: h,
	})
	c.release(h)
	if c.from != nil {
		c.join(h)
	}
	c.decide()
	return nil
}

// adopt takes an own event as the one to build on, if it is the latest.
func (c *Core) adopt(e *Event, h Hash) {
	if e.Creator != c.cfg.Self || c.own.any && e.Seq <= c.own.seq {
		return
	}
	c.own = ownHead{Parent{h, e.Creator, e.BirthRound}, e.Seq, e.Time, true}
}
