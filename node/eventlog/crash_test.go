package eventlog_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dcnode/dcnode/consensus"
	"github.com/dcnode/dcnode/node/eventlog"
)

var errCrash = errors.New("the process dies here")

// crash makes the process die at a step: that step is done in part, none after it.
type crash struct {
	at, step int
	part     int // of what is to be written then, in tenths
	name     string
}

func (c *crash) fault(step string, n int) (int, error) {
	c.step++
	switch {
	case c.step < c.at:
		return n, nil
	case c.step == c.at:
		c.name = step
		return n * c.part / 10, errCrash
	}
	return 0, errCrash
}

// story is what a test did before the crash and what it was promised.
type story struct {
	written    int // events whose Append returned
	synced     int // events that were there when a Sync returned
	checkpoint uint64
	log        *eventlog.Log // nil: it did not open
}

// tell writes events with all that the log can do in between, until something fails.
func tell(cfg eventlog.Config, events []*consensus.Event) (s story) {
	var err error
	if s.log, err = eventlog.Open(cfg); err != nil {
		return s
	}
	defer s.log.Abandon()
	for i := range events {
		if i%2 == 0 { // two at a time
			if s.log.Append(events[i:min(i+2, len(events))]) != nil {
				return s
			}
			s.written = min(i+2, len(events))
		}
		switch i % 20 {
		case 7:
			if s.log.Sync() != nil {
				return s
			}
			s.synced = s.written
		case 15:
			round := uint64(i)
			if s.log.SaveCheckpoint(eventlog.Checkpoint{Round: round, MinBirth: events[i].BirthRound - 5, Body: []byte("body"), Snapshot: []byte("snapshot")}) != nil {
				return s
			}
			s.synced, s.checkpoint = s.written, round
		}
	}
	if s.log.Close() == nil {
		s.synced = s.written
	}
	return s
}

// check reopens and compares with what was promised.
func (s *story) check(t *testing.T, what string, cfg eventlog.Config, events []*consensus.Event, least int) {
	t.Helper()
	cfg.Fault = config("").Fault
	l, err := eventlog.Open(cfg)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	defer l.Abandon()
	o := l.Opened()
	got := replayed(t, l)
	first := int(o.From)
	if first+len(got) < least {
		t.Fatalf("%s: %d events, promised were %d", what, first+len(got), least)
	}
	same(t, what, got, events[first:first+len(got)])
	var round, birth uint64
	if cp := o.Checkpoint; cp != nil {
		round, birth = cp.Round, cp.MinBirth
	}
	if round < s.checkpoint {
		t.Fatalf("%s: checkpoint of round %d, promised was %d", what, round, s.checkpoint)
	}
	for _, e := range events[:first] {
		if e.BirthRound >= birth {
			t.Fatalf("%s: an event born in round %d is not given again, which it is from round %d on", what, e.BirthRound, birth)
		}
	}
	// It can be written on.
	for _, e := range events[first+len(got):] {
		if err := l.Append([]*consensus.Event{e}); err != nil {
			t.Fatalf("%s: append: %v", what, err)
		}
	}
	r, err := eventlog.Read(cfg.Dir)
	if err != nil || r.Events() != uint64(len(events)) {
		t.Fatalf("%s: written on: %v", what, err)
	}
}

// TestCrashAtAnyStepLosesNothingThatWasPromised: a process that dies keeps all that
// was appended, a machine that dies keeps all that was synced.
func TestCrashAtAnyStepLosesNothingThatWasPromised(t *testing.T) {
	events := history(60)
	names := map[string]int{}
	for at := 1; ; at++ {
		ended := false
		for _, part := range []int{0, 3, 10} {
			c := &crash{at: at, part: part}
			cfg := config(t.TempDir())
			cfg.SegmentSize, cfg.SyncDelay, cfg.Fault = 3000, time.Hour, c.fault
			s := tell(cfg, events)
			if ended = c.step < at; ended {
				break
			}
			names[c.name]++
			what := fmt.Sprintf("crash at step %d (%s, %d/10)", at, c.name, part)
			lost := t.TempDir()
			if err := os.CopyFS(lost, os.DirFS(cfg.Dir)); err != nil {
				t.Fatal(err)
			}
			s.check(t, what, cfg, events, s.written)

			// The power goes with it: what was not synced is gone, and a file whose
			// name was not.
			cfg.Dir, cfg.BootID = lost, "boot 2"
			if s.log != nil {
				path, size := s.log.SyncedSize()
				path = strings.Replace(path, lastDir(path), lost, 1)
				for _, f := range segments(t, lost) {
					if f > path {
						if err := os.Remove(f); err != nil {
							t.Fatal(err)
						}
					}
				}
				if err := os.Truncate(path, size); err != nil {
					t.Fatal(err)
				}
			}
			s.check(t, what+" and reboot", cfg, events, s.synced)
			if c.name != "write" {
				break // nothing else is done in part
			}
		}
		if ended {
			break
		}
	}
	for _, step := range []string{"write", "sync", "create", "rename", "syncdir", "remove"} {
		if names[step] == 0 {
			t.Errorf("no crash at a step %q", step)
		}
	}
}

// lastDir is the data directory of a file of the log.
func lastDir(path string) string { return path[:strings.Index(path, "/"+eventlog.Folder+"/")] }

// TestFullDiskEndsTheWritingAndKeepsWhatWasWritten: with a reason and a remedy.
func TestFullDiskEndsTheWritingAndKeepsWhatWasWritten(t *testing.T) {
	events := history(10)
	for part := range 10 {
		full := false
		cfg := config(t.TempDir())
		cfg.SyncDelay = time.Hour
		cfg.Fault = func(step string, n int) (int, error) {
			if full && step == "write" {
				return n * part / 10, unix.ENOSPC
			}
			return n, nil
		}
		l := open(t, cfg)
		appendAll(t, l, events[:5])
		full = true
		err := l.Append(events[5:7])
		if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "make room") || !strings.Contains(err.Error(), cfg.Dir) {
			t.Fatalf("full disk: %v", err)
		}
		full = false
		if err := l.Append(events[5:]); !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("after a full disk: %v", err)
		}
		if err := l.Close(); !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("close after a full disk: %v", err)
		}
		l = open(t, cfg)
		if c := l.Opened().Condition; c != eventlog.SameBoot {
			t.Fatalf("condition %v", c)
		}
		same(t, "full disk", replayed(t, l), events[:5])
	}
}

func TestFailedSyncInTheBackgroundEndsTheWriting(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		bad := false
		cfg := config(dir)
		cfg.Fault = func(step string, n int) (int, error) {
			if bad && step == "sync" {
				return 0, unix.EIO
			}
			return n, nil
		}
		l, err := eventlog.Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Abandon()
		events := history(3)
		bad = true
		if err := l.Append(events[:1]); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
		synctest.Wait()
		bad = false // a sync that succeeds now would say nothing of what was lost
		if err := l.Append(events[1:2]); !errors.Is(err, unix.EIO) {
			t.Errorf("append after a failed sync: %v", err)
		}
		if err := l.Close(); !errors.Is(err, unix.EIO) {
			t.Errorf("close after a failed sync: %v", err)
		}
	})
	if c := open(t, config(dir)).Opened().Condition; c != eventlog.SameBoot {
		t.Errorf("condition %v: the mark of a clean end after a failed sync", c)
	}
}

func TestAppendsWithinTenMillisecondsShareOneSync(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var syncs []time.Duration
		start := time.Now()
		cfg := config(dir)
		cfg.Fault = func(step string, n int) (int, error) {
			if step == "sync" {
				syncs = append(syncs, time.Since(start))
			}
			return n, nil
		}
		l, err := eventlog.Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Abandon()
		syncs = nil
		for i, e := range history(40) {
			if err := l.Append([]*consensus.Event{e}); err != nil {
				t.Fatal(err)
			}
			if i < 20 {
				time.Sleep(400 * time.Microsecond)
			}
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if want := []time.Duration{10 * time.Millisecond}; !slices.Equal(syncs, want) {
			t.Errorf("syncs at %v, want %v", syncs, want)
		}
		path, size := l.SyncedSize()
		if st, err := os.Stat(path); err != nil || st.Size() != size {
			t.Errorf("%d bytes are synced, %v", size, err)
		}
	})
}

func TestStrictLogIsOnTheDiskWhenAppendReturns(t *testing.T) {
	cfg := config(t.TempDir())
	cfg.Strict, cfg.SyncDelay = true, time.Hour
	l := open(t, cfg)
	for _, e := range history(5) {
		appendAll(t, l, []*consensus.Event{e})
		path, size := l.SyncedSize()
		if st, err := os.Stat(path); err != nil || st.Size() != size {
			t.Fatalf("%d bytes are synced, %v", size, err)
		}
	}
}

// TestStepsAreInTheOrderThatSurvivesAPowerCut: what a name or a mark promises is
// on the disk before it.
func TestStepsAreInTheOrderThatSurvivesAPowerCut(t *testing.T) {
	var steps []string
	cfg := config(t.TempDir())
	cfg.SyncDelay, cfg.SegmentSize = time.Hour, 3000
	cfg.Fault = func(step string, n int) (int, error) {
		steps = append(steps, step)
		return n, nil
	}
	events := history(60)
	taken := func(what string, want ...string) {
		t.Helper()
		if !slices.Equal(steps, want) {
			t.Errorf("%s: %v, want %v", what, steps, want)
		}
		steps = nil
	}
	l := open(t, cfg)
	taken("first open", "create", "write", "write", "sync", "rename", "syncdir")
	appendAll(t, l, events[:2])
	taken("two appends", "write", "write", "write") // and the name of this boot, before the first
	if err := l.SaveCheckpoint(checkpoint(1, 1)); err != nil {
		t.Fatal(err)
	}
	place := []string{"create", "write", "sync", "rename", "syncdir"}
	taken("checkpoint", append([]string{"sync"}, place...)...)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	taken("close", "sync", "write", "sync")
	l = open(t, cfg)
	taken("open", "sync", "write", "sync")
	for i := 2; len(segments(t, cfg.Dir)) < 2; i++ {
		steps = nil
		appendAll(t, l, events[i:i+1])
	}
	summary := append([]string{"sync"}, place...)
	taken("next file", append(summary, "create", "write", "write", "sync", "rename", "syncdir", "write")...)
	if err := l.Adopt(checkpoint(50, 50)); err != nil {
		t.Fatal(err)
	}
	taken("adopt", "sync", "create", "write", "sync", "rename", "syncdir", "write", "sync")
}

// TestSyncVouchesForWhatWasThereWhenItBegan: an event that is appended meanwhile may
// have come too late.
func TestSyncVouchesForWhatWasThereWhenItBegan(t *testing.T) {
	events := history(2)
	var l *eventlog.Log
	meanwhile := false
	cfg := config(t.TempDir())
	cfg.SyncDelay = time.Hour
	cfg.Fault = func(step string, n int) (int, error) {
		if step == "sync" && meanwhile {
			meanwhile = false
			appendAll(t, l, events[1:])
		}
		return n, nil
	}
	l = open(t, cfg)
	appendAll(t, l, events[:1])
	meanwhile = true
	path, _ := l.SyncedSize()
	before := len(read(t, path))
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	if _, size := l.SyncedSize(); int(size) != before || len(read(t, path)) <= before {
		t.Errorf("%d bytes are called synced, %d were there", size, before)
	}
}
