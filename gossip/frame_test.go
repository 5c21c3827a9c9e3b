package gossip

import (
	"bufio"
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
)

// FuzzLine reads any bytes as a line: nothing in it makes more room than was admitted,
// and what was read is what the frames that are written from it say.
func FuzzLine(f *testing.F) {
	f.Add(appendFrame(appendFrame(nil, frameMessage, []byte("event")), frameGap, nil))
	f.Add(appendFrame(nil, frameHears, appendHearer(appendHearer(nil, "alice"), "bob")))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Add([]byte{0xfc, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, line []byte) {
		r := bufio.NewReader(bytes.NewReader(line))
		left := 4096
		var again []byte
		for {
			kind, data, err := readFrame(r, func(n int) bool { left -= n; return left >= 0 })
			if err != nil {
				break
			}
			if kind < 0 || kind >= frameKinds {
				t.Fatalf("a frame of kind %d was read", kind)
			}
			again = appendFrame(again, kind, data)
			list := parseHearers(data, func(p peer.ID) bool { return p != "mallory" })
			if slices.Contains(list, "mallory") || len(list) > len(data) {
				t.Fatalf("%q was read as %q", data, list)
			}
		}
		r = bufio.NewReader(bytes.NewReader(again))
		for len(again) > 0 {
			kind, data, err := readFrame(r, func(int) bool { return true })
			if err != nil {
				t.Fatal(err)
			}
			frame := appendFrame(nil, kind, data)
			if !bytes.HasPrefix(again, frame) {
				t.Fatalf("%x was read as %x", again, frame)
			}
			again = again[len(frame):]
		}
	})
}

// FuzzRequest reads any bytes as a request and as a reply: nothing that they claim
// makes more room than was admitted.
func FuzzRequest(f *testing.F) {
	f.Add([]byte{0, 0, 0, 3, 0, 0, 0, 9, 'a', 'b', 'c'})
	f.Add([]byte{255, 255, 255, 255, 0, 0, 0, 9})
	f.Add([]byte{statusOK, 0, 0, 0, 2, 'o', 'k'})
	f.Add([]byte{statusError, 0, 0, 0, 2, 'n', 'o'})
	f.Fuzz(func(t *testing.T, raw []byte) {
		const most = 4096
		req, _, err := readRequest(bytes.NewReader(raw), func(n int) bool { return n <= most })
		if err == nil && (len(req) > most || !bytes.HasPrefix(raw[8:], req)) {
			t.Errorf("%x was read as a request of %x", raw, req)
		}
		reply, err := readReply(bytes.NewReader(raw), "alice", most)
		var said *RemoteError
		switch {
		case err == nil && (len(reply) > most || raw[0] != statusOK || !bytes.HasPrefix(raw[5:], reply)):
			t.Errorf("%x was read as a reply of %x", raw, reply)
		case errors.As(err, &said) && (len(said.Text) > maxErrorText || raw[0] == statusOK):
			t.Errorf("%x was read as the error %q", raw, said.Text)
		}
	})
}

func TestHearersAreReadAsWritten(t *testing.T) {
	want := []peer.ID{"alice", "bob", "carol"}
	var frame []byte
	for _, p := range append(want, "bob", "mallory") {
		frame = appendHearer(frame, p)
	}
	member := func(p peer.ID) bool { return p != "mallory" }
	for _, tail := range []string{"", "\x09short"} {
		if got := parseHearers(append(slices.Clone(frame), tail...), member); !slices.Equal(got, want) {
			t.Errorf("read %q, wanted %q", got, want)
		}
	}
}
