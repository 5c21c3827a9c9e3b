package migrate

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/dcnode/dcnode/vmm/ramstream"
)

// script is a Stream that says what it is told, then is silent until its deadline,
// and listens to nothing.
type script struct {
	io.Reader
	over chan struct{} // nil: it ends after its last word
	once *sync.Once
}

func newScript(frames [][]byte) script {
	return script{bytes.NewReader(bytes.Join(frames, nil)), make(chan struct{}), new(sync.Once)}
}

func (s script) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil && s.over != nil {
		<-s.over
	}
	return n, err
}

func (script) Write(p []byte) (int, error) { return len(p), nil }

func (s script) SetDeadline(time.Time) error {
	if s.over != nil {
		s.once.Do(func() { close(s.over) })
	}
	return nil
}

// forgedBegin fits newGuest(…, …, 30).
func forgedBegin() []byte {
	return appendFrame(nil, kindBegin, beginPayload([]ramstream.Base{{Size: 30 * page}}))
}

func barrierFrame(last byte, sum [32]byte) []byte {
	return appendFrame(nil, kindFlush, []byte{0, 0, 0, 1, last}, sum[:])
}

// forged is a stream whose digest of the disk, or of the memory, is wrong.
func forged(what string) [][]byte {
	sum := sha256.Sum256(nil)
	if what == "disk" {
		sum[0]++
	}
	end := binary.BigEndian.AppendUint64(nil, 0)
	return [][]byte{forgedBegin(), barrierFrame(1, sum), appendFrame(nil, kindEnd, end, make([]byte, 32))}
}

func TestFramesOutOfPlaceAreRefused(t *testing.T) {
	none := sha256.Sum256(nil)
	write := appendFrame(nil, kindWrite, make([]byte, 2+8), []byte{0, 0, 16, 0, 0}, make([]byte, page))
	end := appendFrame(nil, kindEnd, make([]byte, 8), none[:])
	zero := func(off, n uint64) []byte {
		p := binary.BigEndian.AppendUint64(make([]byte, 2), off)
		return appendFrame(nil, kindZero, binary.BigEndian.AppendUint64(p, n))
	}
	for name, frames := range map[string][][]byte{
		"no begin":                 {write},
		"other protocol":           {appendFrame(nil, kindBegin, []byte("http/1.1 "))},
		"begin of version 9":       {appendFrame(nil, kindBegin, []byte(greeting+"\x09"))},
		"begin twice":              {forgedBegin(), forgedBegin()},
		"end without barrier":      {forgedBegin(), end},
		"disk after barrier":       {forgedBegin(), barrierFrame(1, none), write, end},
		"two last barriers":        {forgedBegin(), barrierFrame(1, none), barrierFrame(1, none)},
		"short barrier":            {forgedBegin(), appendFrame(nil, kindFlush, []byte{0, 0, 0, 1})},
		"unknown frame":            {forgedBegin(), appendFrame(nil, 99)},
		"frame for the source":     {forgedBegin(), appendFrame(nil, kindLoaded)},
		"extent not of blocks":     {forgedBegin(), zero(1, page)},
		"extent at the end of all": {forgedBegin(), zero(1<<63, page)},
		"empty extent":             {forgedBegin(), zero(0, 0)},
		"length not that of data":  {forgedBegin(), appendFrame(nil, kindWrite, make([]byte, 2+8), []byte{0, 0, 32, 0, 0}, make([]byte, page))},
		"short disk frame":         {forgedBegin(), appendFrame(nil, kindWrite, []byte{1, 2})},
		"unpacks to too much":      {forgedBegin(), appendFrame(nil, kindWrite, make([]byte, 2+8), []byte{0, 0, 16, 0, 1}, packed(1<<20))},
		"huge frame":               {forgedBegin(), {kindMemory, 255, 255, 255, 255, 0, 0, 0, 0}},
		"memory frame of rubbish":  {forgedBegin(), appendFrame(nil, kindMemory, []byte("rubbish"))},
		"short end":                {forgedBegin(), barrierFrame(1, none), appendFrame(nil, kindEnd, []byte{1})},
	} {
		m := newMove(t, 3, 50, 30)
		_, err := Receive(t.Context(), newScript(frames), m.sink)
		var broken *linkError
		if err == nil || errors.As(err, &broken) || m.room.loaded {
			t.Errorf("%s: error %v, loaded %v", name, err, m.room.loaded)
		}
	}
}

func TestDestinationThatTalksNonsenseIsRefused(t *testing.T) {
	ready := appendFrame(nil, kindReady)
	ack := func(n uint64) []byte { return appendFrame(nil, kindAck, binary.BigEndian.AppendUint64(nil, n)) }
	for name, frames := range map[string][][]byte{
		"ready twice":          {ready, ready},
		"loaded at once":       {ready, appendFrame(nil, kindLoaded)},
		"more used than sent":  {ready, ack(1 << 40)},
		"negative ack":         {ready, ack(1 << 63)},
		"frame for the others": {ready, appendFrame(nil, kindEnd)},
		"short ack":            {ready, appendFrame(nil, kindAck, []byte{1})},
		"long frame":           {ready, appendFrame(nil, kindFailed, make([]byte, maxReason+1))},
	} {
		m := newMove(t, 3, 50, 30)
		_, err := Send(t.Context(), newScript(frames), m.job)
		if !errors.Is(err, ErrDamaged) || m.guest.released() || !m.guest.running {
			t.Errorf("%s: error %v, released %v, running %v", name, err, m.guest.released(), m.guest.running)
		}
	}
}

func FuzzReceive(f *testing.F) {
	none := sha256.Sum256(nil)
	f.Add([]byte{kindWrite, kindZero, kindMemory}, make([]byte, 200))
	f.Add([]byte{kindFlush}, append([]byte{0, 0, 0, 1, 1}, none[:]...))
	f.Add([]byte{kindFlush, kindEnd}, append(make([]byte, 8), none[:]...))
	f.Fuzz(func(t *testing.T, kinds, payload []byte) {
		stream := forgedBegin()
		for i, k := range kinds[:min(len(kinds), 20)] {
			stream = appendFrame(stream, k%10, payload[min(i, len(payload)):])
		}
		g, base := newGuest(1, 5, 30)
		room := newRoom(g, base)
		sink := Sink{Machine: room, Bases: []ramstream.Base{{R: bytes.NewReader(base), Size: 30 * page}}}
		_, err := Receive(t.Context(), script{Reader: bytes.NewReader(stream)}, sink)
		if err == nil || room.loaded {
			t.Fatal("a stream without a machine was loaded")
		}
	})
}
