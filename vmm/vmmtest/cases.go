package vmmtest

import (
	"errors"
	"io"
	"slices"

	"github.com/dcnode/dcnode/vmm"
)

func pauseAndResume(f *fixture) {
	m, files := f.start()
	f.is(m, vmm.Running)
	f.must(m.Pause(f.ctx))
	f.stands(m, files)
	f.must(m.Pause(f.ctx)) // twice is once
	f.must(m.Resume(f.ctx))
	f.more(files)
	f.is(m, vmm.Running)
	f.contiguous(files)
}

func stopAndStart(f *fixture) {
	m, files := f.start()
	f.must(m.Pause(f.ctx)) // nobody to be polite to
	f.must(m.Stop(f.ctx))
	<-m.Done()
	f.is(m, vmm.Ended)
	if err := m.Resume(f.ctx); !errors.Is(err, vmm.ErrGone) {
		f.Errorf("resume of a stopped machine: %v, want ErrGone", err)
	}
	if _, err := m.Outgoing(f.ctx, vmm.Limits{}); !errors.Is(err, vmm.ErrGone) {
		f.Errorf("migration of a stopped machine: %v, want ErrGone", err)
	}
	f.must(m.Stop(f.ctx))
	if _, err := f.driver.Attach(f.ctx, f.Spec, files); !errors.Is(err, vmm.ErrGone) {
		f.Errorf("attach to a stopped machine: %v, want ErrGone", err)
	}
	if f.Check != nil {
		f.must(f.Check(f.T, f.Spec, files))
	}
	before := f.Image(f.T, files, 0)
	m, err := f.driver.Start(f.ctx, f.Spec, files)
	f.must(err)
	f.must(m.Pause(f.ctx))
	if after := f.Image(f.T, files, 0); len(after) != len(before) {
		f.Errorf("disk of %d bytes has %d after the restart", len(before), len(after))
	}
	f.must(m.Resume(f.ctx))
	f.more(files)
}

func secondStart(f *fixture) {
	m, files := f.start()
	if _, err := f.driver.Start(f.ctx, f.Spec, files); err == nil {
		f.Error("started a second machine where one runs")
	}
	f.is(m, vmm.Running)
	f.more(files)
}

// leave moves a machine up to the point where both sides stand.
func (f *fixture) leave(src vmm.Machine, from vmm.Files) (vmm.Machine, vmm.Files, vmm.Outgoing) {
	f.Helper()
	to := f.files()
	dst, in, err := f.driver.Receive(f.ctx, f.Spec, to)
	f.must(err)
	out, err := src.Outgoing(f.ctx, vmm.Limits{})
	f.must(err)
	moved, err := Migrate(f.ctx, out, in, func() error {
		if st, _ := src.State(f.ctx); st == vmm.Running {
			f.more(from) // so that disks change during the migration
		}
		return nil
	})
	f.must(err)
	f.Logf("moved: %+v", moved)
	if moved.Disk == 0 || moved.Memory == 0 {
		f.Errorf("moved nothing: %+v", moved)
	}
	f.is(src, vmm.Paused)
	f.is(dst, vmm.Paused)
	f.sameDisks(from, to)
	return dst, to, out
}

func move(f *fixture) {
	src, from := f.start()
	dst, to, out := f.leave(src, from)
	f.stands(src, from)
	f.must(out.Cancel(f.ctx, false))
	f.must(src.Stop(f.ctx))
	f.must(dst.Resume(f.ctx))
	f.is(dst, vmm.Running)
	f.ticks(to, f.last(from)+5)
	f.contiguous(from, to)
}

func movePaused(f *fixture) {
	src, from := f.start()
	f.must(src.Pause(f.ctx))
	dst, to, out := f.leave(src, from)
	f.must(out.Cancel(f.ctx, false))
	f.must(dst.Resume(f.ctx))
	f.ticks(to, f.last(from)+5)
	f.contiguous(from, to)
}

func moveBack(f *fixture) {
	src, from := f.start()
	mid, via, out := f.leave(src, from)
	f.must(out.Cancel(f.ctx, false))
	f.must(src.Stop(f.ctx))
	f.must(mid.Resume(f.ctx))
	f.ticks(via, f.last(from)+5)
	dst, to, out := f.leave(mid, via)
	f.must(out.Cancel(f.ctx, false))
	f.must(dst.Resume(f.ctx))
	f.ticks(to, f.last(via)+5)
	f.contiguous(from, via, to)
}

// under begins a migration whose stream nobody has read yet.
func (f *fixture) under(src vmm.Machine) (vmm.Outgoing, io.ReadCloser) {
	f.Helper()
	out, err := src.Outgoing(f.ctx, vmm.Limits{})
	f.must(err)
	_, err = out.Changes(f.ctx)
	f.must(err)
	r, err := out.Memory(f.ctx)
	f.must(err)
	return out, r
}

// paused reads a migration's stream up to the pause.
func (f *fixture) paused(src vmm.Machine) (vmm.Outgoing, io.ReadCloser) {
	f.Helper()
	out, r := f.under(src)
	go io.Copy(io.Discard, r)
	select {
	case <-out.Paused():
	case <-f.ctx.Done():
		f.Fatal("the machine was never paused")
	}
	_, err := out.Changes(f.ctx)
	f.must(err)
	if again, err := out.Changes(f.ctx); err != nil || len(again) > 0 {
		f.Errorf("changes after the final ones: %v, %v", again, err)
	}
	return out, r
}

func cancelEarly(f *fixture) {
	src, from := f.start()
	out, err := src.Outgoing(f.ctx, vmm.Limits{}) // before anything
	f.must(err)
	f.must(out.Cancel(f.ctx, true))
	f.more(from)
	out, r := f.under(src) // in the middle of memory
	_, err = io.ReadFull(r, make([]byte, 64<<10))
	f.must(err)
	f.must(out.Cancel(f.ctx, true))
	f.must(out.Cancel(f.ctx, true)) // twice is once
	if n, err := io.Copy(io.Discard, r); err == nil {
		f.Errorf("stream of a cancelled migration ends well after %d bytes more", n)
	}
	if _, err := out.Changes(f.ctx); err == nil {
		f.Error("a cancelled migration lists changes")
	}
	f.is(src, vmm.Running)
	f.more(from)
	_, to, out := f.leave(src, from) // nothing is in the way
	f.must(out.Cancel(f.ctx, false))
	_ = to
}

func cancelPausedResume(f *fixture) {
	src, from := f.start()
	out, _ := f.paused(src)
	f.stands(src, from)
	f.must(out.Cancel(f.ctx, true))
	f.is(src, vmm.Running)
	f.more(from)
	f.contiguous(from)
}

func cancelPausedStay(f *fixture) {
	src, from := f.start()
	out, _ := f.paused(src)
	at := f.last(from)
	f.must(out.Cancel(f.ctx, false))
	f.stands(src, from)
	if now := f.last(from); now != at {
		f.Errorf("guest ran from tick %d to %d while the migration was cancelled", at, now)
	}
	f.must(src.Resume(f.ctx))
	f.more(from)
	f.contiguous(from)
}

func cancelFinished(f *fixture) {
	src, from := f.start()
	out, err := src.Outgoing(f.ctx, vmm.Limits{})
	f.must(err)
	r, err := out.Memory(f.ctx)
	f.must(err)
	read := make(chan error, 1)
	go func() { _, err := io.Copy(io.Discard, r); read <- err }()
	<-out.Paused()
	if err := out.Finish(f.ctx); err != nil {
		f.Fatal(err)
	}
	f.must(<-read)
	if err := out.ReadDisk(f.ctx, 0, make([]byte, 4096), 0); err == nil {
		f.Error("disk can be read after Finish")
	}
	f.stands(src, from)
	f.must(out.Cancel(f.ctx, true))
	f.is(src, vmm.Running)
	f.more(from)
	f.contiguous(from)
}

func cancelOfPaused(f *fixture) {
	src, from := f.start()
	f.must(src.Pause(f.ctx))
	out, _ := f.paused(src)
	f.must(out.Cancel(f.ctx, true))
	f.stands(src, from)
	f.must(src.Resume(f.ctx))
	f.more(from)
}

func lostReader(f *fixture) {
	src, from := f.start()
	out, r := f.paused(src)
	at := f.last(from)
	f.must(r.Close())
	f.must(out.Finish(f.ctx)) // the link is lost, but this side does not know yet
	f.stands(src, from)
	f.must(out.Cancel(f.ctx, false))
	f.stands(src, from)
	if now := f.last(from); now != at {
		f.Errorf("guest ran from tick %d to %d after it was given away", at, now)
	}
	f.must(src.Resume(f.ctx))
	f.more(from)
}

func twoMigrations(f *fixture) {
	src, from := f.start()
	out, err := src.Outgoing(f.ctx, vmm.Limits{})
	f.must(err)
	if _, err := src.Outgoing(f.ctx, vmm.Limits{}); err == nil {
		f.Error("began a second migration beside the first")
	}
	if err := out.Finish(f.ctx); err == nil {
		f.Error("finished a migration that has not paused the machine")
	}
	f.must(out.Cancel(f.ctx, true))
	f.more(from)
}

func cutStream(f *fixture) {
	src, _ := f.start()
	dst, in, err := f.driver.Receive(f.ctx, f.Spec, f.files())
	f.must(err)
	w, err := in.Memory(f.ctx)
	f.must(err)
	out, r := f.under(src)
	_, err = io.CopyN(w, r, 300<<10)
	f.must(err)
	f.must(w.Close())
	if err := in.Loaded(f.ctx); err == nil {
		f.Error("loaded a stream that was cut")
	} else if f.ctx.Err() != nil {
		f.Errorf("load hangs: %v", err)
	}
	if err := dst.Resume(f.ctx); err == nil {
		f.Error("half a machine runs")
	}
	f.must(out.Cancel(f.ctx, true))
	f.is(src, vmm.Running)
}

func receiverDies(f *fixture) {
	src, from := f.start()
	dst, in, err := f.driver.Receive(f.ctx, f.Spec, f.files())
	f.must(err)
	out, r := f.under(src)
	w, err := in.Memory(f.ctx)
	f.must(err)
	_, err = io.CopyN(w, r, 300<<10)
	f.must(err)
	loaded := make(chan error, 1)
	go func() { loaded <- in.Loaded(f.ctx) }()
	f.must(dst.Stop(f.ctx))
	if err := <-loaded; !errors.Is(err, vmm.ErrGone) {
		f.Errorf("load: %v, want ErrGone", err)
	}
	if err := in.WriteDisk(f.ctx, 0, make([]byte, 4096), 0); !errors.Is(err, vmm.ErrGone) {
		f.Errorf("write disk: %v, want ErrGone", err)
	}
	if _, err := io.Copy(w, r); !errors.Is(err, vmm.ErrGone) {
		f.Errorf("write memory: %v, want ErrGone", err)
	}
	w.Close()
	f.is(src, vmm.Running)
	f.must(out.Cancel(f.ctx, true))
	f.more(from)
	f.contiguous(from)
}

func arriving(f *fixture) {
	files := f.files()
	dst, in, err := f.driver.Receive(f.ctx, f.Spec, files)
	f.must(err)
	f.is(dst, vmm.Arriving)
	if err := dst.Resume(f.ctx); err == nil {
		f.Error("a machine without state was resumed")
	}
	if err := dst.Pause(f.ctx); err == nil {
		f.Error("a machine without state was paused")
	}
	if _, err := dst.Outgoing(f.ctx, vmm.Limits{}); err == nil {
		f.Error("a machine without state leaves")
	}
	size := f.Disks[0].Size
	for _, off := range []int64{-4096, size, size - 2048} {
		if err := in.WriteDisk(f.ctx, 0, make([]byte, 4096), off); err == nil {
			f.Errorf("wrote 4096 bytes at %d of a disk of %d", off, size)
		}
	}
	if err := in.WriteDisk(f.ctx, len(f.Disks), make([]byte, 4096), 0); err == nil {
		f.Error("wrote to a disk that is not there")
	}
	f.must(dst.Stop(f.ctx))
}

func receiveAgain(f *fixture) {
	files := f.files()
	dst, in, err := f.driver.Receive(f.ctx, f.Spec, files)
	f.must(err)
	mark := slices.Repeat([]byte{0xa5}, 8192)
	f.must(in.WriteDisk(f.ctx, 0, mark, 4096))
	f.must(in.ZeroDisk(f.ctx, 0, 8192, 4096))
	f.must(in.Flush(f.ctx))
	f.must(dst.Stop(f.ctx))
	got := f.Image(f.T, files, 0)
	if !slices.Equal(got[4096:8192], mark[:4096]) || slices.Max(got[8192:12288]) != 0 {
		f.Error("disk does not hold what was written")
	}
	dst, _, err = f.driver.Receive(f.ctx, f.Spec, files)
	f.must(err)
	f.must(dst.Stop(f.ctx))
	if got := f.Image(f.T, files, 0); slices.Equal(got[4096:8192], mark[:4096]) {
		f.Error("second arrival finds what the first had written")
	}
}

func discard(f *fixture) {
	_, files := f.start()
	f.must(f.driver.Discard(f.ctx, f.Spec, files))
	if left := f.leftovers(files); !slices.Equal(left, []string{"console.log"}) {
		f.Errorf("left behind: %v", left)
	}
	f.must(f.driver.Discard(f.ctx, f.Spec, files)) // nothing there is no error
	if _, err := f.driver.Attach(f.ctx, f.Spec, files); !errors.Is(err, vmm.ErrGone) {
		f.Errorf("attach to a discarded machine: %v, want ErrGone", err)
	}
}

func attach(f *fixture) {
	m, files := f.start()
	again, err := f.driver.Attach(f.ctx, f.Spec, files)
	f.must(err)
	if again != m {
		f.Error("attached to another than the machine that lives")
	}
	stranger := f.Spec
	stranger.Name = "stranger"
	if _, err := f.driver.Attach(f.ctx, stranger, files); err == nil {
		f.Error("attached to a machine under another name")
	}
	if f.LetGo == nil {
		if _, err := f.New(f.T).Attach(f.ctx, f.Spec, files); !errors.Is(err, vmm.ErrGone) {
			f.Errorf("another driver attaches: %v, want ErrGone", err)
		}
		return
	}
	f.LetGo(f.driver)
	f.driver = f.New(f.T)
	m, err = f.driver.Attach(f.ctx, f.Spec, files)
	f.must(err)
	f.is(m, vmm.Running)
	f.more(files)
	f.must(m.Pause(f.ctx))
	f.stands(m, files)
	f.contiguous(files)
	f.LetGo(f.driver)
	f.driver = f.New(f.T)
	f.must(f.driver.Discard(f.ctx, f.Spec, files)) // without having attached
	if left := f.leftovers(files); !slices.Equal(left, []string{"console.log"}) {
		f.Errorf("left behind: %v", left)
	}
}

func diedMigrating(f *fixture) {
	if f.LetGo == nil {
		f.Skip("machines of this driver die with it")
	}
	src, from := f.start()
	f.under(src)
	f.LetGo(f.driver)
	f.driver = f.New(f.T)
	src, err := f.driver.Attach(f.ctx, f.Spec, from)
	f.must(err)
	f.is(src, vmm.Running)
	f.more(from)
	f.paused(src) // and once more, in the pause
	f.LetGo(f.driver)
	f.driver = f.New(f.T)
	src, err = f.driver.Attach(f.ctx, f.Spec, from)
	f.must(err)
	f.stands(src, from)
	f.must(src.Resume(f.ctx))
	f.more(from)
	dst, to, out := f.leave(src, from)
	f.must(out.Cancel(f.ctx, false))
	f.must(dst.Resume(f.ctx))
	f.ticks(to, f.last(from)+5)
	f.contiguous(from, to)
}
