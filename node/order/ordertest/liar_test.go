package ordertest_test

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/dcnode/dcnode/consensus"
	"github.com/dcnode/dcnode/gossip"
)

// lies are what a liar does with an event that it has made, and with everybody's
// patience. Each gives the events to publish; the first few keep the true one, so that
// the liar's chain stays alive. Names are those of the faults, for the counts.
var lies = []struct {
	name string
	tell func(l *liar, e *consensus.Event) []*consensus.Event
}{
	{"equivocates", func(l *liar, e *consensus.Event) []*consensus.Event {
		return l.both(e, l.forge(e, func(f *consensus.Event) { f.Coin++; f.Payload = [][]byte{[]byte("another story")} }))
	}},
	{"builds on an old own event", func(l *liar, e *consensus.Event) []*consensus.Event {
		if len(l.own) < 3 {
			return []*consensus.Event{e}
		}
		old := l.own[len(l.own)-3]
		return []*consensus.Event{e, l.forge(e, func(f *consensus.Event) {
			f.Seq = old.Seq + 1
			f.Parents[0] = consensus.Parent{Hash: old.Hash(), Creator: old.Creator, BirthRound: old.BirthRound}
		})}
	}},
	{"says that it is far ahead", func(l *liar, e *consensus.Event) []*consensus.Event {
		return []*consensus.Event{e, l.forge(e, func(f *consensus.Event) { f.BirthRound += 1 << 40 })}
	}},
	{"is born before its parents", func(l *liar, e *consensus.Event) []*consensus.Event {
		return []*consensus.Event{e, l.forge(e, func(f *consensus.Event) { f.BirthRound = 1 })}
	}},
	{"misnames its parents", func(l *liar, e *consensus.Event) []*consensus.Event {
		return []*consensus.Event{e, l.forge(e, func(f *consensus.Event) {
			for i := range f.Parents {
				f.Parents[i].BirthRound = 1
			}
		})}
	}},
	{"invents parents", func(l *liar, e *consensus.Event) []*consensus.Event {
		return []*consensus.Event{e, l.forge(e, func(f *consensus.Event) {
			for i := range f.Parents {
				f.Parents[i].Hash[0]++
			}
		})}
	}},
	{"lives in another time", func(l *liar, e *consensus.Event) []*consensus.Event {
		return l.both(e, l.forge(e, func(f *consensus.Event) { f.Time = consensus.MaxTime }))
	}},
	{"signs badly", func(l *liar, e *consensus.Event) []*consensus.Event {
		f := l.forge(e, func(f *consensus.Event) { f.Coin++ })
		f.Signature[5]++
		return []*consensus.Event{e, f}
	}},
	{"speaks for another", func(l *liar, e *consensus.Event) []*consensus.Event {
		return []*consensus.Event{e, l.forge(e, func(f *consensus.Event) { f.Creator = e.Creator%uint64(l.n) + 1 })}
	}},
	{"replays another network", func(l *liar, e *consensus.Event) []*consensus.Event {
		return []*consensus.Event{e, l.forge(e, func(f *consensus.Event) { f.Network[0]++ })}
	}},
	{"floods with branches", func(l *liar, e *consensus.Event) []*consensus.Event {
		out := []*consensus.Event{e}
		for k := range uint32(40) {
			out = append(out, l.forge(e, func(f *consensus.Event) { f.Coin += k + 1 }))
		}
		return out
	}},
	{"withholds for a while", func(l *liar, e *consensus.Event) []*consensus.Event {
		l.held = append(l.held, e)
		if len(l.held) < 6 {
			return nil
		}
		out := l.held
		l.held = nil
		return out
	}},
}

// liar is a member that has the same program as the others underneath and does with
// what that makes as it likes.
type liar struct {
	n       int
	key     ed25519.PrivateKey
	core    *consensus.Core
	overlay *gossip.Overlay
	rng     *rand.Rand
	own     []*consensus.Event
	held    []*consensus.Event
	left    int // lies to tell: each keeps the others awake
	told    map[string]int
}

// forge signs a changed copy of an event.
func (l *liar) forge(e *consensus.Event, change func(*consensus.Event)) *consensus.Event {
	f := &consensus.Event{
		Network: e.Network, Creator: e.Creator, Seq: e.Seq, BirthRound: e.BirthRound,
		Parents: slices.Clone(e.Parents), Time: e.Time, Coin: e.Coin, Payload: slices.Clone(e.Payload),
	}
	change(f)
	f.Sign(l.key)
	return f
}

// both is two events in either order.
func (l *liar) both(e, f *consensus.Event) []*consensus.Event {
	if l.rng.IntN(2) == 0 {
		return []*consensus.Event{f, e}
	}
	return []*consensus.Event{e, f}
}

// run is the liar's life.
func (l *liar) run(ctx context.Context, start time.Time) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case m := <-l.overlay.Messages():
			if e, err := consensus.Unmarshal(m.Data); err == nil && !l.core.Has(e.Hash()) {
				_ = l.core.Add(e) // other liars' signatures are good enough for a liar
			}
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		for _, ok := l.core.Ready(); ok; _, ok = l.core.Ready() {
			l.core.Advance()
		}
		if now, _ := l.core.Due(int64(time.Since(start)), l.left > 0); now {
			l.speak(ctx)
		}
	}
}

func (l *liar) speak(ctx context.Context) {
	var payload [][]byte
	if l.left > 0 {
		l.left--
		payload = [][]byte{fmt.Appendf(nil, "lie %d", l.left)}
	}
	e := l.core.Next(consensus.Timestamp(time.Now().UnixNano()), l.rng.Uint32(), payload)
	e.Sign(l.key)
	if err := l.core.Add(e); err != nil {
		return
	}
	l.own = append(l.own, e)
	out := append(l.held, e)
	if l.left > 0 {
		lie := lies[l.left%len(lies)]
		l.told[lie.name]++
		out = lie.tell(l, e)
	} else {
		l.held = nil
	}
	for _, f := range out {
		_ = l.overlay.Publish(ctx, f.Marshal())
	}
	if l.left%5 == 1 {
		junk := make([]byte, 200)
		for i := range junk {
			junk[i] = byte(l.rng.Uint32())
		}
		_ = l.overlay.Publish(ctx, junk)
	}
}

// newLiar makes the member i+1 of the roster a liar at the given overlay.
func newLiar(t *testing.T, roster []consensus.Member, i int, key ed25519.PrivateKey, o *gossip.Overlay) *liar {
	t.Helper()
	core, err := consensus.New(consensus.Config{Network: testNetwork, Roster: roster, Self: uint64(i + 1)})
	if err != nil {
		t.Fatal(err)
	}
	return &liar{
		n: len(roster), key: key, core: core, overlay: o, rng: rand.New(rand.NewPCG(uint64(i), 3)),
		left: 4 * len(lies), told: map[string]int{},
	}
}

// goRun runs the liar until the test ends.
func (l *liar) goRun(t *testing.T, wg *sync.WaitGroup) {
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	start := time.Now()
	wg.Go(func() { l.run(ctx, start) })
}
