package node

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"

	"github.com/dcnode/dcnode/consensus/ledger"
)

// inviter writes invitations as the member alice of an overlay that bob has founded
// with it and left.
type inviter struct {
	genesis    Genesis
	alice, bob string // data directories
	card       Card   // bob's
}

func newInviter(t *testing.T) *inviter {
	v := &inviter{alice: filepath.Join(t.TempDir(), "alice"), bob: filepath.Join(t.TempDir(), "bob")}
	var cards []Card
	for _, dir := range []string{v.alice, v.bob} {
		c, err := Init(dir, filepath.Base(dir), "", 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		cards = append(cards, c)
	}
	g, err := NewGenesis(cards, time.Unix(1_800_000_000, 0))
	if err != nil {
		t.Fatal(err)
	}
	v.genesis, v.card = g, cards[1]
	return v
}

// write makes an invitation for bob, after change, and says where it is.
func (v *inviter) write(t *testing.T, change func(*Invitation)) string {
	t.Helper()
	i := Invitation{Genesis: v.genesis, Member: 3, Proposal: 7, Card: v.card, By: 1}
	i.Roster = []Invited{{ID: 1, Site: "alice", Weight: 1, Peer: v.genesis.Members[0].Peer}}
	change(&i)
	raw, err := os.ReadFile(filepath.Join(v.alice, identityFile))
	if err != nil {
		t.Fatal(err)
	}
	key, err := crypto.UnmarshalPrivateKey(raw)
	if err != nil {
		t.Fatal(err)
	}
	text, err := i.signed()
	if err != nil {
		t.Fatal(err)
	}
	if i.Sig, err = key.Sign(text); err != nil {
		t.Fatal(err)
	}
	text, err = json.Marshal(i)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "invitation.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A founder that has left is invited like anybody else, and is then not who it was.
func TestFounderThatHasLeftComesBackWithAnotherNumber(t *testing.T) {
	v := newInviter(t)
	i, err := Accept(v.bob, v.write(t, func(*Invitation) {}), nil)
	if err != nil {
		t.Fatal(err)
	}
	inv, err := readKept(v.bob)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := readIdentities(v.bob)
	if err != nil {
		t.Fatal(err)
	}
	if id, err := whoAmI(v.bob, i.Genesis, inv, keys.public()); id != 3 || err != nil {
		t.Fatalf("it takes itself for member %d (%v)", id, err)
	}
	path := v.write(t, func(i *Invitation) {
		i.Roster = append(i.Roster, Invited{ID: 2, Site: "bob", Weight: 1, Peer: v.card.Peer})
	})
	if _, err := Accept(v.bob, path, nil); err == nil || !strings.Contains(err.Error(), "needs no invitation") {
		t.Fatalf("one that has not left: %v", err)
	}
}

func TestInvitationsThatMakeNoSenseAreRefused(t *testing.T) {
	v := newInviter(t)
	for name, c := range map[string]struct {
		change func(*Invitation)
		want   string
	}{
		"no number":          {func(i *Invitation) { i.Member = 0 }, "allots the number 0"},
		"a name for a trick": {func(i *Invitation) { i.Roster[0].Site = "alice\x1b[2J" }, "site name"},
		"many addresses":     {func(i *Invitation) { i.Addrs = make([]string, 1000) }, "1000 addresses"},
		"no weight":          {func(i *Invitation) { i.Roster[0].Weight = 0 }, "weight"},
	} {
		if _, err := Accept(v.bob, v.write(t, c.change), nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The directory of a member that has left is that of a number which is used up.
func TestDirectoryOfAnotherNumberTakesNoInvitation(t *testing.T) {
	v := newInviter(t)
	if err := keepSelf(v.bob, ledger.MemberID(2)); err != nil {
		t.Fatal(err)
	}
	if _, err := Accept(v.bob, v.write(t, func(*Invitation) {}), nil); err == nil || !strings.Contains(err.Error(), "is of member 2") {
		t.Fatalf("accepted: %v", err)
	}
}
