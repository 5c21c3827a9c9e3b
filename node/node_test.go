package node

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/node/api"
	"github.com/dcnode/dcnode/vmm"
	"github.com/dcnode/dcnode/vmm/memvm"
)

// overlay is some nodes on loopback, each with its own data directory.
type overlay struct {
	t     *testing.T
	sites []*site
	gen   string
}

type site struct {
	name   string
	dir    string
	listen string
	driver vmm.Driver // stays across restarts, as QEMU's machines do; nil: a new one each time
	node   *Node
	stop   context.CancelFunc
	ended  chan error
}

// newOverlay makes the nodes alice, bob, carol, … and runs them.
func newOverlay(t *testing.T, count int) *overlay {
	t.Helper()
	return newWatchedOverlay(t, count, patient, nil)
}

// patient are the default rules, with a bidding that is over when all have bid, however
// busy the host is.
var patient = func() ledger.Rules {
	r := ledger.DefaultRules
	r.BidWindow = 12 * ledger.Second
	return r
}()

// newWatchedOverlay is one whose machines a witness watches, if there is one.
func newWatchedOverlay(t *testing.T, count int, rules ledger.Rules, w *witness) *overlay {
	t.Helper()
	o := &overlay{t: t}
	var cards []Card
	for i := range count {
		name := []string{"alice", "bob", "carol", "dave", "erin"}[i]
		dir := filepath.Join(t.TempDir(), name)
		c, err := Init(dir, name, "", 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		cards = append(cards, c)
		o.sites = append(o.sites, &site{name: name, dir: dir, listen: "/ip4/127.0.0.1/tcp/0"})
	}
	g, err := NewGenesis(cards, time.Unix(1_800_000_000, 0))
	if err != nil {
		t.Fatal(err)
	}
	g.Rules = rules
	if w != nil {
		for _, s := range o.sites {
			s.driver = w.driver(s.name)
		}
	}
	o.gen = filepath.Join(t.TempDir(), "genesis.json")
	if err := WriteGenesis(g, o.gen, nil); err != nil {
		t.Fatal(err)
	}
	for _, s := range o.sites {
		o.start(s)
	}
	t.Cleanup(func() {
		for _, s := range o.sites {
			o.end(s)
		}
	})
	return o
}

// start runs a node, bootstrapped through the first that runs.
func (o *overlay) start(s *site) {
	o.t.Helper()
	var boot []string
	for _, other := range o.sites {
		if other != s && other.node != nil {
			boot = append(boot, other.node.overlay.Addrs()...)
		}
	}
	driver := s.driver
	if driver == nil {
		driver = memvm.New(memvm.Config{})
	}
	n, err := New(Config{
		Dir: s.dir, Genesis: o.gen, Listen: []string{s.listen}, Bootstrap: boot,
		Drivers: []vmm.Driver{driver}, Log: o.log(s),
	})
	if err != nil {
		o.t.Fatal(err)
	}
	o.launch(s, n)
}

// launch runs a node until it has tried its drivers.
func (o *overlay) launch(s *site, n *Node) {
	o.t.Helper()
	ctx, stop := context.WithCancel(o.t.Context())
	s.node, s.stop, s.ended = n, stop, make(chan error, 1)
	go func() { s.ended <- n.Run(ctx) }()
	select {
	case <-n.probed: // a test may now give the node other drivers
	case err := <-s.ended:
		o.t.Fatalf("%s ended: %v", s.name, err)
	}
}

// log is where a node's log goes.
func (o *overlay) log(s *site) *slog.Logger {
	if os.Getenv("DCNODE_TEST_LOG") != "" {
		return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("site", s.name)
	}
	return slog.New(slog.DiscardHandler)
}

// end stops a node as a signal would.
func (o *overlay) end(s *site) {
	if s.node == nil {
		return
	}
	s.stop()
	if err := <-s.ended; err != nil {
		o.t.Errorf("%s ended: %v", s.name, err)
	}
	s.node = nil
}

// image makes a small raw disk an image at a site.
func (o *overlay) image(ctx context.Context, s *site, name string) {
	o.t.Helper()
	path := filepath.Join(o.t.TempDir(), "disk.raw")
	disk := make([]byte, 4<<20)
	_, _ = rand.Read(disk[1<<20 : 2<<20])
	if err := os.WriteFile(path, disk, 0o600); err != nil {
		o.t.Fatal(err)
	}
	if _, err := s.node.AddImage(ctx, api.AddImage{Name: name, Path: path}, quiet); err != nil {
		o.t.Fatal(err)
	}
}

func quiet(api.Progress) {}

func (o *overlay) run(ctx context.Context, s *site, name, image string) {
	o.t.Helper()
	_, err := s.node.RunMachine(ctx, api.RunMachine{Name: name, Image: image, Memory: 16 << 20, VCPUs: 1, Driver: "memvm"}, quiet)
	if err != nil {
		o.t.Fatal(err)
	}
}

// settle waits until no machine is moving at any running node, checks that all
// have the same state, and returns it.
func (o *overlay) settle(ctx context.Context) {
	o.t.Helper()
	next := uint64(0)
	for _, s := range o.sites {
		if s.node != nil {
			_ = s.node.order.do(ctx, func() { next = max(next, s.node.order.state.Next()) })
		}
	}
	calm := func(s *ledger.State) bool {
		return s.Next() >= next && !slices.ContainsFunc(s.SortedMachines(), func(m *ledger.Machine) bool { return m.Move != nil })
	}
	owners := map[string]string{}
	for _, s := range o.sites {
		if s.node == nil {
			continue
		}
		if err := s.node.order.until(ctx, calm); err != nil {
			o.t.Fatalf("%s does not come to rest: %v", s.name, err)
		}
		st, err := s.node.order.State(ctx)
		if err != nil {
			o.t.Fatal(err)
		}
		for _, m := range st.SortedMachines() {
			who := fmt.Sprint(m.Handovers)
			if was, ok := owners[m.Name]; ok && was != who {
				o.t.Errorf("%s has machine %s at %s, another at %s", s.name, m.Name, who, was)
			}
			owners[m.Name] = who
		}
	}
}

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// TestMachineMovesToTheSiteThatTheLedgerSelects is the whole path on loopback.
func TestMachineMovesToTheSiteThatTheLedgerSelects(t *testing.T) {
	ctx := deadline(t)
	o := newOverlay(t, 3)
	alice := o.sites[0]
	o.image(ctx, alice, "os")
	o.run(ctx, alice, "web1", "os")
	var mu sync.Mutex
	var phases []string
	rep, err := alice.node.Migrate(ctx, api.Migrate{Name: "web1"}, func(p api.Progress) {
		mu.Lock()
		defer mu.Unlock()
		if len(phases) == 0 || phases[len(phases)-1] != p.Phase {
			phases = append(phases, p.Phase)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", rep)
	t.Log(strings.Join(phases, " "))
	o.settle(ctx)
	var dest *site
	for _, s := range o.sites {
		if s.name == rep.Destination {
			dest = s
		}
		m, err := s.node.machine(ctx, "web1")
		if err != nil {
			t.Fatal(err)
		}
		if m.Site != rep.Destination || m.Epoch != 2 || m.Move != nil || len(m.Handovers) != 2 {
			t.Errorf("%s says %+v", s.name, m)
		}
		if (s.name == rep.Destination) != m.Here {
			t.Errorf("%s has the machine: %v", s.name, m.Here)
		}
	}
	if dest == nil || dest == alice {
		t.Fatalf("moved from alice to %q", rep.Destination)
	}
	m := dest.node.local("web1")
	if err := m.vm.(verifier).Verify(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(alice.dir, "machines", "web1", "machine.json")); err == nil {
		t.Error("the source has kept its copy")
	}
}
