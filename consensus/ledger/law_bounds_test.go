package ledger

import (
	"math"
	"strings"
	"testing"
)

func TestRefusalsAreShortWhateverTheyQuote(t *testing.T) {
	w := newWorld(t, "alice", "bob").machines("web1@alice")
	long := strings.Repeat("ü", 15_000)
	for _, body := range []Body{
		&Bid{Machine: long, Move: 1}, &Accept{Machine: long}, &Confirm{Machine: long}, &Approve{Machine: long}, &Approve{Machine: "web1", Account: long},
		&SetPolicy{Machine: long}, &SetPolicy{Account: long}, &Set{Name: long}, &Define{Name: "web2", Image: long},
	} {
		_, err := w.try("alice", body)
		if err == nil || len(err.Error()) > maxRefusal {
			t.Errorf("%s is refused with %d bytes, more than %d", body.Kind(), len(err.Error()), maxRefusal)
		}
	}
}

// A report may come after the destination has left: what it says of the path is of no
// use to anyone then, and nothing would ever take it out of the state again.
func TestReportOnWhoHasLeftKeepsNoPath(t *testing.T) {
	w := newWorld(t, "alice", "bob", "carol", "dave").machines("web1@alice")
	id := w.intend("web1", "bob")
	w.bid("bob", "web1", nil)
	w.finish("web1", 5*Second)
	bob := w.member("bob").ID
	p := &Propose{Change: Leave, Member: bob, Force: true}
	w.must("alice", p)
	open := w.s.Proposals()[0]
	w.must("carol", open.Vote(true))
	w.must("dave", open.Vote(true))
	if w.member("bob") != nil {
		t.Fatal("bob is still there")
	}
	w.must("alice", &Report{Machine: "web1", Move: id, Truth: Truth{Image: mib1, Disk: mib1, Memory: mib1, Pause: 100}})
	if w.s.Path(w.member("alice").ID, bob) != nil {
		t.Error("the path to a member that has left is kept")
	}
}

func TestVoteNearTheEndOfTimeDoesNotLapseAtOnce(t *testing.T) {
	w := newWorld(t, "alice", "bob", "carol")
	w.s.now = math.MaxInt64 - Second
	w.must("alice", &Propose{Change: Update, Member: w.member("bob").ID, Region: "eu"})
	for range 2 { // it has its time from the first of these on
		p := w.place("alice", 0)
		p.Round += 5
		w.s.Advance(p)
	}
	if len(w.s.Proposals()) != 1 {
		t.Error("a proposal lapses although its time has just begun")
	}
}
