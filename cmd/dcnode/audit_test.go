package main

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	libp2p "github.com/libp2p/go-libp2p/core/crypto"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/dcnode/dcnode/consensus"
	"github.com/dcnode/dcnode/consensus/graph"
	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/node"
	"github.com/dcnode/dcnode/node/eventlog"
)

// site is a member of a small overlay that lives in a test, without a network: its
// hashgraph, its ledger and its data directory.
type site struct {
	dir   string
	id    uint64
	key   ed25519.PrivateKey
	core  *consensus.Core
	log   *eventlog.Log
	state *ledger.State
	order []consensus.Ordered
	inbox []*consensus.Event
	pool  [][]byte
	kept  []eventlog.Checkpoint
}

// root is the root of the site's state.
func (s *site) root() string {
	c, err := s.state.Root()
	if err != nil {
		return err.Error()
	}
	return c.String()
}

// past is four sites and what they did.
type past struct {
	t       *testing.T
	network [32]byte
	sites   []*site
	mono    int64
}

// newPast makes the sites dc1 to dc4.
func newPast(t *testing.T) *past {
	t.Helper()
	p := &past{t: t}
	var cards []node.Card
	for i := range 4 {
		s := &site{dir: t.TempDir(), id: uint64(i + 1)}
		card, err := node.Init(s.dir, fmt.Sprintf("dc%d", i+1), "", 1, nil)
		p.check(err)
		cards = append(cards, card)
		raw, err := os.ReadFile(filepath.Join(s.dir, "identity.key"))
		p.check(err)
		key, err := libp2p.UnmarshalPrivateKey(raw)
		p.check(err)
		s.key, err = key.Raw()
		p.check(err)
		p.sites = append(p.sites, s)
	}
	g, err := node.NewGenesis(cards, time.Unix(1_800_000_000, 0))
	p.check(err)
	text, err := json.Marshal(g)
	p.check(err)
	var roster []consensus.Member
	var members []ledger.Member
	for i, s := range p.sites {
		roster = append(roster, consensus.Member{ID: s.id, Key: s.key.Public().(ed25519.PublicKey), Weight: 1})
		members = append(members, ledger.Member{ID: ledger.MemberID(s.id), Site: cards[i].Site, Weight: 1, Key: s.key.Public().(ed25519.PublicKey)})
	}
	network := consensus.Hash(sha256.Sum256(text))
	p.network = network
	for _, s := range p.sites {
		p.check(node.WriteGenesis(g, filepath.Join(s.dir, "genesis.json"), nil))
		s.core, err = consensus.New(consensus.Config{Network: network, Roster: roster, Self: s.id})
		p.check(err)
		s.log, err = eventlog.Open(eventlog.Config{Dir: s.dir, Network: network, SegmentSize: 100_000})
		p.check(err)
		t.Cleanup(s.log.Abandon)
		s.state, err = ledger.New(members, g.Rules)
		p.check(err)
	}
	return p
}

func (p *past) check(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// run lets the sites exchange events until each has ordered n transactions or more.
func (p *past) run(n int) {
	p.t.Helper()
	for i := range n * len(p.sites) {
		s := p.sites[i%len(p.sites)]
		body := ledger.Body(&ledger.Publish{Name: fmt.Sprintf("image-%d", i), Commit: "c", Size: 1, Stored: 1})
		if i%5 == 4 {
			body = &ledger.Withdraw{Name: "nothing"} // is refused
		}
		raw, err := ledger.Encode(ledger.Tx{Seq: uint64(i + 1), Body: body})
		p.check(err)
		if i%7 == 6 {
			raw = []byte("nonsense")
		}
		s.pool = append(s.pool, raw)
	}
	for busy := true; busy; {
		busy = false
		p.mono += 1_000_000
		for _, s := range p.sites {
			busy = p.step(s) || busy
		}
	}
}

// step takes in what came, and speaks if it is time.
func (p *past) step(s *site) bool {
	p.t.Helper()
	in := s.inbox
	s.inbox = nil
	for _, e := range in {
		if err := s.core.Add(e); err != nil && !errors.Is(err, consensus.ErrDuplicate) {
			p.t.Fatal(err)
		}
	}
	p.drain(s)
	if due, _ := s.core.Due(p.mono, len(s.pool) > 0); due {
		var payload [][]byte
		if len(s.pool) > 0 {
			payload, s.pool = s.pool[:1], s.pool[1:]
		}
		e := s.core.Next(consensus.Timestamp(1_800_000_000_000_000_000+p.mono), uint32(p.mono), payload)
		e.Sign(s.key)
		p.check(s.core.Add(e))
		p.drain(s)
		return true
	}
	return len(in) > 0 || len(s.pool) > 0
}

func (p *past) drain(s *site) {
	p.t.Helper()
	for rd, ok := s.core.Ready(); ok; rd, ok = s.core.Ready() {
		p.check(s.log.Append(rd.Save))
		for _, e := range rd.Send {
			for _, other := range p.sites {
				if other != s {
					other.inbox = append(other.inbox, e)
				}
			}
		}
		for _, cp := range rd.Checkpoints {
			p.keep(s, &cp)
		}
		for _, ev := range rd.Ordered {
			s.order = append(s.order, ev)
			at := ledger.Place{Index: ev.Index, Round: ev.Round, Time: ledger.Time(ev.Time), Author: ledger.MemberID(ev.Event.Creator), Event: ev.Event.Hash()}
			s.state.Advance(at)
			for _, raw := range ev.Event.Payload {
				if tx, err := ledger.Decode(raw); err == nil {
					_, _ = s.state.Apply(p.network, at, tx)
				}
			}
		}
		s.core.Advance()
	}
}

func (p *past) keep(s *site, cp *consensus.Checkpoint) {
	p.t.Helper()
	root, snapshot, err := s.state.Snapshot()
	p.check(err)
	s.kept = append(s.kept, eventlog.Checkpoint{Round: cp.Round, MinBirth: cp.MinBirth, Body: cp.Marshal(), Root: [32]byte(root.Hash()[2:]), Snapshot: snapshot})
	p.check(s.log.SaveCheckpoint(s.kept[len(s.kept)-1]))
}

// dcnode runs a command and gives what it writes.
func dcnode(t *testing.T, args ...string) (out, errs string, code int) {
	t.Helper()
	dir := t.TempDir()
	files := make([]*os.File, 2)
	for i := range files {
		f, err := os.Create(filepath.Join(dir, fmt.Sprint(i)))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files[i] = f
	}
	code = run(t.Context(), args, files[0], files[1])
	text := func(f *os.File) string {
		b, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	return text(files[0]), text(files[1]), code
}

// TestExportedHistoryHasTheOrderThatTheNodeComputed: also while the node runs, which
// the open logs stand for.
func TestExportedHistoryHasTheOrderThatTheNodeComputed(t *testing.T) {
	p := newPast(t)
	p.run(30)
	hashes := filepath.Join(t.TempDir(), "hashes")
	raw := filepath.Join(t.TempDir(), "raw")
	for _, s := range p.sites {
		out, errs, code := dcnode(t, "ledger", "export", "--data", s.dir, "--hashes", hashes, "--raw", raw)
		if code != 0 || errs != "" {
			t.Fatalf("exit code %d: %s", code, errs)
		}
		g, err := graph.ParseGraph(strings.NewReader(out))
		if err != nil {
			t.Fatal(err)
		}
		var again strings.Builder
		if err := g.Write(&again); err != nil || again.String() != out {
			t.Errorf("the export is not written as graphs are: %v", err)
		}
		n := 0
		for _, r := range g.Order().Rounds {
			for _, x := range r.Received {
				if n >= len(s.order) || g.Events[x.Index].Hash != s.order[n].Event.Hash() {
					t.Fatalf("event %d of the order is another one", n)
				}
				n++
			}
		}
		if n != len(s.order) || n < 100 {
			t.Errorf("%d events in the order, at the node %d", n, len(s.order))
		}
		p.compareTables(g, hashes, raw)
	}
}

// compareTables compares the tables beside an export with it.
func (p *past) compareTables(g *graph.Graph, hashes, raw string) {
	p.t.Helper()
	b, err := os.ReadFile(hashes)
	p.check(err)
	encoded, err := os.ReadFile(raw)
	p.check(err)
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	for i, line := range lines {
		n := binary.BigEndian.Uint32(encoded)
		e, err := consensus.Unmarshal(encoded[4 : 4+n])
		p.check(err)
		encoded = encoded[4+n:]
		s := p.sites[e.Creator-1]
		if h := e.Hash(); line != fmt.Sprintf("%d %x dc%d", i, h, e.Creator) || g.Events[i].Hash != h || e.Verify(s.key.Public().(ed25519.PublicKey)) != nil {
			p.t.Fatalf("line %d of the table, %q, does not fit", i+1, line)
		}
	}
	if len(encoded) > 0 || len(lines) != len(g.Events) {
		p.t.Errorf("%d lines and %d more bytes for %d events", len(lines), len(encoded), len(g.Events))
	}
}

func TestHonestHistoryVerifiesToTheSameStateEverywhere(t *testing.T) {
	p := newPast(t)
	p.run(30)
	for _, s := range p.sites {
		out, errs, code := dcnode(t, "ledger", "verify", "--data", s.dir, "--json", "--at", "100")
		if code != 0 {
			t.Fatalf("exit code %d: %s", code, errs)
		}
		var a node.Audit
		if err := json.Unmarshal([]byte(out), &a); err != nil {
			t.Fatal(err)
		}
		last := a.Roots[len(a.Roots)-1]
		if a.Ordered != uint64(len(s.order)) || a.Events != uint64(s.log.Next()) || last.Ordered != a.Ordered || last.Root != s.root() {
			t.Errorf("%s: %d events, %d in the order, root %s; at the node %d, %d, %s", s.dir, a.Events, a.Ordered, last.Root, s.log.Next(), len(s.order), s.root())
		}
		if a.Txs != 120 || a.Unknown == 0 || a.Unknown > 30 || a.Links < a.Events || len(a.Forks)+len(a.Notes)+len(a.Gaps) > 0 || a.Roots[0].Ordered != 100 {
			t.Errorf("%+v", a)
		}
	}
	out, _, _ := dcnode(t, "ledger", "verify", "--data", p.sites[0].dir)
	if !strings.Contains(out, p.sites[0].root()) || !strings.Contains(out, "120 transactions") {
		t.Errorf("in words: %s", out)
	}
}

// verified runs `dcnode ledger verify` and wants it to be content.
func verified(t *testing.T, dir string) node.Audit {
	t.Helper()
	out, errs, code := dcnode(t, "ledger", "verify", "--data", dir, "--json")
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	var a node.Audit
	if err := json.Unmarshal([]byte(out), &a); err != nil {
		t.Fatal(err)
	}
	return a
}

// copied is a copy of a site's directory with a log of its own, empty as yet.
func (p *past) copied(s *site) (string, *eventlog.Log) {
	p.t.Helper()
	dir := p.t.TempDir()
	p.check(os.CopyFS(dir, os.DirFS(s.dir)))
	p.check(os.RemoveAll(filepath.Join(dir, eventlog.Folder)))
	r, err := eventlog.Read(s.dir)
	p.check(err)
	l, err := eventlog.Open(eventlog.Config{Dir: dir, Network: r.Network})
	p.check(err)
	p.t.Cleanup(l.Abandon)
	return dir, l
}

// copyEvents writes the events of a site's log into another, from one position up to
// another, as far as they are born late enough.
func (p *past) copyEvents(s *site, to *eventlog.Log, from, until eventlog.Position, birth uint64) {
	p.t.Helper()
	r, err := eventlog.Read(s.dir)
	p.check(err)
	for rec, err := range r.Records() {
		p.check(err)
		if rec.Position >= from && rec.Position < until && rec.Event.BirthRound >= birth {
			p.check(to.Append([]*consensus.Event{rec.Event}))
		}
	}
}

// TestCheckpointsOfAHistoryAreRecomputed: those that a node has kept, and what comes
// after one that it got from others.
func TestCheckpointsOfAHistoryAreRecomputed(t *testing.T) {
	p := newPast(t)
	p.run(1300)
	s := p.sites[0]
	if len(s.kept) < 3 {
		t.Fatalf("%d checkpoints", len(s.kept))
	}
	root := s.root()
	a := verified(t, s.dir)
	stored := 0
	for _, r := range a.Roots {
		if r.Stored {
			stored++
		}
	}
	if last := a.Roots[len(a.Roots)-1]; len(a.Roots) != len(s.kept)+1 || stored != 2 || last.Root != root {
		t.Errorf("%+v, root %s", a.Roots, root)
	}

	const end = 1 << 40
	refused := func(what, says string, events eventlog.Position, cp eventlog.Checkpoint) {
		t.Helper()
		dir, l := p.copied(s)
		p.copyEvents(s, l, 0, events, 0)
		p.check(l.SaveCheckpoint(cp))
		if out, errs, code := dcnode(t, "ledger", "verify", "--data", dir); code != exitFailed || !strings.Contains(errs, says) {
			t.Errorf("%s: exit code %d: %s%s", what, code, out, errs)
		}
	}
	cp := s.kept[1]
	cp.Snapshot = append([]byte(" "), cp.Snapshot...)
	refused("another snapshot", "of the order the state is", end, cp)
	cp.Root = sha256.Sum256(cp.Snapshot)
	refused("another state", "the node has kept", end, cp)
	cp = s.kept[1]
	cp.Body = slices.Clone(cp.Body)
	cp.Body[60] ^= 1 // in the least birth round
	refused("another body", fmt.Sprintf("checkpoint of round %d", cp.Round), end, cp)
	refused("events are lacking", "its events lead to round", 1000, s.kept[1])

	// A gap, with the checkpoint that was taken over, and with the one after it.
	for _, lost := range []bool{false, true} {
		dir, l := p.copied(s)
		cp := s.kept[0]
		p.copyEvents(s, l, 0, 300, 0)
		p.check(l.Adopt(cp))
		p.copyEvents(s, l, 300, end, cp.MinBirth)
		if lost {
			p.check(l.SaveCheckpoint(s.kept[1]))
			p.check(l.SaveCheckpoint(s.kept[2]))
		}
		a := verified(t, dir)
		if last := a.Roots[len(a.Roots)-1]; last.Root != root || len(a.Gaps) != 1 || lost != strings.Contains(a.Gaps[0], "has kept none before") {
			t.Errorf("lost %v: gaps %q, %+v, root %s", lost, a.Gaps, a.Roots, root)
		}
	}
	dir, l := p.copied(s)
	p.check(l.Adopt(s.kept[0]))
	p.copyEvents(s, l, 0, end, s.kept[0].MinBirth)
	files, err := filepath.Glob(filepath.Join(dir, eventlog.Folder, "checkpoint-*"))
	p.check(err)
	p.check(os.Remove(files[0]))
	if _, errs, code := dcnode(t, "ledger", "verify", "--data", dir); code != exitFailed || !strings.Contains(errs, "kept no checkpoint since") {
		t.Errorf("no checkpoint: exit code %d: %s", code, errs)
	}
	if out, errs, code := dcnode(t, "ledger", "export", "--data", dir); code != 0 || !strings.Contains(out, "\n# a gap:") {
		t.Errorf("export of a gap: exit code %d: %s", code, errs)
	}
}

// TestForgedHistoryIsFound: the events of an honest history, one of them changed, in
// a log whose checksums are right.
func TestForgedHistoryIsFound(t *testing.T) {
	p := newPast(t)
	p.run(10)
	s := p.sites[0]
	r, err := eventlog.Read(s.dir)
	p.check(err)
	for name, c := range map[string]struct {
		forge func(e *consensus.Event)
		says  string
		key   bool // the creator itself signs the forgery
		at    int
	}{
		"payload":        {func(e *consensus.Event) { e.Payload = [][]byte{[]byte("mine")} }, "signature", false, 20},
		"signature":      {func(e *consensus.Event) { e.Signature[5] ^= 1 }, "signature", false, 20},
		"last signature": {func(e *consensus.Event) { e.Signature[5] ^= 1 }, "signature", false, int(r.Events()) - 1},
		"creator":        {func(e *consensus.Event) { e.Creator = 77 }, "roster", false, 20},
		"overlay":        {func(e *consensus.Event) { e.Network[0]++ }, "network", true, 20},
		"lost parent":    {func(e *consensus.Event) { e.Parents[1].Hash[0]++ }, "not in the log", true, 20},
		"named parent":   {func(e *consensus.Event) { e.Parents[1].BirthRound = 1 }, "says of parent", true, 30},
		"number":         {func(e *consensus.Event) { e.Seq += 2 }, "rule", true, 20},
		"birth":          {func(e *consensus.Event) { e.BirthRound += 40 }, "", true, 20},
	} {
		dir, l := p.copied(s)
		var forged consensus.Hash
		for rec, err := range r.Records() {
			p.check(err)
			f := rec.Event
			e := &consensus.Event{
				Network: f.Network, Creator: f.Creator, Seq: f.Seq, BirthRound: f.BirthRound, Parents: f.Parents,
				Time: f.Time, Coin: f.Coin, Payload: f.Payload, Signature: f.Signature,
			}
			if int(rec.Position) == c.at {
				owner := p.sites[e.Creator-1]
				c.forge(e)
				if c.key {
					e.Sign(owner.key)
				}
				forged = e.Hash()
			}
			p.check(l.Append([]*consensus.Event{e}))
		}
		p.check(l.Close())
		out, errs, code := dcnode(t, "ledger", "verify", "--data", dir)
		if code != exitFailed || !strings.Contains(errs, c.says) {
			t.Errorf("%s: exit code %d: %s%s", name, code, out, errs)
		}
		if want := fmt.Sprintf("event %d of the log (%s", c.at, hex.EncodeToString(forged[:8])); c.says != "" && !strings.Contains(errs, want) {
			t.Errorf("%s: not %q: %s", name, want, errs)
		}
	}
}

func TestAuditNeedsTheRightGenesisAndALog(t *testing.T) {
	p := newPast(t)
	p.run(3)
	other := newPast(t)
	s := p.sites[0]
	gen := filepath.Join(other.sites[0].dir, "genesis.json")
	if _, errs, code := dcnode(t, "ledger", "verify", "--data", s.dir, "--genesis", gen); code != exitFailed || !strings.Contains(errs, "another overlay") {
		t.Errorf("another genesis: exit code %d: %s", code, errs)
	}
	if _, errs, code := dcnode(t, "ledger", "export", "--data", t.TempDir()); code != exitFailed || !strings.Contains(errs, "genesis.json") {
		t.Errorf("no data: exit code %d: %s", code, errs)
	}
	p.check(os.RemoveAll(filepath.Join(s.dir, eventlog.Folder)))
	if _, errs, code := dcnode(t, "ledger", "verify", "--data", s.dir); code != exitFailed || !strings.Contains(errs, "there is none") {
		t.Errorf("no log: exit code %d: %s", code, errs)
	}
	if _, errs, code := dcnode(t, "ledger", "export", "--data", p.sites[1].dir, "--hashes", "/nowhere/at/all"); code != exitFailed || !strings.Contains(errs, "/nowhere") {
		t.Errorf("no table: exit code %d: %s", code, errs)
	}
	// The torn end of a log is left out and said.
	path, _ := p.sites[1].log.SyncedSize()
	b, err := os.ReadFile(path)
	p.check(err)
	p.check(os.WriteFile(path, b[:len(b)-3], 0o600))
	if out, errs, code := dcnode(t, "ledger", "verify", "--data", p.sites[1].dir); code != 0 || !strings.Contains(out, "note: "+path) {
		t.Errorf("torn end: exit code %d: %s%s", code, out, errs)
	}
	if out, errs, code := dcnode(t, "ledger", "export", "--data", p.sites[1].dir); code != 0 || !strings.Contains(errs, path) || !strings.HasPrefix(out, "R 12 26 1 2 3 1\nN 1 1\n") {
		t.Errorf("torn end: exit code %d: %s", code, errs)
	}
}

// sameOrder compares what a node said of its order with what `dcnode dag order` made
// of its export: sameorder WATCH ORDER HASHES. The node may have said less.
func sameOrder(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: sameorder WATCH ORDER HASHES")
	}
	names := map[string]string{} // of the hashes, by ID
	for line := range strings.Lines(ts.ReadFile(args[2])) {
		f := strings.Fields(line)
		names[f[0]] = f[1]
	}
	var order []string
	for line := range strings.Lines(ts.ReadFile(args[1])) {
		f := strings.Fields(line)
		if f[0] != "C" || len(f) < 3 {
			continue
		}
		for _, at := range strings.Split(f[2], ",") {
			id, _, _ := strings.Cut(at, "@")
			order = append(order, names[id])
		}
	}
	n := 0
	for line := range strings.Lines(ts.ReadFile(args[0])) {
		var o struct{ Event string }
		ts.Check(json.Unmarshal([]byte(line), &o))
		if n >= len(order) || o.Event != order[n] {
			ts.Fatalf("event %d of %d is not %s", n, len(order), o.Event)
		}
		n++
	}
	if n < 10 {
		ts.Fatalf("the node said %d events", n)
	}
}

// grepSame wants the same first match of an expression in two files: grepsame RE A B.
func grepSame(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: grepsame EXPRESSION FILE FILE")
	}
	re := regexp.MustCompile("(?m)" + args[0])
	a, b := re.FindString(ts.ReadFile(args[1])), re.FindString(ts.ReadFile(args[2]))
	if a == "" || a != b {
		ts.Fatalf("%q is not %q", a, b)
	}
}
