package merkle

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
)

// forge builds blocks by hand, right or wrong.
type forge map[cid.Cid][]byte

func (f forge) put(b []byte) cid.Cid { f[Sum(b)] = b; return Sum(b) }

func pair(key string, value ...byte) []byte {
	b := appendHead([]byte{0x82}, majorBytes, uint64(len(key)))
	return append(append(b, key...), value...)
}

func rawLeaf(pairs ...[]byte) []byte {
	b := appendHead([]byte(leafHead), majorList, uint64(len(pairs)))
	return append(b, bytes.Join(pairs, nil)...)
}

func rawInner(n uint64, kids map[int]cid.Cid) []byte {
	b := []byte(innerHead)
	for i := range fanout {
		if c, ok := kids[i]; ok {
			sum, _ := sumOf(c)
			b = append(append(b, linkHead...), sum[:]...)
		} else {
			b = append(b, cborNull)
		}
	}
	return appendHead(append(b, innerTail...), majorUint, n)
}

// byNibble are keys whose paths begin with each nibble, ascending.
func byNibble(each int) (keys [fanout][]string) {
	for i, full := 0, 0; full < fanout; i++ {
		k := fmt.Sprintf("key-%05d", i)
		p := pathOf(k)
		if at := p.nibble(0); len(keys[at]) < each {
			if keys[at] = append(keys[at], k); len(keys[at]) == each {
				full++
			}
		}
	}
	return keys
}

func leafOf(keys ...string) []byte {
	var pairs [][]byte
	for _, k := range keys {
		pairs = append(pairs, pair(k, 0xa0))
	}
	return rawLeaf(pairs...)
}

func TestLoadedMapIsTheOneThatWasWritten(t *testing.T) {
	for _, n := range []int{0, 1, 15, 16, 17, 18, 200, 5000} {
		var m Map[number]
		content := map[string]number{}
		for i := range n {
			k := fmt.Sprint(i)
			content[k] = number{uint64(i)}
			m = m.Set(k, content[k])
		}
		root := rootOf(t, m)
		blocks, order := blocksOf(t, m)
		if order[len(order)-1] != root {
			t.Fatal("the top is not the last block")
		}
		asked := 0
		back, err := Load[number](root, func(c cid.Cid) ([]byte, bool) { asked++; return from(blocks)(c) })
		if err != nil {
			t.Fatal(err)
		}
		if asked != len(blocks) {
			t.Errorf("%d blocks are asked for of %d", asked, len(blocks))
		}
		sameContent(t, back, content)
		if rootOf(t, back) != root || n == 0 && back != (Map[number]{}) {
			t.Error("another root comes back")
		}
		again, orderAgain := blocksOf(t, back)
		if !slices.Equal(order, orderAgain) || !maps.EqualFunc(blocks, again, bytes.Equal) {
			t.Error("other blocks come back")
		}
		// It goes on as the original does.
		if rootOf(t, back.Set("x", number{1}).Delete("3")) != rootOf(t, m.Set("x", number{1}).Delete("3")) {
			t.Error("the loaded map goes on differently")
		}
	}
}

func TestHandmadeBlocksAreThoseOfAMap(t *testing.T) {
	keys := byNibble(2)
	f, kids := forge{}, map[int]cid.Cid{}
	var m Map[number]
	for i, ks := range keys {
		kids[i] = f.put(leafOf(ks...))
		for _, k := range ks {
			m = m.Set(k, number{})
		}
	}
	root := f.put(rawInner(32, kids))
	if rootOf(t, m) != root {
		t.Fatal("the forge of these tests makes other blocks than a map does")
	}
	if back, err := Load[number](root, from(f)); err != nil || back.Len() != 32 {
		t.Fatal(err)
	}
}

func TestLoadRefusesWhatNoMapIs(t *testing.T) {
	keys := byNibble(3)
	full := func(f forge) map[int]cid.Cid {
		kids := map[int]cid.Cid{}
		for i := range keys {
			kids[i] = f.put(leafOf(keys[i][:2]...))
		}
		return kids
	}
	wide := func(change func(f forge, kids map[int]cid.Cid) uint64) func(forge) []byte {
		return func(f forge) []byte {
			kids := full(f)
			return rawInner(change(f, kids), kids)
		}
	}
	a, b, c := keys[0][0], keys[0][1], keys[0][2]
	var seventeen []string
	for i := range keys {
		seventeen = append(seventeen, keys[i][0])
	}
	seventeen = append(seventeen, keys[3][1])
	slices.Sort(seventeen)
	for _, test := range []struct {
		what string
		want string // in the error
		top  func(f forge) []byte
	}{
		{"leaf that should be split", "more than 16", func(forge) []byte { return leafOf(seventeen...) }},
		{"inner node that should be a leaf", "one leaf", func(f forge) []byte {
			return rawInner(2, map[int]cid.Cid{0: f.put(leafOf(a)), 1: f.put(leafOf(keys[1][0]))})
		}},
		{"inner node that should be a leaf and says it is large", "counts", func(f forge) []byte {
			return rawInner(17, map[int]cid.Cid{0: f.put(leafOf(a)), 1: f.put(leafOf(keys[1][0]))})
		}},
		{"inner node that is one leaf just so", "one leaf", func(f forge) []byte {
			kids := map[int]cid.Cid{}
			for i := range keys {
				kids[i] = f.put(leafOf(keys[i][0]))
			}
			return rawInner(16, kids)
		}},
		{"count too large", "counts 33", wide(func(forge, map[int]cid.Cid) uint64 { return 33 })},
		{"count too small", "counts 31", wide(func(forge, map[int]cid.Cid) uint64 { return 31 })},
		{"count without bound", "is more than", wide(func(forge, map[int]cid.Cid) uint64 { return 1 << 63 })},
		{"empty leaf below", "empty leaf", wide(func(f forge, kids map[int]cid.Cid) uint64 { kids[5] = f.put(rawLeaf()); return 30 })},
		{"leaf in another's place", "elsewhere", wide(func(f forge, kids map[int]cid.Cid) uint64 { kids[4], kids[5] = kids[5], kids[4]; return 32 })},
		{"leaf in two places", "elsewhere", wide(func(f forge, kids map[int]cid.Cid) uint64 { kids[15] = kids[14]; return 32 })},
		{"unsorted leaf", "comes after", func(forge) []byte { return leafOf(b, a) }},
		{"key twice", "comes after", func(forge) []byte { return leafOf(a, a) }},
		{"empty key", "empty key", func(forge) []byte { return leafOf("") }},
		{"long key", "more than 255", func(forge) []byte { return leafOf(strings.Repeat("k", 256)) }},
		{"missing block", "missing", wide(func(f forge, kids map[int]cid.Cid) uint64 { delete(f, kids[9]); return 32 })},
		{"block of another CID", "other content", wide(func(f forge, kids map[int]cid.Cid) uint64 { f[kids[9]] = leafOf(c); return 32 })},
		{"value of another type", "decode", func(forge) []byte { return rawLeaf(pair(a, 0x61, 'x')) }},
		{"value in another form", "decode", func(forge) []byte { return rawLeaf(pair(a, 0xa1, 0x61, 'n', 0)) }},
		{"value with a float", "float", func(forge) []byte { return rawLeaf(pair(a, 0xf9, 0, 0)) }},
		{"large value", "more than 122880", func(forge) []byte {
			return rawLeaf(pair(a, append(appendHead(nil, majorBytes, MaxValue), make([]byte, MaxValue)...)...))
		}},
		{"large block", "more than", func(forge) []byte { return append(leafOf(a), make([]byte, MaxBlock)...) }},
		{"bytes that follow a leaf", "follow", func(forge) []byte { return append(leafOf(a), 0) }},
		{"bytes that follow an inner node", "follow", func(f forge) []byte { return append(rawInner(32, full(f)), 0) }},
		{"long count", "longer than need be", func(forge) []byte { return append([]byte(leafHead), 0x98, 1, 0x82, 0x41, 'a', 0xa0) }},
		{"key as text", "type 3", func(forge) []byte { return append([]byte(leafHead), 0x81, 0x82, 0x61, 'a', 0xa0) }},
		{"entry of three", "no pair", func(forge) []byte { return append([]byte(leafHead), 0x81, 0x83, 0x41, 'a', 0xa0, 0xa0) }},
		{"entry of one", "no pair", func(forge) []byte { return append([]byte(leafHead), 0x81, 0x81, 0x41, 'a') }},
		{"another shape", "shape", func(forge) []byte { return []byte{0xa1, 0x61, 'f', 0x80} }},
		{"nothing", "shape", func(forge) []byte { return []byte{} }},
		{"cut leaf", "cut off", func(forge) []byte { b := leafOf(a); return b[:len(b)-1] }},
		{"cut inner node", "cut off", func(f forge) []byte { b := rawInner(32, full(f)); return b[:len(b)-2] }},
		{"link to another kind of block", "shape", wide(func(f forge, kids map[int]cid.Cid) uint64 { return 32 })},
	} {
		f := forge{}
		top := test.top(f)
		if test.what == "link to another kind of block" {
			top = bytes.Replace(top, []byte(cidPrefix), []byte("\x01\x55\x12\x20"), 1)
		}
		m, err := Load[number](f.put(top), from(f))
		if err == nil || m.Len() != 0 {
			t.Errorf("%s: loaded with %d entries", test.what, m.Len())
			continue
		}
		if !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: the error is %q, which does not say %q", test.what, err, test.want)
		}
		if missing := test.what == "missing block"; errors.Is(err, ErrInvalid) == missing {
			t.Errorf("%s: %q wraps ErrInvalid: %v", test.what, err, !missing)
		}
	}
	sum := Sum(leafOf(a))
	for _, c := range []cid.Cid{cid.Undef, cid.NewCidV1(cid.Raw, sum.Hash()), cid.NewCidV0(sum.Hash())} {
		_, err := Load[number](c, func(cid.Cid) ([]byte, bool) { t.Error("asked for it"); return nil, false })
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("a root that is no CID of ours: %v", err)
		}
	}
}

// A few blocks that link to each other many times over could be a trie of 16^64 leaves:
// the first that is in the wrong place ends it.
func TestLoadIsNotSentRoundInTowers(t *testing.T) {
	f := forge{}
	below := f.put(leafOf("a"))
	for range maxPath + 6 {
		kids := map[int]cid.Cid{}
		for i := range fanout {
			kids[i] = below
		}
		below = f.put(rawInner(1<<30, kids))
	}
	asked := 0
	_, err := Load[number](below, func(c cid.Cid) ([]byte, bool) { asked++; return from(f)(c) })
	if !errors.Is(err, ErrInvalid) || asked > maxPath+2 {
		t.Errorf("after %d blocks: %v", asked, err)
	}
	for top := range maps.Keys(f) {
		asked = 0
		if _, err := Load[number](top, func(c cid.Cid) ([]byte, bool) { asked++; return from(f)(c) }); err == nil && asked != 1 || asked > 20*maxPath {
			t.Errorf("after %d blocks: %v", asked, err)
		}
	}
}
