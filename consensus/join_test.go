package consensus

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

// worlds runs a test in random worlds; it makes the events of each first.
func worlds(t *testing.T, count, steps int, f func(t *testing.T, w *world, rng *rand.Rand)) {
	var changed, cps, forks, stale int
	for seed := range uint64(count) {
		rng := rand.New(rand.NewPCG(seed, 3))
		opt := worldOptions{seed: seed, n: 4 + int(seed%4), changes: seed%4 != 3, every: 1 + rng.Uint64N(6), params: DefaultParams}
		opt.params.NonAncientRounds = 3 + rng.Uint64N(8)
		opt.params.JudgeAny = rng.IntN(3) > 0
		opt.params.Whiten = rng.IntN(3) > 0
		if rng.IntN(2) == 0 {
			opt.liar = 1 + rng.Uint64N(4)
		}
		w := newWorld(t, opt)
		for range steps {
			w.step()
		}
		w.pump()
		changed, cps, forks = changed+len(w.changes), cps+len(w.cps), forks+w.forks
		stale += len(w.events) - len(w.orders)
		t.Run(fmt.Sprint(seed), func(t *testing.T) { f(t, w, rng) })
	}
	t.Logf("%d changes, %d checkpoints, %d forks, %d events not ordered", changed, cps, forks, stale)
	if changed < 5*count || cps < 20*count || forks < 10 || stale < count {
		t.Error("that says little")
	}
}

func sameRun(t *testing.T, got, want *replica) {
	t.Helper()
	if len(got.orders) != len(want.orders) {
		t.Errorf("%d events are ordered, want %d", len(got.orders), len(want.orders))
	}
	for i := range min(len(got.orders), len(want.orders)) {
		if got.orders[i] != want.orders[i] {
			t.Fatalf("ordered %s, want %s", got.orders[i], want.orders[i])
		}
	}
	if len(got.cps) != len(want.cps) {
		t.Errorf("%d checkpoints, want %d", len(got.cps), len(want.cps))
	}
	for i := range min(len(got.cps), len(want.cps)) {
		if a, b := got.cps[i].Marshal(), want.cps[i].Marshal(); !bytes.Equal(a, b) {
			t.Fatalf("checkpoint %d is\n%+v, want\n%+v", i, got.cps[i], want.cps[i])
		}
	}
	if !slices.Equal(got.changes, want.changes) {
		t.Errorf("changes ended with %v, want %v", got.changes, want.changes)
	}
	a, b := got.core, want.core
	if a.Pending() != b.Pending() || a.minBirth() != b.minBirth() || a.busy != b.busy || !reflect.DeepEqual(a.Epochs(), b.Epochs()) {
		t.Errorf("pending %d from %d with %d undecided, want %d from %d with %d; or the rosters differ",
			a.Pending(), a.minBirth(), a.busy, b.Pending(), b.minBirth(), b.busy)
	}
}

func TestOrderAndCheckpointsAreIndependentOfArrival(t *testing.T) {
	worlds(t, 12, 1200, func(t *testing.T, w *world, rng *rand.Rand) {
		for _, span := range []int{0, 30, 200} {
			r := w.opt.replica(t, 0, nil)
			r.feed(rng, shuffled(rng, w.events, span))
			sameRun(t, r, w.replica)
		}
	})
}

func TestCheckpointIsAllThatOneNeedsToGoOn(t *testing.T) {
	worlds(t, 12, 1200, func(t *testing.T, w *world, rng *rand.Rand) {
		for i := range w.cps {
			if rng.IntN(4) > 0 && i+1 < len(w.cps) {
				continue
			}
			cp, err := UnmarshalCheckpoint(w.cps[i].Marshal())
			if err != nil {
				t.Fatalf("%v: %+v", err, w.cps[i])
			}
			r := w.opt.replica(t, 0, cp)
			var events []*Event
			for _, e := range w.events {
				if e.BirthRound >= cp.MinBirth {
					events = append(events, e)
				}
			}
			r.feed(rng, shuffled(rng, events, 1+rng.IntN(100)))
			want := *w.replica
			want.orders, want.cps = w.orders[cp.Ordered:], w.cps[i+1:]
			want.changes = nil
			for _, s := range w.changes {
				var at uint64
				if fmt.Sscan(s, &at); at >= cp.Ordered {
					want.changes = append(want.changes, s)
				}
			}
			sameRun(t, r, &want)
		}
	})
}

// Until the last judge is here nothing is decided and nothing made, whatever else
// is here.
func TestNothingIsDecidedBeforeTheJudgesAreHere(t *testing.T) {
	opt := worldOptions{seed: 1, n: 4, every: 20, params: DefaultParams}
	w := newWorld(t, opt)
	for range 500 {
		w.step()
	}
	w.pump()
	cp := w.cps[len(w.cps)-1]
	r := opt.replica(t, 1, &cp)
	if got := r.core.Missing(); len(got) != len(cp.Judges) || got[0].Hash != cp.Judges[0].Hash {
		t.Errorf("missing are %v, want the judges", got)
	}
	if rd, _ := r.core.Ready(); len(rd.Missing) != len(cp.Judges) {
		t.Errorf("asked for %v, want the judges", rd.Missing)
	}
	var last Hash // the judge that was made last: no other is above it
	for _, e := range w.events {
		if slices.ContainsFunc(cp.Judges, func(j Parent) bool { return j.Hash == e.Hash() }) {
			last = e.Hash()
		}
	}
	var held []*Event
	above := map[Hash]bool{last: true}
	for _, e := range w.events {
		for i := range e.Parents {
			above[e.Hash()] = above[e.Hash()] || above[e.Parents[i].Hash]
		}
		switch {
		case e.BirthRound < cp.MinBirth:
		case above[e.Hash()]:
			held = append(held, e)
		default:
			r.feed(w.rng, []*Event{e})
		}
	}
	now, _ := r.core.Due(1_000_000_000, true)
	if !r.core.Status().Joining || len(r.orders) > 0 || now || r.core.Next(1, 0, nil) != nil || r.core.Pending() != cp.Round+1 {
		t.Fatalf("with a judge missing: %d ordered, due %v, %+v", len(r.orders), now, r.core.Status())
	}
	if got := r.core.Missing(); len(got) != 1 || got[0].Hash != last {
		t.Errorf("missing are %v, want one judge", got)
	}
	r.feed(w.rng, held)
	if r.core.Status().Joining || len(r.orders) == 0 {
		t.Errorf("with all judges: %d ordered, %+v", len(r.orders), r.core.Status())
	}
	var own *Event
	for _, e := range w.events {
		if e.Creator == 1 {
			own = e
		}
	}
	r.core.Due(1, true)
	if e := r.core.Next(1, 0, nil); e == nil || e.Seq != own.Seq+1 || e.Parents[0].Hash != own.Hash() {
		t.Errorf("the next own event is %+v, want one on number %d", e, own.Seq)
	}
}

// A member whose own last event is ancient by the checkpoint still goes on from it,
// if it is given.
func TestAncientOwnEventIsBuiltOnAfterResume(t *testing.T) {
	opt := worldOptions{seed: 2, n: 5, every: 50, params: DefaultParams}
	w := newWorld(t, opt)
	for len(w.cps) == 0 {
		w.step()
		w.pump()
	}
	cp := w.cps[0]
	r := opt.replica(t, 1, &cp)
	old := follow(1, cp.MinBirth-1)
	old.Seq, old.Parents, old.Time = 777, []Parent{{Hash{1}, 1, 1}}, 1<<40
	if err := r.core.Add(old); !errors.Is(err, ErrAncient) {
		t.Fatalf("an ancient event gives %v", err)
	}
	r.feed(w.rng, w.events)
	if e := r.core.Next(1, 0, nil); e == nil || e.Seq != 778 || e.Parents[0].Hash != old.Hash() || e.Time <= old.Time {
		t.Errorf("the next own event is %+v, want one on number 777", e)
	}
}

// What was decided waits for the driver: its answer can still change the rules of
// the round that is ChangeDelay later.
func TestDecidingWaitsForTheDriver(t *testing.T) {
	opt := worldOptions{seed: 3, n: 4, every: 1000, params: DefaultParams}
	w := newWorld(t, opt)
	for range 400 {
		w.step()
	}
	w.pump()
	c := opt.replica(t, 0, nil).core
	for _, e := range w.events {
		if err := c.Add(e); err != nil {
			break // no more room
		}
	}
	if c.decided != ChangeDelay {
		t.Fatalf("with nothing applied round %d is decided, want %d", c.decided, ChangeDelay)
	}
	rd, _ := c.Ready()
	lastRound := rd.Ordered[len(rd.Ordered)-1].Round
	if err := c.Change(lastRound+1, testRoster(5), Params{}); err == nil {
		t.Error("a change by a round that is not applied yet is accepted")
	}
	heavier := testRoster(4)
	for i := range heavier {
		heavier[i].Weight = 9
	}
	if err := c.Change(rd.Ordered[0].Round, heavier, Params{}); err != nil {
		t.Errorf("a change by the first round that is being applied: %v", err)
	}
	c.Advance()
	if err := c.Change(1, testRoster(6), Params{}); err == nil {
		t.Error("a change after Advance is accepted")
	}
	if got := c.Epochs(); len(got) != 2 || got[1].From != rd.Ordered[0].Round+ChangeDelay || got[1].Roster[3].Weight != 9 {
		t.Errorf("the epochs are %+v", got)
	}
	if c.decided <= ChangeDelay {
		t.Errorf("nothing more was decided when all was applied: %d %+v", c.applied(), c.Status())
	}
}

// However many members come and go, what is kept is for those that are there.
func TestSlotsOfMembersThatLeftAreUsedAgain(t *testing.T) {
	c := testCore(t, 4, 99)
	heads := map[uint64]*Event{}
	next := uint64(5)
	changed := uint64(0)
	for step := range 4000 {
		ep := c.rules(c.Pending())
		by := ep.Roster[step%len(ep.Roster)].ID
		var parents []*Event
		if p := heads[by]; p != nil {
			parents = append(parents, p)
		}
		for id := next - min(next, 12); id < next; id++ {
			if p := heads[id]; p != nil && id != by && p.BirthRound >= c.minBirth() {
				parents = append(parents, p)
			}
		}
		e := follow(by, c.Pending(), parents...)
		if err := c.Add(e); err != nil {
			t.Fatal(err)
		}
		heads[by] = e
		for rd, ok := c.Ready(); ok; rd, ok = c.Ready() {
			if n := len(rd.Ordered); n > 0 && rd.Ordered[n-1].Round >= changed+10 {
				changed = rd.Ordered[n-1].Round
				roster := append([]Member(nil), c.epochs[len(c.epochs)-1].Roster[1:]...)
				if err := c.Change(changed, append(roster, Member{ID: next, Weight: 1}), Params{}); err != nil {
					t.Fatal(err)
				}
				next++
			}
			c.Advance()
		}
	}
	if next < 30 {
		t.Fatalf("only %d members came", next)
	}
	if len(c.seats) > 12 || len(c.slot) > 12 || len(c.epochs) > 12 {
		t.Errorf("%d members came, %d seats and %d rosters are kept", next, len(c.seats), len(c.epochs))
	}
}

// The first round of each roster has a checkpoint, and so has the round before; both
// name that roster.
func TestEachRosterBeginsWithACheckpoint(t *testing.T) {
	worlds(t, 12, 1200, func(t *testing.T, w *world, _ *rand.Rand) {
		at := map[uint64]*Checkpoint{}
		for i := range w.cps {
			at[w.cps[i].Round] = &w.cps[i]
		}
		for _, ep := range w.core.Epochs() {
			if ep.From == 1 || ep.From >= w.core.Pending() {
				continue
			}
			for r := ep.From - 1; r <= ep.From; r++ {
				if cp := at[r]; cp == nil {
					t.Errorf("no checkpoint of round %d", r)
				} else if !slices.ContainsFunc(cp.Epochs, func(x Epoch) bool { return reflect.DeepEqual(x, ep) }) {
					t.Errorf("the checkpoint of round %d has other rosters", r)
				}
			}
		}
		for r, cp := range at {
			named := slices.ContainsFunc(cp.Epochs, func(x Epoch) bool { return x.From == r || x.From == r+1 })
			if r%w.opt.every != 0 && !named {
				t.Errorf("a checkpoint of round %d, and nothing begins there", r)
			}
		}
	})
}

// A driver that applies rarely lets the Core decide as many rounds as it can before it
// knows whether the next has another roster.
func TestSlowDriverTakesTheSameCheckpoints(t *testing.T) {
	for seed := range uint64(12) {
		opt := worldOptions{seed: seed, n: 4, changes: true, every: 1000, params: DefaultParams}
		w := newWorld(t, opt)
		for range 1200 {
			w.step()
		}
		w.pump()
		if len(w.cps) < 4 {
			t.Errorf("seed %d: only %d checkpoints", seed, len(w.cps))
		}
		r := opt.replica(t, 0, nil)
		for left := w.events; len(left) > 0; {
			k := 0
			for k < len(left) && r.core.decided < r.core.horizon() && !errors.Is(r.core.Add(left[k]), ErrFuture) {
				k++
			}
			r.pump()
			left = left[k:]
		}
		sameRun(t, r, w.replica)
	}
}
