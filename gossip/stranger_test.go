package gossip

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// mallory configures a stranger that believes itself a member.
func (w *world) mallory() Config {
	cfg := w.config("mallory")
	cfg.Members = func() []peer.ID { return append(w.members(), idOf(w.t, "mallory")) }
	return cfg
}

func TestStrangerIsRefusedAndLearnsNothing(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		all := w.all()
		mallory := w.startWith(w.mallory())
		time.Sleep(time.Minute) // it tries, with every means of the keeper
		if err := all["bob"].Publish(t.Context(), []byte("secret")); err != nil {
			t.Fatal(err)
		}
		nothingFor(t, mallory, time.Minute)

		select {
		case p := <-mallory.Connected():
			t.Errorf("the stranger was let in by %s", p)
		default:
		}
		alice := idOf(t, "alice")
		for _, p := range mallory.Peers() {
			if p.Connected {
				t.Errorf("the stranger is connected to %s", p.ID)
			}
			if known := mallory.Host().Peerstore().Addrs(p.ID); p.ID != alice && len(known) > 0 {
				t.Errorf("the stranger learnt where %s is: %v", p.ID, known)
			}
		}
		if protos, _ := mallory.Host().Peerstore().GetProtocols(alice); len(protos) > 0 {
			t.Errorf("the stranger learnt what alice speaks: %v", protos)
		}
		if len(all["alice"].Host().Network().ConnsToPeer(mallory.ID())) > 0 {
			t.Error("alice keeps a connection to the stranger")
		}
	})
}

func TestRefusalIsToldToBothOperators(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start("alice")
		mallory := w.startWith(w.mallory())
		_, err := mallory.Open(t.Context(), idOf(t, "alice"), "/sync/1")
		if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "is this node in its roster?") {
			t.Errorf("Open said %v", err)
		}
		time.Sleep(5 * time.Minute)
		var refusals int
		for _, line := range w.warnings() {
			if strings.HasPrefix(line, "alice: refused a peer that is not in the roster") {
				refusals++
				if !strings.Contains(line, mallory.ID().String()) || !strings.Contains(line, ip("mallory")) {
					t.Errorf("the warning does not say who and where: %s", line)
				}
			}
		}
		if refusals != 1 {
			t.Errorf("alice warned %d times of one stranger, wanted once: %q", refusals, w.warnings())
		}
	})
}

func TestMemberThatLeavesIsCutOff(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		all := w.all()
		bob := all["bob"]
		w.expel(bob.ID())
		for _, o := range all {
			o.Refresh()
		}
		time.Sleep(time.Second)
		for name, o := range all {
			if o != bob && len(o.Host().Network().ConnsToPeer(bob.ID())) > 0 {
				t.Errorf("%s keeps a connection to bob, who left", name)
			}
		}
		if err := all["carol"].Publish(t.Context(), []byte("among us")); err != nil {
			t.Fatal(err)
		}
		nothingFor(t, bob, time.Minute)
		if m := next(t, all["dave"]); string(m.Data) != "among us" {
			t.Errorf("dave got %q", m.Data)
		}
		_, err := bob.Open(context.Background(), idOf(t, "alice"), "/sync/1")
		if !errors.Is(err, ErrRefused) {
			t.Errorf("bob, who left, was told %v", err)
		}
	})
}
