package main

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/node/api"
)

func vmPlan(t *terminal) *cobra.Command {
	q := api.PlanQuery{}
	var down pause
	var bandwidth size
	var verbose bool
	c := &cobra.Command{
		Use: "plan NAME", Short: "Say what a move would be, and where it could go", Args: exactly("NAME"),
		Long: `Asks the machine's owner what it needs and all members what they offer, and says for
each whether the ledger would let it take the machine, what would have to travel, how
long that and the pause would take, and else what is in the way and what would help.
Nothing is ordered, and nothing is promised: a move asks again.`,
		RunE: func(c *cobra.Command, args []string) error {
			q.Machine = args[0]
			q.Limits = ledger.Limits{MaxDowntime: int64(down), Bandwidth: int64(bandwidth)}
			return t.plan(c, q, verbose)
		},
	}
	c.Flags().StringVar(&q.To, "to", "", "ask this site only")
	c.Flags().Var(&down, "max-downtime", "longest pause (default: as its policy says, or 300ms)")
	c.Flags().Var(&bandwidth, "max-bandwidth", "bytes a second that it may use (default: as its policy says)")
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "also say what the plan is made from and how long planning took")
	return c
}

func (t *terminal) plan(c *cobra.Command, q api.PlanQuery, verbose bool) error {
	cl, err := t.client()
	if err != nil {
		return err
	}
	p, err := cl.Plan(c.Context(), q)
	if err != nil {
		return err
	}
	return t.print(p, func() { t.showPlan(p, verbose) })
}

func (t *terminal) showPlan(p api.Plan, verbose bool) {
	fmt.Fprintf(t.out, "machine %s at %s\n", p.Machine, p.From)
	rows := []string{"  RANK\tSITE\tTAKES\tRANGE\tPAUSE\tIMAGE\tDISK\tMEMORY"}
	for _, m := range p.Members {
		if m.Eligible {
			f := m.Forecast
			rows = append(rows, fmt.Sprintf("  %d\t%s\t%s\t%s-%s\t%d ms (%d-%d)\t%s\t%s\t%s", m.Rank, m.Site, seconds(f.Millis), seconds(f.Low), seconds(f.High),
				f.Pause, f.PauseLow, f.PauseHigh, bytes(f.Image), bytes(f.Disk), bytes(f.Memory)))
		}
	}
	if len(rows) > 1 {
		t.table(rows...)
	}
	for _, m := range p.Members {
		if m.Eligible {
			continue
		}
		fmt.Fprintf(t.out, "  %s cannot take it:\n", m.Site)
		for _, r := range m.Reasons {
			fmt.Fprintf(t.out, "    %s\n", printable(r))
		}
		for _, r := range m.Remedies {
			fmt.Fprintf(t.out, "    to change that: %s\n", printable(r))
		}
	}
	if len(p.Silent) > 0 {
		fmt.Fprintf(t.out, "did not answer: %s\n", strings.Join(p.Silent, ", "))
	}
	if verbose {
		t.showGrounds(p)
	}
}

// showGrounds tells what a plan was made from.
func (t *terminal) showGrounds(p api.Plan) {
	n := p.Needs
	fmt.Fprintf(t.out, "expected to travel once: %s of memory (of %s), %s of disk; the guest writes %s/s anew\n",
		bytes(n.MemoryBytes), bytes(n.Memory), bytes(n.DiskBytes), bytes(n.DirtyRate))
	for _, m := range p.Members {
		if o := m.Offer; o != nil && o.Able {
			fmt.Fprintf(t.out, "%s offers %s of memory, %s of disk, %d vCPUs; %s %s; %.1f ms away, %s/s; in %d moves\n", m.Site,
				bytes(o.FreeMemory), bytes(o.FreeDisk), o.FreeVCPUs, printable(o.Driver), printable(o.Version), float64(o.RTT)/1000, bytes(o.Bandwidth), o.Moves)
		}
	}
	fmt.Fprintf(t.out, "asked for %.2f s, planned in %.2f ms\n", p.Asked, 1000*p.Planned)
}

// printable leaves out of another member's words what would move the cursor.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, s)
}

// seconds tells milliseconds as a time that people plan with.
func seconds(ms int64) string {
	if ms < 100_000 {
		return fmt.Sprintf("%.1f s", float64(ms)/1000)
	}
	return (time.Duration(ms) * time.Millisecond).Round(time.Second).String()
}

// besideTruth puts what a move was beside what had been predicted; empty: it is not known.
func besideTruth(f *ledger.Forecast, t *ledger.Truth) string {
	if f == nil || t == nil {
		return ""
	}
	return fmt.Sprintf("predicted %s (%s-%s), took %s; %s predicted, %s sent; a pause of %d ms predicted (%d-%d), %d ms measured",
		seconds(f.Millis), seconds(f.Low), seconds(f.High), seconds(t.Millis), bytes(f.Bytes()), bytes(t.Image+t.Disk+t.Memory),
		f.Pause, f.PauseLow, f.PauseHigh, t.Pause)
}

func vmApprove(t *terminal) *cobra.Command {
	var f signFlags
	var to string
	var during time.Duration
	c := &cobra.Command{
		Use: "approve NAME", Short: "Approve the next move of a machine", Args: exactly("NAME"),
		Long:    "Gives the word of an account that the machine's policy names among its movers. It is used\nup by the move.",
		Example: "  dcnode vm approve web1 --to bob --for 2h --account acme --key acme.key",
		RunE: func(c *cobra.Command, args []string) error {
			cl, l, err := t.ledger(c)
			if err != nil {
				return err
			}
			m := l.Machine(args[0])
			if m == nil {
				return fmt.Errorf("there is no machine %s: see `dcnode vm ls`", args[0])
			}
			if during <= 0 {
				return &usageError{fmt.Errorf("an approval for %v: give it some time with --for", during)}
			}
			body := &ledger.Approve{Machine: m.Name, Epoch: m.Epoch, Until: max(l.Now, consensusNow()) + ledger.Time(during)}
			if to != "" {
				if body.To = l.Member(to); body.To == 0 {
					return fmt.Errorf("there is no member %s: see `dcnode status`", to)
				}
			}
			s := subject{account: f.account, keys: f.account != ""}
			if f.account != "" {
				a, err := findAccount(l, f.account)
				if err != nil {
					return err
				}
				if s.keys = len(a.Keys) > 0; !s.keys {
					body.Account = a.Name
				}
			}
			if said, err := t.speak(c.Context(), cl, &f, s, body, api.Say{Approve: body}); err != nil || !said {
				return err
			}
			return t.print(body, func() {
				where := ""
				if to != "" {
					where = " to " + to
				}
				fmt.Fprintf(t.out, "the next move of machine %s%s is approved for %v\n", m.Name, where, during)
			})
		},
	}
	f.addAccount(c, "account that approves (default: this site)")
	f.addKeys(c)
	c.Flags().StringVar(&to, "to", "", "approve it to this site only")
	c.Flags().DurationVar(&during, "for", time.Hour, "how long the approval holds")
	return c
}
