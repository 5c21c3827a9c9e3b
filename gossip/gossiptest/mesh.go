// Package gossiptest builds whole overlays over a simulated wide-area network, for
// tests of what runs on them: the real libp2p host with QUIC, the real topic, real
// streams, and packets that take as long as the test says.
//
// Everything lives in a bubble of testing/synctest, in which time passes only while
// everybody waits. What a test measures is therefore the network's delays and nothing
// of the machine's speed:
//
//	synctest.Test(t, func(t *testing.T) {
//		mesh := gossiptest.New(t, 4, gossiptest.Same(5*time.Millisecond), gossiptest.Options{})
//		mesh.Overlay(0).Publish(t.Context(), []byte("hello"))
//		hello := <-mesh.Overlay(3).Messages() // 5 ms later
//	})
package gossiptest

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/x/simlibp2p"
	"github.com/marcopolo/simnet"

	"github.com/dcnode/dcnode/gossip"
)

// Options of a mesh. The zero value is a good one.
type Options struct {
	// Mbit is what each member's link carries, in Mbit/s, in each direction. 0: 10 000,
	// with which a full mesh of 31 adds some 0.02 ms to the delays.
	Mbit int
	// Later are the members that New does not start: [Mesh.Start] does.
	Later []int
	// Configure changes the Config of a member, each time that it is started. Key,
	// Listen, Bootstrap, Members and Transports are filled in already.
	Configure func(i int, cfg *gossip.Config)
	// Prepare is called with each overlay before it runs, to register handlers.
	Prepare func(i int, o *gossip.Overlay)
}

// Mesh is a number of members, 0 to n-1, and the network between them. Its methods
// may be called from several goroutines of the bubble.
type Mesh struct {
	t     testing.TB
	opts  Options
	delay func(from, to int) time.Duration
	net   *simnet.Simnet
	keys  []ed25519.PrivateKey
	ids   []peer.ID
	index map[string]int // IP address → member

	mu      sync.Mutex
	roster  []peer.ID
	cut     map[[2]int]bool // ordered pairs whose packets are lost
	running []*member       // nil: stopped
}

type member struct {
	overlay *gossip.Overlay
	stop    func()
}

// never is how long a lost packet takes: longer than any test.
const never = 10000 * time.Hour

// Same is a network in which any two members are equally far, d one way.
func Same(d time.Duration) func(from, to int) time.Duration {
	return func(int, int) time.Duration { return d }
}

// New starts n members that know each other, and waits until what each publishes goes
// straight to each. delay is the time of a packet one way; it is asked for every packet,
// from several goroutines, and may answer differently each time (jitter). All members
// are stopped when the test ends. It must be called inside a bubble, with its t.
func New(t testing.TB, n int, delay func(from, to int) time.Duration, opts Options) *Mesh {
	t.Helper()
	m := &Mesh{
		t: t, opts: opts, delay: delay,
		index: make(map[string]int), cut: make(map[[2]int]bool), running: make([]*member, n),
	}
	for i := range n {
		seed := make([]byte, ed25519.SeedSize)
		binary.BigEndian.PutUint64(seed, uint64(i)+1)
		key := ed25519.NewKeyFromSeed(seed)
		id, err := peer.IDFromPrivateKey(libp2pKey(t, key))
		if err != nil {
			t.Fatal(err)
		}
		m.keys, m.ids = append(m.keys, key), append(m.ids, id)
		m.index[ip(i)] = i
	}
	m.roster = slices.Clone(m.ids)
	m.net = &simnet.Simnet{LatencyFunc: m.latency, Logger: slog.New(slog.DiscardHandler)}
	m.net.Start()
	t.Cleanup(m.net.Close)
	for i := range n {
		if !slices.Contains(opts.Later, i) {
			m.Start(i)
		}
	}
	m.Settle()
	return m
}

func libp2pKey(t testing.TB, key ed25519.PrivateKey) crypto.PrivKey {
	k, err := crypto.UnmarshalEd25519PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func ip(i int) string { return simnet.IntToPublicIPv4(i).String() }

// latency of a packet.
func (m *Mesh) latency(p *simnet.Packet) time.Duration {
	from, to := m.index[p.From.(*net.UDPAddr).IP.String()], m.index[p.To.(*net.UDPAddr).IP.String()]
	m.mu.Lock()
	lost := m.cut[[2]int{from, to}]
	m.mu.Unlock()
	if lost {
		return never
	}
	return m.delay(from, to)
}

// Key is the private key of member i, from which its peer ID comes.
func (m *Mesh) Key(i int) ed25519.PrivateKey { return m.keys[i] }

// ID is the peer ID of member i.
func (m *Mesh) ID(i int) peer.ID { return m.ids[i] }

// Index is the number of the member with this peer ID, -1 if there is none.
func (m *Mesh) Index(id peer.ID) int { return slices.Index(m.ids, id) }

// Overlay is member i's end of the network, nil while it is stopped.
func (m *Mesh) Overlay(i int) *gossip.Overlay {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.running[i] == nil {
		return nil
	}
	return m.running[i].overlay
}

// Members is the roster.
func (m *Mesh) Members() []peer.ID {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.roster)
}

// SetMembers changes the roster, at all members at once. At first it is everybody.
func (m *Mesh) SetMembers(members ...int) {
	m.mu.Lock()
	m.roster = nil
	for _, i := range members {
		m.roster = append(m.roster, m.ids[i])
	}
	running := slices.Clone(m.running)
	m.mu.Unlock()
	for _, r := range running {
		if r != nil {
			r.overlay.Refresh()
		}
	}
}

// Cut loses the packets between a and b, both ways, until [Mesh.Heal].
func (m *Mesh) Cut(a, b int) { m.setCut(a, b, true) }

// Heal lets the packets between a and b pass again.
func (m *Mesh) Heal(a, b int) { m.setCut(a, b, false) }

func (m *Mesh) setCut(a, b int, lost bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cut[[2]int{a, b}], m.cut[[2]int{b, a}] = lost, lost
}

// CutOneWay loses the packets from one member to the other and lets the answers pass,
// until [Mesh.Heal].
func (m *Mesh) CutOneWay(from, to int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cut[[2]int{from, to}] = true
}

// Partition lets packets pass within each group and loses those between the groups.
// Whoever is in no group hears nobody. Without groups everything is healed.
func (m *Mesh) Partition(groups ...[]int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.cut)
	for a := range m.ids {
		for b := range m.ids {
			together := func(g []int) bool { return slices.Contains(g, a) && slices.Contains(g, b) }
			if a != b && len(groups) > 0 && !slices.ContainsFunc(groups, together) {
				m.cut[[2]int{a, b}] = true
			}
		}
	}
}

// Start starts member i, which is stopped. It has the key that it had before.
func (m *Mesh) Start(i int) *gossip.Overlay {
	m.t.Helper()
	if m.Overlay(i) != nil {
		m.t.Fatalf("member %d is started already", i)
	}
	cfg := m.config(i)
	if m.opts.Configure != nil {
		m.opts.Configure(i, &cfg)
	}
	o, err := gossip.New(cfg)
	if err != nil {
		m.t.Fatalf("start member %d: %v", i, err)
	}
	if m.opts.Prepare != nil {
		m.opts.Prepare(i, o)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- o.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			m.t.Errorf("member %d: Run: %v", i, err)
		}
		if err := o.Close(); err != nil {
			m.t.Errorf("member %d: Close: %v", i, err)
		}
	})
	m.t.Cleanup(stop)
	m.mu.Lock()
	m.running[i] = &member{overlay: o, stop: stop}
	m.mu.Unlock()
	return o
}

// Stop ends member i. The others are told by its connections' end.
func (m *Mesh) Stop(i int) {
	m.mu.Lock()
	r := m.running[i]
	m.running[i] = nil
	m.mu.Unlock()
	if r != nil {
		r.stop()
	}
}

// config of member i, which knows where the members before it listen.
func (m *Mesh) config(i int) gossip.Config {
	mbit := m.opts.Mbit
	if mbit == 0 {
		mbit = 10000
	}
	settings := simnet.LinkSettings{BitsPerSecond: mbit * simlibp2p.OneMbps}
	cfg := gossip.Config{
		Key:     libp2pKey(m.t, m.keys[i]),
		Network: "test",
		Listen:  []string{listen(i)},
		Members: m.Members,
		Transports: []libp2p.Option{
			libp2p.Transport(quic.NewTransport),
			simlibp2p.QUICSimnet(m.net, simnet.NodeBiDiLinkSettings{Downlink: settings, Uplink: settings}),
			libp2p.DisableIdentifyAddressDiscovery(),
		},
	}
	for j := range m.ids {
		if j != i {
			cfg.Bootstrap = append(cfg.Bootstrap, listen(j)+"/p2p/"+m.ids[j].String())
		}
	}
	return cfg
}

func listen(i int) string { return fmt.Sprintf("/ip4/%s/udp/8000/quic-v1", ip(i)) }

// Settle waits until what any running member publishes goes straight to each other
// that runs, is in the roster and is not cut off from it. It fails the test if that
// takes more than ten minutes of the bubble's time.
func (m *Mesh) Settle() {
	m.t.Helper()
	const pause, limit = 10 * time.Millisecond, 10 * time.Minute
	for begin := time.Now(); ; time.Sleep(pause) {
		missing := m.missing()
		if missing == "" {
			return
		}
		if time.Since(begin) > limit {
			m.t.Fatalf("after %v %s", limit, missing)
		}
	}
}

// missing names a pair of which one does not hear the other, empty if there is none.
func (m *Mesh) missing() string {
	for i := range m.ids {
		o := m.Overlay(i)
		if o == nil || !slices.Contains(m.Members(), m.ids[i]) {
			continue
		}
		for _, p := range o.Peers() {
			j := m.Index(p.ID)
			m.mu.Lock()
			want := m.running[j] != nil && !m.cut[[2]int{i, j}] && !m.cut[[2]int{j, i}]
			m.mu.Unlock()
			if want && !p.Hears {
				return fmt.Sprintf("member %d does not hear member %d, who says of it: %+v", j, i, p)
			}
		}
	}
	return ""
}
