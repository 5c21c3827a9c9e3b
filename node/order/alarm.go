package order

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// preciseBelow is where a timer of the runtime is too coarse: an idle process sleeps
// in epoll, whose unit is a millisecond, so that a timer of a tenth of that rings
// after 1.1 ms. A whole layer takes less between sites of one town.
const preciseBelow = 2 * time.Millisecond

// alarm is a timer of the kernel (timerfd), which rings within some 30 µs.
type alarm struct {
	f    *os.File
	fd   int
	ring chan<- struct{}
}

func newAlarm(ring chan<- struct{}) (*alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a timer: %w", err)
	}
	return &alarm{f: os.NewFile(uintptr(fd), "timerfd"), fd: fd, ring: ring}, nil
}

// set has the alarm ring once, d from now, and not at an earlier time that was set.
func (a *alarm) set(d time.Duration) {
	at := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(max(d, 1)))}
	_ = unix.TimerfdSettime(a.fd, 0, &at, nil) // if it fails the loop's own timer rings
}

// run rings until close.
func (a *alarm) run() error {
	var count [8]byte
	for {
		if _, err := a.f.Read(count[:]); err != nil {
			return nil //nolint:nilerr // it was closed
		}
		signal(a.ring)
	}
}

func (a *alarm) close() { _ = a.f.Close() }
