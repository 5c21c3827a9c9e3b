package node

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/node/api"
	"github.com/dcnode/dcnode/node/resume"
	"github.com/dcnode/dcnode/vmm"
	"github.com/dcnode/dcnode/vmm/memvm"
)

// scissors is a driver that has something done, once, when a move reaches a step.
type scissors struct {
	vmm.Driver
	mu *sync.Mutex
	at map[string]func() // by step: disk, memory, paused, finish, loaded
}

func (s scissors) reach(step string) {
	s.mu.Lock()
	f := s.at[step]
	delete(s.at, step)
	s.mu.Unlock()
	if f != nil {
		f()
	}
}

func (s scissors) on(step string, f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at[step] = f
}

type cutMachine struct {
	vmm.Machine
	scissors
}

type cutOutgoing struct {
	vmm.Outgoing
	scissors
	paused chan struct{}
}

func (o cutOutgoing) Paused() <-chan struct{} { return o.paused }

type cutIncoming struct {
	vmm.Incoming
	scissors
}

type cutMemory struct {
	io.WriteCloser
	scissors
}

func (s scissors) Start(ctx context.Context, spec vmm.Spec, f vmm.Files) (vmm.Machine, error) {
	m, err := s.Driver.Start(ctx, spec, f)
	if err != nil {
		return nil, err
	}
	return cutMachine{m, s}, nil
}

func (s scissors) Receive(ctx context.Context, spec vmm.Spec, f vmm.Files) (vmm.Machine, vmm.Incoming, error) {
	m, in, err := s.Driver.Receive(ctx, spec, f)
	if err != nil {
		return nil, nil, err
	}
	return cutMachine{m, s}, cutIncoming{in, s}, nil
}

func (m cutMachine) Outgoing(ctx context.Context, l vmm.Limits) (vmm.Outgoing, error) {
	out, err := m.Machine.Outgoing(ctx, l)
	if err != nil {
		return nil, err
	}
	cut := cutOutgoing{out, m.scissors, make(chan struct{})}
	go func() {
		select {
		case <-out.Paused():
			cut.reach("paused")
			close(cut.paused)
		case <-ctx.Done(): // nobody waits any more
		}
	}()
	return cut, nil
}

func (m cutMachine) Verify() error { return m.Machine.(verifier).Verify() }

func (o cutOutgoing) Finish(ctx context.Context) error {
	o.reach("finish")
	return o.Outgoing.Finish(ctx)
}

func (i cutIncoming) WriteDisk(ctx context.Context, disk int, p []byte, off int64) error {
	i.reach("disk")
	return i.Incoming.WriteDisk(ctx, disk, p, off)
}

func (i cutIncoming) Memory(ctx context.Context) (io.WriteCloser, error) {
	w, err := i.Incoming.Memory(ctx)
	return cutMemory{w, i.scissors}, err
}

func (i cutIncoming) Loaded(ctx context.Context) error {
	i.reach("loaded")
	return i.Incoming.Loaded(ctx)
}

func (w cutMemory) Write(p []byte) (int, error) {
	w.reach("memory")
	return w.WriteCloser.Write(p)
}

// newCutOverlay is one all of whose machines have the same scissors.
func newCutOverlay(t *testing.T, count int) (*overlay, scissors) {
	o := newOverlay(t, count)
	s := scissors{memvm.New(memvm.Config{}), &sync.Mutex{}, map[string]func(){}}
	for _, site := range o.sites {
		site.node.cfg.Drivers = []vmm.Driver{s}
	}
	return o, s
}

func (s *site) id() peer.ID { return s.node.overlay.Host().ID() }

// cut ends all connections between two sites, which may connect again at once.
func cut(a, b *site) {
	_ = a.node.overlay.Host().Network().ClosePeer(b.id())
	_ = b.node.overlay.Host().Network().ClosePeer(a.id())
}

func TestMoveGoesOnAfterACutInAnyPhase(t *testing.T) {
	ctx := deadline(t)
	o, s := newCutOverlay(t, 3)
	o.image(ctx, o.sites[0], "os")
	o.run(ctx, o.sites[0], "web1", "os")
	from, to := o.sites[0], o.sites[1]
	for _, step := range []string{"disk", "memory", "finish", "loaded"} {
		reached := false
		s.on(step, func() { reached = true; cut(from, to) })
		rep, err := from.node.Migrate(ctx, api.Migrate{Name: "web1", To: to.name}, quiet)
		if err != nil || !reached {
			t.Fatalf("cut in %s, reached %v: %v", step, reached, err)
		}
		t.Logf("cut in %s: %+v", step, rep.Cuts)
		if rep.Cuts.Count == 0 && step != "loaded" { // there is nothing to say after that but one word
			t.Errorf("cut in %s: it was not noticed", step)
		}
		o.settle(ctx)
		checkRunsAt(ctx, t, to, "web1")
		from, to = to, from
	}
}

func TestOnlyTheSessionItselfIsResumed(t *testing.T) {
	ctx := deadline(t)
	o, s := newCutOverlay(t, 3)
	alice, bob, carol := o.sites[0], o.sites[1], o.sites[2]
	o.image(ctx, alice, "os")
	o.run(ctx, alice, "web1", "os")
	s.on("memory", func() {
		bob.node.mu.Lock()
		in := bob.node.ins["web1"]
		right := again{Machine: "web1", Move: in.mv.ID, Epoch: in.mv.Epoch, Session: slices.Clone(in.session)}
		bob.node.mu.Unlock()
		if _, err := bob.node.interrupted(alice.id(), right); err != nil {
			t.Errorf("the session itself: %v", err)
		}
		for what, change := range map[string]func(*again){
			"machine": func(a *again) { a.Machine = "web2" },
			"move":    func(a *again) { a.Move-- },
			"epoch":   func(a *again) { a.Epoch-- },
			"session": func(a *again) { a.Session = newSession() },
			"nothing": func(a *again) { a.Session = nil },
		} {
			a := right
			change(&a)
			if _, err := bob.node.interrupted(alice.id(), a); !errors.Is(err, resume.ErrOver) {
				t.Errorf("another %s: %v", what, err)
			}
		}
		if _, err := bob.node.interrupted(carol.id(), right); !errors.Is(err, resume.ErrOver) {
			t.Errorf("another member: %v", err)
		}
	})
	if _, err := alice.node.Migrate(ctx, api.Migrate{Name: "web1", To: "bob"}, quiet); err != nil {
		t.Error(err)
	}
}

func TestLinkThatStaysCutLeavesTheMachineAtTheSource(t *testing.T) {
	ctx := deadline(t)
	o, s := newCutOverlay(t, 4)
	alice, bob := o.sites[0], o.sites[1]
	alice.node.cfg.ResumeWithin = 4 * time.Second
	o.image(ctx, alice, "os")
	o.run(ctx, alice, "web1", "os")
	s.on("memory", func() { _ = bob.node.overlay.Host().Close() }) // nobody reaches it any more
	var mu sync.Mutex
	waited := false
	_, err := alice.node.Migrate(ctx, api.Migrate{Name: "web1", To: "bob"}, func(p api.Progress) {
		mu.Lock()
		defer mu.Unlock()
		if !strings.HasPrefix(p.Phase, "link cut") || p.Within != 4 || waited {
			return
		}
		waited = true
		alice.says(ctx, t, "web1", "web1 is being copied from alice to bob", "at alice: link cut, waits for bob since ")
	})
	if err == nil || !strings.Contains(err.Error(), "stayed cut for 4s") || !strings.Contains(err.Error(), "runs on at alice") {
		t.Fatalf("migrate: %v", err)
	}
	if !waited {
		t.Error("nobody was told that the link is cut")
	}
	o.end(bob)
	o.settle(ctx)
	checkRunsAt(ctx, t, alice, "web1")
	if m, err := alice.node.machine(ctx, "web1"); err != nil || m.Move != nil || m.Last.Phase != ledger.Aborted {
		t.Errorf("alice says %+v, %v", m, err)
	}
}
