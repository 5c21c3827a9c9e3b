package gossip

import (
	"crypto/ed25519"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The actors. Their keys are fixed, so that the order of their peer IDs is, too.
var names = []string{"alice", "bob", "carol", "dave", "erin", "mallory"}

func keyOf(t testing.TB, name string) crypto.PrivKey {
	t.Helper()
	seed := make([]byte, ed25519.SeedSize)
	copy(seed, name)
	key, err := crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(seed))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func idOf(t testing.TB, name string) peer.ID {
	t.Helper()
	id, err := peer.IDFromPrivateKey(keyOf(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return id
}
