package migrate

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dcnode/dcnode/node/resume"
)

// hop is an end of a wire as a connection of a resume.Link.
type hop struct{ *end }

func (h hop) SetReadDeadline(t time.Time) error  { return h.SetDeadline(t) }
func (h hop) SetWriteDeadline(t time.Time) error { return h.SetDeadline(t) }
func (h hop) Close() error                       { return h.Reset() }

func (h hop) Reset() error {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	h.w.cut = true
	h.w.change()
	return nil
}

// TestCutOfTenSecondsCostsWhatWasInFlight: 100 Mbit/s, 10 ms one way; nothing arrives
// any more at nine tenths of the memory, and nothing connects for ten seconds.
func TestCutOfTenSecondsCostsWhatWasInFlight(t *testing.T) {
	const rate, delay, down = 12.5e6, 10 * time.Millisecond, 10 * time.Second
	for _, silent := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			m := newMove(t, 5, 14_000, 40)
			m.guest.rounds = 1
			for i := range m.guest.pages { // nothing to compress
				m.guest.pages[i] = byte(m.guest.rng.Uint32())
			}
			connect := func() *wire {
				w := newWire()
				w.opaque = true
				for i := range w.dir {
					w.dir[i].rate, w.dir[i].delay = rate, delay
				}
				return w
			}
			var back time.Time // when there is a way again
			first := connect()
			at := int64(len(m.guest.pages)) * 9 / 10
			if silent {
				first.dir[0].lostAt, first.dir[1].lostAt = at, at/1000
			} else {
				first.dir[0].cutAt = at
			}
			m.wire = first
			a, b := first.ends()
			there := resume.New(hop{b}, resume.Config{})
			here := resume.New(hop{a}, resume.Config{Dial: func(ctx context.Context, attempt, received uint64) (resume.Stream, uint64, error) {
				if back.IsZero() {
					back = time.Now().Add(down)
				}
				if now := time.Now(); now.Before(back) {
					return nil, 0, errCut
				}
				a, b := connect().ends()
				theirs := make(chan uint64, 1)
				if _, err := there.Resume(hop{b}, attempt, received, func(n uint64) error { theirs <- n; return nil }); err != nil {
					return nil, 0, err
				}
				return hop{a}, <-theirs, nil
			}})
			m.runOver(t, here, there)
			m.arrived(t)
			s := here.Stats()
			total := m.sent.MemorySent + m.sent.DiskSent
			t.Logf("silent %v: %+v of %d bytes, %v", silent, s, total, m.sendTook)
			if s.Cuts != 1 || s.Down < down || s.Down > down+5*time.Second {
				t.Errorf("%d cuts, %v", s.Cuts, s.Down)
			}
			if s.Twice == 0 || s.Twice > total/100 {
				t.Errorf("%d of %d bytes were sent twice", s.Twice, total)
			}
			most := time.Duration(float64(total)/rate*1.1*1e9) + s.Down + resume.DefaultSilence*5/4 + time.Second
			if m.sendTook > most {
				t.Errorf("it took %v, at most %v: the cut is taken for a slow path", m.sendTook, most)
			}
			_ = here.Close()
			_ = there.Close()
		})
	}
}
