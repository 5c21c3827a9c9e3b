package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/node/api"
)

func policyCommand(t *terminal) *cobra.Command {
	return group(&cobra.Command{
		Use: "policy", Short: "Policies: where machines may go, when, and who says so",
		Long: `A policy is law: a move that it forbids cannot be ordered, whoever asks and whatever
programs they use. It is of one machine, or of all machines of an account; both must
allow what is done. Only the account that it belongs to can change it.`,
	}, policySet(t), policyShow(t), policyTest(t))
}

// policyFlags are the words of a policy on the command line.
type policyFlags struct {
	p         ledger.Policy
	down      pause
	bandwidth size
	windows   []string
	clear     bool
}

func (f *policyFlags) add(c *cobra.Command) {
	l := c.Flags()
	l.StringSliceVar(&f.p.Regions, "regions", nil, "only these regions; a site without a region is in none")
	l.StringSliceVar(&f.p.NotRegions, "not-regions", nil, "none of these regions")
	l.StringSliceVar(&f.p.Sites, "sites", nil, "only these sites")
	l.StringSliceVar(&f.p.NotSites, "not-sites", nil, "none of these sites")
	l.StringSliceVar(&f.p.Apart, "apart", nil, "machines of the same account that it must not share a site with, whichever moves")
	l.StringSliceVar(&f.p.With, "with", nil, "machines whose site it must move to")
	l.Var(&f.down, "max-downtime", "longest pause of a move, such as 200ms")
	l.Var(&f.bandwidth, "max-bandwidth", "bytes a second that a move may use, such as 50M")
	l.StringArrayVar(&f.windows, "window", nil, `when it may move, in UTC, such as "mon-fri 22:00-04:00"; may be given again`)
	l.BoolVar(&f.p.PostCopy, "post-copy", false, "may run at its new site before all of its memory is there")
	l.StringSliceVar(&f.p.Movers, "movers", nil, "accounts that approve its moves")
	l.IntVar(&f.p.Approvals, "approvals", 0, "how many of the movers must approve (default 1)")
	l.BoolVar(&f.p.Pinned, "pinned", false, "never moves")
	l.BoolVar(&f.clear, "clear", false, "begin with a policy that allows everything")
}

// change is p with what the command line says of it.
func (f *policyFlags) change(c *cobra.Command, p ledger.Policy) (ledger.Policy, error) {
	if f.clear {
		p = ledger.Policy{}
	}
	given := c.Flags().Changed
	for _, l := range []struct {
		flag string
		to   *[]string
		list []string
	}{
		{"regions", &p.Regions, f.p.Regions}, {"not-regions", &p.NotRegions, f.p.NotRegions}, {"sites", &p.Sites, f.p.Sites},
		{"not-sites", &p.NotSites, f.p.NotSites}, {"apart", &p.Apart, f.p.Apart}, {"with", &p.With, f.p.With}, {"movers", &p.Movers, f.p.Movers},
	} {
		if given(l.flag) {
			*l.to = names(l.list)
		}
	}
	if given("max-downtime") {
		p.MaxDowntime = int64(f.down)
	}
	if given("max-bandwidth") {
		p.MaxBandwidth = int64(f.bandwidth)
	}
	if given("window") {
		p.Windows = nil
		for _, w := range f.windows {
			if strings.TrimSpace(w) == "" {
				continue // takes the windows away
			}
			span, err := parseWindow(w)
			if err != nil {
				return p, err
			}
			p.Windows = append(p.Windows, span)
		}
	}
	if given("post-copy") {
		p.PostCopy = f.p.PostCopy
	}
	if given("approvals") {
		p.Approvals = f.p.Approvals
	}
	if len(p.Movers) == 0 && given("movers") && !given("approvals") {
		p.Approvals = 0
	}
	if given("pinned") {
		p.Pinned = f.p.Pinned
	}
	return p, nil
}

// names are sorted, each once.
func names(list []string) []string {
	out := slices.DeleteFunc(slices.Clone(list), func(s string) bool { return strings.TrimSpace(s) == "" })
	for i := range out {
		out[i] = strings.TrimSpace(out[i])
	}
	slices.Sort(out)
	return slices.Compact(out)
}

var weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// parseWindow reads "mon-fri 22:00-04:00", "sat,sun 08:00-20:00" or "22:00-04:00".
func parseWindow(text string) (ledger.Span, error) {
	bad := func() (ledger.Span, error) {
		return ledger.Span{}, &usageError{fmt.Errorf(`%q is no window: write it like "mon-fri 22:00-04:00", in UTC`, text)}
	}
	var s ledger.Span
	fields := strings.Fields(strings.ToLower(text))
	if len(fields) == 2 {
		days, ok := parseDays(fields[0])
		if !ok {
			return bad()
		}
		s.Days = days
	} else if len(fields) != 1 {
		return bad()
	}
	from, to, ok := strings.Cut(fields[len(fields)-1], "-")
	var ok1, ok2 bool
	s.From, ok1 = parseMinute(from)
	s.To, ok2 = parseMinute(to)
	if !ok || !ok1 || !ok2 || s.From == s.To || s.From == 24*60 {
		return bad()
	}
	return s, nil
}

func parseDays(text string) (days []int, ok bool) {
	for part := range strings.SplitSeq(text, ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		a, b := slices.Index(weekdays, from), slices.Index(weekdays, to)
		if a < 0 || b < 0 {
			return nil, false
		}
		for d := a; ; d = (d + 1) % 7 {
			days = append(days, d)
			if d == b {
				break
			}
		}
	}
	slices.Sort(days)
	days = slices.Compact(days)
	if len(days) == 7 {
		days = nil
	}
	return days, true
}

func parseMinute(text string) (int, bool) {
	var h, m int
	if n, err := fmt.Sscanf(text, "%d:%d", &h, &m); n != 2 || err != nil || len(text) > 5 {
		return 0, false
	}
	return 60*h + m, h >= 0 && m >= 0 && m < 60 && (h < 24 || h == 24 && m == 0)
}

// window is how a span is written on the command line.
func window(s ledger.Span) string {
	var days []string
	for i := 0; i < len(s.Days); {
		j := i
		for j+1 < len(s.Days) && s.Days[j+1] == s.Days[j]+1 {
			j++
		}
		switch {
		case j-i >= 2:
			days = append(days, weekdays[s.Days[i]]+"-"+weekdays[s.Days[j]])
		default:
			for k := i; k <= j; k++ {
				days = append(days, weekdays[s.Days[k]])
			}
		}
		i = j + 1
	}
	when := fmt.Sprintf("%02d:%02d-%02d:%02d", s.From/60, s.From%60, s.To/60, s.To%60)
	return strings.TrimSpace(strings.Join(days, ",") + " " + when)
}

// policyLines are a policy in words, one for each thing that it says.
func policyLines(p *ledger.Policy) []string {
	var out []string
	list := func(what string, of []string) {
		if len(of) > 0 {
			out = append(out, what+" "+strings.Join(of, ", "))
		}
	}
	if p.Pinned {
		out = append(out, "never moves")
	}
	list("only to regions", p.Regions)
	list("not to regions", p.NotRegions)
	list("only to sites", p.Sites)
	list("not to sites", p.NotSites)
	list("never at one site with", p.Apart)
	list("only to the site of", p.With)
	if p.MaxDowntime > 0 {
		out = append(out, fmt.Sprintf("pauses for %d ms at most", p.MaxDowntime))
	}
	if p.MaxBandwidth > 0 {
		out = append(out, fmt.Sprintf("uses %s/s at most", bytes(p.MaxBandwidth)))
	}
	for _, w := range p.Windows {
		out = append(out, "may move "+window(w)+" UTC")
	}
	if p.PostCopy {
		out = append(out, "post-copy is allowed")
	}
	if len(p.Movers) > 0 {
		out = append(out, fmt.Sprintf("a move needs the approval of %d of %s", max(p.Approvals, 1), strings.Join(p.Movers, ", ")))
	}
	return out
}

func (t *terminal) showPolicy(title string, p *ledger.Policy) {
	lines := policyLines(p)
	if len(lines) == 0 {
		fmt.Fprintf(t.out, "%s: allows everything\n", title)
		return
	}
	fmt.Fprintf(t.out, "%s:\n", title)
	for _, l := range lines {
		fmt.Fprintln(t.out, "  "+l)
	}
}

// subject is what a policy is of.
type subject struct {
	machine, account string // machine is empty if it is the account's
	policy           ledger.Policy
	keys             bool // the account has keys
}

// subjectOf finds the machine or account that a command line names.
func subjectOf(l *api.Ledger, args []string, account string) (subject, error) {
	var s subject
	switch {
	case (len(args) == 1) == (account != ""):
		return s, &usageError{errors.New("name a machine, or an account with --account")}
	case account != "":
		s.account = account
	default:
		m := l.Machine(args[0])
		if m == nil {
			return s, fmt.Errorf("there is no machine %s: see `dcnode vm ls`", args[0])
		}
		s.machine, s.account, s.policy = m.Name, m.Account, m.Policy
	}
	a, err := findAccount(l, s.account)
	if err != nil {
		return s, err
	}
	s.keys = len(a.Keys) > 0
	if s.machine == "" {
		s.policy = a.Policy
	}
	return s, nil
}

func (s subject) title() string {
	if s.machine == "" {
		return "account " + s.account
	}
	return "machine " + s.machine
}

// machineOrAccount takes one argument or none.
func machineOrAccount(c *cobra.Command, args []string) error {
	if len(args) > 1 {
		return &usageError{fmt.Errorf("%s needs one machine, got %d: see `%s --help`", c.CommandPath(), len(args), c.CommandPath())}
	}
	return nil
}

func policySet(t *terminal) *cobra.Command {
	var f policyFlags
	var sign signFlags
	c := &cobra.Command{
		Use: "set MACHINE | --account NAME", Short: "Change the policy of a machine or of an account", Args: machineOrAccount,
		Long: "Changes what is given and leaves the rest; an empty list or 0 takes a rule away, --clear\nall of them. If the account that it belongs to has keys, --key signs.",
		Example: `  dcnode policy set web1 --regions eu,ch --max-downtime 200ms
  dcnode policy set web1 --apart web2 --window "mon-fri 22:00-04:00"
  dcnode policy set --account acme --not-regions us --key acme.key`,
		RunE: func(c *cobra.Command, args []string) error {
			cl, l, err := t.ledger(c)
			if err != nil {
				return err
			}
			s, err := subjectOf(l, args, sign.account)
			if err != nil {
				return err
			}
			p, err := f.change(c, s.policy)
			if err != nil {
				return err
			}
			body := &ledger.SetPolicy{Machine: s.machine, Policy: p}
			if s.machine == "" {
				body.Account = s.account
			}
			if said, err := t.speak(c.Context(), cl, &sign, s, body, api.Say{Policy: body}); err != nil || !said {
				return err
			}
			return t.print(body, func() { t.showPolicy("policy of "+s.title(), &p) })
		},
	}
	f.add(c)
	sign.addAccount(c, "the policy of all machines of this account, in place of one machine's")
	sign.addKeys(c)
	return c
}

// speak orders what an account says: signed, if it has keys, else as this site's word.
func (t *terminal) speak(ctx context.Context, cl *api.Client, f *signFlags, s subject, body ledger.Body, own api.Say) (said bool, err error) {
	if s.keys || len(f.keys) > 0 {
		_, said, err = t.say(ctx, cl, f, s.account, body)
		return said, err
	}
	_, err = cl.Say(ctx, own)
	return err == nil, err
}

// layer is one of the policies that hold for a machine.
type layer struct {
	Of     string        `json:"of"`
	Policy ledger.Policy `json:"policy"`
}

func policyShow(t *terminal) *cobra.Command {
	var account string
	c := &cobra.Command{
		Use: "show MACHINE | --account NAME", Short: "Show what holds for a machine, layer by layer", Args: machineOrAccount,
		RunE: func(c *cobra.Command, args []string) error {
			_, l, err := t.ledger(c)
			if err != nil {
				return err
			}
			s, err := subjectOf(l, args, account)
			if err != nil {
				return err
			}
			layers := []layer{{s.title(), s.policy}}
			if s.machine != "" {
				a, err := findAccount(l, s.account)
				if err != nil {
					return err
				}
				layers = append(layers, layer{"account " + a.Name, a.Policy})
			}
			return t.print(layers, func() {
				for _, x := range layers {
					t.showPolicy(x.Of, &x.Policy)
				}
				if s.machine != "" {
					t.showApprovals(l, l.Machine(s.machine))
				}
			})
		},
	}
	c.Flags().StringVar(&account, "account", "", "the policy of all machines of this account")
	return c
}

// showApprovals tells who has approved the next move of a machine.
func (t *terminal) showApprovals(l *api.Ledger, m *ledger.Machine) {
	for _, a := range m.Approvals {
		if a.Epoch != m.Epoch || a.Until <= l.Now {
			continue
		}
		where := "anywhere"
		if a.To != 0 {
			where = "to " + l.Site(a.To)
		}
		fmt.Fprintf(t.out, "approved by %s: its next move, %s, until %s\n", a.Account, where, time.Unix(0, int64(a.Until)).UTC().Format("2006-01-02 15:04 UTC"))
	}
}

// refusedError is an answer that is no: it has been printed.
type refusedError struct{}

func (refusedError) Error() string { return "no" }

func policyTest(t *terminal) *cobra.Command {
	var down pause
	c := &cobra.Command{
		Use: "test MACHINE SITE", Short: "Could a machine go to a site, and why not", Args: exactly("MACHINE", "SITE"),
		Long: "Says what the law has against moving the machine there now: policies, windows, missing\napprovals. Nothing is asked of anyone, and whether there is room is another question:\nsee `dcnode vm plan`. The exit code is 0 if it may, 1 if not.",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := t.client()
			if err != nil {
				return err
			}
			a, err := cl.MayMove(c.Context(), api.May{Machine: args[0], To: args[1], Limits: ledger.Limits{MaxDowntime: int64(down)}})
			if err != nil {
				return err
			}
			if err := t.print(a, func() { t.showAnswer(a) }); err != nil || a.Allowed {
				return err
			}
			return refusedError{}
		},
	}
	c.Flags().Var(&down, "max-downtime", "with this pause at most")
	return c
}

func (t *terminal) showAnswer(a api.Answer) {
	if a.Allowed {
		fmt.Fprintf(t.out, "machine %s may go to %s\n", a.Machine, a.To)
		return
	}
	fmt.Fprintf(t.out, "machine %s may not go to %s:\n", a.Machine, a.To)
	for _, r := range a.Reasons {
		fmt.Fprintln(t.out, "  "+r)
	}
}
