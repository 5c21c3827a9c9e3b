package eventlog

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/dcnode/dcnode/consensus"
)

var fuzzNetwork = consensus.Hash{7}

// fuzzLog is the bytes of a log with two events.
func fuzzLog(tb testing.TB) []byte {
	s := &segment{network: fuzzNetwork, number: 1, salt: 42}
	b := s.head()
	b = appendRecord(b, s.salt, int64(len(b)), segmentHead, kindRun, []byte("boot 1"))
	for i := range 2 {
		e := &consensus.Event{Network: fuzzNetwork, Creator: 1, Seq: uint64(i), BirthRound: 1, Payload: [][]byte{{1, 2, 3}}}
		b = appendRecord(b, s.salt, int64(len(b)), segmentHead, kindEvent, e.Marshal())
	}
	b = appendRecord(b, s.salt, int64(len(b)), int64(len(b)), kindAdopt, adoption(3, 2))
	return appendRecord(b, s.salt, int64(len(b)), int64(len(b)), kindClosed, nil)
}

// FuzzOpen: whatever is in the file, it is refused, or it opens and what it gives
// is in it byte for byte, and opens again to the same.
func FuzzOpen(f *testing.F) {
	whole := fuzzLog(f)
	f.Add(whole)
	f.Add(whole[:len(whole)-20])
	f.Add(append(bytes.Clone(whole), make([]byte, 100)...))
	f.Add(whole[:segmentHead])
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(dir, Folder, segmentName(1))
		if err := os.RemoveAll(filepath.Dir(path)); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		cfg := Config{Dir: dir, Network: fuzzNetwork, BootID: "boot 2", Fault: func(_ string, n int) (int, error) { return n, nil }}
		l, err := Open(cfg)
		if err != nil {
			if after, _ := os.ReadFile(path); !bytes.Equal(after, b) {
				t.Fatal("a refused log was changed")
			}
			return
		}
		var got [][]byte
		for e, err := range l.Replay() {
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Contains(b, e.Marshal()) {
				t.Fatal("an event that is not in the file")
			}
			got = append(got, e.Marshal())
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if l, err = Open(cfg); err != nil {
			t.Fatal(err)
		}
		defer l.Abandon()
		if c := l.Opened().Condition; c != Clean {
			t.Fatalf("condition %v after a clean end", c)
		}
		i := 0
		for e, err := range l.Replay() {
			if err != nil || i >= len(got) || !bytes.Equal(e.Marshal(), got[i]) {
				t.Fatalf("event %d: %v", i, err)
			}
			i++
		}
		if i != len(got) {
			t.Fatalf("%d events, then %d", len(got), i)
		}
	})
}

// FuzzRecords: records with right checksums and any content, and any bytes after
// them, are read to the end or refused at a place in the file.
func FuzzRecords(f *testing.F) {
	whole := fuzzLog(f)
	f.Add([]byte{byte(kindRun), 2, 'b', '1', byte(kindAdopt), 16, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, byte(kindClosed), 0}, whole[segmentHead:])
	f.Add([]byte{byte(kindEvent), 3, 1, 2, 3, 9, 1, 1}, []byte{0, 0})
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, content, tail []byte) {
		s := &segment{path: filepath.Join(dir, segmentName(1)), network: fuzzNetwork, number: 1, salt: 42}
		b := s.head()
		for len(content) >= 2 && len(content) >= 2+int(content[1]) {
			n := 2 + int(content[1])
			b = appendRecord(b, s.salt, int64(len(b)), int64(len(b)), kind(content[0]), content[2:n])
			content = content[n:]
		}
		b = append(b, tail...)
		if err := os.WriteFile(s.path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		h, err := load(dir, "boot 2", 0, func(*segment) {}, func(*segment, *record, *consensus.Event) {})
		var damage *DamageError
		if err != nil {
			if !errors.As(err, &damage) || damage.Byte < 0 || damage.Byte > int64(len(b)) {
				t.Fatal(err)
			}
			return
		}
		n := Position(0)
		for r, err := range records([]stretch{h.segs[0].whole()}) {
			if err != nil && !errors.As(err, &damage) { // an adoption of the wrong size
				t.Fatal(err)
			}
			if r.Event != nil {
				if r.Position != n {
					t.Fatalf("position %d, want %d", r.Position, n)
				}
				n++
			}
		}
		if err == nil && n != h.segs[0].next() && damage == nil {
			t.Fatalf("%d events, want %d", n, h.segs[0].next())
		}
	})
}

// FuzzSummary: what is read is what was written.
func FuzzSummary(f *testing.F) {
	s := segment{size: 500, summary: summary{count: 9, maxBirth: 4, lasts: []last{{1, 100, 7}, {2, 200, 3}}, blocks: []block{{84, 0, 3}, {300, 5, 4}}}}
	f.Add(s.marshalSummary(), int64(500))
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		var s segment
		if s.unmarshalSummary(b, size) == nil && !bytes.Equal(s.marshalSummary(), b) {
			t.Fatal("a summary that is written in another way")
		}
	})
}

// FuzzCheckpoint: a file that is taken has exactly the parts that were saved.
func FuzzCheckpoint(f *testing.F) {
	c := Checkpoint{Round: 3, MinBirth: 2, Body: []byte("body"), Root: [32]byte{4}, Snapshot: []byte("snapshot")}
	f.Add(c.marshal(fuzzNetwork))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := unmarshalCheckpoint(b, fuzzNetwork)
		switch {
		case err == nil && !bytes.Equal(c.marshal(fuzzNetwork), b):
			t.Fatal("a checkpoint that is written in another way")
		case err != nil && c != nil:
			t.Fatal("a checkpoint and an error")
		case err != nil && errors.Is(err, os.ErrNotExist):
			t.Fatal("no file was read")
		}
	})
}

// TestPayloadCannotForgeARecord: a member that knows the format and the place of
// its event cannot put a record into it that outlives the event, for it does not
// know the salt.
func TestPayloadCannotForgeARecord(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), Network: fuzzNetwork, BootID: "boot 1", Fault: func(_ string, n int) (int, error) { return n, nil }}
	l, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	path, _ := l.SyncedSize()
	first := &consensus.Event{Network: fuzzNetwork, Creator: 2, BirthRound: 1}
	if err := l.Append([]*consensus.Event{first}); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	size := st.Size()
	e := &consensus.Event{Network: fuzzNetwork, Creator: 1, BirthRound: 1, Payload: [][]byte{make([]byte, 200)}}
	at := size + recordHead + int64(bytes.Index(e.Marshal(), make([]byte, 200)))
	e.Payload[0] = appendRecord(nil, 0, at, 0, kindEvent, make([]byte, 200-recordHead))
	if err := l.Append([]*consensus.Event{e}); err != nil {
		t.Fatal(err)
	}
	l.Abandon()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b[at:at+200], e.Payload[0]) {
		t.Fatal("the forgery is not where it was meant to be")
	}
	if err := os.Truncate(path, int64(len(b))-1); err != nil {
		t.Fatal(err)
	}
	if l, err = Open(cfg); err != nil {
		t.Fatal(err)
	}
	l.Abandon()
}
