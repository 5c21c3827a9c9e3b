package node

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/dcnode/dcnode/vmm"
	"github.com/dcnode/dcnode/vmm/memvm"
)

type verifier interface{ Verify() error }

// witness watches the machines of all sites: when one begins to run while another
// of its name runs, the test has failed. It also tells what the machines did, and
// lets a test step in.
type witness struct {
	t *testing.T

	mu    sync.Mutex
	all   map[vmm.Machine]*watched // by the driver's machine
	log   []string
	more  chan struct{}
	hooks map[string]func()
}

func newWitness(t *testing.T) *witness {
	return &witness{t: t, all: map[vmm.Machine]*watched{}, more: make(chan struct{}), hooks: map[string]func(){}}
}

// did notes what a site's machine has done: "bob resume", say.
func (w *witness) did(what string) {
	w.mu.Lock()
	w.log = append(w.log, what)
	close(w.more)
	w.more = make(chan struct{})
	hook := w.hooks[what]
	delete(w.hooks, what)
	w.mu.Unlock()
	if hook != nil {
		hook()
	}
}

// on lets f run when that is done next, before the one who did it goes on.
func (w *witness) on(what string, f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hooks[what] = f
}

// count is how often that was done.
func (w *witness) count(what string) (n int, more <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range w.log {
		if l == what {
			n++
		}
	}
	return n, w.more
}

// await waits until that was done so often.
func (w *witness) await(ctx context.Context, what string, times int) {
	w.t.Helper()
	for {
		n, more := w.count(what)
		if n >= times {
			return
		}
		select {
		case <-more:
		case <-ctx.Done():
			w.mu.Lock()
			defer w.mu.Unlock()
			w.t.Fatalf("%q happened %d times, not %d; there was: %q", what, n, times, w.log)
		}
	}
}

// running is where machines of that name run.
func (w *witness) running(ctx context.Context, name string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.runningBut(ctx, name, nil)
}

func (w *witness) runningBut(ctx context.Context, name string, but *watched) []string {
	var sites []string
	for _, m := range w.all {
		if st, _ := m.Machine.State(ctx); m != but && m.name == name && st == vmm.Running {
			sites = append(sites, m.site)
		}
	}
	slices.Sort(sites)
	return sites
}

// begins does what makes a machine run, while no other can begin.
func (w *witness) begins(ctx context.Context, m *watched, do func() error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	err := do()
	if st, _ := m.Machine.State(ctx); st == vmm.Running {
		if others := w.runningBut(ctx, m.name, m); len(others) > 0 {
			w.t.Errorf("machine %s runs at %s and at %v", m.name, m.site, others)
		}
	}
	return err
}

// watchedDriver is a memvm driver with a witness.
type watchedDriver struct {
	vmm.Driver
	w    *witness
	site string
}

func (w *witness) driver(site string) *watchedDriver {
	d := &watchedDriver{memvm.New(memvm.Config{}), w, site}
	w.t.Cleanup(func() { d.kill(context.Background()) })
	return d
}

// kill ends all machines of a site, as a power cut does.
func (d *watchedDriver) kill(ctx context.Context) {
	d.w.mu.Lock()
	var mine []*watched
	for _, m := range d.w.all {
		if m.site == d.site {
			mine = append(mine, m)
		}
	}
	d.w.mu.Unlock()
	for _, m := range mine {
		_ = m.Machine.Stop(ctx)
	}
}

func (d *watchedDriver) watch(m vmm.Machine, name string) *watched {
	if d.w.all[m] == nil {
		d.w.all[m] = &watched{Machine: m, d: d, w: d.w, site: d.site, name: name}
	}
	return d.w.all[m]
}

func (d *watchedDriver) Start(ctx context.Context, s vmm.Spec, f vmm.Files) (vmm.Machine, error) {
	d.w.mu.Lock()
	m, err := d.Driver.Start(ctx, s, f)
	if err != nil {
		d.w.mu.Unlock()
		return nil, err
	}
	out := d.watch(m, s.Name)
	if others := d.w.runningBut(ctx, s.Name, out); len(others) > 0 {
		d.w.t.Errorf("machine %s is started at %s and runs at %v", s.Name, d.site, others)
	}
	d.w.mu.Unlock()
	d.w.did(d.site + " start")
	return out, nil
}

func (d *watchedDriver) Receive(ctx context.Context, s vmm.Spec, f vmm.Files) (vmm.Machine, vmm.Incoming, error) {
	m, in, err := d.Driver.Receive(ctx, s, f)
	if err != nil {
		return nil, nil, err
	}
	d.w.mu.Lock()
	out := d.watch(m, s.Name)
	d.w.mu.Unlock()
	d.w.did(d.site + " receive")
	return out, watchedIncoming{in, d}, nil
}

func (d *watchedDriver) Attach(ctx context.Context, s vmm.Spec, f vmm.Files) (vmm.Machine, error) {
	m, err := d.Driver.Attach(ctx, s, f)
	if err != nil {
		return nil, err
	}
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	out := d.watch(m, s.Name)
	if left := out.out; left != nil { // a migration ends with the node that led it; the machine stays as it was
		select {
		case <-left.Paused():
			err = left.Cancel(ctx, false)
		default:
			err = left.Cancel(ctx, true)
		}
	}
	return out, err
}

func (d *watchedDriver) Lift(ctx context.Context, s vmm.Spec, f vmm.Files) error {
	m, err := d.Driver.Attach(ctx, s, f)
	if err != nil {
		return nil // nothing lives here
	}
	d.w.mu.Lock()
	watched := d.watch(m, s.Name)
	d.w.mu.Unlock()
	return d.w.begins(ctx, watched, func() error { return d.Driver.Lift(ctx, s, f) })
}

func (d *watchedDriver) Discard(ctx context.Context, s vmm.Spec, f vmm.Files) error {
	err := d.Driver.Discard(ctx, s, f)
	d.w.did(d.site + " discard")
	return err
}

type watchedIncoming struct {
	vmm.Incoming
	d *watchedDriver
}

func (i watchedIncoming) Loaded(ctx context.Context) error {
	err := i.Incoming.Loaded(ctx)
	i.d.w.did(i.d.site + " loaded")
	return err
}

// watched is a machine with a witness.
type watched struct {
	vmm.Machine
	d          *watchedDriver
	w          *witness
	site, name string
	out        vmm.Outgoing // the last one
}

func (m *watched) Verify() error { return m.Machine.(*memvm.Machine).Verify() }

func (m *watched) Resume(ctx context.Context) error {
	err := m.w.begins(ctx, m, func() error { return m.Machine.Resume(ctx) })
	m.w.did(m.site + " resume")
	return err
}

func (m *watched) Pause(ctx context.Context) error {
	err := m.Machine.Pause(ctx)
	m.w.did(m.site + " pause")
	return err
}

// Fence is put far behind: these tests are of the node, which pauses a machine itself.
// On a busy host it may be later than it should be.
func (m *watched) Fence(ctx context.Context, at time.Time) error {
	err := m.Machine.Fence(ctx, at.Add(time.Hour))
	m.w.did(m.site + " fence")
	return err
}

func (m *watched) Outgoing(ctx context.Context, l vmm.Limits) (vmm.Outgoing, error) {
	m.w.did(m.site + " outgoing")
	out, err := m.Machine.Outgoing(ctx, l)
	if err != nil {
		return nil, err
	}
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	m.out = out
	return watchedOutgoing{out, m}, nil
}

type watchedOutgoing struct {
	vmm.Outgoing
	m *watched
}

func (o watchedOutgoing) Finish(ctx context.Context) error {
	o.m.w.did(o.m.site + " finish")
	return o.Outgoing.Finish(ctx)
}

func (o watchedOutgoing) Cancel(ctx context.Context, resume bool) error {
	err := o.m.w.begins(ctx, o.m, func() error { return o.Outgoing.Cancel(ctx, resume) })
	o.m.w.did(o.m.site + " cancel")
	return err
}

var (
	_ vmm.Driver   = (*watchedDriver)(nil)
	_ vmm.Machine  = (*watched)(nil)
	_ vmm.Incoming = watchedIncoming{}
	_ vmm.Outgoing = watchedOutgoing{}
)
