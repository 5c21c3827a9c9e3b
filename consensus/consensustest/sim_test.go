package consensustest

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

var (
	firstSeed = flag.Uint64("seed", 0, "first seed of TestSimulatedNetworksAgree; without -steps that one alone, told in full")
	scenario  = flag.String("scenario", "", "file with a scenario for TestSimulatedNetworksAgree to run, told in full")
	steps     = flag.Int("steps", 0, "how many seeds TestSimulatedNetworksAgree takes; 0: a sample")
)

// sample is how many seeds are run when nobody says.
const sample = 250

// Whatever befalls a network: its members have one order, nothing is lost, and it
// ends. Every kind of fault must have been seen to do something.
func TestSimulatedNetworksAgree(t *testing.T) {
	n := *steps
	told := false
	flag.Visit(func(f *flag.Flag) { told = told || f.Name == "seed" })
	if *scenario != "" {
		tell(t, readScenario(t, *scenario))
		return
	}
	if n == 0 {
		if n = sample; told {
			tell(t, Generate(*firstSeed))
			return
		}
	}
	var total Counts
	var events, ordered int
	var layers uint64
	for seed := *firstSeed; seed < *firstSeed+uint64(n); seed++ {
		s := Generate(seed)
		res := Simulate(s)
		if res.Err != nil {
			report(t, s, res)
			return
		}
		total.Add(&res.Counts)
		events += res.Events
		ordered += res.Ordered
		layers = max(layers, res.Layers)
	}
	t.Logf("%d seeds, %d events, %d ordered, at most %d layers from the last fault until all was ordered\n%s", n, events, ordered, layers, &total)
	if unseen := total.Unseen(); n >= sample && len(unseen) > 0 {
		t.Errorf("never seen in %d seeds: %v", n, unseen)
	}
}

// What went wrong once, made smaller. The names say what was special.
func TestWhatFailedOnceGoesWell(t *testing.T) {
	names, err := filepath.Glob("testdata/once/*.json")
	if err != nil || len(names) == 0 {
		t.Fatalf("%d scenarios, %v", len(names), err)
	}
	for _, name := range names {
		if res := Simulate(readScenario(t, name)); res.Err != nil {
			t.Errorf("%s: %v", name, res.Err)
		}
	}
}

func readScenario(t *testing.T, name string) Scenario {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var s Scenario
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return s
}

// tell runs one scenario and tells what happens in it.
func tell(t *testing.T, s Scenario) {
	fmt.Println(&s)
	s.Trace = os.Stdout
	res := Simulate(s)
	t.Logf("%d events, %d ordered, %d layers\n%s", res.Events, res.Ordered, res.Layers, &res.Counts)
	if res.Err != nil {
		s.Trace = nil
		report(t, s, res)
	}
}

// report says what went wrong, and leaves what is needed to look into it: a smaller
// scenario that goes wrong too, as JSON for -scenario, and the graph that its members
// have, for dcnode dag order and draw.
func report(t *testing.T, s Scenario, res Result) {
	t.Helper()
	t.Errorf("%v\nin %v", res.Err, &s)
	small, again := Shrink(s, 300)
	if again.Err == nil {
		t.Errorf("it does not happen again with the same scenario: the run is not deterministic")
		return
	}
	dir, err := os.MkdirTemp("", "dcnode-sim-")
	if err != nil {
		t.Fatal(err)
	}
	t.Errorf("made smaller: %v\nin %v", again.Err, &small)
	text, err := json.MarshalIndent(&small, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	scenario, dag := filepath.Join(dir, "scenario.json"), filepath.Join(dir, "dag.in")
	if err := os.WriteFile(scenario, text, 0o644); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if again.Network != nil {
		g := again.Network.Graph()
		if diff := g.Difference(); diff != "" {
			t.Errorf("the engine and the definitions differ on its graph: %s", diff)
		}
		if err := g.Write(&b); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(dag, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Errorf("replay it in full with -args -scenario %s; its graph is %s", scenario, dag)
}

func TestSameSeedIsSameRun(t *testing.T) {
	for seed := range uint64(12) {
		var a, b bytes.Buffer
		for _, buf := range []*bytes.Buffer{&a, &b} {
			s := Generate(seed)
			s.Trace = buf
			Simulate(s)
		}
		if a.Len() < 1000 || !bytes.Equal(a.Bytes(), b.Bytes()) {
			t.Fatalf("two runs of seed %d differ: %d and %d bytes", seed, a.Len(), b.Len())
		}
	}
}
