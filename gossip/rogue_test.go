package gossip

import (
	"bytes"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

func TestFloodOfTheTopicIsIgnoredAndThenCutOff(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		cfg := w.config("alice")
		cfg.Limits.Messages = 10
		alice := w.startWith(cfg)
		carol := w.rogue("carol")
		carol.reconnect(t, alice)
		for i := range 500 {
			if err := carol.topic.Publish(t.Context(), fmt.Appendf(nil, "flood %d", i)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond) // its own queue is short
		}
		const burst = 4 * 2 * 10 // of four members, two seconds' worth
		for range burst {
			next(t, alice)
		}
		for range burst / 10 { // what became due meanwhile
			select {
			case <-alice.Messages():
			case <-time.After(10 * time.Millisecond):
			}
		}
		nothingFor(t, alice, oneWay)
		if alice.isConnected(carol.host.ID()) {
			t.Error("a member that goes on flooding is still connected")
		}
		info := peer.AddrInfo{ID: alice.ID(), Addrs: alice.Host().Addrs()}
		if err := carol.host.Connect(t.Context(), info); err == nil {
			time.Sleep(time.Second) // the refusal comes after the handshake
			if alice.isConnected(carol.host.ID()) {
				t.Error("it was let in again while it is muted")
			}
		}
		time.Sleep(firstMute)
		carol.reconnect(t, alice)
		if err := carol.topic.Publish(t.Context(), []byte("sorry")); err != nil {
			t.Fatal(err)
		}
		if m := next(t, alice); string(m.Data) != "sorry" {
			t.Errorf("alice got %q", m.Data)
		}
	})
}

// TestForgedMessageIsNotPassedOn: whoever gets one has it from its maker, and from
// nobody who would be blamed for it. It may come over the maker's line first.
func TestForgedMessageIsNotPassedOn(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		genuine := func(data []byte) bool { return !bytes.HasPrefix(data, []byte("forged")) }
		cfg := w.config("alice")
		cfg.Verify = genuine
		alice := w.startWith(cfg)
		cfg = w.config("bob")
		cfg.Allow = func(p peer.ID) bool { return p == alice.ID() } // he hears carol through her only
		bob := w.startWith(cfg)
		awaitConnected(t, bob, 1)
		carol := w.rogue("carol")
		carol.reconnect(t, alice)
		s, err := carol.host.NewStream(t.Context(), alice.ID(), alice.protocol(protoLine))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write(appendFrame(nil, frameMessage, []byte("forged line"))); err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{"forged line", "forged", "genuine"} {
			time.Sleep(time.Second)
			if err := carol.topic.Publish(t.Context(), []byte(text)); err != nil {
				t.Fatal(err)
			}
			if m := next(t, alice); string(m.Data) != text || m.From != carol.host.ID() {
				t.Errorf("alice got %q from %s, wanted %q", m.Data, m.From, text)
			}
		}
		if m := next(t, bob); string(m.Data) != "genuine" {
			t.Errorf("bob got %q from %s", m.Data, m.From)
		}
		nothingFor(t, bob, 10*time.Second)
	})
}

func TestNonsenseOnALineIsCounted(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		alice := w.start("alice")
		carol := w.rogue("carol")
		carol.reconnect(t, alice)
		nonsense := [][]byte{
			{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, // no number
			{0xff, 0xff, 0xff, 0xff, 0x0f},                                  // gigabytes to come
			{3},                                                             // a kind that does not exist
		}
		for _, frame := range nonsense {
			s, err := carol.host.NewStream(t.Context(), alice.ID(), alice.protocol(protoLine))
			if err != nil {
				t.Fatal(err)
			}
			s.Write(frame)
			if _, err := io.ReadAll(s); err == nil {
				t.Errorf("after %x the line ended as if all were well", frame)
			}
		}
		for _, p := range alice.Peers() {
			if p.ID == carol.host.ID() && p.Invalid != 2 {
				t.Errorf("%d of the frames were counted", p.Invalid)
			}
		}
	})
}
