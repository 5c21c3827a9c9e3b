package node

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/node/api"
	"github.com/dcnode/dcnode/vmm"
)

// says asks a site why a machine stands as it does: each of want has to begin one of the
// sentences.
func (s *site) says(ctx context.Context, t *testing.T, machine string, want ...string) api.Why {
	t.Helper()
	w, err := s.node.Why(ctx, machine)
	if err != nil {
		t.Errorf("%s: %v", s.name, err)
	}
	for _, begin := range want {
		if !slices.ContainsFunc(w.Words, func(words string) bool { return strings.HasPrefix(words, begin) }) {
			t.Errorf("%s says %q, want %q", s.name, w.Words, begin)
		}
	}
	return w
}

// awaitPhase waits until a site knows that a machine is in that phase.
func (s *site) awaitPhase(ctx context.Context, t *testing.T, machine string, p ledger.Phase) {
	t.Helper()
	if err := s.node.order.until(ctx, func(s *ledger.State) bool {
		m := s.Machine(machine)
		return m.Move != nil && m.Move.Phase == p
	}); err != nil {
		t.Errorf("%s does not come to know that %s is %s: %v", s.name, machine, p, err)
	}
}

func TestEveryMemberSaysWhatAMachineWaitsFor(t *testing.T) {
	ctx := deadline(t)
	o, s := newCutOverlay(t, 3)
	alice, bob, carol := o.sites[0], o.sites[1], o.sites[2]
	o.image(ctx, alice, "os")
	o.run(ctx, alice, "web1", "os")
	o.settle(ctx)
	for _, at := range o.sites {
		w := at.says(ctx, t, "web1", "web1 belongs to alice, epoch 1, and is to run there: it does not move, and nothing is missing")
		if w.Phase != api.AtRest || w.Owner != "alice" || w.Asked != at.name || len(w.Missing) != 0 || (w.Here != nil) != (at == alice) || w.Quorum.Needed != 3 {
			t.Errorf("%s says %+v", at.name, w)
		}
	}
	alice.says(ctx, t, "web1", "at alice: its process is running")
	reached := false
	s.on("memory", func() {
		reached = true
		for _, at := range o.sites {
			at.awaitPhase(ctx, t, "web1", ledger.Copying)
			w := at.says(ctx, t, "web1", "", "since 2") // a year
			if w.Phase != "copying" || len(w.Missing) != 1 || w.Since == 0 {
				t.Errorf("%s says %+v", at.name, w)
			}
		}
		w := alice.says(ctx, t, "web1", "at alice: ")
		if w.Here == nil || w.Here.Progress == nil || w.Here.State != vmm.Running || w.Here.Step != string(stepHere) {
			t.Errorf("alice says %+v", w.Here)
		}
		bob.says(ctx, t, "web1", "at bob: its state is arriving")
		if w := carol.says(ctx, t, "web1"); w.Here != nil {
			t.Errorf("carol says %+v", w.Here)
		}
	})
	if _, err := alice.node.Migrate(ctx, api.Migrate{Name: "web1", To: "bob"}, quiet); err != nil || !reached {
		t.Fatalf("reached %v: %v", reached, err)
	}
	o.settle(ctx)
	for _, at := range o.sites {
		at.says(ctx, t, "web1", "web1 belongs to bob, epoch 2, and is to run there", "its last move ended at ")
	}
	bob.says(ctx, t, "web1", "at bob: its process is running")
	if _, err := carol.node.Why(ctx, "db1"); err == nil || err.Error() != "there is no machine db1: see `dcnode vm ls`" {
		t.Errorf("a machine that does not exist: %v", err)
	}
}

// TestMinorityInTheHandoverSaysWhomItWaitsFor: the destination has what it needs to run the
// machine, but for an order; two of four are gone.
func TestMinorityInTheHandoverSaysWhomItWaitsFor(t *testing.T) {
	ctx := deadline(t)
	hear := make(chan func(), 1)
	m := newMoving(ctx, t, ledger.Rules{BidWindow: patient.BidWindow, Lease: 60e9}, func(m *moving) {
		m.w.on("bob resume", func() { hear <- m.bob.deafen() })
	})
	m.w.await(ctx, "bob resume", 1)
	m.alice.awaitPhase(ctx, t, "web1", ledger.Released)
	w := m.alice.says(ctx, t, "web1", "web1 is released to bob, epoch 2, and waits for bob to confirm that it runs", "at alice: ")
	if len(w.Missing) != 1 || w.Missing[0] != (api.Missing{What: ledger.KindConfirm, By: "bob", Connected: true}) || w.Quorum.Lacks != 0 {
		t.Errorf("alice says %+v", w)
	}
	gone := make(chan struct{}, 64)
	m.alice.node.overlay.Host().Network().Notify(&network.NotifyBundle{DisconnectedF: func(network.Network, network.Conn) { gone <- struct{}{} }})
	for _, s := range m.sites[2:] {
		m.end(s)
	}
	for len(w.Quorum.Away) != 2 {
		select {
		case <-gone:
			w = m.alice.says(ctx, t, "web1")
		case <-ctx.Done():
			t.Fatalf("alice does not see that they are gone: %+v", w.Quorum)
		}
	}
	m.alice.says(ctx, t, "web1", "nothing can be ordered as alice sees it: weight 3 of 4 is needed, 2 is here, 1 is missing; not connected: carol, dave")
	for _, s := range m.sites[2:] {
		m.start(s)
	}
	(<-hear)()
	m.comesToRun(ctx)
	<-m.ended
}

func TestWordsOfWhatOneMemberKnows(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	at := now.UnixNano()
	progress := func(p api.Progress) *api.Here { return &api.Here{State: vmm.Running, Progress: &p, Ago: 1} }
	released := &ledger.Machine{Move: &ledger.Move{Phase: ledger.Released}}
	for _, c := range []struct {
		here *api.Here
		lm   *ledger.Machine
		ours bool
		want string
	}{
		{nil, &ledger.Machine{}, true, "at bob nothing of it is ready: look into this node's log"},
		{nil, &ledger.Machine{}, false, ""},
		{nil, released, true, ""},
		{progress(api.Progress{Phase: "memory", Done: 1 << 30, Total: 3 << 30}), released, false, "at bob: memory, 1 GiB of 3 GiB; its process is running"},
		{progress(api.Progress{Phase: "disk", Done: 1 << 30}), released, false, "at bob: disk, 1 GiB so far; its process is running"},
		{progress(api.Progress{Phase: "link cut, waits for carol", Waited: 4, Within: 600}), released, false, "at bob: link cut, waits for carol since 5.0 s, until 2027-01-15 08:09:55.000Z"},
		{&api.Here{Step: "loaded", State: vmm.Arriving}, released, false, "at bob: its state has arrived whole, and it has not run yet"},
		{&api.Here{Step: "released", State: vmm.Paused}, released, false, "at bob: it stands still until the order says whose it is"},
		{&api.Here{Step: "here", State: vmm.Paused}, released, true, "at bob: it stands still until its confirmation is ordered"},
		{&api.Here{Step: "here", State: vmm.Fenced}, released, true, "at bob: it stands still until its confirmation is ordered"},
		{&api.Here{Step: "here", State: vmm.Ended, Task: "is being started"}, &ledger.Machine{}, true, "at bob: its process is ended, and it is being started"},
	} {
		w := why{api.Why{Asked: "bob", Here: c.here}}
		if got := w.hereWords(c.lm, c.ours, now); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
	for _, c := range []struct {
		w    api.Why
		want string
	}{
		{api.Why{Phase: api.AtRest, Since: at}, "its last move ended at 2027-01-15 08:00:00.000Z"},
		{api.Why{Phase: "bidding", Since: at}, "since 2027-01-15 08:00:00.000Z"},
		{api.Why{Phase: "bidding", Since: at, Deadline: at + 2e9}, "since 2027-01-15 08:00:00.000Z, deadline 2027-01-15 08:00:02.000Z, in 2.0 s by the clock of bob"},
		{api.Why{Phase: "released", Since: at - 9e9, Deadline: at - 3e9}, "since 2027-01-15 07:59:51.000Z, deadline 2027-01-15 07:59:57.000Z, 3.0 s ago by the clock of bob: the next event of the order says so"},
	} {
		w := why{c.w}
		w.Asked = "bob"
		if w.times(now); w.Words[0] != c.want {
			t.Errorf("got  %s\nwant %s", w.Words[0], c.want)
		}
	}
}
