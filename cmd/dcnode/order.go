package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/dcnode/dcnode/node/api"
)

func ledgerPing(t *terminal) *cobra.Command {
	var count int
	var interval time.Duration
	c := &cobra.Command{
		Use: "ping", Short: "Measure how long the members take to order something", Args: exactly(),
		Long: "Submits empty transactions, one after the other, and says how long each took until it\nwas ordered here. They change nothing.",
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := t.client()
			if err != nil {
				return err
			}
			if count < 1 || interval < 0 {
				return &usageError{errors.New("ping needs a count of 1 or more and an interval of 0 or more")}
			}
			var pings []api.Ping
			for i := range count {
				if i > 0 {
					select {
					case <-c.Context().Done():
						return c.Context().Err()
					case <-time.After(interval):
					}
				}
				p, err := cl.Ping(c.Context())
				if err != nil {
					return errors.Join(err, c.Context().Err())
				}
				pings = append(pings, p)
				if !t.json {
					fmt.Fprintf(t.out, "ordered as %d in round %d: %s\n", p.Index, p.Round, millis(p.Took()))
				}
			}
			return t.print(pings, func() { t.showPings(pings) })
		},
	}
	c.Flags().IntVar(&count, "count", 5, "how many")
	c.Flags().DurationVar(&interval, "interval", time.Second, "pause between two")
	return c
}

// showPings sums up.
func (t *terminal) showPings(pings []api.Ping) {
	least, most, sum := pings[0].Took(), pings[0].Took(), time.Duration(0)
	for _, p := range pings {
		least, most, sum = min(least, p.Took()), max(most, p.Took()), sum+p.Took()
	}
	fmt.Fprintf(t.out, "%d ordered: least %s, mean %s, most %s\n", len(pings), millis(least), millis(sum/time.Duration(len(pings))), millis(most))
}

func millis(d time.Duration) string {
	return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond))
}

// errEnough ends a watch that has printed what was asked for.
var errEnough = errors.New("enough")

func ledgerWatch(t *terminal) *cobra.Command {
	var from int64
	var lines int
	c := &cobra.Command{
		Use: "watch", Short: "Print what is ordered, as it is ordered", Args: exactly(),
		Long: "Prints a line for each event of the order, with the time at which this node ordered it,\nuntil it is interrupted or has printed -n of them. With --from, it begins with what the\nnode still remembers of the past.",
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := t.client()
			if err != nil {
				return err
			}
			if lines < 0 {
				return &usageError{errors.New("-n is a number of events, 0 for all that come")}
			}
			start := api.Now
			if from >= 0 {
				start = uint64(from)
			}
			err = cl.Watch(c.Context(), start, func(evs []api.Ordered) error {
				for _, e := range evs {
					if err := t.showOrdered(e); err != nil {
						return err
					}
					if lines--; lines == 0 {
						return errEnough
					}
				}
				return nil
			})
			if errors.Is(err, errEnough) {
				return nil
			}
			return errors.Join(err, c.Context().Err())
		},
	}
	c.Flags().Int64Var(&from, "from", -1, "first index wanted (default: what comes from now on)")
	c.Flags().IntVarP(&lines, "lines", "n", 0, "end after so many events, 0 for never")
	return c
}

func (t *terminal) showOrdered(e api.Ordered) error {
	if t.json {
		return t.line(e)
	}
	when := "before this start"
	if e.At != 0 {
		when = time.Unix(0, e.At).Format("15:04:05.000000")
	}
	_, err := fmt.Fprintf(t.out, "%d round %d %s by %s, %d transactions, %s\n", e.Index, e.Round, e.Event[:16], e.Site, len(e.Tx), when)
	return err
}
