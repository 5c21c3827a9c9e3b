package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dcnode/dcnode/consensus/graph"
)

func dagCommand(t *terminal) *cobra.Command {
	return group(&cobra.Command{Use: "dag", Short: "Graphs of events as text: order, draw"}, dagOrder(t), dagDraw(t))
}

func dagOrder(t *terminal) *cobra.Command {
	rules := rules2026
	c := &cobra.Command{
		Use: "order FILE", Short: "Apply the rules of the hashgraph to a graph and print what they say", Args: exactly("FILE"),
		Long: `Reads a graph (- for standard input) and prints what the rules say of it. A line each:

  R coinInterval nonAncientRounds judgeAny(0 or 1) seeNum seeDen [whiten(0 or 1)]
  N memberID stake
  E id time creatorID birthRound coin selfParent(or -1) otherParents...
  U round          the lines R and N that follow hold from that round on
  H id hash        of an event above, for whitened ties
  # a remark

By the rules of 2026, which nodes run, for each decided round:

  P round voteD d mna minNonAncientBirthRound decider event judges j1,j2,...
  V round event vr votingRound fsw firstSelfWitness gen generation
  C round event@consensusTime,...

By those of the paper of 2016, for each event:

  event round witness|- famous|notfamous|undecided|- round-received time`,
		Example: "  dcnode dag order graph.in\n  dcnode ledger export | dcnode dag order - --rules 2016",
		RunE: func(c *cobra.Command, args []string) error {
			g, err := readGraph(c.InOrStdin(), args[0])
			if err != nil {
				return err
			}
			write := g.WriteOrder
			if rules == rules2016 {
				write = g.WriteOrder2016
			}
			if err := write(t.out); err != nil {
				return fmt.Errorf("order %s: %w", args[0], remedy(err))
			}
			return nil
		},
	}
	c.Flags().Var(&rules, "rules", "2026, which nodes run, or 2016, those of the paper")
	return c
}

func dagDraw(t *terminal) *cobra.Command {
	rules := rules2026
	var out string
	c := &cobra.Command{
		Use: "draw FILE", Short: "Draw a graph as SVG", Args: exactly("FILE"),
		Long: `Reads a graph (- for standard input; the format is that of ` + "`dcnode dag order`" + `) and draws
it: members as columns, time upwards, witnesses as squares, judges in gold, forks in red,
a colour for each round received. A browser tells more of the event under the pointer.`,
		Example: "  dcnode dag draw graph.in -o graph.svg\n  dcnode dag draw graph.in --rules 2016 > graph.svg",
		RunE: func(c *cobra.Command, args []string) error {
			g, err := readGraph(c.InOrStdin(), args[0])
			if err != nil {
				return err
			}
			o := graph.DrawOptions{Title: filepath.Base(args[0]), Rules2016: rules == rules2016}
			if args[0] == "-" {
				o.Title = "Hashgraph"
			}
			var picture strings.Builder
			if err := g.Draw(&picture, o); err != nil {
				return fmt.Errorf("draw %s: %w", args[0], remedy(err))
			}
			if out == "" || out == "-" {
				_, err = io.WriteString(t.out, picture.String())
			} else {
				err = os.WriteFile(out, []byte(picture.String()), 0o644)
			}
			if err != nil {
				return fmt.Errorf("draw %s: %w: write to another place with -o", args[0], err)
			}
			return nil
		},
	}
	c.Flags().Var(&rules, "rules", "2026, which nodes run, or 2016, those of the paper")
	c.Flags().StringVarP(&out, "output", "o", "", "file to write the picture to (default: standard output)")
	return c
}

// remedy says what to do about rules that do not fit the graph.
func remedy(err error) error {
	if errors.Is(err, graph.ErrRulesChange) {
		return fmt.Errorf("%w: use --rules 2026", err)
	}
	return err
}

// readGraph reads the graph in a file, or on stdin for -.
func readGraph(stdin io.Reader, name string) (*graph.Graph, error) {
	in := "standard input"
	if name != "-" {
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("there is no file %s: name a graph, or - to read standard input", name)
		}
		if err != nil {
			return nil, fmt.Errorf("read graph: %w", err)
		}
		defer f.Close()
		in, stdin = name, f
	}
	g, err := graph.ParseGraph(stdin)
	var line *graph.LineError
	switch {
	case errors.As(err, &line):
		return nil, fmt.Errorf("%s, %w: see `dcnode dag order --help` for the format", in, err)
	case err != nil:
		return nil, fmt.Errorf("%w: name a graph, or - to read standard input", err)
	}
	return g, nil
}

// ruleset is a flag that takes a year.
type ruleset string

const (
	rules2026 ruleset = "2026"
	rules2016 ruleset = "2016"
)

// String implements pflag.Value.
func (r *ruleset) String() string { return string(*r) }

// Type implements pflag.Value.
func (r *ruleset) Type() string { return "year" }

// Set implements pflag.Value.
func (r *ruleset) Set(text string) error {
	switch ruleset(text) {
	case rules2026, rules2016:
		*r = ruleset(text)
		return nil
	}
	return fmt.Errorf("there are no rules of %q: write 2026 or 2016", text)
}
