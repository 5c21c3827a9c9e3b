package gossip

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"
)

// A line is a stream that a member keeps to another, on which it sends what it
// publishes; the other keeps one the other way. It consists of frames:
//
//	uvarint: length of what follows × 4 + kind | bytes
//
// The receiver sends a single byte back, when it has taken the line over.

// Kinds of frames.
const (
	frameMessage = iota // what was published
	frameGap            // empty: messages were left out here, ask for them
	frameHears          // peer IDs, each after its length in a byte: those that took over a line of the sender
	frameKinds
)

// maxHears is the longest frame of that kind, in bytes: four hundred members.
const maxHears = 16 << 10

var (
	errOverLimit = errors.New("over the limit")
	errBadFrame  = errors.New("no frame of a line")
)

func appendFrame(buf []byte, kind int, data []byte) []byte {
	return append(binary.AppendUvarint(buf, uint64(len(data))<<2|uint64(kind)), data...)
}

// readFrame reads a frame, if admit lets that many bytes pass: no room is made for
// what it does not.
func readFrame(r *bufio.Reader, admit func(n int) bool) (kind int, data []byte, err error) {
	head, err := binary.ReadUvarint(r)
	if err != nil {
		return 0, nil, err
	}
	kind, n := int(head&3), head>>2
	switch {
	case n > MaxMessage || kind >= frameKinds || kind == frameHears && n > maxHears:
		return 0, nil, fmt.Errorf("%w: kind %d, %d bytes", errBadFrame, kind, n)
	case !admit(int(n)):
		return 0, nil, errOverLimit
	}
	data = make([]byte, n)
	_, err = io.ReadFull(r, data)
	return kind, data, err
}

func appendHearer(frame []byte, p peer.ID) []byte {
	return append(append(frame, byte(len(p))), p...)
}

// parseHearers lists the members, each once, of a frame of that kind as far as it makes
// sense.
func parseHearers(frame []byte, member func(peer.ID) bool) (list []peer.ID) {
	for len(frame) > 0 && len(frame) > int(frame[0]) {
		end := 1 + int(frame[0])
		if p := peer.ID(frame[1:end]); member(p) && !slices.Contains(list, p) {
			list = append(list, p)
		}
		frame = frame[end:]
	}
	return list
}
