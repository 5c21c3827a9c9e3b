package vmmtest

import (
	"errors"
	"time"

	"github.com/dcnode/dcnode/vmm"
)

// arrived moves a machine and runs it at the other side.
func (f *fixture) arrived() (dst vmm.Machine, from, to vmm.Files) {
	f.Helper()
	src, from := f.start()
	dst, to, out := f.leave(src, from)
	f.must(out.Cancel(f.ctx, false))
	f.must(src.Stop(f.ctx))
	f.must(dst.Resume(f.ctx))
	f.ticks(to, f.last(from)+5)
	return dst, from, to
}

func fenceLifted(f *fixture) {
	dst, from, to := f.arrived()
	f.must(dst.Fence(f.ctx, time.Now().Add(time.Hour)))
	f.more(to)
	f.must(f.driver.Lift(f.ctx, f.Spec, to))
	f.must(f.driver.Lift(f.ctx, f.Spec, to)) // and once more: there is none
	f.is(dst, vmm.Running)
	f.more(to)
	f.contiguous(from, to)
}

func fenceFalls(f *fixture) {
	dst, from, to := f.arrived()
	if err := dst.Fence(f.ctx, time.Now()); err == nil {
		f.Error("fenced from a time on that has passed")
	}
	for wait := time.Second; ; wait *= 2 { // it may have passed on a busy host, which is refused
		err := dst.Fence(f.ctx, time.Now().Add(wait))
		if err == nil {
			break
		}
		if wait > time.Minute {
			f.must(err)
		}
	}
	for st := vmm.Running; st != vmm.Fenced; {
		var err error
		st, err = dst.State(f.ctx)
		f.must(err)
	}
	f.silent(to)
	if f.LetGo != nil { // nobody is left who knows of it
		f.LetGo(f.driver)
		f.driver = f.New(f.T)
		if _, err := f.driver.Attach(f.ctx, f.Spec, to); !errors.Is(err, vmm.ErrFenced) {
			f.Errorf("attach: %v, want ErrFenced", err)
		}
		f.silent(to)
	}
	f.must(f.driver.Lift(f.ctx, f.Spec, to))
	dst, err := f.driver.Attach(f.ctx, f.Spec, to)
	f.must(err)
	f.is(dst, vmm.Running)
	f.more(to)
	f.contiguous(from, to)
	f.must(dst.Pause(f.ctx))
	f.stands(dst, to)
}
