package ledger

import (
	"slices"
	"testing"
)

// TestEveryPhaseSaysWhatIsMissingAndWhoOwesIt takes a machine through all phases.
func TestEveryPhaseSaysWhatIsMissingAndWhoOwesIt(t *testing.T) {
	const alice, bob, carol = 1, 2, 3
	begin := func(w *world) *Move { w.intend("web1", ""); return w.s.Machine("web1").Move }
	selected := func(w *world) *Move {
		begin(w)
		w.bid("bob", "web1", nil)
		w.bid("carol", "web1", func(b *Bid) { b.Able, b.Reason = false, "full" })
		return w.s.Machine("web1").Move
	}
	accepted := func(w *world) *Move {
		mv := selected(w)
		w.must("bob", &Accept{Machine: "web1", Move: mv.ID})
		return mv
	}
	released := func(w *world) *Move {
		mv := accepted(w)
		w.must("alice", &Release{Machine: "web1", Move: mv.ID, Epoch: 2, To: bob})
		return mv
	}
	for _, c := range []struct {
		name    string
		do      func(*world)
		phase   Phase
		missing []Missing
		lasts   Time // from now to the deadline; 0: there is none
		text    string
	}{
		{"at rest", func(*world) {}, "", nil, 0,
			"web1 belongs to alice, epoch 1, and is to run there: it does not move, and nothing is missing"},
		{"stopped", func(w *world) { w.must("alice", &Set{Name: "web1", Stopped: true}) }, "", nil, 0,
			"web1 belongs to alice, epoch 1, and is stopped: it does not move, and nothing is missing"},
		{"begun in this round", func(w *world) { begin(w) }, Bidding, []Missing{{KindBid, bob}, {KindBid, carol}}, 0,
			"alice wants to move web1 and waits for the bids of bob, carol; at the deadline the ledger selects among those who have bid"},
		{"one has bid", func(w *world) { begin(w); w.bid("bob", "web1", nil) }, Bidding, []Missing{{KindBid, carol}}, DefaultRules.BidWindow,
			"alice wants to move web1 and waits for the bids of carol; at the deadline the ledger selects among those who have bid"},
		{"one was asked", func(w *world) { w.intend("web1", "carol") }, Bidding, []Missing{{KindBid, carol}}, 0,
			"alice wants to move web1 to carol and nowhere else and waits for the bids of carol; at the deadline the ledger selects among those who have bid"},
		{"selected", func(w *world) { selected(w); w.wait(Millisecond) }, Copying, []Missing{{KindAccept, bob}}, DefaultRules.Accept,
			"bob was selected for web1 and waits for bob to accept; at the deadline the next best is selected"},
		{"copying begins", func(w *world) { accepted(w) }, Copying, []Missing{{KindRelease, alice}}, 0,
			"web1 is being copied from alice to bob, 0 B so far as the order knows, and waits for alice to release it; without a sign of life of its source the move ends, and it runs on at alice"},
		{"copying", func(w *world) {
			w.must("alice", &Beat{Machine: "web1", Move: accepted(w).ID, Bytes: 3 * gib1})
			w.wait(Millisecond)
		}, Copying, []Missing{{KindRelease, alice}}, DefaultRules.Copy,
			"web1 is being copied from alice to bob, 3 GiB so far as the order knows, and waits for alice to release it; if no more bytes are told of by the deadline, the move ends, and it runs on at alice"},
		{"copying for long", func(w *world) {
			mv := accepted(w)
			for i := int64(1); i <= 6; i++ {
				w.must("alice", &Beat{Machine: "web1", Move: mv.ID, Bytes: i})
				w.wait(9 * Minute)
			}
			w.must("alice", &Beat{Machine: "web1", Move: mv.ID, Bytes: 7})
			w.wait(Millisecond)
		}, Copying, []Missing{{KindRelease, alice}}, -1,
			"web1 is being copied from alice to bob, 7 B so far as the order knows, and waits for alice to release it; at the deadline copying has lasted as long as it may: the move ends, and it runs on at alice"},
		{"copying in a window", func(w *world) {
			w.must("alice", &SetPolicy{Machine: "web1", Policy: Policy{Windows: []Span{{From: 0, To: 5}}}})
			accepted(w)
			w.wait(Millisecond)
		}, Copying, []Missing{{KindRelease, alice}}, -1,
			"web1 is being copied from alice to bob, 0 B so far as the order knows, and waits for alice to release it; at the deadline its window closes: the move ends, and it runs on at alice"},
		{"released", func(w *world) { released(w); w.wait(Millisecond) }, Released, []Missing{{KindConfirm, bob}}, DefaultRules.Lease,
			"web1 is released to bob, epoch 2, and waits for bob to confirm that it runs, or to give it back; after the deadline alice may take it back"},
		{"the lease is over", func(w *world) { released(w); w.wait(DefaultRules.Lease + 2*Millisecond) }, Released, []Missing{{KindReclaim, alice}, {KindConfirm, bob}}, 0,
			"web1 is released to bob, epoch 2, and its lease is over: it waits for alice to take it back or for bob to confirm that it runs, whichever is ordered first"},
		{"confirmed", func(w *world) { released(w); w.must("bob", &Confirm{Machine: "web1", Epoch: 2}) }, "", nil, 0,
			"web1 belongs to bob, epoch 2, and is to run there: it does not move, and nothing is missing"},
		{"declined", func(w *world) {
			released(w)
			w.must("bob", &Decline{Machine: "web1", Epoch: 2, Reason: "the digest differs"})
		}, "", nil, 0,
			"web1 belongs to alice, epoch 3, and is to run there: it does not move, and nothing is missing; its last move to bob ended declined: the digest differs"},
		{"aborted", func(w *world) { w.must("alice", &Abort{Machine: "web1", Move: begin(w).ID, Reason: "changed my mind"}) }, "", nil, 0,
			"web1 belongs to alice, epoch 1, and is to run there: it does not move, and nothing is missing; its last move ended aborted: changed my mind"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, "alice", "bob", "carol").machines("web1@alice")
			c.do(w)
			m := w.s.Machine("web1")
			st := w.s.Standing(m)
			if st.Text != c.text {
				t.Errorf("got  %s\nwant %s", st.Text, c.text)
			}
			if st.Phase != c.phase || !slices.Equal(st.Missing, c.missing) {
				t.Errorf("phase %q, missing %v; want %q, %v", st.Phase, st.Missing, c.phase, c.missing)
			}
			lasts := st.Deadline - w.s.now
			switch {
			case c.lasts == 0 && st.Deadline != 0, c.lasts < 0 && lasts <= 0, c.lasts > 0 && (lasts <= 0 || lasts > c.lasts):
				t.Errorf("its deadline is in %v, want at most %v", lasts, c.lasts)
			}
			if moved := m.Move != nil || m.Last != nil; moved && (st.Since <= 0 || st.Since > w.s.now) {
				t.Errorf("since %d, now %d", st.Since, w.s.now)
			}
		})
	}
}

func TestQuorumIsMoreThanTwoThirdsOfTheWeight(t *testing.T) {
	for _, c := range []struct {
		weights             []uint64
		away                []MemberID
		needed, seen, lacks uint64
	}{
		{[]uint64{1, 1, 1}, nil, 3, 3, 0},
		{[]uint64{1, 1, 1}, []MemberID{2}, 3, 2, 1},
		{[]uint64{1, 1, 1, 1}, []MemberID{2}, 3, 3, 0},
		{[]uint64{1, 1, 1, 1}, []MemberID{2, 4}, 3, 2, 1},
		{[]uint64{5, 1, 1}, []MemberID{1}, 5, 2, 3},
		{[]uint64{4, 1, 1}, []MemberID{3}, 5, 5, 0},
	} {
		w := newWorld(t, []string{"alice", "bob", "carol", "dave"}[:len(c.weights)]...)
		for i, weight := range c.weights {
			w.s.members[i].Weight = weight
		}
		q := w.s.Quorum(func(id MemberID) bool { return !slices.Contains(c.away, id) })
		if q.Needed != c.needed || q.Seen != c.seen || q.Lacks() != c.lacks || !slices.Equal(q.Away, c.away) {
			t.Errorf("%v without %v: %+v, lacks %d", c.weights, c.away, q, q.Lacks())
		}
		if passes := weight(q.Seen).passes(q.Total); passes != (q.Lacks() == 0) {
			t.Errorf("%v without %v: the order moves: %v, %d are lacking", c.weights, c.away, passes, q.Lacks())
		}
	}
}
