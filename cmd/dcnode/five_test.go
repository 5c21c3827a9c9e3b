package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	libp2p "github.com/libp2p/go-libp2p/core/crypto"
	peers "github.com/libp2p/go-libp2p/core/peer"

	"github.com/dcnode/dcnode/gossip"
	"github.com/dcnode/dcnode/node/api"
)

var five = flag.Bool("five", false, "run five real processes for a minute or two, whose members come and go")

const (
	pingEvery = 100 * time.Millisecond
	pingBound = 15 * time.Second // for one ping, on a host that has other things to do
)

// journey is how a machine moves for as long as the test goes on.
type journey struct {
	machine string
	at      string       // its owner
	route   []string     // where it goes in turn; empty: where the overlay selects
	moves   []api.Report // that were done
	failed  []error
	put     int // off: not begun, as the node was opening itself again
}

// traffic is machines that move and pings that are ordered, all the time.
type traffic struct {
	*procs
	mu       sync.Mutex
	journeys map[string]*journey
	opening  string                   // a site that changes its key, and so opens its node again
	longest  map[string]time.Duration // ping, by site
	pings    map[string]int
	broken   []error
	wg       sync.WaitGroup
}

// travel lets a machine move until ctx ends.
func (f *traffic) travel(ctx context.Context, j *journey) {
	f.journeys[j.machine] = j
	f.wg.Go(func() {
		for ctx.Err() == nil {
			at, to := f.next(j)
			if to == at {
				_ = pauseFor(ctx, 50*time.Millisecond)
				continue
			}
			rep, err := f.site(at).client.Migrate(f.ctx, api.Migrate{Name: j.machine, To: to}, func(api.Progress) {})
			f.mu.Lock()
			switch {
			case err != nil && at == f.opening && notBegun(err):
				j.put++
			case err != nil:
				j.failed = append(j.failed, fmt.Errorf("%s from %s to %q: %w", j.machine, at, to, err))
			default:
				j.at = rep.Destination
				j.moves = append(j.moves, rep)
			}
			f.mu.Unlock()
			if err != nil {
				_ = pauseFor(ctx, 200*time.Millisecond)
			}
		}
	})
}

// notBegun says that a node was given an order just when it opened itself again: it
// says so, and nothing has happened to the machine.
func notBegun(err error) bool {
	return strings.Contains(err.Error(), "this node is stopping") || strings.Contains(err.Error(), "has ended: start it")
}

// opens says which site opens its node again meanwhile; empty: none does.
func (f *traffic) opens(site string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.opening = site
}

// next is where a machine is and where it goes: to the site after this one on its
// route, and nowhere if this is the only one.
func (f *traffic) next(j *journey) (at, to string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(j.route) == 0 {
		return j.at, ""
	}
	return j.at, j.route[(slices.Index(j.route, j.at)+1)%len(j.route)]
}

// send changes the route of a machine and waits until it is at one of its sites. What
// began before has then ended.
func (f *traffic) send(machine string, route ...string) {
	f.t.Helper()
	f.mu.Lock()
	j := f.journeys[machine]
	j.route = route
	done := len(j.moves)
	f.mu.Unlock()
	f.until(fmt.Sprintf("%s goes to %v", machine, route), func() (bool, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		last := error(nil)
		if len(j.failed) > 0 {
			last = j.failed[len(j.failed)-1]
		}
		return len(route) == 0 && len(j.moves) > done+1 || len(route) > 0 && slices.Contains(route, j.at), last
	})
}

// ping has a site order something again and again, until ctx ends.
func (f *traffic) ping(ctx context.Context, site string) {
	f.wg.Go(func() {
		for ctx.Err() == nil {
			began := time.Now()
			_, err := f.site(site).client.Ping(f.ctx)
			f.mu.Lock()
			f.longest[site] = max(f.longest[site], time.Since(began))
			f.pings[site]++
			if err != nil {
				f.broken = append(f.broken, fmt.Errorf("ping at %s: %w", site, err))
			}
			f.mu.Unlock()
			_ = pauseFor(ctx, pingEvery)
		}
	})
}

func pauseFor(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// moved waits until each machine has been moved n times more.
func (f *traffic) moved(n int) {
	f.t.Helper()
	f.mu.Lock()
	goal := map[string]int{}
	for name, j := range f.journeys {
		goal[name] = len(j.moves) + n
	}
	f.mu.Unlock()
	f.until("all machines move", func() (bool, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		for name, j := range f.journeys {
			if len(j.moves) < goal[name] {
				return false, fmt.Errorf("%s has made %d moves, and not: %w", name, len(j.moves), errors.Join(j.failed...))
			}
		}
		return true, nil
	})
}

// members waits until a site knows these members and no others, and gives them.
func (o *procs) members(at string, want ...string) (l api.MemberList) {
	o.t.Helper()
	o.until(fmt.Sprintf("%s has the members %v", at, want), func() (bool, error) {
		var err error
		l, err = o.site(at).client.ListMembers(o.ctx)
		var have []string
		for _, m := range l.Members {
			have = append(have, m.Site)
		}
		slices.Sort(have)
		return slices.Equal(have, want), errors.Join(err, fmt.Errorf("it has %v", have))
	})
	return l
}

// votes has sites vote for what is proposed about another.
func (o *procs) votes(about string, by ...string) {
	o.t.Helper()
	for _, at := range by {
		o.until(at+" has heard of the proposal about "+about, func() (bool, error) {
			l, err := o.site(at).client.ListMembers(o.ctx)
			return slices.ContainsFunc(l.Proposals, func(p api.Proposal) bool { return p.Site == about }), err
		})
		o.says(at, "member", "approve", about)
	}
}

// stranger asserts that whoever has this key is given nothing by a site, as soon as the
// last rounds are over that a member is heard in.
func (o *procs) stranger(key []byte, at, network string) {
	o.t.Helper()
	k, err := libp2p.UnmarshalPrivateKey(key)
	if err != nil {
		o.t.Fatal(err)
	}
	st := o.status(at, func(api.Status) bool { return true })
	other, err := peers.Decode(st.Peer)
	if err != nil {
		o.t.Fatal(err)
	}
	g, err := gossip.New(gossip.Config{
		Key: k, Network: network, Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Bootstrap: st.Addrs,
		Members: func() []peers.ID { return []peers.ID{other} },
	})
	if err != nil {
		o.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(o.ctx)
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	defer func() { stop(); <-ended; _ = g.Close() }()
	for _, proto := range []string{"/sync/1", "/checkpoint/1", "/snapshot/1", "/migrate/1"} {
		o.until(fmt.Sprintf("%s gives a stranger nothing by %s", at, proto), func() (bool, error) {
			s, err := g.Open(ctx, other, proto)
			if err != nil {
				return true, nil
			}
			defer func() { _ = s.Reset() }()
			_ = s.SetDeadline(time.Now().Add(2 * time.Second))
			_, _ = s.Write(make([]byte, 64))
			_ = s.CloseWrite()
			n, err := s.Read(make([]byte, 64)) // it was opened before the other closed the connection
			return n == 0 && !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrDeadlineExceeded), err
		})
	}
}

// identityOf reads the key of a site.
func (o *procs) identityOf(name string) []byte {
	o.t.Helper()
	key, err := os.ReadFile(filepath.Join(o.dir, name, "identity.key"))
	if err != nil {
		o.t.Fatal(err)
	}
	return key
}

// TestFiveProcessesComeAndGoWhileMachinesMove: one joins, one changes its key, one is
// voted out while it is away, one leaves. Meanwhile machines move all the time, and
// something is ordered all the time. It is run by hand: in about one run of four
// something that it waits for does not come, the cause of which is not known yet.
func TestFiveProcessesComeAndGoWhileMachinesMove(t *testing.T) {
	if !*five {
		t.Skip("run it with -args -five")
	}
	began := time.Now()
	ctx, cancel := context.WithTimeoutCause(t.Context(), 6*time.Minute, errors.New("it takes longer than 6 minutes"))
	defer cancel()
	f := &traffic{procs: newProcs(ctx, t), journeys: map[string]*journey{}, longest: map[string]time.Duration{}, pings: map[string]int{}}
	step := func(what string) { t.Logf("%6.1f s  %s", time.Since(began).Seconds(), what) }
	f.raise()
	step("five processes run, and four machines")

	moving, halt := context.WithCancel(ctx)
	defer func() { halt(); f.wg.Wait() }()
	f.travel(moving, &journey{machine: "web1", at: "alice", route: []string{"alice", "bob"}})
	f.travel(moving, &journey{machine: "web2", at: "bob", route: []string{"bob", "carol"}})
	f.travel(moving, &journey{machine: "web3", at: "carol", route: []string{"carol", "alice"}})
	f.travel(moving, &journey{machine: "web4", at: "dave"})
	f.ping(moving, "alice")
	f.ping(moving, "bob")
	f.moved(1)

	step("frank joins")
	f.joins()
	step("carol changes its key")
	f.rotates()
	step("dave is voted out while it is away")
	f.votedOut()
	step("erin leaves")
	f.leaves()
	f.moved(1)
	step("all is done")
	halt()
	f.wg.Wait()
	f.settled("alice", "bob", "carol", "frank")
	f.report()
}

// raise starts five processes, and a machine at four of them.
func (f *traffic) raise() {
	f.t.Helper()
	names := []string{"alice", "bob", "carol", "dave", "erin"}
	f.found(names...)
	for i, n := range names {
		f.open(n, map[bool]string{true: "alice"}[i > 0])
	}
	for _, n := range names {
		f.status(n, func(st api.Status) bool {
			return !slices.ContainsFunc(st.Members, func(m api.MemberStatus) bool { return !m.Connected })
		})
	}
	f.says("alice", "image", "add", "os", f.disk("disk.raw"))
	for i, n := range names[:4] {
		f.until(n+" has heard of the image", func() (bool, error) {
			l, err := f.site(n).client.ListImages(f.ctx)
			return len(l) > 0, err
		})
		f.says(n, "vm", "run", fmt.Sprintf("web%d", i+1), "--image", "os", "--driver", "memvm", "--memory", "4M")
	}
}

// joins: a sixth site is invited, waits, is let in, orders, bids and gets a machine.
func (f *traffic) joins() {
	f.t.Helper()
	f.says("frank", "init", "--site", "frank")
	f.says("alice", "member", "invite", "frank/member.json", "-o", "frank.json")
	f.refused("the invitation is for frank", "erin", "member", "join", "frank.json")
	f.says("frank", "member", "join", "frank.json", "--listen", "/ip4/127.0.0.1/tcp/0")
	f.start("frank")
	f.status("frank", func(st api.Status) bool { return len(st.Awaits) > 0 })
	f.votes("frank", "bob", "carol")
	if st := f.status("frank", func(api.Status) bool { return true }); st.Ordered != 0 {
		f.t.Errorf("three of five have let it in, and it knows the order up to %d", st.Ordered)
	}
	f.votes("frank", "dave")
	f.members("frank", "alice", "bob", "carol", "dave", "erin", "frank")
	f.until("frank orders", func() (bool, error) {
		_, err := f.site("frank").client.Ping(f.ctx)
		return err == nil, err
	})
	f.until("frank bids", func() (bool, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		return slices.ContainsFunc(f.journeys["web4"].moves, func(r api.Report) bool {
			return slices.ContainsFunc(r.Bids, func(b api.Bid) bool { return b.Member == "frank" && b.Eligible })
		}), nil
	})
	f.send("web4", "frank")
	f.send("web4")
}

// rotates: a member between two routes gets another key, and is another peer.
func (f *traffic) rotates() {
	f.t.Helper()
	key := f.identityOf("carol")
	before := f.status("carol", func(api.Status) bool { return true })
	f.opens("carol")
	f.says("carol", "member", "rotate")
	f.until("carol is done with its new key", func() (bool, error) {
		l, err := f.site("alice").client.ListMembers(f.ctx)
		return err == nil && !l.Members[2].Rotating && l.Members[2].Peer != before.Peer, err
	})
	after := f.status("carol", func(st api.Status) bool { return st.Peer != before.Peer })
	f.until("carol orders with its new key", func() (bool, error) {
		_, err := f.site("carol").client.Ping(f.ctx)
		return err == nil, err
	})
	f.status("alice", func(st api.Status) bool {
		return slices.ContainsFunc(st.Members, func(m api.MemberStatus) bool { return m.Peer == after.Peer && m.Connected })
	})
	f.stranger(key, "alice", before.Network)
	f.moved(1)
	f.opens("")
}

// votedOut: a member is killed, voted out and started again.
func (f *traffic) votedOut() {
	f.t.Helper()
	network := f.status("dave", func(api.Status) bool { return true }).Network
	f.send("web4", "frank", "alice")
	f.kill("dave")
	f.send("web4")
	f.moved(1)
	f.says("alice", "member", "leave", "dave", "--reason", "nobody is there")
	f.votes("dave", "bob", "carol", "erin", "frank")
	f.members("alice", "alice", "bob", "carol", "erin", "frank")
	f.stranger(f.identityOf("dave"), "bob", network)
	var boot []string // of all: what it knew of them died with it
	for _, n := range []string{"alice", "bob", "carol", "erin", "frank"} {
		boot = append(boot, f.addrs(n)[0])
	}
	f.start("dave", "--bootstrap", strings.Join(boot, ","))
	code, words := f.ends("dave")
	if code != exitFailed || !strings.Contains(words, "this node (dave) is no longer a member") {
		f.t.Errorf("voted out, it ends with %d: %s", code, words)
	}
}

// leaves: a member that has a machine may not leave; without one it may, and ends.
func (f *traffic) leaves() {
	f.t.Helper()
	f.send("web4", "erin")
	f.refused("web4", "erin", "member", "leave")
	f.send("web4", "alice", "frank")
	f.says("erin", "member", "leave", "--reason", "the building is sold")
	f.votes("erin", "alice", "bob", "carol")
	code, words := f.ends("erin")
	if code != exitFailed || !strings.Contains(words, "this node (erin) is no longer a member") {
		f.t.Errorf("having left, it ends with %d: %s", code, words)
	}
	f.members("frank", "alice", "bob", "carol", "frank")
	f.send("web4")
}

// settled: all are in one state, which has each machine once, and it is there.
func (f *traffic) settled(names ...string) {
	f.t.Helper()
	f.until("all have one state", func() (bool, error) {
		var first api.Status
		for i, n := range names {
			st, err := f.site(n).client.Status(f.ctx)
			if i == 0 {
				first = st
			}
			if err != nil || st.Waiting > 0 || st.Ordered != first.Ordered || st.Root != first.Root {
				return false, errors.Join(err, fmt.Errorf("%s is at %d with root %s, %s at %d with root %s", n, st.Ordered, st.Root, first.Site, first.Ordered, first.Root))
			}
		}
		return true, nil
	})
	here := map[string][]string{}
	for _, n := range names {
		var ms []api.Machine
		if err := json.Unmarshal([]byte(f.says(n, "vm", "ls", "--json")), &ms); err != nil {
			f.t.Fatal(err)
		}
		if len(ms) != len(f.journeys) {
			f.t.Errorf("%s knows %d machines", n, len(ms))
		}
		for _, m := range ms {
			if m.Site != f.journeys[m.Name].at || m.Move != nil {
				f.t.Errorf("%s says that %s is at %s, and it moved to %s", n, m.Name, m.Site, f.journeys[m.Name].at)
			}
			if m.Here {
				here[m.Name] = append(here[m.Name], n)
			}
			for i := 1; i < len(m.Handovers); i++ {
				if a, b := m.Handovers[i-1], m.Handovers[i]; b.Epoch != a.Epoch+1 || b.Index <= a.Index {
					f.t.Errorf("%s went from epoch %d at index %d to %d at %d", m.Name, a.Epoch, a.Index, b.Epoch, b.Index)
				}
			}
		}
	}
	for name, j := range f.journeys {
		if !slices.Equal(here[name], []string{j.at}) {
			f.t.Errorf("%s is on the hosts of %v, its owner is %s", name, here[name], j.at)
		}
	}
}

// report says what went on, and what should not have.
func (f *traffic) report() {
	f.t.Helper()
	for name, j := range f.journeys {
		f.t.Logf("%s: %d moves, %d put off", name, len(j.moves), j.put)
		for _, err := range j.failed {
			f.t.Errorf("a move failed: %v", err)
		}
	}
	for _, err := range f.broken {
		f.t.Error(err)
	}
	for site, d := range f.longest {
		f.t.Logf("%d pings at %s, the longest took %.2f s", f.pings[site], site, d.Seconds())
		if d > pingBound {
			f.t.Errorf("a ping at %s took %v", site, d)
		}
	}
}
