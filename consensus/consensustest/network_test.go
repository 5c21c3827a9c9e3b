package consensustest

import (
	"fmt"
	"testing"
)

const ms = 1_000_000

// settle ends the faults and runs until everything that was submitted is ordered at
// every honest member, and the network sleeps.
func settle(t *testing.T, w *Network) {
	t.Helper()
	w.Calm()
	if _, err := w.settle(); err != nil {
		t.Fatal(err)
	}
	if err := w.verify(); err != nil {
		t.Fatal(err)
	}
}

// load has transactions submitted at honest members, the last of them the liars, and
// runs until the last is submitted.
func load(t *testing.T, w *Network, count int, every int64) {
	t.Helper()
	for i := range count {
		w.After(int64(i)*every, func() {
			to := w.rng.IntN(w.honest())
			w.Submit(to, fmt.Sprintf("tx %d", i))
		})
	}
	if err := w.Run(w.Now + int64(count)*every); err != nil {
		t.Fatal(err)
	}
}

func weights(n int) []uint64 {
	out := make([]uint64, n)
	for i := range out {
		out[i] = 1
	}
	return out
}

// lastLie makes the last of n members equivocate.
func lastLie(n, liars int) []Liar {
	var out []Liar
	for i := n - liars; i < n; i++ {
		out = append(out, Liar{Member: i, Does: LiarEquivocates})
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
			load(t, w, 100, 7*ms)
			settle(t, w)
		})
	}
}

func TestLossIsRepaired(t *testing.T) {
	for n := 2; n <= 7; n++ {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			w := network(t, Options{Seed: uint64(n), Weights: weights(n), Delay: 10 * ms, Jitter: 30 * ms, Loss: 0.2, Sync: 100 * ms})
			load(t, w, 100, 7*ms)
			settle(t, w)
		})
	}
}

func TestCrashesNeverForkTheOrder(t *testing.T) {
	crashes := 0
	for seed := range uint64(6) {
		n := 1 + int(seed)%5
		w := network(t, Options{Seed: seed, Weights: weights(n), Delay: 10 * ms, Jitter: 10 * ms, Loss: 0.02, Sync: 100 * ms, Crash: 0.1, Down: 100 * ms})
		load(t, w, 150, 7*ms)
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
		w := network(t, Options{Seed: seed, Weights: weights(n), Delay: 10 * ms, Jitter: 10 * ms, Loss: 0.02, Sync: 100 * ms, Liars: lastLie(n, liars), Crash: 0.005, Down: 100 * ms})
		load(t, w, 150, 7*ms)
		settle(t, w)
		if len(w.Members[0].Core.Forks()) == 0 {
			t.Errorf("seed %d: no fork was noticed", seed)
		}
	}
}

func TestWeightsDecideNotHeads(t *testing.T) {
	for _, weights := range [][]uint64{{10, 1, 1}, {3, 1, 1, 1}, {5, 4, 3, 2, 1}, {1, 1, 1, 0}} {
		w := network(t, Options{Seed: 9, Weights: weights, Delay: 10 * ms, Jitter: 5 * ms, Loss: 0.05, Sync: 100 * ms})
		load(t, w, 100, 7*ms)
		settle(t, w)
	}
}

func TestCutMinorityCatchesUp(t *testing.T) {
	stale := 0
	for _, groups := range [][]int{{0, 0, 0, 1}, {0, 1, 1, 1, 0, 1, 1}, {0, 0, 1, 1}} {
		for seed := range uint64(4) {
			w := network(t, Options{Seed: seed, Weights: weights(len(groups)), Delay: 10 * ms, Jitter: 3 * ms, Sync: 100 * ms})
			w.After(200*ms, func() { w.Partition(groups...) })
			w.After(2500*ms, func() { w.Partition(make([]int, len(groups))...) })
			load(t, w, 300, 11*ms)
			settle(t, w)
			stale += w.Stale
		}
	}
	if stale == 0 {
		t.Error("the cut members lost nothing, so were not away long enough")
	}
}

func TestQuorumLossStopsCreation(t *testing.T) {
	w := network(t, Options{Seed: 1, Weights: weights(4), Delay: 10 * ms, Jitter: ms, Sync: 100 * ms})
	w.After(200*ms, func() { w.Partition(0, 0, 1, 2) })
	load(t, w, 50, 7*ms)
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

// Layers pace creation. If two members took an event for one of different layers, each
// could wait for the other: so it must not matter when it came.
func TestMembersAgreeOnLayersAcrossRosters(t *testing.T) {
	for seed := range uint64(30) {
		s := Scenario{
			Options: Options{Seed: seed, Weights: weights(2 + int(seed)%3), Delay: ms, Jitter: ms / 10, Sync: 8 * ms},
			Load:    40, Every: ms, Length: 40 * ms, Join: 1,
			Faults: []Fault{{Kind: Joined, At: 12 * ms, Who: []int{0}, Arg: 1}},
		}
		if res := Simulate(s); res.Err != nil {
			t.Fatalf("seed %d: %v", seed, res.Err)
		} else if res.Counts[Joined] == 0 {
			t.Fatalf("seed %d: the new member made no event", seed)
		}
	}
}
