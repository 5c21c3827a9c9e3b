package main

import (
	"crypto/sha256"
	"fmt"
	"io"

	"github.com/mosaicnetworks/babble/src/hashgraph"
	"github.com/mosaicnetworks/babble/src/peers"
	"github.com/sirupsen/logrus"
)

// babbleRun is babble's hashgraph with its store in memory, large enough to lose
// nothing: with a smaller one it fails.
type babbleRun struct {
	h      *hashgraph.Hashgraph
	links  *gossip
	keys   [][]byte
	hashes []string
	seqs   []int
}

func newBabble(n, events int, seed uint64) (*babbleRun, error) {
	log := logrus.New()
	log.Out, log.Level = io.Discard, logrus.ErrorLevel
	b := &babbleRun{links: newGossip(n, seed), seqs: make([]int, n)}
	var members []*peers.Peer
	for i := range n {
		sum := sha256.Sum256([]byte{byte(i)})
		key := append([]byte{4}, append(sum[:], sum[:]...)...) // of the right length; nothing is verified
		b.keys = append(b.keys, key)
		members = append(members, peers.NewPeer(fmt.Sprintf("0X%X", key), "", fmt.Sprint(i)))
	}
	b.h = hashgraph.NewHashgraph(hashgraph.NewInmemStore(max(events, 10_000)), hashgraph.DummyInternalCommitCallback, logrus.NewEntry(log))
	return b, b.h.Init(peers.NewPeerSet(members))
}

// make builds the next event and has it remember its hash.
func (b *babbleRun) make() *hashgraph.Event {
	l := b.links.next()
	name := func(p int) string {
		if p < 0 {
			return ""
		}
		return b.hashes[p]
	}
	e := hashgraph.NewEvent([][]byte{}, nil, nil, []string{name(l.self), name(l.other)}, b.keys[l.creator], b.seqs[l.creator])
	e.Body.Timestamp = int64(len(b.hashes))
	b.seqs[l.creator]++
	b.hashes = append(b.hashes, e.Hex())
	return e
}

func runBabble(n, events int, seed uint64) (result, error) {
	b, err := newBabble(n, events, seed)
	if err != nil {
		return result{}, err
	}
	list := make([]*hashgraph.Event, 0, events)
	for range events {
		list = append(list, b.make())
	}
	r, err := timed(events, func(i int) error { return b.h.InsertEventAndRunConsensus(list[i], true) })
	r.Ordered = b.h.Store.ConsensusEventsCount()
	return r, err
}
