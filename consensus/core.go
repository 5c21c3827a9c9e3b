package consensus

import (
	"fmt"

	"github.com/dcnode/dcnode/consensus/internal/h26"
)

// forgetAt is how many ancient events gather before they are let go of together.
const forgetAt = 64

// maxPerRound bounds the events of one creator in one birth round. A member that
// keeps to the rules makes about one.
const maxPerRound = 1024

// Core is the hashgraph of one member. It is driven from one goroutine; see the
// package comment for the loop.
type Core struct {
	cfg    Config
	member map[uint64]int // by ID
	self   int            // none: observer
	engine *h26.Engine
	dag    dag
	wait   waiting
	queue  []*Event // ready to enter the graph

	chains []chain
	own    ownHead
	busy   int // events in the graph with a payload that is neither ordered nor stale
	clock  clock

	observing bool // the driver does not want own events

	ordered  uint64
	lastTime Timestamp
	copied   uint64
	late     uint64
	forks    uint64
	refused  uint64

	ready Ready
	given Ready // what the last Ready handed out
}

// ownHead is this member's last event, which may have left the graph.
type ownHead struct {
	Parent
	seq  uint64
	time Timestamp
	any  bool
}

// New makes a Core with an empty graph. Errors say what is wrong with the config.
func New(cfg Config) (*Core, error) {
	if cfg.Params == (Params{}) {
		cfg.Params = DefaultParams
	}
	ep := Epoch{From: 1, Roster: cfg.Roster, Params: cfg.Params}
	if err := ep.check(); err != nil {
		return nil, fmt.Errorf("set up consensus: %w", err)
	}
	n := len(cfg.Roster)
	c := &Core{cfg: cfg, self: none, member: make(map[uint64]int, n)}
	members := make([]h26.Member, n)
	for i, m := range cfg.Roster {
		c.member[m.ID], members[i] = i, h26.Member{Slot: i, Stake: m.Weight}
		if m.ID == cfg.Self {
			c.self = i
		}
	}
	c.engine = h26.New(h26.Rules{Params: h26.Params{
		SeeNum: cfg.Params.SeeNum, SeeDen: cfg.Params.SeeDen, JudgeAny: cfg.Params.JudgeAny,
		CoinInterval: cfg.Params.CoinInterval, NonAncientRounds: cfg.Params.NonAncientRounds, Whiten: cfg.Params.Whiten,
	}, Members: members})
	c.dag = dag{n: n, index: map[Hash]int{}}
	c.wait = newWaiting(n)
	c.chains = newChains(n)
	c.clock = newClock(n)
	return c, nil
}

// Add takes an event whose signature the caller has checked. Nil means that it is
// in the graph, or kept until its parents (see Ready.Missing) or this member's
// rounds catch up with it; what is kept is bounded for each creator. Otherwise the
// error is ErrDuplicate, ErrAncient, ErrInvalid, ErrFuture, ErrFull or ErrFlood; all
// but ErrInvalid may happen between members that keep to the rules.
//
// An event by this member that Next did not make, as after a restart, becomes its
// last event like one that Next made.
func (c *Core) Add(e *Event) error {
	m, err := c.checkFields(e)
	if err != nil {
		return err
	}
	h := e.Hash()
	if c.Has(h) {
		return ErrDuplicate
	}
	if e.BirthRound < c.engine.MinBirth() {
		if m == c.self {
			c.adopt(e, h)
		}
		return fmt.Errorf("%w: in round %d, rounds from %d on are open", ErrAncient, e.BirthRound, c.engine.MinBirth())
	}
	res, err := c.resolve(e)
	if err != nil {
		return err
	}
	if !res.ready {
		return c.park(e, h, m)
	}
	if err := c.insert(e, h, m); err != nil {
		return err
	}
	c.drain()
	return nil
}

// resolved is how far an event is from entering the graph.
type resolved struct {
	ready  bool
	places []int  // of the parents that count, in signed order
	self   int    // place of the self-parent among them, or none
	lacks  []Want // parents that are not in the graph
}

// resolve looks up the parents. A parent is named by hash, creator and birth round
// together: a name that does not fit the event with that hash can never be linked.
// Parents born in an ancient round do not count, here or anywhere.
func (c *Core) resolve(e *Event) (resolved, error) {
	r := resolved{self: none}
	for i := range e.Parents {
		p := &e.Parents[i]
		if p.BirthRound < c.engine.MinBirth() {
			continue
		}
		x := c.dag.find(p.Hash)
		if x == none {
			r.lacks = append(r.lacks, Want{Hash: p.Hash, Creator: p.Creator, Child: e.Creator})
			continue
		}
		q := c.dag.at(x).ev
		if q.Creator != p.Creator || q.BirthRound != p.BirthRound {
			return r, fmt.Errorf("%w: it misnames a parent of member %d", ErrInvalid, p.Creator)
		}
		if p.Creator == e.Creator {
			if r.self = x; e.Time <= q.Time || e.Seq != q.Seq+1 {
				return r, fmt.Errorf("%w: number %d at %d does not follow number %d at %d", ErrInvalid, e.Seq, e.Time, q.Seq, q.Time)
			}
		}
		r.places = append(r.places, x)
	}
	r.ready = len(r.lacks) == 0 && e.BirthRound <= c.engine.Pending()
	return r, nil
}

// checkFields checks what can be checked without the graph, and finds the creator.
func (c *Core) checkFields(e *Event) (int, error) {
	bad := func(format string, args ...any) (int, error) {
		return none, fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
	}
	if err := e.checkSize(); err != nil {
		return none, err
	}
	m, ok := c.member[e.Creator]
	switch {
	case e.Network != c.cfg.Network:
		return bad("it is of another network")
	case !ok:
		return bad("%d is not a member", e.Creator)
	case e.BirthRound == 0:
		return bad("rounds begin at 1")
	case e.Time < 0 || e.Time > MaxTime:
		return bad("its time %d is out of range", e.Time)
	case (e.Seq == 0) != (len(e.Parents) == 0 || e.Parents[0].Creator != e.Creator):
		return bad("number %d does not fit its self-parent", e.Seq)
	}
	var seen uint64
	for i := range e.Parents {
		p := &e.Parents[i]
		k, ok := c.member[p.Creator]
		switch {
		case !ok:
			return bad("a parent is by %d, who is not a member", p.Creator)
		case k == m && i > 0:
			return bad("its self-parent is not the first parent")
		case seen&(1<<k) != 0:
			return bad("two parents are by member %d", p.Creator)
		case p.BirthRound == 0 || p.BirthRound > e.BirthRound:
			return bad("it is born in round %d, its parent in %d", e.BirthRound, p.BirthRound)
		}
		seen |= 1 << k
	}
	return m, nil
}

// drain lets the events in that became ready, and those that become ready by it.
func (c *Core) drain() {
	for len(c.queue) > 0 {
		e := c.queue[0]
		c.queue = c.queue[1:]
		h := e.Hash()
		if c.dag.find(h) != none {
			continue
		}
		if err := c.insert(e, h, c.member[e.Creator]); err != nil {
			c.refused++
		}
	}
	c.queue = nil
}

// insert puts an event into the graph and draws the consequences. Its parents are there.
func (c *Core) insert(e *Event, h Hash, m int) error {
	res, err := c.resolve(e)
	if err != nil {
		return err
	}
	if !res.ready {
		return c.park(e, h, m)
	}
	if err := c.admit(e, h, m, res.self); err != nil {
		return err
	}
	x := c.dag.add(node{ev: e, hash: h, member: m, layer: c.layer(res.places)}, res.places)
	c.extend(m, x, res.self)
	if len(e.Payload) > 0 {
		c.busy++
	}
	c.ready.Save = append(c.ready.Save, e)
	if m == c.self {
		c.ready.Send = append(c.ready.Send, e)
		c.adopt(e, h)
	} else {
		c.clock.asked = false
	}
	c.engine.Add(h26.Vertex{
		Creator: m, Birth: e.BirthRound, Time: int64(e.Time), Coin: e.Coin,
		SelfParent: res.self, Parents: res.places, Hash: h,
	})
	c.release(h)
	c.decide()
	return nil
}

// adopt takes an own event as the one to build on, if it is the latest.
func (c *Core) adopt(e *Event, h Hash) {
	if c.own.any && e.Seq <= c.own.seq {
		return
	}
	c.own = ownHead{Parent{h, e.Creator, e.BirthRound}, e.Seq, e.Time, true}
}

// decide takes the rounds that can be decided now.
func (c *Core) decide() {
	moved := false
	for d, ok := c.engine.Decide(); ok; d, ok = c.engine.Decide() {
		c.apply(&d)
		moved = true
	}
	if !moved {
		return
	}
	c.retire()
	c.review()
	if base := c.engine.Forget(forgetAt); base > c.dag.base {
		c.dag.forget(base)
	}
}

// apply appends a decided round to the order. Published times follow the rules'
// consensus times and are pushed forward to be strictly increasing.
func (c *Core) apply(d *h26.Decision) {
	if d.Copied {
		c.copied++
	}
	if d.Late {
		c.late++
	}
	for i, r := range d.Received {
		t := Timestamp(r.Time)
		if c.cfg.Params.JudgeAny {
			t = Timestamp(d.Median) + Timestamp(i)
		}
		if c.ordered > 0 {
			t = max(t, c.lastTime+1)
		}
		v := c.dag.at(r.Index)
		c.ready.Ordered = append(c.ready.Ordered, Ordered{Event: v.ev, Index: c.ordered, Round: d.Round, Time: t})
		c.settle(v)
		c.ordered++
		c.lastTime = t
	}
}

// settle marks an event whose fate is known.
func (c *Core) settle(v *node) {
	v.done = true
	if len(v.ev.Payload) > 0 {
		c.busy--
	}
}

// retire settles the events that became ancient without being ordered.
func (c *Core) retire() {
	low := c.engine.MinBirth()
	for i := range c.dag.nodes {
		v := &c.dag.nodes[i]
		if v.done || v.ev.BirthRound >= low {
			continue
		}
		c.settle(v)
		if v.member == c.self && len(v.ev.Payload) > 0 {
			c.ready.Stale = append(c.ready.Stale, v.ev)
		}
	}
	c.retireChains(low)
}
