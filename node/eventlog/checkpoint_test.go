package eventlog_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dcnode/dcnode/consensus"
	"github.com/dcnode/dcnode/node/eventlog"
)

func checkpoint(round, birth uint64) eventlog.Checkpoint {
	return eventlog.Checkpoint{Round: round, MinBirth: birth, Body: fmt.Appendf(nil, "body %d", round), Root: [32]byte{byte(round)}, Snapshot: bytes.Repeat([]byte{byte(round)}, 1000)}
}

func equal(a, b *eventlog.Checkpoint) bool {
	return a != nil && b != nil && a.Round == b.Round && a.MinBirth == b.MinBirth && a.Root == b.Root && bytes.Equal(a.Body, b.Body) && bytes.Equal(a.Snapshot, b.Snapshot)
}

func checkpointFiles(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, eventlog.Folder, "checkpoint-*"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestNewestTwoCheckpointsAreKept(t *testing.T) {
	dir := t.TempDir()
	cfg := small(dir)
	l := open(t, cfg)
	events := history(600)
	var want []eventlog.Checkpoint
	for i, e := range events {
		appendAll(t, l, []*consensus.Event{e})
		if i%50 == 49 {
			cp := checkpoint(uint64(i), events[i-30].BirthRound)
			if err := l.SaveCheckpoint(cp); err != nil {
				t.Fatal(err)
			}
			want = append(want, cp)
			if path, size := l.SyncedSize(); len(read(t, path)) != int(size) {
				t.Fatal("a checkpoint is durable before the events below it are")
			}
		}
	}
	if err := l.SaveCheckpoint(checkpoint(10, 1)); err == nil {
		t.Error("an old checkpoint takes the place of a newer one")
	}
	slices.Reverse(want)
	got, err := l.Checkpoints()
	if err != nil || len(got) != 2 || !equal(&got[0], &want[0]) || !equal(&got[1], &want[1]) || len(checkpointFiles(t, dir)) != 2 {
		t.Fatalf("%d checkpoints, %d files, %v", len(got), len(checkpointFiles(t, dir)), err)
	}
	l.Abandon()
	l = open(t, cfg)
	if !equal(l.Opened().Checkpoint, &want[0]) {
		t.Fatalf("opened with %v", l.Opened().Checkpoint)
	}
	same(t, "replay", replayed(t, l), events[slices.IndexFunc(events, func(e *consensus.Event) bool { return e.BirthRound >= want[0].MinBirth }):])
	if n := l.Indexed(); n > 50 {
		t.Errorf("%d events in the index after a start from the last 31", n)
	}
	r, err := eventlog.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := r.Checkpoints(); err != nil || len(got) != 2 || !equal(&got[0], &want[0]) {
		t.Errorf("read: %d checkpoints, %v", len(got), err)
	}
}

// TestDamagedCheckpointIsReplacedByTheOneBefore: and then by the whole history.
func TestDamagedCheckpointIsReplacedByTheOneBefore(t *testing.T) {
	dir := t.TempDir()
	cfg := small(dir)
	l := open(t, cfg)
	events := history(300)
	appendAll(t, l, events)
	old, newer := checkpoint(100, events[150].BirthRound), checkpoint(150, events[250].BirthRound)
	for _, cp := range []eventlog.Checkpoint{old, newer} {
		if err := l.SaveCheckpoint(cp); err != nil {
			t.Fatal(err)
		}
	}
	l.Abandon()
	files := checkpointFiles(t, dir)
	whole := read(t, files[1])
	try := func(what string, b []byte) {
		t.Helper()
		copied := t.TempDir()
		if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		write(t, strings.Replace(files[1], dir, copied, 1), b)
		l := open(t, small(copied))
		defer l.Abandon()
		o := l.Opened()
		if !equal(o.Checkpoint, &old) || len(o.Notes) != 1 || !strings.Contains(o.Notes[0], filepath.Base(files[1])) {
			t.Fatalf("%s: checkpoint %v, notes %q", what, o.Checkpoint, o.Notes)
		}
		if got := replayed(t, l); got[0].Hash() != events[slices.IndexFunc(events, func(e *consensus.Event) bool { return e.BirthRound >= old.MinBirth })].Hash() {
			t.Fatalf("%s: the replay begins elsewhere", what)
		}
		// The order comes by the same checkpoint again.
		if err := l.SaveCheckpoint(newer); err != nil {
			t.Fatal(err)
		}
		if got, err := l.Checkpoints(); err != nil || len(got) != 2 || !equal(&got[0], &newer) {
			t.Fatalf("%s: saved again: %d checkpoints, %v", what, len(got), err)
		}
	}
	for i := 0; i < len(whole); i += 37 {
		b := slices.Clone(whole)
		b[i] ^= 4
		try(fmt.Sprintf("byte %d flipped", i), b)
	}
	for cut := 0; cut < len(whole); cut += 173 {
		try(fmt.Sprintf("cut at byte %d", cut), whole[:cut])
	}
	try("another's bytes", read(t, files[0]))
	for _, f := range files {
		write(t, f, nil)
	}
	l = open(t, cfg)
	if l.Opened().Checkpoint != nil || len(l.Opened().Notes) != 2 {
		t.Errorf("both damaged: %+v", l.Opened())
	}
	same(t, "both damaged", replayed(t, l), events)
}

// TestAdoptedCheckpointIsWhereTheHistoryGoesOn: and the gap before it is on record.
func TestAdoptedCheckpointIsWhereTheHistoryGoesOn(t *testing.T) {
	dir := t.TempDir()
	cfg := small(dir)
	l := open(t, cfg)
	events := history(900)
	appendAll(t, l, events[:100])
	if err := l.SaveCheckpoint(checkpoint(40, events[80].BirthRound)); err != nil {
		t.Fatal(err)
	}
	cp := checkpoint(500, events[800].BirthRound)
	if err := l.Adopt(cp); err != nil {
		t.Fatal(err)
	}
	for range 2 { // with and without an event after it
		l.Abandon()
		l = open(t, cfg)
		have := replayed(t, l)
		if o := l.Opened(); !equal(o.Checkpoint, &cp) || o.Condition != eventlog.SameBoot {
			t.Fatalf("opened: %+v", o)
		}
		same(t, "replay", have, events[850:850+len(have)])
		appendAll(t, l, events[850+len(have):870+len(have)])
	}
	r, err := eventlog.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []eventlog.Record
	for rec, err := range r.Records() {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, rec)
	}
	if len(got) != 100+1+40 || got[99].Adopted != nil || got[100].Event != nil || *got[100].Adopted != (eventlog.Adoption{Round: 500, MinBirth: cp.MinBirth}) || got[101].Position != 100 {
		t.Errorf("%d records; the gap is not where it is", len(got))
	}
}
