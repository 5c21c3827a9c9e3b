package testnet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"time"

	"github.com/dcnode/dcnode/node/api"
)

// ConsensusOptions say how the time to order is measured: between real dcnode
// processes, at one distance.
type ConsensusOptions struct {
	Members  int           // 0: 4
	Delay    time.Duration // one way between any two members
	Count    int           // submissions under light load; 0: 1000
	Spacing  time.Duration // mean time between two of them; 0: see lightLoad
	Isolated int           // submissions from idle
	Crash    bool          // also kill one member, and measure before and after it is missed
	Idle     time.Duration // also watch the overlay do nothing for so long
	Seed     uint64        // of nodes and spacings
	Loopback bool          // no emulated link
	Program  string        // path of dcnode; empty: this program
	Keep     bool          // leave logs and data
	Out      io.Writer     // what goes on, for people
}

const (
	linkRate = 1_000_000_000 // bits per second and direction of each member
	warmUps  = 50            // submissions before anything counts: until everyone has measured everyone
)

// lightLoad is a time between submissions at which few of them overlap.
func lightLoad(delay time.Duration) time.Duration { return 15*time.Millisecond + 6*delay }

// Scenario is one measurement.
type Scenario struct {
	Name        string  `json:"scenario"`
	Members     int     `json:"members"`
	Link        string  `json:"link"`
	Delay       float64 `json:"one_way_ms"`
	Submissions int     `json:"submissions"`
	Everywhere  Times   `json:"everywhere_ms"`         // from submitted to ordered at the last member
	Here        Times   `json:"here_ms"`               // from submitted to ordered where it was submitted
	Seconds     float64 `json:"seconds"`               // that it lasted
	Events      float64 `json:"events_per_second"`     // ordered
	Bytes       float64 `json:"bytes_per_second"`      // on all links together, of IP packets; -1: not known
	PerLink     float64 `json:"bytes_per_second_link"` // both directions of one pair
	CPU         float64 `json:"cpu_per_node"`          // share of one core
	Emulator    float64 `json:"cpu_emulator"`          // of the process that emulates the link and measures
	Others      float64 `json:"cpu_others"`            // of everything else on this machine: disturbs the measurement
}

// bench is one overlay under measurement.
type bench struct {
	o     ConsensusOptions
	tell  func(string, ...any)
	dir   string
	sites *Sites
	watch *orderWatch
	rnd   *rand.Rand
}

// Consensus measures. It tells each scenario as soon as it is done.
func Consensus(ctx context.Context, o ConsensusOptions, done func(Scenario)) (err error) {
	if o.Program == "" {
		if o.Program, err = os.Executable(); err != nil {
			return fmt.Errorf("find this program: %w", err)
		}
	}
	if o.Members == 0 {
		o.Members = 4
	}
	if o.Count == 0 {
		o.Count = 1000
	}
	if o.Spacing == 0 {
		o.Spacing = lightLoad(o.Delay)
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	b := &bench{o: o, tell: printer(o.Out), rnd: rand.New(rand.NewPCG(o.Seed, 3))}
	defer func() { err = errors.Join(err, b.close(err)) }()
	if err := b.open(ctx); err != nil {
		return err
	}
	return b.run(ctx, done)
}

// open brings the overlay up and watches the order of every member.
func (b *bench) open(ctx context.Context) (err error) {
	o := Options{Members: b.o.Members, Delay: b.o.Delay, Rate: linkRate, Loopback: b.o.Loopback, Program: b.o.Program}
	if b.dir, b.sites, b.watch, err = upWatched(ctx, o, "dcnode-consensus-", b.tell); err != nil {
		return err
	}
	_, err = b.submit(ctx, b.sites.List, warmUps, lightLoad(b.o.Delay))
	return err
}

// upWatched brings sites up in a directory of their own and watches the order of each.
// With an error, what it gives besides is to be closed all the same; nil is not.
func upWatched(ctx context.Context, o Options, dirPrefix string, tell func(string, ...any)) (dir string, sites *Sites, watch *orderWatch, err error) {
	net, err := newNetwork(ctx, o)
	if err != nil {
		return "", nil, nil, err
	}
	if dir, err = os.MkdirTemp("", dirPrefix); err != nil {
		return "", nil, nil, errors.Join(fmt.Errorf("make a directory: %w", err), net.close())
	}
	if sites, err = newSites(dir, o, net, ""); err != nil {
		return dir, nil, nil, errors.Join(err, net.close())
	}
	tell("%d members; %s", o.Members, net.describe())
	if err := sites.up(ctx); err != nil {
		return dir, sites, nil, err
	}
	return dir, sites, watchOrder(ctx, sites.List), nil
}

func (b *bench) run(ctx context.Context, done func(Scenario)) error {
	all := b.sites.List
	steps := []struct {
		name    string
		count   int
		spacing time.Duration
	}{
		{"light load", b.o.Count, b.o.Spacing},
		{"isolated, from idle", b.o.Isolated, 100*time.Millisecond + 20*b.o.Delay},
	}
	for _, s := range steps {
		if s.count == 0 {
			continue
		}
		m, err := b.measure(ctx, s.name, all, s.count, s.spacing)
		if err != nil {
			return err
		}
		done(m)
	}
	if b.o.Idle > 0 {
		m, err := b.idle(ctx)
		if err != nil {
			return err
		}
		done(m)
	}
	if b.o.Crash {
		return b.crash(ctx, done)
	}
	return nil
}

// crash kills the last member: at first the others wait for it, then no more.
func (b *bench) crash(ctx context.Context, done func(Scenario)) error {
	last := len(b.sites.List) - 1
	gone, rest := b.sites.List[last], b.sites.List[:last]
	b.watch.leave(gone)
	gone.Kill()
	<-gone.done
	for _, s := range []struct {
		name  string
		count int
	}{{"one member killed: the first 20", 20}, {"one member killed: after", max(b.o.Count/4, 20)}} {
		m, err := b.measure(ctx, s.name, rest, s.count, b.o.Spacing)
		if err != nil {
			return err
		}
		done(m)
	}
	return nil
}

// measure submits at random sites and sums up.
func (b *bench) measure(ctx context.Context, name string, at []*Site, count int, spacing time.Duration) (Scenario, error) {
	m := b.begin(name)
	pings, err := b.submit(ctx, at, count, spacing)
	if err != nil {
		return m.Scenario, fmt.Errorf("%s: %w", name, err)
	}
	m.end()
	for _, p := range pings {
		m.here = append(m.here, p.Took())
		m.everywhere = append(m.everywhere, b.watch.last(p.ID, at).Sub(time.Unix(0, p.Submitted)))
	}
	m.Submissions, m.Everywhere, m.Here = count, timesOf(m.everywhere), timesOf(m.here)
	b.pace(ctx, at)
	return m.Scenario, nil
}

// pace tells how the order goes at each member: it explains times that are too long.
func (b *bench) pace(ctx context.Context, at []*Site) {
	for _, s := range at {
		st, err := s.Client.Status(ctx)
		if err != nil {
			b.tell("%s: %v", s.Name, err)
			continue
		}
		var away []string
		for _, m := range st.Members {
			if !m.Live && !m.Self {
				away = append(away, m.Site)
			}
		}
		b.tell("%s: round %d, %d decided late, %d copied; waits %d µs for stragglers, not for %v", s.Name, st.Round, st.Pace.Late, st.Pace.Copied, st.Pace.WaitUS, away)
	}
}

// idle lets the overlay do nothing.
func (b *bench) idle(ctx context.Context) (Scenario, error) {
	select { // what the submissions left behind
	case <-time.After(3 * time.Second):
	case <-ctx.Done():
		return Scenario{}, context.Cause(ctx)
	}
	m := b.begin("idle")
	select {
	case <-time.After(b.o.Idle):
	case <-ctx.Done():
		return m.Scenario, context.Cause(ctx)
	}
	m.end()
	return m.Scenario, nil
}

// submit orders empty transactions one by one, each at a random site, half to one
// and a half spacings after the one before, and waits until all are ordered at
// every one of the sites.
func (b *bench) submit(ctx context.Context, at []*Site, count int, spacing time.Duration) ([]api.Ping, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	answers := make(chan answer, count)
	next := time.Now()
	for range count {
		site := at[b.rnd.IntN(len(at))]
		go func() {
			p, err := site.Client.Ping(ctx)
			answers <- answer{p, err}
		}()
		next = next.Add(time.Duration((0.5 + b.rnd.Float64()) * float64(spacing)))
		select {
		case <-time.After(time.Until(next)):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	var pings []api.Ping
	for range count {
		a := <-answers
		if a.err != nil {
			return nil, fmt.Errorf("submit: %w", a.err)
		}
		pings = append(pings, a.ping)
	}
	ctx, stop := context.WithTimeoutCause(ctx, 30*time.Second, errors.New("what one member ordered is not ordered everywhere after 30 s"))
	defer stop()
	return pings, b.watch.await(ctx, pings, at)
}

type answer struct {
	ping api.Ping
	err  error
}

func (b *bench) close(cause error) error {
	var err error
	if b.watch != nil {
		err = b.watch.close()
	}
	if b.sites != nil {
		err = errors.Join(err, b.sites.down())
	}
	if b.dir == "" {
		return err
	}
	if b.o.Keep || cause != nil {
		b.tell("logs and data are in %s", b.dir)
		return err
	}
	return errors.Join(err, os.RemoveAll(b.dir))
}
