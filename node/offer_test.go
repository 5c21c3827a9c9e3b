package node

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/node/api"
	"github.com/dcnode/dcnode/vmm"
	"github.com/dcnode/dcnode/vmm/memvm"
)

func TestPlanNamesThoseWhoDoNotAnswerAndChangesNothing(t *testing.T) {
	ctx := deadline(t)
	o := newOverlay(t, 4)
	alice, bob, carol, dave := o.sites[0], o.sites[1], o.sites[2], o.sites[3]
	o.image(ctx, alice, "os")
	o.run(ctx, alice, "web1", "os")
	o.settle(ctx)
	before, err := bob.node.Ledger(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []*site{alice, bob} { // its owner, and one that has to ask it
		p, err := at.node.Plan(ctx, api.PlanQuery{Machine: "web1"})
		if err != nil {
			t.Fatal(err)
		}
		if len(p.Members) != 3 || len(p.Silent) != 0 || p.From != alice.name {
			t.Fatalf("plan at %s: %+v", at.name, p)
		}
		for i, m := range p.Members {
			if !m.Eligible || m.Rank != i+1 || m.Forecast.Millis <= 0 || m.Offer == nil || m.Offer.Bandwidth <= 0 || m.Offer.RTT <= 0 {
				t.Errorf("plan at %s: %+v", at.name, m)
			}
		}
		if n := p.Needs; n.MemoryBytes <= 0 || n.MemoryBytes >= n.Memory || n.DirtyRate <= 0 || n.DiskRate <= 0 || len(n.CPUFeatures) == 0 || len(n.Paths) == 0 {
			t.Errorf("needs as %s heard of them: %+v", at.name, n)
		}
	}
	o.end(carol)
	p, err := bob.node.Plan(ctx, api.PlanQuery{Machine: "web1"})
	if err != nil {
		t.Fatal(err)
	}
	last := p.Members[len(p.Members)-1]
	if len(p.Silent) != 1 || p.Silent[0] != carol.name || last.Site != carol.name || !strings.Contains(strings.Join(last.Reasons, " "), "did not answer") {
		t.Errorf("carol is away: %+v", p)
	}
	one, err := dave.node.Plan(ctx, api.PlanQuery{Machine: "web1", To: dave.name})
	if err != nil || len(one.Members) != 1 || one.Members[0].Site != dave.name || !one.Members[0].Eligible {
		t.Errorf("dave alone: %+v, %v", one, err)
	}
	after, err := bob.node.Ledger(ctx)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := json.Marshal(before.Machines)
	b, _ := json.Marshal(after.Machines)
	if string(a) != string(b) {
		t.Errorf("a plan has changed the machine: %s, was %s", b, a)
	}
}

// fickle drivers can take a machine when they bid, but the one that is asked again,
// before it accepts, can take none any more.
type fickle struct {
	vmm.Driver
	site string
	of   *broken
}

type broken struct {
	mu    sync.Mutex
	asked map[string]int
	who   string // the one that breaks its word
}

func (f fickle) Probe(ctx context.Context) vmm.Capabilities {
	f.of.mu.Lock()
	defer f.of.mu.Unlock()
	c := f.Driver.Probe(ctx)
	if f.of.asked[f.site]++; f.of.asked[f.site] > 1 && f.of.who == "" {
		f.of.who = f.site
	}
	if f.of.who == f.site {
		c.CanMigrate, c.WhyNot = false, "it has changed its mind"
	}
	return c
}

func TestWinnerThatBreaksItsWordLosesToTheNextBest(t *testing.T) {
	ctx := deadline(t)
	o := newOverlay(t, 4)
	alice, dave := o.sites[0], o.sites[3]
	o.image(ctx, alice, "os")
	o.run(ctx, alice, "web1", "os")
	o.settle(ctx)
	word := &broken{asked: map[string]int{}}
	for _, s := range o.sites[1:] {
		s.node.cfg.Drivers = []vmm.Driver{fickle{memvm.New(memvm.Config{}), s.name, word}}
	}
	rep, err := alice.node.Migrate(ctx, api.Migrate{Name: "web1"}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	o.settle(ctx)
	if word.who == "" || rep.Destination == word.who {
		t.Fatalf("%q broke its word, and the machine went to %s", word.who, rep.Destination)
	}
	s, err := dave.node.order.State(ctx)
	if err != nil {
		t.Fatal(err)
	}
	loser, mv := s.BySite(word.who), s.Machine("web1").Last
	if loser.Record.Broken != 1 || s.Reserved(loser.ID) != (ledger.Room{}) {
		t.Errorf("%s: record %+v, reserved %+v", loser.Site, loser.Record, s.Reserved(loser.ID))
	}
	for _, b := range mv.Bids { // the others' words had not run out meanwhile, nor would they have later
		switch {
		case b.Member == loser.ID && (b.Able || !strings.Contains(b.Reason, "it has changed its mind")):
			t.Errorf("what %s had bid: %+v", loser.Site, b)
		case b.Member != loser.ID && b.Expires < mv.IntentAt+ledger.DefaultRules.BidExpiry:
			t.Errorf("%s's bid holds for %d s only", s.Site(b.Member), (b.Expires-mv.IntentAt)/ledger.Second)
		}
	}
}

// A member that moves machines all the time and knows no way to the owner can still
// bid, if the owner has measured it: the ledger takes that.
func TestBusyMemberBidsWithTheWayThatTheOwnerKnows(t *testing.T) {
	ctx := deadline(t)
	o := newOverlay(t, 3)
	alice, bob := o.sites[0], o.sites[1]
	o.image(ctx, alice, "os")
	o.run(ctx, alice, "web1", "os")
	defer bob.node.survey.Moving()()
	soon, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if _, err := bob.node.wayFrom(soon, alice.node.overlay.ID(), ledger.Way{}); !isBusy(err) {
		t.Errorf("nothing is known of the way, and nothing can be measured: %v", err)
	}
	needs := ledger.Needs{Driver: "memvm", Paths: []ledger.Way{{Member: bob.node.self, RTT: 1000, Bandwidth: 1 << 20}}}
	soon, cancel = context.WithTimeout(ctx, 10*time.Second) // half of it is for measuring
	defer cancel()
	if b := bob.node.offer(soon, "web1", alice.node.self, needs); !b.Able || b.Bandwidth != 0 || b.RTT <= 0 {
		t.Errorf("it bids %+v", b)
	}
}

func TestMoveIsReportedBesideItsForecast(t *testing.T) {
	ctx := deadline(t)
	o := newOverlay(t, 2)
	alice, bob := o.sites[0], o.sites[1]
	o.image(ctx, alice, "os")
	o.run(ctx, alice, "web1", "os")
	o.settle(ctx)
	rep, err := alice.node.Migrate(ctx, api.Migrate{Name: "web1", To: bob.name}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if rep.Forecast == nil || rep.Truth == nil {
		t.Fatalf("no forecast or no truth: %+v", rep)
	}
	if rep.Truth.Memory != rep.Bytes.MemorySent || rep.Truth.Millis <= 0 || rep.Forecast.Millis <= 0 {
		t.Errorf("forecast %+v, truth %+v", rep.Forecast, rep.Truth)
	}
	l, err := alice.node.Ledger(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if m := l.Machine("web1"); m.Habit.Moves != 1 || m.Last.Truth == nil {
		t.Errorf("the ledger has learnt nothing: %+v", m)
	}
}

func TestBidNamesWhatIsNeededAndTheLedgerSaysTheSameOfIt(t *testing.T) {
	c := vmm.Capabilities{MachineTypes: []string{"pc", "q35-9.0", "q35-10.0"}, CPUFeatures: []string{"aes", "avx", "fpu", "sse2"}}
	for _, x := range []struct {
		need            ledger.Needs
		types, features []string
	}{
		{ledger.Needs{MachineType: "q35-10.0", CPUFeatures: []string{"avx", "sse2"}}, []string{"q35-10.0"}, []string{"avx", "sse2"}},
		{ledger.Needs{MachineType: "q35-11.0", CPUFeatures: []string{"avx", "avx512f"}}, []string{"pc"}, []string{"avx"}},
		{ledger.Needs{}, nil, nil},
	} {
		types, features := wanted(c, x.need)
		if !slices.Equal(types, x.types) || !slices.Equal(features, x.features) {
			t.Errorf("%+v: %q, %q", x.need, types, features)
		}
	}
	ctx := deadline(t)
	o := newOverlay(t, 2)
	alice, bob := o.sites[0], o.sites[1]
	o.image(ctx, alice, "os")
	o.run(ctx, alice, "web1", "os")
	o.settle(ctx)
	s, err := alice.node.order.State(ctx)
	if err != nil {
		t.Fatal(err)
	}
	needs := alice.node.needs(ctx, alice.node.local("web1"))
	needs.MachineType, needs.CPUFeatures, needs.Driver = "q35-11.0", []string{"avx512f"}, "memvm"
	full := *bob.node.offer(ctx, "web1", 1, needs)
	probed := memvm.New(memvm.Config{}).Probe(ctx)
	full.Member, full.Machines, full.CPUFeatures = 2, []string{"pc"}, probed.CPUFeatures
	brief := full
	probed.MachineTypes = full.Machines
	brief.Machines, brief.CPUFeatures = wanted(probed, needs)
	var why [2]string
	for i, b := range []ledger.Bid{full, brief} {
		vs, err := s.Plan("web1", needs, 0, ledger.Limits{}, []ledger.Bid{b})
		if err != nil {
			t.Fatal(err)
		}
		why[i] = strings.Join(vs[1].Reasons, "; ")
	}
	if why[0] != why[1] || !strings.Contains(why[0], "does not know the machine type q35-11.0") || !strings.Contains(why[0], "avx512f") {
		t.Errorf("of all that the host can: %q; of what is needed: %q", why[0], why[1])
	}
}

func TestWhoAsksTooOftenIsToldSo(t *testing.T) {
	var a asked
	allowed := 0
	for range 100 * asksAtOnce {
		if a.may(1) {
			allowed++
		}
	}
	if allowed < asksAtOnce || allowed > 10*asksAtOnce {
		t.Errorf("%d questions of %d are answered at once", allowed, 100*asksAtOnce)
	}
	if !a.may(2) {
		t.Error("one member's questions count against another")
	}
}

func TestStrangersAreNotAnswered(t *testing.T) {
	o := newOverlay(t, 1)
	n := o.sites[0].node
	var q offerQuery
	if err := n.admitAsk("nobody", []byte(`{}`), &q); err == nil || err.Error() != "you are not a member" {
		t.Errorf("a stranger: %v", err)
	}
	if err := n.admitAsk(n.host, []byte(`{"machine":`), &q); err == nil {
		t.Error("half a question is taken")
	}
	if b := n.offer(deadline(t), "web1", 1, ledger.Needs{Driver: "none"}); b.Able || b.Reason != `there is no driver "none" here` {
		t.Errorf("offer for a driver that is not here: %+v", b)
	}
}
