package node

import (
	"testing"

	"github.com/dcnode/dcnode/consensus/ledger"
)

func addTo(t *tape, from, to uint64) {
	for i := from; i < to; i++ {
		t.add(note{place: ledger.Place{Index: i}})
	}
}

func spanOf(notes []note) (from, to uint64) {
	if len(notes) == 0 {
		return 0, 0
	}
	return notes[0].place.Index, notes[len(notes)-1].place.Index + 1
}

func TestTapeRemembersTheEndOfTheOrder(t *testing.T) {
	tp := &tape{}
	addTo(tp, 0, 10)
	notes, more := tp.since(7)
	if from, to := spanOf(notes); from != 7 || to != 10 {
		t.Errorf("remembers %d to %d, want 7 to 10", from, to)
	}
	select {
	case <-more:
		t.Error("there is said to be more")
	default:
	}
	addTo(tp, 10, 3*remembered)
	select {
	case <-more:
	default:
		t.Error("nobody was told that there is more")
	}
	notes, _ = tp.since(0)
	if from, to := spanOf(notes); from != 2*remembered || to != 3*remembered || len(notes) != remembered {
		t.Errorf("remembers %d to %d, want the last %d of %d", from, to, remembered, 3*remembered)
	}
}

func TestTapeBeginsAnewAfterAGap(t *testing.T) {
	tp := &tape{}
	addTo(tp, 0, 10)
	addTo(tp, 100, 103) // a snapshot was taken over in between
	notes, _ := tp.since(0)
	if from, to := spanOf(notes); from != 100 || to != 103 {
		t.Errorf("remembers %d to %d, want 100 to 103", from, to)
	}
	if tp.end() != 103 {
		t.Errorf("the next is %d, want 103", tp.end())
	}
}
