// Package certificate shows a third party that a machine was handed over: that the
// members of an overlay ordered this release, to that site, with that epoch.
//
// The third party has the overlay's genesis and nothing else: no node, no network, no
// trust in whoever hands it the certificate. It follows this chain:
//
//	genesis ── the founding roster: members, weights, keys
//	   │  each change since, by the signed events of those who voted for it, with more
//	   │  than two thirds of the weight of the roster before it; or, of a key that was
//	   │  rotated, by the event that the old key signed
//	   ▼
//	roster at an index ── signatures of more than two thirds of its weight
//	   │  over the digest of the ledger's state there
//	   ▼
//	state ── Merkle proof ──► the machine's entry: at which index, by which event, it
//	   │                      was handed to whom, with which epoch
//	   │                    ► the same changes of the roster, as the state keeps them
//	   ▼
//	event ── of that hash, signed by the member that owned the machine: its Release
//
// Everything is computed again from the file. What it rests on is what the overlay
// itself rests on: that members of more than two thirds of the weight of each roster
// on the way were honest, and have kept their keys to themselves since: those who have
// left included, for nothing in a file can show that there is no later roster.
package certificate

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/dcnode/dcnode/consensus"
	"github.com/dcnode/dcnode/consensus/ledger"
)

// Bounds of a certificate.
const (
	MaxSize    = 64 << 20 // bytes of the file
	maxChanges = 10_000   // of the roster
)

// format is the version of the file that this package writes and reads.
const format = 1

// Certificate is what the file holds.
type Certificate struct {
	Format     int          `json:"dcnode_certificate"`
	Network    Hex          `json:"network"` // the overlay's name: the digest of its genesis
	Machine    string       `json:"machine"`
	Epoch      uint64       `json:"epoch"`             // that the release began
	Release    Bytes        `json:"release"`           // the event that said it, as it was signed
	Confirm    Bytes        `json:"confirm,omitempty"` // the event by which the new owner said that it runs the machine
	Index      uint64       `json:"index"`             // of the event after which the state is shown
	State      State        `json:"state"`
	Signatures []Signature  `json:"signatures"` // of Statement, by member
	Roster     []Transition `json:"roster"`     // every change since the genesis
}

// State is what is shown of the ledger's state.
type State struct {
	Digest Hex     `json:"digest"`
	Top    Bytes   `json:"top"`     // its top node
	Proof  []Bytes `json:"machine"` // the nodes down to the machine
}

// Signature is a member's word for the state.
type Signature struct {
	Member ledger.MemberID `json:"member"`
	Sig    Hex             `json:"signature"`
}

// Transition is a change of the roster, and the events that show that it was agreed.
type Transition struct {
	Index  uint64          `json:"index"`
	Change ledger.Change   `json:"change"`
	Member ledger.MemberID `json:"member"`
	Site   string          `json:"site"`
	Region string          `json:"region"`
	Weight uint64          `json:"weight"`
	Key    Hex             `json:"key"`
	Events []Bytes         `json:"events"` // as they were signed: see ledger.RosterChange
}

// Hex is bytes that are written as hexadecimal digits.
type Hex []byte

// MarshalText implements encoding.TextMarshaler.
func (h Hex) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *Hex) UnmarshalText(text []byte) (err error) {
	*h, err = hex.AppendDecode(nil, text)
	return err
}

// Bytes is bytes that are written in base64.
type Bytes []byte

// MarshalText implements encoding.TextMarshaler.
func (b Bytes) MarshalText() ([]byte, error) { return base64.StdEncoding.AppendEncode(nil, b), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (b *Bytes) UnmarshalText(text []byte) (err error) {
	*b, err = base64.StdEncoding.Strict().AppendDecode(nil, text)
	return err
}

const statementDomain = "dcnode state statement v1\x00"

// Statement is what a member signs of the ledger's state after the event at an index.
func Statement(network [32]byte, index uint64, digest [32]byte) []byte {
	b := append([]byte(statementDomain), network[:]...)
	b = binary.BigEndian.AppendUint64(b, index)
	return append(b, digest[:]...)
}

// Encode is the file. It has one form only.
func (c *Certificate) Encode() ([]byte, error) {
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode certificate: %w", err)
	}
	return append(b, '\n'), nil
}

// Decode reads a file that Encode wrote, and no other.
func Decode(b []byte) (*Certificate, error) {
	if len(b) > MaxSize {
		return nil, fmt.Errorf("read certificate: %d bytes are more than the %d that one may have", len(b), MaxSize)
	}
	c := new(Certificate)
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(c); err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	if c.Format != format {
		return nil, fmt.Errorf("read certificate: it is of format %d, this dcnode knows %d", c.Format, format)
	}
	again, err := c.Encode()
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, b) {
		return nil, errors.New("read certificate: the file is not as `dcnode ledger certify` writes it: somebody has edited it")
	}
	return c, nil
}

// Parts are what a certificate is built of.
type Parts struct {
	Network  [32]byte
	Founders []ledger.Member // of the genesis
	State    *ledger.State   // after the event at State.Next() - 1
	Machine  string
	Epoch    uint64 // of the release; 0: the machine's last one
	// Event finds events by hash, as they were signed.
	Event func(hash consensus.Hash) ([]byte, error)
	// Confirm is the event with the new owner's Confirm, if there is one.
	Confirm []byte
	// Signatures of Statement, of more than two thirds of the weight; others are left out.
	Signatures []Signature
}

// Handover is the release of a machine with that epoch, or with its last one if epoch
// is 0, as the state has kept it.
func Handover(s *ledger.State, machine string, epoch uint64) (*ledger.Handover, error) {
	m := s.Machine(machine)
	if m == nil {
		return nil, fmt.Errorf("there is no machine %q: what was deleted cannot be certified", machine)
	}
	for _, h := range slices.Backward(m.Handovers) {
		switch {
		case h.Why == ledger.KindRelease && (epoch == 0 || h.Epoch == epoch):
			return &h, nil
		case epoch != 0 && h.Epoch == epoch:
			return nil, fmt.Errorf("epoch %d of %s was no release, but %s: there was no move to certify", epoch, machine, h.Why)
		}
	}
	if epoch == 0 {
		return nil, fmt.Errorf("machine %s was not released lately: there is no move to certify", machine)
	}
	return nil, fmt.Errorf("epoch %d of %s is not among the %d handovers that the ledger keeps of it", epoch, machine, len(m.Handovers))
}

// Build makes a certificate and verifies it: what it returns holds.
func Build(p Parts) (*Certificate, error) {
	fail := func(err error) (*Certificate, error) {
		return nil, fmt.Errorf("certify the move of %s: %w", p.Machine, err)
	}
	h, err := Handover(p.State, p.Machine, p.Epoch)
	if err != nil {
		return fail(err)
	}
	digest, err := p.State.Digest()
	if err != nil {
		return fail(err)
	}
	proof, err := p.State.Prove(p.Machine)
	if err != nil {
		return fail(err)
	}
	c := &Certificate{
		Format: format, Network: p.Network[:], Machine: p.Machine, Epoch: h.Epoch, Confirm: p.Confirm, Index: p.State.Next() - 1,
		State: State{Digest: digest[:], Top: proof.Top}, Roster: []Transition{},
	}
	for _, b := range proof.Blocks {
		c.State.Proof = append(c.State.Proof, b)
	}
	if c.Release, err = p.Event(consensus.Hash(h.Event)); err != nil {
		return fail(fmt.Errorf("the event that released it: %w", err))
	}
	for v, change := range p.State.RosterChanges() {
		t, err := p.transition(change)
		if err != nil {
			return fail(fmt.Errorf("change %d of the roster: %w", v, err))
		}
		c.Roster = append(c.Roster, *t)
	}
	statement := Statement(p.Network, c.Index, digest)
	for _, s := range p.Signatures {
		m := p.State.Member(s.Member)
		if m == nil || !signedBy(m.Key, statement, s.Sig) || slices.ContainsFunc(c.Signatures, func(o Signature) bool { return o.Member == s.Member }) {
			continue
		}
		c.Signatures = append(c.Signatures, s)
	}
	slices.SortFunc(c.Signatures, func(a, b Signature) int { return int(int64(a.Member) - int64(b.Member)) })
	if _, err := Verify(p.Founders, p.Network, c); err != nil {
		return fail(err)
	}
	return c, nil
}

func (p *Parts) transition(c *ledger.RosterChange) (*Transition, error) {
	t := &Transition{Index: c.Index, Change: c.Change, Member: c.Member, Site: c.Site, Region: c.Region, Weight: c.Weight, Key: c.Key}
	for _, h := range c.Events {
		if len(h) != len(consensus.Hash{}) {
			return nil, fmt.Errorf("a hash of %d bytes", len(h))
		}
		raw, err := p.Event(consensus.Hash(h))
		if err != nil {
			return nil, err
		}
		t.Events = append(t.Events, raw)
	}
	return t, nil
}
