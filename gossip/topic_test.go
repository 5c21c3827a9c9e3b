package gossip

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

func TestOversizedMessageIsDropped(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		alice := w.start("alice")
		if err := alice.Publish(t.Context(), make([]byte, MaxMessage+1)); err == nil {
			t.Error("more than the limit was published")
		}
		carol := w.rogue("carol") // whose own limits are wider
		big := bytes.Repeat([]byte{1}, MaxMessage+1)
		for _, data := range [][]byte{big, bytes.Repeat(big, 3), []byte("small")} {
			carol.reconnect(t, alice)
			if err := carol.topic.Publish(t.Context(), data); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Second)
		}
		if m := next(t, alice); string(m.Data) != "small" {
			t.Errorf("alice got %d bytes", len(m.Data))
		}
		nothingFor(t, alice, 10*time.Second)
		if err := alice.Publish(t.Context(), make([]byte, MaxMessage)); err != nil {
			t.Errorf("as much as the limit: %v", err)
		}
	})
}

// rogue is a member with gossipsub's settings of its own.
type rogue struct {
	host  host.Host
	topic *pubsub.Topic
}

func (w *world) rogue(name string) *rogue {
	w.t.Helper()
	cfg := w.config(name)
	if _, err := cfg.check(); err != nil {
		w.t.Fatal(err)
	}
	h, err := newHost(cfg, cfg.Allow)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { h.Close() })
	ps, err := pubsub.NewGossipSub(w.t.Context(), h, pubsub.WithMaxMessageSize(16<<20), pubsub.WithFloodPublish(true),
		pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign), pubsub.WithNoAuthor(),
		pubsub.WithMessageIdFn(func(m *pb.Message) string { return cfg.MessageID(m.Data) }))
	if err != nil {
		w.t.Fatal(err)
	}
	topic, err := ps.Join(string(cfg.prefix()) + "/gossip")
	if err != nil {
		w.t.Fatal(err)
	}
	return &rogue{host: h, topic: topic}
}

// reconnect to o, and wait until gossipsub knows what o follows.
func (r *rogue) reconnect(t *testing.T, o *Overlay) {
	t.Helper()
	r.host.Network().ClosePeer(o.ID())
	time.Sleep(2 * time.Second)
	if err := r.host.Connect(t.Context(), peer.AddrInfo{ID: o.ID(), Addrs: o.Host().Addrs()}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Second)
	if followers := r.topic.ListPeers(); len(followers) != 1 {
		t.Fatalf("the topic has %d followers, wanted one", len(followers))
	}
}

func TestInvalidMessageIsNeitherDeliveredNorForwarded(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		valid := func(_ peer.ID, data []byte) bool { return !bytes.HasPrefix(data, []byte("bad")) }
		var all []*Overlay
		for _, n := range names[:3] {
			cfg := w.config(n)
			cfg.Validate = valid
			all = append(all, w.startWith(cfg))
		}
		for _, o := range all {
			awaitConnected(t, o, 2)
		}
		for _, text := range []string{"bad one", "good one"} {
			if err := all[0].Publish(t.Context(), []byte(text)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		for _, o := range all[1:] {
			if m := next(t, o); string(m.Data) != "good one" {
				t.Errorf("got %q", m.Data)
			}
			nothingFor(t, o, 10*time.Second)
		}
	})
}

func TestUnreadMessagesAreBoundedAndCounted(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		alice, bob := w.pair(func(*Overlay) {})
		const n, size = 80, MaxMessage
		for i := range n { // 80 MiB, at a pace that the link of 12 MB/s holds
			data := make([]byte, size)
			copy(data, fmt.Sprint("message ", i, " "))
			if err := alice.Publish(t.Context(), data); err != nil {
				t.Fatal(err)
			}
			time.Sleep(200 * time.Millisecond)
		}
		time.Sleep(10 * time.Second)
		var got uint64
		for {
			select {
			case <-bob.Messages():
				got++
				continue
			case <-time.After(time.Second):
			}
			break
		}
		const kept = maxQueuedBytes/size + readyMessages
		if got != kept || got+bob.Dropped() != n {
			t.Errorf("%d of %d messages were kept and %d counted as dropped, wanted %d kept", got, n, bob.Dropped(), kept)
		}
	})
}

func TestLostLineHeals(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		alice, bob := w.pair(func(*Overlay) {})
		awaitConnected(t, bob, 1)
		for round := range 8 {
			end := []*Overlay{alice, bob}[round%2] // whoever ends it
			other := map[*Overlay]*Overlay{alice: bob, bob: alice}[end]
			loseStream(t, end, other.ID(), "/line/1", network.DirInbound)
			awaitConnected(t, alice, 1) // again, time to sync
			awaitConnected(t, bob, 1)
			for _, o := range []*Overlay{alice, bob} {
				begin := time.Now()
				if err := o.Publish(t.Context(), fmt.Appendf(nil, "%s heard? %d", o.ID(), round)); err != nil {
					t.Fatal(err)
				}
				next(t, map[*Overlay]*Overlay{alice: bob, bob: alice}[o])
				if took := time.Since(begin); took > oneWay+time.Millisecond {
					t.Errorf("round %d: heard after %v", round, took)
				}
			}
			time.Sleep(time.Minute)
		}
	})
}

func TestLostTopicStreamHeals(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		alice, bob := w.pair(func(*Overlay) {})
		for round := range 8 { // gossipsub by itself gives up on the fifth loss
			loseStream(t, alice, bob.ID(), "/meshsub/", network.DirOutbound)
			time.Sleep(time.Minute)
			begin := time.Now()
			if err := alice.topic.Publish(t.Context(), fmt.Appendf(nil, "heard? %d", round)); err != nil {
				t.Fatal(err)
			}
			next(t, bob)
			if took := time.Since(begin); took > oneWay+time.Millisecond {
				t.Errorf("round %d: bob heard alice after %v", round, took)
			}
		}
	})
}

// loseStream ends the stream of a protocol between o and p that one side opened, and
// not the other's.
func loseStream(t *testing.T, o *Overlay, p peer.ID, proto string, dir network.Direction) {
	t.Helper()
	lost := 0
	for _, c := range o.Host().Network().ConnsToPeer(p) {
		for _, s := range c.GetStreams() {
			if s.Stat().Direction == dir && strings.Contains(string(s.Protocol()), proto) {
				s.Reset()
				lost++
			}
		}
	}
	if lost != 1 {
		t.Fatalf("there were %d streams of %s to lose, wanted one", lost, proto)
	}
}
