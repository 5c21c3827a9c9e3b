package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/dcnode/dcnode/vmm"
	"github.com/dcnode/dcnode/vmm/fence"
	"golang.org/x/sys/unix"
)

// Fence arms the guard that was started with the process; only a machine that was
// received has one.
func (m *Machine) Fence(ctx context.Context, at time.Time) error {
	if err := fence.Arm(ctx, m.paths.fence(), at); err != nil {
		return fmt.Errorf("fence %s: %w", m.spec.Name, err)
	}
	return nil
}

// Lift ends the guard of the process in f.Dir. Where there is none any more, its end may
// have stopped the process.
func (d *Driver) Lift(ctx context.Context, s vmm.Spec, f vmm.Files) error {
	p, err := resolve(f)
	if err == nil {
		err = fence.Lift(ctx, p.fence())
	}
	if errors.Is(err, fence.ErrNoGuard) {
		err = errors.Join(p.goOn(), remove(p.fence()))
	}
	if err != nil {
		return fmt.Errorf("lift the fence of %s: %w", s.Name, err)
	}
	return nil
}

// goOn lets the process that lives here run on if it stands still, or is about to: the
// stop that a dying guard leaves behind may not show yet, and a continue takes it back.
func (p paths) goOn() error {
	pr, err := p.living()
	if pr == nil || err != nil {
		return err
	}
	defer pr.release()
	return pr.signal(unix.SIGCONT)
}

// fallen is ErrFenced if the process that lives here stands still.
func (p paths) fallen() error {
	pr, err := p.still()
	if pr == nil || err != nil {
		return nil // who asks finds out by talking to it
	}
	defer pr.release()
	return fmt.Errorf("%w: process %d in %s", vmm.ErrFenced, pr.pid, p.dir)
}

// still is the process that lives here, if it stands still; else nil. Its monitor is
// not connected to for that: the connection would stay in its queue.
func (p paths) still() (*process, error) {
	pr, err := p.living()
	if pr == nil || err != nil {
		return nil, err
	}
	still, err := fence.Stopped(pr.pid)
	if err != nil || !still {
		pr.release()
		return nil, err
	}
	return pr, nil
}

// living is the process that lives here, or nil.
func (p paths) living() (*process, error) {
	pr, err := holdByFile(p.pid())
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrProcessDone) || isNoProcess(err) {
		return nil, nil
	}
	return pr, err
}
