package order_test

import (
	"crypto/ed25519"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dcnode/dcnode/consensus"
	"github.com/dcnode/dcnode/node/order"
	"github.com/dcnode/dcnode/node/order/ordertest"
)

// stages are when somebody crashes, as seen from a change.
const (
	never   = iota
	before  // it is ordered
	between // it is ordered, and it is in force
	after   // it is in force
)

var stageNames = []string{"nobody crashes", "crash before it is ordered", "crash before it is in force", "crash when it is in force"}

// Whatever changes in the roster, and whoever crashes when, the others order on and
// all come to one order.
func TestRosterChangesWhileMembersOrder(t *testing.T) {
	for _, c := range []struct {
		name    string
		subject int
		run     func(tn *town, crash func(stage int))
	}{
		{"join", 5, func(tn *town, crash func(int)) {
			crash(before)
			from := tn.move(ordertest.Set(tn.roster[5]))
			tn.invite(5, tn.roster[:5])
			crash(between)
			tn.obeyed(0, from)
			crash(after)
			tn.speaks(5)
			tn.rest(0, 1, 2, 3, 4, 5)
		}},
		{"leave", 4, func(tn *town, crash func(int)) {
			crash(before)
			from := tn.move(ordertest.Drop(5))
			crash(between)
			tn.obeyed(0, from)
			tn.obeyed(4, from)
			crash(after)
			tn.isOut(4)
			tn.rest(0, 1, 2, 3, 4)
			tn.isSilentSince(4, from)
		}},
		{"a member that is down is voted out", 4, func(tn *town, crash func(int)) {
			tn.members[4].crash()
			from := tn.move(ordertest.Drop(5))
			tn.obeyed(0, from)
			tn.start(4)
			tn.until("it knows that it is out", func() bool { return tn.members[4].status().Left })
			crash(after)
			tn.isOut(4)
			tn.rest(0, 1, 2, 3, 4)
			tn.isSilentSince(4, from)
		}},
		{"rotate", 4, func(tn *town, crash func(int)) {
			tn.members[4].crash()
			tn.keys[4] = []ed25519.PrivateKey{newKey(4), tn.world.keys[4]}
			tn.start(4)
			crash(before)
			from := tn.move(ordertest.Set(ordertest.Seat(5, newKey(4))))
			crash(between)
			tn.obeyed(0, from)
			crash(after)
			tn.speaks(4)
			tn.rest(0, 1, 2, 3, 4)
			tn.signs(4, from)
		}},
		{"one joins and one leaves at once", 5, func(tn *town, crash func(int)) {
			crash(before)
			if err := tn.members[0].loop.Enqueue(ordertest.Drop(4)); err != nil {
				tn.t.Fatal(err)
			}
			from := tn.move(ordertest.Set(tn.roster[5]))
			tn.invite(5, tn.roster[:5])
			crash(between)
			tn.obeyed(0, from)
			crash(after)
			tn.speaks(5)
			tn.isOut(3)
			tn.rest(0, 1, 2, 3, 4, 5)
		}},
		{"two join at once", 5, func(tn *town, crash func(int)) {
			crash(before)
			from := tn.move(ordertest.Set(tn.roster[5], tn.roster[6]))
			tn.invite(5, tn.roster[:5])
			crash(between)
			tn.invite(6, tn.roster[:5])
			tn.obeyed(0, from)
			crash(after)
			tn.speaks(5)
			tn.speaks(6)
			tn.rest(0, 1, 2, 3, 4, 5, 6)
		}},
	} {
		for stage, when := range stageNames {
			for _, who := range []int{c.subject, 2} {
				if stage == never && who != 2 || stage != between && (who == 2 && stage != never || testing.Short()) {
					continue
				}
				name := c.name + ", " + when
				if who == 2 && stage != never {
					name += ", of another"
				}
				inBubble(t, name, func(t *testing.T) {
					tn := newTown(t, 5, 7)
					tn.begin()
					c.run(tn, func(at int) {
						if at == stage && tn.members[who].stop != nil {
							tn.again(who)
						}
					})
				})
			}
		}
	}
}

// isOut checks that a member knows that it is none any more.
func (tn *town) isOut(i int) {
	tn.t.Helper()
	tn.until("it knows that it is out", func() bool { return tn.members[i].status().Left })
	if st := tn.members[i].status(); !st.Outside || st.Enters != 0 {
		tn.t.Errorf("member %d: outside %v, enters in round %d", i, st.Outside, st.Enters)
	}
	if _, err := tn.members[i].loop.Submit(tn.t.Context(), []byte("heard by nobody")); !errors.Is(err, order.ErrOutside) {
		tn.t.Errorf("member %d submits: %v", i, err)
	}
}

// isSilentSince checks that no event of a member is born in a round or later.
func (tn *town) isSilentSince(i int, from uint64) {
	tn.t.Helper()
	tn.mu.Lock()
	defer tn.mu.Unlock()
	before := 0
	for _, b := range tn.births {
		switch {
		case b.member == uint64(i)+1 && b.round >= from:
			tn.t.Errorf("an event of member %d is born in round %d; it is none from round %d on", i, b.round, from)
		case b.member == uint64(i)+1:
			before++
		}
	}
	if before == 0 {
		tn.t.Errorf("member %d never said anything", i)
	}
}

// An overlay grows from one member to five, idle but for that: each begins at the
// checkpoint that was taken for it. Two members of three cannot decide without it.
func TestYoungOverlayGrowsFromOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTown(t, 1, 5)
		tn.quiet = true
		tn.begin()
		for i := 1; i < 5; i++ {
			tn.move(ordertest.Set(tn.roster[i]))
			began := time.Now()
			tn.invite(i, tn.roster[:i])
			tn.speaks(i)
			if took := time.Since(began); took > 15*time.Second {
				t.Errorf("member %d needed %v to join", i, took)
			}
		}
		tn.rest(0, 1, 2, 3, 4)
		if st := tn.members[4].status(); st.Pending >= consensus.CheckpointEvery {
			t.Errorf("round %d: the overlay is not young any more", st.Pending)
		}
	})
}

// Five members: one joins, one leaves, one changes its key, all within a moment, and
// somebody restarts in between.
func TestEverythingChangesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTown(t, 5, 6)
		tn.keys[3] = []ed25519.PrivateKey{tn.world.keys[3], newKey(3)}
		tn.begin()
		tn.move(ordertest.Set(tn.roster[5]))
		tn.move(ordertest.Drop(5))
		from := tn.move(ordertest.Set(ordertest.Seat(4, newKey(3))))
		tn.again(2)
		tn.invite(5, append(slices.Clone(tn.roster[:3]), ordertest.Seat(4, newKey(3))))
		tn.obeyed(0, from)
		tn.again(3)
		tn.speaks(5)
		tn.speaks(3)
		tn.isOut(4)
		tn.rest(0, 1, 2, 3, 4, 5)
		tn.signs(3, from)
		t.Logf("the order stood still for %v at most", tn.gap)
	})
}

// A member that was let in before it comes begins at an older checkpoint or a newer
// one; one that comes before it is let in listens until it is.
func TestMemberMayComeLateOrEarly(t *testing.T) {
	inBubble(t, "late", func(t *testing.T) {
		tn := newTown(t, 4, 7)
		tn.every = 16
		tn.begin()
		tn.obeyed(0, tn.move(ordertest.Set(tn.roster[4])))
		tn.invite(4, tn.roster[:4])
		tn.obeyed(0, tn.move(ordertest.Set(tn.roster[5]))+60)
		tn.invite(5, tn.roster[:4])
		tn.speaks(5)
		tn.rest(0, 1, 2, 3, 4, 5)
	})
	inBubble(t, "early", func(t *testing.T) {
		tn := newTown(t, 4, 5)
		tn.every = 16
		tn.begin()
		tn.obeyed(0, 40)
		tn.invite(4, tn.roster[:4]) // at a checkpoint of before it is let in
		tn.obeyed(4, 60)
		if st := tn.members[4].status(); !st.Outside || st.Left || st.Enters != 0 {
			t.Errorf("outside %v, left %v, enters in round %d", st.Outside, st.Left, st.Enters)
		}
		if err := tn.members[4].loop.Enqueue([]byte("as soon as I may")); err != nil {
			t.Error(err)
		}
		from := tn.move(ordertest.Set(tn.roster[4]))
		tn.obeyed(4, from)
		tn.speaks(4)
		tn.rest(0, 1, 2, 3, 4)
		tn.mu.Lock()
		defer tn.mu.Unlock()
		for _, b := range tn.births {
			if b.member == 5 && b.round < from {
				t.Errorf("it spoke in round %d and is a member from round %d on", b.round, from)
			}
		}
	})
	inBubble(t, "before there is a checkpoint", func(t *testing.T) {
		tn := newTown(t, 4, 5)
		tn.quiet = true
		tn.begin()
		tn.trust[4] = tn.roster[:4]
		tn.start(4)
		time.Sleep(30 * time.Second)
		tn.again(4)
		time.Sleep(30 * time.Second)
		st := tn.members[4].status()
		if st.Entering == nil || st.Entering.Tries < 3 || !strings.Contains(st.Entering.Lacks, "no checkpoint yet") || !st.Outside {
			t.Fatalf("%+v", st.Entering)
		}
		tn.move(ordertest.Set(tn.roster[4]))
		tn.begun(4)
		tn.speaks(4)
		tn.rest(0, 1, 2, 3, 4)
	})
}
