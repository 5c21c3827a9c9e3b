package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// Keys of accounts are files of their own: PEM with PKCS #8, as openssl writes them.
// They stay with whoever runs the command: no node ever sees one.
const keyBlock = "PRIVATE KEY"

// makeKeyFile makes a key, for its owner's eyes only. It replaces nothing.
func makeKeyFile(path string) (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("%s is there already: choose another file", path)
	}
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	err = pem.Encode(f, &pem.Block{Type: keyBlock, Bytes: der})
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return nil, fmt.Errorf("make key: %w", errors.Join(err, os.Remove(path)))
	}
	return key, nil
}

// readKeyFile reads a key that nobody else may read.
func readKeyFile(path string) (ed25519.PrivateKey, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("key %s can be read by others (%v): run `chmod 600 %s`", path, mode, path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != keyBlock {
		return nil, fmt.Errorf("%s holds no private key: make one with `dcnode account key`", path)
	}
	any, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read key %s: %w", path, err)
	}
	key, ok := any.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("the key in %s is not an Ed25519 key: make one with `dcnode account key`", path)
	}
	return key, nil
}

// readKeyFiles reads several.
func readKeyFiles(paths []string) ([]ed25519.PrivateKey, error) {
	var keys []ed25519.PrivateKey
	for _, p := range paths {
		k, err := readKeyFile(p)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return keys, nil
}

func publicOf(key ed25519.PrivateKey) []byte { return key.Public().(ed25519.PublicKey) }

// parsePublic reads a public key as `dcnode account key` prints it.
func parsePublic(text string) ([]byte, error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != ed25519.PublicKeySize {
		return nil, &usageError{fmt.Errorf("%q is no public key: write the %d hex digits that `dcnode account key` prints", text, 2*ed25519.PublicKeySize)}
	}
	return b, nil
}

func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
