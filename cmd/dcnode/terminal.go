package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/dcnode/dcnode/node/api"
)

// terminal is where words go: data to out, everything else to err.
type terminal struct {
	out, err *os.File
	data     string
	json     bool
}

// print writes a result: as JSON when asked for, else by words.
func (t *terminal) print(v any, words func()) error {
	if !t.json {
		words()
		return nil
	}
	enc := json.NewEncoder(t.out)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// line writes a value as one line of JSON.
func (t *terminal) line(v any) error { return json.NewEncoder(t.out).Encode(v) }

// table writes rows in columns; cells are separated by tabs.
func (t *terminal) table(rows ...string) {
	w := tabwriter.NewWriter(t.out, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintln(w, r)
	}
	_ = w.Flush()
}

// progress shows how a task goes on: a bar on a terminal, a line per phase
// elsewhere, nothing with --json. Call the second result at the end.
func (t *terminal) progress() (api.Tell, func()) {
	switch {
	case t.json:
		return func(api.Progress) {}, func() {}
	case !term.IsTerminal(int(t.err.Fd())):
		return t.lines(), func() {}
	}
	return t.bars()
}

// lines tells of each phase once when it begins.
func (t *terminal) lines() api.Tell {
	phase := ""
	return func(p api.Progress) {
		if p.Phase == phase {
			return
		}
		phase = p.Phase
		if p.Total > 0 {
			fmt.Fprintf(t.err, "%s (%s)\n", phase, bytes(p.Total))
			return
		}
		fmt.Fprintln(t.err, phase)
	}
}

func (t *terminal) bars() (api.Tell, func()) {
	var bar *progressbar.ProgressBar
	phase := ""
	end := func() {
		if bar != nil {
			_ = bar.Finish()
			fmt.Fprintln(t.err)
		}
		bar = nil
	}
	return func(p api.Progress) {
		if p.Phase != phase {
			end()
			phase = p.Phase
			total := p.Total
			if total == 0 {
				total = -1
			}
			bar = progressbar.NewOptions64(total, progressbar.OptionSetWriter(t.err), progressbar.OptionSetDescription(phase),
				progressbar.OptionShowBytes(true), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionSetWidth(30))
		}
		if p.Total > 0 {
			bar.ChangeMax64(p.Total)
		}
		if p.Within > 0 {
			bar.Describe(fmt.Sprintf("%s (%.0f s of %.0f s)", phase, p.Waited, p.Within))
		}
		_ = bar.Set64(p.Done)
	}, end
}

// bytes is a number of bytes for people.
func bytes(n int64) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	case n < 1<<30:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.2f GiB", float64(n)/(1<<30))
}

// size is a flag that takes 512M, 2G, or plain bytes.
type size int64

// String implements pflag.Value.
func (s *size) String() string {
	if *s == 0 {
		return "0"
	}
	return strings.ReplaceAll(bytes(int64(*s)), " ", "")
}

// Type implements pflag.Value.
func (s *size) Type() string { return "size" }

// Set implements pflag.Value.
func (s *size) Set(text string) error {
	units := map[byte]int64{'K': 1 << 10, 'M': 1 << 20, 'G': 1 << 30, 'T': 1 << 40}
	t := strings.TrimSuffix(strings.TrimSuffix(strings.ToUpper(text), "IB"), "B")
	unit := int64(1)
	if len(t) > 0 && units[t[len(t)-1]] != 0 {
		unit, t = units[t[len(t)-1]], t[:len(t)-1]
	}
	f, err := strconv.ParseFloat(t, 64)
	if err != nil || f < 0 || f*float64(unit) > 1<<60 {
		return fmt.Errorf("%q is not a size: write 512M, 2G or a number of bytes", text)
	}
	*s = size(f * float64(unit))
	return nil
}
