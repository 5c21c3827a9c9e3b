package node

import (
	"context"
	"encoding/binary"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/dcnode/dcnode/consensus/ledger"
)

// greet says hello from one site to another and returns the last answer.
func greet(t *testing.T, from, to *site, h hello) answer {
	t.Helper()
	s, err := from.node.overlay.Open(t.Context(), to.node.overlay.ID(), protoMigrate)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Reset()
	_ = s.SetDeadline(time.Now().Add(reasonable))
	if err := writeLine(s, h); err != nil {
		t.Fatal(err)
	}
	for {
		var a answer
		if err := readLine(s, &a); err != nil {
			t.Fatalf("%+v: %v", h, err)
		}
		if a.Ready || a.Error != "" {
			return a
		}
	}
}

func TestHelloThatLiesIsTurnedAway(t *testing.T) {
	ctx := deadline(t)
	o := newOverlay(t, 3)
	alice, bob, carol := o.sites[0], o.sites[1], o.sites[2]
	o.image(ctx, alice, "os")
	o.run(ctx, alice, "web1", "os")
	o.settle(ctx)
	m := alice.node.local("web1")
	session := newOutgoing("web1", nil) // the test is the source
	alice.node.register(session)
	defer alice.node.unregister(session)
	v, err := alice.node.order.Submit(ctx, &ledger.Intent{Machine: "web1", Epoch: 1, Only: bob.node.self, Needs: alice.node.needs(ctx, m)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := await(ctx, session.effects, v.Place.Index, ledger.KindSelected); err != nil {
		t.Fatal(err)
	}
	truth := hello{Machine: "web1", Move: v.Place.Index, Epoch: 1, Commit: m.Commit, Session: newSession(), Spec: m.Spec}
	for _, c := range []struct {
		what string
		from *site
		to   *site
		lie  func(*hello)
		want string
	}{
		{"another's machine", carol, bob, func(*hello) {}, "is moved by alice, not by you"},
		{"another's destination", alice, carol, func(*hello) {}, "goes to bob, not here"},
		{"another epoch", alice, bob, func(h *hello) { h.Epoch = 2 }, "is in epoch 1, not 2"},
		{"a secret that is none", alice, bob, func(h *hello) { h.Session = nil }, "a secret of 0 bytes"},
		{"another image", alice, bob, func(h *hello) { h.Commit = "bafy" }, "not bafy"},
		{"another name in the description", alice, bob, func(h *hello) { h.Spec.Name = "../../etc" }, "described otherwise"},
		{"more memory than was promised", alice, bob, func(h *hello) { h.Spec.Memory <<= 4 }, "described otherwise"},
	} {
		h := truth
		c.lie(&h)
		if a := greet(t, c.from, c.to, h); a.Ready || !strings.Contains(a.Error, c.want) {
			t.Errorf("%s: %+v", c.what, a)
		}
	}
	// A selection that is not ordered here yet is waited for; the one before says nothing.
	next := truth
	next.Selected = 1 << 40
	brief, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if _, err := carol.node.selected(brief, alice.node.overlay.ID(), next); err == nil || !strings.Contains(err.Error(), "no such move") {
		t.Errorf("a selection that is to come: %v", err)
	}
	s, err := alice.node.overlay.Open(ctx, bob.node.overlay.ID(), protoMigrate)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write(binary.BigEndian.AppendUint32(nil, maxLine+1)); err != nil {
		t.Fatal(err)
	}
	if err := readLine(s, &answer{}); err == nil {
		t.Error("a hello too long was answered")
	}
	if _, err := os.Stat(bob.node.machineDir("web1")); err == nil {
		t.Error("a lie has left something behind")
	}
	// The truth is taken; and when its teller goes away and stays away, nothing stays.
	bob.node.cfg.ResumeWithin = time.Second
	if a := greet(t, alice, bob, truth); !a.Ready {
		t.Errorf("the truth: %+v", a)
	}
	if _, err := await(ctx, session.effects, v.Place.Index, ledger.KindAbort); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(bob.node.recordPath("web1")); err == nil {
		t.Error("an arrival that was cut has left its record behind")
	}
	checkRunsAt(ctx, t, alice, "web1")
}
