package ledgertest

import (
	"fmt"
	"runtime/debug"
	"sync"
	"testing"
	"time"

	"github.com/dcnode/dcnode/consensus/ledger"
)

// delivery is an event for a replica that reads bytes, and what the first replica made
// of it where they are compared.
type delivery struct {
	place   ledger.Place
	raws    [][]byte
	compare bool
	root    string
	outcome [32]byte
}

// One million transactions, with moves and with lies, go through three replicas: one
// takes the values, one their bytes, and one takes their bytes and is loaded from its
// own snapshot again and again. They agree all the way.
func TestMillionTransactions(t *testing.T) {
	const million, every = 1_000_000, 50_000
	n := million
	if testing.Short() || watched {
		n = million / 20
	}
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // it leaves more garbage than state
	began := time.Now()
	tr := NewTraffic(1, 5)
	plain, err := tr.Founded()
	if err != nil {
		t.Fatal(err)
	}
	tr.Define(1000)
	var wg sync.WaitGroup
	var lines [2]chan delivery
	var errs [2]error
	for i := range lines {
		lines[i] = make(chan delivery, 256)
		wg.Add(1)
		go func() {
			defer wg.Done()
			errs[i] = follow(tr, lines[i], i == 1)
			for range lines[i] { // whoever tells it must not wait
			}
		}()
	}
	said, held := 0, 0
	for next := every; said < n; {
		place, txs, raws, err := tr.Next()
		if err != nil {
			t.Fatal(err)
		}
		tr.Happened(plain.Advance(place))
		for _, tx := range txs {
			out, err := plain.Apply(tr.Network, place, tx)
			tr.Happened(out)
			if err == nil {
				held++
			}
		}
		said += len(txs)
		d := delivery{place: place, raws: raws}
		if said >= next || said >= n {
			next += every
			root, err := plain.Root()
			if err != nil {
				t.Fatal(err)
			}
			d.compare, d.root, d.outcome = true, root.String(), plain.Outcome()
		}
		for _, line := range lines {
			line <- d
		}
	}
	for _, line := range lines {
		close(line)
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			t.Errorf("replica %d: %v", i+1, err)
		}
	}
	t.Logf("%d transactions in %d events, %d held, three replicas in %v: %s", said, plain.Next(), held, time.Since(began).Round(time.Millisecond), tr.Mix())
	for _, k := range []ledger.Kind{ledger.KindBid, ledger.KindRelease, ledger.KindConfirm, ledger.KindReport, ledger.KindAbort, ledger.KindDecline, "replay"} {
		if tr.made[k] < n/4000 {
			t.Errorf("%d of %d transactions are %s: that is no busy overlay", tr.made[k], n, k)
		}
	}
}

// follow is a replica that reads bytes. Each time that it is compared it may be loaded
// from its snapshot.
func follow(tr *Traffic, line <-chan delivery, reload bool) error {
	s, err := ledger.New(tr.Members, ledger.Rules{})
	if err != nil {
		return err
	}
	for d := range line {
		s.Advance(d.place)
		for _, raw := range d.raws {
			tx, err := ledger.Decode(raw)
			if err != nil {
				return err
			}
			s.Apply(tr.Network, d.place, tx) // what is refused is in the outcome
		}
		if !d.compare {
			continue
		}
		root, err := s.Root()
		if err != nil {
			return err
		}
		if root.String() != d.root || s.Outcome() != d.outcome {
			return fmt.Errorf("after event %d it has root %s, the first has %s", d.place.Index, root, d.root)
		}
		if !reload {
			continue
		}
		_, snapshot, err := s.Snapshot()
		if err != nil {
			return err
		}
		if s, err = ledger.Load(snapshot); err != nil {
			return err
		}
	}
	return nil
}
