package gossip

import (
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
