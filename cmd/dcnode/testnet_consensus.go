package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dcnode/dcnode/testnet"
)

// paper are the figures of the paper for four members, by kilometres: mean and
// most, in ms.
var paper = map[float64][2]float64{10: {19, 57}, 1000: {590, 751}, 3000: {1050, 1654}}

func testnetConsensus(t *terminal) *cobra.Command {
	var o testnet.ConsensusOptions
	var km []float64
	var out string
	c := &cobra.Command{
		Use: "consensus", Short: "Measure the time to order between real processes", Args: exactly(),
		Long: `Brings up the members as dcnode processes with an emulated link between them (as
root; else on loopback), submits empty transactions at random members and measures
the time until each is ordered at every member, events, bytes and CPU. A line of JSON
for each measurement is appended to the file that --out or BENCH_OUT names.

Times of milliseconds need a machine that does nothing else. Where that cannot be had,
real-time priority comes near it: chrt -r 1 dcnode testnet consensus`,
		RunE: func(c *cobra.Command, _ []string) error {
			o.Out = t.err
			machine := thisMachine()
			if !t.json {
				fmt.Fprintln(t.out, machine)
			}
			for i, d := range km {
				run := o
				run.Delay = time.Duration(d / 200 * float64(time.Millisecond)) // light in fibre: 200 km a millisecond
				if i > 0 {
					run.Idle = 0 // distance does not matter to it
				}
				var failed error
				err := testnet.Consensus(c.Context(), run, func(s testnet.Scenario) {
					failed = errors.Join(failed, t.tellScenario(d, s, machine, out))
				})
				if err := errors.Join(err, failed, c.Context().Err()); err != nil {
					return err
				}
			}
			return nil
		},
	}
	f := c.Flags()
	f.Float64SliceVar(&km, "km", []float64{10, 1000, 3000}, "distances, in km of fibre")
	f.IntVar(&o.Members, "members", 4, "members")
	f.IntVar(&o.Count, "count", 1000, "submissions under light load")
	f.DurationVar(&o.Spacing, "spacing", 0, "mean time between two of them (default: so that few overlap)")
	f.IntVar(&o.Isolated, "isolated", 100, "submissions from idle, far apart")
	f.DurationVar(&o.Idle, "idle", 0, "also watch the overlay do nothing for so long")
	f.BoolVar(&o.Crash, "crash", false, "also kill one member and go on without it")
	f.Uint64Var(&o.Seed, "seed", 1, "of members and spacings")
	f.BoolVar(&o.Loopback, "loopback", false, "no emulated link")
	f.BoolVar(&o.Keep, "keep", false, "keep logs and data")
	f.StringVar(&out, "out", os.Getenv("BENCH_OUT"), "file for a line of JSON per measurement")
	return c
}

// record is one measurement and what it was made on.
type record struct {
	Bench string    `json:"bench"`
	When  time.Time `json:"when"`
	KM    float64   `json:"km"`
	testnet.Scenario
	Paper   *[2]float64 `json:"paper_mean_max_ms,omitempty"`
	Machine string      `json:"machine"`
}

// tellScenario shows a measurement beside the paper's, and keeps it.
func (t *terminal) tellScenario(km float64, s testnet.Scenario, machine, out string) error {
	r := record{Bench: "consensus", When: time.Now(), KM: km, Scenario: s, Machine: machine}
	p, known := paper[km]
	if known && s.Submissions > 0 {
		r.Paper = &p
	}
	if t.json {
		if err := t.line(r); err != nil {
			return err
		}
	} else {
		t.showScenario(km, s, p, known)
	}
	if out == "" {
		return nil
	}
	f, err := os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("keep the measurement: %w", err)
	}
	defer f.Close()
	return (&terminal{out: f}).line(r)
}

func (t *terminal) showScenario(km float64, s testnet.Scenario, paper [2]float64, known bool) {
	fmt.Fprintf(t.out, "\n%d members, %g km (%s)\n%s", s.Members, km, s.Link, s.Name)
	if s.Submissions > 0 {
		fmt.Fprintf(t.out, ": %d submissions in %.0f s\n", s.Submissions, s.Seconds)
		row := func(what string, m testnet.Times) {
			fmt.Fprintf(t.out, "  %-28s min %.2f  median %.2f  mean %.2f  p99 %.2f  max %.2f ms", what, m.Min, m.Median, m.Mean, m.P99, m.Max)
			if s.Delay >= 1 {
				fmt.Fprintf(t.out, "  (mean %.2f d, p99 %.2f d)", m.Mean/s.Delay, m.P99/s.Delay)
			}
			fmt.Fprintln(t.out)
		}
		row("ordered at every member", s.Everywhere)
		row("ordered where submitted", s.Here)
		if known {
			fmt.Fprintf(t.out, "  paper mean %g, max %g ms: %.1f times faster; 10x goal %g ms; bound 3.5 to 3.8 d = %.2f to %.2f ms\n",
				paper[0], paper[1], paper[0]/s.Everywhere.Mean, paper[0]/10, 3.5*s.Delay, 3.8*s.Delay)
		}
	} else {
		fmt.Fprintf(t.out, ": %.0f s\n", s.Seconds)
	}
	fmt.Fprintf(t.out, "  %.1f events/s", s.Events)
	if s.Bytes >= 0 {
		fmt.Fprintf(t.out, ", %.0f B/s in all, %.0f B/s per link", s.Bytes, s.PerLink)
	}
	fmt.Fprintf(t.out, ", CPU of a node %.2f %%, of emulator and bench %.1f %%, of others on this machine %.0f %% of a core\n",
		100*s.CPU, 100*s.Emulator, 100*max(0, s.Others))
}

// thisMachine names what a measurement depends on.
func thisMachine() string {
	model := "unknown CPU"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	load := "unknown"
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		load, _, _ = strings.Cut(string(b), " ")
	}
	return fmt.Sprintf("%s, %d cores, load %s at the start, %s", model, runtime.NumCPU(), load, runtime.Version())
}
