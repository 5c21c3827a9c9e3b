package node

import (
	"crypto/ed25519"
	"crypto/rand"
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
	Signature []byte  `json:"signature"` // of ledger.CardBytes
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
	if !ed25519.Verify(key, ledger.CardBytes(c.Site, c.Region, c.Weight, key), c.Signature) {
		return fmt.Errorf("member %s: the card is not what its owner signed: it was altered, or is of an older dcnode; ask for it again (member.json)", c.Site)
	}
	return nil
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
// the others will see. Weight 0 is 1.
func Init(dir, site, region string, weight uint64) (Card, error) {
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
	card, err := newCard(key, site, region, max(weight, 1))
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

// newCard is a card with its signature.
func newCard(key crypto.PrivKey, site, region string, weight uint64) (Card, error) {
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return Card{}, fmt.Errorf("name identity: %w", err)
	}
	pub, err := publicKey(id)
	if err != nil {
		return Card{}, err
	}
	sig, err := key.Sign(ledger.CardBytes(site, region, weight, pub))
	if err != nil {
		return Card{}, fmt.Errorf("sign member card: %w", err)
	}
	c := Card{Peer: id, Site: site, Region: region, Weight: weight, Signature: sig}
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
