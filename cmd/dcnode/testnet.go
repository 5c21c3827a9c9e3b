package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/dcnode/dcnode/testnet"
)

func testnetCommand(t *terminal) *cobra.Command {
	return group(&cobra.Command{Use: "testnet", Short: "Several sites on this machine, to see dcnode work"}, testnetDemo(t), testnetGuest(t), testnetConsensus(t), testnetPlan(t), testnetKill(t))
}

func testnetDemo(t *terminal) *cobra.Command {
	var o testnet.Options
	var mbit int64
	memory := size(256 << 20)
	c := &cobra.Command{
		Use: "demo", Short: "Move a real guest between sites that are far apart", Args: exactly(),
		Long: `Brings up three sites as three dcnode processes with an emulated wide-area link
between them (as root; else on loopback), runs a guest at the first that computes,
writes to its disk and ticks, moves it to the site that the ledger selects, and
proves from outside that it is the same machine, whole, and the only one.`,
		RunE: func(c *cobra.Command, _ []string) error {
			o.Rate, o.Memory, o.Out = mbit*1_000_000, int64(memory), t.err
			rep, err := testnet.Demo(c.Context(), o)
			if err != nil {
				return errors.Join(err, c.Context().Err())
			}
			return t.print(rep, func() { t.showDemo(rep) })
		},
	}
	f := c.Flags()
	f.IntVar(&o.Members, "members", 3, "sites, 2 to 7")
	f.StringVar(&o.Driver, "driver", "", "qemu or memvm (default: qemu if it can be had)")
	f.StringVar(&o.To, "to", "", "site to move to (default: the ledger selects)")
	f.DurationVar(&o.Delay, "delay", 5*time.Millisecond, "one-way delay between sites; 5ms is 1000 km of fibre")
	f.Int64Var(&mbit, "rate", 100, "Mbit/s of each site, each way")
	f.BoolVar(&o.Loopback, "loopback", false, "no emulated link")
	f.StringVar((*string)(&o.Kill), "kill", "", "kill -9 dcnode at the destination: in the memory phase (memory), or when the machine runs there and nobody knows yet (running); it must run at the source then")
	f.Lookup("kill").NoOptDefVal = string(testnet.KillInMemory)
	f.DurationVar(&o.Cut, "cut", 0, "cut the link between source and destination for so long in the memory phase: the move goes on after it")
	f.Int64Var(&o.CutAfter, "cut-after", 0, "bytes that are sent before --cut (default: 45 % of the memory)")
	f.StringVar(&o.Workload, "workload", "", "the guest's program (default: dcnode-guest beside this program)")
	f.Var(&memory, "memory", "memory of the guest")
	f.BoolVar(&o.Keep, "keep", false, "keep logs and data of the sites")
	return c
}

func testnetGuest(t *terminal) *cobra.Command {
	var workload string
	c := &cobra.Command{
		Use: "guest", Short: "Make QEMU and the demo's guest ready and print where they are", Args: exactly(),
		Long: "Makes QEMU and the demo's guest ready in the cache and prints their paths as variables,\nas the tests with QEMU want them:\n\n  env $(dcnode testnet guest) go test ./vmm/qemu -vm",
		RunE: func(c *cobra.Command, _ []string) error {
			exe, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find this program: %w", err)
			}
			k, err := testnet.MakeKit(c.Context(), exe, workload, t.err)
			if err != nil {
				return err
			}
			return t.print(k, func() {
				fmt.Fprintf(t.out, "DCNODE_QEMU=%s\nDCNODE_QEMU_IMG=%s\nDCNODE_GUEST_KERNEL=%s\nDCNODE_GUEST_INITRD=%s\nDCNODE_GUEST_DISK=%s\n",
					k.QEMU, k.QEMUImg, k.Kernel, k.Initrd, k.Disk)
			})
		},
	}
	c.Flags().StringVar(&workload, "workload", "", "the guest's program (default: dcnode-guest beside this program)")
	return c
}

// showDemo tells what the demo saw.
func (t *terminal) showDemo(r testnet.Report) {
	fmt.Fprintln(t.out)
	if r.Killed != "" {
		fmt.Fprintf(t.out, "dcnode at %s was killed.\nthe move: %s\n", r.Killed, r.Error)
		if r.RanThere > 0 {
			fmt.Fprintf(t.out, "the machine ran there for %.0f ms without a confirmation, then stood still, and never beside the source's\n", r.RanThere)
		}
		fmt.Fprintf(t.out, "the machine ran on at the source: %d ticks since, none missing, longest gap %.0f ms\n", r.TicksAfter, r.Downtime)
		return
	}
	t.showReport(r.Report)
	fmt.Fprintf(t.out, "link       %s", r.Link)
	if r.LinkBytes >= 0 {
		fmt.Fprintf(t.out, "; %s crossed it during the move", bytes(r.LinkBytes))
	}
	fmt.Fprintf(t.out, "\ndowntime   %.0f ms from the last tick here to the first there; the longest gap between any two ticks: %.0f ms, %.1f s after the order\n", r.Handover, r.Downtime, r.GapAt)
	fmt.Fprintf(t.out, "continuity %d ticks before, %d after, %d missing, %d twice\n", r.TicksBefore, r.TicksAfter, r.TicksMissing, r.TicksTwice)
	fmt.Fprintf(t.out, "whole      disk checksum %s, source's copy gone: %s, one owner at every index: %s, all ledgers equal: %s\n",
		yes(r.DiskChecksumOK), yes(r.SourceGone), yes(r.OneOwner), yes(r.RootsAgree))
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "NO"
}
