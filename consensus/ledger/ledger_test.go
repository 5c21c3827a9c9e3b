package ledger

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
)

// TestTranscripts replays testdata/*: each apply is one event of a member, with
// its transactions a line each; the output is what followed.
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		var s *State
		index := uint64(0)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "members":
				var err error
				if s, err = New(roster(strings.Fields(d.Input)), Rules{}); err != nil {
					return "error: " + err.Error()
				}
				index = 0
				return "ok"
			case "apply":
				var site string
				var at int64
				d.ScanArgs(t, "by", &site)
				d.ScanArgs(t, "at", &at)
				m, _ := s.BySite(site)
				p := Place{Index: index, Round: index, Time: Time(at) * 1e6, Author: m.ID}
				if d.HasArg("round") {
					d.ScanArgs(t, "round", &p.Round)
				}
				index++
				return event(t, s, p, d.Input)
			case "machine":
				var name string
				d.ScanArgs(t, "name", &name)
				return describe(s, s.Machine(name))
			}
			t.Fatalf("unknown command %s", d.Cmd)
			return ""
		})
	})
}

func roster(sites []string) []Member {
	var ms []Member
	for i, site := range sites {
		ms = append(ms, Member{ID: MemberID(i + 1), Site: site, Weight: 1})
	}
	return ms
}

func event(t *testing.T, s *State, p Place, input string) string {
	var b strings.Builder
	for _, e := range s.Advance(p) {
		fmt.Fprintf(&b, "%s\n", effect(s, e))
	}
	for _, line := range strings.Split(strings.TrimSpace(input), "\n") {
		if line == "" {
			continue
		}
		kind, body, _ := strings.Cut(line, " ")
		raw, err := json.Marshal(envelope{V: txVersion, ID: "x", Kind: Kind(kind), Body: json.RawMessage(body)})
		if err != nil {
			t.Fatal(err)
		}
		tx, err := Decode(raw)
		if err != nil {
			fmt.Fprintf(&b, "not understood: %v\n", err)
			continue
		}
		before := s.Root()
		effects, err := s.Apply(p, tx)
		if err != nil {
			fmt.Fprintf(&b, "refused: %v\n", err)
			if s.Root() != before {
				t.Errorf("%s was refused and changed the state", line)
			}
		}
		for _, e := range effects {
			fmt.Fprintf(&b, "%s\n", effect(s, e))
		}
	}
	if b.Len() == 0 {
		return "nothing"
	}
	return b.String()
}

func effect(s *State, e Effect) string {
	out := string(e.Kind) + " " + e.Image + e.Machine
	if e.Move.Machine != "" {
		out += fmt.Sprintf(" (move %d %s", e.Move.ID, e.Move.Phase)
		if e.Move.To != 0 {
			out += " to " + s.Site(e.Move.To)
		}
		if e.Move.Reason != "" {
			out += ": " + e.Move.Reason
		}
		out += ")"
	}
	return out
}

func describe(s *State, m *Machine) string {
	if m == nil {
		return "none"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s at %s, epoch %d", m.Name, s.Site(m.Owner), m.Epoch)
	if m.Move != nil {
		fmt.Fprintf(&b, ", move %d %s", m.Move.ID, m.Move.Phase)
	}
	for _, h := range m.Handovers {
		fmt.Fprintf(&b, "\nindex %d: epoch %d %s (%s)", h.Index, h.Epoch, s.Site(h.Owner), h.Why)
	}
	return b.String()
}

// TestOneOwnerAtEveryIndex throws random transactions by random members at the
// ledger: whatever is accepted, a machine's epochs grow by one, each has one
// owner, and a replica that sees the same events has the same state.
func TestOneOwnerAtEveryIndex(t *testing.T) {
	accepted := map[Kind]int{}
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		a, b := fresh(t), fresh(t)
		for i := range uint64(400) {
			body, author := randomBody(r, a)
			if r.IntN(4) == 0 {
				author = MemberID(1 + r.IntN(4))
			}
			p := Place{Index: i, Round: i / 3, Time: Time(i) * 2e8, Author: author}
			tx := Tx{ID: "x", Body: body}
			if due := a.Due(); due > 1 && a.Now >= due {
				t.Fatalf("seed %d: something was due at %d and has not happened at %d", seed, due, a.Now)
			}
			a.Advance(p)
			if _, err := a.Apply(p, tx); err == nil {
				accepted[tx.Body.Kind()]++
			}
			raw, err := Encode(tx)
			if err != nil {
				t.Fatal(err)
			}
			tx, err = Decode(raw)
			if err != nil {
				t.Fatal(err)
			}
			b.Advance(p)
			_, _ = b.Apply(p, tx)
			if a.Root() != b.Root() {
				t.Fatalf("seed %d: replicas differ after event %d", seed, i)
			}
			checkOwners(t, a)
		}
		if c := a.Clone(); c.Root() != a.Root() {
			t.Fatalf("seed %d: a clone is not the same", seed)
		}
	}
	for _, k := range []Kind{KindRelease, KindConfirm, KindDecline, KindReclaim, KindAbort} {
		if accepted[k] == 0 {
			t.Errorf("no %s was ever accepted, so nothing was tested: %v", k, accepted)
		}
	}
}

func fresh(t *testing.T) *State {
	s, err := New(roster([]string{"alice", "bob", "carol", "dave"}), Rules{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func checkOwners(t *testing.T, s *State) {
	t.Helper()
	for _, m := range s.Machines {
		last := m.Handovers[len(m.Handovers)-1]
		if last.Owner != m.Owner || last.Epoch != m.Epoch {
			t.Fatalf("machine %s: history ends with %+v, state has owner %d epoch %d", m.Name, last, m.Owner, m.Epoch)
		}
		for i := 1; i < len(m.Handovers); i++ {
			was, is := m.Handovers[i-1], m.Handovers[i]
			if is.Epoch != was.Epoch+1 || is.Index < was.Index || is.Owner == was.Owner {
				t.Fatalf("machine %s: %+v is followed by %+v", m.Name, was, is)
			}
		}
	}
}

// randomBody is a transaction that is likely to fit the state, and who should say it.
func randomBody(r *rand.Rand, s *State) (Body, MemberID) {
	name := fmt.Sprintf("m%d", r.IntN(2))
	m := s.Machine(name)
	if s.Image("os") == nil {
		return &Publish{Name: "os", Commit: "c", Size: 1, Stored: 1}, 1
	}
	if m == nil {
		return &Define{Name: name, Image: "os", Memory: 1, Spec: json.RawMessage(`{}`)}, 1
	}
	var mv Move
	if m.Move != nil {
		mv = *m.Move
	}
	switch r.IntN(9) {
	case 0, 1:
		return &Intent{Machine: name, Epoch: m.Epoch, Only: MemberID(r.IntN(5)), Needs: Needs{Memory: 1}}, m.Owner
	case 2, 3:
		bidder := MemberID(1 + r.IntN(4))
		return &Bid{Machine: name, Move: mv.ID, Eligible: r.IntN(4) > 0, FreeMemory: 10, Predicted: int64(r.IntN(3))}, bidder
	case 4, 5:
		return &Release{Machine: name, Move: mv.ID, Epoch: m.Epoch + 1, To: mv.To}, m.Owner
	case 6:
		return &Confirm{Machine: name, Epoch: m.Epoch}, m.Owner
	case 7:
		if r.IntN(2) == 0 {
			return &Reclaim{Machine: name, Epoch: m.Epoch}, mv.From
		}
		return &Decline{Machine: name, Epoch: m.Epoch, Reason: "no"}, m.Owner
	}
	return &Abort{Machine: name, Move: mv.ID, Reason: "no"}, mv.From
}

// TestEqualBidsDoNotFavourOneMember: over many moves each of two equal bidders wins.
func TestEqualBidsDoNotFavourOneMember(t *testing.T) {
	wins := map[MemberID]int{}
	for start := range uint64(12) {
		s := fresh(t)
		at := func(i uint64, by MemberID) Place { return Place{Index: start + i, Time: Time(i), Author: by} }
		for i, step := range []struct {
			by   MemberID
			body Body
		}{
			{1, &Publish{Name: "os", Commit: "c"}},
			{1, &Define{Name: "m", Image: "os", Memory: 1, Spec: json.RawMessage(`{}`)}},
			{1, &Intent{Machine: "m", Epoch: 1}},
			{2, &Bid{Machine: "m", Move: start + 2, Eligible: true, Predicted: 5}},
			{3, &Bid{Machine: "m", Move: start + 2, Eligible: true, Predicted: 5}},
			{4, &Bid{Machine: "m", Move: start + 2, Reason: "full"}},
		} {
			if _, err := s.Apply(at(uint64(i), step.by), Tx{Body: step.body}); err != nil {
				t.Fatal(err)
			}
		}
		wins[s.Machine("m").Move.To]++
	}
	if wins[2] == 0 || wins[3] == 0 {
		t.Errorf("wins are %v: one of two equal bidders never wins", wins)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"v":1,"id":"a","kind":"tick","body":{}}`))
	f.Add([]byte(`{"v":1,"id":"a","kind":"move.confirm","body":{"machine":"m","epoch":2}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		tx, err := Decode(b)
		if err != nil {
			return
		}
		raw, err := Encode(tx)
		if err != nil {
			return
		}
		if _, err := Decode(raw); err != nil {
			t.Errorf("%s decodes, but not after it was encoded again: %v", b, err)
		}
	})
}
