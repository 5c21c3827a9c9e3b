package node

import (
	"context"
	"log/slog"
	"runtime"
	"testing"
	"time"

	"github.com/dcnode/dcnode/consensus/ledger"
)

// Who asks the loop for something and cannot wait must not share it with the answer.
func TestWhatRunsInTheLoopIsWaitedFor(t *testing.T) {
	os1 := newOrders(t, 1)
	os1.run(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := false
	err := os1.all[0].do(ctx, func() {
		cancel()
		for range 1000 {
			runtime.Gosched()
		}
		done = true
	})
	if !done || err != nil {
		t.Fatalf("it returned (%v) while the loop was at work for it", err)
	}
}

// The clock may be set back while a node is down: what it has said and the others have
// not ordered yet must not get its numbers a second time.
func TestNumbersAreNotUsedAgainForWhatIsNotOrderedYet(t *testing.T) {
	os2 := newOrders(t, 2)
	r, away := os2.all[0], os2.all[1]
	run := func(r *replica) (stop func()) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- r.loop.Run(ctx) }()
		return func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}
	stop, leave := run(r), run(away)
	if _, err := r.Submit(deadline(t), &ledger.Tick{}); err != nil {
		t.Fatal(err)
	}
	leave() // nothing is ordered any more
	wait, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := r.Submit(wait, &ledger.Tick{}); err == nil {
		t.Error("it was ordered without the other member")
	}
	stop()
	said := r.seq
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
	again, err := openReplica(Config{Dir: os2.dirs[0], Log: slog.New(slog.DiscardHandler)}, os2.genesis, os2.keys[0], 1, nil, founders(os2.genesis))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { again.close() })
	if again.seq < said {
		t.Fatalf("it goes on from number %d and has said %d", again.seq, said)
	}
}
