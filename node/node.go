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
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/dcnode/dcnode/blockstore"
	"github.com/dcnode/dcnode/consensus"
	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/gossip"
	"github.com/dcnode/dcnode/node/order"
	"github.com/dcnode/dcnode/node/survey"
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
	// ResumeWithin is how long a migration waits for its link to come back; 0:
	// resume.DefaultWithin. Once the machine is released no longer than the lease.
	ResumeWithin time.Duration
	BootID       string // for tests: names the boot of the host; empty: the kernel says
	Strict       bool   // every own event is on the disk before anyone sees it: slower
	Log          *slog.Logger
}

// Node is one member.
type Node struct {
	cfg     Config
	genesis Genesis
	network consensus.Hash // names the overlay: computed once, for every event is compared with it
	rules   ledger.Rules
	invited *kept // how it came in, or wants to; nil: a founder
	self    ledger.MemberID
	roster  roster
	host    peer.ID // that this node is in the overlay: that of one of its keys
	log     *slog.Logger
	lock    *os.File
	order   *replica
	overlay *gossip.Overlay
	store   *blockstore.Store

	asks   asked // by other members
	survey *survey.Survey

	reconciled chan struct{} // closed when what an earlier run left is taken up again
	probed     chan struct{} // closed when the drivers have been tried

	tasks   crew            // sessions and other short-lived work
	taskCtx context.Context // of Run: ends with the node
	over    chan error      // of size 1: why the node must end
	running context.Context // ends when the node begins to end
	ending  context.CancelFunc
	turning sync.Mutex // held by the one who carries a rotation on

	mu       sync.Mutex // guards what follows
	belongs  bool       // the ledger has this node as a member
	entered  bool       // there was a history to begin with: it does not wait to be let in
	parting  bool       // the ledger has it no more at the start, others may still need to hear it
	keys     identity
	resting  bool // it is about to open itself again: no move begins
	begun    int  // moves and bids that are being made
	can      []vmm.Capabilities
	machines map[string]*machine
	claims   map[string]*claim    // by machine
	looks    map[string]*looked   // by machine: what it was like a moment ago
	outs     map[string]*outgoing // by machine: migrations away
	ins      map[string]*incoming // by machine: migrations here
}

// New opens the data directory and the port and reads the history. It starts
// nothing: see Run.
func New(cfg Config) (_ *Node, err error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	n := &Node{
		cfg: cfg, log: cfg.Log, reconciled: make(chan struct{}), probed: make(chan struct{}), over: make(chan error, 1),
		machines: map[string]*machine{}, claims: map[string]*claim{}, outs: map[string]*outgoing{}, looks: map[string]*looked{}, ins: map[string]*incoming{},
	}
	n.running, n.ending = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	if n.keys, err = readIdentities(cfg.Dir); err != nil {
		return nil, err
	}
	if n.cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil {
		return nil, fmt.Errorf("name data directory: %w", err)
	}
	if n.lock, err = lockDir(cfg.Dir); err != nil {
		return nil, err
	}
	if err := errDiverged(cfg.Dir); err != nil {
		return nil, err
	}
	if n.genesis, err = findGenesis(cfg.Dir, cfg.Genesis); err != nil {
		return nil, err
	}
	if n.invited, err = readKept(cfg.Dir); err != nil {
		return nil, err
	}
	n.network = n.genesis.network()
	if n.self, err = whoAmI(cfg.Dir, n.genesis, n.invited, n.keys.public()); err != nil {
		return nil, err
	}
	if err := keepGenesis(cfg.Dir, n.genesis); err != nil {
		return nil, err
	}
	return n, n.open()
}

func (n *Node) open() error {
	if n.invited != nil {
		n.cfg.Bootstrap = append(slices.Clone(n.cfg.Bootstrap), n.invited.Addrs...)
		if len(n.cfg.Listen) == 0 {
			n.cfg.Listen = n.invited.Listen
		}
	}
	if err := n.openOrder(); err != nil {
		return err
	}
	key, err := n.hostKey()
	if err != nil {
		return err
	}
	if n.store, err = blockstore.Open(filepath.Join(n.cfg.Dir, "store"), blockstore.Config{Log: n.log}); err != nil {
		return err
	}
	n.overlay, err = gossip.New(gossip.Config{
		Key: key, Network: n.genesis.Network(),
		Listen: n.cfg.Listen, Advertise: n.cfg.Advertise, Bootstrap: n.cfg.Bootstrap,
		Members:  n.memberPeers,
		Allow:    n.roster.allow,
		Validate: n.plausible,
		Verify:   func(raw []byte) bool { return n.order.loop.Verify(raw) },
		AddrBook: filepath.Join(n.cfg.Dir, "addresses.json"),
		Log:      n.log,
	})
	if err == nil {
		n.survey = survey.New(n.overlay, survey.Config{Self: n.overlay.ID(), Fresh: pathsFresh, Log: n.log})
	}
	return err
}

// openOrder brings order and ledger to where they were, and knows the members then.
func (n *Node) openOrder() (err error) {
	var trust []consensus.Member
	if n.invited != nil {
		if trust, err = n.invited.trust(); err != nil {
			return err
		}
	}
	if n.order, err = openReplica(n.cfg, n.genesis, n.keys, n.self, trust, n); err != nil {
		return err
	}
	n.order.effect, n.order.changed = n.react, n.rosterChanged
	s := n.order.state
	n.rules = s.Rules()
	if n.invited != nil {
		n.roster.call(n.self, n.invited.Card.Site)
	}
	if n.invited != nil && s.Next() == 0 {
		n.roster.set(n.invited.members(), nil)
		return nil
	}
	n.roster.set(s.Members(), n.order.loop.InForce())
	n.entered = true
	if n.belongs = s.Member(n.self) != nil; n.belongs {
		return keepSelf(n.cfg.Dir, n.self)
	}
	var was selfRecord
	switch err := readJSON(filepath.Join(n.cfg.Dir, selfFile), &was); {
	case errors.Is(err, fs.ErrNotExist): // not yet a member
		return nil
	case err != nil:
		return err
	case was.Left:
		return n.departed()
	}
	n.parting = true // until its last round is over, here and at the others
	return nil
}

// plausible is the cheap look at a gossiped event before it is passed on.
func (n *Node) plausible(_ peer.ID, raw []byte) bool {
	e, err := consensus.Unmarshal(raw)
	return err == nil && e.Network == n.network && n.order.loop.Knows(e.Creator)
}

// ErrReopen is what Run returns when the node has taken over a checkpoint of the
// others, or goes on with another key: make it anew from the same Config. Its machines
// stay as they are, and are brought together with the ledger again.
var ErrReopen = errors.New("the node is to be opened again")

// Run is the member's life. It returns nil when ctx ends, [ErrReopen], and an error
// when the node is no longer a member. Machines of a driver that can (QEMU) run on
// without it.
func (n *Node) Run(ctx context.Context) error {
	defer n.close()
	g, ctx := errgroup.WithContext(ctx)
	n.taskCtx = ctx
	defer context.AfterFunc(ctx, n.ending)()
	if err := n.store.Join(ctx, n.overlay.Host(), n.overlay.BitswapPrefix(), n.roster.allow); err != nil {
		return err
	}
	left, lost := n.takeUp() // before the order speaks: none of its words about them may be lost
	n.order.loop.Join(events{n.overlay, n})
	n.survey.Serve()
	n.serveOffers()
	n.serveAudit()
	n.overlay.Handle(protoMigrate, n.serveMigrate)
	n.overlay.Handle(protoResume, n.serveResume)
	g.Go(func() error { return n.overlay.Run(ctx) })
	g.Go(func() error { return n.explain(ctx, n.order.loop.Run(ctx)) })
	g.Go(func() error { return n.order.scribe.journal.Run(ctx) })
	g.Go(func() error { n.reconcile(ctx, left, lost); return nil })
	g.Go(func() error { n.probe(ctx); return nil })
	g.Go(func() error { n.keepPaths(ctx); return nil })
	g.Go(func() error { return n.belong(ctx) })
	err := g.Wait()
	n.tasks.wait()
	switch {
	case ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)):
		return nil
	case errors.Is(err, order.ErrRejoined):
		if lerr := leaves(n.cfg.Dir, n.order.state.Next()); lerr != nil {
			n.log.Warn("note what the journal will lack", "cause", lerr)
		}
		return fmt.Errorf("%w: %w", ErrReopen, err)
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

// Running is a context that ends when Run begins to end: from then on requests of people
// lead nowhere.
func (n *Node) Running() context.Context { return n.running }

func (n *Node) close() {
	n.ending()
	if n.overlay != nil {
		_ = n.overlay.Close()
	}
	if n.store != nil {
		_ = n.store.Close()
	}
	if n.order != nil {
		_ = n.order.close()
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
