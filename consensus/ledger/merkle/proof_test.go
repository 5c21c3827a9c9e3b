package merkle

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"
)

func TestProofShowsWhatIsThereAndWhatIsNot(t *testing.T) {
	for _, n := range []int{0, 1, 16, 17, 40, 3000} {
		var m Map[number]
		for i := range n {
			m = m.Set(fmt.Sprint(i), number{uint64(i)})
		}
		root := rootOf(t, m)
		for i := 0; i < n+200; i += 1 + n/100 {
			k := fmt.Sprint(i)
			proof, err := m.Proof(k)
			if err != nil {
				t.Fatal(err)
			}
			value, found, err := Find(root, proof, k)
			if err != nil || found != (i < n) {
				t.Fatalf("%d of %d: found %v, %v", i, n, found, err)
			}
			if !found {
				if value != nil {
					t.Fatalf("a value that is not there: %x", value)
				}
				continue
			}
			var v number
			if err := Decode(value, &v); err != nil || v.N != uint64(i) {
				t.Fatalf("%x: %v", value, err)
			}
		}
	}
}

func TestForgedProofIsRefused(t *testing.T) {
	var m Map[number]
	for i := range 3000 {
		m = m.Set(fmt.Sprint(i), number{uint64(i)})
	}
	root := rootOf(t, m)
	other := m.Set("77", number{1})
	otherRoot := rootOf(t, other)
	for _, k := range []string{"77", "absent-1", "absent-2", "absent-5"} {
		proof, err := m.Proof(k)
		if err != nil {
			t.Fatal(err)
		}
		refused := func(what string, root cid.Cid, proof [][]byte, key string) {
			t.Helper()
			if v, found, err := Find(root, proof, key); !errors.Is(err, ErrInvalid) || found || v != nil {
				t.Errorf("%s of %q: value %x, found %v, error %v", what, k, v, found, err)
			}
		}
		for i := range proof {
			refused("a cut proof", root, proof[:i], k)
			refused("a proof without its start", root, proof[i+1:], k)
			refused("a proof that lacks a block", root, slices.Delete(slices.Clone(proof), i, i+1), k)
			refused("a proof with a block twice", root, slices.Insert(slices.Clone(proof), i, proof[i]), k)
			for bit := range 8 * len(proof[i]) {
				forged := slices.Clone(proof)
				forged[i] = bytes.Clone(proof[i])
				forged[i][bit/8] ^= 1 << (bit % 8)
				refused("a changed bit", root, forged, k)
			}
		}
		refused("a block more", root, append(slices.Clone(proof), proof[len(proof)-1]), k)
		refused("no proof", root, nil, k)
		refused("another root", otherRoot, proof, k)
		refused("a root of another kind", cid.NewCidV1(cid.Raw, root.Hash()), proof, k)
		refused("no root", cid.Undef, proof, k)
		refused("a proof of another place", root, proof, "81")
		if _, _, err := Find(root, proof, ""); err == nil {
			t.Error("an empty key is looked for")
		}
		value, found, err := Find(root, proof, k)
		if err != nil {
			t.Fatal(err)
		}
		var v number
		if found != (k == "77") || found && (Decode(value, &v) != nil || v.N != 77) {
			t.Errorf("the true proof of %q: %x, %v", k, value, found)
		}
	}
}

// The blocks may be linked rightly and still be no map's: that a key is absent is shown
// only by a leaf in the place where the key would be.
func TestProofThroughAMisshapenTrieIsRefused(t *testing.T) {
	keys := byNibble(2)
	f, kids := forge{}, map[int]cid.Cid{}
	for i := range keys {
		kids[i] = f.put(leafOf(keys[i]...))
	}
	key := keys[3][0]
	wrong := map[string][]byte{
		"a leaf of another place": leafOf(keys[4]...),
		"an empty leaf":           rawLeaf(),
		"a key twice":             leafOf(keys[3][0], keys[3][0]),
		"unsorted":                leafOf(keys[3][1], keys[3][0]),
		"a small inner node":      rawInner(2, nil),
		"a value that is none":    rawLeaf(pair(key, 0xff)),
	}
	for what, leaf := range wrong {
		kids[3] = f.put(leaf)
		top := rawInner(32, kids)
		if v, found, err := Find(Sum(top), [][]byte{top, leaf}, key); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %x, %v, %v", what, v, found, err)
		}
	}
	leaf := leafOf(keys[3]...)
	kids[3] = f.put(leaf)
	top := rawInner(32, kids)
	if _, found, err := Find(Sum(top), [][]byte{top, leaf}, key); err != nil || !found {
		t.Error(found, err)
	}
	delete(kids, 3)
	top = rawInner(30, kids)
	if _, found, err := Find(Sum(top), [][]byte{top}, key); err != nil || found {
		t.Error(found, err)
	}
}

func FuzzFind(f *testing.F) {
	var m Map[number]
	for i := range 600 {
		m = m.Set(fmt.Sprint(i), number{uint64(i)})
	}
	for _, k := range []string{"7", "300", "none"} {
		proof, err := m.Proof(k)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(k, bytes.Join(proof, nil), len(proof[0]), len(proof[1]))
	}
	f.Add("a", leafOf("a", "b"), 16, 0)
	f.Fuzz(func(t *testing.T, key string, b []byte, first, second int) {
		cut := func(n int) []byte {
			part := b[:min(max(n, 0), len(b))]
			b = b[len(part):]
			return part
		}
		proof := [][]byte{cut(first), cut(second), b}
		proof = slices.DeleteFunc(proof, func(b []byte) bool { return len(b) == 0 })
		if len(proof) == 0 {
			return
		}
		// The root is made to fit, and so are links, so that what is behind the hash is reached.
		for i := len(proof) - 2; i >= 0; i-- {
			p := pathOf(key)
			proof[i] = relink(proof[i], p.nibble(i), Sum(proof[i+1]))
		}
		value, found, err := Find(Sum(proof[0]), proof, key)
		if err != nil {
			if found || value != nil {
				t.Fatal("an error and a value")
			}
			return
		}
		if found {
			if err := scanAll(value); err != nil {
				t.Fatalf("the value %x: %v", value, err)
			}
		}
		if _, found, err := Find(Sum(append([]byte{0}, proof[0]...)), proof, key); err == nil || found {
			t.Fatal("another root is as good")
		}
	})
}

// relink makes the i-th link of an inner node's block lead to c, if it has one.
func relink(block []byte, i int, c cid.Cid) []byte {
	raw, err := parseNode(block, new(path), 0)
	if err != nil || !raw.inner || !raw.has[i] {
		return block
	}
	sum, _ := sumOf(c)
	return bytes.Replace(block, raw.kids[i][:], sum[:], 1)
}
