package merkle

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"

	"github.com/fxamacker/cbor/v2"
	"github.com/ipfs/go-cid"
)

// What a codec's value may be: bounds on hostile input, the same for Encode and Decode.
const (
	MaxDepth = 32      // containers and links within each other
	MaxItems = 1 << 17 // elements of one list, or fields of one map
	MaxLink  = 128     // bytes of one CID
)

// ErrInvalid is wrapped by every error about bytes that are not what Encode, Blocks,
// Proof or WriteCAR of equal content would have written.
var ErrInvalid = errors.New("not canonical")

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}

var (
	encMode = must(cbor.EncOptions{
		Sort:          cbor.SortLengthFirst,
		IndefLength:   cbor.IndefLengthForbidden,
		BigIntConvert: cbor.BigIntConvertReject,
		TimeTag:       cbor.EncTagRequired, // which scan refuses: an instant is a number with its unit in its name
		// A list that was emptied and one that never was are the same content.
		NilContainers: cbor.NilContainerAsEmpty,
	}.UserBufferEncMode())
	decMode = must(cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
		DefaultMapType:    reflect.TypeFor[map[string]any](),
		MaxNestedLevels:   2 * MaxDepth, // scan is the stricter one
		MaxArrayElements:  MaxItems,
		MaxMapPairs:       MaxItems,
	}.DecMode())
)

func must[T any](mode T, err error) T {
	if err != nil {
		panic(err) // the options above contradict each other
	}
	return mode
}

// Encode is the DAG-CBOR of v: maps sorted by the length of their keys and then by
// bytes, the shortest form of every number. Fields are named by `cbor:"name,omitempty"`
// tags; []byte is a byte string, Link a link. What DAG-CBOR, or this package, has no
// word for is an error: floats, times, text that is not UTF-8, numbers beyond 64 bits,
// maps with keys other than text. A nil slice or map is an empty one; a nil pointer null.
// A CID is a Link or a *Link: a plain cid.Cid is a byte string that no tool follows, and
// an undefined one is encoded and then not decoded.
func Encode(v any) ([]byte, error) {
	var buf bytes.Buffer
	if err := encodeTo(&buf, v); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

func encodeTo(buf *bytes.Buffer, v any) error {
	start := buf.Len()
	if err := encMode.MarshalToBuffer(v, buf); err != nil {
		return fmt.Errorf("encode %T: %w", v, err)
	}
	if err := scanAll(buf.Bytes()[start:]); err != nil {
		return fmt.Errorf("encode %T: %w", v, err)
	}
	return nil
}

// Decode reads into v, a pointer to a zero value, what Encode of that value writes, and
// nothing else: unknown and repeated fields, fields in another order, floats, indefinite
// lengths, numbers longer than need be, tags other than a link's, bytes that follow, an
// empty field where v's type says omitempty. The error wraps ErrInvalid; v is then of
// no use. What v holds afterwards shares no memory with b.
func Decode(b []byte, v any) error {
	if t := reflect.TypeOf(v); t != nil && t.Kind() == reflect.Pointer {
		return NewDecoder(t.Elem()).Decode(b, v)
	}
	return decodeLoose(b, v)
}

// decodeLoose decodes into any type. It encodes v again: that is how it knows that no
// other bytes mean the same v.
func decodeLoose(b []byte, v any) error {
	if err := scanAll(b); err != nil {
		return fmt.Errorf("decode %T: %w", v, err)
	}
	if err := decMode.Unmarshal(b, v); err != nil {
		return fmt.Errorf("decode %T: %w: %w", v, ErrInvalid, err)
	}
	var buf bytes.Buffer
	buf.Grow(len(b)) // what it is going to be, unless b is refused
	if err := encMode.MarshalToBuffer(v, &buf); err != nil {
		return fmt.Errorf("decode %T: %w: %w", v, ErrInvalid, err)
	}
	if !bytes.Equal(buf.Bytes(), b) {
		return fmt.Errorf("decode %T: %w", v, invalid("the same value is encoded as other bytes"))
	}
	return nil
}

// Raw is a value that stays encoded: Decode checks that it is canonical and leaves it to
// a second Decode to know its type.
type Raw = cbor.RawMessage

// Link is a CID inside a value, which tools of IPLD can follow. A field that may be
// without one is a *Link.
type Link struct{ cid.Cid }

// MarshalCBOR implements cbor.Marshaler: tag 42 around a zero byte and the CID.
func (l Link) MarshalCBOR() ([]byte, error) {
	if !l.Defined() {
		return nil, errors.New("a link without a CID")
	}
	raw := l.KeyString()
	b := appendHead(make([]byte, 0, len(raw)+6), majorTag, tagLink)
	b = appendHead(b, majorBytes, uint64(len(raw)+1))
	return append(append(b, 0), raw...), nil
}

// UnmarshalCBOR implements cbor.Unmarshaler.
func (l *Link) UnmarshalCBOR(b []byte) error {
	s := scanner{b: b}
	c, err := s.link()
	if err == nil {
		err = s.end()
	}
	if err != nil {
		return err
	}
	l.Cid = c
	return nil
}
