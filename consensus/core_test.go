package consensus

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func testCore(t testing.TB, n int, self uint64) *Core {
	t.Helper()
	c, err := New(Config{Network: Hash{42}, Roster: testRoster(n), Self: self})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func testRoster(n int) []Member {
	out := make([]Member, n)
	for i := range out {
		out[i] = Member{ID: uint64(i + 1), Weight: 1}
	}
	return out
}

// follow makes an event on others, the first being the self-parent if it is by the
// same creator.
func follow(creator, birth uint64, parents ...*Event) *Event {
	e := &Event{Network: Hash{42}, Creator: creator, BirthRound: birth, Time: Timestamp(birth * 1000)}
	for i, p := range parents {
		e.Parents = append(e.Parents, Parent{p.Hash(), p.Creator, p.BirthRound})
		if i == 0 && p.Creator == creator {
			e.Seq = p.Seq + 1
		}
		e.Time = max(e.Time, p.Time+1)
	}
	return e
}

func drained(c *Core) Ready {
	rd, _ := c.Ready()
	c.Advance()
	return rd
}

func TestBrokenRulesAreNamed(t *testing.T) {
	a0 := follow(1, 1)
	b0 := follow(2, 1)
	base := follow(1, 1, a0, b0)
	for name, tc := range map[string]struct {
		change func(e *Event)
		word   string
	}{
		"other network":     {func(e *Event) { e.Network = Hash{1} }, "network"},
		"stranger":          {func(e *Event) { e.Creator, e.Seq = 9, 0 }, "not a member"},
		"round zero":        {func(e *Event) { e.BirthRound = 0 }, "begin at 1"},
		"strange parent":    {func(e *Event) { e.Parents[1] = Parent{Hash{9}, 9, 1} }, "not a member"},
		"other maker":       {func(e *Event) { e.Parents[1].Creator = 3 }, "misnames"},
		"self-parent later": {func(e *Event) { e.Parents[0], e.Parents[1] = e.Parents[1], e.Parents[0]; e.Seq = 0 }, "self-parent"},
		"one parent twice":  {func(e *Event) { e.Parents = append(e.Parents, e.Parents[1]) }, "two parents"},
		"parent is younger": {func(e *Event) { e.Parents[1].BirthRound = 2 }, "born in round 1"},
		"wrong number":      {func(e *Event) { e.Seq = 5 }, "number 5"},
		"no number":         {func(e *Event) { e.Seq = 0 }, "number 0"},
		"not later":         {func(e *Event) { e.Time = a0.Time }, "does not follow"},
		"time out of range": {func(e *Event) { e.Time = -1 }, "out of range"},
		"large transaction": {func(e *Event) { e.Payload = [][]byte{make([]byte, MaxTransaction+1)} }, "transaction"},
		"misdated parent":   {func(e *Event) { e.BirthRound, e.Parents[1].BirthRound = 2, 2 }, "misnames"},
		"misnamed parent":   {func(e *Event) { e.Parents[1].Hash = a0.Hash() }, "misnames"},
	} {
		c := testCore(t, 4, 4)
		for _, e := range []*Event{a0, b0} {
			if err := c.Add(e); err != nil {
				t.Fatal(err)
			}
		}
		e := *base
		e.Parents = append([]Parent(nil), base.Parents...)
		tc.change(&e)
		if err := c.Add(&e); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tc.word) {
			t.Errorf("%s: %v, want ErrInvalid with %q", name, err, tc.word)
		}
		if err := c.Add(base); err != nil {
			t.Errorf("%s: the good event is refused afterwards: %v", name, err)
		}
		if err := c.Add(base); !errors.Is(err, ErrDuplicate) {
			t.Errorf("%s: second time: %v", name, err)
		}
	}
}

func TestOrphanWaitsForItsParents(t *testing.T) {
	c := testCore(t, 4, 4)
	a0, b0 := follow(1, 1), follow(2, 1)
	a1 := follow(1, 1, a0, b0)
	a2 := follow(1, 1, a1)
	for _, e := range []*Event{a2, a1} {
		if err := c.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	rd := drained(c)
	if len(rd.Save) != 0 || len(rd.Missing) != 2 || rd.Missing[0] != (Want{a0.Hash(), 1, 1}) || rd.Missing[1] != (Want{b0.Hash(), 2, 1}) {
		t.Fatalf("with no parents there: %+v", rd)
	}
	if _, more := c.Ready(); more {
		t.Error("missing parents are told twice")
	}
	if got := c.Missing(); len(got) != 2 {
		t.Errorf("%d parents are missing, want 2", len(got))
	}
	for _, e := range []*Event{b0, a0} {
		if err := c.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	if rd = drained(c); fmt.Sprint(rd.Save) != fmt.Sprint([]*Event{b0, a0, a1, a2}) {
		t.Errorf("entered %v, want parents first", rd.Save)
	}
	if s := c.Status(); s.Waiting != 0 || s.Live != 4 {
		t.Errorf("%+v", s)
	}
}

func TestWaitingEventsAreBounded(t *testing.T) {
	c := testCore(t, 4, 4)
	chain := []*Event{follow(1, 1)}
	for range 2 * maxWaiting {
		chain = append(chain, follow(1, 1, chain[len(chain)-1]))
	}
	var full int
	for _, e := range chain[1:] {
		if err := c.Add(e); errors.Is(err, ErrFull) {
			full++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if s := c.Status(); s.Waiting != maxWaiting || full != maxWaiting {
		t.Errorf("%d wait, %d were refused, want %d each", s.Waiting, full, maxWaiting)
	}
	future := follow(1, 99)
	if err := c.Add(future); !errors.Is(err, ErrFuture) {
		t.Errorf("a future event with no room: %v", err)
	}
	if err := c.Add(chain[0]); err != nil {
		t.Fatal(err)
	}
	if s := c.Status(); s.Waiting != 0 || s.Live != maxWaiting+1 {
		t.Errorf("after the first came: %+v", s)
	}
}

func TestWaitingBytesAreBounded(t *testing.T) {
	c := testCore(t, 4, 4)
	lost := follow(2, 1)
	for i := range 40 {
		e := follow(1, 1, lost)
		e.Coin = uint32(i)
		for range 7 {
			e.Payload = append(e.Payload, make([]byte, MaxTransaction))
		}
		if err := c.Add(e); err != nil && !errors.Is(err, ErrFull) {
			t.Fatal(err)
		}
	}
	if got := c.seats[0].bytes; got > maxWaitingBytes {
		t.Errorf("%d bytes wait, the bound is %d", got, maxWaitingBytes)
	}
}

func TestBothBranchesOfAForkAreTaken(t *testing.T) {
	c := testCore(t, 4, 4)
	a0 := follow(1, 1)
	left, right := follow(1, 1, a0), follow(1, 1, a0)
	right.Coin = 1
	other := follow(2, 1, right)
	for _, e := range []*Event{a0, left, right, other, follow(3, 1, left)} {
		if err := c.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	f := c.Forks()
	if len(f) != 1 || f[0] != (Fork{left, right}) {
		t.Errorf("evidence %v, want the two branches", f)
	}
}

func TestBranchesAreBoundedUnlessBuiltOn(t *testing.T) {
	c := testCore(t, 4, 4)
	a0 := follow(1, 1)
	if err := c.Add(a0); err != nil {
		t.Fatal(err)
	}
	var last *Event
	for i := range maxBranches + 1 {
		last = follow(1, 1, a0)
		last.Coin = uint32(i)
		err := c.Add(last)
		if flood := i == maxBranches; errors.Is(err, ErrFlood) != flood || !flood && err != nil {
			t.Fatalf("branch %d: %v", i, err)
		}
	}
	next := follow(1, 1, last)
	for _, e := range []*Event{next, follow(2, 1, next)} {
		if err := c.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	if rd := drained(c); len(rd.Missing) != 1 || rd.Missing[0].Hash != last.Hash() {
		t.Fatalf("missing %v, want the refused branch", rd.Missing)
	}
	if err := c.Add(last); err != nil {
		t.Errorf("another member builds on it, and still: %v", err)
	}
	if s := c.Status(); s.Waiting != 0 {
		t.Errorf("%d events still wait", s.Waiting)
	}
}

// TestSavedEventsAreNeverOneTooMany: what was let in because another member had built
// on it is saved before that, and so comes first after a restart.
func TestSavedEventsAreNeverOneTooMany(t *testing.T) {
	a0 := follow(1, 1)
	saved := []*Event{a0}
	for i := range maxBranches + 1 {
		e := follow(1, 1, a0)
		e.Coin = uint32(i)
		saved = append(saved, e)
	}
	saved = append(saved, follow(2, 1, saved[len(saved)-1]))
	c := testCore(t, 4, 4)
	c.Replay(true)
	for i, e := range saved {
		if err := c.Add(e); err != nil {
			t.Fatalf("event %d of the log: %v", i, err)
		}
		drained(c)
	}
	c.Replay(false)
	if s := c.Status(); s.Live != len(saved) || s.Waiting != 0 {
		t.Errorf("%d of %d events are in the graph, %d wait", s.Live, len(saved), s.Waiting)
	}
	more := follow(1, 1, a0)
	more.Coin = 99
	if err := c.Add(more); !errors.Is(err, ErrFlood) {
		t.Errorf("after the replay one branch more: %v", err)
	}
}

// TestEventsThatNameOneParentManyTimesAreLookedAtOnce: there are 3^400 ways from the
// first of them to the last.
func TestEventsThatNameOneParentManyTimesAreLookedAtOnce(t *testing.T) {
	c := testCore(t, 4, 4)
	a0 := follow(1, 1)
	if err := c.Add(a0); err != nil {
		t.Fatal(err)
	}
	for i := range maxBranches {
		e := follow(1, 1, a0)
		e.Coin = uint32(i)
		if err := c.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	last := follow(1, 1, a0)
	last.Coin = maxBranches
	for at, i := last, 0; i < 400; i++ {
		at = follow(1, 1, at)
		for _, liar := range []uint64{2, 3} {
			at.Parents = append(at.Parents, Parent{at.Parents[0].Hash, liar, 1})
		}
		if err := c.Add(at); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Add(last); !errors.Is(err, ErrFlood) {
		t.Errorf("a branch that only its creator builds on: %v", err)
	}
}

func TestNextBuildsOnTheHighestBranch(t *testing.T) {
	c := testCore(t, 4, 4)
	a0, b0, c0 := follow(1, 1), follow(2, 1), follow(3, 1)
	low, high := follow(1, 1, a0), follow(1, 1, a0, b0, c0)
	for _, e := range []*Event{a0, b0, c0, low, high} {
		if err := c.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	if got := c.Next(1, 0, nil).Parents[0].Hash; got != high.Hash() {
		t.Errorf("built on %x, want the branch of the higher layer", got[:4])
	}
}

// A member that lost its disk learns its own events from the others, and must not
// make another event in their place.
func TestOwnEventsFromOthersAreBuiltOn(t *testing.T) {
	c := testCore(t, 4, 1)
	own := []*Event{follow(1, 1)}
	for range 3 {
		own = append(own, follow(1, 1, own[len(own)-1]))
	}
	if err := c.Add(own[3]); err != nil {
		t.Fatal(err)
	}
	if now, _ := c.Due(1, true); now {
		t.Error("an event is due while an own one waits for its parents")
	}
	for _, e := range own[:3] {
		if err := c.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	c.Due(2_000_000, true) // notes the events: the next one keeps its distance from them
	if now, _ := c.Due(3_000_000, true); !now {
		t.Error("nothing is due although all own events are here")
	}
	if e := c.Next(1, 0, nil); e.Seq != 4 || e.Parents[0].Hash != own[3].Hash() {
		t.Errorf("next is number %d", e.Seq)
	}
}

func TestObserverOnlyWatches(t *testing.T) {
	c := testCore(t, 1, 99)
	if now, wait := c.Due(1, true); now || wait != 0 {
		t.Errorf("due %v, %d", now, wait)
	}
	if e := c.Next(1, 0, nil); e != nil {
		t.Errorf("an observer made %v", e)
	}
	ordered := 0
	for e, i := follow(1, 1), 0; i < 10; i++ {
		if err := c.Add(e); err != nil {
			t.Fatal(err)
		}
		ordered += len(drained(c).Ordered)
		e = follow(1, c.Pending(), e)
	}
	if ordered < 5 {
		t.Errorf("an observer ordered %d events of 10", ordered)
	}
}

// A single member is a quorum: four events order one transaction, and then it rests.
func TestLoneMemberOrdersByItselfAndRests(t *testing.T) {
	c := testCore(t, 1, 1)
	made, ordered := 0, 0
	for round := range 3 {
		pool := [][]byte{fmt.Append(nil, round)}
		for mono := int64(1); mono < 1_000_000_000; mono += 1_000_000 {
			now, _ := c.Due(mono+int64(round)*2_000_000_000, len(pool) > 0)
			if !now {
				continue
			}
			if err := c.Add(c.Next(Timestamp(mono), 0, pool)); err != nil {
				t.Fatal(err)
			}
			made++
			pool = nil
			for _, o := range drained(c).Ordered {
				ordered += len(o.Event.Payload)
			}
		}
		if ordered != round+1 || made > 4*(round+1) {
			t.Errorf("%d events ordered %d of %d transactions", made, ordered, round+1)
		}
	}
}

func TestWorkIsReturnedUntilItIsDone(t *testing.T) {
	c := testCore(t, 4, 1)
	if _, ok := c.Ready(); ok {
		t.Fatal("work at the beginning")
	}
	own := c.Next(5, 0, nil)
	if err := c.Add(own); err != nil {
		t.Fatal(err)
	}
	first, _ := c.Ready()
	if err := c.Add(follow(2, 1)); err != nil { // while the work is being done
		t.Fatal(err)
	}
	c.Advance()
	second, _ := c.Ready()
	if len(first.Save) != 1 || len(first.Send) != 1 || first.Send[0] != own {
		t.Errorf("first %+v", first)
	}
	if len(second.Save) != 1 || len(second.Send) != 0 || second.Save[0].Creator != 2 {
		t.Errorf("second %+v", second)
	}
}

func TestBadConfigsAreRefused(t *testing.T) {
	for name, cfg := range map[string]Config{
		"nobody":       {},
		"no weight":    {Roster: []Member{{ID: 1}}},
		"out of order": {Roster: []Member{{ID: 2, Weight: 1}, {ID: 1, Weight: 1}}},
		"twice":        {Roster: []Member{{ID: 1, Weight: 1}, {ID: 1, Weight: 1}}},
		"heavy":        {Roster: []Member{{ID: 1, Weight: 1 << 48}, {ID: 2, Weight: 1}}},
		"crowd":        {Roster: testRoster(MaxMembers + 1)},
		"never seen":   {Roster: testRoster(1), Params: Params{SeeNum: 1, SeeDen: 9, CoinInterval: 12, NonAncientRounds: 26}},
		"no coin":      {Roster: testRoster(1), Params: Params{SeeNum: 2, SeeDen: 3, NonAncientRounds: 26}},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := New(Config{Roster: testRoster(MaxMembers), Self: 1}); err != nil {
		t.Errorf("the largest roster: %v", err)
	}
}

// layered feeds a core with a full mesh of events, layer by layer.
func layered(t testing.TB, c *Core, n, layers int) (events, ordered int) {
	heads := make([]*Event, n)
	for range layers {
		next := make([]*Event, n)
		for i := range heads {
			var parents []*Event
			for k := range heads {
				if p := heads[(i+k)%n]; p != nil {
					parents = append(parents, p)
				}
			}
			next[i] = follow(uint64(i+1), c.Pending(), parents...)
		}
		for i, e := range next {
			for _, p := range heads {
				if p != nil {
					e.BirthRound = max(e.BirthRound, p.BirthRound)
				}
			}
			if err := c.Add(e); err != nil {
				t.Fatalf("event of %d: %v", i+1, err)
			}
			events++
		}
		ordered += len(drained(c).Ordered)
		heads = next
	}
	return events, ordered
}

func TestGraphStaysSmall(t *testing.T) {
	c := testCore(t, 4, 99)
	events, ordered := layered(t, c, 4, 2000)
	if ordered < events-40 {
		t.Errorf("%d of %d events were ordered", ordered, events)
	}
	if live := c.Status().Live; live > 4*40+forgetAt {
		t.Errorf("%d events are kept", live)
	}
	if len(c.dag.index) != len(c.dag.nodes) || len(c.births.rounds) > 40 {
		t.Errorf("%d in the index, %d in the graph, %d rounds counted", len(c.dag.index), len(c.dag.nodes), len(c.births.rounds))
	}
}

// A parent that never comes is waited for until it is ancient; then it does not count.
func TestEventWhoseParentIsAncientComesIn(t *testing.T) {
	c := testCore(t, 4, 99)
	s := &stream{t: t, core: c, heads: make([]*Event, 4)}
	for c.Pending() < 10 {
		s.layer()
	}
	lost := follow(1, c.Pending())
	late := follow(2, c.Pending()+20, lost)
	if err := c.Add(late); err != nil {
		t.Fatal(err)
	}
	for c.minBirth() <= lost.BirthRound {
		if c.Event(late.Hash()) != nil {
			t.Fatalf("it is in with round %d open, and lacks a parent of round %d", c.minBirth(), lost.BirthRound)
		}
		s.layer()
	}
	if c.Event(late.Hash()) == nil || len(c.Missing()) > 0 || c.Status().Waiting > 0 {
		t.Errorf("still missing: %v", c.Missing())
	}
}

// Members that count layers differently may all wait for each other. Whoever has news
// of a quorum goes on after a while; without news nobody does.
func TestStallIsBroken(t *testing.T) {
	c := testCore(t, 4, 1)
	a0 := c.Next(1, 0, [][]byte{{1}})
	if err := c.Add(a0); err != nil {
		t.Fatal(err)
	}
	for id := uint64(2); id <= 4; id++ {
		c.Reach(id, true, 10_000_000)
	}
	b0, c0, d0 := follow(2, 1), follow(3, 1), follow(4, 1)
	for _, e := range []*Event{b0, c0, d0} {
		if err := c.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	a1 := c.Next(2, 0, nil)
	if err := c.Add(a1); err != nil {
		t.Fatal(err)
	}
	if now, wait := c.Due(1_000_000, false); now || wait != 0 {
		t.Fatalf("with no news: %v, %d", now, wait)
	}
	// They answer, but in what counts here as an earlier layer.
	b1, c1 := follow(2, 1, b0, c0), follow(3, 1, c0, b0)
	for i, e := range []*Event{b1, c1} {
		if err := c.Add(e); err != nil {
			t.Fatal(err)
		}
		if now, wait := c.Due(2_000_000, false); now || (wait > 0) != (i == 1) {
			t.Fatalf("with news of %d: %v, %d", i+1, now, wait)
		}
	}
	now, wait := c.Due(2_000_000, false)
	if now || wait < 15_000_000 || wait > 30_000_000 {
		t.Fatalf("with news of a quorum: %v, %d; want about two round trips", now, wait)
	}
	if now, _ := c.Due(2_000_000+wait, false); !now {
		t.Error("it still waits after two round trips")
	}
}
