package node

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/dcnode/dcnode/consensus/ledger"
)

// Card is what a member tells the others of itself before it is one of them. It is
// signed with the key that it names: nobody can put words into it, and nobody can
// bring in a key that he does not have.
type Card struct {
	Peer      peer.ID `json:"peer"` // holds the Ed25519 public key
	Site      string  `json:"site"`
	Region    string  `json:"region,omitempty"`
	Weight    uint64  `json:"weight"`
	Overlay   string  `json:"overlay,omitempty"` // hex of the digest of the genesis; empty: for founding one
	Signature []byte  `json:"signature"`         // of ledger.CardBytes
}

// check says what is wrong with a card.
func (c Card) check() error {
	key, err := publicKey(c.Peer)
	if err != nil {
		return fmt.Errorf("member %s: %w", c.Site, err)
	}
	if err := ledger.CheckName("site", c.Site); err != nil {
		return err
	}
	if c.Weight == 0 || c.Weight > 1<<32 {
		return fmt.Errorf("member %s: weight %d is not between 1 and 2^32", c.Site, c.Weight)
	}
	text, err := c.text(key)
	if err != nil {
		return err
	}
	if !ed25519.Verify(key, text, c.Signature) {
		return fmt.Errorf("member %s: the card is not what its owner signed: it was altered, or is of an older dcnode; ask for it again (member.json)", c.Site)
	}
	return nil
}

// text is what the card's key signs of it. A data directory is of one member only, so
// that its key was no member's before.
func (c Card) text(key []byte) ([]byte, error) {
	var network [32]byte
	if c.Overlay != "" {
		b, err := hex.DecodeString(c.Overlay)
		if err != nil || len(b) != len(network) {
			return nil, fmt.Errorf("member %s: the card is for overlay %q, which is none: let that site make another with `dcnode init`", c.Site, c.Overlay)
		}
		copy(network[:], b)
	}
	return ledger.CardBytes(network, c.Site, c.Region, c.Weight, key, 0), nil
}

// ReadCard reads a member.json and checks it.
func ReadCard(path string) (Card, error) {
	var c Card
	if err := readJSON(path, &c); err != nil {
		return c, err
	}
	if err := c.check(); err != nil {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// Init makes a data directory with a new identity; site, region and weight are what
// the others will see. Weight 0 is 1. overlay is the genesis of the overlay that it is to
// join; nil: it is to found one.
func Init(dir, site, region string, weight uint64, overlay *Genesis) (Card, error) {
	if err := ledger.CheckName("site", site); err != nil {
		return Card{}, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Card{}, fmt.Errorf("make data directory: %w", err)
	}
	path := filepath.Join(dir, identityFile)
	if _, err := os.Stat(path); err == nil {
		return Card{}, fmt.Errorf("%s has an identity already: use another --data, or keep this one", dir)
	}
	key, raw, err := newIdentity()
	if err != nil {
		return Card{}, err
	}
	card := Card{Site: site, Region: region, Weight: max(weight, 1)}
	if overlay != nil {
		card.Overlay = overlay.overlay()
	}
	card, err = card.signed(key)
	if err != nil {
		return Card{}, err
	}
	text, err := json.MarshalIndent(card, "", "  ")
	if err != nil {
		return Card{}, fmt.Errorf("encode member card: %w", err)
	}
	if err := writeFile(filepath.Join(dir, memberFile), append(text, '\n'), 0o644); err != nil {
		return Card{}, err
	}
	return card, writeFile(path, raw, 0o600)
}

// signed is the card with its key and signature.
func (c Card) signed(key crypto.PrivKey) (Card, error) {
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return Card{}, fmt.Errorf("name identity: %w", err)
	}
	pub, err := publicKey(id)
	if err != nil {
		return Card{}, err
	}
	c.Peer = id
	text, err := c.text(pub)
	if err != nil {
		return Card{}, err
	}
	if c.Signature, err = key.Sign(text); err != nil {
		return Card{}, fmt.Errorf("sign member card: %w", err)
	}
	return c, c.check()
}

// newIdentity makes a key, and what its file holds.
func newIdentity() (crypto.PrivKey, []byte, error) {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make identity: %w", err)
	}
	raw, err := crypto.MarshalPrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("encode identity: %w", err)
	}
	return key, raw, nil
}
