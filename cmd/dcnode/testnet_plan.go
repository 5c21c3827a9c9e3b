package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/dcnode/dcnode/testnet"
)

func testnetPlan(t *terminal) *cobra.Command {
	var o testnet.PlanOptions
	var out string
	most := size(512 << 20)
	c := &cobra.Command{
		Use: "plan", Short: "Compare plans of moves with what the moves then were", Args: exactly(),
		Long: `Brings up four sites as dcnode processes with emulated links of 20, 100 and 400
Mbit/s between them (as root; else on loopback), moves machines of different sizes and
contents, with the image held and not, and puts beside each other what vm plan said
before each move and what it was. The ledger learns from each move for the next; that
is a part of what is measured. Goals: a median error of the time below 15 %, of the
bytes below 10 %. A line of JSON for each move, and one for all, is appended to the
file that --out or BENCH_OUT names.`,
		RunE: func(c *cobra.Command, _ []string) error {
			o.Out, o.Most = t.err, int64(most)
			machine := thisMachine()
			if !t.json {
				fmt.Fprintln(t.out, machine)
			}
			var all []testnet.Compared
			var failed error
			err := testnet.ComparePlans(c.Context(), o, func(x testnet.Compared) {
				all = append(all, x)
				if !t.json {
					t.showCompared(x)
				}
				failed = errors.Join(failed, t.keepBench(out, map[string]any{"bench": "plan", "when": time.Now(), "seed": o.Seed, "move": x, "machine": machine}))
			})
			if err := errors.Join(err, failed, c.Context().Err()); err != nil {
				return err
			}
			s := testnet.Summarise(all)
			if err := t.keepBench(out, map[string]any{"bench": "plan", "when": time.Now(), "seed": o.Seed, "summary": s, "machine": machine}); err != nil {
				return err
			}
			return t.print(s, func() { t.showPlanSummary(all, s) })
		},
	}
	f := c.Flags()
	f.IntVar(&o.Moves, "moves", 30, "moves")
	f.Uint64Var(&o.Seed, "seed", 1, "of sizes, contents and images")
	f.BoolVar(&o.QEMU, "qemu", false, "move real guests")
	f.Var(&most, "most", "memory of the largest machine")
	f.BoolVar(&o.Loopback, "loopback", false, "no emulated link")
	f.StringVar(&o.Workload, "workload", "", "the guest's program (default: dcnode-guest beside this program)")
	f.BoolVar(&o.Keep, "keep", false, "keep logs and data")
	f.StringVar(&out, "out", os.Getenv("BENCH_OUT"), "file for a line of JSON per move")
	return c
}

// keepBench appends a line of JSON to a file; without a name it does nothing.
func (t *terminal) keepBench(out string, v any) error {
	if out == "" {
		return nil
	}
	f, err := os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("keep the measurement: %w", err)
	}
	defer f.Close()
	return (&terminal{out: f}).line(v)
}

func (t *terminal) showCompared(c testnet.Compared) {
	held := "held"
	if c.Cold {
		held = "cold"
	}
	fmt.Fprintf(t.out, "%2d %4d MiB %-6s %s>%s %3d Mbit/s %4.0f ms %s  %6.1f s for %6.1f (%+4.0f %%)  %6.1f MiB for %6.1f (%+4.0f %%)  pause %3d ms for %3d (%+4.0f %%)\n",
		c.N, c.Memory>>20, c.Content, c.From, c.To, c.Mbit, c.RTT, held, float64(c.Plan.Millis)/1000, float64(c.Truth.Millis)/1000, 100*c.Seconds,
		float64(c.Plan.Bytes())/(1<<20), float64(c.Truth.Image+c.Truth.Disk+c.Truth.Memory)/(1<<20), 100*c.Bytes, c.Plan.Pause, c.Truth.Pause, 100*c.Pause)
}

func (t *terminal) showPlanSummary(all []testnet.Compared, s testnet.PlanSummary) {
	if len(all) == 0 {
		return
	}
	fmt.Fprintf(t.out, "%d moves with %s %s; %s\n", s.Moves, all[0].Driver, all[0].Accelerator, all[0].Link)
	row := func(what string, v [2]float64, goal string) {
		fmt.Fprintf(t.out, "  %-8s median error %5.1f %%, worst %5.1f %%%s\n", what, 100*v[0], 100*v[1], goal)
	}
	row("seconds", s.Seconds, "  (goal: median below 15 %)")
	row("bytes", s.Bytes, "  (goal: median below 10 %)")
	row("pause", s.Pause, "")
	fmt.Fprintf(t.out, "  %d of %d took as long as the range said\n", s.InRange, s.Moves)
}
