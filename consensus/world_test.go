package consensus

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// replica is a Core with a state machine: payloads that are rosters change the
// roster. It keeps all that came out.
type replica struct {
	t       *testing.T
	core    *Core
	orders  []string
	cps     []Checkpoint
	changes []string // what Change said
	stale   []Hash
}

// order of a roster change, as a payload.
type wish struct {
	Roster []Member
	Params Params
}

func (r *replica) pump() {
	r.t.Helper()
	for rd, ok := r.core.Ready(); ok; rd, ok = r.core.Ready() {
		for _, cp := range rd.Checkpoints {
			if len(r.cps) > 0 && r.cps[len(r.cps)-1].Round >= cp.Round {
				r.t.Fatalf("the checkpoint of round %d comes after that of round %d", cp.Round, r.cps[len(r.cps)-1].Round)
			}
			if n := len(r.orders); n > 0 && cp.Ordered != r.next() {
				r.t.Fatalf("the checkpoint at %d comes when %d are applied", cp.Ordered, r.next())
			}
			r.cps = append(r.cps, cp)
		}
		for _, o := range rd.Ordered {
			h := o.Event.Hash()
			r.orders = append(r.orders, fmt.Sprintf("%d: %x of %d in %d at %d", o.Index, h[:4], o.Event.Creator, o.Round, o.Time))
			for _, tx := range o.Event.Payload {
				var w wish
				if err := json.Unmarshal(tx, &w); err != nil || w.Roster == nil {
					continue
				}
				err := r.core.Change(o.Round, w.Roster, w.Params)
				r.changes = append(r.changes, fmt.Sprintf("%d: %v", o.Index, err))
			}
		}
		for _, e := range rd.Stale {
			r.stale = append(r.stale, e.Hash())
		}
		r.core.Advance()
	}
}

// next is the index after the last order.
func (r *replica) next() (n uint64) {
	fmt.Sscan(r.orders[len(r.orders)-1], &n)
	return n + 1
}

// feed adds events in the given order, pumping now and then, and those that found
// no room again until all are in or ancient.
func (r *replica) feed(rng *rand.Rand, events []*Event) {
	r.t.Helper()
	for len(events) > 0 {
		var again []*Event
		for _, e := range events {
			switch err := r.core.Add(e); {
			case errors.Is(err, ErrFuture) || errors.Is(err, ErrFull):
				again = append(again, e)
			case err != nil && !errors.Is(err, ErrAncient) && !errors.Is(err, ErrDuplicate):
				r.t.Fatalf("an event of %d in round %d: %v", e.Creator, e.BirthRound, err)
			}
			if rng.IntN(5) == 0 {
				r.pump()
			}
		}
		r.pump()
		if len(again) == len(events) {
			r.t.Fatalf("%d events never find room: %v", len(again), r.core.Add(again[0]))
		}
		events = again
	}
	if w := r.core.Status().Waiting; w > 0 {
		r.t.Fatalf("%d events still wait", w)
	}
}

// world makes events as members would that see about the same, with parents left
// out, old birth rounds, forks and members that come and go.
type world struct {
	*replica
	rng     *rand.Rand
	events  []*Event
	last    map[uint64]*Event
	old     map[uint64]*Event // an earlier one, where a liar goes back to
	opt     worldOptions
	forks   int
	pending []int // of each event, the pending round when it was made
}

type worldOptions struct {
	seed    uint64
	n       int // members at first
	liar    uint64
	changes bool
	every   uint64
	params  Params
}

func newWorld(t *testing.T, opt worldOptions) *world {
	t.Helper()
	return &world{
		replica: opt.replica(t, 0, nil), rng: rand.New(rand.NewPCG(opt.seed, 7)), opt: opt,
		last: map[uint64]*Event{}, old: map[uint64]*Event{},
	}
}

func (opt worldOptions) replica(t *testing.T, self uint64, from *Checkpoint) *replica {
	t.Helper()
	cfg := Config{Network: Hash{42}, Self: self, From: from, CheckpointEvery: opt.every}
	if from == nil {
		cfg.Roster, cfg.Params = testRoster(opt.n), opt.params
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &replica{t: t, core: c}
}

// step makes one event.
func (w *world) step() {
	pending := w.core.Pending()
	roster := w.core.rules(pending).Roster
	by := roster[w.rng.IntN(len(roster))].ID
	birth := pending
	if w.rng.IntN(8) == 0 {
		birth -= min(birth-1, w.rng.Uint64N(3))
	}
	if birth < w.core.minBirth() || !w.core.isMember(by, birth) {
		birth = pending
	}
	self := w.last[by]
	if by == w.opt.liar && w.rng.IntN(4) == 0 && w.old[by] != nil {
		self = w.old[by]
		w.forks++
	}
	if self != nil && self.BirthRound > birth {
		birth = pending
	}
	var parents []*Event
	if self != nil {
		parents = append(parents, self)
	}
	for id := uint64(1); id <= 12; id++ {
		if p := w.last[id]; p != nil && id != by && p.BirthRound <= birth && p.BirthRound >= w.core.minBirth() && w.rng.IntN(5) > 0 {
			parents = append(parents, p)
		}
	}
	e := follow(by, birth, parents...)
	e.Coin = w.rng.Uint32()
	e.Time += Timestamp(w.rng.IntN(500))
	switch {
	case w.opt.changes && w.rng.IntN(60) == 0:
		e.Payload = append(e.Payload, w.wish())
	case w.rng.IntN(3) == 0:
		e.Payload = append(e.Payload, fmt.Append(nil, len(w.events)))
	}
	e.seal(e.Hash())
	if err := w.core.Add(e); err != nil {
		w.t.Fatalf("event of %d: %v", by, err)
	}
	w.events = append(w.events, e)
	if w.rng.IntN(6) == 0 || w.old[by] == nil {
		w.old[by] = w.last[by]
	}
	w.last[by] = e
	if w.rng.IntN(3) > 0 {
		w.pump()
	}
}

// wish is a random change: members from 1 to 12, at least four, most with weight 1.
func (w *world) wish() []byte {
	ids := w.rng.Perm(12)[:4+w.rng.IntN(5)]
	slices.Sort(ids)
	p := w.opt.params
	var out wish
	for _, id := range ids {
		m := Member{ID: uint64(id + 1), Weight: 3}
		if w.rng.IntN(4) == 0 {
			m.Weight = 2 + w.rng.Uint64N(3)
		}
		out.Roster = append(out.Roster, m)
	}
	switch w.rng.IntN(6) {
	case 0:
		p.JudgeAny = !p.JudgeAny
	case 1:
		p.NonAncientRounds = 3 + w.rng.Uint64N(8)
	case 2:
		p.CoinInterval = 2 + w.rng.Uint64N(6)
	case 3:
		out.Roster[0].ID = 50 // out of order: refused
	}
	out.Params = p
	b, err := json.Marshal(out)
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

// shuffled is a random order of events that has parents first; it strays about span
// places from the order of making.
func shuffled(rng *rand.Rand, events []*Event, span int) []*Event {
	place := map[Hash]float64{}
	out := slices.Clone(events)
	for i, e := range events {
		at := float64(i) + rng.Float64()*float64(span)
		for k := range e.Parents {
			at = max(at, place[e.Parents[k].Hash]+1e-6)
		}
		place[e.Hash()] = at
	}
	slices.SortStableFunc(out, func(a, b *Event) int {
		if x, y := place[a.Hash()], place[b.Hash()]; x < y {
			return -1
		} else if x > y {
			return 1
		}
		return 0
	})
	return out
}
