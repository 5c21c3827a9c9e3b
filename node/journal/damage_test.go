package journal_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dcnode/dcnode/node/journal"
)

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func writeFile(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestTornEndIsCutToTheLastWholeEvent: at every byte of the last event, which has
// several entries, and with what a power cut leaves in place of it.
func TestTornEndIsCutToTheLastWholeEvent(t *testing.T) {
	dir := t.TempDir()
	j := open(t, config(dir))
	all := events(1, 20)
	appendEach(t, j, all)
	flush(t, j)
	path := files(t, dir, ".log")[0]
	before := len(readFile(t, path))
	last := event(23)
	appendEach(t, j, last)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	whole := readFile(t, path)
	try := func(what string, b []byte) {
		t.Helper()
		writeFile(t, path, b)
		j := open(t, config(dir))
		defer j.Abandon()
		if len(b) == before {
			noNotes(t, j)
		} else {
			oneNote(t, what, j, "cut off", filepath.Base(path))
		}
		same(t, what, readAll(t, j, 0, journal.Filter{}), all)
		if n := len(readFile(t, path)); n != before {
			t.Fatalf("%s: %d bytes are left of %d", what, n, before)
		}
		if last, _ := j.Last(); last != 19 {
			t.Fatalf("%s: last is %d", what, last)
		}
		appendEach(t, j, slices.Concat(events(15, 20), last)) // the replay
		flush(t, j)
		same(t, what+", replayed", readAll(t, j, 0, journal.Filter{}), slices.Concat(all, last))
	}
	for n := before; n < len(whole); n++ {
		try(fmt.Sprintf("cut at byte %d", n), whole[:n])
		zeroes := append(bytes.Clone(whole[:n]), make([]byte, len(whole)-n)...)
		if !bytes.Equal(zeroes, whole) {
			try(fmt.Sprintf("zeroes from byte %d on", n), zeroes)
		}
		flipped := bytes.Clone(whole)
		flipped[n] ^= 0x10
		try(fmt.Sprintf("byte %d flipped", n), flipped)
	}
	try("zeroes behind", append(bytes.Clone(whole[:before]), make([]byte, 5000)...))
}

// TestSegmentCutWithinItsFirstEventGoes: also when only the head is there, or less.
func TestSegmentCutWithinItsFirstEventGoes(t *testing.T) {
	dir := t.TempDir()
	j := open(t, small(dir))
	all := events(1, 100)
	appendEach(t, j, all)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	logs := files(t, dir, ".log")
	path := logs[len(logs)-1]
	whole := readFile(t, path)
	for cut := 0; cut < 100; cut++ {
		writeFile(t, path, whole[:cut])
		j := open(t, small(dir))
		if _, err := os.Stat(path); err == nil {
			t.Fatalf("cut at byte %d: it is still there", cut)
		}
		got := readAll(t, j, 0, journal.Filter{})
		same(t, fmt.Sprintf("cut at byte %d", cut), got, all[:len(got)])
		if last, _ := j.Last(); last != got[len(got)-1].Index {
			t.Fatalf("cut at byte %d: last is %d", cut, last)
		}
		appendEach(t, j, all)
		flush(t, j)
		same(t, "replayed", readAll(t, j, 0, journal.Filter{}), all)
		j.Abandon()
		if now := files(t, dir, ".log"); len(now) != len(logs) {
			t.Fatalf("%d segments", len(now))
		} else if err := os.Remove(now[len(now)-1]); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDamageInTheMiddleCostsWhatIsBehindItInThatSegment: with and without its index,
// and when it comes while the journal is open.
func TestDamageInTheMiddleCostsWhatIsBehindItInThatSegment(t *testing.T) {
	origin := t.TempDir()
	j := open(t, small(origin))
	all := events(0, 400)
	appendEach(t, j, all)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	logs := files(t, origin, ".log")
	name := filepath.Base(logs[2])
	whole := readFile(t, logs[2])
	check := func(what string, j *journal.Journal) {
		t.Helper()
		got := readAll(t, j, 0, journal.Filter{})
		oneNote(t, what, j, name)
		var have []journal.Entry
		for _, e := range all {
			if slices.ContainsFunc(got, func(g journal.Entry) bool { return g.Index == e.Index && g.N == e.N }) {
				have = append(have, e)
			}
		}
		same(t, what, got, have)
		if lacking := len(all) - len(have); lacking == 0 || lacking > 30 {
			t.Fatalf("%s: %d entries are lacking", what, lacking)
		}
		if got[0].Index != all[0].Index || got[len(got)-1].Index != all[len(all)-1].Index {
			t.Fatalf("%s: it does not go on", what)
		}
		latest, err := j.Latest(len(all), journal.Filter{})
		if err != nil {
			t.Fatal(err)
		}
		same(t, what+", backwards", latest, got)
		oneNote(t, what, j, name) // and not one for each reading
		if last, _ := j.Last(); last != 398 {
			t.Fatalf("%s: last is %d", what, last)
		}
	}
	for off := 0; off < len(whole); off += 41 {
		for _, how := range []string{"index", "no index", "open"} {
			what := fmt.Sprintf("byte %d flipped, %s", off, how)
			if how == "open" && off < 64 {
				continue // nobody reads the head again
			}
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(origin)); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, journal.Folder, name)
			var j *journal.Journal
			if how == "open" {
				j = open(t, small(dir))
			}
			b := bytes.Clone(whole)
			b[off] ^= 1
			writeFile(t, path, b)
			if how == "no index" {
				if err := os.Remove(strings.TrimSuffix(path, ".log") + ".idx"); err != nil {
					t.Fatal(err)
				}
			}
			if how != "open" {
				j = open(t, small(dir))
			}
			check(what, j)
			j.Abandon()
		}
	}
}

// TestOneIndexIsReadWithoutTheRest: with damage in other blocks of its segment, which
// nobody then comes by. What is behind a damaged block is found by the index.
func TestOneIndexIsReadWithoutTheRest(t *testing.T) {
	cfg := config(t.TempDir())
	cfg.SegmentSize = 450_000
	j := open(t, cfg)
	var all []journal.Entry
	for i := uint64(0); i < 4000; i += 2 {
		e := event(i)
		e[0].Raw = bytes.Repeat([]byte{9}, 300)
		all = append(all, e...)
	}
	appendEach(t, j, all)
	flush(t, j)
	logs := files(t, cfg.Dir, ".log")
	if len(logs) != 3 {
		t.Fatalf("%d segments", len(logs))
	}
	for _, path := range logs { // one that is full, and the one that is written
		b := readFile(t, path)
		for at := 200; at < len(b)-150_000; at += 20_000 {
			b[at] ^= 1
		}
		writeFile(t, path, b)
	}
	sound := 0
	for i := len(all) - 1; all[i].Index > 3900; i-- {
		got, err := j.At(all[i].Index)
		if err != nil {
			t.Fatal(err)
		}
		same(t, "one index", got, ofIndex(all, all[i].Index))
		sound++
	}
	got, err := j.Latest(sound, journal.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	same(t, "the newest", got, all[len(all)-sound:])
	noNotes(t, j)
	if got := readAll(t, j, 0, journal.Filter{}); len(got) < 500 || len(got) >= len(all) || got[len(got)-1].Index != 3998 {
		t.Fatalf("%d entries of %d, up to %d", len(got), len(all), got[len(got)-1].Index)
	}
	if n := j.Notes(); len(n) != 3 {
		t.Fatalf("notes %q", n)
	}
}

// ofIndex are the entries of an index.
func ofIndex(all []journal.Entry, index uint64) (out []journal.Entry) {
	for _, e := range all {
		if e.Index == index {
			out = append(out, e)
		}
	}
	return out
}

// TestStrangeFilesAreLeftAlone: and those of a later format are not taken for damage.
func TestStrangeFilesAreLeftAlone(t *testing.T) {
	dir := t.TempDir()
	j := open(t, small(dir))
	all := events(0, 100)
	appendEach(t, j, all)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	logs := files(t, dir, ".log")
	folder := filepath.Dir(logs[0])
	for _, name := range []string{"journal-1.log", "journal-00000x.log", "journal--00001.log", "notes.txt", "journal-000009.idx"} {
		writeFile(t, filepath.Join(folder, name), []byte("mine"))
	}
	j = open(t, small(dir))
	noNotes(t, j)
	same(t, "beside strange files", readAll(t, j, 0, journal.Filter{}), all)
	j.Abandon()
	// A copy of an old segment as the newest is not believed.
	copied := filepath.Join(folder, "journal-000900.log")
	writeFile(t, copied, readFile(t, logs[0]))
	j = open(t, small(dir))
	oneNote(t, "a copy", j, "journal-000900.log")
	same(t, "with a copy", readAll(t, j, 0, journal.Filter{}), all)
	if string(readFile(t, filepath.Join(folder, "notes.txt"))) != "mine" {
		t.Error("a strange file was changed")
	}
}

// disk is one that can be full.
type disk struct {
	mu   sync.Mutex
	full bool
	part int // tenths of a write that get there when it is full
}

func (d *disk) fault(step string, n int) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.full && (step == "write" || step == "create") {
		return n * d.part / 10, syscall.ENOSPC
	}
	return n, nil
}

func (d *disk) set(full bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full = full
}

func TestFullDiskForAWhileCostsNothingThatMemoryHolds(t *testing.T) {
	for part := range 11 {
		d := &disk{part: part}
		cfg := small(t.TempDir())
		cfg.Fault = d.fault
		j := open(t, cfg)
		all := events(0, 200)
		if err := j.Append(all[:100]); err != nil {
			t.Fatal(err)
		}
		flush(t, j)
		d.set(true)
		if err := j.Append(all[100:152]); err != nil {
			t.Fatal(err)
		}
		if err := j.Flush(); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "make room") {
			t.Fatalf("full disk: %v", err)
		}
		oneNote(t, "full disk", j, "make room", "tried again")
		same(t, "full disk", readAll(t, j, 0, journal.Filter{}), all[:152])
		d.set(false)
		if err := j.Append(all[152:]); err != nil {
			t.Fatal(err)
		}
		flush(t, j)
		oneNote(t, "room again", j, "for a while")
		same(t, "room again", readAll(t, j, 0, journal.Filter{}), all)
		j.Abandon()
		j = open(t, cfg)
		noNotes(t, j)
		same(t, "opened again", readAll(t, j, 0, journal.Filter{}), all)
	}
}

// TestFullDiskForLongLeavesAGap: the node goes on, and so does the journal later.
func TestFullDiskForLongLeavesAGap(t *testing.T) {
	d := &disk{part: 3}
	cfg := small(t.TempDir())
	cfg.Fault, cfg.Buffer = d.fault, 5000
	j := open(t, cfg)
	appendEach(t, j, events(0, 100))
	flush(t, j)
	d.set(true)
	for i := uint64(100); i < 1000; i += 2 {
		if err := j.Append(event(i)); err != nil {
			t.Fatalf("a full disk stops the order: %v", err)
		}
		_ = j.Flush() // it says so each time
		if j.Waiting() > cfg.Buffer {
			t.Fatalf("%d bytes wait", j.Waiting())
		}
	}
	j.Gap(1000, 1100, "a checkpoint of the others was taken over")
	for range 10000 {
		last, _ := j.Last()
		j.Gap(last+1, last+1, "nobody knows")
	}
	if j.Waiting() > cfg.Buffer {
		t.Fatalf("%d bytes wait", j.Waiting())
	}
	last, _ := j.Last()
	if err := j.Append(event(last + 1)); err != nil {
		t.Fatal(err)
	}
	d.set(false)
	flush(t, j)
	appendEach(t, j, events(last+3, last+50))
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	dropped := 0
	check := func(j *journal.Journal) {
		t.Helper()
		all := readAll(t, j, 0, journal.Filter{})
		at := slices.IndexFunc(all, func(e journal.Entry) bool { return e.Kind == journal.KindGap })
		if at < 0 {
			t.Fatal("no gap")
		}
		gap := all[at]
		if gap.Until != last+1 || !strings.Contains(gap.Text, "no space left on device") {
			t.Fatalf("gap: %+v", gap)
		}
		before := events(0, gap.Index)
		same(t, "around the gap", all, slices.Concat(before, []journal.Entry{gap}, events(last+3, last+50)))
		dropped = len(events(0, 1000)) - len(before) + len(event(last+1))
	}
	check(j)
	if n := j.Notes(); !slices.ContainsFunc(n, func(s string) bool { return strings.HasPrefix(s, fmt.Sprintf("%d entries were dropped", dropped)) }) {
		t.Fatalf("%d were dropped: %q", dropped, n)
	}
	j = open(t, cfg)
	appendEach(t, j, events(0, last)) // the replay does not fill it, nor double it
	check(j)
}

func TestRunTriesAgainUntilThereIsRoom(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d := &disk{full: true}
		cfg := small(dir)
		cfg.Fault = d.fault
		j, err := journal.Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer j.Abandon()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- j.Run(ctx) }()
		if err := j.Append(events(0, 50)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if j.Waiting() == 0 {
			t.Fatal("written to a full disk")
		}
		d.set(false)
		time.Sleep(time.Second)
		synctest.Wait()
		if j.Waiting() != 0 {
			t.Fatal("not tried again")
		}
		d.set(true)
		if err := j.Append(events(50, 60)); err != nil {
			t.Fatal(err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatalf("a full disk ends it with %v", err)
		}
		if err := j.Close(); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("close on a full disk: %v", err)
		}
	})
}

func TestEntryTooLargeIsAGap(t *testing.T) {
	j := open(t, config(t.TempDir()))
	big := event(5)
	big[0].Raw = make([]byte, 2<<20)
	for _, e := range [][]journal.Entry{event(1), big, event(7)} {
		if err := j.Append(e); err != nil {
			t.Fatal(err)
		}
	}
	flush(t, j)
	got := readAll(t, j, 0, journal.Filter{})
	if len(got) != 2+1+4 || got[2].Kind != journal.KindGap || got[2].Index != 5 || got[2].Until != 5 {
		t.Fatalf("%+v", got)
	}
}

// TestFailedSyncIsNoted: and the next segment is begun.
func TestFailedSyncIsNoted(t *testing.T) {
	cfg := small(t.TempDir())
	bad := false
	cfg.Fault = func(step string, n int) (int, error) {
		if bad && step == "sync" {
			return 0, syscall.EIO
		}
		return n, nil
	}
	j := open(t, cfg)
	bad = true
	all := events(0, 60)
	appendEach(t, j, all)
	flush(t, j)
	if n := j.Notes(); len(n) == 0 || !strings.Contains(n[0], "power cut") {
		t.Fatalf("notes %q", n)
	}
	if err := j.Sync(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("sync: %v", err)
	}
	same(t, "after failed syncs", readAll(t, j, 0, journal.Filter{}), all)
}

// TestReadersAndWriterDoNotDisturbEachOther: each reading is a whole beginning of what
// was appended, and the newest are the end of one.
func TestReadersAndWriterDoNotDisturbEachOther(t *testing.T) {
	j := open(t, small(t.TempDir()))
	all := events(0, 1500)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ran := make(chan error, 1)
	go func() { ran <- j.Run(ctx) }()
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for n := 0; n < len(all); {
				changed := j.Changed()
				n = 0
				var last journal.Entry
				for e, err := range j.Read(0, journal.Filter{}) {
					if err != nil || e.Index != all[n].Index || e.N != all[n].N {
						t.Errorf("entry %d is %d.%d, %v", n, e.Index, e.N, err)
						return
					}
					n, last = n+1, e
				}
				if n > 0 && n < len(all) && all[n].Index == last.Index {
					t.Error("a part of an event is read")
					return
				}
				newest, err := j.Latest(5, journal.Filter{})
				if err != nil || len(newest) > 0 && !slices.ContainsFunc(all, func(e journal.Entry) bool { return e.Index == newest[0].Index }) {
					t.Errorf("newest: %v, %v", newest, err)
					return
				}
				if n < len(all) {
					<-changed
				}
			}
		})
	}
	rest := all
	for len(rest) > 0 {
		n := 1
		for n < len(rest) && rest[n].Index == rest[0].Index {
			n++
		}
		if err := j.Append(rest[:n]); err != nil {
			t.Fatal(err)
		}
		if rest[0].Index%40 == 0 {
			flush(t, j)
		}
		rest = rest[n:]
	}
	wg.Wait()
	cancel()
	if err := <-ran; err != nil {
		t.Fatal(err)
	}
	noNotes(t, j)
}

// TestGapsOnAFullDiskBecomeOne: memory stays bounded, and the gap is written as soon
// as there is room, without waiting for another event.
func TestGapsOnAFullDiskBecomeOne(t *testing.T) {
	for _, dropped := range []bool{false, true} {
		d := &disk{full: true}
		cfg := small(t.TempDir())
		cfg.Fault, cfg.Buffer = d.fault, 5000
		j := open(t, cfg)
		index := uint64(1)
		for ; dropped && index < 100; index++ {
			if err := j.Append(event(index)); err != nil {
				t.Fatal(err)
			}
		}
		for ; index < 200; index++ {
			j.Gap(index, index, "nobody knows")
		}
		if j.Waiting() > cfg.Buffer {
			t.Fatalf("%d bytes wait", j.Waiting())
		}
		d.set(false)
		flush(t, j)
		if got, err := j.Latest(1, journal.Filter{}); err != nil || len(got) != 1 || got[0].Until != 199 || j.Waiting() != 0 {
			t.Fatalf("%d bytes wait, the newest is %+v: %v", j.Waiting(), got, err)
		}
	}
}
