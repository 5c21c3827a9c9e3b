package order_test

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/dcnode/dcnode/consensus"
	"github.com/dcnode/dcnode/node/order"
	"github.com/dcnode/dcnode/node/order/ordertest"
)

// lacks waits until an invited member says of what it lacks.
func (tn *town) lacks(i int, text string) {
	tn.t.Helper()
	tn.until("member says: "+text, func() bool {
		st := tn.members[i].status()
		return st.Entering != nil && strings.Contains(st.Entering.Lacks, text)
	})
}

// Of those in an old invitation some have left and some have other keys by now. Who is
// left signs for more than a third, which is enough after a while, and no less is.
func TestOldInvitationIsEnoughIfAThirdIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTown(t, 5, 7)
		tn.quiet = true
		for i := range 5 {
			tn.keys[i] = append(tn.keys[i], newKey(i))
		}
		tn.begin()
		tn.obeyed(0, tn.move(ordertest.Set(tn.roster[5])))
		tn.invite(5, tn.roster[:5])
		tn.obeyed(0, tn.move(ordertest.Drop(5)))
		old := slices.Clone(tn.roster[:6])
		tn.obeyed(0, tn.move(ordertest.Set(ordertest.Seat(1, newKey(0)), tn.roster[6])))
		tn.isolate(6, true)
		tn.trust[6] = tn.roster[:5]
		tn.start(6)
		tn.lacks(6, "none of the 5 members")
		tn.isolate(6, false)
		began := time.Now()
		tn.begun(6) // 3 of 5
		if took := time.Since(began); took > time.Minute {
			t.Errorf("it took %v", took)
		}
		tn.speaks(6)
		// Two of six are no more than a third.
		tn.obeyed(0, tn.move(ordertest.Set(ordertest.Seat(2, newKey(1)), ordertest.Seat(3, newKey(2)))))
		lost := tn.members[6]
		lost.crash()
		lost.dir = t.TempDir()
		tn.trust[6] = old
		tn.start(6)
		tn.lacks(6, "more than a third")
		if st := tn.members[6].status(); st.Entering.Tries < 3 || len(st.Entering.Silent) > 0 {
			t.Errorf("%+v", st.Entering)
		}
		lost.crash()
		tn.invite(6, tn.homes[0].Roster)
		tn.speaks(6)
		tn.rest(0, 1, 2, 3, 5, 6)
	})
}

// A liar among those in the invitation offers a checkpoint of its own, far ahead, and
// then a state that is not the one that was signed.
func TestInvitedMemberDoesNotBelieveOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTown(t, 4, 5)
		tn.quiet = true
		far := tn.net.Delay
		tn.net.Delay = func(from, to int) time.Duration {
			if from+to == 3+4 {
				return time.Millisecond // the liar answers first
			}
			return far(from, to)
		}
		for i := range 3 {
			tn.start(i)
		}
		from := tn.move(ordertest.Set(tn.roster[4]))
		tn.obeyed(0, from-1) // the next round needs the new member
		liar, served := tn.net.Overlay(tn.ids[3]), 0
		offer := order.Offer(1900, &consensus.Checkpoint{
			Network: consensus.Hash{7}, Round: 1950, MinBirth: 1900, Ordered: 9000,
			Judges: []consensus.Parent{{Hash: consensus.Hash{1}, Creator: 1, BirthRound: 1940}},
			Epochs: []consensus.Epoch{{From: 1, Roster: tn.roster, Params: consensus.DefaultParams}},
		}, [32]byte{5}, tn.world.keys[3])
		liar.HandleRequest("/checkpoint/1", func(context.Context, peer.ID, []byte) ([]byte, error) { return offer, nil })
		liar.HandleRequest("/snapshot/1", func(context.Context, peer.ID, []byte) ([]byte, error) {
			served++
			return append(binary.BigEndian.AppendUint64(nil, 3), "lie"...), nil
		})
		go func() { _ = liar.Receive(t.Context(), func(peer.ID, []byte) {}) }()
		tn.isolate(1, true) // two of four and the liar
		tn.net.Cut(1, 0, false)
		tn.net.Cut(1, 2, false)
		tn.trust[4] = tn.roster[:4]
		tn.start(4)
		tn.lacks(4, "more than two thirds")
		st := tn.members[4].status()
		if st.Entering == nil || !slices.Contains(st.Entering.Silent, 2) {
			t.Fatalf("%+v", st.Entering)
		}
		cp, root := tn.newestOf(0, liar)
		offer = order.Offer(1, cp, root, tn.world.keys[3]) // as the others do
		tn.net.Cut(1, 4, false)
		tn.begun(4)
		tn.speaks(4)
		if served == 0 {
			t.Error("the liar was not asked for the state")
		}
	})
}

// newestOf is the newest checkpoint that a member keeps, as it offers it.
func (tn *town) newestOf(i int, end *ordertest.End) (*consensus.Checkpoint, [32]byte) {
	tn.t.Helper()
	reply, err := end.Request(context.Background(), tn.ids[i], "/checkpoint/1", nil, 1<<30)
	if err != nil {
		tn.t.Fatal(err)
	}
	var body, rest []byte
	for rest = reply[8:]; len(rest) > 0; {
		n := binary.BigEndian.Uint32(rest)
		body = rest[4:]
		rest = rest[4+n+32+ed25519.SignatureSize:]
		body = body[: n+32 : n+32]
	}
	cp, err := consensus.UnmarshalCheckpoint(body[:len(body)-32])
	if err != nil {
		tn.t.Fatal(err)
	}
	return cp, [32]byte(body[len(body)-32:])
}

// A member whose disk was lost, with its key: it comes back with another key, begins at
// a checkpoint, and does not contradict what it said before.
func TestMemberThatLostEverythingComesBack(t *testing.T) {
	for name, quiet := range map[string]bool{"soon": false, "after long": true} {
		inBubble(t, name, func(t *testing.T) {
			tn := newTown(t, 4, 4)
			tn.every = 32
			tn.begin()
			tn.speaks(3)
			tn.members[3].crash()
			from := tn.move(ordertest.Set(ordertest.Seat(4, newKey(3))))
			tn.obeyed(0, from)
			if quiet {
				tn.obeyed(0, from+100) // nobody knows the old key any more
			}
			tn.members[3].dir = t.TempDir()
			tn.keys[3] = []ed25519.PrivateKey{newKey(3)}
			tn.invite(3, tn.homes[0].Roster)
			tn.speaks(3)
			tn.rest(0, 1, 2, 3)
			tn.signs(3, from)
		})
	}
}

// A member whose key the roster does not name is silent, and says why, until it has it.
func TestMemberWithoutTheKeyIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTown(t, 4, 4)
		tn.begin()
		from := tn.move(ordertest.Set(ordertest.Seat(4, newKey(3))))
		tn.obeyed(3, from)
		if st := tn.members[3].status(); !st.Unnamed || st.Outside {
			t.Errorf("unnamed %v, outside %v", st.Unnamed, st.Outside)
		}
		if err := tn.members[3].loop.Enqueue([]byte("when I have my key")); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		if err := tn.members[3].stop(); err != nil {
			t.Error(err)
		}
		tn.keys[3] = []ed25519.PrivateKey{newKey(3), tn.world.keys[3]}
		tn.start(3)
		tn.speaks(3)
		tn.rest(0, 1, 2, 3)
		tn.signs(3, from)
	})
}

// With the new key comes a new peer ID: for a while two peers are one member.
func TestMemberMayBeTwoPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTown(t, 4, 5)
		for i, m := range tn.members[:4] {
			m.config = func(c *order.Config) {
				tn.configure(i, c)
				member := c.Member
				c.Member = func(id peer.ID) uint64 {
					if m := member(id); m != 5 {
						return m
					}
					return 4
				}
			}
		}
		tn.members[3].peer = tn.ids[4] // the other peer is looked at first
		tn.begin()
		tn.members[3].crash()
		tn.members[3].peer = ""
		tn.keys[3] = []ed25519.PrivateKey{newKey(3), tn.world.keys[3]}
		tn.start(3)
		from := tn.move(ordertest.Set(ordertest.Seat(4, newKey(3))))
		tn.obeyed(3, from)
		tn.speaks(3)
		tn.rest(0, 1, 2, 3)
		tn.signs(3, from)
		live := 0
		for _, m := range tn.members[0].status().Members {
			if m.Live {
				live++
			}
		}
		if live < 4 {
			t.Errorf("%d of 4 members are waited for", live)
		}
	})
}

// What a member says after its last round is dropped, and nobody is blamed.
func TestFormerMemberIsNotHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTown(t, 4, 4)
		tn.begin()
		from := tn.move(ordertest.Drop(4))
		tn.obeyed(0, from)
		_ = tn.members[3].stop()
		for k := range uint64(200) {
			e := &consensus.Event{Network: consensus.Hash{7}, Creator: 4, BirthRound: from + k%3, Time: consensus.Timestamp(k + 1), Payload: [][]byte{{byte(k)}}}
			e.Sign(tn.world.keys[3])
			tn.net.Send(3, int(k%3), e.Marshal())
		}
		tn.rest(0, 1, 2)
		tn.isSilentSince(3, from)
	})
}

// Of several changes in one round the last one counts; one that cannot be is refused by
// all alike. A restart from any checkpoint comes to the same rosters.
func TestRostersAreTheSameAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTown(t, 4, 5)
		tn.every = 4
		tn.begin()
		var from uint64
		for k := range 12 {
			m := tn.roster[k%3]
			m.Weight = uint64(2 + k%2)
			for _, tx := range [][]byte{ordertest.Set(tn.roster[4]), ordertest.Void(), ordertest.Drop(5), ordertest.Set(m), ordertest.Void()} {
				if err := tn.members[0].loop.Enqueue(tx); err != nil {
					t.Fatal(err)
				}
			}
			from = tn.move([]byte("and so on"))
			tn.again(2 + k%2)
		}
		tn.obeyed(0, from)
		tn.rest(0, 1, 2, 3)
		for i := range 4 {
			if a := tn.homes[i]; a.Voided != 24 || !reflect.DeepEqual(a.Roster, tn.homes[0].Roster) {
				t.Errorf("member %d: %d changes were refused, want 24; or the roster differs", i, a.Voided)
			}
		}
		if err := tn.members[2].stop(); err != nil && !errors.Is(err, order.ErrRejoined) {
			t.Fatal(err)
		}
		tn.start(2)
		tn.speaks(2)
		tn.rest(0, 1, 2, 3)
	})
}

// Who submits at a member hears of it when the member has left, at once or from the
// wait.
func TestWhoSubmitsHearsThatTheMemberHasLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTown(t, 4, 4)
		tn.begin()
		told := make(chan error, 24)
		for k := range cap(told) {
			go func() {
				for {
					time.Sleep(time.Duration(k) * time.Millisecond)
					if _, err := tn.members[3].loop.Submit(context.Background(), []byte("on and on")); err != nil {
						told <- err
						return
					}
				}
			}()
		}
		time.Sleep(time.Second)
		tn.isolate(3, true)                         // what it has to say waits
		tn.obeyed(0, tn.move(ordertest.Drop(4))+60) // so long that what it says meanwhile is ancient
		tn.isolate(3, false)
		for range cap(told) {
			select {
			case err := <-told:
				if !errors.Is(err, order.ErrOutside) {
					t.Errorf("it is told: %v", err)
				}
			case <-time.After(time.Minute):
				t.Fatal("somebody waits for ever")
			}
		}
		tn.rest(0, 1, 2)
	})
}

// Founders that were told a roster too begin at the first event while the overlay has
// no checkpoint, and at one when it has; one alone waits.
func TestFoundersOfAYoungOverlayBeginAtTheFirstEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tn := newTown(t, 4, 4)
		tn.every, tn.quiet = 16, true
		for i := range 4 {
			tn.trust[i] = tn.roster
		}
		tn.start(0, 1)
		tn.lacks(0, "no checkpoint")
		tn.start(2)
		left := []int{0, 1, 2}
		tn.until("all have begun", func() bool {
			left = slices.DeleteFunc(left, func(i int) bool {
				ended := len(tn.members[i].ended) > 0
				if ended { // its owner opens it again at once
					tn.begun(i)
				}
				return ended
			})
			return len(left) == 0
		})
		tn.speaks(0)
		tn.start(3)
		tn.begun(3) // at the first event
		tn.speaks(3)
		tn.members[0].pass(40, 10)
		tn.members[3].crash()
		tn.members[3].dir = t.TempDir()
		tn.start(3)
		tn.begun(3)
		tn.speaks(3)
		if st := tn.members[3].status(); st.Checkpoint == 0 {
			t.Error("it did not begin at a checkpoint")
		}
		tn.rest(0, 1, 2, 3)
	})
}
