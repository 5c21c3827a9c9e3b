package consensus

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"
)

// A fork that goes on for a while on both sides is shown by two events of one number.
func TestEvidenceIsOfOneNumberWhereItCan(t *testing.T) {
	c := testCore(t, 4, 4)
	a0 := follow(1, 1)
	left := []*Event{follow(1, 1, a0)}
	for range 5 {
		left = append(left, follow(1, 1, left[len(left)-1]))
	}
	right := follow(1, 1, left[1])
	right.Coin = 7
	for _, e := range append(append([]*Event{a0}, left...), right) {
		if err := c.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	if f := c.Forks(); len(f) != 1 || f[0] != (Fork{left[2], right}) {
		t.Errorf("evidence %v, want numbers %d and %d", f, left[2].Seq, right.Seq)
	}
}

func TestEvidenceIsBounded(t *testing.T) {
	c := testCore(t, 4, 4)
	a0 := follow(1, 1)
	if err := c.Add(a0); err != nil {
		t.Fatal(err)
	}
	for i := range 2 * maxEvidence {
		e := follow(1, 1, a0)
		e.Coin = uint32(i)
		if err := c.Add(e); err != nil && !errors.Is(err, ErrFlood) {
			t.Fatal(err)
		}
	}
	if f := c.Forks(); len(f) != maxEvidence {
		t.Errorf("%d forks are kept, want %d", len(f), maxEvidence)
	}
}

func TestForkIsProvedToAThirdParty(t *testing.T) {
	key := func(creator, birth uint64) (ed25519.PublicKey, bool) {
		return testKey(byte(creator)).Public().(ed25519.PublicKey), creator == 1 || creator == 2
	}
	signed := func(creator uint64, coin uint32, parents ...*Event) *Event {
		e := follow(creator, 1, parents...)
		e.Coin = coin
		e.Sign(testKey(byte(creator)))
		return e
	}
	a0 := signed(1, 0)
	left, right := signed(1, 1, a0), signed(1, 2, a0)
	if err := VerifyFork(Fork{left, right}, key); err != nil {
		t.Errorf("two branches: %v", err)
	}
	forged := *right
	forged.Signature = bytes.Clone(left.Signature)
	stranger := []*Event{signed(3, 1), signed(3, 2)}
	for name, tc := range map[string]struct {
		f    Fork
		word string
	}{
		"one event":       {Fork{left, left}, "twice"},
		"half":            {Fork{left, nil}, "two events"},
		"one chain":       {Fork{a0, left}, "only the chain"},
		"branches apart":  {Fork{left, signed(1, 3, right)}, "only the chain"},
		"two creators":    {Fork{left, signed(2, 3, signed(2, 0))}, "two creators"},
		"forged":          {Fork{left, &forged}, "signature"},
		"nobody's":        {Fork{stranger[0], stranger[1]}, "not known"},
		"unsigned second": {Fork{left, follow(1, 1, a0)}, "signature"},
	} {
		if err := VerifyFork(tc.f, key); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tc.word) {
			t.Errorf("%s: %v, want %q", name, err, tc.word)
		}
	}
}

// The kept hash belongs to the event it was computed of, not to copies of it.
func TestChangedCopyHasAHashOfItsOwn(t *testing.T) {
	e := sampleEvent()
	got, err := Unmarshal(e.Marshal())
	if err != nil {
		t.Fatal(err)
	}
	for name, e := range map[string]*Event{"signed": e, "read": got} {
		f := *e
		f.Coin++
		if g := f; f.Hash() == e.Hash() || g.Hash() != f.Hash() {
			t.Errorf("%s: the copy has the hash of the original", name)
		}
		if err := f.Verify(testKey(1).Public().(ed25519.PublicKey)); err == nil {
			t.Errorf("%s: the signature fits a changed copy", name)
		}
	}
	e.Coin++ // not allowed, and still not taken for what was signed
	if err := e.Verify(testKey(1).Public().(ed25519.PublicKey)); err == nil {
		t.Error("the signature fits a changed event")
	}
}

// An event that came before the roster of its birth round was settled was checked
// with the key of an older roster. If its creator has changed keys since, it has to
// come again.
func TestEventFromAheadIsDroppedWhenItsKeyChanged(t *testing.T) {
	for _, rotated := range []bool{false, true} {
		key := func(b byte) ed25519.PublicKey { return testKey(b).Public().(ed25519.PublicKey) }
		roster := testRoster(4)
		for i := range roster {
			roster[i].Key = key(byte(i + 1))
		}
		c, err := New(Config{Network: Hash{42}, Roster: roster, Self: 99})
		if err != nil {
			t.Fatal(err)
		}
		s := &stream{t: t, core: c, heads: make([]*Event, 4)}
		far := follow(1, 20)
		far.Coin = 99
		if err := c.Add(far); err != nil {
			t.Fatal(err)
		}
		if err := c.Add(follow(7, 20)); !errors.Is(err, ErrFuture) {
			t.Fatalf("a creator who is not known yet gives %v, want ErrFuture", err)
		}
		if err := c.Add(follow(7, 2)); !errors.Is(err, ErrInvalid) {
			t.Fatalf("a stranger gives %v, want ErrInvalid", err)
		}
		for changed := !rotated; c.Pending() < 25; {
			s.layerWith(func(rd Ready) {
				if n := len(rd.Ordered); n > 0 && !changed {
					changed = true
					next := append([]Member(nil), roster...)
					next[0].Key = key(9)
					if err := c.Change(rd.Ordered[n-1].Round, next, Params{}); err != nil {
						t.Fatal(err)
					}
				}
			})
		}
		if here := c.Event(far.Hash()) != nil; here == rotated {
			t.Errorf("key changed: %v, the event is in the graph: %v", rotated, here)
		}
		k, ok := c.Key(1, 25)
		if want := key(1); !ok || rotated == bytes.Equal(k, want) {
			t.Errorf("key changed: %v, and the key is %x", rotated, k)
		}
		if k, _ := c.Key(1, 5); !bytes.Equal(k, key(1)) {
			t.Errorf("the key of round 5 is %x", k)
		}
		if _, ok := c.Key(7, 5); ok {
			t.Error("a stranger has a key")
		}
	}
}

// All that waits for one event comes in with it, and nothing of the waiting is left.
func TestWaitersAreFoundByWhatTheyWaitFor(t *testing.T) {
	c := testCore(t, 4, 4)
	root := follow(2, 1)
	var held []*Event
	for i := range maxWaiting {
		e := follow(1, 1, root)
		e.Coin = uint32(i)
		held = append(held, e)
	}
	for _, e := range held {
		if err := c.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(c.wait.byParent[root.Hash()]); got != maxWaiting || len(c.wait.low[1]) != maxWaiting {
		t.Fatalf("%d wait for the root, want %d", got, maxWaiting)
	}
	if err := c.Add(root); err != nil {
		t.Fatal(err)
	}
	st := c.Status()
	if st.Waiting != 0 || len(c.wait.index)+len(c.wait.byParent)+len(c.wait.low)+len(c.wait.ahead) != 0 {
		t.Errorf("something is left behind: %+v", st)
	}
	if st.Live != 1+maxBranches || st.Refused != maxWaiting-maxBranches {
		t.Errorf("%d are in, %d refused: want %d branches", st.Live, st.Refused, maxBranches)
	}
}
