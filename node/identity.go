package node

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

// identity is the keys of this member: the one that it has, and while it changes it
// the next one, which is on the disk before anybody hears of it. Which of them holds
// is not for this node to say: the ledger knows.
type identity struct {
	key  crypto.PrivKey
	next crypto.PrivKey // nil: no rotation is under way
}

// readIdentities reads the keys in a data directory.
func readIdentities(dir string) (identity, error) {
	key, err := readKey(dir, identityFile)
	if errors.Is(err, fs.ErrNotExist) {
		return identity{}, fmt.Errorf("%s has no identity: run `dcnode init --data %s --site NAME` first", dir, dir)
	}
	if err != nil {
		return identity{}, err
	}
	next, err := readKey(dir, nextKeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		next, err = nil, nil
	}
	return identity{key, next}, err
}

func readKey(dir, name string) (crypto.PrivKey, error) {
	raw, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	key, err := crypto.UnmarshalPrivateKey(raw)
	if err != nil || key.Type() != crypto.Ed25519 {
		return nil, fmt.Errorf("read identity: %s is damaged: put a copy of it back", filepath.Join(dir, name))
	}
	return key, nil
}

// all are the keys, the present one first.
func (i identity) all() []crypto.PrivKey {
	if i.next == nil {
		return []crypto.PrivKey{i.key}
	}
	return []crypto.PrivKey{i.key, i.next}
}

// public are the public keys, the present one first.
func (i identity) public() []ed25519.PublicKey {
	var out []ed25519.PublicKey
	for _, k := range i.all() {
		out = append(out, publicOf(k))
	}
	return out
}

// private are the keys as the order signs with them.
func (i identity) private() ([]ed25519.PrivateKey, error) {
	var out []ed25519.PrivateKey
	for _, k := range i.all() {
		raw, err := k.Raw()
		if err != nil {
			return nil, fmt.Errorf("read identity: %w", err)
		}
		out = append(out, raw)
	}
	return out, nil
}

// holder is the key with that public key, or nil.
func (i identity) holder(public []byte) crypto.PrivKey {
	for _, k := range i.all() {
		if bytes.Equal(publicOf(k), public) {
			return k
		}
	}
	return nil
}

// publicOf is the Ed25519 public key of an identity.
func publicOf(key crypto.PrivKey) ed25519.PublicKey {
	raw, err := key.GetPublic().Raw()
	if err != nil {
		return nil
	}
	return raw
}

// peerOf is the peer that an Ed25519 public key names; empty: it is none.
func peerOf(key []byte) peer.ID {
	pub, err := crypto.UnmarshalEd25519PublicKey(key)
	if err != nil {
		return ""
	}
	id, err := peer.IDFromPublicKey(pub)
	if err != nil {
		return ""
	}
	return id
}

// publicKey is the Ed25519 key that a peer ID holds.
func publicKey(id peer.ID) (ed25519.PublicKey, error) {
	key, err := id.ExtractPublicKey()
	if err != nil {
		return nil, fmt.Errorf("peer ID %q holds no Ed25519 key: %w", id, err)
	}
	raw, err := key.Raw()
	if err != nil || key.Type() != crypto.Ed25519 {
		return nil, fmt.Errorf("peer ID %s holds no Ed25519 key", id)
	}
	return raw, nil
}
