package ledger

import (
	"strings"
	"testing"
)

func TestStateWithABidThatIsNoneIsNotLoaded(t *testing.T) {
	w := newWorld(t, "alice", "bob").machines("web1@alice")
	w.intend("web1", "")
	c, mv := edit(w.s.Machine("web1"))
	mv.Bids = []*Bid{nil}
	w.s.put(c)
	_, b, err := w.s.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Load(b); err == nil || !strings.Contains(err.Error(), "a bid") {
		t.Errorf("it is loaded: %v", err)
	}
}

// A move without a cap takes more than any that a policy can set.
func TestAnyCapEndsAMoveWithout(t *testing.T) {
	w := newWorld(t, "alice", "bob", "carol").machines("web1@alice")
	w.intend("web1", "")
	w.must("alice", &SetPolicy{Machine: "web1", Policy: Policy{MaxBandwidth: maxSize}})
	if m := w.s.Machine("web1"); m.Move != nil || !strings.Contains(m.Last.Reason, "the policy was changed") {
		t.Errorf("the move goes on: %+v", m.Move)
	}
}
