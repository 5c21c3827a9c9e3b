package node

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/dcnode/dcnode/consensus"
	"github.com/dcnode/dcnode/consensus/ledger"
)

// Invitation is what a site needs to become a member of an overlay that exists. A
// member writes it, and signs it, when it has proposed the site; it gives no rights
// by itself: those come with the votes of the members.
type Invitation struct {
	Genesis  Genesis         `json:"genesis"`
	Member   ledger.MemberID `json:"member"`   // the number that the new member will have
	Proposal uint64          `json:"proposal"` // that the members vote on
	Card     Card            `json:"card"`     // of whom it is for
	Roster   []Invited       `json:"roster"`   // the members at that time
	Addrs    []string        `json:"addresses"`
	By       ledger.MemberID `json:"by"`
	Sig      []byte          `json:"signature,omitempty"` // by the key of By
}

// Invited is one of the members that an invitation names.
type Invited struct {
	ID     ledger.MemberID `json:"id"`
	Site   string          `json:"site"`
	Weight uint64          `json:"weight"`
	Peer   peer.ID         `json:"peer"`
}

const (
	invitationDomain = "dcnode invitation v1\x00"
	maxInvitation    = 1 << 20 // bytes
)

// signed is what the signature of an invitation is of.
func (i Invitation) signed() ([]byte, error) {
	i.Sig = nil
	b, err := json.Marshal(i)
	if err != nil {
		return nil, fmt.Errorf("encode invitation: %w", err)
	}
	return append([]byte(invitationDomain), b...), nil
}

// check says what is wrong with an invitation.
func (i Invitation) check() error {
	if err := i.Genesis.check(); err != nil {
		return fmt.Errorf("its genesis: %w", err)
	}
	if err := i.Card.check(); err != nil {
		return err
	}
	if len(i.Roster) == 0 || len(i.Roster) > consensus.MaxMembers {
		return fmt.Errorf("it names %d members, not between 1 and %d", len(i.Roster), consensus.MaxMembers)
	}
	if i.Member == 0 || len(i.Addrs) > maxAddrs {
		return fmt.Errorf("it allots the number %d and names %d addresses: no member wrote it", i.Member, len(i.Addrs))
	}
	var key ed25519.PublicKey
	for n, m := range i.Roster {
		if err := ledger.CheckName("site", m.Site); err != nil {
			return err
		}
		pub, err := publicKey(m.Peer)
		if err != nil {
			return fmt.Errorf("member %s: %w", m.Site, err)
		}
		if m.Weight == 0 || m.Weight > 1<<32 || n > 0 && m.ID <= i.Roster[n-1].ID || m.ID == 0 || m.ID == i.Member {
			return fmt.Errorf("member %s: its number or its weight is wrong", m.Site)
		}
		if m.ID == i.By {
			key = pub
		}
	}
	text, err := i.signed()
	if err != nil {
		return err
	}
	if key == nil || !ed25519.Verify(key, text, i.Sig) {
		return errors.New("it is not what the member that invites has signed: it was altered; ask for it again")
	}
	return nil
}

// names says whether a member is one of those that it names.
func (i Invitation) names(id ledger.MemberID) bool {
	return slices.ContainsFunc(i.Roster, func(m Invited) bool { return m.ID == id })
}

// trust is the roster that the new member asks for a checkpoint.
func (i Invitation) trust() ([]consensus.Member, error) {
	out := make([]consensus.Member, len(i.Roster))
	for n, m := range i.Roster {
		key, err := publicKey(m.Peer)
		if err != nil {
			return nil, fmt.Errorf("member %s: %w", m.Site, err)
		}
		out[n] = consensus.Member{ID: uint64(m.ID), Key: key, Weight: m.Weight}
	}
	return out, nil
}

// members are the same as the ledger has them.
func (i Invitation) members() []*ledger.Member {
	var out []*ledger.Member
	for _, m := range i.Roster {
		if key, err := publicKey(m.Peer); err == nil {
			out = append(out, &ledger.Member{ID: m.ID, Site: m.Site, Weight: m.Weight, Key: key})
		}
	}
	return out
}

// ReadInvitation reads an invitation and checks it.
func ReadInvitation(path string) (Invitation, error) {
	var i Invitation
	if st, err := os.Stat(path); err == nil && st.Size() > maxInvitation {
		return i, fmt.Errorf("%s is no invitation: it has %d bytes", path, st.Size())
	}
	if err := readJSON(path, &i); err != nil {
		return i, err
	}
	if err := i.check(); err != nil {
		return i, fmt.Errorf("%s: %w", path, err)
	}
	return i, nil
}

// Accept makes a data directory, which Init has made, that of the new member that an
// invitation is for. listen are the addresses that it will listen on, if not the
// default ones. `dcnode run` then needs no flags.
func Accept(dir, path string, listen []string) (Invitation, error) {
	i, err := ReadInvitation(path)
	if err != nil {
		return i, fmt.Errorf("read invitation: %w", err)
	}
	keys, err := readIdentities(dir)
	if err != nil {
		return i, err
	}
	id := peerOf(publicOf(keys.key))
	if id != i.Card.Peer {
		return i, fmt.Errorf("the invitation is for %s (%s), and %s is %s: use the --data of the site that it was made for, or have this one's member.json invited", i.Card.Site, i.Card.Peer, dir, id)
	}
	have, err := ReadGenesis(filepath.Join(dir, genesisFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return i, err
	case have.network() != i.Genesis.network():
		return i, fmt.Errorf("the invitation is to overlay %s, but this data directory belongs to %s: use another --data", i.Genesis.Network(), have.Network())
	case i.names(have.founder(id)):
		return i, fmt.Errorf("%s founded overlay %s and needs no invitation: start it with `dcnode run`", i.Card.Site, have.Network())
	}
	var was selfRecord
	if err := readJSON(filepath.Join(dir, selfFile), &was); err == nil && was.Member != i.Member {
		return i, fmt.Errorf("%s is of member %d of this overlay, and the invitation is for a new one, %d: numbers are never used twice; make another --data with `dcnode init`, have its member.json invited, and keep this one as long as machines are in it", dir, was.Member, i.Member)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return i, err
	}
	kept := kept{Invitation: i, Listen: listen}
	text, err := json.MarshalIndent(kept, "", "  ")
	if err != nil {
		return i, fmt.Errorf("encode invitation: %w", err)
	}
	if err := keepGenesis(dir, i.Genesis); err != nil {
		return i, err
	}
	// One that was a member before comes back as another.
	if err := os.Remove(filepath.Join(dir, selfFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return i, fmt.Errorf("forget who this was: %w", err)
	}
	return i, writeFile(filepath.Join(dir, invitationFile), append(text, '\n'), 0o600)
}

// kept is an invitation that was accepted, with what was said then.
type kept struct {
	Invitation
	Listen []string `json:"listen,omitempty"`
}

// readKept is the invitation that was accepted here; nil: none was.
func readKept(dir string) (*kept, error) {
	path := filepath.Join(dir, invitationFile)
	var k kept
	err := readJSON(path, &k)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = k.check()
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &k, nil
}

// selfRecord remembers which member this is: its keys may change.
type selfRecord struct {
	Member ledger.MemberID `json:"member"`
	Left   bool            `json:"left,omitempty"` // it is no member any more, and nobody needs to hear it
}

// noteLeft remembers that this node is no member any more.
func (n *Node) noteLeft() error {
	b, err := json.Marshal(selfRecord{n.self, true})
	if err != nil {
		return fmt.Errorf("encode member: %w", err)
	}
	return writeFile(filepath.Join(n.cfg.Dir, selfFile), append(b, '\n'), 0o644)
}

// whoAmI is the number of this member.
func whoAmI(dir string, g Genesis, inv *kept, keys []ed25519.PublicKey) (ledger.MemberID, error) {
	var rec selfRecord
	err := readJSON(filepath.Join(dir, selfFile), &rec)
	switch {
	case err == nil && rec.Member != 0:
		return rec.Member, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return 0, err
	}
	// First: a founder that has left comes back with another number.
	if inv != nil && slices.ContainsFunc(keys, func(k ed25519.PublicKey) bool { return bytes.Equal(k, keyOf(inv.Card.Peer)) }) {
		return inv.Member, nil
	}
	for _, key := range keys {
		if id := g.founder(peerOf(key)); id != 0 {
			return id, nil
		}
	}
	return 0, fmt.Errorf("this node (%s) is not in the roster of overlay %s: have its member.json put into the genesis, or have it invited (`dcnode member invite`)", peerOf(keys[0]), g.Network())
}

func keyOf(id peer.ID) ed25519.PublicKey {
	key, err := publicKey(id)
	if err != nil {
		return nil
	}
	return key
}

// keepSelf remembers which member this is, once it is one.
func keepSelf(dir string, id ledger.MemberID) error {
	path := filepath.Join(dir, selfFile)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	b, err := json.Marshal(selfRecord{Member: id})
	if err != nil {
		return fmt.Errorf("encode member: %w", err)
	}
	return writeFile(path, append(b, '\n'), 0o644)
}

// Network is the overlay's name, for people to compare.
func (i Invitation) Network() string { return i.Genesis.Network() }

// Inviter is the site that wrote the invitation.
func (i Invitation) Inviter() string {
	for _, m := range i.Roster {
		if m.ID == i.By {
			return m.Site
		}
	}
	return ""
}
