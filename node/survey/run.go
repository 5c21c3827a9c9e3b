package survey

import (
	"cmp"
	"slices"
	"time"
)

// Bounds of one run, in one direction.
const (
	leastRun  = 64 << 10 // bytes before which nothing is concluded
	mostRun   = 8 << 20  // bytes
	longest   = time.Second
	settled   = 50 * time.Millisecond // what the last third has to take at least
	aheadTime = 5 * time.Millisecond  // least round trip that is granted for
	// batch is what arrives as one: a record is decrypted whole and handed out in
	// pieces, which tell nothing about the path.
	batch = time.Millisecond
	parts = 8 // of the last third
)

// run is the receiver's side of a measurement: it says how much more the sender may
// send, when enough was seen, and what the rate was. It has no clock.
//
// The sender is granted bytes, never time: what it has been granted and the receiver
// does not want any more still has to cross, and delays others on a slow link. So the
// grant follows what has arrived, fast enough for TCP's slow start, which doubles what
// is on its way with each round trip.
//
// Only the last third of the bytes counts. While slow start lasts, half of all bytes
// come in the last round trip; so a third that took longer than a round trip is one
// without slow start, if it came at one rate: its halves took about as long. Of its
// eight parts the slowest and the fastest two do not count. BBR, after a rest, stops for
// 200 ms somewhere to measure the round trip (PROBE_RTT), which a transfer does every ten
// seconds only; and a packet that was lost holds up those behind it, which then come all
// at once.
type run struct {
	rtt     time.Duration
	granted int64
	marks   []mark
}

// mark is how much had arrived at a time since the start of the run.
type mark struct {
	first, at time.Duration // of the batch: its first and its last piece
	got       int64
}

func (r *run) got() int64 {
	if len(r.marks) == 0 {
		return 0
	}
	return r.marks[len(r.marks)-1].got
}

// add notes that n more bytes arrived.
func (r *run) add(at time.Duration, n int64) {
	got := r.got() + n
	if k := len(r.marks) - 1; k >= 0 && at-r.marks[k].first < batch {
		r.marks[k].at, r.marks[k].got = at, got
		return
	}
	r.marks = append(r.marks, mark{at, at, got})
}

// begin is the index of the mark at which the last third begins.
func (r *run) begin() int {
	last := r.got()
	i := 0
	for 3*r.marks[i].got < 2*last {
		i++
	}
	if i == len(r.marks)-1 && i > 0 { // a batch so large that it is all of the third
		i--
	}
	return i
}

// part is a run of bytes and how long they took.
type part struct {
	bytes int64
	took  time.Duration
}

func (p part) perSecond() float64 {
	return float64(p.bytes) / max(p.took, time.Microsecond).Seconds()
}

// third is the last third of the bytes, and its parts, about equally large, the
// slowest first.
func (r *run) third() (whole part, some []part) {
	if len(r.marks) == 0 {
		return part{}, nil
	}
	i, last := r.begin(), r.marks[len(r.marks)-1]
	whole = part{last.got - r.marks[i].got, last.at - r.marks[i].at}
	from := r.marks[i]
	for _, m := range r.marks[i+1:] {
		if parts*(m.got-from.got) >= whole.bytes || m == last {
			some = append(some, part{m.got - from.got, m.at - from.at})
			from = m
		}
	}
	slices.SortFunc(some, func(a, b part) int { return cmp.Compare(a.perSecond(), b.perSecond()) })
	return whole, some
}

// over says whether enough was seen.
func (r *run) over() bool {
	if len(r.marks) == 0 {
		return false
	}
	last := r.marks[len(r.marks)-1]
	if last.got >= mostRun || last.at-r.marks[0].first >= longest {
		return true
	}
	whole, some := r.third()
	if len(some) >= parts/2 {
		whole.took -= some[0].took // it may have been a rest
	}
	return last.got >= leastRun && whole.took >= max(settled, r.rtt*3/2) && r.steady()
}

// steady says whether the last third came at one rate. It did not if the sender had to
// wait for its grants: they grow faster than what arrives.
func (r *run) steady() bool {
	i, last := r.begin(), r.marks[len(r.marks)-1]
	k := i
	for 2*(r.marks[k].got-r.marks[i].got) < last.got-r.marks[i].got {
		k++
	}
	mid := r.marks[k]
	a := perSecond(mid.got-r.marks[i].got, mid.at-r.marks[i].at)
	b := perSecond(last.got-mid.got, last.at-mid.at)
	return 3*max(a, b) <= 4*min(a, b)
}

// even says whether what the rate is made of came evenly: at one rate, and no part twice
// as fast as another. It does not while other work takes the processor from the reader, the
// sender or who stands between them: what waited meanwhile comes all at once.
func (r *run) even() bool {
	_, some := r.third()
	n := len(some)
	if n < parts/2 || !r.steady() {
		return false
	}
	return some[n-n/4-1].perSecond() <= 2*some[n/4].perSecond()
}

// more is how many bytes the sender may send in all, if that is more than it knows.
func (r *run) more() (total int64, ok bool) {
	got := r.got()
	ahead := 3 * got
	if rate := r.perSecond(); rate > 0 {
		// What arrived in the last third of a run that doubles each round trip is two
		// thirds of what will be on its way next, and the grant takes a round trip.
		ahead = min(ahead, int64(6*rate*max(r.rtt, aheadTime).Seconds()))
	}
	want := min(got+max(ahead, leastRun), mostRun)
	if want-r.granted < leastRun/4 && want < mostRun || want <= r.granted {
		return 0, false
	}
	r.granted = want
	return want, true
}

// perSecond is the rate in the last third without its slowest and its fastest quarter.
func (r *run) perSecond() float64 {
	whole, some := r.third()
	if whole.took <= 0 {
		return 0
	}
	if n := len(some); n >= parts/2 {
		whole = part{}
		for _, p := range some[n/4 : n-n/4] {
			whole.bytes, whole.took = whole.bytes+p.bytes, whole.took+p.took
		}
	}
	return whole.perSecond()
}

// rate is what the path carries, in bytes a second; at least 1.
func (r *run) rate() int64 { return int64(min(max(r.perSecond(), 1), mostRate)) }

// mostRate bounds what is believed: 8 Tbit/s.
const mostRate = 1 << 40

// perSecond is a rate that no input makes overflow.
func perSecond(bytes int64, took time.Duration) int64 {
	rate := float64(bytes) / max(took, time.Microsecond).Seconds()
	return int64(min(max(rate, 1), mostRate))
}
