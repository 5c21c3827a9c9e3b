package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dcnode/dcnode/node"
	"github.com/dcnode/dcnode/node/api"
)

func ledgerLog(t *terminal) *cobra.Command {
	var q api.LogQuery
	var from int64
	c := &cobra.Command{
		Use: "log", Short: "Say in plain words what was ordered and what came of it", Args: exactly(),
		Long: `Prints a sentence for each transaction of the order, whether it held or was refused and
why, and for what fell due: the newest ones, or those from an index on. Times are the
order's own. With --json, a line of JSON for each.`,
		Example: "  dcnode ledger log --machine web1 --follow",
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := t.client()
			if err != nil {
				return err
			}
			if q.N < 0 {
				return &usageError{errors.New("-n is a number of entries, 0 for all")}
			}
			q.From = api.Now
			if from >= 0 {
				q.From = uint64(from)
				if !c.Flags().Changed("lines") {
					q.N = 0
				}
			}
			err = cl.Log(c.Context(), q, func(entries []api.LogEntry) error {
				for i := range entries {
					if err := t.showEntry(&entries[i]); err != nil {
						return err
					}
				}
				return nil
			})
			return errors.Join(err, c.Context().Err())
		},
	}
	c.Flags().StringVar(&q.Machine, "machine", "", "only what is about this machine")
	c.Flags().StringVar(&q.Kind, "kind", "", "only this kind, as move.release or image.publish")
	c.Flags().BoolVar(&q.Follow, "follow", false, "go on with what comes, until it is interrupted")
	c.Flags().IntVarP(&q.N, "lines", "n", 50, "so many entries, 0 for all (with --from: all, unless given)")
	c.Flags().Int64Var(&from, "from", -1, "first index wanted (default: the newest entries)")
	return c
}

// when is consensus time for people.
func when(ns int64) string { return time.Unix(0, ns).UTC().Format("2006-01-02 15:04:05.000Z") }

func (t *terminal) showEntry(e *api.LogEntry) error {
	if t.json {
		return t.line(e)
	}
	if e.Until != 0 {
		_, err := fmt.Fprintln(t.out, e.Text)
		return err
	}
	_, err := fmt.Fprintf(t.out, "%d  %s  %s\n", e.Index, when(e.Time), e.Text)
	return err
}

// upTo is for commands whose last arguments may be left out.
func upTo(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) <= len(names) {
			return nil
		}
		return &usageError{fmt.Errorf("%s takes at most %d arguments (%v), got %d: see `%s --help`", c.CommandPath(), len(names), names, len(args), c.CommandPath())}
	}
}

func ledgerShow(t *terminal) *cobra.Command {
	return &cobra.Command{
		Use: "show [INDEX]", Short: "Print the ledger's state as JSON, or one event of the order", Args: upTo("INDEX"),
		Long: `Without an index, prints the ledger's state as JSON. With one, prints the event at that
place of the order: who made it and when, each transaction as it was said, and what came of it.`,
		Example: "  dcnode ledger show\n  dcnode ledger show 1042 --json",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := t.client()
			if err != nil {
				return err
			}
			if len(args) == 0 {
				s, err := cl.Ledger(c.Context())
				if err != nil {
					return err
				}
				t.json = true
				return t.print(s, nil)
			}
			index, err := strconv.ParseUint(args[0], 10, 64)
			if err != nil {
				return &usageError{fmt.Errorf("%q is not an index: give the number that `dcnode ledger log` begins its lines with", args[0])}
			}
			raw, err := cl.RawEvent(c.Context(), index)
			if err != nil {
				return err
			}
			var e shownEvent
			if err := json.Unmarshal(raw, &e); err != nil {
				return fmt.Errorf("read event: %w", err)
			}
			return t.print(raw, func() { t.showEvent(&e) })
		},
	}
}

// shownEvent is an api.Event whose transactions are printed as they came.
type shownEvent struct {
	api.Event
	Transactions []struct {
		api.LogEntry
		Seq  uint64          `json:"seq"`
		Body json.RawMessage `json:"body"`
	} `json:"transactions"`
}

func (t *terminal) showEvent(e *shownEvent) {
	by := ""
	if e.Site != "" {
		by = " by " + e.Site
	}
	fmt.Fprintf(t.out, "event %d%s", e.Index, by)
	if e.Time != 0 {
		fmt.Fprintf(t.out, ", round %d, at %s", e.Round, when(e.Time))
	}
	fmt.Fprintln(t.out)
	if e.Event.Event != "" {
		fmt.Fprintln(t.out, "hash", e.Event.Event)
	}
	if len(e.Transactions) == 0 {
		fmt.Fprintln(t.out, "it carried no transaction, and nothing fell due")
	}
	for i := range e.Transactions {
		x := &e.Transactions[i]
		if x.N < 0 {
			fmt.Fprintln(t.out, "fell due:", x.Text)
			continue
		}
		verdict := "it held"
		if x.Refused != "" {
			verdict = "it was refused"
		}
		fmt.Fprintf(t.out, "transaction %d, %s: %s\n  %s\n", x.N, x.Kind, verdict, x.Text)
		if len(x.Body) > 0 {
			fmt.Fprintf(t.out, "  said as number %x: %s\n", x.Seq, strings.TrimSpace(string(x.Body)))
		}
	}
}

func ledgerCertify(t *terminal) *cobra.Command {
	var epoch uint64
	var path string
	c := &cobra.Command{
		Use: "certify MACHINE", Short: "Make a certificate of a move, for someone who trusts no node", Args: exactly("MACHINE"),
		Long: `Makes a file that shows that the members ordered the release of a machine: the signed
event, the ledger's state after it, signed by members of more than two thirds of the
weight, and how the roster came from the founding one to that of then. Whoever has the
overlay's genesis checks it offline with ` + "`dcnode ledger verify --certificate`" + `.`,
		Example: "  dcnode ledger certify web1 -o web1.cert\n  dcnode ledger verify --certificate web1.cert --genesis genesis.json",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := t.client()
			if err != nil {
				return err
			}
			b, err := cl.Certify(c.Context(), args[0], epoch)
			if err != nil {
				return err
			}
			if path == "" {
				_, err = t.out.Write(b)
				return err
			}
			if err := os.WriteFile(path, b, 0o644); err != nil {
				return fmt.Errorf("write certificate: %w", err)
			}
			done := map[string]any{"file": path, "bytes": len(b)}
			return t.print(done, func() { fmt.Fprintf(t.out, "%s: %s\n", path, bytes(int64(len(b)))) })
		},
	}
	c.Flags().Uint64Var(&epoch, "epoch", 0, "that the release began (default: the last one)")
	c.Flags().StringVarP(&path, "output", "o", "", "file to write (default: the terminal)")
	return c
}

// verifyCertificate says what a certificate shows.
func (t *terminal) verifyCertificate(path, genesis string) error {
	if genesis == "" {
		return &usageError{errors.New("--certificate needs --genesis: the file that everything is checked against, from someone you trust")}
	}
	f, err := node.VerifyCertificate(path, genesis)
	if err != nil {
		return err
	}
	return t.print(f, func() {
		fmt.Fprintf(t.out, "overlay %s\n%s\n", f.Network[:16], f.Sentence())
		fmt.Fprintf(t.out, "the ledger's state after event %d (%s), %s…, is signed by %s: weight %d of %d\n", f.StateAt, when(f.StateTime), f.State[:16], strings.Join(f.Signed, ", "), f.Weight, f.Total)
		fmt.Fprintf(t.out, "the roster has changed %d times since the genesis, each time by more than two thirds of its weight or by the member whose key it was\n", f.Changes)
	})
}
