package gossip

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// defaultListen: the IPv6 half is dropped on hosts without IPv6.
var defaultListen = []string{
	"/ip4/0.0.0.0/tcp/4001", "/ip4/0.0.0.0/udp/4001/quic-v1",
	"/ip6/::/tcp/4001", "/ip6/::/udp/4001/quic-v1",
}

const (
	// streamWindow is what a stream may have in flight before the reader has taken
	// any of it. yamux starts at 256 KiB and grows while the reader keeps up, which
	// costs a long path many round trips; 16 MiB is 1 Gbit/s at 130 ms.
	streamWindow = 16 << 20
	// maxStreamWindow is how far it may grow: 10 Gbit/s at 50 ms.
	maxStreamWindow = 64 << 20
	// writeTimeout is how long a connection may make no progress before yamux gives
	// it up. Its default of 10 s is too short for a route that changes.
	writeTimeout = 30 * time.Second
)

// newHost builds the libp2p host and checks that it really listens where it was told.
// admit says who may connect now.
func newHost(cfg Config, admit func(peer.ID) bool) (host.Host, error) {
	listen := cfg.Listen
	if len(listen) == 0 {
		listen = usable(defaultListen)
	}
	limits, err := newResourceManager(&cfg)
	if err != nil {
		return nil, fmt.Errorf("set resource limits: %w", err)
	}
	opts := []libp2p.Option{
		libp2p.Identity(cfg.Key),
		libp2p.ListenAddrStrings(listen...),
		libp2p.ConnectionGater(newGater(admit, cfg.Allow, cfg.Log)),
		libp2p.ResourceManager(limits),
		libp2p.ProtocolVersion(string(cfg.prefix())),
		libp2p.UserAgent("dcnode"),
		libp2p.DisableMetrics(), // libp2p's go to one registry for the whole process
		// The order is the preference: TLS has AES-GCM, Noise here only
		// ChaCha20-Poly1305, and TLS moved 1041 MB/s over loopback where Noise moved 647.
		libp2p.Security(libp2ptls.ID, libp2ptls.New),
		libp2p.Security(noise.ID, noise.New),
		libp2p.Muxer(yamux.ID, newMuxer()),
		libp2p.DialRanker(rankAddrs),
	}
	if len(cfg.Advertise) > 0 {
		opts = append(opts, libp2p.AddrsFactory(advertise(cfg.Advertise)))
	}
	if cfg.Transports != nil {
		opts = append(opts, cfg.Transports...)
		opts = append(opts, libp2p.DisableRelay())
	} else {
		if err := checkPorts(listen); err != nil {
			return nil, errors.Join(err, limits.Close())
		}
		opts = append(opts, libp2p.Transport(tcp.NewTCPTransport), libp2p.Transport(quic.NewTransport))
		opts = append(opts, traversal(&cfg)...)
	}
	h, err := libp2p.New(opts...)
	if err != nil {
		return nil, listenError(listen, err)
	}
	if err := listensOn(h, listen); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return h, nil
}

// newMuxer is libp2p's yamux with windows for long paths. The windows are those of
// the receiving side.
func newMuxer() *yamux.Transport {
	m := *yamux.DefaultTransport
	m.InitialStreamWindowSize = streamWindow
	m.MaxStreamWindowSize = maxStreamWindow
	m.ConnectionWriteTimeout = writeTimeout
	return &m
}

func advertise(list []string) func([]ma.Multiaddr) []ma.Multiaddr {
	fixed := make([]ma.Multiaddr, len(list))
	for i, s := range list {
		fixed[i] = ma.StringCast(s) // checked with the rest of the Config
	}
	return func(found []ma.Multiaddr) []ma.Multiaddr {
		out := append([]ma.Multiaddr(nil), fixed...)
		for _, a := range found {
			if isRelayed(a) {
				out = append(out, a)
			}
		}
		return out
	}
}

// usable leaves out IPv6 on a host that has none.
func usable(addrs []string) []string {
	if l, err := net.Listen("tcp6", "[::1]:0"); err == nil {
		l.Close()
		return addrs
	}
	var out []string
	for _, a := range addrs {
		if !strings.HasPrefix(a, "/ip6/") {
			out = append(out, a)
		}
	}
	return out
}

// checkPorts opens and closes each TCP port. libp2p listens with SO_REUSEPORT, for
// hole punching, so that a second daemon on the same port would be let in and each
// would get some of the other's connections.
func checkPorts(listen []string) error {
	for _, s := range listen {
		network, address, err := manet.DialArgs(ma.StringCast(s))
		if err != nil || !strings.HasPrefix(network, "tcp") {
			continue // a transport of its own: libp2p says what is wrong with it
		}
		l, err := net.Listen(network, address)
		if err != nil {
			return listenError([]string{s}, err)
		}
		l.Close()
	}
	return nil
}

// listensOn finds the address, if any, that libp2p could not have: it is content
// with one of them.
func listensOn(h host.Host, listen []string) error {
	got := h.Network().ListenAddresses()
	for _, s := range listen {
		want := ma.StringCast(s)
		if strings.Contains(s+"/", "/tcp/0/") || strings.Contains(s+"/", "/udp/0/") {
			continue // any free port: there is one
		}
		if !slices.ContainsFunc(got, want.Equal) {
			return listenError([]string{s}, syscall.EADDRINUSE)
		}
	}
	return nil
}

func listenError(addrs []string, err error) error {
	where := strings.Join(addrs, ", ")
	if errors.Is(err, syscall.EADDRINUSE) || strings.Contains(err.Error(), "address already in use") {
		return fmt.Errorf("listen on %s: port in use: does another dcnode run here? Stop it, or choose another port with --listen: %w", where, syscall.EADDRINUSE)
	}
	return fmt.Errorf("listen on %s: %w", where, err)
}
