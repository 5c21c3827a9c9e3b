package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Kind names a transaction.
type Kind string

// The kinds of transactions.
const (
	KindPublish  Kind = "image.publish"
	KindWithdraw Kind = "image.withdraw"
	KindHold     Kind = "image.hold"
	KindDefine   Kind = "machine.define"
	KindSet      Kind = "machine.set"
	KindDelete   Kind = "machine.delete"
	KindIntent   Kind = "move.intent"
	KindBid      Kind = "move.bid"
	KindRelease  Kind = "move.release"
	KindConfirm  Kind = "move.confirm"
	KindDecline  Kind = "move.decline"
	KindAbort    Kind = "move.abort"
	KindReclaim  Kind = "move.reclaim"
	KindTick     Kind = "tick"
)

// MaxTx is the largest encoded transaction, in bytes.
const MaxTx = 64 << 10

// Tx is one transaction. Its author is the creator of the event that carries it,
// whose signature covers it.
type Tx struct {
	ID   string // unique among the author's: lets the author recognise its own
	Body Body
}

// Body is the content of a transaction: one of the types of this package that
// are named in its documentation.
type Body interface {
	Kind() Kind
	apply(s *State, p Place) ([]Effect, error)
}

type envelope struct {
	V    int             `json:"v"`
	ID   string          `json:"id"`
	Kind Kind            `json:"kind"`
	Body json.RawMessage `json:"body"`
}

const txVersion = 1

// Encode is the transaction's payload for an event.
func Encode(tx Tx) ([]byte, error) {
	body, err := json.Marshal(tx.Body)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", tx.Body.Kind(), err)
	}
	b, err := json.Marshal(envelope{V: txVersion, ID: tx.ID, Kind: tx.Body.Kind(), Body: body})
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", tx.Body.Kind(), err)
	}
	if len(b) > MaxTx {
		return nil, fmt.Errorf("encode %s: %d bytes are more than the %d that a transaction may have", tx.Body.Kind(), len(b), MaxTx)
	}
	return b, nil
}

// Decode reads what Encode wrote. Unknown versions, kinds and fields are errors,
// the same at every member.
func Decode(b []byte) (Tx, error) {
	if len(b) > MaxTx {
		return Tx{}, fmt.Errorf("decode transaction: %d bytes are more than %d", len(b), MaxTx)
	}
	var e envelope
	if err := strict(b, &e); err != nil {
		return Tx{}, fmt.Errorf("decode transaction: %w", err)
	}
	if e.V != txVersion {
		return Tx{}, fmt.Errorf("decode transaction: version %d is not known; this dcnode knows %d", e.V, txVersion)
	}
	body := newBody(e.Kind)
	if body == nil {
		return Tx{}, fmt.Errorf("decode transaction: kind %q is not known", e.Kind)
	}
	if err := strict(e.Body, body); err != nil {
		return Tx{}, fmt.Errorf("decode %s: %w", e.Kind, err)
	}
	return Tx{ID: e.ID, Body: body}, nil
}

func strict(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the transaction")
	}
	return nil
}

func newBody(k Kind) Body {
	switch k {
	case KindPublish:
		return new(Publish)
	case KindWithdraw:
		return new(Withdraw)
	case KindHold:
		return new(Hold)
	case KindDefine:
		return new(Define)
	case KindSet:
		return new(Set)
	case KindDelete:
		return new(Delete)
	case KindIntent:
		return new(Intent)
	case KindBid:
		return new(Bid)
	case KindRelease:
		return new(Release)
	case KindConfirm:
		return new(Confirm)
	case KindDecline:
		return new(Decline)
	case KindAbort:
		return new(Abort)
	case KindReclaim:
		return new(Reclaim)
	case KindTick:
		return new(Tick)
	}
	return nil
}

// Tick carries nothing: it lets an idle overlay's time pass a deadline.
type Tick struct{}

// Kind implements Body.
func (*Tick) Kind() Kind { return KindTick }

func (*Tick) apply(*State, Place) ([]Effect, error) { return nil, nil }
