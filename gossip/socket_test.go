package gossip

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	ma "github.com/multiformats/go-multiaddr"
)

// These tests use sockets of the loopback interface.

const (
	anyTCP  = "/ip4/127.0.0.1/tcp/0"
	anyQUIC = "/ip4/127.0.0.1/udp/0/quic-v1"
)

// onLoopback configures a member of alice, bob and carol.
func onLoopback(t *testing.T, name string, listen ...string) Config {
	t.Helper()
	roster := []peer.ID{idOf(t, "alice"), idOf(t, "bob"), idOf(t, "carol")}
	return Config{
		Key: keyOf(t, name), Network: "test", Listen: listen,
		Members: func() []peer.ID { return roster },
	}
}

func startOn(t *testing.T, cfg Config, prepare ...func(*Overlay)) (o *Overlay, stop func()) {
	t.Helper()
	o, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range prepare {
		f(o)
	}
	return o, run(t, o)
}

func TestTLSOverTCPIsChosen(t *testing.T) {
	alice, _ := startOn(t, onLoopback(t, "alice", anyTCP, anyQUIC))
	cfg := onLoopback(t, "bob", anyTCP, anyQUIC)
	cfg.Bootstrap = alice.Addrs()
	bob, _ := startOn(t, cfg)
	awaitConnected(t, bob, 1)
	state := bob.conn(alice.ID()).ConnState()
	if state.Transport != "tcp" || state.Security != libp2ptls.ID || state.StreamMultiplexer != "/yamux/1.0.0" {
		t.Errorf("the connection is %+v", state)
	}
	p := bob.Peers()[0]
	if p.ID != alice.ID() || p.Transport != "tcp" || !strings.HasPrefix(p.Addr, "/ip4/127.0.0.1/tcp/") || p.Since.IsZero() {
		t.Errorf("Peers says %+v", p)
	}
}

func TestQUICIsTriedWhereTCPFails(t *testing.T) {
	alice, _ := startOn(t, onLoopback(t, "alice", anyQUIC))
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	cfg := onLoopback(t, "bob", anyTCP, anyQUIC)
	dead, err := ma.NewMultiaddr("/ip4/127.0.0.1/tcp/" + portOf(closed.Addr()) + "/p2p/" + alice.ID().String())
	if err != nil {
		t.Fatal(err)
	}
	cfg.Bootstrap = append(alice.Addrs(), dead.String())
	bob, _ := startOn(t, cfg)
	awaitConnected(t, bob, 1)
	if c := bob.conn(alice.ID()); transportOf(c) != "quic-v1" {
		t.Errorf("connected by %s", c.RemoteMultiaddr())
	}
}

func portOf(a net.Addr) string {
	_, port, _ := net.SplitHostPort(a.String())
	return port
}

func TestPortInUseNamesAddressAndRemedy(t *testing.T) {
	for _, listen := range []string{anyTCP, anyQUIC} {
		alice, _ := startOn(t, onLoopback(t, "alice", listen))
		taken := alice.Host().Addrs()[0].String()
		// A second address that is free does not hide the trouble with the first.
		_, err := New(onLoopback(t, "bob", taken, "/ip4/127.0.0.2/tcp/0"))
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatalf("listening on %s twice: %v", taken, err)
		}
		for _, want := range []string{taken, "port in use", "another dcnode", "--listen"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("the error does not say %q: %v", want, err)
			}
		}
	}
}

func TestDefaultPortIsOpenedOnTCPAndQUIC(t *testing.T) {
	o, err := New(onLoopback(t, "alice"))
	if errors.Is(err, syscall.EADDRINUSE) {
		t.Skipf("something else has port 4001 here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	got := o.Host().Network().ListenAddresses()
	for _, want := range defaultListen[:2] {
		if !slices.ContainsFunc(got, ma.StringCast(want).Equal) {
			t.Errorf("not listening on %s: %v", want, got)
		}
	}
}

func TestRestartWithAddressBookNeedsNoBootstrap(t *testing.T) {
	alice, _ := startOn(t, onLoopback(t, "alice", anyTCP))
	cfg := onLoopback(t, "bob", anyTCP)
	cfg.AddrBook = filepath.Join(t.TempDir(), "addresses.json")
	cfg.Bootstrap = alice.Addrs()
	bob, stop := startOn(t, cfg)
	awaitConnected(t, bob, 1)
	awaitConnected(t, alice, 1)
	stop()

	cfg.Bootstrap = nil
	bob, _ = startOn(t, cfg)
	awaitConnected(t, bob, 1)
	awaitConnected(t, alice, 1)
}

func TestDamagedAddressBookIsReported(t *testing.T) {
	cfg := onLoopback(t, "alice", anyTCP)
	cfg.AddrBook = filepath.Join(t.TempDir(), "addresses.json")
	if err := os.WriteFile(cfg.AddrBook, []byte(`{"12D3`), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := New(cfg)
	if err == nil || !strings.Contains(err.Error(), cfg.AddrBook) || !strings.Contains(err.Error(), "delete it") {
		t.Errorf("New said %v", err)
	}
}

func TestRefusalOverTCPIsIntelligible(t *testing.T) {
	alice, _ := startOn(t, onLoopback(t, "alice", anyTCP))
	cfg := onLoopback(t, "mallory", anyTCP)
	cfg.Bootstrap = alice.Addrs()
	mallory, _ := startOn(t, cfg)
	for range 5 {
		_, err := mallory.Open(t.Context(), alice.ID(), "/sync/1")
		if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "is this node in its roster?") {
			t.Fatalf("Open said %v", err)
		}
	}
}

func TestLargeStreamOverTCPArrivesWhole(t *testing.T) {
	const size = 64 << 20
	alice, _ := startOn(t, onLoopback(t, "alice", anyTCP), func(o *Overlay) {
		o.Handle("/zero/1", func(_ context.Context, s Stream) {
			io.CopyN(s, zeroes{}, size)
		})
	})
	cfg := onLoopback(t, "bob", anyTCP)
	cfg.Bootstrap = alice.Addrs()
	bob, _ := startOn(t, cfg)
	s, err := bob.Open(t.Context(), alice.ID(), "/zero/1")
	if err != nil {
		t.Fatal(err)
	}
	s.SetDeadline(time.Now().Add(time.Minute))
	if err := s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, s)
	if n != size || err != nil {
		t.Errorf("%d of %d bytes, %v", n, size, err)
	}
}

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestAdvertiseReplacesWhatWasFound(t *testing.T) {
	cfg := onLoopback(t, "alice", anyTCP)
	cfg.Advertise = []string{"/ip4/192.0.2.1/tcp/4001"}
	alice, _ := startOn(t, cfg)
	want := "/ip4/192.0.2.1/tcp/4001/p2p/" + alice.ID().String()
	if got := alice.Addrs(); len(got) != 1 || got[0] != want {
		t.Errorf("Addrs is %v, wanted %s", got, want)
	}
	if alice.BitswapPrefix() != protocol.ID("/dcnode/test") {
		t.Errorf("BitswapPrefix is %s", alice.BitswapPrefix())
	}
}

func TestPrivateMemberIsReachedThroughARelay(t *testing.T) {
	alice, _ := startOn(t, onLoopback(t, "alice", anyTCP))
	cfg := onLoopback(t, "carol", anyTCP)
	cfg.Private, cfg.Bootstrap = true, alice.Addrs()
	cfg.Advertise = []string{"/ip4/127.0.0.1/tcp/1"} // where nobody is
	carol, _ := startOn(t, cfg, func(o *Overlay) {
		o.HandleRequest("/who/1", func(_ context.Context, from peer.ID, _ []byte) ([]byte, error) { return []byte("carol"), nil })
	})
	awaitConnected(t, carol, 1)
	where := peer.AddrInfo{ID: alice.ID(), Addrs: alice.Host().Addrs()}
	if _, err := client.Reserve(t.Context(), carol.Host(), where); err != nil { // it does so itself, some time
		t.Fatal(err)
	}
	cfg = onLoopback(t, "bob", anyTCP)
	cfg.Bootstrap = alice.Addrs()
	cfg.Advertise = []string{"/ip4/127.0.0.1/tcp/2"} // nor is he here: carol looks for bob, too
	bob, _ := startOn(t, cfg)
	awaitConnected(t, bob, 1)
	reply, err := bob.Request(t.Context(), carol.ID(), "/who/1", nil, 100)
	if err != nil || string(reply) != "carol" {
		t.Fatalf("bob asked carol and got %q, %v", reply, err)
	}
	if c := bob.conn(carol.ID()); transportOf(c) != "relay" {
		t.Errorf("bob reached carol at %s", c.RemoteMultiaddr())
	}
}

func TestConfigIsChecked(t *testing.T) {
	for what, spoil := range map[string]func(*Config){
		"Key":       func(c *Config) { c.Key = nil },
		"Members":   func(c *Config) { c.Members = nil },
		"network":   func(c *Config) { c.Network = "a/b" },
		"nonsense":  func(c *Config) { c.Listen = []string{"nonsense"} },
		"/p2p/ID":   func(c *Config) { c.Bootstrap = []string{"/ip4/192.0.2.1/tcp/4001"} },
		"1.2.3.4:5": func(c *Config) { c.Bootstrap = []string{"1.2.3.4:5"} },
	} {
		cfg := onLoopback(t, "alice", anyTCP)
		spoil(&cfg)
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("a Config with a bad %s: %v", what, err)
		}
	}
}

func TestGivenHostIsUsedAndLeftOpen(t *testing.T) {
	alice, _ := startOn(t, onLoopback(t, "alice", anyTCP))
	cfg := onLoopback(t, "bob", anyTCP)
	if _, err := cfg.check(); err != nil {
		t.Fatal(err)
	}
	h, err := newHost(cfg, cfg.Allow)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	bob, stop := startOn(t, Config{Host: h, Network: "test", Members: cfg.Members, Bootstrap: alice.Addrs()})
	awaitConnected(t, bob, 1)
	if err := bob.Publish(t.Context(), []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if m := next(t, alice); !bytes.Equal(m.Data, []byte("hello")) || m.From != h.ID() {
		t.Errorf("alice got %q from %s", m.Data, m.From)
	}
	stop()
	if len(h.Network().ListenAddresses()) == 0 {
		t.Error("Close closed a host that is not the overlay's")
	}
}
