package qemu

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/dcnode/dcnode/vmm"
	"github.com/dcnode/dcnode/vmm/fence"
	"github.com/dcnode/dcnode/vmm/qmp"
)

const (
	startDeadline = 20 * time.Second
	politeStop    = 5 * time.Second
	quitDeadline  = 3 * time.Second
)

// Machine is one QEMU process.
type Machine struct {
	spec  vmm.Spec
	files vmm.Files
	paths paths
	log   *slog.Logger
	call  time.Duration
	stuck string // why it must not migrate from here, or empty
	logAt int64  // where this process's part of qemu.log begins

	mon       *qmp.Client
	proc      *process
	migration *tracker
	forget    func(then func())
	done      chan struct{} // closed when the process has ended
	left      chan struct{} // closed when the driver let go of it

	mu    sync.Mutex
	out   *outgoing
	wires []net.Conn // our ends of the memory streams
	wrote wroteSince
	fresh bool // its QEMU was started for it by this process

	features []string      // of the CPU; nil: not asked yet
	looking  chan struct{} // of size 1, held by whoever looks into memory
	watching chan struct{} // likewise, by whoever has QEMU measure how it changes
}

func newMachine(s vmm.Spec, f vmm.Files, p paths, cfg Config) *Machine {
	return &Machine{
		spec: s, files: f, paths: p, log: cfg.Log.With("machine", s.Name), call: cfg.Call,
		migration: newTracker(), done: make(chan struct{}), left: make(chan struct{}), looking: make(chan struct{}, 1), watching: make(chan struct{}, 1),
	}
}

// start runs the process and connects; on error nothing of it is left.
func (m *Machine) start(ctx context.Context, binary string, args []string, guard *fence.Fence) error {
	m.logAt = size(m.paths.log())
	cmd, reaped, err := spawn(binary, args, m.paths.log(), guard)
	if err != nil {
		return errors.Join(err, m.paths.removeRuntime())
	}
	ctx, cancel := context.WithTimeout(ctx, startDeadline)
	defer cancel()
	if s, err := stamp(cmd.Process.Pid); err == nil {
		err = os.WriteFile(m.paths.pid(), []byte(s), 0o600)
		if err != nil {
			m.log.Warn("no pid file", "err", err)
		}
	}
	mon, err := dialNew(ctx, m.paths.qmp(), reaped, m.call)
	if err == nil {
		err = m.adopt(ctx, mon)
	}
	if err != nil {
		_ = cmd.Process.Kill() // ours and not reaped yet, or an error that says so
		<-reaped
		err = errors.Join(fmt.Errorf("%w%s", err, m.words()), m.paths.removeRuntime())
	}
	return err
}

// attach connects to a process that lives already and clears away what a migration
// of the one before left behind.
func (m *Machine) attach(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startDeadline)
	defer cancel()
	m.logAt = size(m.paths.log())
	if err := m.paths.fallen(); err != nil {
		return err
	}
	mon, err := dialBusy(ctx, m.paths.qmp(), m.call)
	if err != nil {
		if notYet(err) {
			return fmt.Errorf("%w: nothing answers in %s", vmm.ErrGone, m.paths.dir)
		}
		return cmp.Or(m.paths.fallen(), err)
	}
	var id struct{ UUID string }
	err = mon.Execute(ctx, "query-uuid", nil, &id)
	if want := guestUUID(m.spec.Name); err == nil && id.UUID != want {
		err = fmt.Errorf("the QEMU in %s is another machine (uuid %s, not %s)", m.paths.dir, id.UUID, want)
	}
	if err == nil {
		err = m.adopt(ctx, mon)
	}
	if err != nil {
		mon.Disconnect()
		return err
	}
	info, err := m.queryMigrate(ctx)
	if err == nil {
		m.migration.set(info.Status)
		err = m.tidy(ctx)
	}
	if err != nil {
		m.letGo()
	}
	return err
}

// adopt makes a connected monitor and its process this machine's.
func (m *Machine) adopt(ctx context.Context, mon monitor) error {
	var kvm struct{ Enabled bool }
	if err := mon.Execute(ctx, "query-kvm", nil, &kvm); err != nil {
		return err
	}
	v := mon.Version()
	m.stuck = stuck(v.String(), v.QEMU.Major, kvm.Enabled)
	sub, err := mon.Subscribe(1024)
	if err != nil {
		return err
	}
	if m.proc, err = holdPeer(mon.conn); err != nil {
		return err
	}
	m.mon = mon.Client
	go m.follow(sub)
	go m.watch()
	return nil
}

// watch ends the machine when its process has ended.
func (m *Machine) watch() {
	ended := m.proc.watch()
	m.mon.Disconnect()
	m.proc.release()
	m.mu.Lock()
	for _, w := range m.wires {
		w.Close()
	}
	m.mu.Unlock()
	if !ended {
		m.forget(func() { close(m.left) })
		return
	}
	if err := m.paths.removeRuntime(); err != nil {
		m.log.Warn("clear up after QEMU", "err", err)
	}
	m.forget(func() { close(m.done) })
}

// letGo forgets a machine that runs on.
func (m *Machine) letGo() {
	m.proc.release()
	select {
	case <-m.left:
	case <-m.done:
	}
}

// words are QEMU's last, to be appended to an error.
func (m *Machine) words() string {
	if w := lastWords(m.paths.log(), m.logAt); w != "" {
		return ": " + w
	}
	return ""
}

func (m *Machine) gone() error {
	return fmt.Errorf("machine %s: %w%s", m.spec.Name, vmm.ErrGone, m.words())
}

// why turns the loss of the connection into the end of the machine, if that is
// the cause; it gives the process a moment to be seen dead.
func (m *Machine) why(err error) error {
	var refused *qmp.Error
	if err == nil || errors.As(err, &refused) {
		return err
	}
	if m.mon.Err() == nil || !waitEnd(context.Background(), m.done, time.Second) {
		return err
	}
	return m.gone()
}

func (m *Machine) run(ctx context.Context, cmd string, args any) error {
	return m.why(m.mon.Execute(ctx, cmd, args, nil))
}

func (m *Machine) runState(ctx context.Context) (string, error) {
	var st struct{ Status string }
	err := m.mon.Execute(ctx, "query-status", nil, &st)
	return st.Status, m.why(err)
}

// State asks QEMU.
func (m *Machine) State(ctx context.Context) (vmm.State, error) {
	select {
	case <-m.done:
		return vmm.Ended, nil
	default:
	}
	if still, err := fence.Stopped(m.proc.pid); err == nil && still {
		return vmm.Fenced, nil
	}
	s, err := m.runState(ctx)
	still, _ := fence.Stopped(m.proc.pid)
	switch {
	case errors.Is(err, vmm.ErrGone):
		return vmm.Ended, nil
	case err != nil && still: // while it was asked
		return vmm.Fenced, nil
	case err != nil:
		return "", fmt.Errorf("ask %s for its state: %w", m.spec.Name, err)
	}
	return stateOf(s), nil
}

// Pause stops the CPUs and drains block I/O.
func (m *Machine) Pause(ctx context.Context) error {
	s, err := m.runState(ctx)
	if err == nil && s == "inmigrate" {
		err = errors.New("it waits for its state")
	}
	if err == nil && s == "running" {
		err = m.run(ctx, "stop", nil)
	}
	if err != nil {
		return fmt.Errorf("pause %s: %w", m.spec.Name, err)
	}
	return nil
}

// Resume lets the CPUs run.
func (m *Machine) Resume(ctx context.Context) error {
	m.mu.Lock()
	out := m.out
	m.mu.Unlock()
	s, err := m.runState(ctx)
	switch {
	case err != nil:
	case s == "inmigrate":
		err = errors.New("its state has not arrived")
	case out != nil && out.isPaused():
		err = errors.New("it is about to leave: cancel the migration first")
	case s == "finish-migrate": // left so by a daemon that died
		err = m.undo(ctx, true)
	case s != "running":
		err = m.run(ctx, "cont", nil)
		m.mu.Lock()
		if m.fresh && m.wrote.at.IsZero() { // it has written nothing here
			m.wrote.at = time.Now()
		}
		m.mu.Unlock()
	}
	if err != nil {
		return fmt.Errorf("resume %s: %w", m.spec.Name, err)
	}
	return nil
}

// Stop ends the machine: by the power button if it runs and heeds it, else by quit,
// else by SIGKILL.
func (m *Machine) Stop(ctx context.Context) error {
	if s, err := m.State(ctx); err == nil && s == vmm.Running {
		wait := politeStop
		if by, ok := ctx.Deadline(); ok {
			wait = min(wait, time.Until(by)/2)
		}
		if m.run(ctx, "system_powerdown", nil) == nil && waitEnd(ctx, m.done, wait) {
			return nil
		}
	}
	return m.end(ctx)
}

// end ends the process by force; it does not heed ctx's end, only its own deadlines.
func (m *Machine) end(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	quit, cancel := context.WithTimeout(ctx, quitDeadline)
	defer cancel()
	if still, _ := fence.Stopped(m.proc.pid); !still {
		_ = m.mon.Execute(quit, "quit", nil, nil) // what matters is whether it ends
		if waitEnd(ctx, m.done, quitDeadline) {
			return nil
		}
	}
	if err := m.proc.kill(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("stop %s: kill: %w", m.spec.Name, err)
	}
	if !waitEnd(ctx, m.done, quitDeadline) {
		return fmt.Errorf("stop %s: process %d does not end: see whether its storage hangs", m.spec.Name, m.proc.pid)
	}
	return nil
}

// Done is closed when QEMU's process has ended.
func (m *Machine) Done() <-chan struct{} { return m.done }
