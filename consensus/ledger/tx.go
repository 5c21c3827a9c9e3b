package ledger

import (
	"crypto/ed25519"
	"fmt"
	"reflect"
	"slices"

	"github.com/dcnode/dcnode/consensus/ledger/merkle"
)

// Bounds of a transaction.
const (
	MaxTx      = 64 << 10 // bytes, encoded
	maxSigs    = 16
	maxReason  = 1024          // bytes of any free text in it
	maxRefusal = 2 * maxReason // bytes of the reason why it is refused
	maxSeen    = 256           // numbers of each author's transactions that are remembered
)

// txVersion is the version of the encoding that this package writes and reads.
const txVersion = 3

// Tx is one transaction. Its author is the member whose event carries it, and whose
// signature covers it; or, if Account is set, that account, by signatures of its own,
// and then it may be carried by any member.
type Tx struct {
	// Seq is the author's number for it, by which it holds once: whoever says it
	// again, by mistake or malice, is refused. Numbers need not follow each other,
	// only never be used twice and grow about as time does: of the last maxSeen
	// numbers of an author each is known, and none below those is taken any more. What
	// replaces an account's keys or a policy is only taken in the order of its numbers.
	Seq     uint64
	Account string
	Sigs    []Sig // by key; of SignBytes
	Body    Body
}

// Sig is a signature with the Ed25519 key that made it.
type Sig struct {
	Key []byte `json:"key"`
	Sig []byte `json:"sig"`
}

// envelope is a transaction as it is encoded: one DAG-CBOR node.
type envelope struct {
	Version int        `json:"v"`
	Seq     uint64     `json:"n"`
	Kind    Kind       `json:"k"`
	Account string     `json:"a,omitempty"`
	Sigs    []Sig      `json:"s,omitempty"`
	Body    merkle.Raw `json:"b"`
}

var envelopes = merkle.NewDecoder(reflect.TypeFor[envelope]())

// Encode is the transaction's payload for an event: canonical DAG-CBOR, so that
// equal transactions have equal bytes.
func Encode(tx Tx) ([]byte, error) {
	body, err := merkle.Encode(tx.Body)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", tx.Body.Kind(), err)
	}
	b, err := merkle.Encode(envelope{txVersion, tx.Seq, tx.Body.Kind(), tx.Account, tx.Sigs, body})
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", tx.Body.Kind(), err)
	}
	if len(b) > MaxTx {
		return nil, fmt.Errorf("encode %s: %d bytes are more than the %d that a transaction may have", tx.Body.Kind(), len(b), MaxTx)
	}
	return b, nil
}

// Decode reads what Encode wrote, and nothing else. Unknown versions, kinds and
// fields are errors, the same at every member.
func Decode(b []byte) (Tx, error) {
	if len(b) > MaxTx {
		return Tx{}, fmt.Errorf("decode transaction: %d bytes are more than %d", len(b), MaxTx)
	}
	var e envelope
	if err := envelopes.Decode(b, &e); err != nil {
		return Tx{}, fmt.Errorf("decode transaction: %w", err)
	}
	if e.Version != txVersion {
		return Tx{}, fmt.Errorf("decode transaction: version %d is not known; this dcnode knows %d", e.Version, txVersion)
	}
	body := newBody(e.Kind)
	if body == nil {
		return Tx{}, fmt.Errorf("decode transaction: kind %q is not known", e.Kind)
	}
	if err := bodies[e.Kind].decoder.Decode(e.Body, body); err != nil {
		return Tx{}, fmt.Errorf("decode %s: %w", e.Kind, err)
	}
	if len(e.Sigs) > maxSigs || (e.Account == "") != (len(e.Sigs) == 0) {
		return Tx{}, fmt.Errorf("decode %s: an account comes with 1 to %d signatures, and only then", e.Kind, maxSigs)
	}
	return Tx{Seq: e.Seq, Account: e.Account, Sigs: e.Sigs, Body: body}, nil
}

// SignBytes is what the keys of an account sign of a transaction: everything but the
// signatures, for one overlay only. network is the overlay's name, 32 bytes.
func SignBytes(network [32]byte, tx Tx) ([]byte, error) {
	tx.Sigs = nil
	body, err := merkle.Encode(tx.Body)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", tx.Body.Kind(), err)
	}
	b, err := merkle.Encode(envelope{txVersion, tx.Seq, tx.Body.Kind(), tx.Account, nil, body})
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", tx.Body.Kind(), err)
	}
	return append(append([]byte("dcnode transaction v3\x00"), network[:]...), b...), nil
}

// Sign adds the signature of one of the account's keys.
func Sign(network [32]byte, tx *Tx, key ed25519.PrivateKey) error {
	b, err := SignBytes(network, *tx)
	if err != nil {
		return err
	}
	pub := []byte(key.Public().(ed25519.PublicKey))
	tx.Sigs = append(slices.Clone(tx.Sigs), Sig{pub, ed25519.Sign(key, b)})
	slices.SortFunc(tx.Sigs, func(a, b Sig) int { return slices.Compare(a.Key, b.Key) })
	return nil
}
