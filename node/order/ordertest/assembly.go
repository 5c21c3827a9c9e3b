package ordertest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/dcnode/dcnode/consensus"
	"github.com/dcnode/dcnode/node/order"
)

// Assembly is a Journal whose transactions can change the roster. Look at it in the
// loop only.
type Assembly struct {
	Journal
	Roster []consensus.Member // as it was asked for last, and not refused
	Voided uint64             // changes that could not be obeyed

	due []order.Change
}

var (
	_ order.Machine = (*Assembly)(nil)
	_ order.Changer = (*Assembly)(nil)
)

// motion is a transaction that changes the roster.
type motion struct {
	Set  []consensus.Member // members that come, or have another key or weight
	Drop []uint64           // members that go
	Void bool               // a roster out of order, which no member can obey
}

var motionMark = []byte("motion ")

// Set is the transaction by which members come, or get another key or weight.
func Set(members ...consensus.Member) []byte { return motion{Set: members}.encode() }

// Drop is the transaction by which members go.
func Drop(ids ...uint64) []byte { return motion{Drop: ids}.encode() }

// Void is a transaction that asks for a roster which cannot be.
func Void() []byte { return motion{Void: true}.encode() }

func (m motion) encode() []byte {
	b, err := json.Marshal(m)
	if err != nil {
		panic(err) // numbers and bytes can be encoded
	}
	return append(bytes.Clone(motionMark), b...)
}

// Apply implements order.Machine.
func (a *Assembly) Apply(ev consensus.Ordered) error {
	for _, tx := range ev.Event.Payload {
		var m motion
		raw, ok := bytes.CutPrefix(tx, motionMark)
		if !ok || json.Unmarshal(raw, &m) != nil {
			continue
		}
		a.Roster = m.apply(a.Roster)
		asked := slices.Clone(a.Roster)
		if m.Void {
			slices.Reverse(asked)
			asked = append(asked, consensus.Member{Weight: 1}, consensus.Member{Weight: 1})
		}
		a.due = append(a.due, order.Change{Roster: asked})
	}
	return a.Journal.Apply(ev)
}

func (m *motion) apply(roster []consensus.Member) []consensus.Member {
	out := slices.DeleteFunc(slices.Clone(roster), func(o consensus.Member) bool {
		return slices.Contains(m.Drop, o.ID) || slices.ContainsFunc(m.Set, func(s consensus.Member) bool { return s.ID == o.ID })
	})
	out = append(out, m.Set...)
	slices.SortFunc(out, func(a, b consensus.Member) int { return int(a.ID) - int(b.ID) })
	return out
}

// Changes implements order.Changer.
func (a *Assembly) Changes() []order.Change {
	due := a.due
	a.due = nil
	return due
}

// Refused implements order.Changer.
func (a *Assembly) Refused(order.Change, error) { a.Voided++ }

// record is the state as it is kept.
type record struct {
	Journal []byte
	Roster  []consensus.Member
	Voided  uint64
}

// Snapshot implements order.Machine.
func (a *Assembly) Snapshot() ([32]byte, []byte, error) {
	_, j, err := a.Journal.Snapshot()
	if err != nil {
		return [32]byte{}, nil, err
	}
	b, err := json.Marshal(record{j, a.Roster, a.Voided})
	return sha256.Sum256(b), b, err
}

// Root is the digest of the state as it is now.
func (a *Assembly) Root() [32]byte {
	root, _, err := a.Snapshot()
	if err != nil {
		panic(err) // numbers and bytes can be encoded
	}
	return root
}

// Check implements order.Machine.
func (a *Assembly) Check(root [32]byte, b []byte) error {
	if sha256.Sum256(b) != root {
		return fmt.Errorf("%d bytes do not have the root %x", len(b), root[:4])
	}
	return nil
}

// Restore implements order.Machine.
func (a *Assembly) Restore(root [32]byte, b []byte) error {
	if err := a.Check(root, b); err != nil {
		return err
	}
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return fmt.Errorf("read an assembly: %w", err)
	}
	if err := a.Journal.Restore(sha256.Sum256(r.Journal), r.Journal); err != nil {
		return err
	}
	a.Roster, a.Voided, a.due = r.Roster, r.Voided, nil
	return nil
}

// Seat is a member with weight 1.
func Seat(id uint64, key ed25519.PrivateKey) consensus.Member {
	return consensus.Member{ID: id, Key: key.Public().(ed25519.PublicKey), Weight: 1}
}
