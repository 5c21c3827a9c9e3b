package migrate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// tiny is a migration of so few bytes that each can be cut.
func tiny(t *testing.T, seed uint64) *move {
	m := newMove(t, seed, 4, 3)
	m.guest.rounds = 1
	m.wire.dir[0].delay, m.wire.dir[1].delay = time.Millisecond, time.Millisecond
	return m
}

// lengths is how many bytes go each way when nothing breaks.
func lengths(t *testing.T, seed uint64) (n [2]int64) {
	synctest.Test(t, func(t *testing.T) {
		m := tiny(t, seed)
		m.run(t)
		m.arrived(t)
		n = [2]int64{m.wire.dir[0].written, m.wire.dir[1].written}
	})
	return n
}

func TestCutStreamNeverStarts(t *testing.T) {
	const seed = 11
	n := lengths(t, seed)
	released, resumed := 0, 0 // of the cuts that took effect
	for dir := range 2 {
		for at := range n[dir] {
			synctest.Test(t, func(t *testing.T) {
				m := tiny(t, seed)
				m.wire.dir[dir].cutAt = at
				m.run(t)
				m.soundOrder(t)
				if !m.wire.dir[dir].hit {
					m.arrived(t)
					return
				}
				if m.sendErr == nil {
					t.Fatalf("cut at byte %d of %d in direction %d: Send succeeded", at, n[dir], dir)
				}
				if dir == 0 && m.receiveErr == nil {
					t.Fatalf("cut at byte %d of %d: Receive succeeded", at, n[0])
				}
				if m.sent.Released {
					released++
				} else {
					resumed++
				}
			})
			if t.Failed() {
				return
			}
		}
	}
	t.Logf("%d and %d bytes: %d cuts before Release, %d after", n[0], n[1], resumed, released)
	if released == 0 || resumed == 0 {
		t.Error("the cuts were all on one side of Release")
	}
}

// A link that falls silent gives no error: both sides must notice by themselves.
func TestSilentLossIsNoticed(t *testing.T) {
	const seed, stall = 11, 8 * time.Second
	n := lengths(t, seed)
	for dir := range 2 {
		for at := int64(0); at < n[dir]; at += 1 + n[dir]/60 {
			synctest.Test(t, func(t *testing.T) {
				m := tiny(t, seed)
				m.job.StallTimeout, m.sink.StallTimeout = stall, stall
				m.wire.dir[dir].lostAt = at
				m.run(t)
				m.soundOrder(t)
				if !m.wire.dir[dir].hit {
					m.arrived(t)
					return
				}
				if m.sendErr == nil || m.sendTook > 2*stall+3*time.Second {
					t.Fatalf("lost from byte %d in direction %d: Send gave %v after %v", at, dir, m.sendErr, m.sendTook)
				}
				if m.receiveEnd > 2*stall+3*time.Second {
					t.Fatalf("lost from byte %d in direction %d: Receive gave %v after %v", at, dir, m.receiveErr, m.receiveEnd)
				}
				var peer *PeerError
				if !errors.Is(m.sendErr, ErrStalled) && !errors.As(m.sendErr, &peer) && !strings.Contains(m.sendErr.Error(), "connection was lost") {
					t.Fatalf("Send gave %v", m.sendErr)
				}
			})
			if t.Failed() {
				return
			}
		}
	}
}

func TestChangedByteIsFound(t *testing.T) {
	const seed = 11
	n := lengths(t, seed)
	for dir := range 2 {
		for at := range n[dir] {
			synctest.Test(t, func(t *testing.T) {
				m := tiny(t, seed)
				m.job.StallTimeout, m.sink.StallTimeout = 4*time.Second, 4*time.Second
				m.wire.dir[dir].flipAt = at
				m.run(t)
				m.soundOrder(t)
				if !m.wire.dir[dir].hit {
					m.arrived(t)
					return
				}
				if dir == 0 && (m.receiveErr == nil || m.sendErr == nil) {
					t.Fatalf("byte %d of %d changed: receive %v, send %v", at, n[0], m.receiveErr, m.sendErr)
				}
				if dir == 1 && m.sendErr == nil {
					t.Fatalf("byte %d of %d on the way back changed: Send succeeded", at, n[1])
				}
			})
			if t.Failed() {
				return
			}
		}
	}
}

func TestStuckMachineAtTheDestinationIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMove(t, 3, 3000, 10)
		m.guest.rng.Uint32()
		for i := range m.guest.pages { // nothing to compress, so that the window fills
			m.guest.pages[i] = byte(m.guest.rng.Uint32())
		}
		m.room.hang = make(chan struct{})
		m.run(t)
		m.soundOrder(t)
		if !errors.Is(m.sendErr, ErrStalled) || m.sent.Released || m.sendTook > 2*DefaultStallTimeout {
			t.Errorf("Send gave %v after %v", m.sendErr, m.sendTook)
		}
		if e := (*Error)(nil); !errors.As(m.sendErr, &e) || e.Phase != Memory || !strings.Contains(e.Error(), "destination") {
			t.Errorf("the error names neither phase nor side: %v", m.sendErr)
		}
	})
}

func TestStuckMachineAtTheSourceIsNoticed(t *testing.T) {
	for _, where := range []Phase{Memory, Switchover} {
		synctest.Test(t, func(t *testing.T) {
			m := newMove(t, 3, 30, 10)
			stuck, n := make(chan struct{}), 0
			m.guest.onPage = func() {
				if n++; where == Memory && n == 5 || where == Switchover && n > 30*m.guest.rounds {
					<-stuck
				}
			}
			time.AfterFunc(10*DefaultStallTimeout, func() { close(stuck) })
			m.run(t)
			m.soundOrder(t)
			var e *Error
			if !errors.As(m.sendErr, &e) || !errors.Is(e, ErrStalled) || e.Phase != where || e.Released != (where == Switchover) {
				t.Errorf("stuck in %s: %v", where, m.sendErr)
			}
			if m.receiveErr == nil {
				t.Error("Receive succeeded")
			}
		})
	}
}

func TestIdleMachineIsNoStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMove(t, 3, 5, 10)
		m.guest.think = DefaultStallTimeout * 3 / 4 // slow, but it goes on
		m.run(t)
		m.arrived(t)
		if m.sendTook < 3*DefaultStallTimeout {
			t.Errorf("it took only %v", m.sendTook)
		}
	})
}

func TestDigestMismatchIsRefused(t *testing.T) {
	for _, what := range []string{"memory", "disk"} {
		synctest.Test(t, func(t *testing.T) {
			m := newMove(t, 3, 50, 30)
			a, b := m.wire.ends()
			done := make(chan error)
			go func() {
				_, err := Receive(t.Context(), b, m.sink)
				done <- err
			}()
			for _, f := range forged(what) {
				if _, err := a.Write(f); err != nil {
					t.Error(err)
				}
			}
			if err := <-done; !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "digest of the "+what) {
				t.Errorf("%s: %v", what, err)
			}
			if m.room.loaded {
				t.Error("the machine was loaded")
			}
		})
	}
}

func TestReceiveEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMove(t, 3, 50, 30)
		_, b := m.wire.ends()
		ctx, cancel := context.WithCancelCause(t.Context())
		why := fmt.Errorf("bob shuts down")
		time.AfterFunc(time.Second, func() { cancel(why) })
		if _, err := Receive(ctx, b, m.sink); !errors.Is(err, why) {
			t.Errorf("error %v", err)
		}
	})
}
