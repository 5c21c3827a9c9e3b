package main

import (
	"crypto/sha256"

	"github.com/Fantom-foundation/lachesis-base/abft"
	"github.com/Fantom-foundation/lachesis-base/hash"
	"github.com/Fantom-foundation/lachesis-base/inter/dag"
	"github.com/Fantom-foundation/lachesis-base/inter/dag/tdag"
	"github.com/Fantom-foundation/lachesis-base/inter/idx"
	"github.com/Fantom-foundation/lachesis-base/inter/pos"
	"github.com/Fantom-foundation/lachesis-base/kvdb"
	"github.com/Fantom-foundation/lachesis-base/kvdb/memorydb"
	"github.com/Fantom-foundation/lachesis-base/lachesis"
	"github.com/Fantom-foundation/lachesis-base/utils/adapters"
	"github.com/Fantom-foundation/lachesis-base/utils/cachescale"
	"github.com/Fantom-foundation/lachesis-base/vecfc"
)

// lachesisRun is lachesis-base with its databases in memory and the caches of its
// live network.
type lachesisRun struct {
	l       *abft.IndexedLachesis
	events  map[hash.Event]dag.Event
	ordered int
}

// HasEvent implements abft.EventSource.
func (r *lachesisRun) HasEvent(h hash.Event) bool { return r.events[h] != nil }

// GetEvent implements abft.EventSource.
func (r *lachesisRun) GetEvent(h hash.Event) dag.Event { return r.events[h] }

func newLachesis(n int) (*lachesisRun, error) {
	crit := func(err error) { panic(err) }
	r := &lachesisRun{events: map[hash.Event]dag.Event{}}
	store := abft.NewStore(memorydb.New(), func(idx.Epoch) kvdb.Store { return memorydb.New() }, crit, abft.DefaultStoreConfig(cachescale.Identity))
	validators := pos.NewBuilder()
	for i := range n {
		validators.Set(idx.ValidatorID(i+1), 1)
	}
	if err := store.ApplyGenesis(&abft.Genesis{Validators: validators.Build(), Epoch: abft.FirstEpoch}); err != nil {
		return nil, err
	}
	index := &adapters.VectorToDagIndexer{Index: vecfc.NewIndex(crit, vecfc.DefaultConfig(cachescale.Identity))}
	r.l = abft.NewIndexedLachesis(store, r, index, crit, abft.DefaultConfig())
	return r, r.l.Bootstrap(lachesis.ConsensusCallbacks{BeginBlock: func(*lachesis.Block) lachesis.BlockCallbacks {
		return lachesis.BlockCallbacks{ApplyEvent: func(dag.Event) { r.ordered++ }}
	}})
}

func (r *lachesisRun) insert(e dag.Event) error {
	r.events[e.ID()] = e
	return r.l.Process(e)
}

// makeLachesis builds the events. Their frames are computed by another instance,
// as their creators would.
func makeLachesis(n, events int, seed uint64) ([]*tdag.TestEvent, error) {
	maker, err := newLachesis(n)
	if err != nil {
		return nil, err
	}
	links := newGossip(n, seed)
	var list []*tdag.TestEvent
	for range events {
		l := links.next()
		e := &tdag.TestEvent{}
		e.SetEpoch(abft.FirstEpoch)
		e.SetCreator(idx.ValidatorID(l.creator + 1))
		e.SetParents(hash.Events{})
		e.SetSeq(1)
		lamport := idx.Lamport(0)
		for _, p := range []int{l.self, l.other} {
			if p >= 0 {
				e.AddParent(list[p].ID())
				lamport = max(lamport, list[p].Lamport())
			}
		}
		if l.self >= 0 {
			e.SetSeq(list[l.self].Seq() + 1)
		}
		e.SetLamport(lamport + 1)
		if err := maker.l.Build(e); err != nil {
			return nil, err
		}
		sum := sha256.Sum256(e.Bytes())
		e.SetID([24]byte(sum[:24]))
		if err := maker.insert(e); err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	return list, nil
}

func runLachesis(n, events int, seed uint64) (result, error) {
	list, err := makeLachesis(n, events, seed)
	if err != nil {
		return result{}, err
	}
	r, err := newLachesis(n)
	if err != nil {
		return result{}, err
	}
	res, err := timed(events, func(i int) error { return r.insert(list[i]) })
	res.Ordered = r.ordered
	return res, err
}
