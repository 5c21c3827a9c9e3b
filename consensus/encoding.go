package consensus

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// Limits of an event. Every member must have the same.
const (
	MaxMembers     = 64        // entries in the roster, and parents of an event
	MaxEvent       = 512 << 10 // bytes of an encoded event
	MaxPayload     = 4096      // transactions in an event
	MaxTransaction = 64 << 10  // bytes of one transaction
	// MaxTime bounds creation times so that no sum overflows. It is a constant and
	// not some clock's now: members would disagree about that.
	MaxTime = Timestamp(1) << 62
)

// The encoding, all numbers big-endian and of fixed size, so that an event has one
// encoding only:
//
//	version 1 | network 32 | creator 8 | seq 8 | birth round 8 | time 8 | coin 4
//	parents 1, each: hash 32, creator 8, birth round 8
//	transactions 2, each: length 4, bytes
//	signature 64
const (
	encodingVersion = 1
	headSize        = 1 + 32 + 8 + 8 + 8 + 8 + 4
	parentSize      = 32 + 8 + 8
)

const signDomain = "dcnode hashgraph event v1\x00"

// PayloadRoom is how many bytes an event with the given number of parents has for
// its payload; a transaction of n bytes takes n + 4 of them.
func PayloadRoom(parents int) int {
	return MaxEvent - headSize - 1 - parents*parentSize - 2 - ed25519.SignatureSize
}

// Hash is the SHA-256 of the encoding without the signature: it names the event.
// Unmarshal and Sign keep it in the event; a copy of the event computes it anew.
func (e *Event) Hash() Hash {
	if e.sealed == e {
		return e.hash
	}
	return sha256.Sum256(e.body(0))
}

// seal keeps the hash, for an event that does not change any more.
func (e *Event) seal(h Hash) { e.hash, e.sealed = h, e }

// Sign puts the creator's signature on the event, which is immutable from then on.
func (e *Event) Sign(key ed25519.PrivateKey) {
	h := sha256.Sum256(e.body(0))
	e.Signature = ed25519.Sign(key, signed(h))
	e.seal(h)
}

// Verify checks the signature with the creator's key. It looks at the fields, not
// at the hash that the event keeps. Safe for use by several goroutines.
func (e *Event) Verify(key ed25519.PublicKey) error {
	if len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, signed(sha256.Sum256(e.body(0))), e.Signature) {
		return fmt.Errorf("%w: the signature is not by member %d", ErrInvalid, e.Creator)
	}
	return nil
}

func signed(h Hash) []byte { return append([]byte(signDomain), h[:]...) }

// Marshal is the encoding of a signed event. An event without a signature gets 64
// zeros in its place.
func (e *Event) Marshal() []byte {
	b := e.body(ed25519.SignatureSize)
	var sig [ed25519.SignatureSize]byte
	copy(sig[:], e.Signature)
	return append(b, sig[:]...)
}

// size is the number of bytes of the encoding.
func (e *Event) size() int {
	n := headSize + 1 + len(e.Parents)*parentSize + 2 + ed25519.SignatureSize
	for _, tx := range e.Payload {
		n += 4 + len(tx)
	}
	return n
}

// body is the encoding up to the signature, with room for spare bytes more.
func (e *Event) body(spare int) []byte {
	be := binary.BigEndian
	b := append(make([]byte, 0, e.size()-ed25519.SignatureSize+spare), encodingVersion)
	b = append(b, e.Network[:]...)
	b = be.AppendUint64(b, e.Creator)
	b = be.AppendUint64(b, e.Seq)
	b = be.AppendUint64(b, e.BirthRound)
	b = be.AppendUint64(b, uint64(e.Time))
	b = be.AppendUint32(b, e.Coin)
	b = append(b, byte(len(e.Parents)))
	for i := range e.Parents {
		b = appendParent(b, &e.Parents[i])
	}
	b = be.AppendUint16(b, uint16(len(e.Payload)))
	for _, tx := range e.Payload {
		b = be.AppendUint32(b, uint32(len(tx)))
		b = append(b, tx...)
	}
	return b
}

func appendParent(b []byte, p *Parent) []byte {
	b = append(b, p.Hash[:]...)
	b = binary.BigEndian.AppendUint64(b, p.Creator)
	return binary.BigEndian.AppendUint64(b, p.BirthRound)
}

var errShort = errors.New("it ends early")

// reader takes fields off the front of an encoding; after the first that is missing
// it gives zeros and remembers the error.
type reader struct {
	b   []byte
	err error
}

func (r *reader) take(n int) []byte {
	if r.err != nil || len(r.b) < n {
		r.err = errShort
		return make([]byte, min(n, 64))
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) u64() uint64 { return binary.BigEndian.Uint64(r.take(8)) }

func (r *reader) hash() (h Hash) {
	copy(h[:], r.take(len(h)))
	return h
}

func (r *reader) parent() Parent {
	return Parent{Hash: r.hash(), Creator: r.u64(), BirthRound: r.u64()}
}

// Unmarshal reads an encoding. It accepts exactly what Marshal makes of an event
// within the limits, keeps no reference to b, and does not check the signature.
// Errors are ErrInvalid.
func Unmarshal(b []byte) (*Event, error) {
	if len(b) > MaxEvent {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrInvalid, len(b), MaxEvent)
	}
	r := &reader{b: bytes.Clone(b)}
	if v := r.take(1)[0]; v != encodingVersion {
		return nil, fmt.Errorf("%w: encoding version %d, this program reads %d", ErrInvalid, v, encodingVersion)
	}
	e := &Event{Network: r.hash(), Creator: r.u64(), Seq: r.u64(), BirthRound: r.u64()}
	e.Time = Timestamp(r.u64())
	e.Coin = binary.BigEndian.Uint32(r.take(4))
	for range int(r.take(1)[0]) {
		e.Parents = append(e.Parents, r.parent())
	}
	for range int(binary.BigEndian.Uint16(r.take(2))) {
		n := binary.BigEndian.Uint32(r.take(4))
		if n > MaxTransaction {
			return nil, fmt.Errorf("%w: a transaction of %d bytes, at most %d are allowed", ErrInvalid, n, MaxTransaction)
		}
		if e.Payload = append(e.Payload, r.take(int(n))); r.err != nil {
			break
		}
	}
	e.Signature = r.take(ed25519.SignatureSize)
	if r.err == nil && len(r.b) > 0 {
		r.err = fmt.Errorf("%d bytes follow it", len(r.b))
	}
	if r.err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, r.err)
	}
	if err := e.checkSize(); err != nil {
		return nil, err
	}
	e.seal(sha256.Sum256(b[:len(b)-ed25519.SignatureSize]))
	return e, nil
}

// checkSize checks what Unmarshal and a local maker must both respect.
func (e *Event) checkSize() error {
	size := 0
	for _, tx := range e.Payload {
		if len(tx) > MaxTransaction {
			return fmt.Errorf("%w: a transaction of %d bytes, at most %d are allowed", ErrInvalid, len(tx), MaxTransaction)
		}
		size += 4 + len(tx)
	}
	switch room := PayloadRoom(len(e.Parents)); {
	case len(e.Parents) > MaxMembers:
		return fmt.Errorf("%w: %d parents, at most %d are allowed", ErrInvalid, len(e.Parents), MaxMembers)
	case len(e.Payload) > MaxPayload:
		return fmt.Errorf("%w: %d transactions, at most %d are allowed", ErrInvalid, len(e.Payload), MaxPayload)
	case size > room:
		return fmt.Errorf("%w: a payload of %d bytes, at most %d are allowed", ErrInvalid, size, room)
	case len(e.Signature) != 0 && len(e.Signature) != ed25519.SignatureSize:
		return fmt.Errorf("%w: a signature of %d bytes", ErrInvalid, len(e.Signature))
	}
	return nil
}
