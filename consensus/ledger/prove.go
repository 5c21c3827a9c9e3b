package ledger

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"

	"github.com/dcnode/dcnode/consensus/ledger/merkle"
)

// maxProof bounds the blocks of a proof: more than a map of 2^64 entries is deep.
const maxProof = 64

// Proof shows one machine, and the roster, to someone who has only the state's digest.
type Proof struct {
	Top    []byte   `json:"top"`    // the state's top node
	Blocks [][]byte `json:"blocks"` // from the top of the machines to the one
}

// Shown is what a Proof shows.
type Shown struct {
	Next    uint64 // index of the event that follows
	Now     Time
	Roster  uint64 // version
	Members []*Member
	Machine *Machine

	changes cid.Cid
}

// Digest is the SHA-256 in the state's root: what members sign of it.
func (s *State) Digest() ([32]byte, error) {
	b, _, err := s.top()
	return sha256.Sum256(b), err
}

// Prove shows a machine.
func (s *State) Prove(machine string) (*Proof, error) {
	if s.Machine(machine) == nil {
		return nil, fmt.Errorf("prove %s: there is no machine of that name", name(machine))
	}
	top, _, err := s.top()
	if err != nil {
		return nil, err
	}
	blocks, err := s.machines.Proof(machine)
	if err != nil {
		return nil, fmt.Errorf("prove %s: %w", name(machine), err)
	}
	return &Proof{Top: top, Blocks: blocks}, nil
}

// Show is what a proof shows of a machine in the state with that digest. It does not
// trust the proof.
func (p *Proof) Show(digest [32]byte, machine string) (*Shown, error) {
	if sha256.Sum256(p.Top) != digest {
		return nil, errors.New("the top node of the state has another digest than was signed")
	}
	var r root
	if err := merkle.Decode(p.Top, &r); err != nil {
		return nil, fmt.Errorf("the top node of the state: %w", err)
	}
	if r.Format != stateFormat {
		return nil, fmt.Errorf("the top node of the state is of format %d, this dcnode knows %d", r.Format, stateFormat)
	}
	if err := checkMembers(r.Members); err != nil {
		return nil, fmt.Errorf("the roster in the state: %w", err)
	}
	if len(p.Blocks) > maxProof {
		return nil, fmt.Errorf("the proof of the machine has %d blocks, at most %d are read", len(p.Blocks), maxProof)
	}
	value, found, err := merkle.Find(r.Machines.Cid, p.Blocks, machine)
	if err != nil {
		return nil, fmt.Errorf("the proof of the machine: %w", err)
	}
	if !found {
		return nil, fmt.Errorf("the state has no machine %s", name(machine))
	}
	m := new(Machine)
	if err := merkle.Decode(value, m); err != nil {
		return nil, fmt.Errorf("the machine in the state: %w", err)
	}
	return &Shown{Next: r.Next, Now: r.Now, Roster: r.Roster, Members: r.Members, Machine: m, changes: r.Changes.Cid}, nil
}

// Changes says whether the state has kept exactly these changes of the roster.
func (s *Shown) Changes(all []RosterChange) error {
	if uint64(len(all)) != s.Roster {
		return fmt.Errorf("the state's roster has changed %d times, and %d changes are shown", s.Roster, len(all))
	}
	var m merkle.Map[*RosterChange]
	for i := range all {
		m = m.Set(rosterKey(uint64(i)+1), &all[i])
	}
	c, err := m.Root()
	if err != nil {
		return fmt.Errorf("the changes of the roster: %w", err)
	}
	if !c.Equals(s.changes) {
		return errors.New("the state has kept other changes of the roster than are shown")
	}
	return nil
}
