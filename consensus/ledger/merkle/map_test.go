package merkle

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
)

// number is a small value.
type number struct {
	N uint64 `cbor:"n,omitempty"`
}

func build(content map[string]number, order []string) (m Map[number]) {
	for _, k := range order {
		m = m.Set(k, content[k])
	}
	return m
}

func rootOf[V any](t testing.TB, m Map[V]) cid.Cid {
	t.Helper()
	c, err := m.Root()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func blocksOf[V any](t testing.TB, m Map[V]) (blocks map[cid.Cid][]byte, order []cid.Cid) {
	t.Helper()
	blocks = map[cid.Cid][]byte{}
	err := m.Blocks(func(c cid.Cid, b []byte) bool {
		if _, again := blocks[c]; again {
			t.Fatalf("block %s is yielded twice", c)
		}
		blocks[c] = b
		order = append(order, c)
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return blocks, order
}

func from(blocks map[cid.Cid][]byte) func(cid.Cid) ([]byte, bool) {
	return func(c cid.Cid) ([]byte, bool) { b, ok := blocks[c]; return b, ok }
}

// wellShaped checks that every node is what its content says it has to be.
func wellShaped(t *testing.T, n *node[number], at *path, depth int) (entries int) {
	t.Helper()
	if n.kids == nil {
		if n.n != len(n.entries) || n.n > leafSize || n.n == 0 {
			t.Fatalf("a leaf that counts %d has %d entries", n.n, len(n.entries))
		}
		for _, e := range n.entries {
			if p := pathOf(e.key); !p.under(at, depth) || e.hash != p.prefix() {
				t.Fatalf("the key %q is in the wrong leaf", e.key)
			}
		}
		return n.n
	}
	for i, kid := range n.kids {
		if kid != nil {
			at.setNibble(depth, i)
			entries += wellShaped(t, kid, at, depth+1)
		}
	}
	if entries != n.n || n.n <= leafSize {
		t.Fatalf("an inner node that counts %d has %d", n.n, entries)
	}
	return entries
}

// sameContent compares all that can be asked of a Map with a Go map.
func sameContent(t *testing.T, m Map[number], want map[string]number) {
	t.Helper()
	if m.Len() != len(want) {
		t.Fatalf("Len is %d, want %d", m.Len(), len(want))
	}
	got := maps.Collect(m.All())
	if !maps.Equal(got, want) {
		t.Fatal("All differs")
	}
	for k, v := range want {
		if g, ok := m.Get(k); !ok || g != v {
			t.Fatalf("Get(%q) = %v, %v; want %v", k, g, ok, v)
		}
	}
	if m.top != nil {
		wellShaped(t, m.top, new(path), 0)
	}
}

func TestMapIsAGoMapWhateverItsHistory(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 1))
		keys := 1 + r.IntN([]int{4, 20, 40, 400, 3000}[seed%5])
		var m Map[number]
		model := map[string]number{}
		type version struct {
			m     Map[number]
			model map[string]number
			root  cid.Cid
		}
		var old []version
		for step := range 3000 {
			k := fmt.Sprintf("vm-%d", r.IntN(keys))
			if r.IntN(1000) < []int{300, 500, 700}[(step/500)%3] {
				before := m
				m = m.Delete(k)
				if _, had := model[k]; !had && m != before {
					t.Fatal("deleting nothing changed the map")
				}
				delete(model, k)
			} else {
				v := number{r.Uint64N(3)}
				m, model[k] = m.Set(k, v), v
			}
			if step%300 == 0 {
				v := version{m: m, model: maps.Clone(model)}
				if r.IntN(2) == 0 {
					v.root = rootOf(t, m)
				}
				old = append(old, v)
			}
		}
		old = append(old, version{m: m, model: model})
		for i, v := range old {
			sameContent(t, v.m, v.model)
			root := rootOf(t, v.m)
			if v.root.Defined() && v.root != root {
				t.Fatalf("seed %d: version %d has another root than it had", seed, i)
			}
			order := slices.Collect(maps.Keys(v.model))
			r.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
			fresh := build(v.model, order)
			if rootOf(t, fresh) != root {
				t.Fatalf("seed %d: version %d has another root than the same content inserted in another order", seed, i)
			}
			a, orderA := blocksOf(t, v.m)
			b, orderB := blocksOf(t, fresh)
			if !slices.Equal(orderA, orderB) || !maps.EqualFunc(a, b, slices.Equal) {
				t.Fatalf("seed %d: version %d has other blocks than the same content", seed, i)
			}
		}
	}
}

func TestDeleteRestoresTheRoot(t *testing.T) {
	var m Map[number]
	var roots []cid.Cid
	const n = 400
	for i := range n {
		roots = append(roots, rootOf(t, m))
		m = m.Set(fmt.Sprint(i), number{uint64(i)})
	}
	for i := n - 1; i >= 0; i-- {
		m = m.Delete(fmt.Sprint(i))
		if rootOf(t, m) != roots[i] {
			t.Fatalf("with %d entries the root after the deletion is not the one before the insertion", i)
		}
	}
	if m != (Map[number]{}) {
		t.Error("an emptied map is not the zero value")
	}
}

func TestRootSaysTheContent(t *testing.T) {
	var m Map[number]
	for i := range 100 {
		m = m.Set(fmt.Sprint(i), number{1})
	}
	root := rootOf(t, m)
	for i := range 100 {
		if rootOf(t, m.Set(fmt.Sprint(i), number{2})) == root {
			t.Fatalf("another value of %d has the same root", i)
		}
	}
	if rootOf(t, m) != root {
		t.Error("setting a key in a copy changed the map")
	}
}

// Keys that someone searched for, so that they share much of their paths, go deep.
func TestCrowdedPathsGoDeepAndComeBack(t *testing.T) {
	content := map[string]number{}
	for i := 0; len(content) < leafSize+4; i++ {
		k := fmt.Sprint("deep-", i)
		if p := pathOf(k); p[0] == 0xab && p[1] == 0xcd {
			content[k] = number{uint64(i)}
		}
	}
	order := slices.Sorted(maps.Keys(content))
	m := build(content, order)
	sameContent(t, m, content)
	depth := 0
	for n := m.top; n.kids != nil; depth++ {
		p := pathOf(order[0])
		n = n.kids[p.nibble(depth)]
	}
	if depth < 5 {
		t.Fatalf("the leaf is at depth %d", depth)
	}
	blocks, _ := blocksOf(t, m)
	back, err := Load[number](rootOf(t, m), from(blocks))
	if err != nil {
		t.Fatal(err)
	}
	sameContent(t, back, content)
	for _, k := range order[leafSize:] {
		m = m.Delete(k)
	}
	if m.top.kids != nil {
		t.Error("16 entries are not one leaf")
	}
	if m.Set(order[leafSize], content[order[leafSize]]).Delete(order[0]).top.kids != nil {
		t.Error("16 entries are not one leaf")
	}
}

func TestNibblesBeyondTheKeptPrefixAreTheHashs(t *testing.T) {
	for i := range 50 {
		k := fmt.Sprint(i)
		p := pathOf(k)
		e := entry[number]{hash: p.prefix(), key: k}
		for depth := range maxPath {
			want := int(p[depth/2]) >> 4
			if depth%2 == 1 {
				want = int(p[depth/2]) & 15
			}
			if p.nibble(depth) != want || e.nibble(depth) != want {
				t.Fatalf("nibble %d of %x: %d and %d", depth, p, p.nibble(depth), e.nibble(depth))
			}
		}
	}
}

func TestAllIsInTheOrderOfTheHashes(t *testing.T) {
	var m Map[number]
	for i := range 500 {
		m = m.Set(fmt.Sprint(i), number{})
		var last path
		for k := range m.All() {
			p := pathOf(k)
			if string(p[:]) <= string(last[:]) {
				t.Fatalf("of %d: %q is out of order", i, k)
			}
			last = p
		}
	}
	seen := 0
	for range m.All() {
		if seen++; seen == 7 {
			break
		}
	}
	if seen != 7 {
		t.Error("All goes on after a break")
	}
}

func TestKeysHaveBounds(t *testing.T) {
	long := string(make([]byte, MaxKey))
	if m := (Map[number]{}).Set(long, number{1}); m.Len() != 1 {
		t.Error("a key of 255 bytes is not taken")
	}
	for _, k := range []string{"", long + "x"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("a key of %d bytes is taken", len(k))
				}
			}()
			Map[number]{}.Set(k, number{})
		}()
		if _, err := (Map[number]{}).Proof(k); err == nil {
			t.Errorf("a proof for a key of %d bytes", len(k))
		}
		if m := (Map[number]{}).Set("a", number{}); m.Delete(k) != m {
			t.Error("deleting an impossible key changes the map")
		}
	}
}

func TestValuesThatCannotBeEncodedAreNamed(t *testing.T) {
	for _, v := range []any{1.5, "\xff", string(make([]byte, MaxValue)), map[int]int{1: 1}} {
		m := Map[any]{}.Set("good", 1).Set("bad", v)
		for range 2 {
			if _, err := m.Root(); err == nil {
				t.Errorf("%T: there is a root", v)
			}
		}
		if _, err := m.Proof("good"); err == nil {
			t.Errorf("%T: there is a proof", v)
		}
		if err := m.Blocks(func(cid.Cid, []byte) bool { t.Error("a block"); return true }); err == nil {
			t.Errorf("%T: there are blocks", v)
		}
		rootOf(t, m.Delete("bad"))
	}
	const head = 5 // bytes before a text of this length
	rootOf(t, Map[string]{}.Set("large", string(make([]byte, MaxValue-head))))
	if _, err := (Map[string]{}).Set("larger", string(make([]byte, MaxValue-head+1))).Root(); err == nil {
		t.Error("a value larger than MaxValue is taken")
	}
	full := Map[string]{}
	for i := range leafSize {
		full = full.Set(strings.Repeat("k", MaxKey-1)+string(rune('a'+i)), string(make([]byte, MaxValue-head)))
	}
	blocks, order := blocksOf(t, full)
	if size := len(blocks[order[0]]); len(order) != 1 || size > MaxBlock {
		t.Errorf("the largest leaf has %d bytes, more than %d", size, MaxBlock)
	}
	if back, err := Load[string](order[0], from(blocks)); err != nil || back.Len() != leafSize {
		t.Errorf("the largest leaf does not load: %v", err)
	}
}

// counted says how often it was encoded.
type counted struct{ times *int }

func (c counted) MarshalCBOR() ([]byte, error) { *c.times++; return []byte{0x01}, nil }

func TestValueIsEncodedOncePerChangeOfItsLeaf(t *testing.T) {
	times := 0
	var m Map[counted]
	for i := range 1000 {
		m = m.Set(fmt.Sprint(i), counted{&times})
	}
	for range 2 {
		rootOf(t, m)
		blocksOf(t, m)
		if _, err := m.Proof("7"); err != nil || times != 1000 {
			t.Fatalf("1000 values are encoded %d times (%v)", times, err)
		}
	}
	next := m.Set("7", counted{&times})
	for range 2 {
		rootOf(t, next)
		if times -= 1000; times < 1 || times > leafSize {
			t.Fatalf("for one change %d values are encoded", times)
		}
		times += 1000
	}
}

// What Root kept is kept by the maps that share the nodes, and nothing else is touched:
// this is what lets a map be handed to readers.
func TestRootAfterAFewChangesMakesAFewBlocks(t *testing.T) {
	var m Map[number]
	for i := range 20_000 {
		m = m.Set(fmt.Sprint(i), number{uint64(i)})
	}
	rootOf(t, m)
	next := m.Set("7", number{1}).Delete("12000").Set("new", number{2})
	made := 0
	var count func(n *node[number])
	count = func(n *node[number]) {
		if n.sealed == nil {
			made++
		}
		if n.kids != nil {
			for _, kid := range n.kids {
				if kid != nil {
					count(kid)
				}
			}
		}
	}
	count(m.top)
	if made != 0 {
		t.Fatalf("after Root %d nodes have no block", made)
	}
	count(next.top)
	if made == 0 || made > 3*5 {
		t.Errorf("three changes leave %d nodes without a block", made)
	}
}
