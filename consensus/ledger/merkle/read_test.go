package merkle

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/ipfs/go-cid"
)

type word string

// record has a field of each kind that is read in one pass.
type record struct {
	Bool     bool      `json:"b,omitempty"`
	Sure     bool      `json:"sure"`
	Int      int       `json:"i,omitempty"`
	Small    int8      `json:"small"`
	Uint     uint64    `json:"u,omitempty"`
	Byte     uint8     `json:"byte"`
	Text     string    `json:"t,omitempty"`
	Word     word      `json:"word" cbor:"w"`
	Bytes    []byte    `json:"-" cbor:"bytes"`
	Some     []byte    `json:"some,omitempty"`
	Array    [4]byte   `json:"array"`
	List     []string  `json:"list,omitempty"`
	All      []string  `json:"all"`
	Words    []word    `json:"words"`
	Keys     [][]byte  `json:"keys"`
	Link     *Link     `json:"link,omitempty"`
	Must     Link      `json:"must"`
	Raw      Raw       `json:"raw"`
	One      point     `json:"one"`
	Points   []point   `json:"points,omitempty"`
	Pointers []*point  `json:"pointers"`
	Pointer  *point    `json:"pointer"`
	Other    *point    `json:"other,omitempty"`
	Number   *int      `json:"number"`
	Nothing  struct{}  `json:"nothing"`
	Deep     [][][]int `json:"deep"`
	Name     string
	Left     string `json:"-"`
	hidden   int
}

type point struct {
	X int64  `json:"x"`
	Y uint16 `json:"y,omitempty"`
}

func randomRecord(r *rand.Rand) *record {
	maybe := func() bool { return r.IntN(2) == 0 }
	texts := func() []string {
		out := []string{}
		for range r.IntN(5) {
			out = append(out, randomText(r))
		}
		return out
	}
	at := func() point { return point{int64(randomInt(r)), uint16(randomInt(r))} }
	rec := &record{
		Bool: maybe(), Sure: maybe(), Int: int(randomInt(r)), Small: int8(r.IntN(256) - 128), Uint: randomInt(r), Byte: uint8(r.IntN(256)),
		Text: randomText(r), Word: word(randomText(r)), Bytes: []byte(randomText(r)), Some: []byte(randomText(r)), List: texts(), All: texts(),
		Words: []word{word(randomText(r))}, Keys: [][]byte{{1}, {}}, Must: Link{cid.NewCidV1(cid.Raw, Sum(nil).Hash())}, Raw: Raw("\xf6"), One: at(), Name: randomText(r),
		Deep: [][][]int{{}, {{}, {int(randomInt(r))}}},
	}
	if maybe() {
		p, n := at(), int(randomInt(r))
		rec.Link, rec.Raw, rec.Other, rec.Number = &Link{Sum([]byte{1})}, Raw("\x82\x01\xa1\x61a\x80"), &p, &n
		rec.Points, rec.Pointers = []point{at(), at()}, []*point{nil, &p}
	}
	return rec
}

// sameAsLoose fails unless reading in one pass takes what decoding and encoding again
// takes, and makes the same of it. It says whether the bytes were taken.
func sameAsLoose(t *testing.T, b []byte, typ reflect.Type) bool {
	t.Helper()
	d := NewDecoder(typ)
	if d.read == nil {
		t.Fatalf("a %s is not read in one pass", typ)
	}
	got, want := reflect.New(typ), reflect.New(typ)
	err, loose := d.Decode(b, got.Interface()), decodeLoose(b, want.Interface())
	if (err == nil) != (loose == nil) {
		t.Fatalf("%x as a %s: in one pass %v, by encoding it again %v", b, typ, err, loose)
	}
	if err != nil {
		if !errors.Is(err, ErrInvalid) {
			t.Fatal(err)
		}
		return false
	}
	if !reflect.DeepEqual(got.Interface(), want.Interface()) {
		t.Fatalf("%x as a %s: in one pass\n%+v, by the library\n%+v", b, typ, got.Elem(), want.Elem())
	}
	return true
}

var onePass = []reflect.Type{
	reflect.TypeFor[record](), reflect.TypeFor[*record](), reflect.TypeFor[point](), reflect.TypeFor[[]point](), reflect.TypeFor[[]*point](),
	reflect.TypeFor[string](), reflect.TypeFor[[]string](), reflect.TypeFor[[]byte](), reflect.TypeFor[[2]byte](), reflect.TypeFor[bool](),
	reflect.TypeFor[int8](), reflect.TypeFor[int64](), reflect.TypeFor[uint8](), reflect.TypeFor[uint64](), reflect.TypeFor[Raw](), reflect.TypeFor[Link](),
	reflect.TypeFor[*Link](), reflect.TypeFor[struct{}](), reflect.TypeFor[[]Raw](), reflect.TypeFor[*[]byte](), reflect.TypeFor[[][]int](),
}

// spoil changes a few bytes, or how many there are.
func spoil(r *rand.Rand, b []byte) []byte {
	b = bytes.Clone(b)
	for range 1 + r.IntN(2) {
		i := r.IntN(len(b) + 1)
		j := min(i+r.IntN(4), len(b))
		var in []byte
		for range r.IntN(4) {
			in = append(in, []byte{0, 1, 0x17, 0x18, 0x20, 0x40, 0x41, 0x60, 0x61, 'x', 0x80, 0x81, 0xa0, 0xf4, 0xf5, 0xf6, 0xd8, 0x2a, 0xff, byte(r.Uint32())}[r.IntN(20)])
		}
		if r.IntN(4) == 0 && len(b) > 0 { // a part of itself
			k := r.IntN(len(b))
			in = b[k:min(k+r.IntN(12), len(b))]
		}
		b = append(append(bytes.Clone(b[:i]), in...), b[j:]...)
		if n := len(b); n > 0 && r.IntN(3) == 0 {
			b[r.IntN(n)] ^= 1 << r.IntN(8)
		}
	}
	return b
}

func TestOnePassTakesWhatEncodingAgainTakes(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	rounds := 3000
	if testing.Short() {
		rounds = 300
	}
	taken, refused := 0, 0
	for range rounds {
		b, err := Encode(randomRecord(r))
		if err != nil {
			t.Fatal(err)
		}
		if !sameAsLoose(t, b, onePass[0]) {
			t.Fatalf("%x is refused", b)
		}
		for range 10 {
			if sameAsLoose(t, spoil(r, b), onePass[0]) {
				taken++
			} else {
				refused++
			}
		}
		small := spoil(r, []byte{0xa2, 0x61, 'x', byte(r.IntN(256)), 0x61, 'y', byte(r.IntN(24))})
		for _, typ := range onePass {
			sameAsLoose(t, small[:r.IntN(len(small)+1)], typ)
			sameAsLoose(t, small, typ)
		}
	}
	if taken < rounds/10 || refused < rounds {
		t.Errorf("of what was changed %d were taken and %d refused: that shows little", taken, refused)
	}
}

// What only the library can read is left to it.
func TestTypesThatAreNotReadInOnePass(t *testing.T) {
	type self struct{ Next *self }
	type embeds struct{ point }
	for _, typ := range []reflect.Type{
		reflect.TypeFor[map[string]int](), reflect.TypeFor[any](), reflect.TypeFor[float64](), reflect.TypeFor[cid.Cid](), reflect.TypeFor[self](),
		reflect.TypeFor[embeds](), reflect.TypeFor[**point](), reflect.TypeFor[[]*Raw](), reflect.TypeFor[everything](),
		reflect.TypeFor[struct {
			P point `json:"p,omitempty"`
		}](),
		reflect.TypeFor[struct {
			_ struct{} `cbor:",toarray"`
			N int
		}](),
		reflect.TypeFor[struct {
			N int `cbor:"1,keyasint"`
		}](),
	} {
		if NewDecoder(typ).read != nil {
			t.Errorf("a %s is read in one pass", typ)
		}
	}
}

func FuzzOnePass(f *testing.F) {
	r := rand.New(rand.NewPCG(7, 8))
	for i := range onePass {
		b, err := Encode(randomRecord(r))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(0), b)
		f.Add(uint8(i), []byte("\x82\xa1\x61x\x20\xa2\x61x\x01\x61y\x02"))
	}
	f.Fuzz(func(t *testing.T, typ uint8, b []byte) {
		sameAsLoose(t, b, onePass[int(typ)%len(onePass)])
	})
}
