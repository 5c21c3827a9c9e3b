package consensus

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"testing"
)

func sampleCheckpoint() *Checkpoint {
	roster := testRoster(3)
	for i := range roster {
		roster[i].Key = testKey(byte(i)).Public().(ed25519.PublicKey)
	}
	p := DefaultParams
	p.JudgeAny, p.Whiten = false, false
	return &Checkpoint{
		Network: Hash{4, 2}, Round: 512, Copied: true, Copies: 1, MinBirth: 480, Ordered: 9000, LastTime: 77,
		Judges: []Parent{{Hash{1}, 1, 506}, {Hash{2}, 3, 508}},
		Epochs: []Epoch{{1, testRoster(4), DefaultParams}, {519, roster, p}},
	}
}

func TestCheckpointSurvivesEncoding(t *testing.T) {
	cp := sampleCheckpoint()
	b := cp.Marshal()
	got, err := UnmarshalCheckpoint(b)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Marshal(), b) || got.Hash() != cp.Hash() {
		t.Error("another checkpoint came back")
	}
	clear(b)
	if got.Hash() != cp.Hash() {
		t.Error("the checkpoint changes with the buffer it was read from")
	}
	for i := range b {
		if _, err := UnmarshalCheckpoint(cp.Marshal()[:i]); !errors.Is(err, ErrInvalid) {
			t.Fatalf("the first %d bytes give %v", i, err)
		}
	}
}

// Any change of a byte ends in an error or in another name: nothing is without
// meaning.
func TestEveryByteOfACheckpointCounts(t *testing.T) {
	cp := sampleCheckpoint()
	for i, b := 0, cp.Marshal(); i < len(b); i++ {
		c := bytes.Clone(b)
		c[i] ^= 1
		if got, err := UnmarshalCheckpoint(c); err == nil && got.Hash() == cp.Hash() {
			t.Fatalf("byte %d means nothing", i)
		}
	}
}

func TestImpossibleCheckpointsAreRefused(t *testing.T) {
	for name, change := range map[string]func(cp *Checkpoint){
		"round zero":          func(cp *Checkpoint) { cp.Round = 0 },
		"all rounds open":     func(cp *Checkpoint) { cp.MinBirth = 0 },
		"copied never":        func(cp *Checkpoint) { cp.Copies = 0 },
		"copied for ever":     func(cp *Checkpoint) { cp.Round, cp.Copies = 1<<61, 1<<60; cp.MinBirth = 480 },
		"no judges":           func(cp *Checkpoint) { cp.Judges = nil },
		"judges out of order": func(cp *Checkpoint) { cp.Judges[0].Creator = 5 },
		"ancient judge":       func(cp *Checkpoint) { cp.Judges[0].BirthRound = 479 },
		"future judge":        func(cp *Checkpoint) { cp.Judges[1].BirthRound = 513 },
		"no roster":           func(cp *Checkpoint) { cp.Epochs = nil },
		"roster is missing":   func(cp *Checkpoint) { cp.Epochs[0].From = 481 },
		"far roster":          func(cp *Checkpoint) { cp.Epochs[1].From = 521 },
		"rosters cross":       func(cp *Checkpoint) { cp.Epochs[1].From = 1 },
		"no member":           func(cp *Checkpoint) { cp.Epochs[1].Roster = nil },
		"short key":           func(cp *Checkpoint) { cp.Epochs[1].Roster[0].Key = make(ed25519.PublicKey, 5) },
		"before time":         func(cp *Checkpoint) { cp.LastTime = -1 },
	} {
		cp := sampleCheckpoint()
		change(cp)
		if _, err := UnmarshalCheckpoint(cp.Marshal()); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzCheckpoint(f *testing.F) {
	f.Add(sampleCheckpoint().Marshal())
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		cp, err := UnmarshalCheckpoint(b)
		if err != nil {
			if !errors.Is(err, ErrInvalid) || cp != nil {
				t.Fatalf("%v, %v", cp, err)
			}
			return
		}
		if !bytes.Equal(cp.Marshal(), b) {
			t.Fatal("two encodings of one checkpoint")
		}
	})
}
