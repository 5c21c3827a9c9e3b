package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	libp2p "github.com/libp2p/go-libp2p/core/crypto"
	peers "github.com/libp2p/go-libp2p/core/peer"

	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/gossip"
	"github.com/dcnode/dcnode/node/api"
)

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
			if err == nil { // the other may be about to close the connection
				_ = s.SetDeadline(time.Now().Add(2 * time.Second))
				_, _ = s.Write(make([]byte, 64))
				_ = s.CloseWrite()
				var n int
				n, err = s.Read(make([]byte, 64))
				_ = s.Reset()
				err = fmt.Errorf("the stream was open, and gave %d bytes: %w", n, err)
			}
			return errors.Is(err, gossip.ErrRefused), err
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
// voted out while it is away, one leaves, one is voted out while it is there. Meanwhile
// machines move all the time, and something is ordered all the time.
func TestFiveProcessesComeAndGoWhileMachinesMove(t *testing.T) {
	if testing.Short() {
		t.Skip("six real processes for a minute or two")
	}
	began := time.Now()
	ctx, cancel := context.WithTimeoutCause(t.Context(), 9*time.Minute, errors.New("it takes longer than 9 minutes"))
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
	back := f.votedOutAway()
	step("erin leaves")
	f.leaves()
	step("frank is voted out while it is there")
	f.votedOutHere()
	step("dave has come back meanwhile")
	back()
	f.moved(1)
	step("all is done")
	halt()
	f.wg.Wait()
	f.settled("alice", "bob", "carol")
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
	f.says("frank", "init", "--site", "frank", "--overlay", "genesis.json")
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

// votedOutAway: a member is killed, voted out and started again. back waits for what it
// says then: it takes a while to believe that the others refuse it.
func (f *traffic) votedOutAway() (back func()) {
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
	var boot []string // of those who stay: what it knew of them died with it
	for _, n := range []string{"alice", "bob", "carol"} {
		boot = append(boot, f.addrs(n)[0])
	}
	f.start("dave", "--bootstrap", strings.Join(boot, ","))
	return func() { f.isOutside("dave") }
}

// isOutside waits until the node of a site ends because it is no member any more.
func (f *traffic) isOutside(name string) {
	f.t.Helper()
	code, words := f.ends(name)
	if code != exitFailed || !strings.Contains(words, "this node ("+name+") is no longer a member") {
		f.t.Errorf("%s is no member any more, and ends with %d: %s", name, code, words)
	}
}

// votedOutHere: a member is voted out while it has things ordered all the time. What it
// says from then on has no effect, and when the roster without it is in force nobody
// hears it; it says that it is outside and ends, and does so again when it is started.
func (f *traffic) votedOutHere() {
	f.t.Helper()
	network := f.status("frank", func(api.Status) bool { return true }).Network
	f.send("web4", "alice", "bob")
	talks, shut := context.WithCancel(f.ctx)
	ended := make(chan error, 1)
	said := make(chan struct{}, 1)
	go func() { // until that is refused
		for {
			_, err := f.site("frank").client.Ping(talks)
			if err != nil {
				ended <- err
				return
			}
			select {
			case said <- struct{}{}:
			default:
			}
		}
	}()
	defer shut()
	select {
	case <-said:
	case err := <-ended:
		f.t.Fatalf("frank cannot order anything while it is a member: %v", err)
	}
	f.says("alice", "member", "leave", "frank", "--reason", "we part")
	f.votes("frank", "bob", "carol")
	f.members("alice", "alice", "bob", "carol")
	f.isOutside("frank")
	f.t.Logf("the last that frank wants to have ordered: %v", <-ended)
	f.stranger(f.identityOf("frank"), "alice", network)
	f.stranger(f.identityOf("frank"), "carol", network)
	f.unheard("frank", "carol", "alice")
	f.start("frank")
	f.isOutside("frank")
}

// unheard asserts that nothing had an effect that a site said after the newest vote of
// another, which put it out: as a site has it that goes on.
func (f *traffic) unheard(name, by, at string) {
	f.t.Helper()
	var all []api.LogEntry
	err := f.site(at).client.Log(f.ctx, api.LogQuery{}, func(entries []api.LogEntry) error {
		all = append(all, entries...)
		return nil
	})
	if err != nil {
		f.t.Fatal(err)
	}
	out, before, after := uint64(0), 0, 0
	for _, e := range all {
		if e.Kind == string(ledger.KindVote) && e.Site == by {
			out = e.Index
		}
	}
	for _, e := range all {
		switch {
		case e.Site == name && e.Index < out:
			before++
		case e.Site == name || e.Site == "member 6": // so it is called then
			if after++; e.Refused == "" {
				f.t.Errorf("%s was put out at %d, and had an effect at %d: %s", name, out, e.Index, e.Text)
			}
		}
	}
	f.t.Logf("%s had %d things ordered as a member, and %d were refused after it was put out at %d", name, before, after, out)
	if before == 0 || out == 0 {
		f.t.Error("the log does not tell of it")
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
	f.isOutside("erin")
	f.members("frank", "alice", "bob", "carol", "frank")
	f.send("web4")
}
