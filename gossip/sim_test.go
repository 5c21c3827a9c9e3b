package gossip

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/peer"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/x/simlibp2p"
	"github.com/marcopolo/simnet"
)

const oneWay = 40 * time.Millisecond

// world is a simulated wide-area network: 40 ms one way between any two, 100 Mbit/s
// each, with a roster that all share. It lives inside a synctest bubble, where time
// passes only while everybody waits.
type world struct {
	t   *testing.T
	net *simnet.Simnet

	mu     sync.Mutex
	roster []peer.ID
	away   map[string]bool // IP addresses whose packets are lost
	warned []string        // what the members logged at warn
}

// inWorld runs f in a bubble. The roster is everybody but mallory.
func inWorld(t *testing.T, f func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, away: map[string]bool{}}
		for _, n := range names {
			if n != "mallory" {
				w.roster = append(w.roster, idOf(t, n))
			}
		}
		w.net = &simnet.Simnet{LatencyFunc: w.latency, Logger: slog.New(slog.DiscardHandler)}
		w.net.Start()
		t.Cleanup(w.net.Close)
		f(t, w)
	})
}

// latency of a packet. One from or to who is away takes longer than any test.
func (w *world) latency(p *simnet.Packet) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.away[ipOf(p.From)] || w.away[ipOf(p.To)] {
		return 10000 * time.Hour
	}
	return oneWay
}

func ipOf(a net.Addr) string { return a.(*net.UDPAddr).IP.String() }

func (w *world) cut(name string, off bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.away[ip(name)] = off
}

func ip(name string) string { return simnet.IntToPublicIPv4(slices.Index(names, name)).String() }

func (w *world) members() []peer.ID {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.roster)
}

func (w *world) expel(p peer.ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.roster = slices.DeleteFunc(slices.Clone(w.roster), func(q peer.ID) bool { return p == q })
}

// config is that of a member who knows the address of alice only.
func (w *world) config(name string) Config {
	link := simnet.NodeBiDiLinkSettings{
		Downlink: simnet.LinkSettings{BitsPerSecond: 100 * simlibp2p.OneMbps},
		Uplink:   simnet.LinkSettings{BitsPerSecond: 100 * simlibp2p.OneMbps},
	}
	return Config{
		Key:       keyOf(w.t, name),
		Network:   "test",
		Listen:    []string{fmt.Sprintf("/ip4/%s/udp/8000/quic-v1", ip(name))},
		Bootstrap: []string{w.addr("alice")},
		Members:   w.members,
		Log:       slog.New(&warnings{w: w, name: name}),
		Transports: []libp2p.Option{
			libp2p.Transport(quic.NewTransport),
			simlibp2p.QUICSimnet(w.net, link),
			libp2p.DisableIdentifyAddressDiscovery(),
		},
	}
}

func (w *world) addr(name string) string {
	return fmt.Sprintf("/ip4/%s/udp/8000/quic-v1/p2p/%s", ip(name), idOf(w.t, name))
}

// start brings up a member and registers handlers, if any, before it runs.
func (w *world) start(name string, prepare ...func(*Overlay)) *Overlay {
	return w.startWith(w.config(name), prepare...)
}

func (w *world) startWith(cfg Config, prepare ...func(*Overlay)) *Overlay {
	w.t.Helper()
	o, err := New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, f := range prepare {
		f(o)
	}
	run(w.t, o)
	return o
}

// run runs o until the test ends, and then closes it.
func run(t testing.TB, o *Overlay) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- o.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		if err := o.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// all starts the five members and waits until each was told of each.
func (w *world) all() map[string]*Overlay {
	w.t.Helper()
	out := map[string]*Overlay{}
	for _, n := range names[:5] {
		out[n] = w.start(n)
	}
	for _, n := range names[:5] {
		awaitConnected(w.t, out[n], 4)
	}
	return out
}

// awaitConnected waits until o names n different members as connected.
func awaitConnected(t testing.TB, o *Overlay, n int) map[peer.ID]bool {
	t.Helper()
	limit := time.After(time.Minute)
	seen := map[peer.ID]bool{}
	for len(seen) < n {
		select {
		case p := <-o.Connected():
			seen[p] = true
		case <-limit:
			t.Fatalf("after a minute %d of %d members are connected: %+v", len(seen), n, o.Peers())
		}
	}
	return seen
}

// next is the next message, which must come within a minute.
func next(t *testing.T, o *Overlay) Message {
	t.Helper()
	select {
	case m := <-o.Messages():
		return m
	case <-time.After(time.Minute):
		t.Fatal("no message came in a minute")
		return Message{}
	}
}

// nothingFor fails if o gets a message within d.
func nothingFor(t *testing.T, o *Overlay, d time.Duration) {
	t.Helper()
	select {
	case m := <-o.Messages():
		t.Fatalf("got %d bytes from %s, wanted none", len(m.Data), m.From)
	case <-time.After(d):
	}
}

// warnings is a log handler that keeps what is said at warn.
type warnings struct {
	w    *world
	name string
}

func (h *warnings) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }
func (h *warnings) WithAttrs([]slog.Attr) slog.Handler           { return h }
func (h *warnings) WithGroup(string) slog.Handler                { return h }

func (h *warnings) Handle(_ context.Context, r slog.Record) error {
	line := h.name + ": " + r.Message
	r.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	h.w.warned = append(h.w.warned, line)
	return nil
}

func (w *world) warnings() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.warned)
}
