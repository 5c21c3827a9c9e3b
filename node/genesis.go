package node

import (
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

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/dcnode/dcnode/consensus"
	"github.com/dcnode/dcnode/consensus/ledger"
)

// Names of the files in a data directory.
const (
	identityFile   = "identity.key"
	nextKeyFile    = "identity-next.key" // while a rotation is not over
	memberFile     = "member.json"
	selfFile       = "self.json"
	genesisFile    = "genesis.json"
	invitationFile = "invitation.json"
	// SocketFile is the control socket in a data directory.
	SocketFile = "control.sock"
)

// Genesis is the founding roster and the rules: one small file, the same at
// every member. Its digest is the name of the overlay.
type Genesis struct {
	Created time.Time    `json:"created"`
	Members []Card       `json:"members"`
	Rules   ledger.Rules `json:"rules"`
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
		if err := c.check(); err != nil {
			return err
		}
		if c.Overlay != "" {
			return fmt.Errorf("member %s: its card is for joining overlay %.16s, not for founding one: let that site make another with `dcnode init`", c.Site, c.Overlay)
		}
		if seen[c.Site] || seen[string(c.Peer)] {
			return fmt.Errorf("member %s: each site and each peer ID stands once in a roster", c.Site)
		}
		seen[c.Site], seen[string(c.Peer)] = true, true
	}
	members, err := g.ledgerMembers()
	if err == nil {
		_, err = ledger.New(members, g.Rules)
	}
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

// overlay is the overlay's name in full.
func (g Genesis) overlay() string {
	h := g.network()
	return hex.EncodeToString(h[:])
}

// Network is the overlay's name, as people compare it.
func (g Genesis) Network() string {
	h := g.network()
	return hex.EncodeToString(h[:8])
}

func (g Genesis) ledgerMembers() ([]ledger.Member, error) {
	ms := make([]ledger.Member, len(g.Members))
	for i, c := range g.Members {
		key, err := publicKey(c.Peer)
		if err != nil {
			return nil, fmt.Errorf("member %s: %w", c.Site, err)
		}
		ms[i] = ledger.Member{ID: ledger.MemberID(i + 1), Site: c.Site, Region: c.Region, Weight: c.Weight, Key: key}
	}
	return ms, nil
}

func (g Genesis) consensusRoster() ([]consensus.Member, error) {
	members, err := g.ledgerMembers()
	if err != nil {
		return nil, err
	}
	ms := make([]consensus.Member, len(members))
	for i, m := range members {
		ms[i] = consensus.Member{ID: uint64(m.ID), Key: m.Key, Weight: m.Weight}
	}
	return ms, nil
}

// founder is the number of a peer in the founding roster; 0 for everyone else.
func (g Genesis) founder(id peer.ID) ledger.MemberID {
	for i, c := range g.Members {
		if c.Peer == id {
			return ledger.MemberID(i + 1)
		}
	}
	return 0
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
			err = fmt.Errorf("%s is of overlay %s, but this data directory belongs to %s: use another --data", given, g.Network(), have.Network())
		}
		return have, err
	case errors.Is(err, fs.ErrNotExist) && given != "":
		return ReadGenesis(given)
	case errors.Is(err, fs.ErrNotExist):
		return Genesis{}, errors.New("there is no roster yet: give --genesis FILE at the first start (see `dcnode genesis`), or join an overlay with `dcnode member join`")
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
