package gossiptest

import (
	"bytes"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/dcnode/dcnode/gossip"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// software is what one hop may cost beside the network's delay: the link takes 0.6 µs
// for an event of 700 bytes at 10 Gbit/s, and 30 of them leave one after the other.
const software = 100 * time.Microsecond

func TestMessageReachesAllInOneDelay(t *testing.T) {
	for _, n := range []int{4, 16, 31} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				delay := func(from, to int) time.Duration { return time.Duration(5+from+to) * time.Millisecond }
				begin := time.Now()
				mesh := New(t, n, delay, Options{})
				t.Logf("%d members connected after %v", n, time.Since(begin))
				var worst time.Duration
				for author := range n {
					worst = max(worst, hop(t, mesh, n, author, delay))
				}
				t.Logf("one hop of 700 bytes takes the delay and at most %v", worst)
			})
		})
	}
}

// hop publishes at one member and returns the most that anybody waited beyond the delay.
func hop(t *testing.T, mesh *Mesh, n, author int, delay func(from, to int) time.Duration) (worst time.Duration) {
	t.Helper()
	event := bytes.Repeat([]byte{byte(author)}, 700)
	begin := time.Now()
	if err := mesh.Overlay(author).Publish(t.Context(), event); err != nil {
		t.Fatal(err)
	}
	type arrival struct {
		at   int
		took time.Duration
		m    gossip.Message
	}
	arrivals := make(chan arrival, n)
	for i := range n {
		if i != author {
			go func() {
				m := <-mesh.Overlay(i).Messages()
				arrivals <- arrival{i, time.Since(begin), m}
			}()
		}
	}
	for range n - 1 {
		a := <-arrivals
		if !bytes.Equal(a.m.Data, event) || a.m.From != mesh.ID(author) {
			t.Errorf("%d got %d bytes from %s", a.at, len(a.m.Data), a.m.From)
		}
		beyond := a.took - delay(author, a.at)
		if beyond < 0 || beyond > software {
			t.Errorf("%d heard %d after %v, the delay is %v", a.at, author, a.took, delay(author, a.at))
		}
		worst = max(worst, beyond)
	}
	return worst
}

func TestCutAndStoppedMembersComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mesh := New(t, 4, Same(5*time.Millisecond), Options{Later: []int{3}})
		if mesh.Overlay(3) != nil {
			t.Fatal("a member that was to be started later runs")
		}
		mesh.Start(3)
		mesh.Settle()

		mesh.Partition([]int{0, 1})
		time.Sleep(3 * time.Minute)
		for i, alone := range []bool{false, false, true, true} {
			for _, p := range mesh.Overlay(i).Peers() {
				together := !alone && mesh.Index(p.ID) < 2
				if p.Connected != together || p.Hears != together {
					t.Errorf("in the partition %d says of %d: %+v", i, mesh.Index(p.ID), p)
				}
			}
		}
		mesh.Partition()
		mesh.Settle()

		mesh.Stop(2)
		time.Sleep(time.Second)
		for _, p := range mesh.Overlay(0).Peers() {
			if up := mesh.Index(p.ID) != 2; p.Connected != up || p.Hears != up {
				t.Errorf("2 is stopped and 0 says of %d: %+v", mesh.Index(p.ID), p)
			}
		}
		mesh.Start(2)
		mesh.Settle()
		hop(t, mesh, 4, 2, Same(5*time.Millisecond))
	})
}
