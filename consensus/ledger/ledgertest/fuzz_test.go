package ledgertest

import (
	"bytes"
	"maps"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/consensus/ledger/merkle"
)

// grown are a few scripts, and the states that they lead to.
func grown(t testing.TB) (scripts []Script, states []*ledger.State) {
	for seed := range uint64(4) {
		s, _, err := Generate(seed, 120)
		if err != nil {
			t.Fatal(err)
		}
		r, err := newRun(&s)
		if err != nil {
			t.Fatal(err)
		}
		for _, ev := range s.Events[:100] {
			if err := r.event(ev); err != nil {
				t.Fatal(err)
			}
		}
		scripts, states = append(scripts, s), append(states, r.state)
	}
	return scripts, states
}

// Whatever bytes an event carries: they are no transaction, or what they do can be
// written down and read again.
func FuzzApply(f *testing.F) {
	scripts, states := grown(f)
	for i := range scripts {
		for _, ev := range scripts[i].Events {
			for _, raw := range ev.Txs {
				f.Add(uint8(i), uint8(ev.Place.Author), raw)
			}
		}
	}
	f.Fuzz(func(t *testing.T, world, author uint8, raw []byte) {
		tx, err := ledger.Decode(raw)
		if err != nil {
			return
		}
		if again, err := ledger.Encode(tx); err != nil || !bytes.Equal(again, raw) {
			t.Fatalf("%x is read, and written as %x, %v", raw, again, err)
		}
		i := int(world) % len(states)
		pre := states[i]
		s := pre.Clone()
		p := ledger.Place{Index: s.Next() + 7, Round: 1 << 40, Time: s.Now(), Author: ledger.MemberID(author)}
		pre = s.Clone()
		out, refused := s.Apply(scripts[i].Network, p, tx)
		if refused != nil {
			m := newModel(&scripts[i])
			if err := m.refused(&step{pre: pre, post: s, place: p, tx: &tx, out: out, err: refused}); err != nil {
				t.Fatal(err)
			}
		}
		for range 4 { // deadlines have to pass without harm
			p.Index, p.Round, p.Time = p.Index+1, p.Round+1, p.Time+100*ledger.Day
			s.Advance(p)
		}
		reread(t, s)
	})
}

// reread checks that a state is the same when it was written down and read.
func reread(t *testing.T, s *ledger.State) {
	t.Helper()
	root, snapshot, err := s.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	next, err := ledger.Load(snapshot)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := next.Root(); err != nil || again != root {
		t.Fatalf("root %s, %v after it was read, %s before", again, err, root)
	}
}

// Whatever bytes a snapshot has, or its top node or one of its machines has, with CIDs
// that fit: they are no state, or one that can be written again and goes on.
func FuzzLoad(f *testing.F) {
	_, states := grown(f)
	for _, s := range states {
		_, snapshot, err := s.Snapshot()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(0), snapshot)
		top, err := parts(s)
		if err != nil {
			f.Fatal(err)
		}
		fields := map[string]merkle.Raw{}
		for name, v := range top {
			fields[name] = merkle.Raw(v)
		}
		for _, empty := range []string{"", "members", "proposals", "now", "next"} {
			changed := maps.Clone(fields)
			if empty != "" {
				changed[empty] = merkle.Raw{0x81, 0xf6} // a list of nothing
				if empty == "now" || empty == "next" {
					changed[empty] = merkle.Raw{0x3b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff} // the least number
				}
			}
			b, err := merkle.Encode(changed)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(uint8(1), b)
		}
		for x := range s.Machines() {
			b, err := merkle.Encode(x)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(uint8(2), b)
		}
		f.Add(uint8(2), []byte{0xf6})
	}
	f.Fuzz(func(t *testing.T, what uint8, b []byte) {
		if what %= 3; what > 0 {
			b = forged(t, states[0], what, b)
		}
		s, err := ledger.Load(b)
		if err != nil {
			return
		}
		was, _, err := merkle.ReadCAR(b) // which may hold blocks that the state does not need
		if err != nil {
			t.Fatal(err)
		}
		if root, again, err := s.Snapshot(); err != nil || root != was || what == 0 && !bytes.Equal(again, b) {
			t.Fatalf("a snapshot of %d bytes with root %s is read and written as %d bytes with root %s, %v", len(b), was, len(again), root, err)
		}
		p := ledger.Place{Index: s.Next(), Round: 1 << 40, Time: s.Now()}
		for range 4 {
			p.Index, p.Round, p.Time = p.Index+1, p.Round+1, p.Time+100*ledger.Day
			s.Advance(p)
		}
	})
}

// forged is the snapshot of a state of which the top node, or the only machine, is
// another: every block fits its CID.
func forged(t *testing.T, s *ledger.State, what uint8, b []byte) []byte {
	t.Helper()
	var blocks [][]byte
	err := s.Blocks(func(_ cid.Cid, block []byte) bool {
		blocks = append(blocks, block)
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	last := len(blocks) - 1
	if what == 2 {
		machine := merkle.Map[merkle.Raw]{}.Set("m1", merkle.Raw(b))
		root, err := machine.Root()
		if err != nil {
			t.Skip("no value")
		}
		top, err := parts(s)
		if err != nil {
			t.Fatal(err)
		}
		fields := map[string]merkle.Raw{}
		for name, v := range top {
			fields[name] = merkle.Raw(v)
		}
		link, err := merkle.Encode(merkle.Link{Cid: root})
		if err != nil {
			t.Fatal(err)
		}
		if err := machine.Blocks(func(_ cid.Cid, block []byte) bool { blocks = slices.Insert(blocks, last, block); return true }); err != nil {
			t.Fatal(err)
		}
		last++
		fields["machines"] = merkle.Raw(link)
		if b, err = merkle.Encode(fields); err != nil {
			t.Fatal(err)
		}
	}
	blocks[last] = b
	car, err := merkle.WriteCAR(merkle.Sum(b), func(yield func(cid.Cid, []byte) bool) error {
		for _, block := range blocks {
			yield(merkle.Sum(block), block)
		}
		return nil
	})
	if err != nil {
		t.Skip("no snapshot")
	}
	return car
}
