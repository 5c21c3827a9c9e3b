package gossip_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/dcnode/dcnode/gossip"
	"github.com/dcnode/dcnode/gossip/gossiptest"
)

const far = 20 * time.Millisecond // one way

// inMesh runs f in a bubble with n members.
func inMesh(t *testing.T, n int, opts gossiptest.Options, f func(t *testing.T, mesh *gossiptest.Mesh)) {
	synctest.Test(t, func(t *testing.T) { f(t, gossiptest.New(t, n, gossiptest.Same(far), opts)) })
}

func publish(t *testing.T, o *gossip.Overlay, text string) {
	t.Helper()
	if err := o.Publish(t.Context(), []byte(text)); err != nil {
		t.Fatal(err)
	}
}

// heard is what o gets within d.
func heard(o *gossip.Overlay, d time.Duration) (texts []string) {
	for limit := time.After(d); ; {
		select {
		case m := <-o.Messages():
			texts = append(texts, string(m.Data))
		case <-limit:
			return texts
		}
	}
}

// state is what member at says of member of.
func state(mesh *gossiptest.Mesh, at, of int) gossip.PeerState {
	for _, p := range mesh.Overlay(at).Peers() {
		if p.ID == mesh.ID(of) {
			return p
		}
	}
	return gossip.PeerState{}
}

// drain forgets who was named as connected so far.
func drain(o *gossip.Overlay) {
	for {
		select {
		case <-o.Connected():
		case <-time.After(time.Millisecond):
			return
		}
	}
}

// named says whether o names p as connected within d.
func named(o *gossip.Overlay, p peer.ID, d time.Duration) bool {
	for limit := time.After(d); ; {
		select {
		case q := <-o.Connected():
			if p == q {
				return true
			}
		case <-limit:
			return false
		}
	}
}

func TestMemberWithoutAConnectionToTheAuthorHearsItThroughOthers(t *testing.T) {
	inMesh(t, 4, gossiptest.Options{}, func(t *testing.T, mesh *gossiptest.Mesh) {
		mesh.Cut(0, 3)
		time.Sleep(3 * time.Minute) // they notice
		if state(mesh, 0, 3).Connected || state(mesh, 3, 0).Connected {
			t.Fatal("two members are connected although they are cut off from each other")
		}
		for _, author := range []int{0, 3} {
			begin := time.Now()
			text := fmt.Sprint("from ", author)
			publish(t, mesh.Overlay(author), text)
			m := <-mesh.Overlay(3 - author).Messages()
			if took := time.Since(begin); took > 2*far+time.Millisecond {
				t.Errorf("the relayed message took %v, two hops are %v", took, 2*far)
			}
			if string(m.Data) != text || m.From != mesh.ID(1) && m.From != mesh.ID(2) {
				t.Errorf("%d got %q from %s", 3-author, m.Data, m.From)
			}
			for _, i := range []int{1, 2} {
				if got := heard(mesh.Overlay(i), 5*time.Second); !slices.Equal(got, []string{text}) {
					t.Errorf("%d got %q, wanted one message", i, got)
				}
			}
			if got := heard(mesh.Overlay(3-author), 5*time.Second); got != nil {
				t.Errorf("%d got %q again", 3-author, got)
			}
		}
		drain(mesh.Overlay(0))
		mesh.Heal(0, 3)
		if !named(mesh.Overlay(0), mesh.ID(3), time.Minute) {
			t.Error("the end of the cut is not told")
		}
		mesh.Settle()
		publish(t, mesh.Overlay(0), "straight")
		if got := heard(mesh.Overlay(3), far+time.Millisecond); !slices.Equal(got, []string{"straight"}) {
			t.Errorf("after the cut %q came", got)
		}
	})
}

// A member that nobody can reach costs the others nothing: what they publish is not
// given to gossipsub, which would have each forward it to the others again.
func TestCrashedMemberCausesNoRelaying(t *testing.T) {
	inMesh(t, 4, gossiptest.Options{}, func(t *testing.T, mesh *gossiptest.Mesh) {
		mesh.Stop(3)
		time.Sleep(time.Second)
		for author := range 3 {
			if gossip.IsRelaying(mesh.Overlay(author)) {
				t.Errorf("%d relays for a member that runs nowhere", author)
			}
		}
		mesh.Start(3)
		mesh.Settle()
		mesh.Cut(0, 3)
		time.Sleep(3 * time.Minute)
		for i, want := range []bool{true, false, false, true} {
			if gossip.IsRelaying(mesh.Overlay(i)) != want {
				t.Errorf("0 and 3 are cut off from each other, and %d relays: %v", i, !want)
			}
		}
	})
}

func TestMemberThatIsCutOffHoldsUpNobody(t *testing.T) {
	inMesh(t, 4, gossiptest.Options{}, func(t *testing.T, mesh *gossiptest.Mesh) {
		const n = 3000
		author, deaf := mesh.Overlay(0), mesh.Overlay(3)
		drain(deaf)
		mesh.Cut(0, 3)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		got := make(chan time.Duration, 2*n)
		for _, i := range []int{1, 2} {
			go mesh.Overlay(i).Receive(ctx, func(_ peer.ID, data []byte) {
				if len(data) == 700 {
					got <- time.Since(time.Unix(0, int64(binary.BigEndian.Uint64(data))))
				}
			})
		}
		for range n { // three seconds, in which nobody notices the cut
			event := make([]byte, 700)
			binary.BigEndian.PutUint64(event, uint64(time.Now().UnixNano()))
			publish(t, author, string(event))
			time.Sleep(time.Millisecond)
		}
		for range 2 * n {
			if took := <-got; took > far+time.Millisecond {
				t.Fatalf("a message took %v to a member that is well, %v is the delay", took, far)
			}
		}
		if lost := state(mesh, 0, 3).Unsent; lost == 0 || lost > n {
			t.Errorf("%d of %d messages were left out", lost, n)
		}
		mesh.Heal(0, 3)
		if !named(deaf, mesh.ID(0), time.Minute) {
			t.Error("a member for which something was left out is not told to ask")
		}
		mesh.Settle()
		left := len(heard(deaf, time.Minute))
		publish(t, author, "and on")
		if got := heard(deaf, far+time.Millisecond); !slices.Equal(got, []string{"and on"}) {
			t.Errorf("after %d that waited %q came", left, got)
		}
	})
}

func TestReceiveDeliversEachMessageOnceAndEnds(t *testing.T) {
	inMesh(t, 3, gossiptest.Options{}, func(t *testing.T, mesh *gossiptest.Mesh) {
		publish(t, mesh.Overlay(0), "before")
		time.Sleep(time.Second)
		var mu sync.Mutex
		var got []string
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() {
			ended <- mesh.Overlay(1).Receive(ctx, func(_ peer.ID, data []byte) {
				mu.Lock()
				defer mu.Unlock()
				got = append(got, string(data))
			})
		}()
		time.Sleep(time.Second)
		publish(t, mesh.Overlay(0), "from 0")
		time.Sleep(time.Second)
		publish(t, mesh.Overlay(2), "from 2")
		publish(t, mesh.Overlay(2), "from 2")
		time.Sleep(time.Second)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if want := []string{"before", "from 0", "from 2"}; !slices.Equal(got, want) {
			t.Errorf("%q was delivered, wanted %q", got, want)
		}
		publish(t, mesh.Overlay(0), "after")
		if got := heard(mesh.Overlay(1), time.Second); !slices.Equal(got, []string{"after"}) {
			t.Errorf("Messages gave %q", got)
		}
	})
}
