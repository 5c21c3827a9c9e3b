package node

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dcnode/dcnode/consensus"
	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/node/api"
)

// TestMoveIsCertifiedForWhoHasOnlyTheGenesis: with the certificate and the genesis in
// two files, nothing else is needed; what others would make of it is refused.
func TestMoveIsCertifiedForWhoHasOnlyTheGenesis(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	o := newOverlay(t, 3)
	alice := o.sites[0]
	o.image(ctx, alice, "os")
	o.run(ctx, alice, "web1", "os")
	if _, err := alice.node.Certify(ctx, "web1", 0); err == nil || !strings.Contains(err.Error(), "no move to certify") {
		t.Errorf("before it has moved: %v", err)
	}
	rep, err := alice.node.Migrate(ctx, api.Migrate{Name: "web1", To: "bob"}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	o.settle(ctx)
	for _, s := range o.sites { // anyone can make it
		b, err := s.node.Certify(ctx, "web1", rep.Epoch)
		if err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		path := filepath.Join(t.TempDir(), "cert")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := VerifyCertificate(path, o.gen)
		if err != nil {
			t.Fatal(err)
		}
		st, _ := s.node.order.State(ctx)
		hs := st.Machine("web1").Handovers
		if h := hs[len(hs)-1]; f.By != "alice" || f.To != "bob" || f.Epoch != rep.Epoch || f.Index != h.Index || f.Event != fmt.Sprintf("%x", h.Event) || !f.Confirmed {
			t.Errorf("%s: found %+v, the ledger has %+v", s.name, f, h)
		}
		if err := os.WriteFile(path, []byte(strings.Replace(string(b), "web1", "web2", 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := VerifyCertificate(path, o.gen); err == nil {
			t.Error("a certificate for another machine passes")
		}
	}
	// With two of three members away, there is nobody to sign.
	o.end(o.sites[1])
	o.end(o.sites[2])
	short, cancel := context.WithTimeout(ctx, attestWithin)
	defer cancel()
	if _, err := alice.node.Certify(short, "web1", 0); err == nil || !strings.Contains(err.Error(), "more than two thirds") {
		t.Errorf("alone: %v", err)
	}
}

// plant makes a member take no account's word any more: it computes another state from
// the next transaction of an account on.
func plant(ctx context.Context, t *testing.T, s *site) {
	t.Helper()
	if err := s.node.order.do(ctx, func() { s.node.order.network = consensus.Hash{1} }); err != nil {
		t.Fatal(err)
	}
}

// account orders a new account, signed by its key, at a site.
func account(ctx context.Context, t *testing.T, s *site, name string) uint64 {
	t.Helper()
	seed := sha256.Sum256([]byte(name))
	key := ed25519.NewKeyFromSeed(seed[:])
	tx := ledger.Tx{Seq: 1, Account: name, Body: &ledger.SetAccount{Name: name, Site: s.name, Keys: [][]byte{key.Public().(ed25519.PublicKey)}, Threshold: 1}}
	if err := ledger.Sign(s.node.network, &tx, key); err != nil {
		t.Fatal(err)
	}
	raw, err := ledger.Encode(tx)
	if err != nil {
		t.Fatal(err)
	}
	at, err := s.node.order.loop.Submit(ctx, raw)
	if err != nil {
		t.Fatal(err)
	}
	return at.Index
}

// often makes the members say every few events what they have computed.
func (o *overlay) often(ctx context.Context) {
	for _, s := range o.sites {
		_ = s.node.order.do(ctx, func() { s.node.order.doubt.every = 8 })
	}
}

// speak orders something every now and then until ctx ends.
func speak(ctx context.Context, s *site) {
	for i := 0; ctx.Err() == nil; i++ {
		_, _ = s.node.order.Submit(ctx, &ledger.Publish{Name: fmt.Sprintf("said%d", i), Commit: "c", Size: 1, Stored: 1})
	}
}

func TestMemberThatComputesAnotherStateStopsAndNamesTheTransaction(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	o := newOverlay(t, 4)
	alice, dave := o.sites[0], o.sites[3]
	o.often(ctx)
	for range 3 {
		if _, err := alice.node.Ping(ctx); err != nil {
			t.Fatal(err)
		}
	}
	plant(ctx, t, dave)
	index := account(ctx, t, alice, "acme")
	busy, quiet := context.WithCancel(ctx)
	defer quiet()
	done := make(chan struct{})
	go func() { defer close(done); speak(busy, alice) }()
	var err error
	select {
	case err = <-dave.ended:
		dave.node = nil
	case <-ctx.Done():
		t.Fatal("it does not stop")
	}
	var d *DivergedError
	if !errors.As(err, &d) {
		t.Fatalf("it ended with %v", err)
	}
	if d.Index != index || !d.Exact || len(d.Sites) < 2 || d.Dir != dave.dir || !strings.Contains(d.What, "by alice: kind account.set") {
		t.Errorf("it differs from event %d on: %+v: %v", index, d, err)
	}
	// It does not come back by itself, and says why.
	if _, err := New(Config{Dir: dave.dir, Genesis: o.gen, Listen: []string{dave.listen}}); err == nil || !strings.Contains(err.Error(), "computed another state") {
		t.Errorf("started again: %v", err)
	}
	// The others go on, and agree.
	if _, err := alice.node.Ping(ctx); err != nil {
		t.Errorf("the others: %v", err)
	}
	quiet()
	<-done
	o.settle(ctx)
}

func TestFewThatComputeAnotherStateAreNamedOnly(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	o := newOverlay(t, 4)
	alice := o.sites[0]
	if _, err := alice.node.Ping(ctx); err != nil {
		t.Fatal(err)
	}
	// What dave says he has computed is wrong; what he computes is right.
	wrong := [32]byte{7}
	if _, err := o.sites[3].node.order.Submit(ctx, &ledger.Root{Index: 0, Outcome: wrong[:]}); err != nil {
		t.Fatal(err)
	}
	if _, err := alice.node.Ping(ctx); err != nil {
		t.Fatal(err)
	}
	st, err := alice.node.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	named := false
	for _, s := range st.Suspects {
		named = named || s.Site == "dave" && strings.Contains(s.What, "computed another state")
	}
	if !named {
		t.Errorf("suspects: %+v", st.Suspects)
	}
}

func TestIdleOverlaySaysNothingOfItsState(t *testing.T) {
	d := doubt{}
	at := func(i uint64, after ledger.Time) ledger.Place { return ledger.Place{Index: i, Time: after} }
	d.take(at(0, 0), &ledger.Publish{}, nil)
	if d.due(at(0, 0)) {
		t.Error("at once")
	}
	for i := uint64(1); i < rootEvery; i++ {
		if d.due(at(i, 0)) {
			t.Fatalf("after %d events", i)
		}
	}
	if !d.due(at(rootEvery, 0)) || d.due(at(rootEvery+1, 0)) {
		t.Error("not once after enough events")
	}
	d.take(at(rootEvery+2, 1), &ledger.Root{Outcome: make([]byte, 32)}, nil)
	d.take(at(rootEvery+3, 1), &ledger.Tick{}, nil)
	if d.due(at(10*rootEvery, 100*rootAfter)) {
		t.Error("although nothing was said")
	}
	d.take(at(10*rootEvery, 100*rootAfter), &ledger.Hold{}, nil)
	if !d.due(at(10*rootEvery, 100*rootAfter)) {
		t.Error("not when enough time has passed and something was said")
	}
}

func TestRingKeepsTheLast(t *testing.T) {
	for _, from := range []uint64{0, 5, 1000} {
		r := ring[uint64]{size: 7}
		for i := from; i < from+23; i++ {
			r.put(i, i*i)
			for k := uint64(0); k < from+30; k++ {
				v, ok := r.get(k)
				if want := k <= i && k >= from && k+7 > i; ok != want || ok && v != k*k {
					t.Fatalf("from %d at %d: %d is %d, %v", from, i, k, v, ok)
				}
			}
		}
		r.put(5000, 1) // a leap
		if v, ok := r.get(5000); !ok || v != 1 || r.oldest() != 5000 {
			t.Errorf("after a leap %d, %v", v, ok)
		}
		if _, ok := r.get(4999); ok {
			t.Error("what was before the leap is there")
		}
	}
}

// TestFirstDifferenceIsFound plays a member whose outcomes leave another's at each place.
func TestFirstDifferenceIsFound(t *testing.T) {
	mine, theirs := newPast(), newPast()
	for i := uint64(0); i < 5000; i++ {
		o := outcome{digest: sha256.Sum256(fmt.Append(nil, i))}
		mine.outcomes.put(i, o)
		if i >= 1234 {
			o.digest[0] ^= 1
		}
		theirs.outcomes.put(i, o)
	}
	asked := 0
	f := mine.part(testimony{index: 4999}, func(from, step uint64) (uint64, [][32]byte, error) {
		asked++
		return parseOutcomes(theirs.answer(outcomeRequest(from, step)))
	})
	if f.index != 1234 || !f.exact || asked > 3 {
		t.Errorf("found %+v after %d questions", f, asked)
	}
}

func TestLogTellsWhatCameOfEachTransaction(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	o := newOverlay(t, 1)
	alice := o.sites[0]
	o.image(ctx, alice, "os")
	_, err := alice.node.order.Submit(ctx, &ledger.Withdraw{Name: "nothing"})
	if err == nil {
		t.Fatal("what is not there was withdrawn")
	}
	read := func(q api.LogQuery) (out []api.LogEntry) {
		t.Helper()
		if err := alice.node.Log(ctx, q, func(es []api.LogEntry) error { out = append(out, es...); return nil }); err != nil {
			t.Fatal(err)
		}
		return out
	}
	all := read(api.LogQuery{From: 0})
	last := all[len(all)-1]
	if last.Refused == "" || last.Kind != "image.withdraw" || last.Site != "alice" || !strings.HasPrefix(last.Text, "alice withdraws image nothing; refused: ") {
		t.Errorf("the last entry is %+v", last)
	}
	if got := read(api.LogQuery{From: api.Now, N: 1}); len(got) != 1 || got[0] != last {
		t.Errorf("the newest is %+v", got)
	}
	if got := read(api.LogQuery{From: 0, Kind: "image.publish"}); len(got) != 1 || got[0].Image != "os" {
		t.Errorf("of its kind: %+v", got)
	}
	ev, err := alice.node.Event(ctx, last.Index)
	if err != nil || ev.Site != "alice" || ev.Event != last.Event || len(ev.Transactions) != 1 || ev.Transactions[0].Body.(*ledger.Withdraw).Name != "nothing" {
		t.Errorf("its event is %+v, %v", ev, err)
	}
	if _, err := alice.node.Event(ctx, last.Index+1000); err == nil || !strings.Contains(err.Error(), "not ordered yet") {
		t.Errorf("a later one: %v", err)
	}

	// Following sees what comes.
	follow, stop := context.WithCancel(ctx)
	defer stop()
	came := make(chan api.LogEntry, 16)
	begun := make(chan struct{})
	go func() {
		first := true
		_ = alice.node.Log(follow, api.LogQuery{From: api.Now, N: 1, Follow: true}, func(es []api.LogEntry) error {
			if first {
				first = false
				close(begun)
				return nil
			}
			for _, e := range es {
				came <- e
			}
			return nil
		})
	}()
	<-begun
	if _, err := alice.node.Ping(ctx); err != nil {
		t.Fatal(err)
	}
	select {
	case e := <-came:
		if e.Kind != "tick" || e.Text != "alice lets time pass" {
			t.Errorf("came %+v", e)
		}
	case <-ctx.Done():
		t.Error("nothing comes")
	}

	// A restart writes nothing twice.
	stop()
	before := len(read(api.LogQuery{From: 0}))
	o.end(alice)
	o.start(alice)
	if again := len(read(api.LogQuery{From: 0})); again < before || again > before+2 {
		t.Errorf("%d entries became %d by a restart", before, again)
	}
}
