package order_test

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dcnode/dcnode/consensus"
	"github.com/dcnode/dcnode/node/order"
	"github.com/dcnode/dcnode/node/order/ordertest"
)

// town is a world whose roster changes while it orders. Members 0 and 1 are never
// stopped.
type town struct {
	*world
	founders int
	every    uint64 // rounds between checkpoints; 0: as ever

	keys  [][]ed25519.PrivateKey // of each member
	trust [][]consensus.Member   // of each member that was invited
	homes []*ordertest.Assembly

	mu     sync.Mutex
	roots  map[uint64][32]byte // after so many events, at whoever came there first
	wrong  string              // the first disagreement
	births []birth
	quiet  bool // nothing is submitted
	last   time.Time
	gap    time.Duration // the longest without a transaction at member 0, under load
}

// birth is by which key an event was signed.
type birth struct {
	member, round uint64
	key           int // 0 for the first that the member had
}

// newKey is the key of a member after a rotation.
func newKey(i int) ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	binary.BigEndian.PutUint64(seed, uint64(i)+1)
	seed[31] = 1
	return ed25519.NewKeyFromSeed(seed)
}

func newTown(t *testing.T, founders, all int) *town {
	w := newWorld(t, all)
	tn := &town{world: w, founders: founders, roots: map[uint64][32]byte{}, homes: make([]*ordertest.Assembly, all), trust: make([][]consensus.Member, all)}
	w.net.Delay = func(from, to int) time.Duration { return time.Duration(10+(from+to)%4) * time.Millisecond }
	w.net.Pass = func(from, _ int, _ []byte) bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return !w.dead[from]
	}
	for i, m := range w.members {
		tn.keys = append(tn.keys, []ed25519.PrivateKey{w.keys[i]})
		m.config = func(c *order.Config) { tn.configure(i, c) }
	}
	return tn
}

func (tn *town) configure(i int, c *order.Config) {
	c.Roster, c.Keys, c.Trust, c.CheckpointEvery = tn.roster[:tn.founders], tn.keys[i], tn.trust[i], tn.every
	if c.Trust != nil && i >= tn.founders {
		c.Roster = nil
	}
	a := &ordertest.Assembly{Roster: tn.roster[:tn.founders]}
	a.Seen = func(ev consensus.Ordered) { tn.seen(i, a, ev) }
	tn.homes[i], tn.members[i].journal, c.Machine = a, &a.Journal, a
}

func (tn *town) seen(i int, a *ordertest.Assembly, ev consensus.Ordered) {
	root, now := a.Root(), time.Now()
	tn.mu.Lock()
	defer tn.mu.Unlock()
	if other, ok := tn.roots[a.Next]; ok && other != root && tn.wrong == "" {
		tn.wrong = fmt.Sprintf("member %d comes to another state after %d events", i, a.Next)
	}
	tn.roots[a.Next] = root
	if i != 0 {
		return
	}
	if len(ev.Event.Payload) > 0 {
		if !tn.last.IsZero() && !tn.quiet {
			tn.gap = max(tn.gap, now.Sub(tn.last))
		}
		tn.last = now
	}
	by := int(ev.Event.Creator) - 1
	for k, key := range []ed25519.PrivateKey{tn.world.keys[by], newKey(by)} {
		if ev.Event.Verify(key.Public().(ed25519.PublicKey)) == nil {
			tn.births = append(tn.births, birth{ev.Event.Creator, ev.Event.BirthRound, k})
		}
	}
}

// begin starts the founders and a load that goes on until rest.
func (tn *town) begin() {
	for i := range tn.founders {
		tn.start(i)
	}
	tn.t.Cleanup(tn.hush)
	for i := range min(2, tn.founders) {
		l := tn.members[i].loop
		go func() {
			for k := 0; ; k++ {
				time.Sleep(17 * time.Millisecond)
				tn.mu.Lock()
				quiet := tn.quiet
				tn.mu.Unlock()
				if quiet {
					return
				}
				if err := l.Enqueue(fmt.Appendf(nil, "load %d %d", i, k)); err != nil {
					tn.t.Errorf("member %d: %v", i, err)
					return
				}
			}
		}()
	}
	time.Sleep(500 * time.Millisecond)
}

// hush ends the load.
func (tn *town) hush() {
	tn.mu.Lock()
	defer tn.mu.Unlock()
	tn.quiet = true
}

// until waits for something, for ten minutes of the bubble at most.
func (tn *town) until(what string, come func() bool) {
	tn.t.Helper()
	for end := time.Now().Add(10 * time.Minute); !come(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			tn.t.Fatalf("not in ten minutes: %s; %+v", what, tn.members[0].status())
		}
	}
}

// move has a transaction ordered by member 0 and gives the first round that obeys it.
func (tn *town) move(tx []byte) uint64 {
	tn.t.Helper()
	return tn.members[0].submit(string(tx)).Round + consensus.ChangeDelay
}

// obeyed waits until member i has decided a round.
func (tn *town) obeyed(i int, round uint64) {
	tn.t.Helper()
	tn.until(fmt.Sprintf("member %d decides round %d", i, round), func() bool { return tn.members[i].status().Pending > round })
}

// invite starts a member that knows a roster only, until it has begun at a checkpoint.
func (tn *town) invite(i int, trust []consensus.Member) {
	tn.t.Helper()
	tn.trust[i] = trust
	tn.start(i)
	tn.begun(i)
}

func (tn *town) begun(i int) {
	tn.t.Helper()
	m := tn.members[i]
	if err := m.ends(); !errors.Is(err, order.ErrRejoined) {
		tn.t.Fatalf("member %d: %v", i, err)
	}
	_ = m.stop()
	tn.start(i)
}

// again crashes a member and starts it, and lets it take over a checkpoint if it comes
// to that.
func (tn *town) again(i int) {
	tn.t.Helper()
	tn.members[i].crash()
	tn.members[i].boot++
	tn.start(i)
}

// rest ends the load and checks that the members that are named agree and that nobody
// is blamed.
func (tn *town) rest(which ...int) {
	tn.t.Helper()
	tn.hush()
	tn.settled(which...)
	tn.mu.Lock()
	defer tn.mu.Unlock()
	if tn.wrong != "" {
		tn.t.Error(tn.wrong)
	}
	if tn.gap > 5*time.Second {
		tn.t.Errorf("nothing was ordered for %v", tn.gap)
	}
	want := tn.members[which[0]].status()
	for _, i := range which {
		st := tn.members[i].status()
		ids := func(a, b consensus.MemberStatus) bool { return a.ID == b.ID }
		if st.Ordered != want.Ordered || !slices.EqualFunc(st.Members, want.Members, ids) {
			tn.t.Errorf("member %d has ordered %d events, member %d %d; or their rosters differ", which[0], want.Ordered, i, st.Ordered)
		}
		if len(st.Suspects) > 0 || st.Forks > 0 {
			tn.t.Errorf("member %d blames %+v", i, st.Suspects)
		}
		if named := slices.ContainsFunc(st.Members, func(m consensus.MemberStatus) bool { return m.ID == uint64(i)+1 }); named == st.Outside || st.Unnamed || st.Observing || st.Joining || st.Changing {
			tn.t.Errorf("member %d: in the roster %v, outside %v, unnamed %v, observing %v, joining %v, changing %v", i, named, st.Outside, st.Unnamed, st.Observing, st.Joining, st.Changing)
		}
	}
}

// signs checks by which keys the events of a member were signed: the new one from a
// round on.
func (tn *town) signs(i int, from uint64) {
	tn.t.Helper()
	tn.mu.Lock()
	defer tn.mu.Unlock()
	var with [2]int
	for _, b := range tn.births {
		if b.member != uint64(i)+1 {
			continue
		}
		with[b.key]++
		if (b.key == 1) != (b.round >= from) {
			tn.t.Errorf("an event of round %d is signed with key %d; the new one holds from round %d on", b.round, b.key, from)
		}
	}
	if with[0] == 0 || with[1] == 0 {
		tn.t.Errorf("member %d signed %v events with its keys", i, with)
	}
}

// speaks checks that a member can have something ordered.
func (tn *town) speaks(i int) {
	tn.t.Helper()
	tn.members[i].submit(fmt.Sprintf("member %d speaks", i))
}

func inBubble(t *testing.T, name string, f func(t *testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
}
