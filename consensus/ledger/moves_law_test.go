package ledger

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// TestLawHoldsInRandomWorlds throws moves, policies and bids by random members at the
// ledger, honest and not. After each step it asks what must always hold, worked out
// anew from the machines: who owns what, what room is promised, and whether a machine
// changed hands against the policy in force.
func TestLawHoldsInRandomWorlds(t *testing.T) {
	seeds := uint64(80)
	if testing.Short() {
		seeds = 20
	}
	seen := map[Kind]int{}
	for seed := range seeds {
		g := newGame(t, seed)
		for range 300 {
			g.step()
		}
		for _, m := range g.w.s.SortedMachines() { // all that is under way comes to an end
			if m.Move != nil && m.Move.Phase == Released {
				g.w.wait(DefaultRules.Lease)
				g.w.must(g.w.s.Site(m.Move.From), &Reclaim{Machine: m.Name, Epoch: m.Epoch})
			}
		}
		for range 8 {
			g.w.wait(DefaultRules.Copy)
		}
		g.w.nothingReserved()
		g.reload()
		for k, n := range g.seen {
			seen[k] += n
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	for _, k := range []Kind{KindIntent, KindBid, KindSelected, KindNowhere, KindAccept, KindBeat, KindRelease, KindConfirm, KindDecline, KindReclaim, KindAbort, KindReport, KindLeaseEnd, KindPolicy, KindApprove} {
		if seen[k] == 0 {
			t.Errorf("no %s came about, so nothing was tested: %v", k, seen)
		}
	}
	t.Log(seen)
}

type game struct {
	w    *world
	r    *rand.Rand
	seen map[Kind]int
}

func newGame(t *testing.T, seed uint64) *game {
	w := newWorld(t, "s1/eu", "s2/eu", "s3/us", "s4")
	w.machines("a@s1", "b@s1", "c@s1", "d@s1")
	return &game{w: w, r: rand.New(rand.NewPCG(seed, 7)), seen: map[Kind]int{}}
}

func (g *game) step() {
	w := g.w
	before := map[string]*Machine{}
	for m := range w.s.Machines() {
		before[m.Name] = m
	}
	site := fmt.Sprintf("s%d", 1+g.r.IntN(4))
	body, by := g.body()
	if by != 0 && g.r.IntN(8) > 0 {
		site = w.s.Site(by)
	}
	if g.r.IntN(12) == 0 {
		g.count(w.wait(Time(g.r.Int64N(int64(DefaultRules.Accept * 2)))))
		g.check(before)
		return
	}
	out, err := w.try(site, body)
	if err == nil {
		g.seen[body.Kind()]++
	}
	g.count(out)
	g.check(before)
}

func (g *game) count(out []Effect) {
	for _, e := range out {
		g.seen[e.Kind]++
	}
}

func (g *game) name() string { return string(rune('a' + g.r.IntN(4))) }

// body is a transaction that is likely to fit the state, and who should say it.
func (g *game) body() (Body, MemberID) {
	s, r := g.w.s, g.r
	m := s.Machine(g.name())
	mv := m.Move
	if r.IntN(12) == 0 {
		return &SetPolicy{Machine: m.Name, Policy: g.policy(m)}, s.BySite(m.Account).ID
	}
	if mv == nil {
		switch r.IntN(6) {
		case 0:
			return &Approve{Machine: m.Name, Epoch: m.Epoch, Until: s.now + 10*Minute, To: MemberID(r.IntN(5))}, MemberID(1 + r.IntN(4))
		case 1:
			if m.Last != nil {
				return &Report{Machine: m.Name, Move: m.Last.ID, Truth: Truth{Memory: r.Int64N(gib1), Disk: r.Int64N(gib1), Pause: r.Int64N(1000)}}, m.Last.From
			}
		case 2:
			return &SetPolicy{Account: m.Account, Policy: Policy{NotSites: g.some([]string{"s1", "s2", "s3", "s4"}, 8)}}, s.BySite(m.Account).ID
		}
		return &Intent{Machine: m.Name, Epoch: m.Epoch, Only: MemberID(r.IntN(12) % 5), Needs: need1}, m.Owner
	}
	switch mv.Phase {
	case Bidding:
		b := g.w.offer(m.Name)
		b.Able, b.Reason = r.IntN(6) > 0, "r"
		b.MissingData, b.FreeMemory = r.Int64N(4*gib1), r.Int64N(2*gib1)
		b.RTT, b.Bandwidth = r.Int64N(maxRTT), r.Int64N(maxSize)
		if r.IntN(8) == 0 {
			b.Version = "9.1"
		}
		return b, MemberID(1 + r.IntN(4))
	case Copying:
		switch r.IntN(8) {
		case 0:
			return &Abort{Machine: m.Name, Move: mv.ID}, []MemberID{mv.From, mv.To}[r.IntN(2)]
		case 1, 2:
			return &Accept{Machine: m.Name, Move: mv.ID}, mv.To
		case 3:
			return &Beat{Machine: m.Name, Move: mv.ID, Bytes: mv.Moved + int64(r.IntN(3))}, mv.From
		}
		return &Release{Machine: m.Name, Move: mv.ID, Epoch: m.Epoch + 1, To: mv.To}, mv.From
	}
	switch r.IntN(4) {
	case 0:
		return &Decline{Machine: m.Name, Epoch: m.Epoch}, mv.To
	case 1:
		return &Reclaim{Machine: m.Name, Epoch: m.Epoch}, mv.From
	case 2:
		return &Beat{Machine: m.Name, Move: mv.ID}, mv.From
	}
	return &Confirm{Machine: m.Name, Epoch: m.Epoch}, mv.To
}

func (g *game) some(of []string, one int) []string {
	var out []string
	for _, s := range of {
		if g.r.IntN(one) == 0 {
			out = append(out, s)
		}
	}
	return out
}

func (g *game) policy(m *Machine) Policy {
	sites := []string{"s1", "s2", "s3", "s4"}
	others := slices.DeleteFunc([]string{"a", "b", "c", "d"}, func(n string) bool { return n == m.Name })
	p := Policy{
		NotRegions: g.some([]string{"eu", "us"}, 8), NotSites: g.some(sites, 8), Apart: g.some(others, 3),
		Movers: g.some(sites, 10), Pinned: g.r.IntN(15) == 0, MaxDowntime: g.r.Int64N(3) * 100,
	}
	if g.r.IntN(5) == 0 {
		p.Regions = []string{"eu", "us"}
	}
	if g.r.IntN(6) == 0 {
		p.With = others[:1]
	}
	if g.r.IntN(8) == 0 {
		p.Windows = []Span{{From: 0, To: g.r.IntN(600) + 1}}
	}
	return p
}

// check asks what must always hold.
func (g *game) check(before map[string]*Machine) {
	g.w.t.Helper()
	t, s := g.w.t, g.w.s
	room := map[MemberID]Room{}
	for m := range s.Machines() {
		was := before[m.Name]
		last := m.Handovers[len(m.Handovers)-1]
		if last.Owner != m.Owner || last.Epoch != m.Epoch || m.Epoch > was.Epoch+1 || (m.Owner != was.Owner) != (m.Epoch != was.Epoch) {
			t.Errorf("machine %s: owner %d epoch %d, was %d and %d, history ends with %+v", m.Name, m.Owner, m.Epoch, was.Owner, was.Epoch, last)
		}
		if m.Epoch != was.Epoch && last.Why == KindRelease {
			g.mayBe(m, was)
		}
		if mv := m.Move; mv != nil {
			if mv.To != 0 {
				r := room[mv.To]
				room[mv.To] = Room{r.Memory + mv.Reserved.Memory, r.Disk + mv.Reserved.Disk, r.VCPUs + mv.Reserved.VCPUs, r.Moves + 1}
			}
			if mv.Deadline != 0 && !mv.LeaseOver && mv.Deadline <= s.now {
				t.Errorf("machine %s: the deadline of %s has passed and nothing came of it", m.Name, mv.Phase)
			}
		}
	}
	for _, m := range s.members {
		if got := s.Reserved(m.ID); got != room[m.ID] {
			t.Errorf("%+v is reserved at %s, the moves need %+v", got, m.Site, room[m.ID])
		}
	}
}

// mayBe checks a release against the policies, each rule written anew.
func (g *game) mayBe(m, was *Machine) {
	g.w.t.Helper()
	t, s := g.w.t, g.w.s
	to := s.member(m.Owner)
	for _, p := range []Policy{was.Policy, s.Account(m.Account).Policy} {
		if len(p.Regions) > 0 && !slices.Contains(p.Regions, to.Region) || slices.Contains(p.NotRegions, to.Region) ||
			slices.Contains(p.NotSites, to.Site) || p.Pinned || p.MaxDowntime > 0 && m.Move.Limits.MaxDowntime > p.MaxDowntime {
			t.Errorf("machine %s was released to %s (%s) against %+v", m.Name, to.Site, to.Region, p)
		}
		if minute := int(s.now/Minute) % dayMinutes; len(p.Windows) > 0 && minute >= p.Windows[0].To {
			t.Errorf("machine %s was released at minute %d, its window ends at %d", m.Name, minute, p.Windows[0].To)
		}
	}
	for _, name := range was.Policy.With {
		if o := s.Machine(name); name != m.Name && o.Owner != to.ID && (o.Move == nil || o.Move.To != to.ID) {
			t.Errorf("machine %s was released to %s, and %s, which it has to be with, is at %s", m.Name, to.Site, name, s.Site(o.Owner))
		}
	}
	for o := range s.Machines() {
		if o.Name != m.Name && o.Account == m.Account && o.Owner == to.ID && (slices.Contains(m.Policy.Apart, o.Name) || slices.Contains(o.Policy.Apart, m.Name)) {
			t.Errorf("machine %s was released to %s, where %s is, which it is kept apart from", m.Name, to.Site, o.Name)
		}
	}
}

// reload compares the state with one that is read from its snapshot.
func (g *game) reload() {
	t := g.w.t
	want, b, err := g.w.s.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	c, err := Load(b)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.Root(); err != nil || got != want || c.Due() != g.w.s.Due() {
		t.Errorf("read again it is %s, due %d (%v), was %s, due %d", got, c.Due(), err, want, g.w.s.Due())
	}
}

// TestForecastsStayInBounds asks the model what no honest member would.
func TestForecastsStayInBounds(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	extreme := func(most int64) int64 {
		switch r.IntN(4) {
		case 0:
			return 0
		case 1:
			return most
		}
		return r.Int64N(most) >> r.IntN(50)
	}
	for range 100_000 {
		w := work{
			image: extreme(maxSize), disk: extreme(maxSize), memory: extreme(maxSize), dirty: extreme(maxSize), rtt: extreme(maxRTT),
			bandwidth: extreme(maxSize) + 1, limits: Limits{MaxDowntime: extreme(maxPause), Bandwidth: extreme(maxSize), PostCopy: r.IntN(2) == 0},
			habit: Habit{Moves: 1, Memory: r.Uint64(), Disk: r.Uint64() >> 50, Pause: r.Uint64()},
		}
		if r.IntN(2) == 0 {
			w.path = &Path{Moves: r.Uint64(), Time: r.Uint64(), Spread: r.Uint64()}
		}
		f := forecast(w)
		rec := Record{Trust: r.Uint64(), Kept: r.Uint64(), Broken: r.Uint64()}
		for _, n := range []int64{f.Image, f.Disk, f.Memory, f.Millis, f.Low, f.High, f.Pause, f.PauseLow, f.PauseHigh, f.Bandwidth, rec.weigh(f.Millis), f.Bytes()} {
			if n < 0 || n > 3*maxSize {
				t.Fatalf("%+v gives %+v", w, f)
			}
		}
		if f.Low > f.Millis || f.Millis > f.High || f.PauseLow > f.Pause || f.Pause > f.PauseHigh || f.Pause > max(w.limits.MaxDowntime, 1) {
			t.Fatalf("%+v gives %+v", w, f)
		}
	}
}

// TestMoreBytesOrASlowerPathNeverTakeLess: else a bid could be bettered by worse words.
func TestMoreBytesOrASlowerPathNeverTakeLess(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 20_000 {
		w := work{
			image: r.Int64N(10 * gib1), disk: r.Int64N(gib1), memory: r.Int64N(8 * gib1), rtt: r.Int64N(300_000),
			bandwidth: 1 + r.Int64N(gib1), limits: Limits{MaxDowntime: 300},
		}
		base := forecast(w)
		for what, worse := range map[string]func(*work){
			"image": func(w *work) { w.image *= 2 }, "disk": func(w *work) { w.disk *= 2 }, "memory": func(w *work) { w.memory *= 2 },
			"rtt": func(w *work) { w.rtt *= 2 }, "bandwidth": func(w *work) { w.bandwidth = w.bandwidth/2 + 1 },
		} {
			x := w
			worse(&x)
			if f := forecast(x); f.Millis < base.Millis && w.bandwidth > 1 {
				t.Fatalf("%s made worse: %d ms, was %d: %+v", what, f.Millis, base.Millis, w)
			}
		}
	}
}

func TestVersionsThatMayReadEachOther(t *testing.T) {
	for _, c := range []struct {
		there, here string
		older       bool
	}{
		{"10.0.2", "10.0.2", false}, {"10.0.1", "10.0.2", false}, {"10.1", "10.0.2", false}, {"11.0.0", "10.2.0", false},
		{"9.2.0", "10.0.2", true}, {"10.0.9", "10.1.0", true}, {"", "10.0", true}, {"10.0", "", false}, {"10", "10.0", false},
		{"git-abc", "git-abc", false}, {"git-abd", "git-abc", true}, {"10.x", "10.0", true}, {"99999999999999999999.0", "10.0", true},
	} {
		if got := older(c.there, c.here); got != c.older {
			t.Errorf("%q reads what %q wrote: %v, expected %v", c.there, c.here, !got, !c.older)
		}
	}
}

func TestNewPolicyEndsAMoveThatGoesBeyondIt(t *testing.T) {
	for name, p := range map[string]Policy{
		"a pause of 100 ms, not 300": {MaxDowntime: 100}, "1000 bytes a second and no more": {MaxBandwidth: 1000},
		"pins it where it is": {Pinned: true}, "forbids site bob": {NotSites: []string{"bob", "carol"}},
	} {
		w := newWorld(t, "alice", "bob", "carol").machines("web1@alice")
		w.intend("web1", "bob")
		w.bid("bob", "web1", nil)
		out := w.must("alice", &SetPolicy{Machine: "web1", Policy: p})
		if last := out[len(out)-1]; last.Kind != KindAbort || !strings.Contains(last.Move.Reason, name) {
			t.Errorf("%q: %+v", name, last)
		}
		w.nothingReserved()
	}
}

// TestNobodyWaitsForABidOfWhoCameLater: a new member has not heard of the intent.
func TestNobodyWaitsForABidOfWhoCameLater(t *testing.T) {
	w := newWorld(t, "alice", "bob").machines("web1@alice")
	w.intend("web1", "")
	w.s.members = append(w.s.members, &Member{ID: 3, Site: "carol", Weight: 1, Key: testPub("carol"), Since: w.index})
	w.bid("bob", "web1", nil)
	if w.to("web1") != "bob" {
		t.Errorf("the bidding waits for %v", slices.Collect(w.s.awaited(w.s.Machine("web1"))))
	}
}
