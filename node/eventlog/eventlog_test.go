package eventlog_test

import (
	"crypto/ed25519"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/dcnode/dcnode/consensus"
	"github.com/dcnode/dcnode/node/eventlog"
)

var network = consensus.Hash{1, 2, 3}

var testKey = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))

// history is n events of the members 1 to 3 in turn, each on its own last one and on
// the event before it, parents first. Two events in three are born a round later
// than the one before.
func history(n int) []*consensus.Event {
	var out []*consensus.Event
	last := map[uint64]int{}
	for i := range n {
		m := uint64(i%3 + 1)
		e := &consensus.Event{
			Network: network, Creator: m, Seq: uint64(i / 3), BirthRound: uint64(1 + i - i/3),
			Time: consensus.Timestamp(i), Coin: uint32(i), Payload: [][]byte{fmt.Appendf(nil, "payload %d", i)},
		}
		if k, ok := last[m]; ok {
			e.Parents = append(e.Parents, parent(out[k]))
		}
		if i > 0 {
			e.Parents = append(e.Parents, parent(out[i-1]))
		}
		e.Sign(testKey)
		last[m] = i
		out = append(out, e)
	}
	return out
}

func parent(e *consensus.Event) consensus.Parent {
	return consensus.Parent{Hash: e.Hash(), Creator: e.Creator, BirthRound: e.BirthRound}
}

// config is a log that does not wait for the disk, which may be slow where tests run.
func config(dir string) eventlog.Config {
	return eventlog.Config{
		Dir: dir, Network: network, BootID: "boot 1",
		Fault: func(_ string, n int) (int, error) { return n, nil },
	}
}

func open(t *testing.T, cfg eventlog.Config) *eventlog.Log {
	t.Helper()
	l, err := eventlog.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Abandon)
	return l
}

func appendAll(t *testing.T, l *eventlog.Log, events []*consensus.Event) {
	t.Helper()
	for _, e := range events {
		if err := l.Append([]*consensus.Event{e}); err != nil {
			t.Fatal(err)
		}
	}
}

func replayed(t *testing.T, l *eventlog.Log) []*consensus.Event {
	t.Helper()
	var out []*consensus.Event
	for e, err := range l.Replay() {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
	return out
}

// same fails unless the events are the wanted ones.
func same(t *testing.T, what string, got, want []*consensus.Event) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d events, want %d", what, len(got), len(want))
	}
	for i := range got {
		if got[i].Hash() != want[i].Hash() {
			t.Fatalf("%s: event %d is another one", what, i)
		}
	}
}

func segments(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, eventlog.Folder, "events-*.log"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestOpenSaysHowTheRunBeforeEnded(t *testing.T) {
	dir := t.TempDir()
	cfg := config(dir)
	events := history(40)
	step := func(want eventlog.Condition, have, add int, end func(*eventlog.Log)) {
		t.Helper()
		l := open(t, cfg)
		if got := l.Opened().Condition; got != want {
			t.Fatalf("condition %v, want %v", got, want)
		}
		same(t, "replay", replayed(t, l), events[:have])
		appendAll(t, l, events[have:have+add])
		end(l)
	}
	closed := func(l *eventlog.Log) {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	step(eventlog.Fresh, 0, 0, (*eventlog.Log).Abandon)
	step(eventlog.Fresh, 0, 5, closed)
	step(eventlog.Clean, 5, 5, (*eventlog.Log).Abandon)
	step(eventlog.SameBoot, 10, 5, (*eventlog.Log).Abandon)
	cfg.BootID = "boot 2"
	step(eventlog.Suspect, 15, 0, (*eventlog.Log).Abandon) // nobody may have acted on it
	step(eventlog.Suspect, 15, 5, closed)
	cfg.BootID = "boot 3"
	step(eventlog.Clean, 20, 0, (*eventlog.Log).Abandon) // the mark does not outlive the next start
	cfg.BootID = "boot 4"
	step(eventlog.Suspect, 20, 1, (*eventlog.Log).Abandon)
	step(eventlog.SameBoot, 21, 1, closed)
	cfg.BootID = "boot 5"
	step(eventlog.Clean, 22, 1, closed)
}

func TestLogOfTheFirstFormatOrOfAnotherOverlayIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "events.log"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := eventlog.Open(config(dir)); err == nil {
		t.Error("a log of the first format is taken for a new one")
	}
	dir = t.TempDir()
	open(t, config(dir)).Abandon()
	cfg := config(dir)
	cfg.Network = consensus.Hash{9}
	if _, err := eventlog.Open(cfg); err == nil {
		t.Error("the log of another overlay is opened")
	}
}
