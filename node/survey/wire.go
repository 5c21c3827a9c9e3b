package survey

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// The two sides of a stream of protocol "/survey/1":
//
//	opener                      server
//	                       ◄──  welcome, or busy
//	trip(round trip) ──►
//	grant, grant, … done(rate) ──►
//	                       ◄──  as many bytes as were granted
//	                       ◄──  grant, grant, … done(rate)
//	as many bytes as were granted ──►
//
// So first the opener receives and then the server; a server that knows the path to
// itself says done at once. Who doubts the rate says doubt in place of done. An opener
// that has learnt the path while it waited closes the stream after welcome. Words are 9
// bytes: what, and a number.
const (
	wordWelcome = byte('w')
	wordBusy    = byte('b')
	wordTrip    = byte('t') // nanoseconds
	wordGrant   = byte('g') // bytes that may be sent in all
	wordDone    = byte('d') // bytes a second that arrived
	wordDoubt   = byte('?') // likewise, but it may be far off
	wordBytes   = 9

	// maxGrants bounds how often one run is granted more.
	maxGrants = 4 * mostRun / leastRun
	maxPiece  = 64 << 10
)

var errNonsense = errors.New("the other side talks nonsense")

func writeWord(w io.Writer, what byte, n int64) error {
	var b [wordBytes]byte
	b[0] = what
	binary.BigEndian.PutUint64(b[1:], uint64(n))
	_, err := w.Write(b[:])
	return err
}

func readWord(r io.Reader) (what byte, n int64, err error) {
	var b [wordBytes]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return 0, 0, err
	}
	u := binary.BigEndian.Uint64(b[1:])
	if u > mostRate {
		return 0, 0, fmt.Errorf("%w: the number %d", errNonsense, u)
	}
	return b[0], int64(u), nil
}

// figure is a rate as one run measured it.
type figure struct {
	rate  int64 // bytes a second; 0: none
	doubt bool  // it may be far off: bytes came in bursts, or who read them had no processor
}

func (f figure) word() byte {
	if f.doubt {
		return wordDoubt
	}
	return wordDone
}

// receive makes a run: it grants, reads until enough was seen, tells the rate and
// reads what is still on its way. watch tells how starved this process was meanwhile.
func receive(s io.ReadWriter, rtt time.Duration, watch watch) (f figure, bytes int64, err error) {
	r := run{rtt: rtt}
	starved := watch()
	defer starved()
	buf := make([]byte, maxPiece)
	var began time.Time
	for !r.over() {
		if total, ok := r.more(); ok {
			if err := writeWord(s, wordGrant, total); err != nil {
				return f, r.got(), err
			}
		}
		n, err := s.Read(buf[:min(int64(len(buf)), r.granted-r.got())])
		now := time.Now()
		if began.IsZero() {
			began = now
		}
		if n > 0 {
			r.add(now.Sub(began), int64(n))
		}
		if err != nil {
			return f, r.got(), err
		}
	}
	f = figure{r.rate(), !r.even() || starved() > mostStarved}
	if err := writeWord(s, f.word(), f.rate); err != nil {
		return figure{}, r.got(), err
	}
	rest, err := io.CopyN(io.Discard, s, r.granted-r.got())
	return f, r.got() + rest, err
}

// send is the other side of receive. It returns what it was told.
func send(s io.ReadWriter) (f figure, bytes int64, err error) {
	nothing := make([]byte, maxPiece)
	for range maxGrants {
		what, n, err := readWord(s)
		switch {
		case err != nil:
			return f, bytes, err
		case (what == wordDone || what == wordDoubt) && n > 0:
			return figure{n, what == wordDoubt}, bytes, nil
		case what != wordGrant || n <= bytes || n > mostRun:
			return f, bytes, fmt.Errorf("%w: word %q with %d after %d bytes", errNonsense, what, n, bytes)
		}
		for bytes < n {
			k, err := s.Write(nothing[:min(int64(len(nothing)), n-bytes)])
			bytes += int64(k)
			if err != nil {
				return f, bytes, err
			}
		}
	}
	return f, bytes, fmt.Errorf("%w: more than %d grants", errNonsense, maxGrants)
}
