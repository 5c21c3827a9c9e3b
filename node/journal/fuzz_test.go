package journal

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func fuzzEntries() []Entry {
	return []Entry{
		{},
		{Index: 1, N: -1, Kind: "deadline", Text: "The bidding ended.", Machine: "7"},
		gapEntry(9, 1<<63, "a test"),
		{Index: 1<<64 - 1, N: 1<<31 - 1, Round: 1 << 40, Time: -5, Author: 3, Site: "ams", Event: [32]byte{1}, Kind: "bid", Image: "2", Member: "4", Account: "5", Text: "x", Refused: "y", Raw: []byte{1, 2}},
	}
}

// FuzzRecord: bytes that are a record give an entry that gives the same entry again.
func FuzzRecord(f *testing.F) {
	for _, e := range fuzzEntries() {
		f.Add(e.append(nil, false))
		f.Add(e.append(nil, true))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var v view
		_, _ = v.cutRecord(b)
		if v.parse(b) != nil {
			return
		}
		e := v.entry()
		if want := (&Filter{Kind: e.Kind, Machine: e.Machine, Author: e.Author}); !want.fits(&v) {
			t.Fatalf("a filter of its own leaves out %+v", e)
		}
		rec := appendRecord(nil, &e, v.more)
		if len(rec) > e.room() {
			t.Fatalf("%d bytes where there is room for %d", len(rec), e.room())
		}
		var again view
		n, err := again.cutRecord(rec)
		if len(rec)-recordHead > maxBody {
			return
		}
		if err != nil || n != len(rec) || again.more != v.more || !reflect.DeepEqual(again.entry(), e) {
			t.Fatalf("%+v became %+v: %v", e, again.entry(), err)
		}
	})
}

func TestEntriesSurviveTheirEncoding(t *testing.T) {
	var all []byte
	for i, e := range fuzzEntries() {
		all = appendRecord(all, &e, i%2 == 0)
	}
	at := 0
	for i, e := range fuzzEntries() {
		var v view
		for cut := at; cut < len(all) && cut < at+recordHead; cut++ {
			if _, err := v.cutRecord(all[at:cut]); err != errShort {
				t.Fatalf("cut: %v", err)
			}
		}
		n, err := v.cutRecord(all[at:])
		if err != nil || v.more != (i%2 == 0) || !reflect.DeepEqual(v.entry(), e) {
			t.Fatalf("%+v became %+v: %v", e, v.entry(), err)
		}
		at += n
	}
}

// FuzzOpen: whatever a segment and its index are, they open, and what is read is the
// same forwards and backwards, and the next start makes up nothing.
func FuzzOpen(f *testing.F) {
	network := [32]byte{7}
	seg := &segment{number: 1, first: 1}
	whole := seg.head(network)
	for _, e := range fuzzEntries()[1:] {
		whole = appendRecord(whole, &e, false)
	}
	seg.size, seg.last = int64(len(whole)), 1<<64-1
	seg.note(segmentHead, len(whole)-segmentHead, 1)
	f.Add(whole, seg.marshalIndex(), true)
	f.Add(whole, seg.marshalIndex(), false)
	f.Add(whole[:len(whole)-3], []byte{}, false)
	f.Add(append(bytes.Clone(whole), make([]byte, 50)...), []byte{1}, true)
	dir := f.TempDir()
	cfg := Config{Dir: dir, Network: network, Fault: func(_ string, n int) (int, error) { return n, nil }}
	f.Fuzz(func(t *testing.T, b, index []byte, newest bool) {
		folder := filepath.Join(dir, Folder)
		if err := os.RemoveAll(folder); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		write := map[string][]byte{segmentName(1): b, "journal-000001.idx": index}
		if !newest {
			write[segmentName(2)] = []byte("cut")
		}
		for name, b := range write {
			if err := os.WriteFile(filepath.Join(folder, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		var first []Entry
		for round := range 2 {
			j, err := Open(cfg)
			if err != nil {
				return // of another network or format
			}
			var got []Entry
			for e, err := range j.Read(0, Filter{}) {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, e)
			}
			back, err := j.Latest(len(got)+1, Filter{})
			if err != nil || len(back) != len(got) || len(got) > 0 && !reflect.DeepEqual(back, got) {
				t.Fatalf("backwards %d of %d: %v", len(back), len(got), err)
			}
			if round == 0 {
				first = got
			} else if len(got) > len(first) || len(got) > 0 && !reflect.DeepEqual(got, first[:len(got)]) {
				// The first may be the newest by now, and is cut.
				t.Fatalf("%d entries, then %d", len(first), len(got))
			}
			j.Abandon()
		}
	})
}
