package main

import (
	"context"
	"io"
	"os"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// period is the time from one tick to the next.
const period = 10 * time.Millisecond

// tick prints ticks until ctx ends. It runs on a thread of its own before all
// others in a guest, so that a late tick is the machine's fault and
// not the workload's. Ticks that are due while the machine stands still are
// left out, but not numbered: the numbers say that nothing of the guest's own
// history is missing, their times how long it stood still.
func tick(ctx context.Context, out io.Writer) {
	runtime.LockOSThread()
	if os.Getpid() == 1 {
		first := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 10}
		_ = unix.SchedSetAttr(0, &first, 0)
	}
	line := make([]byte, 0, 32)
	due := now()
	for n := uint64(1); ctx.Err() == nil; n++ {
		line = append(strconv.AppendUint(append(line[:0], "tick "...), n, 10), '\n')
		if _, err := out.Write(line); err != nil {
			return
		}
		due += period
		if late := now() - due; late > 0 {
			due += late - late%period
		}
		sleepUntil(due)
	}
}

// now is the time of CLOCK_MONOTONIC.
func now() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return time.Duration(t.Nano())
}

func sleepUntil(due time.Duration) {
	t := unix.NsecToTimespec(int64(due))
	for unix.ClockNanosleep(unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, &t, nil) == unix.EINTR {
	}
}
