package ledger

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/dcnode/dcnode/consensus/ledger/merkle"
)

// Kinds of bids and needs that tests of moves are made of.
const (
	mib1 = int64(1) << 20
	gib1 = int64(1) << 30
)

var need1 = Needs{
	Memory: 512 * mib1, Disk: gib1, VCPUs: 2, Driver: "qemu", Version: "10.0.2", Accelerator: "kvm", MachineType: "q35-10.0",
	CPUFeatures: []string{"avx", "sse4"}, MemoryBytes: 128 * mib1, DiskBytes: 10 * mib1,
}

// machines defines machines at sites: NAME@SITE.
func (w *world) machines(at ...string) *world {
	w.t.Helper()
	for i, a := range at {
		name, site, _ := strings.Cut(a, "@")
		if i == 0 && w.s.Image("os") == nil {
			w.must(site, &Publish{Name: "os", Commit: "bafy", Size: gib1, Stored: 100 * mib1})
		}
		w.must(site, &Define{Name: name, Image: "os", Memory: 512 * mib1, Spec: []byte("{}")})
	}
	return w
}

// wait lets consensus time pass, by events without transactions in rounds of their own.
func (w *world) wait(d Time) []Effect {
	w.t.Helper()
	var out []Effect
	for _, at := range []int64{1, int64(d / Millisecond)} {
		p := w.place(w.s.members[0].Site, int64(w.s.now/Millisecond)+at)
		out = append(out, w.s.Advance(p)...)
	}
	return out
}

// intend begins a move and returns its number.
func (w *world) intend(name string, only string) uint64 {
	w.t.Helper()
	m := w.s.Machine(name)
	t := &Intent{Machine: name, Epoch: m.Epoch, Needs: need1}
	if only != "" {
		t.Only = w.s.BySite(only).ID
	}
	w.must(w.s.Site(m.Owner), t)
	return w.s.Machine(name).Move.ID
}

// offer is a bid that can take any machine, for the move of name that is under way.
func (w *world) offer(name string) *Bid {
	return &Bid{
		Machine: name, Move: w.s.Machine(name).Move.ID, Able: true, Expires: w.s.now + 59*Second, FreeMemory: 8 * gib1,
		FreeDisk: 100 * gib1, FreeVCPUs: 8, Driver: "qemu", Version: "10.0.2", Accelerator: "kvm",
		Machines: []string{"pc", "q35-10.0"}, CPUFeatures: []string{"avx", "sse4", "vmx"}, RTT: 10_000, Bandwidth: 100 * mib1,
		MissingData: 100 * mib1,
	}
}

func (w *world) bid(site, name string, change func(*Bid)) []Effect {
	w.t.Helper()
	b := w.offer(name)
	if change != nil {
		change(b)
	}
	return w.must(site, b)
}

// finish takes a selected move to its end.
func (w *world) finish(name string, took Time) {
	w.t.Helper()
	mv := w.s.Machine(name).Move
	w.must(w.s.Site(mv.To), &Accept{Machine: name, Move: mv.ID})
	w.wait(took)
	w.must(w.s.Site(mv.From), &Release{Machine: name, Move: mv.ID, Epoch: mv.Epoch + 1, To: mv.To})
	w.must(w.s.Site(mv.To), &Confirm{Machine: name, Epoch: mv.Epoch + 1})
}

// refused expects a refusal that says all of want.
func (w *world) refused(site string, body Body, want ...string) {
	w.t.Helper()
	_, err := w.try(site, body)
	var r *RefusedError
	if !errors.As(err, &r) {
		w.t.Fatalf("%s by %s: %v, expected a refusal with %q", body.Kind(), site, err, want)
	}
	for _, text := range want {
		if !strings.Contains(r.Reason, text) {
			w.t.Errorf("%s by %s is refused with %q, expected %q in it", body.Kind(), site, r.Reason, text)
		}
	}
}

func (w *world) member(site string) *Member { return w.s.BySite(site) }

func (w *world) to(name string) string {
	if mv := w.s.Machine(name).Move; mv != nil && mv.To != 0 {
		return w.s.Site(mv.To)
	}
	return ""
}

func TestAcceptNotKeptGoesToTheNextBest(t *testing.T) {
	w := newWorld(t, "alice", "bob", "carol", "dave").machines("web1@alice")
	w.intend("web1", "")
	w.bid("bob", "web1", nil)
	w.bid("carol", "web1", func(b *Bid) { b.MissingData = gib1 })
	begun := w.s.now
	w.bid("dave", "web1", func(b *Bid) { b.MissingData, b.Expires = 2*gib1, w.s.now+35*Second })
	for _, b := range w.s.Machine("web1").Move.Bids[:2] { // as a node says it
		if next := begun + DefaultRules.BidWindow + DefaultRules.Accept; b.Expires <= next {
			t.Errorf("a bid that holds as long as it may has expired when the next best is selected, %d s later", (next-begun)/Second)
		}
	}
	if w.to("web1") != "bob" {
		t.Fatalf("selected %q", w.to("web1"))
	}
	out := w.wait(DefaultRules.Accept)
	mv := w.s.Machine("web1").Move
	if len(out) != 1 || out[0].Kind != KindSelected || w.to("web1") != "carol" || mv == nil {
		t.Fatalf("after the deadline: %+v", out)
	}
	if r := w.member("bob").Record; r.Broken != 1 || r.Won != 1 {
		t.Errorf("bob's record: %+v", r)
	}
	if got := w.s.Reserved(w.member("bob").ID); got != (Room{}) {
		t.Errorf("room still reserved at bob: %+v", got)
	}
	if got := w.s.Reserved(w.member("carol").ID); got.Memory != need1.Memory || got.Disk != need1.Disk+gib1 {
		t.Errorf("reserved at carol: %+v", got)
	}
	out = w.wait(DefaultRules.Accept)
	if len(out) != 1 || out[0].Kind != KindNowhere {
		t.Fatalf("after the second deadline: %+v", out)
	}
	for _, want := range []string{"bob: did not accept within 30.0 s", "carol: did not accept", "dave: its bid has expired"} {
		if !strings.Contains(out[0].Move.Reason, want) {
			t.Errorf("%q does not tell %q", out[0].Move.Reason, want)
		}
	}
	w.nothingReserved()
}

func TestWhoBreaksItsWordLosesTheNextBidding(t *testing.T) {
	w := newWorld(t, "alice", "bob", "carol").machines("web1@alice")
	bids := func() uint64 {
		id := w.intend("web1", "")
		w.bid("bob", "web1", nil)
		w.bid("carol", "web1", func(b *Bid) { b.MissingData = 150 * mib1 })
		return id
	}
	id := bids()
	if w.to("web1") != "bob" {
		t.Fatalf("selected %q", w.to("web1"))
	}
	w.must("bob", &Abort{Machine: "web1", Move: id, Reason: "it has changed its mind"})
	if w.to("web1") != "carol" || w.member("bob").Record.Broken != 1 {
		t.Fatalf("selected %q, bob's record %+v", w.to("web1"), w.member("bob").Record)
	}
	w.must("alice", &Abort{Machine: "web1", Move: id})
	bids()
	if why := w.s.Machine("web1").Move.Against[0].Reasons[0]; w.to("web1") != "carol" || !strings.Contains(why, "by how it has kept its bids") {
		t.Errorf("selected %q, and bob is told %q", w.to("web1"), why)
	}
}

func (w *world) nothingReserved() {
	w.t.Helper()
	if len(w.s.index.promised) > 0 || w.s.index.coming.Len() > 0 || w.s.index.timers.Len() > 0 || w.s.index.waiting.Len() > 0 {
		w.t.Errorf("left behind: %+v, %d coming, %d timers", w.s.index.promised, w.s.index.coming.Len(), w.s.index.timers.Len())
	}
}

func TestRoomIsFreeAfterEveryWayOut(t *testing.T) {
	selected := func(t *testing.T) (*world, *Move) {
		w := newWorld(t, "alice", "bob").machines("web1@alice")
		w.intend("web1", "")
		w.bid("bob", "web1", nil)
		if w.s.Reserved(2).Memory != need1.Memory {
			t.Fatal("nothing is reserved")
		}
		return w, w.s.Machine("web1").Move
	}
	release := func(w *world, mv *Move) {
		w.must("alice", &Release{Machine: "web1", Move: mv.ID, Epoch: 2, To: 2})
	}
	for name, way := range map[string]func(*world, *Move){
		"aborted by the source": func(w *world, mv *Move) { w.must("alice", &Abort{Machine: "web1", Move: mv.ID}) },
		"aborted by the winner": func(w *world, mv *Move) { w.must("bob", &Abort{Machine: "web1", Move: mv.ID}) },
		"not accepted":          func(w *world, mv *Move) { w.wait(DefaultRules.Accept) },
		"source silent": func(w *world, mv *Move) {
			w.must("bob", &Accept{Machine: "web1", Move: mv.ID})
			w.wait(DefaultRules.Copy)
		},
		"forbidden while it copies": func(w *world, mv *Move) { w.must("alice", &SetPolicy{Machine: "web1", Policy: Policy{Pinned: true}}) },
		"confirmed":                 func(w *world, mv *Move) { release(w, mv); w.must("bob", &Confirm{Machine: "web1", Epoch: 2}) },
		"declined": func(w *world, mv *Move) {
			release(w, mv)
			w.must("bob", &Decline{Machine: "web1", Epoch: 2, Reason: "no"})
		},
		"reclaimed": func(w *world, mv *Move) {
			release(w, mv)
			w.wait(DefaultRules.Lease)
			w.must("alice", &Reclaim{Machine: "web1", Epoch: 2})
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, mv := selected(t)
			way(w, mv)
			if w.s.Machine("web1").Move != nil {
				t.Errorf("the move goes on: %+v", w.s.Machine("web1").Move)
			}
			w.nothingReserved()
		})
	}
}

func TestBeatsKeepACopyAlive(t *testing.T) {
	w := newWorld(t, "alice", "bob").machines("web1@alice")
	id := w.intend("web1", "")
	w.bid("bob", "web1", nil)
	w.refused("alice", &Beat{Machine: "web1", Move: id, Bytes: 1}, "not being copied")
	w.must("bob", &Accept{Machine: "web1", Move: id})
	w.refused("bob", &Accept{Machine: "web1", Move: id}, "accepted machine web1 already")
	w.refused("bob", &Beat{Machine: "web1", Move: id, Bytes: 1}, "moved by alice")
	w.refused("alice", &Beat{Machine: "web1", Move: id}, "more bytes than the 0")
	for i := range int64(5) {
		w.wait(DefaultRules.Copy - 10*Second)
		w.must("alice", &Beat{Machine: "web1", Move: id, Bytes: 1 + i})
		w.refused("alice", &Beat{Machine: "web1", Move: id, Bytes: 1 + i}, "more bytes than")
		w.refused("alice", &Beat{Machine: "web1", Move: id, Bytes: maxSize + 1}, "more bytes than")
	}
	out := w.wait(DefaultRules.Copy)
	if len(out) != 1 || out[0].Kind != KindAbort || !strings.Contains(out[0].Move.Reason, "no sign of life of alice for 10 min") {
		t.Errorf("after the beats end: %+v", out)
	}
	if r := w.member("bob").Record; r.Broken != 0 {
		t.Errorf("the source was silent and bob is blamed: %+v", r)
	}
}

// Whatever a source says, and however often: it does not hold room elsewhere for ever.
func TestCopyingEndsWhateverTheSourceSays(t *testing.T) {
	for name, every := range map[string]Time{"now and then": 5 * Minute, "in each round": 10 * Second} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "alice", "bob").machines("web1@alice")
			id := w.intend("web1", "")
			w.bid("bob", "web1", nil)
			w.must("bob", &Accept{Machine: "web1", Move: id})
			high := Time(w.s.Machine("web1").Move.Forecast.High) * Millisecond
			began, bytes := w.s.now, int64(0)
			for w.s.Machine("web1").Move != nil && w.s.now < began+Day {
				p := w.place("alice", int64((w.s.now+every)/Millisecond))
				w.s.Advance(p)
				w.seq++
				bytes++
				_ = w.apply(p, Tx{Seq: w.seq, Body: &Beat{Machine: "web1", Move: id, Bytes: bytes}}, new([]Effect)) // in the end it is refused
			}
			last := w.s.Machine("web1").Last
			if last == nil || !strings.Contains(last.Reason, "copying took more than 1 h") {
				t.Fatalf("it is copied for a day: %+v", last)
			}
			if took := last.EndedAt - began; took < Hour+8*high || took > Hour+8*high+3*every {
				t.Errorf("it ended after %d s, with %d s predicted at most", took/Second, high/Second)
			}
			if r := w.member("bob").Record; r.Broken != 0 {
				t.Errorf("bob is blamed: %+v", r)
			}
			w.nothingReserved()
		})
	}
}

// Terabytes over a slow link are predicted to take long, and may.
func TestLongCopiesHaveTheirTime(t *testing.T) {
	w := newWorld(t, "alice", "bob").machines("web1@alice")
	n := need1
	n.Disk, n.DiskBytes = 2<<40, 1<<40
	w.must("alice", &Intent{Machine: "web1", Epoch: 1, Needs: n})
	id := w.s.Machine("web1").Move.ID
	w.bid("bob", "web1", func(b *Bid) { b.Bandwidth, b.FreeDisk = 10_000_000/8, 8<<40 })
	w.must("bob", &Accept{Machine: "web1", Move: id})
	began := w.s.now
	for i := int64(1); w.s.now < began+30*Day; i++ {
		w.wait(9 * Minute)
		w.must("alice", &Beat{Machine: "web1", Move: id, Bytes: i})
	}
	if until := w.s.Machine("web1").Move.Until; until < began+60*Day || until > began+maxWhole {
		t.Errorf("it may take %d days", (until-began)/Day)
	}
}

// Nobody can keep an approval back and use it long after, or after another.
func TestApprovalThatWasKeptBackDoesNotHold(t *testing.T) {
	s, network, key, say := signedWorld(t)
	word := func(seq uint64, b Body) Tx {
		tx := Tx{Seq: seq, Account: "acme", Body: b}
		if err := Sign(network, &tx, key); err != nil {
			t.Fatal(err)
		}
		return tx
	}
	must := func(author MemberID, tx Tx) {
		t.Helper()
		if err := say(author, tx); err != nil {
			t.Fatal(err)
		}
	}
	must(1, Tx{Seq: 1, Body: &Publish{Name: "os", Commit: "bafy"}})
	must(1, Tx{Seq: 2, Body: &Define{Name: "web1", Image: "os", Memory: 1, Policy: Policy{Movers: []string{"acme"}}}})
	back := word(2, &Approve{Machine: "web1", Epoch: 1, Until: s.now + 20*Day})
	must(2, word(3, &Approve{Machine: "web1", Epoch: 1, To: 2, Until: s.now + Hour}))
	if err := say(1, back); err == nil || s.Machine("web1").Approvals[0].To != 2 {
		t.Errorf("an older approval takes the place of a later one: %v, %+v", err, s.Machine("web1").Approvals)
	}
	if err := say(1, word(4, &Approve{Machine: "web1", Epoch: 1, Until: s.now + maxApproval + Hour})); err == nil || !strings.Contains(err.Error(), "30 days") {
		t.Errorf("an approval for a long time is taken: %v", err)
	}
}

func TestOnlyTheDestinationsOwnWordBlackensIt(t *testing.T) {
	w := newWorld(t, "alice", "bob").machines("web1@alice")
	id := w.intend("web1", "")
	w.bid("bob", "web1", nil)
	w.must("bob", &Accept{Machine: "web1", Move: id})
	w.must("alice", &Abort{Machine: "web1", Move: id, Reason: "changed my mind"})
	if r := w.member("bob").Record; r.Broken != 0 {
		t.Errorf("the source aborted: %+v", r)
	}
	id = w.intend("web1", "")
	w.bid("bob", "web1", nil)
	w.must("bob", &Accept{Machine: "web1", Move: id})
	w.must("bob", &Abort{Machine: "web1", Move: id, Reason: "disk full"})
	if r := w.member("bob").Record; r.Broken != 1 {
		t.Errorf("the destination aborted after it had accepted: %+v", r)
	}
}

func TestReportTeachesTheMachineAndThePath(t *testing.T) {
	w := newWorld(t, "alice", "bob").machines("web1@alice")
	id := w.intend("web1", "")
	w.bid("bob", "web1", nil)
	f := w.s.Machine("web1").Move.Forecast
	w.finish("web1", Time(f.Millis)*Millisecond)
	truth := Truth{Image: f.Image, Disk: f.Disk * 2, Memory: f.Memory * 3, Pause: 100}
	w.refused("bob", &Report{Machine: "web1", Move: id, Truth: truth}, "only it can report")
	w.refused("alice", &Report{Machine: "web1", Move: id + 1, Truth: truth}, "has made no move")
	w.refused("alice", &Report{Machine: "web1", Move: id, Truth: Truth{Memory: -1}}, "sizes are from 0")
	before := w.member("bob").Record
	w.must("alice", &Report{Machine: "web1", Move: id, Truth: truth})
	w.refused("alice", &Report{Machine: "web1", Move: id, Truth: truth}, "reported already")
	m := w.s.Machine("web1")
	if h := m.Habit; h.Moves != 1 || h.Memory < 3*1024-8 || h.Memory > 3*1024+8 || h.Disk < 2*1024-8 || h.Disk > 2*1024+8 {
		t.Errorf("habit %+v", h)
	}
	if m.Last.Truth == nil || m.Last.Truth.Millis < f.Millis || m.Last.Truth.Millis > f.Millis+20 {
		t.Errorf("kept: %+v, predicted %d ms", m.Last.Truth, f.Millis)
	}
	if w.member("bob").Record != before {
		t.Errorf("a report of the source changed the destination's record: %+v, was %+v", w.member("bob").Record, before)
	}
	p := w.s.Path(1, 2)
	if p == nil || p.Moves != 1 || p.Time >= 1024 {
		t.Errorf("path %+v: it carried more than was thought in the time, so it is quicker", p)
	}
}

func TestSameMoveIsPredictedWellOnceLearned(t *testing.T) {
	w := newWorld(t, "alice", "bob").machines("web1@alice")
	for i := range 12 {
		from, to := "alice", "bob"
		if i%2 == 1 {
			from, to = to, from
		}
		id := w.intend("web1", "")
		w.bid(to, "web1", nil)
		f := w.s.Machine("web1").Move.Forecast
		if i >= 8 {
			if off := abs(f.Millis-9000) * 100 / 9000; off > 10 {
				t.Errorf("move %d takes 9 s and is predicted as %d ms", i, f.Millis)
			}
			if off := abs(f.Memory-300*mib1) * 100 / (300 * mib1); off > 10 {
				t.Errorf("move %d has 300 MiB of memory and is predicted as %d", i, f.Memory>>20)
			}
			if f.Low > 9000 || f.High < 9000 || f.High > 14000 {
				t.Errorf("move %d: 9 s is not in %d to %d, or that says little", i, f.Low, f.High)
			}
		}
		w.finish("web1", 9*Second)
		w.must(from, &Report{Machine: "web1", Move: id, Truth: Truth{Image: 100 * mib1, Disk: 10 * mib1, Memory: 300 * mib1, Pause: 80}})
	}
}

func TestEqualBidsDoNotFavourOneMember(t *testing.T) {
	wins := map[string]int{}
	w := newWorld(t, "alice", "bob", "carol", "dave").machines("web1@alice")
	for range 12 {
		id := w.intend("web1", "")
		w.bid("bob", "web1", nil)
		w.bid("carol", "web1", nil)
		w.bid("dave", "web1", func(b *Bid) { b.Able, b.Reason = false, "full" })
		wins[w.to("web1")]++
		w.must("alice", &Abort{Machine: "web1", Move: id})
	}
	if wins["bob"] == 0 || wins["carol"] == 0 {
		t.Errorf("wins are %v: one of two equal bidders never wins", wins)
	}
}

func TestBidsOutOfBoundsAreRefused(t *testing.T) {
	w := newWorld(t, "alice", "bob", "carol").machines("web1@alice")
	w.intend("web1", "")
	for name, change := range map[string]func(*Bid){
		"sizes are from 0":                  func(b *Bid) { b.FreeMemory = -1 },
		"sizes are from 0 to":               func(b *Bid) { b.MissingData = maxSize + 1 },
		"a round trip is from":              func(b *Bid) { b.RTT = 1 << 62 },
		"virtual processors and moves":      func(b *Bid) { b.FreeVCPUs = -1 },
		"holds until a time that is past":   func(b *Bid) { b.Expires = w.s.now },
		"or more than 60 s ahead":           func(b *Bid) { b.Expires = w.s.now + 2*Minute },
		"is past, or more":                  func(b *Bid) { b.Expires = 1<<63 - 1 },
		"says why":                          func(b *Bid) { b.Able = false },
		"sort the list and name each once":  func(b *Bid) { b.CPUFeatures = []string{"b", "a"} },
		"at most 512 are allowed":           func(b *Bid) { b.Machines = make([]string, 600) },
		"there is no move 99 of":            func(b *Bid) { b.Move = 99 },
		"at most 64 bytes of UTF-8 each":    func(b *Bid) { b.Driver = strings.Repeat("x", 200) },
		"has at most 1024 bytes of UTF-8":   func(b *Bid) { b.Able, b.Reason = false, strings.Repeat("x", 2000) },
		"a machine type has at most 128":    func(b *Bid) { b.Machines = []string{strings.Repeat("x", 200)} },
		"entry 0 is empty, too long or not": func(b *Bid) { b.CPUFeatures = []string{""} },
	} {
		b := w.offer("web1")
		change(b)
		w.refused("bob", b, name)
	}
	for name, change := range map[string]func(*Needs){
		"sizes are from":       func(n *Needs) { n.Memory = 1 << 60 },
		"sizes are from 0":     func(n *Needs) { n.DirtyRate = -5 },
		"virtual processors":   func(n *Needs) { n.VCPUs = -1 },
		"paths are by member":  func(n *Needs) { n.Paths = []Way{{Member: 2}, {Member: 2}} },
		"the path to member 2": func(n *Needs) { n.Paths = []Way{{Member: 2, Bandwidth: -1}} },
	} {
		n := need1
		change(&n)
		w.must("alice", &Abort{Machine: "web1", Move: w.s.Machine("web1").Move.ID})
		w.refused("alice", &Intent{Machine: "web1", Epoch: 1, Needs: n}, name)
		w.intend("web1", "")
	}
}

// TestPlanTellsEverythingAgainstEveryMember is the whole of a plan.
func TestPlanTellsEverythingAgainstEveryMember(t *testing.T) {
	w := newWorld(t, "alice/eu", "bob/eu", "carol/us", "dave/eu", "erin/eu").machines("web1@alice", "web2@alice")
	w.intend("web2", "dave")
	w.bid("dave", "web2", nil)
	w.finish("web2", Second)
	w.must("alice", &SetPolicy{Machine: "web1", Policy: Policy{NotRegions: []string{"us"}, Apart: []string{"web2"}}})
	offer := func(site string) Bid {
		b := *(&world{t: t, s: w.s}).anyOffer("web1")
		b.Member = w.member(site).ID
		return b
	}
	bob, carol, dave := offer("bob"), offer("carol"), offer("dave")
	carol.FreeMemory, carol.FreeDisk, carol.Version, carol.CPUFeatures = 100*mib1, 0, "9.2.0", []string{"avx"}
	carol.Accelerator, carol.Machines, carol.FreeVCPUs = "tcg", []string{"pc"}, 1
	dave.Driver = "memvm"
	before, _ := w.s.Root()
	vs, err := w.s.Plan("web1", need1, 0, Limits{}, []Bid{bob, carol, dave})
	if err != nil {
		t.Fatal(err)
	}
	if after, _ := w.s.Root(); after != before {
		t.Error("a plan changed the state")
	}
	var got []string
	for _, v := range vs {
		got = append(got, fmt.Sprintf("%s %v %d", w.s.Site(v.Member), v.Eligible, v.Rank))
		got = append(got, v.Reasons...)
		for _, r := range v.Remedies {
			got = append(got, "> "+r)
		}
	}
	want := []string{
		"alice false 0", "it is there now",
		"bob true 1",
		"carol false 0",
		"the policy of machine web1 forbids region us",
		"the machine runs under kvm, there is tcg",
		"qemu 9.2.0 does not know the machine type q35-10.0",
		"its processor lacks feature sse4",
		"qemu there is 9.2.0, older than 10.0.2 here: it may not read the machine's state",
		"100 MiB of its memory are not promised to other machines, 512 MiB are needed",
		"0 bytes of its disk are not promised to other machines, up to 1124 MiB are needed",
		"1 of its virtual processors are not promised to other machines, 2 are needed",
		"> take region us out of the policy of machine web1",
		"> let carol use kvm",
		"> install a qemu at carol that knows q35-10.0",
		"> restart the machine with a processor model that carol has too",
		"> upgrade qemu at carol to 10.0.2 or later",
		"> free 412 MiB of memory at carol",
		"> free 1124 MiB of disk at carol",
		"> free 1 virtual processors at carol",
		"dave false 0",
		"the policy of machine web1 keeps it apart from web2, which is at dave",
		"the machine runs under qemu, there is memvm",
		"> move web2 away from dave",
		"> install qemu at dave",
		"erin false 0", "did not answer", "> see whether erin is reachable: `dcnode member ls`",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// anyOffer is an offer without a move.
func (w *world) anyOffer(name string) *Bid {
	return &Bid{
		Machine: name, Able: true, Expires: w.s.now + 59*Second, FreeMemory: 8 * gib1, FreeDisk: 100 * gib1, FreeVCPUs: 8,
		Driver: "qemu", Version: "10.0.2", Accelerator: "kvm", Machines: []string{"pc", "q35-10.0"},
		CPUFeatures: []string{"avx", "sse4", "vmx"}, RTT: 10_000, Bandwidth: 100 * mib1, MissingData: 100 * mib1,
	}
}

func TestMovesThatAreOverTakeLittleRoom(t *testing.T) {
	w := newWorld(t, "alice", "bob", "carol", "dave", "erin").machines("web1@alice")
	long := make([]string, 100)
	for i := range long {
		long[i] = fmt.Sprintf("feature-number-%03d", i)
	}
	n := need1
	n.CPUFeatures, n.Paths = long, []Way{{Member: 2, Bandwidth: gib1}, {Member: 3}, {Member: 4}, {Member: 5}}
	w.must("alice", &Intent{Machine: "web1", Epoch: 1, Needs: n})
	id := w.s.Machine("web1").Move.ID
	for _, site := range []string{"bob", "carol", "dave", "erin"} {
		w.bid(site, "web1", func(b *Bid) {
			b.CPUFeatures, b.CPUModel = long, "EPYC"
			b.Machines = append(slices.Clone(long), "q35-10.0")
		})
	}
	to := w.to("web1")
	w.finish("web1", 5*Second)
	w.must("alice", &Report{Machine: "web1", Move: id, Truth: Truth{Memory: gib1, Pause: 50}})
	m := *w.s.Machine("web1")
	if m.Last.bidOf(w.member(to).ID) == nil {
		t.Error("the winner's bid is not kept")
	}
	b, err := merkle.Encode(&m)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > 3000 {
		t.Errorf("a machine at rest takes %d bytes", len(b))
	}
	m.Last = nil
	rest, err := merkle.Encode(&m)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("a machine at rest takes %d bytes, %d of them for its last move", len(b), len(b)-len(rest))
}
