package consensus

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"testing"
)

func testKey(b byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, ed25519.SeedSize))
}

func sampleEvent() *Event {
	e := &Event{
		Network: Hash{1, 2, 3}, Creator: 7, Seq: 9, BirthRound: 5, Time: 1_700_000_000_000_000_001, Coin: 0xfeedbeef,
		Parents: []Parent{{Hash{9}, 7, 4}, {Hash{8}, 1, 5}},
		Payload: [][]byte{[]byte("move web1"), {}, []byte("x")},
	}
	e.Sign(testKey(1))
	return e
}

func TestEventSurvivesEncoding(t *testing.T) {
	e := sampleEvent()
	b := e.Marshal()
	got, err := Unmarshal(b)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Marshal(), b) || got.Hash() != e.Hash() {
		t.Error("another event came back")
	}
	if err := got.Verify(testKey(1).Public().(ed25519.PublicKey)); err != nil {
		t.Error(err)
	}
	clear(b)
	if got.Hash() != e.Hash() {
		t.Error("the event changes with the buffer it was read from")
	}
}

// A single changed bit anywhere must end in an error or in an event that fails its
// signature: nothing in the encoding is without meaning.
func TestEveryBitIsSigned(t *testing.T) {
	b := sampleEvent().Marshal()
	key := testKey(1).Public().(ed25519.PublicKey)
	for i := range b {
		c := bytes.Clone(b)
		c[i] ^= 1
		e, err := Unmarshal(c)
		if err == nil {
			err = e.Verify(key)
		}
		if !errors.Is(err, ErrInvalid) {
			t.Fatalf("byte %d: changed event gives %v", i, err)
		}
	}
}

func TestWrongSizesAreRefused(t *testing.T) {
	b := sampleEvent().Marshal()
	for i := range b {
		if _, err := Unmarshal(b[:i]); !errors.Is(err, ErrInvalid) {
			t.Fatalf("the first %d bytes give %v", i, err)
		}
	}
	for name, in := range map[string][]byte{
		"one byte more":  append(bytes.Clone(b), 0),
		"huge":           make([]byte, MaxEvent+1),
		"other version":  append([]byte{2}, b[1:]...),
		"big parts list": bytes.Repeat([]byte{1}, 300),
	} {
		if _, err := Unmarshal(in); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	e := sampleEvent()
	e.Payload = [][]byte{make([]byte, MaxTransaction)}
	if _, err := Unmarshal(e.Marshal()); err != nil {
		t.Errorf("the largest transaction: %v", err)
	}
	e.Payload[0] = make([]byte, MaxTransaction+1)
	if _, err := Unmarshal(e.Marshal()); !errors.Is(err, ErrInvalid) {
		t.Errorf("a larger transaction: %v", err)
	}
}

func TestLargestEventFits(t *testing.T) {
	e := sampleEvent()
	e.Payload = nil
	for room := PayloadRoom(len(e.Parents)); room > 4; {
		n := min(room-4, MaxTransaction)
		e.Payload = append(e.Payload, make([]byte, n))
		room -= n + 4
	}
	e.Sign(testKey(1))
	if b := e.Marshal(); len(b) != MaxEvent {
		t.Errorf("a full event has %d bytes, want %d", len(b), MaxEvent)
	} else if _, err := Unmarshal(b); err != nil {
		t.Error(err)
	}
}

func FuzzEvent(f *testing.F) {
	f.Add(sampleEvent().Marshal())
	f.Add((&Event{}).Marshal())
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := Unmarshal(b)
		if err != nil {
			if !errors.Is(err, ErrInvalid) || e != nil {
				t.Fatalf("%v, %v", e, err)
			}
			return
		}
		if !bytes.Equal(e.Marshal(), b) {
			t.Fatal("two encodings of one event")
		}
	})
}

func BenchmarkMarshalAndHash1KB(b *testing.B) {
	e := sampleEvent()
	e.Payload = [][]byte{make([]byte, 1024)}
	for b.Loop() {
		e.Hash()
		e.Marshal()
	}
}
