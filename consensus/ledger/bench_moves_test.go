package ledger

import (
	"fmt"
	"testing"
)

// BenchmarkMoves is whole moves among 31 members, applied without their encoding; a
// move is one intent, 30 bids, accept, release, confirm and report.
func BenchmarkMoves(b *testing.B) {
	w := crowd(b, 31)
	for b.Loop() {
		moveOnce(w)
	}
	b.ReportMetric(float64(b.N*35)/b.Elapsed().Seconds(), "tx/s")
}

func BenchmarkPlan(b *testing.B) {
	w := crowd(b, 31)
	var bids []Bid
	for i := 2; i <= 31; i++ {
		o := *w.anyOffer("web1")
		o.Member = MemberID(i)
		bids = append(bids, o)
	}
	for b.Loop() {
		if _, err := w.s.Plan("web1", need1, 0, Limits{}, bids); err != nil {
			b.Fatal(err)
		}
	}
}

func crowd(t testing.TB, n int) *world {
	var sites []string
	for i := range n {
		sites = append(sites, fmt.Sprintf("s%d", i+1))
	}
	w := newWorld(t, sites...).machines("web1@s1")
	return w
}

func moveOnce(w *world) {
	do := func(by MemberID, body Body) {
		p := Place{Index: w.index, Round: w.index, Time: w.s.now + Millisecond, Author: by}
		w.index++
		w.seq++
		w.s.Advance(p)
		if _, err := w.s.Apply(testNet, p, Tx{Seq: w.seq, Body: body}); err != nil {
			w.t.Fatal(err)
		}
	}
	m := w.s.Machine("web1")
	do(m.Owner, &Intent{Machine: "web1", Epoch: m.Epoch, Needs: need1})
	for _, x := range w.s.Members() {
		if x.ID != m.Owner {
			do(x.ID, w.offer("web1"))
		}
	}
	mv := w.s.Machine("web1").Move
	do(mv.To, &Accept{Machine: "web1", Move: mv.ID})
	do(mv.From, &Release{Machine: "web1", Move: mv.ID, Epoch: mv.Epoch + 1, To: mv.To})
	do(mv.To, &Confirm{Machine: "web1", Epoch: mv.Epoch + 1})
	do(mv.From, &Report{Machine: "web1", Move: mv.ID, Truth: Truth{Memory: gib1, Pause: 50}})
}
