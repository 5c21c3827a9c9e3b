package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/gologshim"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/dcnode/dcnode/node"
	"github.com/dcnode/dcnode/node/api"
	"github.com/dcnode/dcnode/vmm"
	"github.com/dcnode/dcnode/vmm/memvm"
	"github.com/dcnode/dcnode/vmm/qemu"
)

func initCommand(t *terminal) *cobra.Command {
	var site, region, overlay string
	var weight uint64
	c := &cobra.Command{
		Use: "init", Short: "Make an identity and a data directory", Args: exactly(),
		Long: "Makes a data directory with a new identity, and in it member.json: what the others\nneed to put this node into the founding roster or, with --overlay, to invite it into\nan overlay that exists. It is signed, for that alone: nobody can change it or use it\nelsewhere.",
		RunE: func(*cobra.Command, []string) error {
			if site == "" {
				host, err := os.Hostname()
				if err != nil {
					return &usageError{errors.New("name this site with --site")}
				}
				site, _, _ = strings.Cut(host, ".")
			}
			var of *node.Genesis
			if overlay != "" {
				g, err := node.ReadGenesis(overlay)
				if err != nil {
					return fmt.Errorf("read the overlay to join: %w", err)
				}
				of = &g
			}
			card, err := node.Init(t.data, site, region, weight, of)
			if err != nil {
				return err
			}
			return t.print(card, func() {
				whom := "whoever makes the roster (`dcnode genesis`)"
				if of != nil {
					whom = "a member of that overlay (`dcnode member invite`)"
				}
				fmt.Fprintf(t.out, "site %s is %s\ngive %s to %s\n", card.Site, card.Peer, filepath.Join(t.data, "member.json"), whom)
			})
		},
	}
	c.Flags().StringVar(&site, "site", "", "name of this site (default: the host's name)")
	c.Flags().StringVar(&overlay, "overlay", "", "genesis.json of the overlay that it is to join (default: it is to found one)")
	c.Flags().StringVar(&region, "region", "", "region that this site is in")
	c.Flags().Uint64Var(&weight, "weight", 1, "weight of this site's votes, 1 to 2^32")
	return c
}

func genesisCommand(t *terminal) *cobra.Command {
	var out string
	c := &cobra.Command{
		Use: "genesis MEMBER.json...", Short: "Make the founding roster of an overlay",
		Long: "Makes the founding roster from the member.json of each site. Give the same file to\nall of them.",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return &usageError{errors.New("genesis needs the member.json of each site")}
			}
			var cards []node.Card
			for _, a := range args {
				card, err := node.ReadCard(a)
				if err != nil {
					return fmt.Errorf("read member: %w", err)
				}
				cards = append(cards, card)
			}
			g, err := node.NewGenesis(cards, time.Now())
			if err != nil {
				return err
			}
			if err := node.WriteGenesis(g, out, t.out); err != nil || out == "" {
				return err
			}
			return t.print(map[string]any{"network": g.Network(), "file": out, "members": len(g.Members)}, func() {
				fmt.Fprintf(t.out, "%s founds overlay %s with %s: give it to each of them\n", out, g.Network(), plural(len(g.Members), "member"))
			})
		},
	}
	c.Flags().StringVarP(&out, "out", "o", "", "file to write (default: standard output)")
	return c
}

// nodeFlags are those of `dcnode run`.
type nodeFlags struct {
	cfg       node.Config
	qemuPath  string
	memory    size
	bandwidth size
	verbose   bool
}

func runCommand(t *terminal) *cobra.Command {
	var f nodeFlags
	c := &cobra.Command{
		Use: "run", Short: "Run the node of this site", Args: exactly(),
		Long: "Runs the node until it is told to stop (SIGINT, SIGTERM). QEMU machines run on without\nit and are found again by the next start.",
		RunE: func(c *cobra.Command, _ []string) error { return runNode(c, t, f) },
	}
	c.Flags().StringVar(&f.cfg.Genesis, "genesis", "", "founding roster; needed at the first start only")
	c.Flags().StringSliceVar(&f.cfg.Listen, "listen", nil, "multiaddrs to listen on (default: TCP and QUIC on port 4001)")
	c.Flags().StringSliceVar(&f.cfg.Advertise, "advertise", nil, "multiaddrs to tell others instead of those found")
	c.Flags().StringSliceVar(&f.cfg.Bootstrap, "bootstrap", nil, "multiaddrs of any members, with /p2p/ID")
	c.Flags().StringVar(&f.qemuPath, "qemu", os.Getenv("DCNODE_QEMU"), "QEMU binary (default: qemu-system-x86_64 of the PATH)")
	c.Flags().Var(&f.memory, "max-memory", "memory that machines may use here (default: what is free)")
	c.Flags().Var(&f.bandwidth, "max-bandwidth", "bytes per second that a migration may use (default: no cap)")
	c.Flags().DurationVar(&f.cfg.ResumeWithin, "resume-within", 0, "how long a migration waits for a link that was cut, while its machine runs on (default 10m)")
	c.Flags().BoolVar(&f.cfg.Strict, "strict", false, "have every own event on the disk before anyone sees it; costs a sync for each")
	c.Flags().StringVar(&f.cfg.BootID, "boot-id", "", "")
	_ = c.Flags().MarkHidden("boot-id") // for tests that play a reboot of the host
	c.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "log more")
	return c
}

func runNode(c *cobra.Command, t *terminal, f nodeFlags) error {
	level := slog.LevelInfo
	if f.verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(t.err, &slog.HandlerOptions{Level: level}))
	theirs := slog.Handler(slog.DiscardHandler)
	if f.verbose {
		theirs = log.Handler()
	}
	gologshim.SetDefaultHandler(theirs) // libp2p logs to stderr otherwise; what matters it also returns
	f.cfg.Dir, f.cfg.Log = t.data, log
	f.cfg.MaxMemory, f.cfg.Bandwidth = int64(f.memory), int64(f.bandwidth)
	f.cfg.Drivers = []vmm.Driver{
		qemu.New(qemu.Config{Binary: f.qemuPath, ImgBinary: beside(f.qemuPath, "qemu-img"), Log: log}),
		memvm.New(memvm.Config{Log: log}),
	}
	g, ctx := errgroup.WithContext(c.Context())
	door := new(api.Door)
	serve := sync.OnceFunc(func() { // when there is a node for the first time
		g.Go(func() error { return api.Serve(ctx, filepath.Join(f.cfg.Dir, node.SocketFile), door, log) })
	})
	g.Go(func() error {
		for {
			n, err := node.New(f.cfg)
			if err != nil {
				return err
			}
			door.Open(n.Running(), n)
			serve()
			if err = n.Run(ctx); !errors.Is(err, node.ErrReopen) {
				return err
			}
			log.Info("begin again from there", "cause", err)
		}
	})
	return g.Wait()
}

// beside is the program of that name in the folder of another, if both are there.
func beside(path, name string) string {
	if path == "" {
		return ""
	}
	other := filepath.Join(filepath.Dir(path), name)
	if _, err := os.Stat(other); err != nil {
		return ""
	}
	return other
}

func statusCommand(t *terminal) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show this node and whom it sees", Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := t.client()
			if err != nil {
				return err
			}
			st, err := cl.Status(c.Context())
			if err != nil {
				return err
			}
			return t.print(st, func() { t.showStatus(st) })
		},
	}
}

func (t *terminal) showStatus(st api.Status) {
	fmt.Fprintf(t.out, "site %s, overlay %s, dcnode %s\n%d events ordered, round %d, %d of our transactions wait, state %.16s\n",
		st.Site, st.Network, st.Version, st.Ordered, st.Round, st.Waiting, st.Root)
	t.showOrder(st)
	for _, d := range st.Drivers {
		switch {
		case !d.Available:
			fmt.Fprintf(t.out, "%s: %s\n", d.Driver, d.Why)
		case !d.CanMigrate:
			fmt.Fprintf(t.out, "%s %s (%s): runs machines, does not move them: %s\n", d.Driver, d.Version, d.Accelerator, d.WhyNot)
		default:
			fmt.Fprintf(t.out, "%s\n", strings.Join(strings.Fields(d.Driver+" "+d.Version+" "+d.Accelerator+" "+d.Why), " "))
		}
	}
	rows := []string{"SITE\tREGION\tSEEN\tRTT\tPEER"}
	for _, m := range st.Members {
		seen := "no"
		switch {
		case m.Self:
			seen = "self"
		case m.Connected:
			seen = m.Transport
		}
		rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%.1f ms\t%s", m.Site, m.Region, seen, float64(m.RTT)/1000, m.Peer))
	}
	t.table(rows...)
	for _, s := range st.Suspects {
		fmt.Fprintf(t.out, "beware: %s %s (%d times) %s\n", s.Site, s.What, s.Count, strings.Join(s.Evidence, " "))
	}
	for _, a := range st.Addrs {
		fmt.Fprintln(t.out, "listens on", a)
	}
}

// showOrder says why this node does not take part in the order, if it does not.
func (t *terminal) showOrder(st api.Status) {
	switch {
	case st.Left:
		fmt.Fprintln(t.out, "this node is no longer a member: it has left or was voted out")
	case len(st.Awaits) > 0:
		fmt.Fprintf(t.out, "this node waits for the approval of members of more than two thirds of the weight: %s say `dcnode member approve %s`; nothing is to be done here\n", strings.Join(st.Awaits, ", "), st.Site)
	case st.Observing && len(st.WaitsFor) > 0:
		fmt.Fprintf(t.out, "this node only listens: its host was down or its log is new, and it must hear from the others which event of its own was the last. Enough of %s have to answer: start them, or see to the links to them\n", strings.Join(st.WaitsFor, ", "))
	case st.Observing:
		fmt.Fprintln(t.out, "this node only listens for a moment more, to be sure which event of its own was the last")
	case st.Behind:
		fmt.Fprintln(t.out, "this node is far behind and takes over a checkpoint of the others, if they have one: nothing is to be done")
	case st.Joining:
		fmt.Fprintln(t.out, "this node has taken over a checkpoint and fetches the events that follow it: if that lasts, see that it is connected to the others")
	}
}

func ledgerCommand(t *terminal) *cobra.Command {
	return group(&cobra.Command{Use: "ledger", Short: "What the members have agreed on"}, ledgerShow(t), ledgerLog(t),
		ledgerPing(t), ledgerWatch(t), ledgerExport(t), ledgerVerify(t), ledgerCertify(t))
}
