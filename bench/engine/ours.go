package main

import (
	"crypto/ed25519"
	"encoding/binary"
	"fmt"

	"github.com/dcnode/dcnode/consensus"
)

// ours is the whole of consensus.Core: hashing, checks, graph, window, engine, order.
type ours struct {
	core    *consensus.Core
	links   *gossip
	parents map[int]consensus.Parent // of places that can still be named
	heads   []int
	seqs    []uint64
	at      int
	ordered int
}

func newOurs(n int, seed uint64) (*ours, error) {
	var roster []consensus.Member
	for i := range n {
		key := make([]byte, ed25519.SeedSize)
		binary.BigEndian.PutUint64(key, uint64(i+1))
		roster = append(roster, consensus.Member{
			ID: uint64(i + 1), Key: ed25519.NewKeyFromSeed(key).Public().(ed25519.PublicKey), Weight: 1,
		})
	}
	c, err := consensus.New(consensus.Config{Network: consensus.Hash{1}, Roster: roster})
	if err != nil {
		return nil, err
	}
	o := &ours{core: c, links: newGossip(n, seed), parents: map[int]consensus.Parent{}, seqs: make([]uint64, n)}
	for range n {
		o.heads = append(o.heads, -1)
	}
	return o, nil
}

// make builds the next event. Its birth round is the pending one: the graph is that
// of members who all know everything.
func (o *ours) make() *consensus.Event {
	l := o.links.next()
	e := &consensus.Event{
		Network: consensus.Hash{1}, Creator: uint64(l.creator + 1), Seq: o.seqs[l.creator], BirthRound: o.core.Pending(),
		Time: consensus.Timestamp(1_000_000_000 + int64(o.at)*1000), Coin: uint32(o.at) * 2654435761,
		Signature: make([]byte, ed25519.SignatureSize),
	}
	for _, p := range []int{l.self, l.other} {
		if p >= 0 {
			e.Parents = append(e.Parents, o.parents[p])
		}
	}
	o.seqs[l.creator]++
	if old := o.heads[l.creator]; old >= 0 {
		delete(o.parents, old)
	}
	o.heads[l.creator] = o.at
	o.parents[o.at] = consensus.Parent{Hash: e.Hash(), Creator: e.Creator, BirthRound: e.BirthRound}
	o.at++
	return e
}

// insert adds an event and takes what is ready.
func (o *ours) insert(e *consensus.Event) error {
	if err := o.core.Add(e); err != nil {
		return fmt.Errorf("ours: event of %d: %w", e.Creator, err)
	}
	for rd, ok := o.core.Ready(); ok; rd, ok = o.core.Ready() {
		o.ordered += len(rd.Ordered)
		o.core.Advance()
	}
	return nil
}

func runOurs(n, events int, seed uint64) (result, error) {
	maker, err := newOurs(n, seed) // knows the birth rounds
	if err != nil {
		return result{}, err
	}
	list := make([]*consensus.Event, 0, events)
	for range events {
		e := maker.make()
		if err := maker.insert(e); err != nil {
			return result{}, err
		}
		list = append(list, e)
	}
	o, err := newOurs(n, seed)
	if err != nil {
		return result{}, err
	}
	r, err := timed(events, func(i int) error { return o.insert(list[i]) })
	r.Ordered = o.ordered
	return r, err
}
