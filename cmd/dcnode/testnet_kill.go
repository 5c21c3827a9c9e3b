package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/dcnode/dcnode/testnet"
)

func testnetKill(t *terminal) *cobra.Command {
	var o testnet.KillOptions
	c := &cobra.Command{
		Use: "kill", Short: "Kill members again and again while they order, and look for damage", Args: exactly(),
		Long: `Brings up the members as dcnode processes, has them order empty transactions all the
time, kills one (of 4; two of 7) at random instants and starts it again, and checks
that all tell one order, that nothing is lost that a member had said to be ordered,
that no member contradicts itself, and that all end in one state.`,
		RunE: func(c *cobra.Command, _ []string) error {
			o.Out = t.err
			rep, err := testnet.Kill(c.Context(), o)
			if err != nil {
				return errors.Join(err, c.Context().Err())
			}
			return t.print(rep, func() { t.showKills(rep) })
		},
	}
	f := c.Flags()
	f.IntVar(&o.Members, "members", 4, "members, 4 or more")
	f.IntVar(&o.Kills, "kills", 1000, "how often")
	f.BoolVar(&o.Reboot, "reboot", false, "also cut off a part of the log that was not synced, as a power cut would")
	f.DurationVar(&o.Delay, "delay", 0, "one-way delay between members (default 1ms)")
	f.DurationVar(&o.Spacing, "spacing", 0, "mean time between two submissions (default 10ms)")
	f.Uint64Var(&o.Seed, "seed", 1, "of who is killed and when")
	f.BoolVar(&o.Loopback, "loopback", false, "no emulated link")
	f.BoolVar(&o.Keep, "keep", false, "keep logs and data")
	return c
}

func (t *terminal) showKills(r testnet.KillReport) {
	fmt.Fprintf(t.out, `%d kills in %.0f s: no transaction lost, no member contradicted itself, one order, one state
%d transactions ordered, %d more whose member was killed before it could tell; %d events in the order
answers %.0f ms after its start (99th percentile %.0f, most %.0f), orders after %.0f ms (%.0f, %.0f)
`, r.Kills, r.Seconds, r.Submitted, r.Unsure, r.Ordered,
		r.Back.Median, r.Back.P99, r.Back.Max, r.Caught.Median, r.Caught.P99, r.Caught.Max)
	if r.Again > 0 {
		fmt.Fprintf(t.out, "%d submissions refused by members that had to begin again from a checkpoint of the others\n", r.Again)
	}
	if r.Cut > 0 {
		fmt.Fprintf(t.out, "%s cut off logs\n", bytes(r.Cut))
	}
}
