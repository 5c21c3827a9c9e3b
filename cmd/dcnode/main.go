// Command dcnode moves running virtual machines between data centres.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/dcnode/dcnode/node"
	"github.com/dcnode/dcnode/node/api"
)

// Exit codes, as `dcnode help` lists them.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is the command without the process around it.
func run(ctx context.Context, args []string, stdout, stderr *os.File) int {
	t := &terminal{out: stdout, err: stderr}
	root := newRoot(t)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	var usage *usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, new(refusedError)):
		return exitFailed
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "dcnode: %v\n", err)
		return exitUsage
	}
	fmt.Fprintf(stderr, "dcnode: %v\n", err)
	return exitFailed
}

// usageError is a wrong flag or argument.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

const longHelp = `dcnode moves running virtual machines between data centres: no shared storage,
and no one in charge.

  dcnode init --site dc1            at each site: an identity
  dcnode genesis */member.json      once: the founding roster
  dcnode run --genesis genesis.json at each site: the node
  dcnode image add debian disk.qcow2
  dcnode vm run web1 --image debian
  dcnode vm migrate web1            the overlay selects where to

Exit codes: 0 done, 1 it could not be done, 2 wrong usage, 130 interrupted.`

func newRoot(t *terminal) *cobra.Command {
	root := &cobra.Command{
		Use: "dcnode", Short: "Moves running virtual machines between data centres", Long: longHelp,
		SilenceErrors: true, SilenceUsage: true, Version: node.Version,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return &usageError{fmt.Errorf("%w: see `%s --help`", err, c.CommandPath())}
	})
	root.PersistentFlags().StringVar(&t.data, "data", defaultData(), "data directory of the node (or DCNODE_DATA)")
	root.PersistentFlags().BoolVar(&t.json, "json", false, "print JSON")
	root.AddCommand(
		initCommand(t), genesisCommand(t), runCommand(t), statusCommand(t), memberCommand(t), ledgerCommand(t),
		imageCommand(t), vmCommand(t), whyCommand(t), policyCommand(t), accountCommand(t), dagCommand(t), testnetCommand(t),
	)
	return root
}

// defaultData is where a node of this user keeps its things.
func defaultData() string {
	if d := os.Getenv("DCNODE_DATA"); d != "" {
		return d
	}
	if os.Getuid() == 0 {
		return "/var/lib/dcnode"
	}
	if d := os.Getenv("XDG_DATA_HOME"); d != "" {
		return filepath.Join(d, "dcnode")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "dcnode-data"
	}
	return filepath.Join(home, ".local", "share", "dcnode")
}

// client talks to the node of the data directory.
func (t *terminal) client() (*api.Client, error) {
	if _, err := os.Stat(t.data); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no data directory %s: name it with --data, or make it with `dcnode init`", t.data)
	}
	return api.NewClient(filepath.Join(t.data, node.SocketFile)), nil
}

// exactly wants n arguments, named for the error.
func exactly(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == len(names) {
			return nil
		}
		return &usageError{fmt.Errorf("%s needs %d arguments (%v), got %d: see `%s --help`",
			c.CommandPath(), len(names), names, len(args), c.CommandPath())}
	}
}

// group is a command that only has subcommands: alone it explains itself, with an
// unknown one it fails.
func group(c *cobra.Command, sub ...*cobra.Command) *cobra.Command {
	c.AddCommand(sub...)
	c.Args = cobra.ArbitraryArgs
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return &usageError{fmt.Errorf("unknown command %q: see `%s --help`", args[0], c.CommandPath())}
		}
		return c.Help()
	}
	return c
}
