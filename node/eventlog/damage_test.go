package eventlog_test

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dcnode/dcnode/consensus"
	"github.com/dcnode/dcnode/node/eventlog"
)

// written is a log of one file with the given events, as the death of the process
// leaves it, and where each event's record begins; the last entry is the end.
func written(t *testing.T, cfg eventlog.Config, events []*consensus.Event) (path string, starts []int) {
	t.Helper()
	cfg.SyncDelay = time.Hour
	l := open(t, cfg)
	path, _ = l.SyncedSize()
	size := func() int {
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return int(st.Size())
	}
	for i, e := range events {
		appendAll(t, l, []*consensus.Event{e})
		if i == 0 { // the name of this boot was written before it
			starts = []int{size() - 13 - len(e.Marshal())}
		}
		starts = append(starts, size())
	}
	l.Abandon()
	return path, starts
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestLogCutAnywhereInItsLastEventKeepsTheOthers(t *testing.T) {
	cfg := config(t.TempDir())
	events := history(3)
	path, starts := written(t, cfg, events)
	whole := read(t, path)
	for cut := starts[2]; cut < starts[3]; cut++ {
		for _, tail := range [][]byte{nil, make([]byte, 4096)} { // some file systems leave zeroes behind
			write(t, path, slices.Concat(whole[:cut], tail))
			l := open(t, cfg)
			same(t, "cut", replayed(t, l), events[:2])
			// A write that did not finish was promised to nobody. Other bytes than
			// were written are something else.
			if want, got := tail == nil, l.Opened().Condition == eventlog.SameBoot; want != got {
				t.Fatalf("cut at byte %d, %d zeroes: %v", cut, len(tail), l.Opened().Condition)
			}
			if noted := len(l.Opened().Notes) > 0; noted != (cut > starts[2] || tail != nil) {
				t.Fatalf("cut at byte %d, %d zeroes: notes %q", cut, len(tail), l.Opened().Notes)
			}
			// What is appended to the repaired log is there the next time.
			appendAll(t, l, events[2:])
			l.Abandon()
			same(t, "cut and appended", replayed(t, open(t, cfg)), events)
		}
	}
}

// TestNoFlippedBitPassesUnnoticed: the log is refused with the place named, or it
// ends before the damage and says that it may lack something.
func TestNoFlippedBitPassesUnnoticed(t *testing.T) {
	cfg := config(t.TempDir())
	events := history(4)
	path, starts := written(t, cfg, events)
	whole := read(t, path)
	for i := range whole {
		for _, flip := range []byte{0x01, 0x80} {
			b := slices.Clone(whole)
			b[i] ^= flip
			write(t, path, b)
			l, err := eventlog.Open(cfg)
			if err == nil {
				l.Abandon()
			}
			last := i >= starts[3]
			const named = 72 + 14 // where the name of this boot is, after header and first record
			switch {
			case err == nil && i >= named && i < starts[0]:
				// Then nobody knows whether the machine was down.
				same(t, "flipped in the name of the boot", replayed(t, l), nil)
				if c := l.Opened().Condition; c != eventlog.Suspect {
					t.Fatalf("byte %d xor %#x: %v", i, flip, c)
				}
			case last && err == nil:
				same(t, "flipped in the last event", replayed(t, l), events[:3])
				// A length that grew looks like a write that did not finish.
				if c := l.Opened().Condition; c != eventlog.Suspect && i >= starts[3]+4 {
					t.Fatalf("byte %d xor %#x: %v", i, flip, c)
				}
			case last || err == nil:
				t.Fatalf("byte %d xor %#x: %v", i, flip, err)
			default:
				if after := read(t, path); !slices.Equal(after, b) {
					t.Fatalf("byte %d xor %#x: the damaged log was changed", i, flip)
				}
				var damage *eventlog.DamageError
				if i < 8 || i > 11 { // the version number is not taken for damage
					if !errors.As(err, &damage) || damage.File != path || !strings.Contains(err.Error(), "restore") {
						t.Fatalf("byte %d xor %#x: %v", i, flip, err)
					}
					if at := slices.Index(starts, int(damage.Byte)); i >= starts[0] && (at < 0 || i < starts[at] || i >= starts[at+1]) {
						t.Fatalf("byte %d xor %#x: placed at byte %d", i, flip, damage.Byte)
					}
				}
			}
		}
	}
}

// TestPowerCutLosesNothingThatWasSynced: the disk may have written the bytes after
// the last sync in any order, in pages.
func TestPowerCutLosesNothingThatWasSynced(t *testing.T) {
	dir := t.TempDir()
	cfg := config(dir)
	cfg.SyncDelay = time.Hour
	events := history(60)
	const synced = 25
	l := open(t, cfg)
	appendAll(t, l, events[:synced])
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	appendAll(t, l, events[synced:])
	path, safe := l.SyncedSize()
	l.Abandon()
	whole := read(t, path)
	cfg.BootID = "boot 2"
	const page = 512
	for hole := int(safe); hole < len(whole); hole += 97 {
		b := slices.Clone(whole)
		clear(b[hole:min(hole+page, len(b))])
		write(t, path, b)
		l := open(t, cfg)
		got := replayed(t, l)
		if len(got) < synced || l.Opened().Condition != eventlog.Suspect || len(l.Opened().Notes) == 0 {
			t.Fatalf("hole at %d: %d events, %v, %q", hole, len(got), l.Opened().Condition, l.Opened().Notes)
		}
		same(t, "hole", got, events[:len(got)])
		appendAll(t, l, events[len(got):])
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l = open(t, cfg)
		same(t, "hole and appended", replayed(t, l), events)
		l.Abandon()
	}
	// The same hole where the machine was not down, or below what was synced, is damage.
	b := slices.Clone(whole)
	clear(b[int(safe)-page : safe])
	write(t, path, b)
	var damage *eventlog.DamageError
	if _, err := eventlog.Open(cfg); !errors.As(err, &damage) {
		t.Errorf("hole in what was synced: %v", err)
	}
	b = slices.Clone(whole)
	clear(b[safe : int(safe)+page])
	write(t, path, b)
	cfg.BootID = "boot 1"
	if _, err := eventlog.Open(cfg); !errors.As(err, &damage) {
		t.Errorf("hole although the machine was not down: %v", err)
	}
}

// TestPayloadThatLooksLikeARecordIsNone: else a member could make the logs of
// others look damaged.
func TestPayloadThatLooksLikeARecordIsNone(t *testing.T) {
	cfg := config(t.TempDir())
	events := history(2)
	path, starts := written(t, cfg, events)
	b := read(t, path)
	evil := &consensus.Event{Network: network, Creator: 4, BirthRound: 1, Payload: [][]byte{b[starts[0]:starts[1]], b[starts[1]:]}}
	evil.Sign(testKey)
	l := open(t, cfg)
	appendAll(t, l, []*consensus.Event{evil})
	l.Abandon()
	b = read(t, path)
	write(t, path, b[:len(b)-1])
	l = open(t, cfg)
	same(t, "cut", replayed(t, l), events)
	if c := l.Opened().Condition; c != eventlog.SameBoot {
		t.Errorf("condition %v", c)
	}
}

func TestDamageInAnOldFileIsNamed(t *testing.T) {
	cfg := config(t.TempDir())
	cfg.SegmentSize = 2000
	events := history(60)
	l := open(t, cfg)
	appendAll(t, l, events)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	files := segments(t, cfg.Dir)
	if len(files) < 5 {
		t.Fatalf("%d files", len(files))
	}
	good := read(t, files[2])
	bad := slices.Clone(good)
	bad[len(bad)-10] ^= 1
	write(t, files[2], bad)
	var damage *eventlog.DamageError
	if _, err := eventlog.Open(cfg); !errors.As(err, &damage) || damage.File != files[2] {
		t.Errorf("Open: %v", err)
	}
	r, err := eventlog.Read(cfg.Dir)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, err = range r.Records() {
		if err != nil {
			break
		}
		n++
	}
	if !errors.As(err, &damage) || damage.File != files[2] || n == 0 {
		t.Errorf("Records: %v after %d events", err, n)
	}
	// The file that sums it up may be lost; then all of it is read.
	idx := strings.TrimSuffix(files[2], ".log") + ".idx"
	if err := os.Remove(idx); err != nil {
		t.Fatal(err)
	}
	if _, err := eventlog.Read(cfg.Dir); !errors.As(err, &damage) || damage.File != files[2] {
		t.Errorf("without the summary: %v", err)
	}
	write(t, files[2], good)
	l = open(t, cfg)
	same(t, "restored", replayed(t, l), events)
	if _, err := os.Stat(idx); err != nil {
		t.Errorf("the summary is not made again: %v", err)
	}
	l.Abandon()
	// A file that is gone.
	if err := os.Remove(files[3]); err != nil {
		t.Fatal(err)
	}
	if _, err := eventlog.Open(cfg); err == nil || !strings.Contains(err.Error(), files[3]) {
		t.Errorf("a file is gone: %v", err)
	}
}
