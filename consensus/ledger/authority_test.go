package ledger

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
)

// signedWorld is an overlay of two members with the account acme, made at the first.
func signedWorld(t *testing.T) (s *State, network [32]byte, key ed25519.PrivateKey, say func(author MemberID, tx Tx) error) {
	t.Helper()
	seed := sha256.Sum256([]byte("acme"))
	key = ed25519.NewKeyFromSeed(seed[:])
	s, err := New([]Member{{ID: 1, Site: "a", Weight: 1, Key: make([]byte, 32)}, {ID: 2, Site: "b", Weight: 1, Key: append(make([]byte, 31), 1)}}, Rules{})
	if err != nil {
		t.Fatal(err)
	}
	var index uint64
	say = func(author MemberID, tx Tx) error {
		index++
		p := Place{Index: index, Round: index, Time: Time(index) * Second, Author: author, Event: sha256.Sum256([]byte{byte(index)})}
		s.Advance(p)
		_, err := s.Apply(network, p, tx)
		return err
	}
	tx := Tx{Seq: 1, Account: "acme", Body: &SetAccount{Name: "acme", Keys: [][]byte{key.Public().(ed25519.PublicKey)}, Threshold: 1, Site: "a"}}
	if err := Sign(network, &tx, key); err != nil {
		t.Fatal(err)
	}
	if err := say(1, tx); err != nil {
		t.Fatal(err)
	}
	return s, network, key, say
}

// A member that was to carry a policy and kept it back cannot put it into force when
// the account has said another one since.
func TestPolicyThatWasKeptBackDoesNotComeAfterALaterOne(t *testing.T) {
	s, network, key, say := signedWorld(t)
	word := func(seq uint64, p Policy) Tx {
		tx := Tx{Seq: seq, Account: "acme", Body: &SetPolicy{Account: "acme", Policy: p}}
		if err := Sign(network, &tx, key); err != nil {
			t.Fatal(err)
		}
		return tx
	}
	lax, strict := word(2, Policy{}), word(3, Policy{Pinned: true})
	if err := say(2, strict); err != nil {
		t.Fatal(err)
	}
	err := say(1, lax)
	if !s.Account("acme").Policy.Pinned {
		t.Fatalf("the older policy is in force (%v)", err)
	}
	if err == nil {
		t.Fatal("nobody is told that the older policy does not hold")
	}
}

func TestKeysCannotBeChangedWithoutEnd(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	rotations := 0
	rotate := func() error {
		name := fmt.Sprint("alice ", rotations)
		_, err := w.try("alice", &Rotate{Key: testPub(name), Proof: signText(name, RotateBytes(testNet, 1, testPub(name)))})
		if err == nil {
			rotations++
			w.must("alice", &Rotate{})
		}
		return err
	}
	for range 10 {
		if err := rotate(); err != nil && !strings.Contains(err.Error(), "too often: it may again in 5 h 5") && !strings.Contains(err.Error(), "in 6 h") {
			t.Fatal(err)
		}
	}
	if rotations != 4 {
		t.Errorf("it has changed its key %d times in a row, 4 are allowed", rotations)
	}
	for range 48 {
		w.wait(Hour)
		_ = rotate() // most are refused
	}
	if rotations != 4+8 {
		t.Errorf("it has changed its key %d times in two days, 4 in a row and 8 are allowed", rotations)
	}
}

// A machine that is between two members may come back to the one that released it: if
// that has left, without force, nobody could run it any more.
func TestMemberWhoseMachineMayComeBackDoesNotLeave(t *testing.T) {
	var founders []Member
	for i, site := range []string{"a", "b", "c", "d"} {
		founders = append(founders, Member{ID: MemberID(i + 1), Site: site, Weight: 1, Key: append(make([]byte, 31), byte(i))})
	}
	s, err := New(founders, Rules{})
	if err != nil {
		t.Fatal(err)
	}
	var index uint64
	say := func(author MemberID, b Body) error {
		index++
		p := Place{Index: index, Round: index, Time: Time(index) * 100 * Millisecond, Author: author, Event: sha256.Sum256([]byte{byte(index)})}
		s.Advance(p)
		_, err := s.Apply([32]byte{}, p, Tx{Seq: index, Body: b})
		return err
	}
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ok(say(1, &Publish{Name: "img", Commit: "x"}))
	ok(say(1, &Define{Name: "web", Image: "img", Memory: 1}))
	ok(say(1, &Intent{Machine: "web", Epoch: 1, Only: 2, Needs: Needs{Memory: 1}}))
	id := s.Machine("web").Move.ID
	ok(say(2, &Bid{Machine: "web", Move: id, Able: true, Expires: s.now + 30*Second, FreeMemory: 1, FreeDisk: 1, Bandwidth: 1 << 20}))
	ok(say(1, &Release{Machine: "web", Move: id, Epoch: 2, To: 2}))
	if say(2, &Propose{Change: Leave, Member: 1}) == nil {
		t.Error("it may leave while the destination can still decline")
	}
	for range 300 {
		_ = say(3, &Tick{})
	}
	if !s.Machine("web").Move.LeaseOver || say(3, &Propose{Change: Leave, Member: 1}) == nil {
		t.Error("it may leave once its lease is over, and the destination can still decline")
	}
	ok(say(2, &Confirm{Machine: "web", Epoch: 2}))
	ok(say(3, &Propose{Change: Leave, Member: 1}))
}

// Whoever has joined by a card and left does not join by it again, nor anywhere else.
func TestCardIsGoodForOneOverlayAndForJoiningOnce(t *testing.T) {
	w := newWorld(t, "alice", "bob")
	card := func(network [32]byte, before MemberID) *Propose {
		return &Propose{Change: Join, Site: "erin", Weight: 1, Key: testPub("erin"), Proof: signText("erin", CardBytes(network, "erin", "", 1, testPub("erin"), before))}
	}
	vote := func() {
		t.Helper()
		w.must("bob", w.s.Proposals()[0].Vote(true))
	}
	w.refused("alice", card([32]byte{}, 0), "for this overlay")
	w.refused("alice", card(testNet, 3), "for this overlay")
	first := card(testNet, 0)
	w.must("alice", first)
	vote()
	erin := w.member("erin").ID
	w.must("alice", &Propose{Change: Leave, Member: erin})
	w.must("bob", w.s.Proposals()[0].Vote(true))
	if w.member("erin") != nil {
		w.must("erin", w.s.Proposals()[0].Vote(true))
	}
	_, b, err := w.s.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if w.s, err = Load(b); err != nil {
		t.Fatal(err)
	}
	w.refused("alice", first, "was a member's by it before")
	w.must("alice", card(testNet, erin))
	vote()
	if m := w.member("erin"); m == nil || m.ID == erin {
		t.Errorf("erin, who has signed for it, does not come back: %+v", m)
	}
}

// Who may order a move may be changed while it is under way, and that counts until the
// machine is released.
func TestMoveEndsWhenItsAuthorityIsWithdrawn(t *testing.T) {
	movers := func(n int, accounts ...string) *SetPolicy {
		return &SetPolicy{Machine: "web1", Policy: Policy{Movers: accounts, Approvals: n}}
	}
	for name, c := range map[string]struct {
		set  Body
		ends string
	}{
		"others are named":               {movers(1, "carol"), "wants the approval of 1 of account carol, and there are 0"},
		"more have to approve":           {movers(2, "bob", "carol"), "wants the approval of 2 of accounts bob, carol, and there are 1"},
		"others of the account's policy": {&SetPolicy{Account: "alice", Policy: Policy{Movers: []string{"carol"}}}, "account alice wants the approval of 1"},
		"one more is named":              {movers(1, "bob", "carol"), ""},
		"nobody is named any more":       {&SetPolicy{Machine: "web1"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "alice", "bob", "carol").machines("web1@alice")
			w.must("alice", movers(1, "bob"))
			w.must("bob", &Approve{Machine: "web1", Epoch: 1, Until: w.s.now + Hour})
			id := w.intend("web1", "bob")
			w.bid("bob", "web1", nil)
			w.must("bob", &Accept{Machine: "web1", Move: id})
			w.must("alice", c.set)
			m := w.s.Machine("web1")
			if ends := m.Move == nil; ends != (c.ends != "") || ends && !strings.Contains(m.Last.Reason, c.ends) {
				t.Fatalf("it ends: %v, %+v", ends, m.Last)
			}
			if m.Move != nil {
				w.must("alice", &Release{Machine: "web1", Move: id, Epoch: 2, To: w.member("bob").ID})
				if w.s.Machine("web1").Epoch != 2 {
					t.Error("it is not released")
				}
			} else {
				w.nothingReserved()
			}
		})
	}
	w := newWorld(t, "alice", "bob").machines("web1@alice")
	w.intend("web1", "bob")
	w.must("alice", movers(1, "bob"))
	if w.s.Machine("web1").Move != nil {
		t.Error("it moves on without the approval that it needs by now")
	}
}
