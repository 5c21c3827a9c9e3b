package node

import (
	"testing"

	"github.com/dcnode/dcnode/consensus/ledger"
)

// A member that says what it has computed in every event keeps nobody else from it.
func TestTalkativeMemberSilencesNobody(t *testing.T) {
	d := doubt{every: 8}
	said := 0
	for i := range uint64(100) {
		p := ledger.Place{Index: i, Time: ledger.Time(i) * ledger.Millisecond, Author: 2}
		d.take(p, &ledger.Hold{Name: "debian"}, nil)
		d.take(p, &ledger.Root{Index: i, Outcome: make([]byte, 32)}, nil)
		if d.due(p) {
			said++
		}
	}
	if said != 12 {
		t.Fatalf("in 100 events it was due %d times, want 12: after each 8", said)
	}
}

// Members that only answer each other would never come to rest.
func TestWordsOnWordsAreNotDue(t *testing.T) {
	d := doubt{every: 8}
	for i := range uint64(100) {
		p := ledger.Place{Index: i, Time: ledger.Time(i) * ledger.Hour}
		d.take(p, &ledger.Root{Index: i, Outcome: make([]byte, 32)}, nil)
		d.take(p, &ledger.Tick{}, nil)
		if d.due(p) {
			t.Fatalf("due at event %d, and nothing was said", i)
		}
	}
}
