package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/dcnode/dcnode/vmm"
	"github.com/dcnode/dcnode/vmm/nbd"
	"github.com/dcnode/dcnode/vmm/qmp"
)

const (
	defaultDowntime = 300 // milliseconds
	// maxBandwidth in bytes a second keeps QEMU from pacing: the reader does.
	maxBandwidth = 100 << 30
	settle       = 30 * time.Second // for QEMU to end a migration
)

var errCancelled = errors.New("migration cancelled")

// outgoing is the source's half of a migration.
type outgoing struct {
	m          *Machine
	wasRunning bool
	paused     chan struct{}
	quit       chan struct{} // closed by Cancel
	once       sync.Once

	mu     sync.Mutex // held by whoever changes what follows
	disks  []*nbd.Client
	gen    int // generation of the bitmap that records
	first  bool
	stream *reader // nil until Memory
	final  bool    // Finish was called
}

// Outgoing begins a migration away.
func (m *Machine) Outgoing(ctx context.Context, l vmm.Limits) (vmm.Outgoing, error) {
	if m.stuck != "" {
		return nil, fmt.Errorf("migrate %s: %w: %s", m.spec.Name, vmm.ErrCannotMigrate, m.stuck)
	}
	o := &outgoing{m: m, paused: make(chan struct{}), quit: make(chan struct{}), first: true}
	m.mu.Lock()
	if m.out != nil {
		m.mu.Unlock()
		return nil, fmt.Errorf("migrate %s: another migration of it is under way: cancel that first", m.spec.Name)
	}
	m.out = o
	m.mu.Unlock()
	err := o.open(ctx, l)
	if err != nil {
		err = errors.Join(fmt.Errorf("migrate %s: %w", m.spec.Name, err), o.close(context.WithoutCancel(ctx)))
		m.mu.Lock()
		m.out = nil
		m.mu.Unlock()
		return nil, err
	}
	return o, nil
}

// open configures QEMU and begins to track the disks.
func (o *outgoing) open(ctx context.Context, l vmm.Limits) error {
	s, err := o.m.runState(ctx)
	if err != nil {
		return err
	}
	switch {
	case s == "inmigrate":
		return errors.New("its state has not arrived")
	case s == "finish-migrate":
		return errors.New("an earlier migration stopped it and was not ended: resume it first")
	case l.MaxDowntime < 0:
		return errors.New("the longest pause cannot be negative")
	case l.MaxDowntime == 0:
		l.MaxDowntime = defaultDowntime
	}
	o.wasRunning = s == "running"
	if err := o.m.setMigration(ctx, true, map[string]any{
		"max-bandwidth": int64(maxBandwidth), "downtime-limit": min(max(l.MaxDowntime/memoryShare, 1), 2_000_000),
	}); err != nil {
		return err
	}
	if err := o.tellBandwidth(ctx, l.Bandwidth); err != nil {
		return err
	}
	if err := o.track(ctx); err != nil {
		return err
	}
	o.disks, err = o.m.export(ctx, false, nbd.Allocation, nbd.Depth)
	return err
}

// memoryShare: the last pages of memory may take one part in so many of the pause.
// QEMU's limit knows of them only; the rest is for the last disk blocks, the round
// trips and the device state.
const memoryShare = 2

// tellBandwidth says what the link carries. QEMU sees what dcnode takes from it,
// which is much more while pages are found at the destination and not for the last
// ones, which are new. QEMU before 8.2 cannot be told, and guesses.
func (o *outgoing) tellBandwidth(ctx context.Context, bandwidth int64) error {
	if bandwidth <= 0 {
		return nil
	}
	err := o.m.run(ctx, "migrate-set-parameters", map[string]any{"avail-switchover-bandwidth": bandwidth})
	var refused *qmp.Error
	if errors.As(err, &refused) {
		o.m.log.Debug("QEMU is not told the bandwidth", "cause", err)
		return nil
	}
	return err
}

// setMigration sets the capabilities that both sides rely on, and parameters.
func (m *Machine) setMigration(ctx context.Context, source bool, params map[string]any) error {
	caps := []map[string]any{
		{"capability": "events", "state": true},
		{"capability": "pause-before-switchover", "state": source},
		{"capability": "return-path", "state": false},
		{"capability": "multifd", "state": false},
		{"capability": "xbzrle", "state": false},
	}
	if err := m.run(ctx, "migrate-set-capabilities", map[string]any{"capabilities": caps}); err != nil {
		return err
	}
	if len(params) == 0 {
		return nil
	}
	return m.run(ctx, "migrate-set-parameters", params)
}

func (o *outgoing) isPaused() bool {
	select {
	case <-o.paused:
		return true
	default:
		return false
	}
}

// begin locks the migration for one call, whose context then also ends with Cancel.
func (o *outgoing) begin(ctx context.Context) (context.Context, func(), error) {
	o.mu.Lock()
	select {
	case <-o.quit:
		o.mu.Unlock()
		return nil, nil, errCancelled
	default:
	}
	ctx, cancel := context.WithCancelCause(ctx)
	over := make(chan struct{})
	go func() {
		select {
		case <-o.quit:
			cancel(errCancelled)
		case <-over:
		}
	}()
	return ctx, func() { close(over); cancel(nil); o.mu.Unlock() }, nil
}

// ReadDisk reads through the NBD export.
func (o *outgoing) ReadDisk(ctx context.Context, disk int, p []byte, off int64) error {
	ctx, end, err := o.begin(ctx)
	if err != nil {
		return fmt.Errorf("read disk %d: %w", disk, err)
	}
	defer end()
	switch {
	case o.final:
		return errors.New("disks can no longer be read: the migration is finished")
	case disk < 0 || disk >= len(o.disks):
		return fmt.Errorf("read disk %d: the machine has %d", disk, len(o.disks))
	}
	if err := o.disks[disk].ReadAt(ctx, p, off); err != nil {
		return fmt.Errorf("read disk %d: %w", disk, o.m.whyNBD(err, o.disks[disk]))
	}
	return nil
}

// Memory tells QEMU to write its stream to one end of a socket pair.
func (o *outgoing) Memory(ctx context.Context) (io.ReadCloser, error) {
	ctx, end, err := o.begin(ctx)
	if err != nil {
		return nil, fmt.Errorf("send memory: %w", err)
	}
	defer end()
	if o.stream != nil {
		return nil, errors.New("send memory: it is being sent already")
	}
	conn, err := o.m.pass(ctx, "dcnode-out", true)
	if err != nil {
		return nil, fmt.Errorf("send memory: %w", err)
	}
	o.m.migration.set("setup")
	if err := o.m.run(ctx, "migrate", map[string]any{"uri": "fd:dcnode-out"}); err != nil {
		conn.Close()
		return nil, fmt.Errorf("send memory: %w", err)
	}
	o.stream = &reader{m: o.m, conn: conn, evicted: make(chan struct{})}
	go o.watch()
	return o.stream, nil
}

// watch closes paused when QEMU has stopped the machine.
func (o *outgoing) watch() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-o.quit:
			cancel()
		case <-ctx.Done():
		}
	}()
	s, err := o.m.await(ctx, func(s string) bool { return s == "pre-switchover" || terminal(s) })
	if err == nil && s == "pre-switchover" {
		close(o.paused)
	}
}

func (o *outgoing) Paused() <-chan struct{} { return o.paused }

// Finish removes the exports, which would keep QEMU from giving its images away,
// and lets it go on.
func (o *outgoing) Finish(ctx context.Context) error {
	ctx, end, err := o.begin(ctx)
	if err != nil {
		return fmt.Errorf("finish migration: %w", err)
	}
	defer end()
	if !o.isPaused() {
		return errors.New("finish migration: the machine is not paused yet")
	}
	if o.final {
		return nil
	}
	if err := o.unexport(ctx); err != nil {
		return fmt.Errorf("finish migration: %w", err)
	}
	if err := o.m.run(ctx, "migrate-continue", map[string]any{"state": "pre-switchover"}); err != nil {
		return fmt.Errorf("finish migration: %w", err)
	}
	o.final = true
	return nil
}

// unexport closes the connections and stops the NBD server with its exports.
func (o *outgoing) unexport(ctx context.Context) error {
	for _, c := range o.disks {
		c.Close()
	}
	had := o.disks != nil
	o.disks = nil
	if !had {
		return nil
	}
	return o.m.stopNBD(ctx)
}

// Downtime asks QEMU.
func (o *outgoing) Downtime() int64 {
	info, err := o.m.queryMigrate(context.Background()) // within the monitor's own deadline
	if err != nil || info.Status != "completed" {
		return 0
	}
	return info.Downtime
}

// Cancel ends the migration at whatever point it is.
func (o *outgoing) Cancel(ctx context.Context, resume bool) error {
	o.once.Do(func() { close(o.quit) })
	o.mu.Lock()
	defer o.mu.Unlock()
	o.m.mu.Lock()
	mine := o.m.out == o
	o.m.mu.Unlock()
	if !mine {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	err := o.settle(ctx, resume)
	if cerr := o.close(ctx); err == nil {
		err = cerr
	}
	if err == nil && (!resume || o.wasRunning) {
		err = o.m.settleState(ctx, resume)
	}
	if errors.Is(err, vmm.ErrGone) {
		err = nil // nothing is left that could be cancelled
	}
	if err != nil {
		return fmt.Errorf("cancel migration of %s: %w", o.m.spec.Name, err)
	}
	o.m.mu.Lock()
	o.m.out, o.m.wires = nil, nil
	o.m.mu.Unlock()
	return nil
}

// settle ends what QEMU is doing. Only with resume may it be told to cancel after
// it has stopped the machine: it would let it run again.
func (o *outgoing) settle(ctx context.Context, resume bool) error {
	if o.stream == nil {
		return nil
	}
	o.stream.evict()
	defer o.stream.conn.Close()
	info, err := o.m.queryMigrate(ctx)
	if err != nil || terminal(info.Status) {
		return o.m.why(err)
	}
	stopped := info.Status == "pre-switchover" || info.Status == "device"
	if resume || !stopped {
		if err := o.m.run(ctx, "migrate_cancel", nil); err != nil {
			return err
		}
		_, err := o.m.await(ctx, terminal)
		return err
	}
	go o.stream.sink()
	if info.Status == "pre-switchover" {
		if err := o.unexport(ctx); err != nil {
			return err
		}
		err := o.m.run(ctx, "migrate-continue", map[string]any{"state": "pre-switchover"})
		var refused *qmp.Error
		if err != nil && !errors.As(err, &refused) {
			return err
		}
	}
	_, err = o.m.await(ctx, terminal)
	return err
}

// close removes what the migration put into QEMU.
func (o *outgoing) close(ctx context.Context) error {
	err := o.unexport(ctx)
	if rerr := o.m.removeBitmaps(ctx); err == nil {
		err = rerr
	}
	return err
}

// undo ends a migration that nobody holds any more.
func (m *Machine) undo(ctx context.Context, resume bool) error {
	if err := m.run(ctx, "migrate_cancel", nil); err != nil {
		return err
	}
	if _, err := m.await(ctx, terminal); err != nil {
		return err
	}
	return m.settleState(ctx, resume)
}

// settleState makes the machine run or stand, once QEMU has left the migration's
// own run state, which comes a moment after the migration's end.
func (m *Machine) settleState(ctx context.Context, running bool) error {
	for {
		s, err := m.runState(ctx)
		switch {
		case err != nil:
			return err
		case s == "finish-migrate":
			t := time.NewTimer(2 * time.Millisecond)
			select {
			case <-t.C:
				continue
			case <-ctx.Done():
				t.Stop()
				return context.Cause(ctx)
			}
		case running && s != "running":
			return m.run(ctx, "cont", nil)
		case !running && s == "running":
			return m.run(ctx, "stop", nil)
		}
		return nil
	}
}
