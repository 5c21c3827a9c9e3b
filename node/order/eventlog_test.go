package order

import (
	"crypto/ed25519"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dcnode/dcnode/consensus"
)

// history is a chain of events with some of another member beside it, parents first.
func history(n int) []*consensus.Event {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	var out []*consensus.Event
	for i := range n {
		e := &consensus.Event{Creator: 1, Seq: uint64(i), BirthRound: 1, Time: consensus.Timestamp(i), Payload: [][]byte{fmt.Appendf(nil, "payload %d", i)}}
		if i > 0 {
			e.Parents = append(e.Parents, consensus.Parent{Hash: out[i-1].Hash(), Creator: 1, BirthRound: 1})
		}
		e.Sign(key)
		out = append(out, e)
	}
	return out
}

// openTest opens a log and returns the events that were in it.
func openTest(t *testing.T, path string) (*eventLog, []*consensus.Event, error) {
	t.Helper()
	var got []*consensus.Event
	l, err := openEventLog(path, func(e *consensus.Event) error { got = append(got, e); return nil })
	if err == nil {
		t.Cleanup(func() { l.close() })
	}
	return l, got, err
}

func writeLog(t *testing.T, events []*consensus.Event) (string, []byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "events.log")
	l, _, err := openTest(t, path)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if err := l.append([]*consensus.Event{e}, true); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, b
}

func same(a, b []*consensus.Event) bool {
	return slices.EqualFunc(a, b, func(x, y *consensus.Event) bool { return x.Hash() == y.Hash() })
}

func TestLogCutAnywhereInItsLastEventKeepsTheOthers(t *testing.T) {
	events := history(3)
	path, whole := writeLog(t, events)
	two := len(whole) - recordHeader - len(events[2].Marshal())
	for cut := two; cut < len(whole); cut++ {
		for _, tail := range [][]byte{nil, make([]byte, 4096)} { // some file systems leave zeroes behind
			if err := os.WriteFile(path, slices.Concat(whole[:cut], tail), 0o600); err != nil {
				t.Fatal(err)
			}
			l, got, err := openTest(t, path)
			if err != nil || !same(got, events[:2]) {
				t.Fatalf("cut at byte %d, %d zeroes: %d events, %v", cut, len(tail), len(got), err)
			}
			// What is appended to the repaired log is there the next time.
			if err := l.append(events[2:], true); err != nil {
				t.Fatal(err)
			}
			if _, got, err = openTest(t, path); err != nil || !same(got, events) {
				t.Fatalf("cut at byte %d and appended: %d events, %v", cut, len(got), err)
			}
		}
	}
}

func TestDamageBeforeAWholeEventIsAnErrorThatNamesThePlace(t *testing.T) {
	events := history(4)
	path, whole := writeLog(t, events)
	first := recordHeader + len(events[0].Marshal())
	second := first + recordHeader + len(events[1].Marshal())
	for i := first; i < second; i++ {
		for _, flip := range []byte{0x01, 0x80} {
			b := slices.Clone(whole)
			b[i] ^= flip
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			_, _, err := openTest(t, path)
			if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("at byte %d:", first)) || !strings.Contains(err.Error(), fmt.Sprintf("from byte %d on", second)) {
				t.Fatalf("byte %d xor %#x: %v", i, flip, err)
			}
			if after, _ := os.ReadFile(path); !slices.Equal(after, b) {
				t.Fatalf("byte %d xor %#x: the damaged log was changed", i, flip)
			}
		}
	}
}

// TestEventsAreGivenParentsFirstInBoundedBatches: whoever asks with its locator,
// takes what comes and asks again, has all in the end.
func TestEventsAreGivenParentsFirstInBoundedBatches(t *testing.T) {
	events := history(300)
	path, _ := writeLog(t, events)
	full, _, err := openTest(t, path)
	if err != nil {
		t.Fatal(err)
	}
	const limit = 2000
	for _, has := range []int{0, 1, 31, 32, 33, 150, 299, 300} {
		asker, _, err := openTest(t, filepath.Join(t.TempDir(), "log"))
		if err != nil {
			t.Fatal(err)
		}
		if err := asker.append(events[:has], false); err != nil {
			t.Fatal(err)
		}
		for len(asker.recs) < len(events) {
			known := asker.locator()
			if len(known) > maxHashes {
				t.Fatalf("a locator of %d hashes does not fit a request", len(known))
			}
			batch, size := full.after(known, limit), 0
			for _, raw := range batch {
				size += len(raw)
				e, err := consensus.Unmarshal(raw)
				if err != nil {
					t.Fatal(err)
				}
				if want := events[len(asker.recs)]; e.Hash() != want.Hash() {
					t.Fatalf("has %d: event %d came where %d is next", has, e.Seq, want.Seq)
				}
				if err := asker.append([]*consensus.Event{e}, false); err != nil {
					t.Fatal(err)
				}
			}
			if len(batch) == 0 || size > limit {
				t.Fatalf("has %d: a batch of %d events, %d bytes", has, len(batch), size)
			}
		}
		if more := full.after(asker.locator(), limit); len(more) != 0 {
			t.Errorf("has %d: one who has all is given %d events", has, len(more))
		}
	}
}

// TestOneWhoIsAheadIsGivenLittle: its newest hashes are unknown here.
func TestOneWhoIsAheadIsGivenLittle(t *testing.T) {
	events := history(300)
	path, _ := writeLog(t, events)
	ahead, _, err := openTest(t, path)
	if err != nil {
		t.Fatal(err)
	}
	behindPath, _ := writeLog(t, events[:250])
	behind, _, err := openTest(t, behindPath)
	if err != nil {
		t.Fatal(err)
	}
	// Of 50 unknown ones 33 are named one by one; the older that are named next
	// bound what is given twice.
	if got := behind.after(ahead.locator(), 1<<20); len(got) > 50 {
		t.Errorf("one who is ahead is given %d events", len(got))
	}
	if got := behind.after([]consensus.Hash{events[299].Hash(), events[249].Hash()}, 1<<20); len(got) != 0 {
		t.Errorf("one who names the newest here is given %d events", len(got))
	}
}
