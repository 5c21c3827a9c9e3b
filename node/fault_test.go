package node

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/node/api"
	"github.com/dcnode/dcnode/vmm"
	"github.com/dcnode/dcnode/vmm/memvm"
)

// brittle is a driver whose incoming machines fail to load.
type brittle struct{ vmm.Driver }

type brittleIncoming struct{ vmm.Incoming }

var errBrittle = errors.New("this host's memory is made of glass")

func (b brittle) Receive(ctx context.Context, s vmm.Spec, f vmm.Files) (vmm.Machine, vmm.Incoming, error) {
	m, in, err := b.Driver.Receive(ctx, s, f)
	return m, brittleIncoming{in}, err
}

func (brittleIncoming) Loaded(context.Context) error { return errBrittle }

func TestStateThatDoesNotLoadRunsAgainAtTheSource(t *testing.T) {
	ctx := deadline(t)
	o := newOverlay(t, 3)
	alice, bob := o.sites[0], o.sites[1]
	bob.node.cfg.Drivers = []vmm.Driver{brittle{memvm.New(memvm.Config{})}}
	o.image(ctx, alice, "os")
	o.run(ctx, alice, "web1", "os")
	_, err := alice.node.Migrate(ctx, api.Migrate{Name: "web1", To: "bob"}, quiet)
	if err == nil || !strings.Contains(err.Error(), errBrittle.Error()) || !strings.Contains(err.Error(), "runs again at alice") {
		t.Fatalf("migrate: %v", err)
	}
	o.settle(ctx)
	checkRunsAt(ctx, t, alice, "web1")
	if m, err := bob.node.machine(ctx, "web1"); err != nil || m.Here || m.Site != "alice" || m.Last.Phase != ledger.Declined {
		t.Errorf("bob says %+v, %v", m, err)
	}
	// Nothing is in the way of the next attempt.
	if rep, err := alice.node.Migrate(ctx, api.Migrate{Name: "web1", To: "carol"}, quiet); err != nil || rep.Epoch != 4 {
		t.Errorf("second attempt: epoch %d, %v", rep.Epoch, err)
	}
}

// checkRunsAt checks that a machine ticks, whole, at a site.
func checkRunsAt(ctx context.Context, t *testing.T, s *site, name string) {
	t.Helper()
	m := s.node.local(name)
	if m == nil || m.vm == nil {
		t.Fatalf("%s does not have machine %s", s.name, name)
	}
	if st, err := m.vm.State(ctx); err != nil || st != vmm.Running {
		t.Errorf("machine %s at %s is %s, %v", name, s.name, st, err)
	}
	if err := m.vm.(verifier).Verify(); err != nil {
		t.Error(err)
	}
}

// slow is a driver whose incoming machines take their memory, and then nothing:
// the destination ends before it is loaded.
type slow struct {
	vmm.Driver
	reached chan struct{}
}

type slowIncoming struct {
	vmm.Incoming
	reached chan struct{}
}

func (s slow) Receive(ctx context.Context, spec vmm.Spec, f vmm.Files) (vmm.Machine, vmm.Incoming, error) {
	m, in, err := s.Driver.Receive(ctx, spec, f)
	return m, slowIncoming{in, s.reached}, err
}

func (s slowIncoming) WriteDisk(ctx context.Context, _ int, _ []byte, _ int64) error {
	close(s.reached)
	<-ctx.Done()
	return ctx.Err()
}

func TestDestinationThatEndsLeavesTheMachineAtTheSource(t *testing.T) {
	ctx := deadline(t)
	o := newOverlay(t, 4)
	alice, bob := o.sites[0], o.sites[1]
	reached := make(chan struct{})
	bob.node.cfg.Drivers = []vmm.Driver{slow{memvm.New(memvm.Config{}), reached}}
	alice.node.cfg.ResumeWithin = 10 * time.Second // bob may have no time left to say that it ends
	o.image(ctx, alice, "os")
	o.run(ctx, alice, "web1", "os")
	go func() { <-reached; bob.stop() }()
	_, err := alice.node.Migrate(ctx, api.Migrate{Name: "web1", To: "bob"}, quiet)
	if err == nil || !strings.Contains(err.Error(), "runs on at alice") {
		t.Fatalf("migrate: %v", err)
	}
	o.end(bob)
	o.settle(ctx)
	checkRunsAt(ctx, t, alice, "web1")
	if m, err := alice.node.machine(ctx, "web1"); err != nil || m.Move != nil || m.Last.Phase != ledger.Aborted {
		t.Errorf("alice says %+v, %v", m, err)
	}
}

func TestSecondStartContinuesWhereTheFirstStopped(t *testing.T) {
	ctx := deadline(t)
	o := newOverlay(t, 3)
	alice, bob := o.sites[0], o.sites[1]
	o.image(ctx, alice, "os")
	o.run(ctx, alice, "web1", "os")
	o.settle(ctx)
	before, err := bob.node.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	o.end(bob)
	o.end(alice)
	o.start(alice)
	o.start(bob)
	o.settle(ctx)
	after, err := bob.node.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if after.Ordered < before.Ordered {
		t.Errorf("%d events were ordered, now %d", before.Ordered, after.Ordered)
	}
	// The second start goes on without a fork: new transactions are ordered.
	// The embedded machine ended with its node and is started again from its disks.
	<-alice.node.reconciled
	checkRunsAt(ctx, t, alice, "web1")
	if rep, err := alice.node.Migrate(ctx, api.Migrate{Name: "web1", To: "carol"}, quiet); err != nil || rep.Destination != "carol" {
		t.Fatalf("migrate after the restart: %+v, %v", rep, err)
	}
	for _, s := range o.sites {
		if st, err := s.node.order.loop.Status(ctx); err != nil || st.Forks > 0 {
			t.Errorf("%s saw %d forks, %v", s.name, st.Forks, err)
		}
	}
}

func TestOrdersThatCannotBeCarriedOutSayWhy(t *testing.T) {
	ctx := deadline(t)
	o := newOverlay(t, 2)
	alice, bob := o.sites[0], o.sites[1]
	o.image(ctx, alice, "os")
	o.run(ctx, alice, "web1", "os")
	o.settle(ctx)
	for _, c := range []struct {
		what string
		do   func() error
		want string
	}{
		{"a machine that does not exist", func() error { _, err := alice.node.Migrate(ctx, api.Migrate{Name: "db1"}, quiet); return err }, "there is no machine db1: see `dcnode vm ls`"},
		{"a site that does not exist", func() error {
			_, err := alice.node.Migrate(ctx, api.Migrate{Name: "web1", To: "mars"}, quiet)
			return err
		}, "there is no member mars: see `dcnode status`"},
		{"the site where it is", func() error {
			_, err := alice.node.Migrate(ctx, api.Migrate{Name: "web1", To: "alice"}, quiet)
			return err
		}, "machine web1 is at alice already"},
		{"another site's machine", func() error { _, err := bob.node.Migrate(ctx, api.Migrate{Name: "web1"}, quiet); return err }, "machine web1 is at alice: give the order there"},
		{"an image name that exists", func() error {
			_, err := bob.node.AddImage(ctx, api.AddImage{Name: "os", Path: "/nowhere"}, quiet)
			return err
		}, "image os exists already (published by alice): choose another name"},
		{"a machine name that exists", func() error {
			_, err := bob.node.RunMachine(ctx, api.RunMachine{Name: "web1", Image: "os", Memory: 1 << 20, VCPUs: 1}, quiet)
			return err
		}, "machine web1 exists already (at alice): choose another name"},
		{"an image that does not exist", func() error {
			_, err := bob.node.RunMachine(ctx, api.RunMachine{Name: "web2", Image: "no", Memory: 1 << 20, VCPUs: 1}, quiet)
			return err
		}, "there is no image no: add it with `dcnode image add`"},
		{"an image in use", func() error { _, err := alice.node.RemoveImage(ctx, "os"); return err }, "image os is in use by machine web1"},
		{"no room at the destination", func() error {
			bob.node.cfg.MaxMemory = 1 << 20
			_, err := alice.node.Migrate(ctx, api.Migrate{Name: "web1"}, quiet)
			return err
		}, "machine web1 stays here: no member is eligible (bob: 1.0 MiB of its memory are not promised to other machines, 16 MiB are needed)"},
	} {
		if err := c.do(); err == nil || err.Error() != c.want {
			t.Errorf("%s: %v\n want %s", c.what, err, c.want)
		}
	}
	checkRunsAt(ctx, t, alice, "web1")
}

func TestNodeRefusesToStartWithoutItsPlace(t *testing.T) {
	o := newOverlay(t, 1)
	dir := filepath.Join(t.TempDir(), "eve")
	if _, err := New(Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "run `dcnode init") {
		t.Errorf("no identity: %v", err)
	}
	if _, err := Init(dir, "eve", "", 1, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := Init(dir, "eve", "", 1, nil); err == nil || !strings.Contains(err.Error(), "has an identity already") {
		t.Errorf("second init: %v", err)
	}
	if _, err := New(Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "give --genesis FILE") {
		t.Errorf("no roster: %v", err)
	}
	if _, err := New(Config{Dir: dir, Genesis: o.gen}); err == nil || !strings.Contains(err.Error(), "not in the roster") {
		t.Errorf("a stranger: %v", err)
	}
	if _, err := New(Config{Dir: o.sites[0].dir}); err == nil || !strings.Contains(err.Error(), "in use by another dcnode") {
		t.Errorf("two nodes in one directory: %v", err)
	}
}
