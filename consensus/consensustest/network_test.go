package consensustest

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/dcnode/dcnode/consensus"
)

const ms = 1_000_000

// settle runs until nothing has been made for a while and checks that everything
// submitted was ordered at every honest member, and that the network sleeps.
func settle(t *testing.T, w *Network) {
	t.Helper()
	for range 200 {
		before := w.Created
		if err := w.Run(w.Now + 2000*ms); err != nil {
			t.Fatal(err)
		}
		if w.Created == before && len(w.Unordered()) == 0 {
			if err := w.Run(w.Now + 20_000*ms); err != nil {
				t.Fatal(err)
			}
			if w.Created != before {
				t.Fatalf("%d events were made when nothing was undecided", w.Created-before)
			}
			return
		}
	}
	for _, m := range w.Members {
		t.Logf("member %d: pool %d, %+v", m.index, len(m.pool), m.Core.Status())
	}
	t.Fatalf("%d transactions are not ordered, %d events were made", len(w.Unordered()), w.Created)
}

func load(w *Network, count int, every int64) {
	for i := range count {
		w.After(int64(i)*every, func() {
			to := w.rng.IntN(w.honest())
			w.Submit(to, fmt.Sprintf("tx %d", i))
		})
	}
}

func weights(n int) []uint64 {
	out := make([]uint64, n)
	for i := range out {
		out[i] = 1
	}
	return out
}

func network(t *testing.T, opt Options) *Network {
	t.Helper()
	w, err := NewNetwork(opt)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestQuietNetworkOrdersEverythingThenSleeps(t *testing.T) {
	for n := 1; n <= 7; n++ {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			w := network(t, Options{Seed: uint64(n), Weights: weights(n), Delay: 10 * ms, Jitter: ms, Sync: 300 * ms})
			load(w, 100, 7*ms)
			settle(t, w)
		})
	}
}

func TestLossIsRepaired(t *testing.T) {
	for n := 2; n <= 7; n++ {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			w := network(t, Options{Seed: uint64(n), Weights: weights(n), Delay: 10 * ms, Jitter: 30 * ms, Loss: 0.2, Sync: 100 * ms})
			load(w, 100, 7*ms)
			settle(t, w)
		})
	}
}

func TestCrashesNeverForkTheOrder(t *testing.T) {
	crashes := 0
	for seed := range uint64(6) {
		n := 1 + int(seed)%5
		w := network(t, Options{Seed: seed, Weights: weights(n), Delay: 10 * ms, Jitter: 10 * ms, Loss: 0.02, Sync: 100 * ms, Crash: 0.1, Down: 100 * ms})
		load(w, 150, 7*ms)
		settle(t, w)
		for _, m := range w.Members {
			if f := m.Core.Forks(); len(f) > 0 {
				t.Errorf("seed %d: member %d made a fork", seed, f[0].A.Creator)
			}
		}
		crashes += w.Crashes
	}
	if crashes < 50 {
		t.Errorf("only %d crashes: this says little", crashes)
	}
}

func TestLiarsBelowAThirdChangeNothing(t *testing.T) {
	for seed := range uint64(6) {
		n := 4 + int(seed)%4
		liars := (n - 1) / 3
		w := network(t, Options{Seed: seed, Weights: weights(n), Delay: 10 * ms, Jitter: 10 * ms, Loss: 0.02, Sync: 100 * ms, Liars: liars, Crash: 0.005, Down: 100 * ms})
		load(w, 150, 7*ms)
		settle(t, w)
		if len(w.Members[0].Core.Forks()) == 0 {
			t.Errorf("seed %d: no fork was noticed", seed)
		}
	}
}

func TestWeightsDecideNotHeads(t *testing.T) {
	for _, weights := range [][]uint64{{10, 1, 1}, {3, 1, 1, 1}, {5, 4, 3, 2, 1}, {1, 1, 1, 0}} {
		w := network(t, Options{Seed: 9, Weights: weights, Delay: 10 * ms, Jitter: 5 * ms, Loss: 0.05, Sync: 100 * ms})
		load(w, 100, 7*ms)
		settle(t, w)
	}
}

func TestCutMinorityCatchesUp(t *testing.T) {
	for _, groups := range [][]int{{0, 0, 0, 1}, {0, 1, 1, 1, 0, 1, 1}, {0, 0, 1, 1}} {
		w := network(t, Options{Seed: 3, Weights: weights(len(groups)), Delay: 10 * ms, Jitter: 3 * ms, Sync: 100 * ms})
		w.After(200*ms, func() { w.Partition(groups...) })
		w.After(2500*ms, func() { w.Partition(make([]int, len(groups))...) })
		load(w, 300, 11*ms)
		settle(t, w)
		if quorum := groups[0] == 0 && groups[2] != groups[3] || len(groups) > 4; quorum && w.Stale == 0 {
			t.Errorf("%v: the cut members lost nothing, so were not away long enough", groups)
		}
	}
}

// The paper's rules need six and a half one-way delays; these have to make do with
// less than four and a half.
func TestLatencyIsBelowFiveDelays(t *testing.T) {
	w := network(t, Options{Seed: 1, Weights: weights(4), Delay: 10 * ms, Jitter: ms, Sync: 1000 * ms})
	load(w, 1000, 3*ms)
	settle(t, w)
	lat := mean(w.Latencies()[50:]) / (10 * ms)
	perLayer := float64(w.Created) / 4 / 300
	t.Logf("mean %.2f delays until all members know, %.2f events per member and delay", lat, perLayer)
	if lat > 4.6 {
		t.Errorf("mean latency is %.2f delays, want at most 4.6", lat)
	}
	if perLayer > 1.1 {
		t.Errorf("%.2f events per member and delay, want at most one", perLayer)
	}
}

func mean(list []int64) float64 {
	var sum int64
	for _, x := range list {
		sum += x
	}
	return float64(sum) / float64(len(list))
}

// A member that is known to be gone costs nothing; until then, a wait in each layer.
func TestDeadMemberDoesNotSlowTheOthers(t *testing.T) {
	w := network(t, Options{Seed: 1, Weights: weights(4), Delay: 10 * ms, Jitter: ms, Sync: 1000 * ms})
	for i := range 600 {
		w.After(int64(i)*3*ms, func() { w.Submit(i%3, fmt.Sprint("tx ", i)) })
	}
	w.After(600*ms, func() { w.Members[3].Down(60_000 * ms) })
	var known []int64
	w.After(800*ms, func() { known = w.timesOf(0) })
	if err := w.Run(5000 * ms); err != nil {
		t.Fatal(err)
	}
	after := w.timesOf(0)[len(known)+20:]
	if len(after) < 300 {
		t.Fatalf("%d transactions were ordered afterwards", len(after))
	}
	if m := mean(after) / (10 * ms); m > 4.6 {
		t.Errorf("mean latency is %.2f delays with one of four gone", m)
	}
}

func TestIsolatedTransactionIsCheapAndQuick(t *testing.T) {
	w := network(t, Options{Seed: 1, Weights: weights(4), Delay: 10 * ms, Jitter: ms, Sync: 1000 * ms})
	load(w, 50, 1000*ms)
	settle(t, w)
	if per := float64(w.Created) / 4 / 50; per > 5 {
		t.Errorf("%.1f events per member for one transaction, want at most 5", per)
	}
	if m := mean(w.Latencies()) / (10 * ms); m > 5.5 {
		t.Errorf("mean latency from sleep is %.2f delays, want at most 5.5", m)
	}
}

// Whatever comes together: the order is one, everything is in it, and it ends.
func TestAnythingAtOnce(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 1))
		n := 1 + rng.IntN(7)
		p := consensus.DefaultParams
		p.JudgeAny, p.CoinInterval = rng.IntN(2) == 0, 2+rng.Uint64N(6)
		if rng.IntN(2) == 0 {
			p.SeeNum, p.SeeDen, p.NonAncientRounds = 1, 1, 2+rng.Uint64N(8)
		}
		opt := Options{
			Seed: seed, Weights: weights(n), Params: p, Delay: 10 * ms, Jitter: rng.Int64N(40 * ms),
			Loss: 0.1 * float64(rng.IntN(4)), Sync: 50*ms + rng.Int64N(300*ms),
			Crash: 0.01 * float64(rng.IntN(3)), Down: 1 + rng.Int64N(1000*ms),
		}
		if rng.IntN(2) == 0 {
			opt.Liars = (n - 1) / 3
		}
		groups := make([]int, n)
		for i := range groups {
			groups[i] = rng.IntN(2)
			if opt.Liars == 0 {
				opt.Weights[i] += rng.Uint64N(4)
			}
		}
		w := network(t, opt)
		w.After(rng.Int64N(800*ms), func() { w.Partition(groups...) })
		w.After(800*ms+rng.Int64N(2000*ms), func() { w.Partition(make([]int, n)...) })
		load(w, 60+rng.IntN(100), 1+rng.Int64N(20*ms))
		if ok := t.Run(fmt.Sprint(seed), func(t *testing.T) { settle(t, w) }); !ok {
			t.Fatalf("%+v", opt)
		}
	}
}

func TestQuorumLossStopsCreation(t *testing.T) {
	w := network(t, Options{Seed: 1, Weights: weights(4), Delay: 10 * ms, Jitter: ms, Sync: 100 * ms})
	load(w, 50, 7*ms)
	w.After(200*ms, func() { w.Partition(0, 0, 1, 2) })
	if err := w.Run(400 * ms); err != nil {
		t.Fatal(err)
	}
	before, ordered := w.Created, w.Ordered()
	if err := w.Run(60_000 * ms); err != nil {
		t.Fatal(err)
	}
	if made := w.Created - before; made > 4 {
		t.Errorf("%d events were made without a quorum, want at most one for each member", made)
	}
	if w.Ordered() != ordered {
		t.Errorf("%d events were ordered without a quorum", w.Ordered()-ordered)
	}
	w.Partition(0, 0, 0, 0)
	settle(t, w)
}

func TestSameSeedIsSameRun(t *testing.T) {
	run := func() *Network {
		w := network(t, Options{Seed: 77, Weights: weights(5), Delay: 10 * ms, Jitter: 20 * ms, Loss: 0.1, Sync: 100 * ms, Liars: 1, Crash: 0.01, Down: 50 * ms})
		load(w, 60, 7*ms)
		settle(t, w)
		return w
	}
	a, b := run(), run()
	if a.Created != b.Created || fmt.Sprint(a.order) != fmt.Sprint(b.order) {
		t.Errorf("two runs of one seed differ: %d and %d events", a.Created, b.Created)
	}
}
