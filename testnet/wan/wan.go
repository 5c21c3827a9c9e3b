// Package wan emulates a wide-area network between sites on one machine.
//
// Each site is a network namespace with one TUN device, through which it reaches
// the others by IPv4. A single loop reads each packet where it leaves a site,
// keeps it for as long as a real path would, and writes it where it arrives:
//
//	site A ── egress: rate, bounded queue ── delay, loss ── ingress: rate, bounded queue ── site B
//
// What a path does to a packet is computed by the pure scheduler in path.go; the
// loop in loop.go only moves bytes at the times that it says. TCP segments
// travel in the large units that the kernel makes of them (at most 64 KiB, about
// a millisecond's worth), as long as no link loses packets, and are accounted
// for as the packets they would be on a wire.
//
// The namespaces have no name: they live as long as the Network or a process in
// them does, so nothing is left behind even by a process that is killed. Those
// which it had started are found by a mark in their environment and ended when
// the next Network is made.
package wan

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Site is a place with an address of its own.
type Site struct {
	Name string
	Rate int64 // bits per second of its access, each way; 0: Config.Rate
}

// Link is what lies between two sites, the same both ways.
type Link struct {
	OneWay time.Duration // delay in one direction
	Loss   float64       // probability that a packet is lost, 0 to 1
	Cut    bool          // nothing gets through, not even what is under way
}

// Config describes a network.
type Config struct {
	Sites []Site
	Link  Link          // between any two sites; Network.SetLink changes one
	Rate  int64         // bits per second of each site's access, each way; 0: unlimited
	MTU   int           // bytes of an IP packet; 0: 1500
	Queue time.Duration // how long a packet waits for a busy access before it is dropped; 0: 100 ms
	// Subnet has the sites' addresses, .1 for the first; zero: 10.77.0.0/16. It
	// is used inside the namespaces only, so networks may use the same.
	Subnet netip.Prefix
	Seed   uint64 // of the losses; equal seeds lose equally
	Log    *slog.Logger
}

// Network is a running emulation. Its methods may be called from any goroutine.
type Network struct {
	config Config
	sites  []*site
	number map[string]int
	mark   string // names this Network in its processes' environment

	lock sync.Mutex // guards the scheduler and the bell
	path *path
	wake int // eventfd that interrupts the loop; -1: closed

	closing   sync.Once
	running   sync.WaitGroup
	closed    chan struct{}
	closeDone error
}

// New makes the sites. Packets flow once Run runs. Close it in any case.
func New(c Config) (*Network, error) {
	c, err := c.check()
	if err != nil {
		return nil, err
	}
	if err := Available(); err != nil {
		return nil, err
	}
	if ended := endOrphans(); ended > 0 {
		c.Log.Info("ended processes of networks that are gone", "processes", ended)
	}
	n := &Network{config: c, number: map[string]int{}, path: newPath(c), closed: make(chan struct{}), wake: -1}
	n.mark = newMark()
	if n.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, fmt.Errorf("make an event: %w", err)
	}
	address := c.Subnet.Masked().Addr()
	for i, s := range c.Sites {
		address = address.Next()
		made, err := newSite(s.Name, netip.PrefixFrom(address, c.Subnet.Bits()), c.MTU, window(c, s))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("make site %s: %w", s.Name, err), n.Close())
		}
		n.sites = append(n.sites, made)
		n.number[s.Name] = i
	}
	if err := n.offload(); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// window is what a TCP connection of a site needs to fill its path: four times
// the bytes in flight, so that a queue and a lost packet do not stop it.
func window(c Config, s Site) int64 {
	trip := 2*c.Link.OneWay + c.Queue
	return 4 * int64(float64(s.Rate)/8*trip.Seconds())
}

// check fills in what was left out.
func (c Config) check() (Config, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.MTU == 0 {
		c.MTU = 1500
	}
	if c.Queue == 0 {
		c.Queue = 100 * time.Millisecond
	}
	if !c.Subnet.IsValid() {
		c.Subnet = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 77}), 16)
	}
	switch {
	case len(c.Sites) == 0:
		return c, errors.New("a network without sites")
	case c.MTU < 576 || c.MTU > 65000:
		return c, fmt.Errorf("MTU of %d bytes: use 576 to 65000", c.MTU)
	case !c.Subnet.Addr().Is4() || c.Subnet.Bits() > 30 || len(c.Sites) > 1<<(32-c.Subnet.Bits())-2:
		return c, fmt.Errorf("subnet %v is no IPv4 network with room for %d sites", c.Subnet, len(c.Sites))
	case c.Rate < 0 || c.Queue < 0:
		return c, errors.New("a negative rate or queue")
	}
	if err := c.Link.check(); err != nil {
		return c, err
	}
	sites := make([]Site, len(c.Sites))
	seen := map[string]bool{}
	for i, s := range c.Sites {
		if s.Name == "" || seen[s.Name] || s.Rate < 0 {
			return c, fmt.Errorf("site %d, %q, needs a name of its own and a rate that is not negative", i, s.Name)
		}
		if s.Rate == 0 {
			s.Rate = c.Rate
		}
		seen[s.Name], sites[i] = true, s
	}
	c.Sites = sites
	return c, nil
}

func (l Link) check() error {
	if l.OneWay < 0 || l.Loss < 0 || l.Loss > 1 {
		return fmt.Errorf("link with a delay of %v and a loss of %v: use 0 or more, and 0 to 1", l.OneWay, l.Loss)
	}
	return nil
}

// Addr is a site's address; it is invalid for a site that does not exist.
func (n *Network) Addr(site string) netip.Addr {
	i, ok := n.number[site]
	if !ok {
		return netip.Addr{}
	}
	return n.sites[i].address.Addr()
}

// SetLink changes the link between two sites, both ways. It holds for packets
// that leave from now on.
func (n *Network) SetLink(a, b string, l Link) error {
	return n.change(a, b, func(old *Link) error {
		*old = l
		return l.check()
	})
}

// Cut cuts the link between two sites; what is under way is lost.
func (n *Network) Cut(a, b string) error {
	return n.change(a, b, func(l *Link) error { l.Cut = true; return nil })
}

// Heal undoes Cut.
func (n *Network) Heal(a, b string) error {
	return n.change(a, b, func(l *Link) error { l.Cut = false; return nil })
}

func (n *Network) change(a, b string, edit func(*Link) error) error {
	i, err := n.index(a)
	if err != nil {
		return err
	}
	j, err := n.index(b)
	if err != nil {
		return err
	}
	n.lock.Lock()
	l := n.path.links[i][j]
	err = edit(&l)
	if err == nil {
		n.path.links[i][j], n.path.links[j][i] = l, l
	}
	n.lock.Unlock()
	return errors.Join(err, n.offload())
}

// Link is the link between two sites as it is now; a link from or to a site
// that does not exist is cut.
func (n *Network) Link(a, b string) Link {
	i, err := n.index(a)
	j, err2 := n.index(b)
	if err != nil || err2 != nil {
		return Link{Cut: true}
	}
	n.lock.Lock()
	defer n.lock.Unlock()
	return n.path.links[i][j]
}

func (n *Network) index(site string) (int, error) {
	if i, ok := n.number[site]; ok {
		return i, nil
	}
	return 0, fmt.Errorf("no site %q", site)
}

// Counters are what went from one site to another. Bytes are those of IP packets.
type Counters struct {
	Bytes, Packets int64 // delivered
	Dropped        int64 // packets for which a queue had no room
	Lost           int64 // packets lost by chance or to a cut
}

// Counters tells what went from one site to another so far.
func (n *Network) Counters(from, to string) Counters {
	i, err := n.index(from)
	j, err2 := n.index(to)
	if err != nil || err2 != nil {
		return Counters{}
	}
	n.lock.Lock()
	defer n.lock.Unlock()
	return n.path.counters[i][j]
}

// Total sums the counters of all pairs of sites.
func (n *Network) Total() Counters {
	n.lock.Lock()
	defer n.lock.Unlock()
	var sum Counters
	for _, row := range n.path.counters {
		for _, c := range row {
			sum.Bytes += c.Bytes
			sum.Packets += c.Packets
			sum.Dropped += c.Dropped
			sum.Lost += c.Lost
		}
	}
	return sum
}

// Run carries packets until ctx ends or the Network is closed, which are no
// errors. Run it once.
func (n *Network) Run(ctx context.Context) error {
	n.lock.Lock()
	select {
	case <-n.closed:
		n.lock.Unlock()
		return nil
	default:
	}
	n.running.Add(1)
	n.lock.Unlock()
	defer n.running.Done()
	stop := context.AfterFunc(ctx, n.ring)
	defer stop()
	return n.loop(ctx)
}

// ring interrupts the loop, for good.
func (n *Network) ring() {
	n.lock.Lock()
	defer n.lock.Unlock()
	one := [8]byte{1}
	if n.wake >= 0 {
		_, _ = unix.Write(n.wake, one[:])
	}
}

// Close ends Run, kills the processes that are still at the sites, and removes
// the sites.
func (n *Network) Close() error {
	n.closing.Do(func() {
		n.lock.Lock()
		close(n.closed)
		n.lock.Unlock()
		n.ring()
		n.running.Wait()
		n.closeDone = n.endProcesses()
		for _, s := range n.sites {
			s.close()
		}
		n.lock.Lock()
		unix.Close(n.wake)
		n.wake = -1
		n.lock.Unlock()
	})
	return n.closeDone
}
