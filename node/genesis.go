package node

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/dcnode/dcnode/consensus"
	"github.com/dcnode/dcnode/consensus/ledger"
)

// Names of the files in a data directory.
const (
	identityFile = "identity.key"
	memberFile   = "member.json"
	genesisFile  = "genesis.json"
	// SocketFile is the control socket in a data directory.
	SocketFile = "control.sock"
)

// Card is what a member tells the others of itself before the overlay exists.
type Card struct {
	Peer   peer.ID `json:"peer"` // holds the Ed25519 public key
	Site   string  `json:"site"`
	Region string  `json:"region,omitempty"`
	Weight uint64  `json:"weight"`
}

// Genesis is the founding roster and the rules: one small file, the same at
// every member. Its digest is the name of the overlay.
type Genesis struct {
	Created time.Time    `json:"created"`
	Members []Card       `json:"members"`
	Rules   ledger.Rules `json:"rules"`
}

// Init makes a data directory with a new identity, or finds the one that is
// there; site and region are what the others will see.
func Init(dir, site, region string) (Card, error) {
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
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return Card{}, fmt.Errorf("make identity: %w", err)
	}
	raw, err := crypto.MarshalPrivateKey(key)
	if err != nil {
		return Card{}, fmt.Errorf("encode identity: %w", err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return Card{}, fmt.Errorf("name identity: %w", err)
	}
	card := Card{Peer: id, Site: site, Region: region, Weight: 1}
	text, err := json.MarshalIndent(card, "", "  ")
	if err != nil {
		return Card{}, fmt.Errorf("encode member card: %w", err)
	}
	if err := writeFile(filepath.Join(dir, memberFile), append(text, '\n'), 0o644); err != nil {
		return Card{}, err
	}
	return card, writeFile(path, raw, 0o600)
}

// NewGenesis makes a founding roster of the given members.
func NewGenesis(cards []Card, created time.Time) (Genesis, error) {
	g := Genesis{Created: created.UTC().Truncate(time.Second), Members: cards, Rules: ledger.DefaultRules}
	return g, g.check()
}

// WriteGenesis writes a founding roster to a file, or to w if path is empty.
func WriteGenesis(g Genesis, path string, w io.Writer) error {
	text, err := json.MarshalIndent(g, "", "  ")
	if err != nil {
		return fmt.Errorf("encode genesis: %w", err)
	}
	if path == "" {
		_, err = w.Write(append(text, '\n'))
		return err
	}
	return writeFile(path, append(text, '\n'), 0o644)
}

// ReadCard reads a member.json.
func ReadCard(path string) (Card, error) {
	var c Card
	return c, readJSON(path, &c)
}

// ReadGenesis reads a genesis file.
func ReadGenesis(path string) (Genesis, error) {
	var g Genesis
	if err := readJSON(path, &g); err != nil {
		return g, err
	}
	if err := g.check(); err != nil {
		return g, fmt.Errorf("%s: %w", path, err)
	}
	return g, nil
}

func (g Genesis) check() error {
	if len(g.Members) == 0 {
		return errors.New("the roster is empty: give at least one member.json")
	}
	seen := map[string]bool{}
	for _, c := range g.Members {
		if _, err := c.publicKey(); err != nil {
			return fmt.Errorf("member %s: %w", c.Site, err)
		}
		if c.Weight == 0 || c.Weight > 1<<32 {
			return fmt.Errorf("member %s: weight %d is not between 1 and 2^32", c.Site, c.Weight)
		}
		if seen[c.Site] || seen[string(c.Peer)] {
			return fmt.Errorf("member %s: each site and each peer ID stands once in a roster", c.Site)
		}
		seen[c.Site], seen[string(c.Peer)] = true, true
	}
	_, err := ledger.New(g.ledgerMembers(), g.Rules)
	return err
}

// network is the overlay's name: the digest of its genesis.
func (g Genesis) network() consensus.Hash {
	b, err := json.Marshal(g)
	if err != nil {
		panic("node: genesis does not encode: " + err.Error())
	}
	return sha256.Sum256(b)
}

func (g Genesis) networkName() string {
	h := g.network()
	return hex.EncodeToString(h[:8])
}

func (g Genesis) ledgerMembers() []ledger.Member {
	ms := make([]ledger.Member, len(g.Members))
	for i, c := range g.Members {
		ms[i] = ledger.Member{ID: ledger.MemberID(i + 1), Site: c.Site, Region: c.Region, Weight: c.Weight}
	}
	return ms
}

func (g Genesis) consensusRoster() ([]consensus.Member, error) {
	ms := make([]consensus.Member, len(g.Members))
	for i, c := range g.Members {
		key, err := c.publicKey()
		if err != nil {
			return nil, err
		}
		ms[i] = consensus.Member{ID: uint64(i + 1), Key: key, Weight: c.Weight}
	}
	return ms, nil
}

// member is the number of a peer in the roster; 0 for a stranger.
func (g Genesis) member(id peer.ID) ledger.MemberID {
	for i, c := range g.Members {
		if c.Peer == id {
			return ledger.MemberID(i + 1)
		}
	}
	return 0
}

// peer is the peer of a member; empty for a number that is not in the roster.
func (g Genesis) peer(id ledger.MemberID) peer.ID {
	if id == 0 || int(id) > len(g.Members) {
		return ""
	}
	return g.Members[id-1].Peer
}

func (g Genesis) peers() []peer.ID {
	ids := make([]peer.ID, len(g.Members))
	for i, c := range g.Members {
		ids[i] = c.Peer
	}
	return ids
}

func (c Card) publicKey() (ed25519.PublicKey, error) {
	key, err := c.Peer.ExtractPublicKey()
	if err != nil {
		return nil, fmt.Errorf("peer ID %q holds no Ed25519 key: %w", c.Peer, err)
	}
	raw, err := key.Raw()
	if err != nil || key.Type() != crypto.Ed25519 {
		return nil, fmt.Errorf("peer ID %s holds no Ed25519 key", c.Peer)
	}
	return raw, nil
}

func readIdentity(dir string) (crypto.PrivKey, error) {
	raw, err := os.ReadFile(filepath.Join(dir, identityFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s has no identity: run `dcnode init --data %s --site NAME` first", dir, dir)
	}
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	key, err := crypto.UnmarshalPrivateKey(raw)
	if err != nil {
		return nil, fmt.Errorf("read identity: %s is damaged: %w", identityFile, err)
	}
	return key, nil
}

// findGenesis is the genesis of the first start; a later start may name the same
// one again, or none. At the first start it is the given one: keep it with
// keepGenesis once this node is known to be in it.
func findGenesis(dir, given string) (Genesis, error) {
	have, err := ReadGenesis(filepath.Join(dir, genesisFile))
	switch {
	case err == nil && given != "":
		g, err := ReadGenesis(given)
		if err == nil && g.network() != have.network() {
			err = fmt.Errorf("%s is of overlay %s, but this data directory belongs to %s: use another --data", given, g.networkName(), have.networkName())
		}
		return have, err
	case errors.Is(err, fs.ErrNotExist) && given != "":
		return ReadGenesis(given)
	case errors.Is(err, fs.ErrNotExist):
		return Genesis{}, errors.New("there is no roster yet: give --genesis FILE at the first start (see `dcnode genesis`)")
	}
	return have, err
}

func keepGenesis(dir string, g Genesis) error {
	path := filepath.Join(dir, genesisFile)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	return WriteGenesis(g, path, nil)
}

func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// writeFile replaces a file in one step and makes it durable.
func writeFile(path string, b []byte, mode fs.FileMode) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(b)
	if err == nil {
		err = tmp.Chmod(mode)
	}
	if err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
