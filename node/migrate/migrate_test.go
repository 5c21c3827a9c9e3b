package migrate

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dcnode/dcnode/vmm/ramstream"
)

// move is one migration of a guest, from alice to bob.
type move struct {
	guest *guest
	room  *room
	wire  *wire
	job   Job
	sink  Sink
	ctx   context.Context

	start                time.Time
	sent, received       Report
	sendErr, receiveErr  error
	sendTook, receiveEnd time.Duration
}

func newMove(t *testing.T, seed uint64, pages, blocks int) *move {
	t.Helper()
	g, base := newGuest(seed, pages, blocks)
	bases := []ramstream.Base{{R: bytes.NewReader(base), Size: int64(len(base))}}
	m := &move{guest: g, room: newRoom(g, base), wire: newWire(), ctx: t.Context()}
	m.job = Job{Machine: g, Bases: bases, Release: g.release}
	m.sink = Sink{Machine: m.room, Bases: bases}
	return m
}

// run carries the migration out in virtual time. Goroutines left over fail the bubble.
func (m *move) run(t *testing.T) {
	t.Helper()
	a, b := m.wire.ends()
	m.runOver(t, a, b)
}

func (m *move) runOver(t *testing.T, a, b Stream) {
	t.Helper()
	m.start = time.Now()
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.received, m.receiveErr = Receive(m.ctx, b, m.sink)
		m.receiveEnd = time.Since(m.start)
		if m.receiveErr != nil {
			m.close()
		}
	}()
	m.sent, m.sendErr = Send(m.ctx, a, m.job)
	m.sendTook = time.Since(m.start)
	if m.sendErr != nil {
		m.close()
	}
	<-done
	if m.sendErr == nil || m.sent.Released {
		if err := m.guest.Cancel(m.ctx, false); err != nil {
			t.Error(err)
		}
	}
}

// close ends the link, as a node does after an error.
func (m *move) close() {
	m.wire.mu.Lock()
	defer m.wire.mu.Unlock()
	m.wire.cut = true
	m.wire.change()
}

// arrived checks that bob has exactly alice's machine.
func (m *move) arrived(t *testing.T) {
	t.Helper()
	if m.sendErr != nil || m.receiveErr != nil {
		t.Fatalf("send: %v; receive: %v", m.sendErr, m.receiveErr)
	}
	g, r := m.guest, m.room
	if !r.loaded || r.late != "" {
		t.Fatalf("loaded %v, %s", r.loaded, r.late)
	}
	if !bytes.Equal(g.pages, r.pages) || !bytes.Equal(g.disk, r.disk) {
		t.Fatalf("memory equal: %v, disk equal: %v", bytes.Equal(g.pages, r.pages), bytes.Equal(g.disk, r.disk))
	}
	want := sha256.Sum256(g.plain.Bytes())
	if m.sent.Digest != want || m.received.Digest != want {
		t.Fatal("digests differ from the machine's stream")
	}
	m.soundOrder(t)
}

// soundOrder checks the one rule that holds whatever happens.
func (m *move) soundOrder(t *testing.T) {
	t.Helper()
	g := m.guest
	n := 0
	for _, c := range g.calls {
		if c == "release" {
			n++
		}
	}
	released := n > 0
	if n > 1 || released != m.sent.Released {
		t.Fatalf("release was called %d times, the report says %v", n, m.sent.Released)
	}
	if i, j := slices.Index(g.calls, "release"), slices.Index(g.calls, "finish"); j >= 0 && (i < 0 || i > j) {
		t.Fatalf("finish before release: %v", g.calls)
	}
	if m.room.loaded != (m.receiveErr == nil) {
		t.Fatalf("machine loaded %v, Receive says %v", m.room.loaded, m.receiveErr)
	}
	if m.room.loaded && !released {
		t.Fatal("the machine was loaded but never released")
	}
	if m.sendErr == nil && !m.room.loaded {
		t.Fatal("Send succeeded, the machine was not loaded")
	}
	if m.sendErr == nil {
		return
	}
	var e *Error
	if !errors.As(m.sendErr, &e) || e.Released != released {
		t.Fatalf("error %#v says released %v, it is %v", m.sendErr, e.Released, released)
	}
	if resumed := slices.Contains(g.calls, "cancel true"); resumed == released || g.running == released {
		t.Fatalf("released %v, resumed %v: %v", released, resumed, g.calls)
	}
}

func TestMovedMachineIsTheSame(t *testing.T) {
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			m := newMove(t, seed, 20+int(seed)*3, 10+int(seed)*2)
			m.guest.think = time.Duration(seed%4) * 20 * time.Millisecond
			m.wire.dir[0].delay = time.Duration(seed%3) * 15 * time.Millisecond
			m.wire.dir[1].delay = m.wire.dir[0].delay
			if seed%5 == 4 {
				m.wire.dir[0].rate = 1e6
			}
			m.run(t)
			m.arrived(t)
			s, r := m.sent, m.received
			if s.MemoryPlain != int64(m.guest.plain.Len()) || r.MemoryPlain != s.MemoryPlain || r.MemorySent != s.MemorySent {
				t.Fatalf("sent %+v, received %+v", s, r)
			}
			if r.DiskPlain != s.DiskPlain || r.DiskZero != s.DiskZero || r.DiskSent != s.DiskSent || s.Passes < 2 {
				t.Fatalf("sent %+v, received %+v", s, r)
			}
			if s.Stream.Pages.Disk == 0 || s.Downtime != 7 || s.PausedAt.IsZero() {
				t.Fatalf("report: %+v", s)
			}
		})
	}
}

func TestPagesOfTheBaseAreNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMove(t, 1, 600, 300)
		index, err := ramstream.NewIndex(t.Context(), m.job.Bases, 0)
		if err != nil {
			t.Fatal(err)
		}
		m.job.Index = index
		m.run(t)
		m.arrived(t)
		if p := m.sent.Stream.Pages; p.Disk != 200 {
			t.Errorf("pages: %+v, want 200 from the disk", p)
		}
	})
}

func TestReleaseDoesNotWaitForADiskPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMove(t, 3, 4, 4000)
		m.wire.dir[0].rate = 1e6
		var pausedAt, releasedAt time.Time
		m.guest.onPause = func() { pausedAt = time.Now() }
		m.guest.onPage = func() { // a burst of disk writes just before the pause
			m.guest.mu.Lock()
			defer m.guest.mu.Unlock()
			for i := range m.guest.dirtyBlocks {
				m.guest.dirtyBlocks[i] = true
			}
		}
		m.guest.rounds = 1
		m.guest.think = 200 * time.Millisecond
		m.job.Release = func(ctx context.Context) error {
			releasedAt = time.Now()
			return m.guest.release(ctx)
		}
		m.run(t)
		m.arrived(t)
		if d := releasedAt.Sub(pausedAt); pausedAt.IsZero() || d > time.Millisecond {
			t.Errorf("released %v after the pause", d)
		}
		if d := m.sendTook - releasedAt.Sub(m.start); d < time.Second {
			t.Errorf("only %v of disk were left at the pause: the test shows nothing", d)
		}
	})
}

func TestLastMemoryWaitsForTheDisks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMove(t, 3, 100, 50)
		m.room.slowFlush = time.Second
		m.guest.onPause = func() { // so that the last pass has something to send
			m.guest.mu.Lock()
			defer m.guest.mu.Unlock()
			m.guest.dirtyBlocks[1] = true
		}
		m.run(t)
		m.arrived(t)
	})
}

func TestProgressIsToldAtEachPhaseAndNotTooOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMove(t, 3, 400, 300)
		m.wire.dir[0].rate = 2e5
		var told, came []Progress
		var at []time.Time
		m.job.Progress = func(p Progress) { told, at = append(told, p), append(at, time.Now()) }
		m.sink.Progress = func(p Progress) { came = append(came, p) }
		m.run(t)
		m.arrived(t)
		for i := 1; i < len(told); i++ {
			if told[i].Phase == told[i-1].Phase && at[i].Sub(at[i-1]) < reportEvery {
				t.Errorf("told twice within %v", at[i].Sub(at[i-1]))
			}
			if told[i].DoneBytes < told[i-1].DoneBytes || told[i].SentBytes < told[i-1].SentBytes {
				t.Errorf("progress goes back: %+v after %+v", told[i], told[i-1])
			}
		}
		phases := func(list []Progress) (out []Phase) {
			for _, p := range list {
				out = append(out, p.Phase)
			}
			return slices.Compact(out)
		}
		want := []Phase{Disk, Memory, Switchover, Loading, Done}
		if got := phases(told); !slices.Equal(got, want) {
			t.Errorf("source told %v", got)
		}
		if got := phases(came); !slices.Equal(got, want) {
			t.Errorf("destination told %v", got)
		}
		if last := told[len(told)-1]; last.DoneBytes != m.sent.MemoryPlain+m.sent.DiskPlain+m.sent.DiskZero || last.SentBytes != m.sent.MemorySent+m.sent.DiskSent {
			t.Errorf("last progress %+v, report %+v", last, m.sent)
		}
		if len(m.sent.Phases) != 6 || len(told) < 10 {
			t.Errorf("%d phases, %d reports", len(m.sent.Phases), len(told))
		}
	})
}

func TestFailuresOfTheMachinesAreNamed(t *testing.T) {
	boom := errors.New("boom")
	for name, c := range map[string]struct {
		break_ func(m *move)
		want   string // in Send's error
		ours   string // in Receive's error
	}{
		"disk unreadable":   {func(m *move) { m.guest.readErr = boom }, "read disk 0 at", "source gave up: read disk 0 at"},
		"disk unwritable":   {func(m *move) { m.room.writeErr = boom }, "destination gave up: ", "disk 0 at"},
		"state not loaded":  {func(m *move) { m.room.loadErr = boom }, "destination gave up: load machine: boom", "load machine: boom"},
		"release refused":   {func(m *move) { m.job.Release = refusing(m, boom) }, "release machine: boom", "source gave up: release machine: boom"},
		"no pause":          {func(m *move) { m.guest.truncate = true }, "ended before the machine paused", "source gave up"},
		"bases of one side": {func(m *move) { m.sink.Bases = nil }, "refers to 1 base images, this node to 0", "refers to 1 base images"},
		"base of wrong size": {func(m *move) { m.sink.Bases = []ramstream.Base{{Size: 5}} },
			"base image 0 has", "base image 0 has"},
		"base of other content": {func(m *move) {
			other := bytes.Repeat([]byte{1}, int(m.job.Bases[0].Size))
			m.sink.Bases = []ramstream.Base{{R: bytes.NewReader(other), Size: int64(len(other))}}
		}, "a base image differs", "a base image differs"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMove(t, 5, 50, 40)
				m.wire.dir[0].delay, m.wire.dir[1].delay = 5*time.Millisecond, 5*time.Millisecond
				c.break_(m)
				m.run(t)
				if m.sendErr == nil || m.receiveErr == nil {
					t.Fatalf("send: %v; receive: %v", m.sendErr, m.receiveErr)
				}
				if !strings.Contains(m.sendErr.Error(), c.want) {
					t.Errorf("send: %v, want %q", m.sendErr, c.want)
				}
				if !strings.Contains(m.receiveErr.Error(), c.ours) {
					t.Errorf("receive: %v, want %q", m.receiveErr, c.ours)
				}
				m.soundOrder(t)
			})
		})
	}
}

func refusing(m *move, err error) func(context.Context) error {
	return func(ctx context.Context) error { return errors.Join(m.guest.release(ctx), err) }
}

func TestCancelledMigrationResumesTheSource(t *testing.T) {
	why := errors.New("carol changed her mind")
	for after := 10 * time.Millisecond; after < 4*time.Second; after += 130 * time.Millisecond {
		synctest.Test(t, func(t *testing.T) {
			m := newMove(t, 5, 50, 200)
			m.wire.dir[0].rate = 2e5
			ctx, cancel := context.WithCancelCause(m.ctx)
			time.AfterFunc(after, func() { cancel(why) })
			a, b := m.wire.ends()
			done := make(chan struct{})
			go func() {
				defer close(done)
				m.received, m.receiveErr = Receive(m.ctx, b, m.sink)
			}()
			m.sent, m.sendErr = Send(ctx, a, m.job)
			m.close()
			<-done
			if m.sent.Released || m.sendErr == nil {
				_ = m.guest.Cancel(m.ctx, false) // the fake's never fails
			}
			if m.sendErr != nil && !errors.Is(m.sendErr, why) {
				t.Errorf("error %v", m.sendErr)
			}
			m.soundOrder(t)
			cancel(nil)
		})
	}
}

func TestIncompleteJobsAreRefused(t *testing.T) {
	g, _ := newGuest(1, 4, 4)
	a, b := newWire().ends()
	var e *Error
	for _, j := range []Job{{}, {Machine: g}, {Machine: g, Release: g.release, Bases: make([]ramstream.Base, maxBases+1)}} {
		if _, err := Send(t.Context(), a, j); !errors.As(err, &e) || e.Released || e.Phase != Preparing {
			t.Errorf("error %v", err)
		}
	}
	if _, err := Receive(t.Context(), b, Sink{}); !errors.As(err, &e) {
		t.Errorf("error %v", err)
	}
	if len(g.calls) != 0 {
		t.Errorf("the machine was touched: %v", g.calls)
	}
}
