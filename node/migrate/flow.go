package migrate

import (
	"fmt"
	"time"
)

// Bounds of the window, in bytes, and how it is found.
const (
	minWindow  = 256 << 10
	maxWindow  = 32 << 20
	rttAge     = 10 * time.Second // after which the round trip is measured again
	rateAge    = 5 * time.Second  // of one half of the rate filter
	steadyGain = 2
	// probeGain has to drain the queue even if the round trip in use was measured
	// with a queue: each probe then finds at most half of it.
	probeGain = 0.5
)

// flow measures the path from acknowledgements and says how many bytes may be on
// their way. It follows BBR (Cardwell et al., "BBR: Congestion-Based Congestion
// Control", ACM Queue 14(5), 2016): the window is twice the bandwidth-delay product,
// of the greatest delivery rate and the least round trip seen of late. Twice,
// because a window of one product could never show that the path carries more.
// Congestion itself is left to the transport below.
//
// A round trip ends when the destination has used the bytes, so a destination whose
// machine is slow shrinks the window as a slow link does. It is a value without a
// clock.
type flow struct {
	sent, acked int64
	ackedAt     time.Time
	flights     []flight
	disregarded int64 // bytes up to here measure nothing

	minRTT    time.Duration
	minRTTAt  time.Time
	probeEnd  time.Time // not zero: the window is small, so that the queue drains
	probeRTT  time.Duration
	rates     [2]float64 // greatest of this half and of the half before
	rateSince time.Time
}

// flight is one frame that was not acknowledged yet.
type flight struct {
	end     int64 // sent, after it
	at      time.Time
	acked   int64 // at that time
	ackedAt time.Time
	idle    bool // the window was not the limit
}

func (f *flow) inFlight() int64 { return f.sent - f.acked }

// rate is the greatest delivery rate of late, in bytes per second; 0: not known.
func (f *flow) rate() float64 { return max(f.rates[0], f.rates[1]) }

func (f *flow) window() int64 {
	gain := float64(steadyGain)
	if !f.probeEnd.IsZero() {
		gain = probeGain
	}
	return int64(min(max(gain*f.rate()*f.minRTT.Seconds(), minWindow), maxWindow))
}

// fits says whether n more bytes may leave.
func (f *flow) fits(n int64) bool { return f.inFlight()+n <= f.window() }

func (f *flow) onSend(n int64, now time.Time) {
	if f.inFlight() == 0 {
		f.ackedAt = now // time without bytes in flight does not count
	}
	f.sent += n
	f.flights = append(f.flights, flight{
		end: f.sent, at: now, acked: f.acked, ackedAt: f.ackedAt,
		idle: f.inFlight() < f.window()/2,
	})
}

func (f *flow) onAck(total int64, now time.Time) error {
	if total < f.acked || total > f.sent {
		return fmt.Errorf("%w: %d bytes acknowledged, %d sent", ErrDamaged, total, f.sent)
	}
	if total == f.acked {
		return nil
	}
	f.acked, f.ackedAt = total, now
	n := 0
	for n < len(f.flights) && f.flights[n].end <= total {
		n++
	}
	if n == 0 {
		return nil
	}
	last := f.flights[n-1]
	f.flights = f.flights[:copy(f.flights, f.flights[n:])]
	if last.end <= f.disregarded {
		return nil
	}
	f.measureRTT(now.Sub(last.at), now)
	if took := now.Sub(last.ackedAt); took > 0 && took >= f.minRTT {
		f.measureRate(float64(total-last.acked)/took.Seconds(), last.idle, now)
	}
	return nil
}

// disregard keeps what is in flight from being measured: the path was cut.
func (f *flow) disregard() { f.disregarded = f.sent }

func (f *flow) measureRTT(rtt time.Duration, now time.Time) {
	switch {
	case f.minRTTAt.IsZero() || rtt <= f.minRTT:
		f.minRTT, f.minRTTAt, f.probeEnd = rtt, now, time.Time{}
	case f.probeEnd.IsZero() && now.Sub(f.minRTTAt) > rttAge:
		f.probeEnd, f.probeRTT = now.Add(2*rtt), rtt
	case !f.probeEnd.IsZero():
		f.probeRTT = min(f.probeRTT, rtt)
		if now.After(f.probeEnd) {
			f.minRTT, f.minRTTAt, f.probeEnd = f.probeRTT, now, time.Time{}
		}
	}
}

// measureRate takes a sample. One that was taken while there was little to send says
// how much there was, not what the path carries: it may raise the rate but ages nothing.
func (f *flow) measureRate(rate float64, idle bool, now time.Time) {
	if !idle && now.Sub(f.rateSince) > rateAge {
		f.rates[1], f.rates[0], f.rateSince = f.rates[0], 0, now
	}
	f.rates[0] = max(f.rates[0], rate)
}

// pacer keeps to a bandwidth.
type pacer struct {
	rate int64 // bytes per second; 0: no limit
	next time.Time
}

// burst is how much time of sending may be made up for after a pause.
const burst = 5 * time.Millisecond

// delay is how long n bytes have to wait from now.
func (p *pacer) delay(n int64, now time.Time) time.Duration {
	if p.rate <= 0 {
		return 0
	}
	if early := now.Add(-burst); p.next.Before(early) {
		p.next = early
	}
	d := p.next.Sub(now)
	p.next = p.next.Add(time.Duration(float64(n) / float64(p.rate) * float64(time.Second)))
	return max(d, 0)
}
