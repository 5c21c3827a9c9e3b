package gossip

import (
	"testing"
	"time"
)

func TestMessageReachesAllInOneHop(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		all := w.all()
		for author, o := range all {
			begin := time.Now()
			if err := o.Publish(t.Context(), []byte("from "+author)); err != nil {
				t.Fatal(err)
			}
			for name, other := range all {
				if name == author {
					continue
				}
				m := next(t, other)
				if took := time.Since(begin); took > oneWay+5*time.Millisecond {
					t.Errorf("%s heard %s after %v, one hop is %v", name, author, took, oneWay)
				}
				if string(m.Data) != "from "+author || m.From != o.ID() {
					t.Errorf("%s got %q from %s", name, m.Data, m.From)
				}
			}
			nothingFor(t, o, 2*time.Second) // not even its own
		}
	})
}

func TestBootstrapViaOneMemberFindsAll(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		for name, o := range w.all() {
			for _, p := range o.Peers() {
				if !p.Connected || p.Transport != "quic-v1" {
					t.Errorf("%s: %+v", name, p)
				}
				rtt, err := o.RTT(t.Context(), p.ID)
				if err != nil || rtt < 2*oneWay || rtt > 2*oneWay+5*time.Millisecond {
					t.Errorf("%s: round trip %v, %v", name, rtt, err)
				}
			}
		}
	})
}
