package main

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/dcnode/dcnode/consensus/graph"
	"github.com/dcnode/dcnode/node"
)

// genesisFlag names the roster for those who do not trust the directory's own.
func genesisFlag(c *cobra.Command, path *string) {
	c.Flags().StringVar(path, "genesis", "", "genesis file to go by, instead of the one in the data directory")
}

func ledgerExport(t *terminal) *cobra.Command {
	var genesis, hashes, raw string
	c := &cobra.Command{
		Use: "export", Short: "Write the node's history as text, for `dcnode dag order`", Args: exactly(),
		Long: `Writes the events in the data directory as a graph: lines R and N for the rules and the
members, U where they change, E for each event, H for its hash. The node may run
meanwhile. Nothing is checked: see ` + "`dcnode ledger verify`" + `. With --json, the same as lines
of JSON: those with members are rules, those with an id events.

  dcnode ledger export | dcnode dag order -

prints the order as anyone can compute it.`,
		RunE: func(c *cobra.Command, _ []string) error {
			h, err := node.OpenHistory(t.data, genesis)
			if err != nil {
				return err
			}
			x := &export{graph: t.out, json: t.json}
			if x.hashes, err = x.create(hashes); err != nil {
				return err
			}
			if x.raw, err = x.create(raw); err != nil {
				return err
			}
			err = errors.Join(x.write(h), x.close())
			for _, n := range h.Notes() {
				fmt.Fprintln(t.err, "dcnode:", n)
			}
			return err
		},
	}
	genesisFlag(c, &genesis)
	c.Flags().StringVar(&hashes, "hashes", "", "also write a table to this file: id, SHA-256, site of the creator")
	c.Flags().StringVar(&raw, "raw", "", "also write the signed encodings to this file, each after its length in 4 bytes, big-endian")
	return c
}

// export writes a history in up to three forms.
type export struct {
	graph, hashes, raw io.Writer
	json               bool // the graph as lines of JSON
	files              []*os.File
	buffers            []*bufio.Writer
}

// create makes a file to write to; nothing is written for an empty path.
func (x *export) create(path string) (io.Writer, error) {
	if path == "" {
		return io.Discard, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	x.files = append(x.files, f)
	b := bufio.NewWriter(f)
	x.buffers = append(x.buffers, b)
	return b, nil
}

func (x *export) close() error {
	var errs []error
	for i, f := range x.files {
		errs = append(errs, x.buffers[i].Flush(), f.Close())
	}
	return errors.Join(errs...)
}

// write goes through the history twice: for the rules, which the order tells, and
// for the events.
func (x *export) write(h *node.History) error {
	rules, err := rulesOf(h)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(x.graph)
	if err := x.writeRules(out, rules); err != nil {
		return err
	}
	for e, err := range h.Events() {
		if err != nil {
			return err
		}
		if err := x.writeEvent(out, e, rules); err != nil {
			return err
		}
		if e.Event == nil {
			continue
		}
		fmt.Fprintf(x.hashes, "%d %x %s\n", e.ID, e.Hash, e.Site)
		if _, err := x.raw.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(e.Raw))), e.Raw...)); err != nil {
			return fmt.Errorf("export: %w", err)
		}
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	return nil
}

func (x *export) writeRules(out io.Writer, rules []graph.Rules) error {
	if !x.json {
		return (&graph.Graph{Rules: rules}).Write(out)
	}
	for _, r := range rules {
		if err := json.NewEncoder(out).Encode(r); err != nil {
			return fmt.Errorf("export: %w", err)
		}
	}
	return nil
}

// exportedEvent is a line E and its line H as JSON.
type exportedEvent struct {
	ID      uint64   `json:"id"`
	Time    int64    `json:"time"`
	Creator uint64   `json:"creator"`
	Site    string   `json:"site"`
	Birth   uint64   `json:"birth_round"`
	Coin    uint32   `json:"coin"`
	Self    bool     `json:"self_parent"` // the first of the parents is
	Parents []uint64 `json:"parents"`
	Hash    string   `json:"hash"`
}

// writeEvent writes an event of the history, or that there is a gap.
func (x *export) writeEvent(out *bufio.Writer, e node.Told, rules []graph.Rules) error {
	switch {
	case x.json && e.Event == nil:
		return json.NewEncoder(out).Encode(map[string]uint64{"gap_until_round": e.Gap.Round})
	case e.Event == nil:
		fmt.Fprintf(out, "# a gap: the checkpoint of round %d was taken over here; what follows has no order without it\n", e.Gap.Round)
		return nil
	}
	coin := e.Event.Coin % uint32(len(at(rules, e.Event.BirthRound).Members))
	if x.json {
		return json.NewEncoder(out).Encode(exportedEvent{ID: e.ID, Time: int64(e.Event.Time), Creator: e.Event.Creator, Site: e.Site,
			Birth: e.Event.BirthRound, Coin: coin, Self: e.Self, Parents: append([]uint64{}, e.Parents...), Hash: hex.EncodeToString(e.Hash[:])})
	}
	fmt.Fprintf(out, "E %d %d %d %d %d", e.ID, e.Event.Time, e.Event.Creator, e.Event.BirthRound, coin)
	if !e.Self {
		out.WriteString(" -1")
	}
	for _, p := range e.Parents {
		fmt.Fprintf(out, " %d", p)
	}
	_, err := fmt.Fprintf(out, "\nH %d %x\n", e.ID, e.Hash)
	return err
}

// rulesOf are the rules of all rounds, as the graph format has them.
func rulesOf(h *node.History) ([]graph.Rules, error) {
	epochs, err := h.Epochs()
	if err != nil {
		return nil, err
	}
	var rules []graph.Rules
	for _, ep := range epochs {
		r := graph.Rules{From: ep.From, Params: graph.Params(ep.Params)}
		for _, m := range ep.Roster {
			r.Members = append(r.Members, graph.Member{ID: m.ID, Stake: m.Weight})
		}
		rules = append(rules, r)
	}
	return rules, nil
}

// at is the rules of a round.
func at(rules []graph.Rules, round uint64) *graph.Rules {
	in := &rules[0]
	for i := range rules {
		if rules[i].From <= round {
			in = &rules[i]
		}
	}
	return in
}

func ledgerVerify(t *terminal) *cobra.Command {
	var genesis, cert string
	var index uint64
	c := &cobra.Command{
		Use: "verify", Short: "Check the node's history, or a certificate: signatures, order, state", Args: exactly(),
		Long: `Reads the data directory, not the node: it may run or not. Checks every signature and
every link, computes the order from the genesis on and the ledger from the order, and
compares with the checkpoints that the node has kept. Members with the same history have
the same state roots: compare them between members, with --at at the same place.

With --certificate it checks a certificate of a move against the overlay's --genesis and
says what it shows. That needs no node, no data directory and no network.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if cert != "" {
				return t.verifyCertificate(cert, genesis)
			}
			h, err := node.OpenHistory(t.data, genesis)
			if err != nil {
				return err
			}
			a, err := h.Verify(index)
			if a == nil {
				return err
			}
			return errors.Join(err, t.print(a, func() { t.showAudit(a) }))
		},
	}
	genesisFlag(c, &genesis)
	c.Flags().StringVar(&cert, "certificate", "", "check this certificate instead, see dcnode ledger certify")
	c.Flags().Uint64Var(&index, "at", 0, "also print the state root after this many events of the order")
	return c
}

func (t *terminal) showAudit(a *node.Audit) {
	fmt.Fprintf(t.out, "%d events, %d links\n", a.Events, a.Links)
	if a.Ancient > 0 {
		fmt.Fprintf(t.out, "%d links are to events too old to count\n", a.Ancient)
	}
	fmt.Fprintf(t.out, "%d events ordered, up to round %d, at %s\n", a.Ordered, a.Round, time.Unix(0, a.Time).UTC().Format(time.RFC3339Nano))
	fmt.Fprintf(t.out, "%d transactions, %d not understood\n", a.Txs, a.Unknown)
	for _, g := range a.Gaps {
		fmt.Fprintln(t.out, "gap", g)
	}
	for _, f := range a.Forks {
		fmt.Fprintln(t.out, "fork:", f)
	}
	for _, n := range a.Notes {
		fmt.Fprintln(t.out, "note:", n)
	}
	rows := []string{"ORDERED\tROUND\tSTATE ROOT\t"}
	for _, r := range a.Roots {
		stored, round := "", "-"
		if r.Stored {
			stored = "as kept by the node"
		}
		if r.Round > 0 {
			round = fmt.Sprint(r.Round)
		}
		rows = append(rows, fmt.Sprintf("%d\t%s\t%s\t%s", r.Ordered, round, r.Root, stored))
	}
	t.table(rows...)
}
