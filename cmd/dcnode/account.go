package main

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/node/api"
)

func accountCommand(t *terminal) *cobra.Command {
	return group(&cobra.Command{
		Use: "account", Short: "Accounts: whom machines and images belong to",
		Long: `An account is who machines and images belong to: people with keys of their own, or
a site. What an account says carries the signatures of its keys; the node that carries
it never sees them. Several people can own one: --threshold says how many must sign.`,
	}, accountKey(t), accountNew(t), accountRekey(t), accountList(t), accountShow(t), accountQuota(t), accountSign(t), accountSubmit(t))
}

func accountKey(t *terminal) *cobra.Command {
	return &cobra.Command{
		Use: "key FILE", Short: "Make a key, or show the public half of one", Args: exactly("FILE"),
		Long: "Makes an Ed25519 key in FILE, readable by you alone, and prints its public half. Of a\nkey that is there already it prints the public half. It needs no node.",
		RunE: func(_ *cobra.Command, args []string) error {
			key, err := readKeyFile(args[0])
			if isMissing(err) {
				key, err = makeKeyFile(args[0])
			}
			if err != nil {
				return err
			}
			public := hex.EncodeToString(publicOf(key))
			return t.print(map[string]string{"file": args[0], "public": public}, func() { fmt.Fprintln(t.out, public) })
		},
	}
}

// keySet are the keys that an account is to have: those in files, and those that
// others have.
func keySet(files, public []string) ([][]byte, error) {
	keys, err := readKeyFiles(files)
	if err != nil {
		return nil, err
	}
	var out [][]byte
	for _, k := range keys {
		out = append(out, publicOf(k))
	}
	for _, p := range public {
		k, err := parsePublic(p)
		if err != nil {
			return nil, err
		}
		out = append(out, k)
	}
	slices.SortFunc(out, slices.Compare)
	return slices.CompactFunc(out, slices.Equal), nil
}

func accountNew(t *terminal) *cobra.Command {
	var f signFlags
	var public []string
	threshold := 1
	c := &cobra.Command{
		Use: "new NAME --key FILE", Short: "Make an account", Args: exactly("NAME"),
		Long: "Makes an account; this site sponsors it and sets its quota. All of its keys sign: those\nin --key now, those in --public by `dcnode account sign` (with --sign-only here).",
		Example: `  dcnode account key acme.key
  dcnode account new acme --key acme.key`,
		RunE: func(c *cobra.Command, args []string) error {
			keys, err := keySet(f.keys, public)
			if err != nil {
				return err
			}
			cl, err := t.client()
			if err != nil {
				return err
			}
			s, err := cl.Signing(c.Context(), args[0])
			if err != nil {
				return err
			}
			if s.Account != nil {
				return fmt.Errorf("account %s exists already: choose another name, or change its keys with `dcnode account rekey`", args[0])
			}
			said, ok, err := t.say(c.Context(), cl, &f, args[0], &ledger.SetAccount{Name: args[0], Keys: keys, Threshold: threshold, Site: s.Site})
			if err != nil || !ok {
				return err
			}
			return t.print(said, func() {
				fmt.Fprintf(t.out, "account %s has %s, of which %d must sign; %s is its sponsor\n", args[0], plural(len(keys), "key"), threshold, s.Site)
			})
		},
	}
	f.addKeys(c)
	c.Flags().StringArrayVar(&public, "public", nil, "public key of somebody else, as `dcnode account key` prints it; may be given again")
	c.Flags().IntVar(&threshold, "threshold", 1, "how many of the keys must sign")
	return c
}

func accountRekey(t *terminal) *cobra.Command {
	var f signFlags
	var files, public []string
	var threshold int
	c := &cobra.Command{
		Use: "rekey NAME --key FILE --to FILE", Short: "Give an account other keys", Args: exactly("NAME"),
		Long: "Replaces the keys of an account by those of --to and --public. As many of the keys as\nthey were must sign as they had to before, and one of the new ones.",
		RunE: func(c *cobra.Command, args []string) error {
			keys, err := keySet(files, public)
			if err != nil {
				return err
			}
			if len(keys) == 0 {
				return &usageError{fmt.Errorf("name the keys that it is to have with --to FILE or --public KEY")}
			}
			cl, err := t.client()
			if err != nil {
				return err
			}
			s, err := cl.Signing(c.Context(), args[0])
			if err != nil {
				return err
			}
			if s.Account == nil || len(s.Account.Keys) == 0 {
				return fmt.Errorf("there is no account %s with keys: see `dcnode account ls`", args[0])
			}
			if threshold == 0 {
				threshold = min(s.Account.Threshold, len(keys))
			}
			for _, file := range files { // one of the new ones has to sign; those that are here all do
				if !slices.Contains(f.keys, file) {
					f.keys = append(f.keys, file)
				}
			}
			said, ok, err := t.say(c.Context(), cl, &f, args[0], &ledger.SetAccount{Name: args[0], Keys: keys, Threshold: threshold})
			if err != nil || !ok {
				return err
			}
			return t.print(said, func() {
				fmt.Fprintf(t.out, "account %s has %s now, of which %d must sign\n", args[0], plural(len(keys), "key"), threshold)
			})
		},
	}
	f.addKeys(c)
	c.Flags().StringArrayVar(&files, "to", nil, "file with a key that it is to have; may be given again")
	c.Flags().StringArrayVar(&public, "public", nil, "public key that it is to have, of somebody else; may be given again")
	c.Flags().IntVar(&threshold, "threshold", 0, "how many of the new keys must sign (default: as before)")
	return c
}

// accounts are all of them, with those of sites of which nothing is kept.
func accounts(l *api.Ledger) []*ledger.Account {
	out := slices.Clone(l.Accounts)
	for _, m := range l.Members {
		if !slices.ContainsFunc(out, func(a *ledger.Account) bool { return a.Name == m.Site }) {
			out = append(out, &ledger.Account{Name: m.Site, Sponsor: m.ID})
		}
	}
	slices.SortFunc(out, func(a, b *ledger.Account) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// findAccount is the account of that name.
func findAccount(l *api.Ledger, name string) (*ledger.Account, error) {
	for _, a := range accounts(l) {
		if a.Name == name {
			return a, nil
		}
	}
	return nil, fmt.Errorf("there is no account %s: see `dcnode account ls`", name)
}

// ledger asks the node for the state.
func (t *terminal) ledger(c *cobra.Command) (*api.Client, *api.Ledger, error) {
	cl, err := t.client()
	if err != nil {
		return nil, nil, err
	}
	l, err := cl.Ledger(c.Context())
	return cl, l, err
}

func accountList(t *terminal) *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List the accounts", Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			_, l, err := t.ledger(c)
			if err != nil {
				return err
			}
			as := accounts(l)
			return t.print(as, func() {
				rows := []string{"NAME\tKEYS\tSPONSOR\tMACHINES\tMEMORY\tIMAGES"}
				for _, a := range as {
					rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s", a.Name, keysOf(a), sponsorOf(l, a), of(a.Used.Machines, a.Quota.Machines),
						bytesOf(a.Used.Memory, a.Quota.Memory), of(a.Used.Images, a.Quota.Images)))
				}
				t.table(rows...)
			})
		},
	}
}

func sponsorOf(l *api.Ledger, a *ledger.Account) string {
	if s := l.Site(a.Sponsor); s != "" {
		return s
	}
	return fmt.Sprintf("member %d, who left", a.Sponsor)
}

// keysOf tells who signs for an account.
func keysOf(a *ledger.Account) string {
	if len(a.Keys) == 0 {
		return "the site itself"
	}
	return fmt.Sprintf("%d of %d", a.Threshold, len(a.Keys))
}

func of(used, quota int64) string {
	if quota == 0 {
		return fmt.Sprint(used)
	}
	return fmt.Sprintf("%d of %d", used, quota)
}

func bytesOf(used, quota int64) string {
	if quota == 0 {
		return bytes(used)
	}
	return bytes(used) + " of " + bytes(quota)
}

func accountShow(t *terminal) *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Show an account: keys, quota, policy", Args: exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			_, l, err := t.ledger(c)
			if err != nil {
				return err
			}
			a, err := findAccount(l, args[0])
			if err != nil {
				return err
			}
			return t.print(a, func() {
				fmt.Fprintf(t.out, "account %s, sponsored by %s\n", a.Name, sponsorOf(l, a))
				fmt.Fprintf(t.out, "signed by %s\n", keysOf(a))
				for _, k := range a.Keys {
					fmt.Fprintf(t.out, "  %x\n", k)
				}
				fmt.Fprintf(t.out, "has %s machines, %s of memory, %s images\n", of(a.Used.Machines, a.Quota.Machines), bytesOf(a.Used.Memory, a.Quota.Memory), of(a.Used.Images, a.Quota.Images))
				t.showPolicy("policy", &a.Policy)
			})
		},
	}
}

func accountQuota(t *terminal) *cobra.Command {
	var machines, images int64
	var memory size
	c := &cobra.Command{
		Use: "quota NAME", Short: "Bound what an account may have; its sponsor does", Args: exactly("NAME"),
		Long:    "Sets the bounds that are given and leaves the others; 0 is no bound. A bound below what\nthe account has takes nothing away. The member that let the account in says it.",
		Example: "  dcnode account quota acme --machines 10 --memory 64G",
		RunE: func(c *cobra.Command, args []string) error {
			cl, l, err := t.ledger(c)
			if err != nil {
				return err
			}
			a, err := findAccount(l, args[0])
			if err != nil {
				return err
			}
			q := a.Quota
			for _, f := range []struct {
				name string
				to   *int64
				v    int64
			}{{"machines", &q.Machines, machines}, {"memory", &q.Memory, int64(memory)}, {"images", &q.Images, images}} {
				if c.Flags().Changed(f.name) {
					*f.to = f.v
				}
			}
			if q == a.Quota {
				return t.print(q, func() { fmt.Fprintf(t.out, "nothing changed: give --machines, --memory or --images\n") })
			}
			if _, err := cl.Say(c.Context(), api.Say{Quota: &ledger.SetQuota{Account: a.Name, Quota: q}}); err != nil {
				return err
			}
			return t.print(q, func() {
				fmt.Fprintf(t.out, "account %s may have %s machines, %s memory, %s images\n", a.Name, atMost(q.Machines, fmt.Sprint(q.Machines)),
					atMost(q.Memory, bytes(q.Memory)+" of"), atMost(q.Images, fmt.Sprint(q.Images)))
			})
		},
	}
	c.Flags().Int64Var(&machines, "machines", 0, "machines that it may have")
	c.Flags().Var(&memory, "memory", "memory of all of them together")
	c.Flags().Int64Var(&images, "images", 0, "images that it may publish")
	return c
}

func atMost(n int64, text string) string {
	if n == 0 {
		return "any"
	}
	return "at most " + text
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
