package testnet

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dcnode/dcnode/node/api"
)

func TestTimeToOrderIsMeasuredBetweenRealProcesses(t *testing.T) {
	var seen []Scenario
	o := ConsensusOptions{
		Count: 20, Isolated: 3, Idle: time.Second, Crash: true, Delay: 2 * time.Millisecond,
		Program: filepath.Join(built(t), "dcnode"), Out: t.Output(),
	}
	if err := Consensus(t.Context(), o, func(s Scenario) { seen = append(seen, s) }); err != nil {
		t.Fatal(err)
	}
	if len(seen) != 5 {
		t.Fatalf("%d scenarios, want 5", len(seen))
	}
	for _, s := range seen {
		t.Logf("%s: %.2f ms everywhere, %.2f here, %.0f events/s, %.0f B/s per link", s.Name, s.Everywhere.Mean, s.Here.Mean, s.Events, s.PerLink)
		if s.Name == "idle" {
			if s.Events != 0 {
				t.Errorf("%.1f events a second are ordered while there is nothing to order", s.Events)
			}
			continue
		}
		shortest := 3 * s.Delay // nothing is ordered before three messages came one after the other
		if strings.HasPrefix(s.Link, "loopback") {
			shortest = 0
		}
		if s.Everywhere.Min <= shortest || s.Everywhere.Mean < s.Here.Mean || s.Here.Min <= 0 || s.Everywhere.Max < s.Everywhere.P99 {
			t.Errorf("%s: these times cannot be: %+v", s.Name, s)
		}
		if s.Events <= 0 || s.CPU <= 0 {
			t.Errorf("%s: nothing happened: %+v", s.Name, s)
		}
	}
}

func TestWatchFindsMembersThatDisagree(t *testing.T) {
	alice, bob := &Site{Name: "alice"}, &Site{Name: "bob"}
	for name, second := range map[string]api.Ordered{
		"the order is not one": {Index: 7, Event: "bbbb"},
		"is ordered twice":     {Index: 8, Event: "cccc", Tx: []string{"x"}},
	} {
		w := watchOrder(t.Context(), nil)
		w.note(alice, []api.Ordered{{Index: 7, Event: "aaaa", Tx: []string{"x"}}})
		w.note(bob, []api.Ordered{{Index: 7, Event: "aaaa", Tx: []string{"x"}}})
		if err := w.until(t.Context(), func() bool { return true }); err != nil {
			t.Errorf("they agree, and yet: %v", err)
		}
		w.note(bob, []api.Ordered{second})
		if err := w.close(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want that %s", err, name)
		}
	}
}

func TestTimesSumUp(t *testing.T) {
	var ds []time.Duration
	for i := 1; i <= 1000; i++ {
		ds = append(ds, time.Duration(1001-i)*time.Millisecond)
	}
	want := Times{Min: 1, Median: 501, Mean: 500.5, P99: 991, Max: 1000}
	if got := timesOf(ds); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
