package testnet

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/dcnode/dcnode/consensus/ledger"
)

// The bounds are those of a machine that is busy with other tests: that plans are as
// good as they should be is for `make bench-plan` to show.
func TestPlansAreAboutWhatMovesAre(t *testing.T) {
	if testing.Short() {
		t.Skip("moves machines over slow links")
	}
	var all []Compared
	o := PlanOptions{Moves: 4, Seed: 1, Most: 64 << 20, Program: filepath.Join(built(t), "dcnode"), Out: t.Output()}
	if err := ComparePlans(t.Context(), o, func(c Compared) {
		all = append(all, c)
		t.Logf("%s to %s: %d ms planned, %d taken; %d KiB planned, %d sent", c.Machine, c.To, c.Plan.Millis, c.Truth.Millis, c.Plan.Bytes()>>10, (c.Truth.Image+c.Truth.Disk+c.Truth.Memory)>>10)
	}); err != nil {
		t.Fatal(err)
	}
	s := Summarise(all)
	if s.Moves != 4 {
		t.Fatalf("%d moves, want 4", s.Moves)
	}
	if strings.HasPrefix(all[0].Link, "loopback") {
		return // whatever it is, it is too quick to be planned
	}
	if s.Bytes[0] > 0.5 || s.Seconds[0] > 2 {
		t.Errorf("median errors: %.0f %% of the bytes, %.0f %% of the seconds", 100*s.Bytes[0], 100*s.Seconds[0])
	}
	for _, c := range all {
		if c.Cold != (c.N <= 2) || c.Cold && c.Truth.Image == 0 || c.Truth.Millis < 1000 {
			t.Errorf("move %d: %+v", c.N, c)
		}
	}
}

func TestErrorsOfPlansSumUp(t *testing.T) {
	var all []Compared
	for _, off := range []float64{-0.5, 0.1, 0.2, -0.3} {
		all = append(all, Compared{Seconds: off, Bytes: off / 10, Pause: 2 * off, InRange: off > 0})
	}
	want := PlanSummary{Moves: 4, Seconds: [2]float64{0.25, 0.5}, Bytes: [2]float64{0.025, 0.05}, Pause: [2]float64{0.5, 1}, InRange: 2}
	if got := Summarise(all); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := Summarise(nil); got != (PlanSummary{}) {
		t.Errorf("nothing sums up to %+v", got)
	}
	if got := off(90, 100); got != -0.1 {
		t.Errorf("90 for 100 is off by %v", got)
	}
	if f := (ledger.Forecast{Image: 1, Disk: 2, Memory: 3}); f.Bytes() != 6 {
		t.Errorf("%d bytes", f.Bytes())
	}
}
