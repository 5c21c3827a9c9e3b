// Package node is one member of the overlay: it builds the others — hashgraph,
// overlay, blockstore, machines — owns the goroutine that drives the order, and
// turns what the order says into action.
//
// Three kinds of goroutines do the work. The ordering loop (package order) owns the
// hashgraph and the ledger (replica) and never blocks. Sessions (source.go,
// destination.go) each carry one migration and may block as long as their
// deadlines say. The rest serve: requests of other members, and of people
// through package api.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/dcnode/dcnode/blockstore"
	"github.com/dcnode/dcnode/consensus"
	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/gossip"
	"github.com/dcnode/dcnode/node/order"
	"github.com/dcnode/dcnode/vmm"
)

// Config is what a member is made of. Only Dir is needed.
type Config struct {
	Dir       string       // data directory, made by Init
	Genesis   string       // genesis file; needed at the first start only
	Listen    []string     // multiaddrs; default: TCP and QUIC on port 4001
	Advertise []string     // addresses to announce instead of those found
	Bootstrap []string     // multiaddrs of members, with /p2p/ID
	Drivers   []vmm.Driver // the first that is available is the default
	MaxMemory int64        // bytes that machines may use here; 0: what the host has free
	Bandwidth int64        // bytes per second that a migration may use; 0: no cap
	BootID    string       // for tests: names the boot of the host; empty: the kernel says
	Strict    bool         // every own event is on the disk before anyone sees it: slower
	Log       *slog.Logger
}

// Node is one member.
type Node struct {
	cfg     Config
	genesis Genesis
	network consensus.Hash // names the overlay: computed once, for every event is compared with it
	self    ledger.MemberID
	log     *slog.Logger
	lock    *os.File
	order   *replica
	overlay *gossip.Overlay
	store   *blockstore.Store

	reconciled chan struct{} // closed when what an earlier run left is taken up again
	probed     chan struct{} // closed when the drivers have been tried

	tasks   crew            // sessions and other short-lived work
	taskCtx context.Context // of Run: ends with the node

	mu       sync.Mutex // guards what follows
	can      []vmm.Capabilities
	machines map[string]*machine
	claims   map[string]*claim    // by machine
	outs     map[string]*outgoing // by machine: migrations away
	ins      map[string]*incoming // by machine: migrations here
}

// New opens the data directory and the port and reads the history. It starts
// nothing: see Run.
func New(cfg Config) (_ *Node, err error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	n := &Node{cfg: cfg, log: cfg.Log, reconciled: make(chan struct{}), probed: make(chan struct{}), machines: map[string]*machine{}, claims: map[string]*claim{}, outs: map[string]*outgoing{}, ins: map[string]*incoming{}}
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	key, err := readIdentity(cfg.Dir)
	if err != nil {
		return nil, err
	}
	if n.cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil {
		return nil, fmt.Errorf("name data directory: %w", err)
	}
	if n.lock, err = lockDir(cfg.Dir); err != nil {
		return nil, err
	}
	if n.genesis, err = findGenesis(cfg.Dir, cfg.Genesis); err != nil {
		return nil, err
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("name identity: %w", err)
	}
	n.network = n.genesis.network()
	if n.self = n.genesis.member(id); n.self == 0 {
		return nil, fmt.Errorf("this node (%s) is not in the roster of overlay %s: have its member.json put into the genesis", id, n.genesis.networkName())
	}
	if err := keepGenesis(cfg.Dir, n.genesis); err != nil {
		return nil, err
	}
	return n, n.open(key)
}

func (n *Node) open(key crypto.PrivKey) error {
	raw, err := key.Raw()
	if err != nil {
		return fmt.Errorf("read identity: %w", err)
	}
	n.order, err = openReplica(n.cfg, n.genesis, raw, n.self)
	if err != nil {
		return err
	}
	if n.store, err = blockstore.Open(filepath.Join(n.cfg.Dir, "store"), blockstore.Config{Log: n.log}); err != nil {
		return err
	}
	n.overlay, err = gossip.New(gossip.Config{
		Key: key, Network: n.genesis.networkName(),
		Listen: n.cfg.Listen, Advertise: n.cfg.Advertise, Bootstrap: n.cfg.Bootstrap,
		Members:  n.genesis.peers,
		Allow:    func(id peer.ID) bool { return n.genesis.member(id) != 0 },
		Validate: n.plausible,
		Verify:   func(raw []byte) bool { return n.order.loop.Verify(raw) },
		AddrBook: filepath.Join(n.cfg.Dir, "addresses.json"),
		Log:      n.log,
	})
	return err
}

// plausible is the cheap look at a gossiped event before it is passed on.
func (n *Node) plausible(_ peer.ID, raw []byte) bool {
	e, err := consensus.Unmarshal(raw)
	return err == nil && e.Network == n.network && n.genesis.peer(ledger.MemberID(e.Creator)) != ""
}

// ErrReopen is what Run returns when the node has taken over a checkpoint of the
// others, because it was too far behind to follow: make it anew from the same Config.
// Its machines stay as they are, and are brought together with the ledger again.
var ErrReopen = order.ErrRejoined

// Run is the member's life. It returns nil when ctx ends, and [ErrReopen]. Machines of
// a driver that can (QEMU) run on without it.
func (n *Node) Run(ctx context.Context) error {
	defer n.close()
	g, ctx := errgroup.WithContext(ctx)
	n.taskCtx = ctx
	if err := n.store.Join(ctx, n.overlay.Host(), n.overlay.BitswapPrefix(), func(id peer.ID) bool { return n.genesis.member(id) != 0 }); err != nil {
		return err
	}
	n.order.effect = n.react
	left, lost := n.takeUp() // before the order speaks: none of its words about them may be lost
	n.order.loop.Join(events{n.overlay})
	n.serveProbe()
	n.overlay.Handle(protoMigrate, n.serveMigrate)
	g.Go(func() error { return n.overlay.Run(ctx) })
	g.Go(func() error { return n.order.loop.Run(ctx) })
	g.Go(func() error { n.reconcile(ctx, left, lost); return nil })
	g.Go(func() error { n.probe(ctx); return nil })
	err := g.Wait()
	n.tasks.wait()
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		return nil
	}
	return err
}

// probe finds out what the drivers can do before anyone asks: it may take seconds.
func (n *Node) probe(ctx context.Context) {
	defer close(n.probed)
	for _, d := range n.cfg.Drivers {
		c := d.Probe(ctx)
		n.log.Info("driver", "name", c.Driver, "version", c.Version, "accelerator", c.Accelerator, "available", c.Available, "why", c.Why, "cannot_migrate", c.WhyNot)
		n.mu.Lock()
		n.can = append(n.can, c)
		n.mu.Unlock()
	}
}

func (n *Node) close() {
	if n.overlay != nil {
		_ = n.overlay.Close()
	}
	if n.store != nil {
		_ = n.store.Close()
	}
	if n.order != nil {
		_ = n.order.loop.Close()
	}
	if n.lock != nil {
		_ = n.lock.Close()
	}
}

// lockDir makes sure that one process uses the directory: two with one key would
// contradict each other before the whole overlay.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s is in use by another dcnode: stop it, or use another --data", dir)
	}
	return f, nil
}

// reasonable bounds a request of a person or of another member.
const reasonable = 30 * time.Second
