package merkle

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
)

// readCAR is the specification of CARv1 in few words, with another codec for the header.
func readCAR(t *testing.T, b []byte) (root cid.Cid, order []cid.Cid, blocks map[cid.Cid][]byte) {
	t.Helper()
	chunk := func() []byte {
		size, n := binary.Uvarint(b)
		if n <= 0 || size > uint64(len(b)-n) {
			t.Fatalf("a section of %d bytes with %d left", size, len(b))
		}
		c := b[n : n+int(size)]
		b = b[n+int(size):]
		return c
	}
	nb := basicnode.Prototype.Map.NewBuilder()
	if err := dagcbor.Decode(nb, bytes.NewReader(chunk())); err != nil {
		t.Fatal(err)
	}
	header := nb.Build()
	version, err := header.LookupByString("version")
	if err != nil {
		t.Fatal(err)
	}
	if v, err := version.AsInt(); v != 1 || err != nil {
		t.Fatalf("version %d: %v", v, err)
	}
	roots, err := header.LookupByString("roots")
	if err != nil || roots.Length() != 1 || header.Length() != 2 {
		t.Fatalf("%d roots, %d fields: %v", roots.Length(), header.Length(), err)
	}
	first, err := roots.LookupByIndex(0)
	if err != nil {
		t.Fatal(err)
	}
	link, err := first.AsLink()
	if err != nil {
		t.Fatal(err)
	}
	blocks = map[cid.Cid][]byte{}
	for len(b) > 0 {
		section := chunk()
		n, c, err := cid.CidFromBytes(section)
		if err != nil {
			t.Fatal(err)
		}
		if sum, err := c.Prefix().Sum(section[n:]); err != nil || sum != c {
			t.Fatalf("block %s has other content: %v", c, err)
		}
		order, blocks[c] = append(order, c), section[n:]
	}
	return link.(cidlink.Link).Cid, order, blocks
}

func someMap(n int) (m Map[number]) {
	for i := range n {
		m = m.Set(fmt.Sprint(i), number{uint64(i)})
	}
	return m
}

func TestAnotherReaderFindsTheSameBlocks(t *testing.T) {
	for _, n := range []int{0, 1, 17, 3000} {
		m := someMap(n)
		root := rootOf(t, m)
		car, err := WriteCAR(root, m.Blocks)
		if err != nil {
			t.Fatal(err)
		}
		if cap(car) != len(car) {
			t.Errorf("%d bytes in an allocation of %d", len(car), cap(car))
		}
		gotRoot, order, blocks := readCAR(t, car)
		want, wantOrder := blocksOf(t, m)
		if gotRoot != root || !slices.Equal(order, wantOrder) || !maps.EqualFunc(blocks, want, bytes.Equal) {
			t.Fatalf("%d entries: another reader finds other blocks", n)
		}
		gotRoot, get, err := ReadCAR(car)
		if err != nil || gotRoot != root {
			t.Fatal(gotRoot, err)
		}
		for c, b := range want {
			if got, ok := get(c); !ok || !bytes.Equal(got, b) {
				t.Fatalf("block %s is another", c)
			}
		}
		if _, ok := get(Sum([]byte("absent"))); ok {
			t.Error("a block that is not there")
		}
		if _, ok := get(cid.NewCidV1(cid.Raw, root.Hash())); ok {
			t.Error("a raw block")
		}
		back, err := Load[number](root, get)
		if err != nil || back.Len() != n {
			t.Fatal(err)
		}
		if again, err := WriteCAR(root, back.Blocks); err != nil || !bytes.Equal(again, car) {
			t.Errorf("what was loaded is written as other bytes (%v)", err)
		}
	}
}

// A state is several maps under one root.
func TestEqualMapsOfOneStateAreWrittenOnce(t *testing.T) {
	m := someMap(40)
	roots := []Link{{rootOf(t, m)}, {rootOf(t, Map[number]{})}, {rootOf(t, m)}, {rootOf(t, Map[number]{})}}
	top, err := Encode(roots)
	if err != nil {
		t.Fatal(err)
	}
	car, err := WriteCAR(Sum(top), func(yield func(cid.Cid, []byte) bool) error {
		for _, part := range []Map[number]{m, {}, m, {}} {
			if err := part.Blocks(yield); err != nil {
				return err
			}
		}
		yield(Sum(top), top)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	_, order, _ := readCAR(t, car)
	_, parts := blocksOf(t, m)
	if len(order) != len(parts)+2 {
		t.Errorf("%d blocks are written of %d", len(order), len(parts)+2)
	}
	if _, _, err := ReadCAR(car); err != nil {
		t.Error(err)
	}
}

func TestWriteCARSaysWhatIsWrong(t *testing.T) {
	block := leafOf("a")
	c := Sum(block)
	of := func(c cid.Cid, b []byte) func(func(cid.Cid, []byte) bool) error {
		return func(yield func(cid.Cid, []byte) bool) error { yield(c, b); return nil }
	}
	broken := errors.New("broken")
	for what, err := range map[string]error{
		"no root":      second(WriteCAR(cid.Undef, of(c, block))),
		"no blocks":    second(WriteCAR(c, func(func(cid.Cid, []byte) bool) error { return nil })),
		"another last": second(WriteCAR(Sum(nil), of(c, block))),
		"raw block":    second(WriteCAR(c, of(cid.NewCidV1(cid.Raw, c.Hash()), block))),
		"empty block":  second(WriteCAR(c, of(c, nil))),
		"large block":  second(WriteCAR(c, of(c, make([]byte, MaxBlock+1)))),
		"bad value":    second(WriteCAR(c, Map[any]{}.Set("x", 0.5).Blocks)),
	} {
		if err == nil {
			t.Errorf("%s: written", what)
		}
	}
	if err := second(WriteCAR(c, func(func(cid.Cid, []byte) bool) error { return broken })); !errors.Is(err, broken) {
		t.Errorf("the cause is lost: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestReadCARRefusesWhatWasNotWritten(t *testing.T) {
	m := someMap(17)
	root := rootOf(t, m)
	car, err := WriteCAR(root, m.Blocks)
	if err != nil {
		t.Fatal(err)
	}
	section := func(b []byte) []byte {
		c := Sum(b)
		out := binary.AppendUvarint(nil, uint64(len(c.Bytes())+len(b)))
		return append(append(out, c.Bytes()...), b...)
	}
	last, ok := from(firstOf(blocksOf(t, m)))(root)
	if !ok {
		t.Fatal("no top")
	}
	head, body := car[:carHeader], car[carHeader:]
	rest := body[:len(body)-len(section(last))]
	firstLen, _ := binary.Uvarint(rest)
	first := rest[:1+firstLen]
	for what, b := range map[string][]byte{
		"nothing":             nil,
		"header alone":        head,
		"header cut":          head[:10],
		"no root block":       slices.Concat(head, rest),
		"root first":          slices.Concat(head, section(last), rest),
		"block twice":         slices.Concat(head, first, rest, section(last)),
		"root twice":          slices.Concat(car, section(last)),
		"block after root":    slices.Concat(car, section([]byte{0xa0})),
		"empty block":         slices.Concat(head, section(nil), body),
		"empty section":       slices.Concat(head, []byte{0}, body),
		"junk":                append(bytes.Clone(car), 0),
		"large section":       slices.Concat(head, section(make([]byte, MaxBlock+1)), body),
		"long varint":         slices.Concat(head, []byte{first[0] | 0x80, 0}, first[1:], body[len(first):]),
		"endless varint":      slices.Concat(head, bytes.Repeat([]byte{0xff}, 11)),
		"length beyond 2^63":  slices.Concat(head, binary.AppendUvarint(nil, 1<<63+40), body),
		"version 2":           bytes.Replace(car, []byte("version\x01"), []byte("version\x02"), 1),
		"long header":         slices.Concat([]byte{head[0] | 0x80, 0}, car[1:]),
		"another root":        slices.Concat([]byte(carHead), make([]byte, 32), []byte(carTail), body),
		"block of another ID": bytes.Replace(car, []byte("\x82\x41"), []byte("\x82\x42"), 1),
	} {
		if _, get, err := ReadCAR(b); !errors.Is(err, ErrInvalid) || get != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	for i := range car {
		if _, _, err := ReadCAR(car[:i]); !errors.Is(err, ErrInvalid) {
			t.Fatalf("cut after %d bytes: %v", i, err)
		}
		for bit := range 8 {
			b := bytes.Clone(car)
			b[i] ^= 1 << bit
			if _, _, err := ReadCAR(b); !errors.Is(err, ErrInvalid) {
				t.Fatalf("bit %d of byte %d: %v", bit, i, err)
			}
		}
	}
}

func firstOf[A, B any](a A, _ B) A { return a }

func FuzzReadCAR(f *testing.F) {
	for _, n := range []int{0, 1, 20} {
		m := someMap(n)
		root, err := m.Root()
		if err != nil {
			f.Fatal(err)
		}
		car, err := WriteCAR(root, m.Blocks)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(car[carHeader:], true)
		f.Add(car, false)
	}
	f.Fuzz(func(t *testing.T, b []byte, mend bool) {
		if mend {
			b = mended(b)
		}
		root, get, err := ReadCAR(b)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		gotRoot, order, blocks := readCAR(t, b)
		if gotRoot != root || len(blocks) != len(order) {
			t.Fatal("another reader finds another root, or blocks twice")
		}
		again, err := WriteCAR(root, func(yield func(cid.Cid, []byte) bool) error {
			for _, c := range order {
				block, ok := get(c)
				if !ok || !bytes.Equal(block, blocks[c]) {
					t.Fatalf("block %s is another", c)
				}
				yield(c, block)
			}
			return nil
		})
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("it is written as other bytes: %v", err)
		}
		m, err := Load[number](root, get)
		if err != nil {
			return
		}
		if c, err := m.Root(); err != nil || c != root {
			t.Fatalf("the loaded map has another root: %v", err)
		}
		fresh := Map[number]{}
		for k, v := range m.All() {
			fresh = fresh.Set(k, v)
		}
		if c, err := fresh.Root(); err != nil || c != root {
			t.Fatalf("a map of the same content has another root: %v", err)
		}
	})
}

// mended gives sections right CIDs and a header, so that what is behind the hashes is
// reached.
func mended(b []byte) []byte {
	var out []byte
	var last cid.Cid
	for len(b) > 0 {
		size, n := binary.Uvarint(b)
		if n <= 0 || size > uint64(len(b)-n) || size < uint64(sectionMin) {
			break
		}
		block := b[n+sectionMin : n+int(size)]
		last = Sum(block)
		out = append(out, b[:n]...)
		out = append(append(out, last.Bytes()...), block...)
		b = b[n+int(size):]
	}
	out = append(out, b...)
	if !last.Defined() {
		return out
	}
	sum, _ := sumOf(last)
	return slices.Concat([]byte(carHead), sum[:], []byte(carTail), out)
}
