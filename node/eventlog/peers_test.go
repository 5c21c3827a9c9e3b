package eventlog_test

import (
	"bytes"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dcnode/dcnode/consensus"
	"github.com/dcnode/dcnode/node/eventlog"
)

// small makes a log of many files.
func small(dir string) eventlog.Config {
	cfg := config(dir)
	cfg.SegmentSize, cfg.SyncDelay = 20_000, time.Hour
	return cfg
}

// pull asks again and again until there is nothing more.
func pull(t *testing.T, full *eventlog.Log, q eventlog.Query) (got []*consensus.Event, batches int) {
	t.Helper()
	for {
		a, err := full.Since(q)
		if err != nil {
			t.Fatal(err)
		}
		size := 0
		for _, raw := range a.Events {
			size += len(raw)
			e, err := consensus.Unmarshal(raw)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, e)
		}
		if size > q.Limit && len(a.Events) > 1 {
			t.Fatalf("an answer of %d bytes, %d are allowed", size, q.Limit)
		}
		batches++
		if !a.More {
			return got, batches
		}
		if a.Next <= q.From && len(a.Events) > 0 {
			t.Fatalf("after position %d comes %d", q.From, a.Next)
		}
		q.From = a.Next
	}
}

// TestEventsAreGivenParentsFirstInBoundedBatches: whoever says what it has gets the
// rest, each event once, from memory or from disk.
func TestEventsAreGivenParentsFirstInBoundedBatches(t *testing.T) {
	events := history(600)
	full := open(t, small(t.TempDir()))
	appendAll(t, full, events)
	if n := len(segments(t, lastDirOf(full))); n < 5 {
		t.Fatalf("%d files", n)
	}
	const limit = 5000
	for _, forget := range []uint64{0, events[300].BirthRound, math.MaxUint64} {
		full.Forget(forget)
		for _, birth := range []uint64{0, 1, events[100].BirthRound, events[450].BirthRound, events[599].BirthRound, 10_000} {
			want := slices.DeleteFunc(slices.Clone(events), func(e *consensus.Event) bool { return e.BirthRound < birth })
			got, batches := pull(t, full, eventlog.Query{Birth: birth, Limit: limit})
			same(t, "since", got, want)
			if len(want) > 100 && batches < 3 {
				t.Errorf("%d events in %d batches", len(want), batches)
			}
			if got, _ := pull(t, full, eventlog.Query{Birth: birth, Limit: 1}); len(got) != len(want) {
				t.Errorf("one by one: %d events, want %d", len(got), len(want))
			}
			var streamed []*consensus.Event
			for r, err := range full.From(birth) {
				if err != nil {
					t.Fatal(err)
				}
				if events[r.Position].Hash() != r.Event.Hash() || !bytes.Equal(r.Raw(), r.Event.Marshal()) {
					t.Fatalf("position %d is that of another event", r.Position)
				}
				streamed = append(streamed, r.Event)
			}
			same(t, "from", streamed, want)
		}
	}
}

func lastDirOf(l *eventlog.Log) string {
	path, _ := l.SyncedSize()
	return lastDir(path)
}

func TestWhatTheAskerHasIsNotGivenAgain(t *testing.T) {
	events := history(300)
	full := open(t, small(t.TempDir()))
	appendAll(t, full, events)
	for _, has := range []int{1, 31, 33, 150, 299, 300} {
		asker := open(t, config(t.TempDir()))
		appendAll(t, asker, events[:has])
		for _, known := range [][]consensus.Hash{asker.Locator(), {events[has-1].Hash()}} {
			got, _ := pull(t, full, eventlog.Query{Known: known, Limit: 3000})
			same(t, "the rest", got, events[has:])
		}
		// One who is ahead names hashes that are unknown here, and older ones.
		if got, _ := pull(t, asker, eventlog.Query{Known: full.Locator(), Limit: 3000}); len(got) > 64 && has < 236 {
			continue // the steps of the locator are wide by then
		} else if len(got) > 64 {
			t.Errorf("has %d: one who is ahead is given %d events", has, len(got))
		}
	}
	if n := len(full.Locator()); n > 64 {
		t.Errorf("a locator of %d hashes", n)
	}
	for _, from := range []eventlog.Position{299, 300, 301, math.MaxUint64} {
		if a, err := full.Since(eventlog.Query{From: from, Limit: 3000}); err != nil || len(a.Events) != max(0, 300-int(min(from, 300))) {
			t.Errorf("from position %d: %d events, %v", from, len(a.Events), err)
		}
	}
}

func TestForgottenEventsLeaveTheIndexAndStayOnDisk(t *testing.T) {
	dir := t.TempDir()
	l := open(t, small(dir))
	events := history(900)
	for i, e := range events {
		appendAll(t, l, []*consensus.Event{e})
		if i > 100 {
			l.Forget(events[i-100].BirthRound)
		}
		if n := l.Indexed(); n > 102 {
			t.Fatalf("%d events in the index after %d", n, i)
		}
	}
	for i, e := range events {
		raw, err := l.Event(e.Hash())
		if err != nil {
			t.Fatal(err)
		}
		if kept := e.BirthRound >= events[799].BirthRound; kept != (raw != nil) || kept != l.Has(e.Hash()) {
			t.Fatalf("event %d, born in round %d: kept %v", i, e.BirthRound, raw != nil)
		} else if kept && !bytes.Equal(raw, e.Marshal()) {
			t.Fatalf("event %d is another one", i)
		}
	}
	// One that is in the index is not written twice.
	if err := l.Append([]*consensus.Event{events[899], events[898], events[899]}); err != nil || l.Next() != 900 {
		t.Errorf("the same event again: next is %d, %v", l.Next(), err)
	}
	l.Abandon()
	same(t, "all", replayed(t, open(t, small(dir))), events)
}

func TestLastEventOfAMemberIsFoundHoweverOldItIs(t *testing.T) {
	dir := t.TempDir()
	l := open(t, small(dir))
	events := history(600)
	quiet := &consensus.Event{Network: network, Creator: 9, BirthRound: 1, Payload: [][]byte{[]byte("then silence")}}
	quiet.Sign(testKey)
	appendAll(t, l, events[:10])
	appendAll(t, l, []*consensus.Event{quiet})
	appendAll(t, l, events[10:])
	if err := l.SaveCheckpoint(eventlog.Checkpoint{Round: 400, MinBirth: events[590].BirthRound}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for creator, want := range map[uint64]*consensus.Event{9: quiet, 1: events[597], 2: events[598], 3: events[599]} {
			if got, err := l.Last(creator); err != nil || got == nil || got.Hash() != want.Hash() {
				t.Errorf("last event of member %d: %v, %v", creator, got, err)
			}
		}
		if got, err := l.Last(7); got != nil || err != nil {
			t.Errorf("a member that never spoke: %v, %v", got, err)
		}
		l.Abandon()
		l = open(t, small(dir))
		same(t, "replay", replayed(t, l), events[590:])
	}
}

// TestLastEventIsTheOneWithTheHighestNumber and not what was written last: a member that
// lost its log learns its events from others in any order, and must build on the last.
func TestLastEventIsTheOneWithTheHighestNumber(t *testing.T) {
	for _, between := range []int{0, 300} { // in one file, and in two
		dir := t.TempDir()
		l := open(t, small(dir))
		var own []*consensus.Event
		for seq := range uint64(10) {
			e := &consensus.Event{Network: network, Creator: 9, Seq: seq, BirthRound: 1}
			e.Sign(testKey)
			own = append(own, e)
		}
		appendAll(t, l, own[8:])
		appendAll(t, l, history(between))
		appendAll(t, l, own[3:5])
		for range 2 {
			if got, err := l.Last(9); err != nil || got == nil || got.Seq != 9 {
				t.Errorf("%d events between: the last is %+v, %v", between, got, err)
			}
			l.Abandon()
			l = open(t, small(dir))
		}
	}
}

// TestLogIsReadWhileItIsWritten: always a whole beginning, and everything of it
// that was there before.
func TestLogIsReadWhileItIsWritten(t *testing.T) {
	dir := t.TempDir()
	cfg := small(dir)
	cfg.SyncDelay, cfg.Fault = time.Millisecond, nil // as it is in life
	l := open(t, cfg)
	events := history(3000)
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; i < len(events); i += 5 {
			if err := l.Append(events[i : i+5]); err != nil {
				t.Error(err)
				return
			}
			l.Forget(events[max(0, i-200)].BirthRound)
		}
	})
	for have := 0; have < len(events) && !t.Failed(); {
		before := int(l.Next())
		r, err := eventlog.Read(dir)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for rec, err := range r.Records() {
			if err != nil {
				t.Fatal(err)
			}
			if rec.Event.Hash() != events[n].Hash() {
				t.Fatalf("event %d is another one", n)
			}
			n++
		}
		if n < before || n < have || uint64(n) != r.Events() {
			t.Fatalf("%d events were there, then %d", before, n)
		}
		have = n
		if _, err := l.Since(eventlog.Query{Limit: 1 << 20}); err != nil {
			t.Fatal(err)
		}
		if h := events[max(0, have-1)].Hash(); l.Has(h) {
			if _, err := l.Event(h); err != nil {
				t.Fatal(err)
			}
		}
	}
	wg.Wait()
}

func TestReadingChangesNothing(t *testing.T) {
	dir := t.TempDir()
	l := open(t, small(dir))
	appendAll(t, l, history(300))
	path, _ := l.SyncedSize()
	l.Abandon()
	b := read(t, path)
	write(t, path, b[:len(b)-3])
	files := segments(t, dir)
	idx := strings.TrimSuffix(files[0], ".log") + ".idx"
	if err := os.Remove(idx); err != nil {
		t.Fatal(err)
	}
	r, err := eventlog.Read(dir)
	if err != nil || r.Events() != 299 || len(r.Notes) != 1 || r.Network != network {
		t.Fatalf("%d events, notes %q, %v", r.Events(), r.Notes, err)
	}
	if !bytes.Equal(read(t, path), b[:len(b)-3]) {
		t.Error("the torn end was changed")
	}
	if _, err := os.Stat(idx); err == nil {
		t.Error("a lost summary was made again")
	}
	if _, err := eventlog.Read(t.TempDir()); err == nil {
		t.Error("a folder without a log is read")
	}
}

// TestEventsOfSlowMembersDoNotHideOthers: births do not follow the order of the log.
func TestEventsOfSlowMembersDoNotHideOthers(t *testing.T) {
	cfg := small(t.TempDir())
	cfg.SegmentSize = 3000
	var events []*consensus.Event
	for i := range 500 {
		e := &consensus.Event{Network: network, Creator: uint64(i%7 + 1), BirthRound: uint64(100 + i/5), Coin: uint32(i)}
		if i%3 == 2 {
			e.BirthRound -= uint64(i % 40)
		}
		e.Sign(testKey)
		events = append(events, e)
	}
	l := open(t, cfg)
	appendAll(t, l, events)
	for birth := uint64(60); birth < 205; birth++ {
		want := slices.DeleteFunc(slices.Clone(events), func(e *consensus.Event) bool { return e.BirthRound < birth })
		l.Forget(birth + 10)
		var got []*consensus.Event
		for r, err := range l.From(birth) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, r.Event)
		}
		same(t, "from", got, want)
		got, _ = pull(t, l, eventlog.Query{Birth: birth, Limit: 4000})
		same(t, "since", got, want)
	}
	if err := l.SaveCheckpoint(checkpoint(1000, 150)); err != nil {
		t.Fatal(err)
	}
	l.Abandon()
	l = open(t, cfg)
	first := slices.IndexFunc(events, func(e *consensus.Event) bool { return e.BirthRound >= 150 })
	same(t, "replay", replayed(t, l), events[first:])
}
