package ledger

import (
	"strings"
	"testing"
)

// The ways to cheat with bids, and what comes of each.

// TestCheatBidsLowOnMissingBytes: a member says that it holds the image, and does not.
// It wins once. The move takes as long as it takes by consensus time, which no one
// member makes; the next bid of that kind loses.
func TestCheatBidsLowOnMissingBytes(t *testing.T) {
	w := newWorld(t, "alice", "mallory", "honest").machines("web1@alice", "web2@alice")
	bids := func(name string) {
		w.intend(name, "")
		w.bid("mallory", name, func(b *Bid) { b.MissingData = 0 })
		w.bid("honest", name, func(b *Bid) { b.MissingData = gib1 })
	}
	bids("web1")
	if w.to("web1") != "mallory" {
		t.Fatalf("selected %s", w.to("web1"))
	}
	predicted := w.s.Machine("web1").Move.Forecast.Millis
	w.finish("web1", 13*Second) // as its real bytes take
	r := w.member("mallory").Record
	t.Logf("predicted %d ms, took 13 s: trust %d/1024, kept %d", predicted, r.Trust, r.Kept)
	if r.Trust < 2*1024 || r.Kept != 1 {
		t.Errorf("record %+v", r)
	}
	bids("web2")
	if w.to("web2") != "honest" {
		t.Errorf("the lie wins again: %+v", w.s.Machine("web2").Move.Against)
	}
	if why := w.s.Machine("web2").Move.Against[0].Reasons[0]; !strings.Contains(why, "by how it has kept its bids") {
		t.Errorf("mallory is told %q", why)
	}
	// What is held against it fades with honest bids that lose, and with honest moves.
	was := r.Trust
	for range 40 {
		was = forgive(was)
	}
	for range 9 {
		was = trust(was, 10_000, 10_000)
	}
	if was > 1200 {
		t.Errorf("after that trust is still %d", was)
	}
}

// TestCheatClaimsBandwidth: it counts for no more than the owner measured itself.
func TestCheatClaimsBandwidth(t *testing.T) {
	w := newWorld(t, "alice", "mallory", "honest").machines("web1@alice")
	n := need1
	n.Paths = []Way{{Member: 2, RTT: 40_000, Bandwidth: 2 * mib1}, {Member: 3, RTT: 10_000, Bandwidth: 50 * mib1}}
	w.must("alice", &Intent{Machine: "web1", Epoch: 1, Needs: n})
	w.bid("mallory", "web1", func(b *Bid) { b.Bandwidth, b.RTT = maxSize, 0 })
	w.bid("honest", "web1", func(b *Bid) { b.Bandwidth = 50 * mib1 })
	if w.to("web1") != "honest" {
		t.Errorf("selected %s", w.to("web1"))
	}
	var bids []Bid
	for _, b := range w.s.Machine("web1").Move.Bids {
		bids = append(bids, *b)
	}
	vs, err := w.s.Plan("web1", n, 0, Limits{}, bids)
	if err != nil {
		t.Fatal(err)
	}
	if f := vs[1].Forecast; f.Bandwidth > 2*mib1 || f.Millis < 100_000 {
		t.Errorf("mallory's forecast: %+v", f)
	}
}

// TestCheatClaimsARegion: a bid has no word for it. The region is the roster's, and to
// change it takes the others' votes.
func TestCheatClaimsARegion(t *testing.T) {
	w := newWorld(t, "alice/eu", "mallory/us", "honest/eu", "dave/eu").machines("web1@alice")
	w.must("alice", &SetPolicy{Machine: "web1", Policy: Policy{Regions: []string{"eu"}}})
	w.must("mallory", &Propose{Change: Update, Member: 2, Region: "eu"})
	if w.member("mallory").Region != "us" || len(w.s.Proposals()) != 1 {
		t.Errorf("mallory is in %s by its own vote, with %d proposals open", w.member("mallory").Region, len(w.s.Proposals()))
	}
	w.intend("web1", "")
	w.bid("mallory", "web1", func(b *Bid) { b.MissingData = 0 })
	w.bid("honest", "web1", nil)
	w.bid("dave", "web1", func(b *Bid) { b.MissingData = gib1 })
	if w.to("web1") != "honest" {
		t.Errorf("selected %s", w.to("web1"))
	}
	if x := w.s.Machine("web1").Move.Against[0]; x.Member != 2 || !strings.Contains(x.Reasons[0], "allows only region eu, and mallory is in us") {
		t.Errorf("against: %+v", x)
	}
}

// TestCheatWithholdsBids: who lets biddings pass holds up three of them, and no more;
// a bid ends that.
func TestCheatWithholdsBids(t *testing.T) {
	w := newWorld(t, "alice", "mallory", "honest").machines("web1@alice")
	for i := range 5 {
		id := w.intend("web1", "")
		w.bid("honest", "web1", nil)
		held := w.to("web1") == ""
		if held != (i < MaxSilent) {
			t.Errorf("bidding %d waits for mallory: %v", i, held)
		}
		if held {
			w.wait(DefaultRules.BidWindow)
		}
		if w.to("web1") != "honest" {
			t.Errorf("bidding %d selects %q", i, w.to("web1"))
		}
		w.must("alice", &Abort{Machine: "web1", Move: id})
	}
	if r := w.member("mallory").Record; r.Silent != MaxSilent {
		t.Errorf("record %+v", r)
	}
	id := w.intend("web1", "")
	w.bid("mallory", "web1", nil)
	if r := w.member("mallory").Record; r.Silent != 0 || w.to("web1") != "" {
		t.Errorf("after a bid: %+v, selected %q before honest had bid", r, w.to("web1"))
	}
	w.must("alice", &Abort{Machine: "web1", Move: id})
}

// TestCheatReplaysAnOldBid: a bid is of one move, one member and one time, and its
// transaction holds once.
func TestCheatReplaysAnOldBid(t *testing.T) {
	w := newWorld(t, "alice", "mallory", "honest").machines("web1@alice")
	id := w.intend("web1", "")
	old := w.offer("web1")
	w.must("honest", old)
	again := Tx{Seq: w.seq, Body: old} // the very transaction
	w.refused("honest", old, "honest has bid already")
	w.must("alice", &Abort{Machine: "web1", Move: id})
	w.intend("web1", "")
	if _, err := w.carry("honest", again); err == nil || !strings.Contains(err.Error(), "ordered already") {
		t.Errorf("the same transaction again: %v", err)
	}
	w.refused("honest", old, "there is no move")
	w.refused("mallory", old, "there is no move")
	moved := *old
	moved.Move = w.s.Machine("web1").Move.ID
	w.wait(2 * Second) // the bidding is over, and the old bid's time would be soon
	if m := w.s.Machine("web1"); m.Move != nil {
		t.Errorf("the move goes on: %+v", m.Move)
	}
	w.refused("mallory", &moved, "there is no move")
	w.intend("web1", "")
	moved.Move, moved.Expires = w.s.Machine("web1").Move.ID, w.s.now
	w.refused("mallory", &moved, "holds until a time that is past")
}

// TestCheatBidsForWhatItCannotHold: the word is not kept in time, the next best is
// selected in the same step, the room is free, and the member ranks lower.
func TestCheatBidsForWhatItCannotHold(t *testing.T) {
	w := newWorld(t, "alice", "mallory", "honest").machines("web1@alice", "web2@alice")
	w.intend("web1", "")
	w.bid("mallory", "web1", func(b *Bid) { b.FreeMemory, b.MissingData = 1000*gib1, 0 })
	w.bid("honest", "web1", nil)
	if w.to("web1") != "mallory" {
		t.Fatalf("selected %s", w.to("web1"))
	}
	out := w.wait(DefaultRules.Accept)
	if len(out) != 1 || out[0].Kind != KindSelected || w.to("web1") != "honest" {
		t.Fatalf("after the deadline: %+v", out)
	}
	if w.s.Reserved(2) != (Room{}) || w.s.Reserved(3).Memory != need1.Memory {
		t.Errorf("reserved: %+v at mallory, %+v at honest", w.s.Reserved(2), w.s.Reserved(3))
	}
	if r := w.member("mallory").Record; r.Broken != 1 {
		t.Errorf("record %+v", r)
	}
	w.finish("web1", 5*Second)
	// With equal bids mallory loses now, whoever's turn it is.
	for range 4 {
		id := w.intend("web2", "")
		w.bid("mallory", "web2", nil)
		w.bid("honest", "web2", nil)
		if w.to("web2") != "honest" {
			t.Errorf("selected %s", w.to("web2"))
		}
		w.must("alice", &Abort{Machine: "web2", Move: id})
	}
}
