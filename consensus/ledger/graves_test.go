package ledger

import (
	"fmt"
	"testing"
)

// A site that was voted out may run its machine on. Whoever has the name next has a
// newer epoch, and nothing that was said of the old machine holds for the new one.
func TestNameOfAMachineLeftBehindGoesOnFromItsEpoch(t *testing.T) {
	w := newWorld(t, "alice", "bob", "carol", "dave").machines("web1@alice")
	w.intend("web1", "bob")
	w.bid("bob", "web1", nil)
	w.finish("web1", Second)
	w.must("alice", &Propose{Change: Leave, Member: w.member("bob").ID, Force: true})
	open := w.s.Proposals()[0]
	w.must("carol", open.Vote(true))
	w.must("dave", open.Vote(true))
	if m := w.s.Machine("web1"); w.s.Member(m.Owner) != nil || m.Epoch != 2 {
		t.Fatalf("web1 is %s", describe(w.s, m))
	}
	w.must("alice", &Delete{Name: "web1"}) // it is of alice's account
	_, b, err := w.s.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if w.s, err = Load(b); err != nil {
		t.Fatal(err)
	}
	w.machines("web1@carol")
	if m := w.s.Machine("web1"); m.Epoch != 3 || len(m.Handovers) != 1 || m.Handovers[0].Epoch != 3 {
		t.Fatalf("the new web1 is %s", describe(w.s, m))
	}
	w.refused("carol", &Intent{Machine: "web1", Epoch: 1, Needs: need1}, "epoch 3")
	w.must("carol", &Delete{Name: "web1"})
	w.machines("web1@dave", "web2@dave")
	if a, b := w.s.Machine("web1").Epoch, w.s.Machine("web2").Epoch; a != 4 || b != 1 {
		t.Errorf("epochs of web1 and web2 are %d and %d, want 4 and 1", a, b)
	}
}

func TestAnyNumberOfDeletedNamesIsBoundedAndNoneIsForgotten(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	for i := range maxGraves {
		w.s.bury(&Machine{Name: fmt.Sprint("m", i), Epoch: uint64(1 + i%7)})
	}
	if n := w.s.graves.Len(); n != maxGraves || w.s.lastEpoch("m6") != 7 || w.s.lastEpoch("m7") != 1 || w.s.lastEpoch("new") != 0 {
		t.Fatalf("%d names are remembered, m6 with epoch %d, m7 with %d", n, w.s.lastEpoch("m6"), w.s.lastEpoch("m7"))
	}
	w.s.bury(&Machine{Name: "last", Epoch: 3})
	if n := w.s.graves.Len(); n > maxGraves {
		t.Errorf("%d names are remembered, at most %d are to be", n, maxGraves)
	}
	w.machines("m7@alice", "new@alice")
	if a, b := w.s.Machine("m7").Epoch, w.s.Machine("new").Epoch; a != 8 || b != 8 {
		t.Errorf("epochs are %d and %d: no machine is to begin below 8", a, b)
	}
}
