package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/node/api"
)

func vmCommand(t *terminal) *cobra.Command {
	return group(&cobra.Command{Use: "vm", Short: "Machines: run, list, show, stop, start, plan, migrate, approve, remove"},
		vmRun(t), vmList(t), vmShow(t), vmStop(t), vmStart(t), vmPlan(t), vmMigrate(t), vmApprove(t), vmRemove(t))
}

func vmRun(t *terminal) *cobra.Command {
	q := api.RunMachine{VCPUs: 1}
	var sign signFlags
	memory := size(512 << 20)
	c := &cobra.Command{
		Use: "run NAME --image IMAGE", Short: "Define a machine and start it here", Args: exactly("NAME"),
		Example: "  dcnode vm run web1 --image debian --memory 2G --vcpus 2",
		RunE: func(c *cobra.Command, args []string) error {
			if q.Image == "" {
				return &usageError{fmt.Errorf("name an image with --image: see `dcnode image ls`")}
			}
			cl, err := t.client()
			if err != nil {
				return err
			}
			q.Name, q.Memory = args[0], int64(memory)
			tell, end := t.progress()
			if sign.account != "" {
				err = signMachine(c.Context(), cl, &sign, &q, tell)
			}
			if err != nil {
				end()
				return err
			}
			m, err := cl.RunMachine(c.Context(), q, tell)
			end()
			if err != nil {
				return err
			}
			return t.print(m, func() {
				fmt.Fprintf(t.out, "machine %s runs at %s (%s), console in %s\n", m.Name, m.Site, strings.TrimSpace(m.Detail.Driver+" "+m.Detail.Accelerator), m.Console)
			})
		},
	}
	c.Flags().StringVar(&q.Image, "image", "", "image that it starts from")
	c.Flags().Var(&memory, "memory", "memory")
	c.Flags().IntVar(&q.VCPUs, "vcpus", q.VCPUs, "virtual CPUs")
	c.Flags().StringVar(&q.CPU, "cpu", "", "CPU model (default: one that can migrate)")
	c.Flags().StringVar(&q.Driver, "driver", "", "qemu or memvm (default: the first that works here)")
	c.Flags().StringVar(&q.Append, "append", "", "added to the image's kernel command line")
	sign.addAccount(c, "account that it is to belong to (default: this site)")
	c.Flags().StringArrayVar(&sign.keys, "key", nil, "file with a key of the account; may be given again")
	return c
}

// signMachine has a machine designed by the node and signs its definition.
func signMachine(ctx context.Context, cl *api.Client, f *signFlags, q *api.RunMachine, tell api.Tell) error {
	s, err := cl.Signing(ctx, f.account)
	if err != nil {
		return err
	}
	if s.Site == f.account {
		return nil // its own word does
	}
	d, err := cl.Design(ctx, *q, tell)
	if err != nil {
		return err
	}
	tx, err := f.sign(s, f.account, d)
	if err != nil {
		return err
	}
	q.Signed, err = ledger.Encode(tx)
	return err
}

func vmList(t *terminal) *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List the machines of the overlay", Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			ms, err := t.machines(c)
			if err != nil {
				return err
			}
			return t.print(ms, func() {
				rows := []string{"NAME\tSITE\tEPOCH\tSTATE\tMEMORY\tIMAGE"}
				for _, m := range ms {
					rows = append(rows, fmt.Sprintf("%s\t%s\t%d\t%s\t%s\t%s", m.Name, m.Site, m.Epoch, stateOf(m), bytes(m.Memory), m.Image))
				}
				t.table(rows...)
			})
		},
	}
}

func (t *terminal) machines(c *cobra.Command) ([]api.Machine, error) {
	cl, err := t.client()
	if err != nil {
		return nil, err
	}
	return cl.ListMachines(c.Context())
}

// stateOf is what a machine does, as far as this site can tell.
func stateOf(m api.Machine) string {
	switch {
	case m.Move != nil:
		return "moving: " + string(m.Move.Phase)
	case m.Stopped:
		return "stopped"
	case m.Here:
		return string(m.State)
	}
	return "there"
}

func vmShow(t *terminal) *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Show a machine and who has owned it", Args: exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			ms, err := t.machines(c)
			if err != nil {
				return err
			}
			for _, m := range ms {
				if m.Name == args[0] {
					return t.print(m, func() { t.showMachine(c, m) })
				}
			}
			return fmt.Errorf("there is no machine %s: see `dcnode vm ls`", args[0])
		},
	}
}

func (t *terminal) showMachine(c *cobra.Command, m api.Machine) {
	fmt.Fprintf(t.out, "%s: %s at %s, epoch %d\n", m.Name, stateOf(m), m.Site, m.Epoch)
	fmt.Fprintf(t.out, "%s, %s of memory, %d vCPUs, image %s\n",
		strings.TrimSpace(m.Detail.Driver+" "+m.Detail.Accelerator), bytes(m.Memory), m.Detail.VCPUs, m.Image)
	if m.Console != "" {
		fmt.Fprintln(t.out, "console in", m.Console)
	}
	sites := map[uint64]string{}
	if cl, err := t.client(); err == nil {
		if s, err := cl.Ledger(c.Context()); err == nil {
			for _, mem := range s.Members {
				sites[uint64(mem.ID)] = mem.Site
			}
		}
	}
	rows := []string{"INDEX\tEPOCH\tOWNER\tBY"}
	for _, h := range m.Handovers {
		rows = append(rows, fmt.Sprintf("%d\t%d\t%s\t%s", h.Index, h.Epoch, sites[uint64(h.Owner)], h.Why))
	}
	t.table(rows...)
	if m.Last != nil {
		if words := besideTruth(&m.Last.Forecast, m.Last.Truth); words != "" {
			fmt.Fprintf(t.out, "the last move, from %s to %s: %s\n", sites[uint64(m.Last.From)], sites[uint64(m.Last.To)], words)
		}
	}
	if m.Last != nil && m.Last.Reason != "" {
		fmt.Fprintf(t.out, "the last move ended %s: %s\n", m.Last.Phase, m.Last.Reason)
	}
}

func vmStop(t *terminal) *cobra.Command {
	return &cobra.Command{
		Use: "stop NAME", Short: "Stop a machine; its disks stay", Args: exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := t.client()
			if err != nil {
				return err
			}
			m, err := cl.StopMachine(c.Context(), args[0])
			if err != nil {
				return err
			}
			return t.print(m, func() { fmt.Fprintf(t.out, "machine %s is stopped\n", m.Name) })
		},
	}
}

func vmStart(t *terminal) *cobra.Command {
	return &cobra.Command{
		Use: "start NAME", Short: "Start a stopped machine", Args: exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := t.client()
			if err != nil {
				return err
			}
			m, err := cl.StartMachine(c.Context(), args[0])
			if err != nil {
				return err
			}
			return t.print(m, func() { fmt.Fprintf(t.out, "machine %s runs at %s\n", m.Name, m.Site) })
		},
	}
}

func vmRemove(t *terminal) *cobra.Command {
	return &cobra.Command{
		Use: "rm NAME", Short: "Remove a machine and its disks", Args: exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := t.client()
			if err != nil {
				return err
			}
			if err := cl.RemoveMachine(c.Context(), args[0]); err != nil {
				return err
			}
			return t.print(map[string]string{"name": args[0]}, func() { fmt.Fprintf(t.out, "machine %s is removed\n", args[0]) })
		},
	}
}

func vmMigrate(t *terminal) *cobra.Command {
	var q api.Migrate
	var down pause
	var bandwidth size
	var dry, cancel bool
	c := &cobra.Command{
		Use: "migrate NAME", Short: "Move a running machine to another site", Args: exactly("NAME"),
		Long: "Moves a running machine: the members bid, the ledger selects, and the machine runs on\nthere after a short pause. If anything fails before the handover, it runs on here.",
		RunE: func(c *cobra.Command, args []string) error {
			q.Name, q.MaxDowntime, q.Bandwidth = args[0], int64(down), int64(bandwidth)
			switch {
			case cancel && q != (api.Migrate{Name: q.Name}) || cancel && dry:
				return &usageError{errors.New("--cancel ends the move that is under way: give no other flag of a move with it")}
			case cancel:
				return t.cancelMove(c, q.Name)
			case dry:
				return t.plan(c, api.PlanQuery{Machine: q.Name, To: q.To, Limits: ledger.Limits{MaxDowntime: q.MaxDowntime, Bandwidth: q.Bandwidth}}, false)
			}
			cl, err := t.client()
			if err != nil {
				return err
			}
			tell, end := t.progress()
			rep, err := cl.Migrate(c.Context(), q, tell)
			end()
			if err != nil {
				return err
			}
			return t.print(rep, func() { t.showReport(rep) })
		},
	}
	c.Flags().StringVar(&q.To, "to", "", "site to move to (default: the overlay selects)")
	c.Flags().Var(&down, "max-downtime", "longest pause (default: as its policy says, or 300ms)")
	c.Flags().Var(&bandwidth, "max-bandwidth", "bytes a second that it may use (default: as its policy says)")
	c.Flags().BoolVar(&cancel, "cancel", false, "end the move that is under way; the machine runs on here")
	c.Flags().BoolVar(&dry, "dry-run", false, "order nothing: say what the move would be, as `vm plan` does")
	return c
}

// cancelMove calls a move off.
func (t *terminal) cancelMove(c *cobra.Command, machine string) error {
	cl, err := t.client()
	if err != nil {
		return err
	}
	x, err := cl.CancelMove(c.Context(), machine)
	if err != nil {
		return err
	}
	return t.print(x, func() {
		to := ""
		if x.To != "" {
			to = " to " + x.To
		}
		fmt.Fprintf(t.out, "the move of %s%s has ended: %s; it runs on at %s\n", x.Machine, to, x.Reason, x.Site)
	})
}

// showReport tells what a move did.
func (t *terminal) showReport(r api.Report) {
	fmt.Fprintf(t.out, "machine %s moved from %s to %s in %.2f s (%s)\n", r.Machine, r.Source, r.Destination, r.TotalSeconds, strings.TrimSpace(r.Driver+" "+r.Accelerator))
	fmt.Fprintf(t.out, "selected   %s\n", r.Why)
	t.showBids(r.Bids)
	if words := besideTruth(r.Forecast, r.Truth); words != "" {
		fmt.Fprintf(t.out, "forecast   %s\n", words)
	}
	fmt.Fprintf(t.out, "pause      %d ms, as the driver measured it\n", r.DowntimeQEMU)
	fmt.Fprintf(t.out, "consensus  %.1f ms from intent to selection (bids included), %.1f ms from release to its order\n", r.Consensus.Selection, r.Consensus.Release)
	b := r.Bytes
	if c := r.Cuts; c.Count > 0 {
		fmt.Fprintf(t.out, "link       cut %d times, %.1f s in all, %s sent again\n", c.Count, c.Seconds, bytes(c.SentTwice))
	}
	fmt.Fprintf(t.out, "image      %s fetched by CID\n", bytes(b.ImageSent))
	fmt.Fprintf(t.out, "disk       %s changed, %s sent\n", bytes(b.DiskPlain), bytes(b.DiskSent))
	fmt.Fprintf(t.out, "memory     %s, %s sent (zero %s, on the destination's disk %s, repeated %s, new %s, device state %s)\n", bytes(b.MemoryPlain), bytes(b.MemorySent),
		bytes(b.ByOrigin["zero"]), bytes(b.ByOrigin["disk"]), bytes(b.ByOrigin["self"]), bytes(b.ByOrigin["literal"]), bytes(b.ByOrigin["opaque"]))
	fmt.Fprintf(t.out, "digest     %s, the same at both ends\n", r.Digest)
}

func (t *terminal) showBids(bids []api.Bid) {
	rows := []string{"  BIDDER\tPREDICTED\tMISSING\tRTT\tBANDWIDTH\tWHY NOT"}
	for _, b := range bids {
		if !b.Eligible {
			rows = append(rows, fmt.Sprintf("  %s\t-\t-\t-\t-\t%s", b.Member, b.Reason))
			continue
		}
		predicted := "-" // the reason has it
		if b.PredictedSeconds > 0 {
			predicted = fmt.Sprintf("%.1f s", b.PredictedSeconds)
		}
		rows = append(rows, fmt.Sprintf("  %s\t%s\t%s\t%.1f ms\t%s/s\t%s", b.Member, predicted, bytes(b.MissingBytes), b.RTTMillis, bytes(b.Bandwidth), b.Reason))
	}
	t.table(rows...)
}
