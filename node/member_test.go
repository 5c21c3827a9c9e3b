package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/gossip"
	"github.com/dcnode/dcnode/node/api"
	"github.com/dcnode/dcnode/vmm"
	"github.com/dcnode/dcnode/vmm/memvm"
)

// newcomer is a site that is no member yet.
func (o *overlay) newcomer(name string) *site {
	o.t.Helper()
	s := &site{name: name, dir: filepath.Join(o.t.TempDir(), name), driver: memvm.New(memvm.Config{})}
	if _, err := Init(s.dir, name, "", 1, &o.sites[0].node.genesis); err != nil {
		o.t.Fatal(err)
	}
	return s
}

// invite has a member propose a newcomer, and gives the path of the invitation.
func (o *overlay) invite(ctx context.Context, by, s *site) (string, api.Invited) {
	o.t.Helper()
	card, err := os.ReadFile(filepath.Join(s.dir, memberFile))
	if err != nil {
		o.t.Fatal(err)
	}
	i, err := by.node.InviteMember(ctx, api.Invite{Card: card})
	if err != nil {
		o.t.Fatal(err)
	}
	path := filepath.Join(o.t.TempDir(), "invitation.json")
	if err := os.WriteFile(path, i.Invitation, 0o600); err != nil {
		o.t.Fatal(err)
	}
	return path, i
}

// startBare runs a node with nothing but its data directory.
func (o *overlay) startBare(s *site) {
	o.t.Helper()
	cfg := Config{Dir: s.dir, Drivers: []vmm.Driver{s.driver}, Log: o.log(s)}
	if s.listen != "" {
		cfg.Listen = []string{s.listen}
	}
	n, err := New(cfg)
	if err != nil {
		o.t.Fatal(err)
	}
	o.launch(s, n)
	if !slices.Contains(o.sites, s) {
		o.sites = append(o.sites, s)
	}
}

// reopens waits for a node to want to be opened again, and does so.
func (o *overlay) reopens(ctx context.Context, s *site) {
	o.t.Helper()
	select {
	case err := <-s.ended:
		if !errors.Is(err, ErrReopen) {
			o.t.Fatalf("%s ended: %v", s.name, err)
		}
	case <-ctx.Done():
		o.t.Fatalf("%s does not want to be opened again", s.name)
	}
	s.stop()
	s.node = nil
	o.startBare(s)
}

// approve has members vote for what is proposed about a site.
func (o *overlay) approve(ctx context.Context, about string, by ...*site) api.Proposal {
	o.t.Helper()
	var p api.Proposal
	for _, s := range by {
		if err := s.node.order.until(ctx, func(s *ledger.State) bool {
			return slices.ContainsFunc(s.Proposals(), func(p *ledger.Proposal) bool { return p.Site == about })
		}); err != nil {
			o.t.Fatalf("%s does not hear of a proposal about %s: %v", s.name, about, err)
		}
		var err error
		if p, err = s.node.VoteMember(ctx, api.CastVote{On: about, Yes: true}); err != nil {
			o.t.Fatalf("%s votes on %s: %v", s.name, about, err)
		}
	}
	return p
}

// speaks waits until a site can have something ordered.
func (o *overlay) speaks(ctx context.Context, s *site) {
	o.t.Helper()
	if _, err := s.node.order.Submit(ctx, &ledger.Tick{}); err != nil {
		o.t.Fatalf("%s cannot speak: %v", s.name, err)
	}
}

// roster waits until all running sites have the same members, and gives their sites.
func (o *overlay) roster(ctx context.Context, want ...string) {
	o.t.Helper()
	for _, s := range o.sites {
		if s.node == nil {
			continue
		}
		var have []string
		if err := s.node.order.until(ctx, func(s *ledger.State) bool {
			have = nil
			for _, m := range s.Members() {
				have = append(have, m.Site)
			}
			return slices.Equal(have, want)
		}); err != nil {
			o.t.Fatalf("%s has the members %v, want %v", s.name, have, want)
		}
	}
}

// An invited site waits, is approved while a machine moves, takes over what the others
// have agreed on, and is a member like any other: it votes, bids and takes machines.
func TestInvitedSiteBecomesAMember(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	o := newOverlay(t, 3)
	alice, bob, carol := o.sites[0], o.sites[1], o.sites[2]
	o.image(ctx, alice, "os")
	o.run(ctx, alice, "web1", "os")
	dave := o.newcomer("dave")
	path, i := o.invite(ctx, alice, dave)
	if p := i.Proposal; !p.Open || p.Needs != 2 || p.Total != 3 || !slices.Equal(p.Yes, []string{"alice"}) {
		t.Errorf("the proposal is %+v", p)
	}
	if _, again := o.invite(ctx, alice, dave); !bytes.Equal(again.Invitation, i.Invitation) && again.Proposal.ID != i.Proposal.ID {
		t.Errorf("inviting again gives %+v", again.Proposal)
	}
	if _, err := Accept(dave.dir, path, []string{"/ip4/127.0.0.1/tcp/0"}); err != nil {
		t.Fatal(err)
	}
	o.startBare(dave)
	st, err := dave.node.Status(ctx)
	if err != nil || !slices.Equal(st.Awaits, []string{"alice", "bob", "carol"}) || st.Ordered != 0 {
		t.Errorf("before it is approved it says %+v, %v", st, err)
	}
	moved := make(chan error, 1)
	go func() {
		_, err := alice.node.Migrate(ctx, api.Migrate{Name: "web1", To: "bob"}, quiet)
		moved <- err
	}()
	if p := o.approve(ctx, "dave", bob, carol); p.Open || !p.Holds {
		t.Errorf("after all have voted: %+v", p)
	}
	o.reopens(ctx, dave)
	o.roster(ctx, "alice", "bob", "carol", "dave")
	o.speaks(ctx, dave)
	if err := <-moved; err != nil {
		t.Errorf("the move meanwhile: %v", err)
	}
	rep, err := bob.node.Migrate(ctx, api.Migrate{Name: "web1", To: "dave"}, quiet)
	if err != nil || rep.Destination != "dave" {
		t.Errorf("move to the new member: %+v, %v", rep, err)
	}
	o.settle(ctx)
	l, err := dave.node.ListMembers(ctx)
	if err != nil || len(l.Members) != 4 || l.Weight != 4 {
		t.Fatalf("%+v, %v", l, err)
	}
	if m := l.Members[3]; m.State != api.MemberHere || !slices.Equal(m.Machines, []string{"web1"}) || m.ID != 4 {
		t.Errorf("it says of itself %+v", m)
	}
}

// A member that leaves takes part until its last round, which the others could not do
// without it here, and then ends with an error that says so and names what is still on
// its host.
func TestMemberThatLeavesEndsWithAReason(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	o := newOverlay(t, 3)
	alice, bob, carol := o.sites[0], o.sites[1], o.sites[2]
	o.image(ctx, carol, "os")
	o.run(ctx, carol, "web1", "os")
	if _, err := carol.node.RemoveMember(ctx, api.LeaveOverlay{}); err == nil || !strings.Contains(err.Error(), "web1") {
		t.Errorf("leaving with a machine: %v", err)
	}
	p, err := carol.node.RemoveMember(ctx, api.LeaveOverlay{Force: true, Reason: "closed"})
	if err != nil || !p.Open || p.Needs != 2 || p.Reason != "closed" {
		t.Fatalf("%+v, %v", p, err)
	}
	o.approve(ctx, "carol", alice, bob)
	var gone *NotMemberError
	select {
	case err := <-carol.ended:
		if !errors.As(err, &gone) || !slices.Equal(gone.Machines, []string{"web1"}) || !strings.Contains(err.Error(), "web1") {
			t.Errorf("it ends with %v", err)
		}
	case <-ctx.Done():
		t.Fatal("it does not end")
	}
	carol.stop()
	carol.node = nil
	o.roster(ctx, "alice", "bob")
	for _, s := range []*site{alice, bob} {
		o.speaks(ctx, s)
	}
	if _, err := New(Config{Dir: carol.dir, Log: o.log(carol)}); !errors.As(err, &gone) {
		t.Errorf("a start after it has left: %v", err)
	}
	stranger := peerOf(publicOf(carol.identity(t).key))
	for alice.node.roster.allow(stranger) && ctx.Err() == nil { // until its last round is over at alice, too
		_ = pause(ctx, time.Millisecond)
	}
	if ctx.Err() != nil {
		t.Error("it is let in all the same")
	}
}

// Who has left is cut off when its last round is over, also by a member that is slow to
// apply what made it leave, and though nothing is ordered after that.
func TestMemberThatLeftIsCutOffAtItsLastRound(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	o := newOverlay(t, 4)
	alice, bob, carol, dave := o.sites[0], o.sites[1], o.sites[2], o.sites[3]
	for _, s := range []*site{alice, bob, carol} {
		r := s.node.order
		if err := r.do(ctx, func() {
			told := r.changed
			r.changed = func(s *ledger.State) { told(s); time.Sleep(200 * time.Millisecond) }
		}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := alice.node.RemoveMember(ctx, api.LeaveOverlay{Site: "dave"}); err != nil {
		t.Fatal(err)
	}
	o.approve(ctx, "dave", bob, carol)
	select {
	case <-dave.ended:
	case <-ctx.Done():
		t.Fatal("it does not end")
	}
	dave.stop()
	dave.node = nil
	left := peerOf(publicOf(dave.identity(t).key))
	for _, s := range []*site{alice, bob, carol} {
		for s.node.roster.allow(left) || s.node.sees(left) {
			if pause(ctx, time.Millisecond) != nil {
				t.Fatalf("%s lets it in for ever", s.name)
			}
		}
	}
}

func (s *site) identity(t *testing.T) identity {
	t.Helper()
	id, err := readIdentities(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// A vote against by more than a third drops a proposal; and a weight and a region hold
// as soon as they are voted.
func TestMembersVote(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	o := newOverlay(t, 3)
	alice, bob, carol := o.sites[0], o.sites[1], o.sites[2]
	p, err := alice.node.SetMember(ctx, api.SetMember{Site: "carol", Weight: 5, Region: "eu"})
	if err != nil || p.Needs != 2 {
		t.Fatalf("%+v, %v", p, err)
	}
	if p := o.approve(ctx, "carol", bob, carol); !p.Holds {
		t.Errorf("%+v", p)
	}
	if err := bob.node.order.until(ctx, func(s *ledger.State) bool { return s.RosterVersion() == 1 }); err != nil {
		t.Fatal(err)
	}
	if l, err := bob.node.ListMembers(ctx); err != nil || l.Weight != 7 || l.Members[2].Region != "eu" || len(l.Proposals) != 0 {
		t.Errorf("%+v, %v", l, err)
	}
	dave := o.newcomer("dave")
	o.invite(ctx, alice, dave)
	if err := carol.node.order.until(ctx, func(s *ledger.State) bool { return len(s.Proposals()) == 1 }); err != nil {
		t.Fatal(err)
	}
	if p, err := carol.node.VoteMember(ctx, api.CastVote{On: "dave"}); err != nil || p.Open || p.Holds {
		t.Errorf("refused by most of the weight: %+v, %v", p, err)
	}
	if err := alice.node.order.until(ctx, func(s *ledger.State) bool { return len(s.Proposals()) == 0 }); err != nil {
		t.Fatal(err)
	}
	if _, err := alice.node.VoteMember(ctx, api.CastVote{On: "dave", Yes: true}); err == nil || !strings.Contains(err.Error(), "no proposal about dave waits") {
		t.Errorf("a vote that comes too late: %v", err)
	}
	for _, s := range o.sites {
		o.speaks(ctx, s)
	}
}

// Whoever is not in the roster is given no protocol by anyone, invited or not.
func TestStrangerLearnsNothingFromNodes(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	o := newOverlay(t, 1)
	alice := o.sites[0]
	eve := o.newcomer("eve")
	key := eve.identity(t).key
	alices := alice.node.overlay.ID()
	g, err := gossip.New(gossip.Config{
		Key: key, Network: alice.node.genesis.Network(), Listen: []string{"/ip4/127.0.0.1/tcp/0"},
		Bootstrap: alice.node.overlay.Addrs(), Members: func() []peer.ID { return []peer.ID{alices, peerOf(publicOf(key))} },
	})
	if err != nil {
		t.Fatal(err)
	}
	run, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- g.Run(run) }()
	defer func() { stop(); <-ended; _ = g.Close() }()
	for _, proto := range []string{protoMigrate, "/survey/1", protoAttest, protoOutcome, "/checkpoint/1", "/snapshot/1", "/sync/1"} {
		if s, err := g.Open(ctx, alices, proto); err == nil {
			_ = s.Reset()
			t.Errorf("a stranger may speak %s", proto)
		}
	}
	if got, _ := g.Host().Peerstore().GetProtocols(alices); len(got) != 0 {
		t.Errorf("a stranger is told of the protocols %v", got)
	}
}

// What was altered, or is for somebody else, is told apart.
func TestAlteredPapersAreTurnedAway(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	o := newOverlay(t, 2)
	alice := o.sites[0]
	dave, erin := o.newcomer("dave"), o.newcomer("erin")
	path, _ := o.invite(ctx, alice, dave)
	if _, err := Accept(erin.dir, path, nil); err == nil || !strings.Contains(err.Error(), "the invitation is for dave") {
		t.Errorf("an invitation for another: %v", err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{
		`"site":"dave"`: `"site":"dave2"`, `"member":3`: `"member":4`, `"site":"bob","weight":1`: `"site":"bob","weight":2`, `/tcp/`: `/udp/`,
	} {
		if !bytes.Contains(text, []byte(from)) {
			t.Fatalf("the invitation has no %s", from)
		}
		bad := filepath.Join(t.TempDir(), "bad.json")
		if err := os.WriteFile(bad, bytes.Replace(text, []byte(from), []byte(to), 1), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Accept(dave.dir, bad, nil); err == nil || !strings.Contains(err.Error(), "altered") {
			t.Errorf("%s for %s: %v", to, from, err)
		}
	}
	card, err := ReadCard(filepath.Join(dave.dir, memberFile))
	if err != nil {
		t.Fatal(err)
	}
	card.Weight = 100
	raw, err := json.Marshal(card)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := alice.node.InviteMember(ctx, api.Invite{Card: raw}); err == nil || !strings.Contains(err.Error(), "altered") {
		t.Errorf("an altered card: %v", err)
	}
	if _, err := NewGenesis([]Card{card}, time.Unix(1_800_000_000, 0)); err == nil || !strings.Contains(err.Error(), "altered") {
		t.Errorf("a genesis of an altered card: %v", err)
	}
	gen, err := os.ReadFile(o.gen)
	if err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(t.TempDir(), "genesis.json")
	if err := os.WriteFile(bad, bytes.Replace(gen, []byte(`"weight": 1`), []byte(`"weight": 9`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadGenesis(bad); err == nil || !strings.Contains(err.Error(), "altered") {
		t.Errorf("an altered genesis: %v", err)
	}
}
