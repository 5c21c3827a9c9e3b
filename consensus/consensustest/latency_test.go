package consensustest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// All latencies here are in virtual time, from submission until all members know the
// place, in d: the longest one-way delay between two members, without its jitter.

const delay = 10 * ms

// stats are the mean, the 99th percentile and the maximum in units of d.
func stats(list []int64, d int64) (mean, p99, most float64) {
	s := slices.Sorted(slices.Values(list))
	var sum int64
	for _, x := range s {
		sum += x
	}
	in := func(x int64) float64 { return float64(x) / float64(d) }
	return in(sum) / float64(len(s)), in(s[len(s)*99/100]), in(s[len(s)-1])
}

// poisson has transactions submitted at random members among the first k and at
// random times, on average every so often, and runs until the last is.
func poisson(t *testing.T, w *Network, count, k int, every int64) {
	t.Helper()
	rng := rand.New(rand.NewPCG(w.opt.Seed, 11))
	at := w.Now
	first := len(w.texts)
	for i := range count {
		at += 1 + rng.Int64N(2*every)
		to := rng.IntN(k)
		w.After(at-w.Now, func() { w.Submit(to, fmt.Sprintf("tx %d", first+i)) })
	}
	if err := w.Run(at + 40*delay); err != nil {
		t.Fatal(err)
	}
}

func TestOrderTakesLessThanFourAndAFifthDelays(t *testing.T) {
	for _, n := range []int{4, 7, 16, 31} {
		w := network(t, Options{Seed: 1, Weights: weights(n), Delay: delay, Jitter: delay / 10, Sync: 1000 * ms})
		poisson(t, w, 20, n, 4*ms) // the clock learns the distances
		w.lat = nil
		created, from := w.Created, w.Now
		poisson(t, w, min(600, 4000/n), n, 3*ms)
		mean, p99, most := stats(w.Latencies(), delay)
		per := float64(w.Created-created) / float64(n) / (float64(w.Now-from-40*delay) / delay)
		t.Logf("n = %d: mean %.2f d, p99 %.2f d, max %.2f d, %.2f events per member and d", n, mean, p99, most, per)
		if mean > 4.2 || p99 > 5 {
			t.Errorf("n = %d: mean %.2f d, p99 %.2f d, want at most 4.2 and 5", n, mean, p99)
		}
		if per > 1.1 {
			t.Errorf("n = %d: %.2f events per member and d, want at most one for each layer", n, per)
		}
		settle(t, w)
	}
}

// The wait for stragglers follows the distances: d is that between the ends of the line.
func TestFiveSitesOnALineTakeFourAndAHalfDelays(t *testing.T) {
	for _, per := range []int{1, 3} {
		points := make([]int64, 5*per)
		for i := range points {
			points[i] = int64(i%5) * delay / 4
		}
		w := network(t, Options{Seed: 2, Weights: weights(len(points)), Delay: delay, Delays: sites(points, delay/50), Jitter: delay / 50, Sync: 1000 * ms})
		poisson(t, w, 60, len(points), 4*ms)
		w.lat = nil
		poisson(t, w, 400, len(points), 3*ms)
		mean, p99, most := stats(w.Latencies(), delay)
		t.Logf("five sites of %d: mean %.2f d, p99 %.2f d, max %.2f d", per, mean, p99, most)
		if mean > 4.5 {
			t.Errorf("five sites of %d: mean %.2f d, want at most 4.5", per, mean)
		}
		settle(t, w)
	}
}

// quick is a network of four in which all is measured, and its mean latency to the
// first three.
func quick(t *testing.T, opt Options) (*Network, float64) {
	opt.Seed, opt.Weights, opt.Delay, opt.Jitter, opt.Sync = 3, weights(4), delay, delay/10, 1000*ms
	w := network(t, opt)
	poisson(t, w, 50, 3, 4*ms)
	w.Members[0].times = nil
	poisson(t, w, 300, 3, 4*ms)
	mean, _, _ := stats(w.timesOf(0), delay)
	return w, mean
}

// A member that is gone is waited for until it has missed a few layers, then no more;
// at once if the transport says that it is gone.
func TestCrashedMemberCostsOneDelayForAWhile(t *testing.T) {
	for _, reach := range []int64{0, delay} {
		w, before := quick(t, Options{Reach: reach})
		w.Members[3].Down(-1)
		w.Members[0].times = nil
		gone := w.Now
		poisson(t, w, 60, 3, 4*ms)
		first, _, most := stats(w.timesOf(0)[:8], delay)
		w.Members[0].times = nil
		poisson(t, w, 300, 3, 4*ms)
		after, _, _ := stats(w.timesOf(0), delay)
		t.Logf("noticed after %d ns: mean %.2f d before, %.2f d (at most %.2f d) for the first 8 of %d ms, %.2f d later",
			reach, before, first, most, (w.Now-gone)/ms, after)
		if first > before+1 {
			t.Errorf("mean %.2f d just after a member of four crashed, %.2f d before: want at most one more", first, before)
		}
		if after > before+0.15 {
			t.Errorf("mean %.2f d long after a member of four crashed, %.2f d before", after, before)
		}
	}
}

// A member that is late on purpose costs the others what a crashed one does.
func TestSlowOnPurposeMemberCostsOneDelayForAWhile(t *testing.T) {
	for _, late := range []int64{delay / 2, delay, 3 * delay / 2, 2 * delay, 3 * delay, 0} {
		w, before := quick(t, Options{})
		w.Members[3].liar = &liar{Liar: Liar{Member: 3, Does: LiarJustInTime, Late: late}}
		w.Members[0].times = nil
		poisson(t, w, 60, 3, 4*ms)
		first, _, _ := stats(w.timesOf(0)[:8], delay)
		w.Members[0].times = nil
		poisson(t, w, 300, 3, 4*ms)
		after, p99, _ := stats(w.timesOf(0), delay)
		t.Logf("late by %d ms: mean %.2f d before, %.2f d for the first 8, %.2f d later (p99 %.2f d)", late/ms, before, first, after, p99)
		if first > before+1 {
			t.Errorf("late by %d ms: mean %.2f d just after a member of four became slow, %.2f d before: want at most one more", late/ms, first, before)
		}
		if after > before+0.3 {
			t.Errorf("late by %d ms: mean %.2f d long after a member of four became slow, %.2f d before", late/ms, after, before)
		}
	}
}

func TestIsolatedTransactionIsCheapAndQuick(t *testing.T) {
	for _, n := range []int{4, 7, 16} {
		w := network(t, Options{Seed: 4, Weights: weights(n), Delay: delay, Jitter: delay / 10, Sync: 1000 * ms})
		poisson(t, w, 20, n, 4*ms)
		w.lat = nil
		created := w.Created
		for i := range 40 {
			quiet := w.Created
			if err := w.Run(w.Now + 500*ms); err != nil {
				t.Fatal(err)
			}
			if i > 0 && w.Created != quiet {
				t.Fatalf("n = %d: %d events were made with nothing to order", n, w.Created-quiet)
			}
			w.Submit(i%n, fmt.Sprintf("alone %d", i))
			if err := w.Run(w.Now + 20*delay); err != nil {
				t.Fatal(err)
			}
		}
		mean, p99, most := stats(w.Latencies(), delay)
		per := float64(w.Created-created) / float64(n) / 40
		t.Logf("n = %d: mean %.2f d, p99 %.2f d, max %.2f d, %.2f events per member", n, mean, p99, most, per)
		if mean > 5.5 {
			t.Errorf("n = %d: mean %.2f d from sleep, want at most 5.5", n, mean)
		}
		if per > 5 {
			t.Errorf("n = %d: %.2f events per member for one transaction, want at most 5", n, per)
		}
		settle(t, w)
	}
}
