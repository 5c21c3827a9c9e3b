package survey

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

// said is a stream whose far end has said all that it will ever say.
type said struct {
	io.Reader
	written int64
}

func (s *said) Write(p []byte) (int, error) {
	s.written += int64(len(p))
	return len(p), nil
}

func words(pairs ...any) []byte {
	var b bytes.Buffer
	for i := 0; i < len(pairs); i += 2 {
		_ = writeWord(&b, pairs[i].(byte), int64(pairs[i+1].(int)))
	}
	return b.Bytes()
}

func TestSenderSendsWhatItWasGranted(t *testing.T) {
	s := &said{Reader: bytes.NewReader(words(wordGrant, 100, wordGrant, 70001, wordDone, 12345))}
	rate, n, err := send(s)
	if err != nil || rate != (figure{rate: 12345}) || n != 70001 || s.written != 70001 {
		t.Errorf("told %v after %d bytes, %d written, %v", rate, n, s.written, err)
	}
	if rate, _, err := send(&said{Reader: bytes.NewReader(words(wordGrant, 100, wordDoubt, 7))}); err != nil || rate != (figure{7, true}) {
		t.Errorf("told %v, %v of a doubtful run", rate, err)
	}
}

func TestNonsenseIsNamed(t *testing.T) {
	for name, b := range map[string][]byte{
		"no grant":          words(byte('x'), 1),
		"nothing":           words(wordGrant, 0),
		"the same again":    words(wordGrant, 7, wordGrant, 7),
		"less":              words(wordGrant, 7, wordGrant, 6),
		"too much":          words(wordGrant, mostRun+1),
		"done at no rate":   words(wordDone, 0),
		"done at any rate":  words(wordDone, mostRate+1),
		"a negative number": words(wordDone, -1),
	} {
		if rate, n, err := send(&said{Reader: bytes.NewReader(b)}); !errors.Is(err, errNonsense) || n > 7 {
			t.Errorf("%s: %v after %d bytes, %v", name, rate, n, err)
		}
	}
}

func TestGrantsHaveAnEnd(t *testing.T) {
	var b []byte
	for i := range 2 * maxGrants {
		b = append(b, words(wordGrant, i+1)...)
	}
	s := &said{Reader: bytes.NewReader(b)}
	if _, _, err := send(s); err == nil || s.written > maxGrants {
		t.Errorf("sent %d grants, %v", s.written, err)
	}
}

// Whatever a member says, the other side sends no more than a run has and ends.
func FuzzSend(f *testing.F) {
	f.Add(words(wordGrant, leastRun, wordDone, 1))
	f.Add(words(wordGrant, 5, wordGrant, 4))
	f.Add(words(wordDone, -1))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := &said{Reader: bytes.NewReader(b)}
		rate, n, err := send(s)
		if n != s.written || n > mostRun || err == nil && (rate.rate < 1 || rate.rate > mostRate) {
			t.Fatalf("told %v after %d bytes, %d written, %v", rate, n, s.written, err)
		}
	})
}

func FuzzReceive(f *testing.F) {
	f.Add(make([]byte, 200<<10))
	f.Fuzz(func(t *testing.T, b []byte) {
		rate, n, err := receive(&said{Reader: bytes.NewReader(b)}, 0, overslept)
		if n > int64(len(b)) || n > mostRun || err == nil && (rate.rate < 1 || rate.rate > mostRate) {
			t.Fatalf("%v a second, %d of %d bytes, %v", rate, n, len(b), err)
		}
	})
}
