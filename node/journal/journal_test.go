package journal_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dcnode/dcnode/node/journal"
)

var network = [32]byte{7}

// config is of a journal without limits; its syncs are not waited for.
func config(dir string) journal.Config {
	return journal.Config{Dir: dir, Network: network, Fault: func(_ string, n int) (int, error) { return n, nil }}
}

// small has a few events in a segment, so that there are many segments.
func small(dir string) journal.Config {
	cfg := config(dir)
	cfg.SegmentSize = 2000
	return cfg
}

func open(t testing.TB, cfg journal.Config) *journal.Journal {
	t.Helper()
	j, err := journal.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(j.Abandon)
	return j
}

// event is what came of the event at an index: one to four entries.
func event(index uint64) []journal.Entry {
	var out []journal.Entry
	for n := range int(index%4) + 1 {
		e := journal.Entry{
			Index: index, N: n, Round: index / 3, Time: int64(index) * 1e9, Author: index%5 + 1, Site: fmt.Sprintf("site-%d", index%5),
			Event: [32]byte{byte(index), byte(index >> 8)}, Kind: []string{"intent", "bid", "release"}[(int(index)+n)%3],
			Machine: fmt.Sprint(index % 7), Text: fmt.Sprintf("Site %d said what is number %d.", index%5, index),
			Raw: bytes.Repeat([]byte{byte(n)}, int(index%50)),
		}
		if len(e.Raw) == 0 {
			e.Raw = nil
		}
		if index%6 == 0 {
			e.Refused = "the machine is not there"
		}
		out = append(out, e)
	}
	if index%10 == 9 {
		out[0].N, out[0].Machine, out[0].Image = -1, "", "3"
	}
	return out
}

// events are those of the indexes from, from+2, …, below to.
func events(from, to uint64) (out []journal.Entry) {
	for i := from; i < to; i += 2 {
		out = append(out, event(i)...)
	}
	return out
}

// appendEach appends event by event and writes some of them.
func appendEach(t testing.TB, j *journal.Journal, entries []journal.Entry) {
	t.Helper()
	for len(entries) > 0 {
		n := 1
		for n < len(entries) && entries[n].Index == entries[0].Index {
			n++
		}
		if err := j.Append(entries[:n]); err != nil {
			t.Fatal(err)
		}
		if entries[0].Index%3 == 0 {
			flush(t, j)
		}
		entries = entries[n:]
	}
}

func flush(t testing.TB, j *journal.Journal) {
	t.Helper()
	if err := j.Flush(); err != nil {
		t.Fatal(err)
	}
}

func readAll(t testing.TB, j *journal.Journal, from uint64, want journal.Filter) (out []journal.Entry) {
	t.Helper()
	for e, err := range j.Read(from, want) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
	return out
}

func same(t testing.TB, what string, got, want []journal.Entry) {
	t.Helper()
	for i := range min(len(got), len(want)) {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Fatalf("%s: entry %d:\n%+v\nwant\n%+v", what, i, got[i], want[i])
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%s: %d entries, want %d", what, len(got), len(want))
	}
}

// files are those of the journal in a data directory with an ending.
func files(t testing.TB, dir, ending string) []string {
	t.Helper()
	out, err := filepath.Glob(filepath.Join(dir, journal.Folder, "*"+ending))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func noNotes(t testing.TB, j *journal.Journal) {
	t.Helper()
	if n := j.Notes(); len(n) > 0 {
		t.Fatalf("notes: %q", n)
	}
}

func oneNote(t testing.TB, what string, j *journal.Journal, words ...string) {
	t.Helper()
	n := j.Notes()
	if len(n) != 1 {
		t.Fatalf("%s: notes %q", what, n)
	}
	for _, w := range words {
		if !strings.Contains(n[0], w) {
			t.Fatalf("%s: note %q lacks %q", what, n[0], w)
		}
	}
}

func TestWhatWasAppendedIsReadBeforeAndAfterItIsWritten(t *testing.T) {
	dir := t.TempDir()
	j := open(t, small(dir))
	if _, ok := j.Last(); ok {
		t.Fatal("an empty journal has a last index")
	}
	all := events(1, 402)
	if err := j.Append(all[:50]); err != nil {
		t.Fatal(err)
	}
	same(t, "in memory", readAll(t, j, 0, journal.Filter{}), all[:50])
	appendEach(t, j, all[50:])
	if j.Waiting() == 0 || len(files(t, dir, ".log")) < 5 {
		t.Fatal("the test is to read from files and from memory")
	}
	same(t, "in part", readAll(t, j, 0, journal.Filter{}), all)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	for _, lose := range []bool{false, true} {
		if lose { // they are made again
			for i, f := range files(t, dir, ".idx") {
				if err := os.WriteFile(f, bytes.Repeat([]byte{1}, i*10), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		j = open(t, small(dir))
		noNotes(t, j)
		same(t, "again", readAll(t, j, 0, journal.Filter{}), all)
		if last, ok := j.Last(); last != 401 || !ok {
			t.Fatalf("last %d, %v", last, ok)
		}
		if first, ok := j.First(); first != 1 || !ok {
			t.Fatalf("first %d, %v", first, ok)
		}
	}
}

func TestReadingBeginsAtAnyIndex(t *testing.T) {
	j := open(t, small(t.TempDir()))
	all := events(0, 300)
	big := event(300) // of several blocks
	for n := range 2000 {
		e := big[0]
		e.N, e.Raw = n, make([]byte, 100)
		all = append(all, e)
	}
	all = append(all, events(302, 400)...)
	appendEach(t, j, all)
	for from := range uint64(402) {
		at := slices.IndexFunc(all, func(e journal.Entry) bool { return e.Index >= from })
		if at < 0 {
			at = len(all)
		}
		same(t, fmt.Sprintf("from %d", from), readAll(t, j, from, journal.Filter{}), all[at:])
		end := at
		for end < len(all) && all[end].Index == from {
			end++
		}
		got, err := j.At(from)
		if err != nil {
			t.Fatal(err)
		}
		same(t, fmt.Sprintf("at %d", from), got, all[at:end])
	}
}

func TestFilterGivesWhatFits(t *testing.T) {
	j := open(t, small(t.TempDir()))
	all := events(0, 500)
	appendEach(t, j, all)
	for _, c := range []struct {
		want journal.Filter
		fits func(e journal.Entry) bool
	}{
		{journal.Filter{}, func(e journal.Entry) bool { return true }},
		{journal.Filter{Machine: "3"}, func(e journal.Entry) bool { return e.Machine == "3" }},
		{journal.Filter{Kind: "bid"}, func(e journal.Entry) bool { return e.Kind == "bid" }},
		{journal.Filter{Author: 2}, func(e journal.Entry) bool { return e.Author == 2 }},
		{journal.Filter{Site: "site-4"}, func(e journal.Entry) bool { return e.Site == "site-4" }},
		{journal.Filter{Image: "3"}, func(e journal.Entry) bool { return e.Image == "3" }},
		{journal.Filter{Member: "3"}, func(e journal.Entry) bool { return e.Member == "3" }},
		{journal.Filter{Account: "3"}, func(e journal.Entry) bool { return e.Account == "3" }},
		{journal.Filter{Refused: true}, func(e journal.Entry) bool { return e.Refused != "" }},
		{journal.Filter{Machine: "4", Kind: "bid", Author: 3}, func(e journal.Entry) bool { return e.Machine == "4" && e.Kind == "bid" && e.Author == 3 }},
	} {
		var want []journal.Entry
		for _, e := range all {
			if c.fits(e) {
				want = append(want, e)
			}
		}
		same(t, fmt.Sprintf("%+v", c.want), readAll(t, j, 0, c.want), want)
		for n := range len(want) + 3 {
			got, err := j.Latest(n, c.want)
			if err != nil {
				t.Fatal(err)
			}
			same(t, fmt.Sprintf("newest %d of %+v", n, c.want), got, want[max(0, len(want)-n):])
		}
	}
	if got, err := j.Latest(-1, journal.Filter{}); err != nil || got != nil {
		t.Fatalf("newest -1: %v, %v", got, err)
	}
}

func TestReplayAfterRestartDoublesNothing(t *testing.T) {
	dir := t.TempDir()
	all := events(0, 300)
	for _, upTo := range []uint64{100, 200, 300} {
		j := open(t, small(dir))
		for from := uint64(0); from < upTo; from += 2 { // the replay, and more
			if err := j.Append(event(from)); err != nil {
				t.Fatal(err)
			}
		}
		if err := j.Append(events(0, upTo)); err != nil { // and in one call
			t.Fatal(err)
		}
		flush(t, j)
		j.Abandon()
	}
	j := open(t, small(dir))
	same(t, "replayed", readAll(t, j, 0, journal.Filter{}), all)
}

func TestGapIsPartOfTheOrder(t *testing.T) {
	dir := t.TempDir()
	j := open(t, small(dir))
	appendEach(t, j, events(0, 100)) // the last is 98
	j.Gap(50, 98, "it is all here")
	j.Gap(60, 500, "a checkpoint of the others was taken over")
	j.Gap(60, 500, "a checkpoint of the others was taken over")
	appendEach(t, j, events(400, 600))
	check := func(j *journal.Journal) {
		t.Helper()
		all := readAll(t, j, 0, journal.Filter{})
		at := slices.IndexFunc(all, func(e journal.Entry) bool { return e.Kind == journal.KindGap })
		if at < 0 {
			t.Fatal("no gap")
		}
		gap := all[at]
		if gap.Index != 99 || gap.Until != 500 || gap.N != -1 || gap.Text != "What the order said from index 99 to 500 is not in this journal: a checkpoint of the others was taken over." {
			t.Fatalf("%+v", gap)
		}
		same(t, "with a gap", all, slices.Concat(events(0, 100), []journal.Entry{gap}, events(502, 600)))
		for _, at := range []uint64{99, 300, 500} {
			got, err := j.At(at)
			if err != nil {
				t.Fatal(err)
			}
			same(t, "in the gap", got, []journal.Entry{gap})
			if got := readAll(t, j, at, journal.Filter{Machine: "none"}); len(got) != 1 {
				t.Fatalf("a filter hides the gap from %d on: %+v", at, got)
			}
		}
		if got := readAll(t, j, 501, journal.Filter{Machine: "none"}); len(got) != 0 {
			t.Fatalf("after the gap: %+v", got)
		}
		if got, err := j.Latest(1, journal.Filter{Machine: "none"}); err != nil || len(got) != 1 || got[0].Kind != journal.KindGap {
			t.Fatalf("newest: %+v, %v", got, err)
		}
	}
	check(j)
	j.Abandon()
	j = open(t, small(dir)) // it ends within what was not written
	appendEach(t, j, events(0, 600))
	check(j)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}

	j = open(t, small(dir))
	j.Gap(1000, 2000, "the end")
	flush(t, j)
	j.Abandon()
	j = open(t, small(dir))
	if last, _ := j.Last(); last != 2000 {
		t.Fatalf("last is %d after a gap at the end", last)
	}
}

func TestMistakesOfTheCallerAreRefused(t *testing.T) {
	j := open(t, config(t.TempDir()))
	for what, bad := range map[string][]journal.Entry{
		"descending": {{Index: 3}, {Index: 2}},
		"a gap":      {{Index: 3, Kind: journal.KindGap}},
		"until":      {{Index: 3, Until: 5}},
		"number":     {{Index: 3, N: -2}},
	} {
		if err := j.Append(bad); err == nil {
			t.Errorf("%s: taken", what)
		}
	}
	if got := readAll(t, j, 0, journal.Filter{}); len(got) != 0 {
		t.Errorf("taken: %+v", got)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if err := j.Append(event(3)); err == nil {
		t.Error("a closed journal takes entries")
	}
	cfg := config(t.TempDir())
	j = open(t, cfg)
	appendEach(t, j, event(3))
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	cfg.Network = [32]byte{8}
	if _, err := journal.Open(cfg); err == nil || !strings.Contains(err.Error(), "another overlay") {
		t.Errorf("the journal of another overlay: %v", err)
	}
}

func TestOldestSegmentsGoAtTheLimit(t *testing.T) {
	cfg := config(t.TempDir())
	cfg.MaxBytes, cfg.SegmentSize = 20_000, 2000
	j := open(t, cfg)
	var first uint64
	for i := uint64(0); i < 2000; i += 2 {
		appendEach(t, j, event(i))
		var size int64
		for _, f := range files(t, cfg.Dir, "") {
			info, err := os.Stat(f)
			if err != nil {
				t.Fatal(err)
			}
			size += info.Size()
		}
		if size > cfg.MaxBytes {
			t.Fatalf("%d bytes after index %d", size, i)
		}
		if i == 1500 && size < cfg.MaxBytes*3/4 {
			t.Fatalf("only %d bytes are kept", size)
		}
		was := first
		if first, _ = j.First(); first < was {
			t.Fatalf("first is %d after %d", first, was)
		}
	}
	same(t, "the rest", readAll(t, j, 0, journal.Filter{}), events(first, 2000))
	if first == 0 {
		t.Fatal("nothing went")
	}

	// A reader that has begun goes on with what is still there.
	var got []journal.Entry
	for e, err := range j.Read(0, journal.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, e); len(got) == 1 {
			appendEach(t, j, events(2000, 2080))
		}
	}
	if last := got[len(got)-1]; last.Index != 1998 {
		t.Fatalf("it ended at %d", last.Index)
	}
	now, _ := j.First()
	if now == first {
		t.Fatal("nothing was removed under the reader")
	}
	noNotes(t, j)
}

func TestFollowerIsWoken(t *testing.T) {
	j := open(t, config(t.TempDir()))
	a, b := j.Changed(), j.Changed()
	select {
	case <-a:
		t.Fatal("woken for nothing")
	default:
	}
	appendEach(t, j, event(1))
	<-a
	<-b
	c := j.Changed()
	j.Gap(2, 3, "a test")
	<-c
	c = j.Changed()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	<-c
}

func TestRunWritesSoonAndAtItsEnd(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		j, err := journal.Open(config(dir))
		if err != nil {
			t.Fatal(err)
		}
		defer j.Abandon()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- j.Run(ctx) }()
		for i := uint64(1); i < 4; i++ {
			if err := j.Append(event(i)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if j.Waiting() == 0 {
				t.Fatal("written without the delay, in which more may come")
			}
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
			if j.Waiting() != 0 {
				t.Fatal("not written after the delay")
			}
		}
		if err := j.Append(event(9)); err != nil {
			t.Fatal(err)
		}
		cancel()
		if err := <-done; err != nil || j.Waiting() != 0 {
			t.Fatalf("at the end %d bytes wait: %v", j.Waiting(), err)
		}
	})
}

// TestNeighboursAreFoundAcrossSegments: an index at the end of one segment, and the
// next at the beginning of another.
func TestNeighboursAreFoundAcrossSegments(t *testing.T) {
	j := open(t, small(t.TempDir()))
	for i := range uint64(100) {
		appendEach(t, j, event(i))
	}
	for i := range uint64(100) {
		got, err := j.At(i)
		if err != nil {
			t.Fatal(err)
		}
		same(t, fmt.Sprintf("at %d", i), got, event(i))
	}
}
