package survey

import (
	"fmt"
	"math"
	"testing"
	"time"
)

// pipe is a path in which a window doubles with each round trip until it fills the
// path, as TCP's does in slow start; then bytes come at the path's rate.
type pipe struct {
	rate float64 // bytes a second
	rtt  time.Duration
}

// play lets a run receive over a pipe, in segments, and returns how much arrived and
// how much was granted when it was over.
func (p pipe) play(t *testing.T, r *run) (got, granted int64, took time.Duration) {
	t.Helper()
	const segment = 1448
	type permit struct {
		at    time.Duration // when it reaches the sender
		total int64
	}
	var grants []permit
	var sent int64
	window := 10.0 * segment
	full := p.rate * p.rtt.Seconds()
	now, arrives := time.Duration(0), time.Duration(0)
	if total, ok := r.more(); ok {
		grants = append(grants, permit{0, total})
	}
	for !r.over() {
		// The next segment leaves when it is granted and the pace of the window allows.
		leave := now
		for len(grants) > 0 && sent >= grants[0].total {
			grants = grants[1:]
		}
		if len(grants) == 0 {
			t.Fatalf("the run stands still after %d bytes", sent)
		}
		leave = max(leave, grants[0].at)
		pace := min(window/p.rtt.Seconds(), p.rate)
		if window < full {
			window += segment // each segment acknowledged adds one: doubles in a round trip
		}
		now = leave + time.Duration(segment/pace*float64(time.Second))
		sent += segment
		arrives = now + p.rtt/2
		r.add(arrives, segment)
		if total, ok := r.more(); ok {
			grants = append(grants, permit{arrives + p.rtt/2, total})
		}
	}
	return r.got(), r.granted, arrives
}

func TestRunFindsTheRateBehindSlowStart(t *testing.T) {
	for _, mbit := range []float64{0.1, 1, 10, 100, 1000} {
		for _, rtt := range []time.Duration{2 * time.Millisecond, 20 * time.Millisecond, 100 * time.Millisecond} {
			t.Run(fmt.Sprintf("%v Mbit/s %v", mbit, rtt), func(t *testing.T) {
				p := pipe{rate: mbit * 1e6 / 8, rtt: rtt}
				r := run{rtt: rtt}
				got, granted, took := p.play(t, &r)
				off := float64(r.rate())/p.rate - 1
				t.Logf("%+.1f %% after %d KiB in %v, %d KiB granted", 100*off, got>>10, took, granted>>10)
				// A path of 12.5 MB in flight is not filled with 8 MiB.
				if math.Abs(off) > 0.05 && p.rate*rtt.Seconds() < mostRun/4 {
					t.Errorf("%d bytes a second, the path carries %.0f", r.rate(), p.rate)
				}
				if got > mostRun+1448 || granted > mostRun || took > longest+rtt+time.Duration(2*1448/p.rate*float64(time.Second)) {
					t.Errorf("%d bytes, %d granted, %v", got, granted, took)
				}
				if late := float64(granted-got) / p.rate; mbit >= 1 && late > 0.6+rtt.Seconds()*6 {
					t.Errorf("what was granted in vain takes %.2f s of the path", late)
				}
			})
		}
	}
}

func TestPiecesOfABatchAreOne(t *testing.T) {
	r := run{rtt: time.Millisecond}
	for i := range 100 { // 16 KiB every 10 ms, each handed out in four pieces
		at := time.Duration(i) * 10 * time.Millisecond
		for k := range 4 {
			r.add(at+time.Duration(k)*100*time.Microsecond, 4<<10)
		}
	}
	if len(r.marks) != 100 {
		t.Errorf("%d marks of 100 batches", len(r.marks))
	}
	want := int64(16 << 10 * 100)
	if got := r.rate(); got < want*99/100 || got > want*101/100 {
		t.Errorf("%d bytes a second, want %d", got, want)
	}
}

// BBR rests for 200 ms; the run goes on and leaves that out, wherever it falls.
func TestRestOfTheSenderIsNotCounted(t *testing.T) {
	const piece, every = 16 << 10, 2 * time.Millisecond // 8 MiB a second
	for rest := 50; rest < 450; rest += 10 {
		r := run{rtt: 140 * time.Millisecond} // so long that the second may end before the third is clean
		at, n := time.Duration(0), 0
		for ; !r.over(); n++ {
			if at += every; n == rest {
				at += 200 * time.Millisecond
			}
			r.add(at, piece)
		}
		want := float64(piece) / every.Seconds()
		if off := float64(r.rate())/want - 1; math.Abs(off) > 0.1 {
			t.Errorf("rest at piece %d, over after %d: %+.1f %%", rest, n, 100*off)
		}
	}
}

// The path gets slower during the run: half of the old rate and half of the new is none.
func TestRunGoesOnUntilTheRateIsSteady(t *testing.T) {
	r := run{rtt: 20 * time.Millisecond}
	for at := time.Duration(0); !r.over(); {
		if at += 2 * time.Millisecond; at > 100*time.Millisecond {
			at += 6 * time.Millisecond
		}
		r.add(at, 16<<10)
	}
	want := float64(16<<10) / 0.008
	if off := float64(r.rate())/want - 1; math.Abs(off) > 0.1 {
		t.Errorf("%+.1f %%", 100*off)
	}
}

// A packet is lost: nothing comes for 150 ms, then all that had come behind it.
func TestHeldUpBytesAreNotCounted(t *testing.T) {
	const piece, every = 16 << 10, 13 * time.Millisecond // 10 Mbit/s
	for lost := 3; lost < 70; lost++ {
		r := run{rtt: 100 * time.Millisecond}
		held := int64(0)
		for n := 0; !r.over(); n++ {
			at := time.Duration(n) * every
			switch {
			case n >= lost && n < lost+11:
				held += piece
			case n == lost+11:
				r.add(at, held+piece)
			default:
				r.add(at, piece)
			}
		}
		want := float64(piece) / every.Seconds()
		if off := float64(r.rate())/want - 1; math.Abs(off) > 0.25 {
			t.Errorf("lost piece %d: %+.1f %%", lost, 100*off)
		}
	}
}

func TestRunIsNotOverWhileItsGrantsWereTheLimit(t *testing.T) {
	r := run{rtt: 100 * time.Millisecond}
	total, _ := r.more()
	for at := time.Duration(0); at < 900*time.Millisecond && total < mostRun; at += r.rtt * 8 / 5 {
		r.add(at, total-r.got()) // all that was granted comes at once, and late
		if r.over() {
			t.Fatalf("over after %d bytes: the sender had to wait for each grant", r.got())
		}
		total, _ = r.more()
	}
	if total < mostRun {
		t.Errorf("granted no more than %d bytes in 0.9 s", total)
	}
}

func TestOneBatchGivesARate(t *testing.T) {
	r := run{}
	if r.rate() < 1 || r.over() {
		t.Errorf("nothing has arrived: rate %d, over %v", r.rate(), r.over())
	}
	r.add(0, 1<<20)
	if rate := r.rate(); rate < 1 || rate > mostRate {
		t.Errorf("one batch: %d", rate)
	}
	r.add(time.Second, 1)
	if rate := r.rate(); rate < 1 || rate > 10 || !r.over() {
		t.Errorf("a byte after a second: %d, over %v", rate, r.over())
	}
	r.add(2*time.Second, 50<<20)
	if rate := r.rate(); rate != 50<<20 {
		t.Errorf("a batch that is more than the third: %d", rate)
	}
}

func TestNoRateOverflows(t *testing.T) {
	for _, c := range []struct {
		bytes int64
		took  time.Duration
	}{{math.MaxInt64, 0}, {math.MaxInt64, math.MaxInt64}, {0, 0}, {-5, time.Second}, {1, math.MaxInt64}, {1, -1}} {
		if rate := perSecond(c.bytes, c.took); rate < 1 || rate > mostRate {
			t.Errorf("%d bytes in %v: %d", c.bytes, c.took, rate)
		}
	}
	if got := mix(mostRate, mostRate, bulkWeight); got != mostRate {
		t.Errorf("mixed to %d", got)
	}
}
