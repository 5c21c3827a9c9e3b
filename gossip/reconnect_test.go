package gossip

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestConnectedIsToldAfterACut(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		all := w.all()
		bob, alice := all["bob"], all["alice"]
		time.Sleep(10 * time.Second)
		w.cut("bob", true)
		time.Sleep(3 * time.Minute)
		for _, p := range bob.Peers() {
			if p.Connected || p.Since.IsZero() || !errors.Is(p.Err, ErrUnreachable) {
				t.Errorf("bob is cut off and says %+v", p)
			}
		}
		if err := alice.Publish(t.Context(), []byte("missed")); err != nil {
			t.Fatal(err)
		}
		w.cut("bob", false)
		healed := time.Now()
		awaitConnected(t, bob, 4)
		awaitConnected(t, alice, 1)
		if took := time.Since(healed); took > lastRetry+lastRetry/4+connectTimeout+findTimeout {
			t.Errorf("back only after %v", took)
		}
		for name, o := range all { // and the topic works again, both ways
			if err := o.Publish(t.Context(), []byte(name)); err != nil {
				t.Fatal(err)
			}
		}
		got := map[string]bool{}
		for !got["alice"] || !got["carol"] || !got["dave"] || !got["erin"] {
			m := next(t, bob)
			got[string(m.Data)] = true
		}
		for string(next(t, alice).Data) != "bob" {
		}
	})
}

func TestRestartOfAMemberIsToldToTheOthers(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		alice := w.start("alice")
		first, err := New(w.config("bob"))
		if err != nil {
			t.Fatal(err)
		}
		stop := run(t, first)
		awaitConnected(t, alice, 1)
		stop()
		time.Sleep(time.Second)
		w.start("bob")
		begin := time.Now()
		awaitConnected(t, alice, 1)
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("alice was told of bob's return after %v", took)
		}
	})
}

func TestUnreachableMemberIsNamedWithTheRemedy(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		cfg := w.config("alice")
		cfg.Bootstrap = nil
		alice := w.startWith(cfg)
		_, err := alice.Open(t.Context(), idOf(t, "bob"), "/sync/1")
		if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "--bootstrap") {
			t.Errorf("without an address: %v", err)
		}
		cfg = w.config("carol")
		cfg.Bootstrap = []string{w.addr("bob")} // who is not up
		carol := w.startWith(cfg)
		_, err = carol.Open(t.Context(), idOf(t, "bob"), "/sync/1")
		if !errors.Is(err, ErrUnreachable) || strings.Contains(err.Error(), "\n") {
			t.Errorf("with an address that nobody answers: %v", err)
		}
	})
}

func TestDoubtDropsASilentConnectionAndNoOther(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		all := w.all()
		bob, alice := all["bob"], all["alice"]
		time.Sleep(10 * time.Second)
		bob.Doubt(t.Context(), alice.ID())
		if !bob.isConnected(alice.ID()) {
			t.Error("a connection that works was dropped")
		}
		w.cut("bob", true)
		began := time.Now()
		bob.Doubt(t.Context(), alice.ID())
		if bob.isConnected(alice.ID()) || time.Since(began) > doubtTimeout+2*time.Second {
			t.Errorf("connected to one who is silent: %v, after %v", bob.isConnected(alice.ID()), time.Since(began))
		}
		w.cut("bob", false)
		s, err := bob.Open(t.Context(), alice.ID(), "/none/1")
		if err == nil {
			_ = s.Reset()
		}
		if !errors.Is(err, ErrRefused) { // it answers, and has no such protocol
			t.Errorf("open: %v", err)
		}
	})
}
