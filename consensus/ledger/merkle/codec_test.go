package merkle

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/node/basicnode"
)

// again is what another implementation of DAG-CBOR makes of b: decoded and encoded.
func again(b []byte) ([]byte, error) {
	nb := basicnode.Prototype.Any.NewBuilder()
	if err := (dagcbor.DecodeOptions{AllowLinks: true}).Decode(nb, bytes.NewReader(b)); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err := dagcbor.Encode(nb.Build(), &out)
	return out.Bytes(), err
}

// everything has a field of each kind that a record of the ledger may have.
type everything struct {
	Bool    bool              `cbor:"bool,omitempty"`
	Int     int64             `cbor:"int,omitempty"`
	Uint    uint64            `cbor:"u,omitempty"`
	Text    string            `cbor:"a-long-name-of-a-text,omitempty"`
	Bytes   []byte            `cbor:"bytes,omitempty"`
	Array   [4]byte           `cbor:"array"`
	List    []string          `cbor:"list"`
	Map     map[string]uint32 `cbor:"map,omitempty"`
	Link    *Link             `cbor:"link,omitempty"`
	Must    Link              `cbor:"must"`
	Inner   []number          `cbor:"inner,omitempty"`
	Pointer *number           `cbor:"pointer"`
}

func randomText(r *rand.Rand) string {
	var b strings.Builder
	for range r.IntN(40) {
		b.WriteRune([]rune("aZ09-é漢🙂\x00")[r.IntN(9)])
	}
	return b.String()
}

// randomInt favours the edges of encodings.
func randomInt(r *rand.Rand) uint64 {
	edges := []uint64{0, 23, 24, 255, 256, 65535, 65536, math.MaxUint32, math.MaxUint32 + 1, math.MaxInt64, math.MaxUint64}
	if r.IntN(2) == 0 {
		return edges[r.IntN(len(edges))]
	}
	return r.Uint64() >> r.IntN(64)
}

func random(r *rand.Rand) *everything {
	c := Sum([]byte{byte(r.Uint32())})
	e := &everything{
		Bool: r.IntN(2) == 0, Int: int64(randomInt(r)), Uint: randomInt(r), Text: randomText(r),
		List: []string{}, Must: Link{cid.NewCidV1(cid.Raw, c.Hash())},
	}
	for range r.IntN(30) {
		e.List = append(e.List, randomText(r))
	}
	if r.IntN(2) == 0 {
		e.Link = &Link{cid.NewCidV0(c.Hash())}
		e.Bytes = []byte(randomText(r) + "\xff")
		e.Map = map[string]uint32{}
		for range 1 + r.IntN(30) {
			e.Map[randomText(r)] = r.Uint32()
		}
		e.Pointer = &number{randomInt(r)}
		e.Inner = []number{{1}, {0}}
		e.Array = [4]byte{1, 2, 3, 4}
	}
	return e
}

func TestAnotherImplementationReadsAndWritesTheSameBytes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		want := random(r)
		b, err := Encode(want)
		if err != nil {
			t.Fatal(err)
		}
		other, err := again(b)
		if err != nil {
			t.Fatalf("%x: the other implementation says: %v", b, err)
		}
		if !bytes.Equal(b, other) {
			t.Fatalf("we wrote\n%x, the other implementation\n%x", b, other)
		}
		var got everything
		if err := Decode(b, &got); err != nil {
			t.Fatalf("%x: %v", b, err)
		}
		if !reflect.DeepEqual(&got, want) {
			t.Fatalf("%+v came back as %+v", want, &got)
		}
		var loose any
		if err := Decode(b, &loose); err != nil {
			t.Fatalf("%x: without a type: %v", b, err)
		}
	}
	m, _ := fleet(2000)
	for _, m := range []Map[*machine]{{}, m} {
		err := m.Blocks(func(c cid.Cid, b []byte) bool {
			other, err := again(b)
			if err != nil || !bytes.Equal(b, other) {
				t.Fatalf("block %s: the other implementation makes another one of it: %v", c, err)
			}
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A hand-checked encoding: whoever changes it changes every root there is.
func TestEncodingStaysWhatItIs(t *testing.T) {
	for _, c := range []struct {
		v    any
		want string
	}{
		{number{}, "a0"},
		{number{500}, "a1616e1901f4"},
		{map[string]int{"bb": 1, "c": -1, "": 24}, "a360181861632062626201"},
		{[]any{nil, true, false, []byte{1}, "é"}, "85f6f5f4410162c3a9"},
		{struct {
			A []byte
			B map[string]int
			C *int
		}{}, "a3614140" + "6142a0" + "6143f6"},
		{Link{Sum(nil)}, "d82a58250001711220e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
		{uint64(math.MaxUint64), "1bffffffffffffffff"},
		{int64(math.MinInt64), "3b7fffffffffffffff"},
	} {
		b, err := Encode(c.v)
		if err != nil || hex.EncodeToString(b) != c.want {
			t.Errorf("%#v is %x (%v), want %s", c.v, b, err, c.want)
		}
	}
	m := Map[number]{}
	if c := rootOf(t, m); c != Sum([]byte("\xa1\x61e\x80")) {
		t.Errorf("the empty map is %s", c)
	}
	if c, want := rootOf(t, m.Set("a", number{1}).Set("B", number{})), Sum([]byte("\xa1\x61e\x82\x82\x41B\xa0\x82\x41a\xa1\x61n\x01")); c != want {
		t.Errorf("a map of two is %s, want %s", c, want)
	}
}

func TestWhatHasNoCanonicalFormIsNotEncoded(t *testing.T) {
	deep := any(1)
	for range MaxDepth + 1 {
		deep = []any{deep}
	}
	for _, v := range []any{
		1.0, float32(1), math.NaN(), "\xff", time.Unix(1, 0), map[int]string{1: "a"}, map[bool]string{true: "a"},
		Link{}, struct{ L Link }{}, deep, make([]bool, MaxItems+1), make(chan int), func() {},
		map[string]string{"\xc3": ""}, struct{ F float64 }{1},
	} {
		if b, err := Encode(v); err == nil {
			t.Errorf("%T is encoded as %.40x", v, b)
		}
	}
}

func TestDecodeTakesOneFormOnly(t *testing.T) {
	link := "d82a58250001711220e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	cases := []struct{ what, in string }{
		{"nothing", ""},
		{"cut in a head", "19ff"},
		{"cut in text", "6261"},
		{"cut in a list", "8201"},
		{"cut in a map", "a1616e"},
		{"bytes that follow", "0000"},
		{"24 as two bytes too few", "1817"},
		{"255 in two bytes", "1900ff"},
		{"65535 in four bytes", "1a0000ffff"},
		{"2^32-1 in eight bytes", "1b00000000ffffffff"},
		{"reserved length", "1c"},
		{"indefinite list", "9f01ff"},
		{"indefinite map", "bf616e01ff"},
		{"indefinite text", "7f6161ff"},
		{"indefinite bytes", "5f4161ff"},
		{"lone break", "ff"},
		{"length longer than need be", "580161"},
		{"half float", "f93c00"},
		{"float", "fa3f800000"},
		{"double", "fb3ff0000000000000"},
		{"undefined", "f7"},
		{"simple 0", "e0"},
		{"simple 255", "f8ff"},
		{"true in two bytes", "f815"},
		{"text that is not UTF-8", "61ff"},
		{"surrogate in text", "63eda080"},
		{"key that is not UTF-8", "a161ff01"},
		{"number below -2^63", "3b8000000000000000"},
		{"repeated key", "a2616e01616e02"},
		{"keys out of order", "a2616201616101"},
		{"keys in bytewise order", "a262616101616201"},
		{"number as key", "a10101"},
		{"bytes as key", "a1416e01"},
		{"time", "c11a5f000000"},
		{"bignum", "c24101"},
		{"self-described", "d9d9f701"},
		{"link with a long tag", "d9002a58250001711220e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
		{"link of text", "d82a6100"},
		{"link without its zero", "d82a582401711220e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
		{"empty link", "d82a40"},
		{"link of a zero alone", "d82a4100"},
		{"link with bytes that follow", "d82a58260001711220e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b85500"},
		{"link with a long version", "d82a5826008100711220e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
		{"link with a codec of two bytes that ends early", "d82a5825000" + "1f11220e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
		{"link by another tag", "d829" + link[4:]},
		{"link whose zero is a one", "d82a582501" + link[10:]},
		{"link in a link", "d82a" + link},
		{"large list of nothing", "9b7fffffffffffffff"},
		{"large map of nothing", "bb7fffffffffffffff"},
		{"large bytes of nothing", "5bffffffffffffffff"},
		{"large text of nothing", "7bffffffffffffffff"},
		{"deep", strings.Repeat("81", MaxDepth+1) + "01"},
		{"very deep", strings.Repeat("81", 1<<20) + "01"},
	}
	for _, c := range cases {
		b, err := hex.DecodeString(c.in)
		if err != nil {
			t.Fatal(err)
		}
		var v any
		if err := Decode(b, &v); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: decoded as %v, error %v", c.what, v, err)
		}
		// Find hands out values that were scanned and not decoded.
		if err := scanAll(b); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: scanned, error %v", c.what, err)
		}
	}
	var v any
	if b, _ := hex.DecodeString(strings.Repeat("81", MaxDepth) + "01"); Decode(b, &v) != nil {
		t.Error("as deep as may be is refused")
	}
	if b, _ := hex.DecodeString(link); Decode(b, &v) != nil {
		t.Error("a link alone is refused")
	}
}

// What the type says counts too: two encodings of one record would be two roots of one
// state.
func TestDecodeTakesOneFormOfARecord(t *testing.T) {
	type record struct {
		N    uint8  `cbor:"n,omitempty"`
		Name string `cbor:"name"`
		L    []byte `cbor:"l"`
	}
	const good = "a3616c406" + "16e05" + "646e616d656161"
	for _, c := range []struct{ what, in string }{
		{"", good},
		{"unknown field", "a4616c40616e056178" + "01646e616d656161"},
		{"field in another case", "a3614c40616e05646e616d656161"},
		{"empty field that is to be left out", "a3616c40616e00646e616d656161"},
		{"missing field", "a2616c40616e05"},
		{"null for text", "a3616c40616e05646e616d65f6"},
		{"null for bytes", "a3616cf6616e05646e616d656161"},
		{"number that does not fit", "a3616c40616e190100646e616d656161"},
		{"bytes for text", "a3616c40616e05646e616d654161"},
		{"list for bytes", "a3616c80616e05646e616d656161"},
		{"list for a record", "8305616140"},
	} {
		b, err := hex.DecodeString(c.in)
		if err != nil {
			t.Fatal(err)
		}
		var v record
		err = Decode(b, &v)
		if c.what == "" {
			if err != nil || v.N != 5 || v.Name != "a" {
				t.Fatalf("%+v, %v", v, err)
			}
		} else if !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %+v, error %v", c.what, v, err)
		}
	}
}

func TestDecodedValueKeepsNoPartOfTheBytes(t *testing.T) {
	b, err := Encode(&everything{Text: "text", Bytes: []byte("bytes"), Must: Link{Sum(nil)}})
	if err != nil {
		t.Fatal(err)
	}
	var v everything
	if err := Decode(b, &v); err != nil {
		t.Fatal(err)
	}
	clear(b)
	if v.Text != "text" || string(v.Bytes) != "bytes" || v.Must.Cid != Sum(nil) {
		t.Errorf("the value changed with the bytes: %+v", v)
	}
}

func FuzzDecode(f *testing.F) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 10 {
		b, err := Encode(random(r))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte("\xa2\x61a\xf6\x61b\x82\x20\xf5"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, v := range []any{new(any), new(everything), new(number), new(Link), new(string), new([]int8), new(map[string]any)} {
			if err := Decode(b, v); err != nil {
				if !errors.Is(err, ErrInvalid) {
					t.Fatal(err)
				}
				continue
			}
			out, err := Encode(v)
			if err != nil || !bytes.Equal(out, b) {
				t.Fatalf("%x is taken as %T and written as %x (%v)", b, v, out, err)
			}
			other, err := again(b)
			if err != nil {
				t.Fatalf("%x is taken by us and refused by the other implementation: %v", b, err)
			}
			if !bytes.Equal(other, b) {
				t.Fatalf("%x is taken by us; the other implementation writes %x", b, other)
			}
		}
	})
}

func ExampleEncode() {
	b, err := Encode(struct {
		Name  string `cbor:"name"`
		Epoch uint64 `cbor:"epoch,omitempty"`
	}{"web1", 3})
	fmt.Printf("%x %v\n", b, err)
	// Output: a2646e616d6564776562316565706f636803 <nil>
}
