package order_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/dcnode/dcnode/consensus"
	"github.com/dcnode/dcnode/node/order"
)

// BenchmarkSubmitToOrderedEverywhere is the software's part of the time to order: four
// members in one process, no network between them, logs on a real disk, one
// transaction at a time. It reports the mean and the 99th percentile until the last
// member has applied it.
func BenchmarkSubmitToOrderedEverywhere(b *testing.B) {
	for _, members := range []int{1, 4, 7} {
		b.Run(fmt.Sprintf("members=%d", members), func(b *testing.B) { benchmarkOrder(b, members) })
	}
}

func benchmarkOrder(b *testing.B, members int) {
	w := newWorld(b, members)
	var mu sync.Mutex
	seen := map[string]int{}
	all := make(chan struct{}, 1)
	events := 0
	for _, m := range w.members {
		m.config = func(c *order.Config) { c.Precise = true }
	}
	w.start()
	for _, m := range w.members {
		_ = m.loop.Do(context.Background(), func() {
			m.journal.Seen = func(ev consensus.Ordered) {
				mu.Lock()
				defer mu.Unlock()
				if m.i == 0 {
					events++
				}
				for _, tx := range ev.Event.Payload {
					if seen[string(tx)]++; seen[string(tx)] == members {
						all <- struct{}{}
					}
				}
			}
		})
	}
	w.members[0].submit("warm up") // all have met, and none observes
	<-all
	took := make([]time.Duration, 0, b.N)
	mu.Lock()
	events = 0
	mu.Unlock()
	b.ResetTimer()
	for k := range b.N {
		began := time.Now()
		if err := w.members[k%members].loop.Enqueue(fmt.Append(nil, k)); err != nil {
			b.Fatal(err)
		}
		<-all
		took = append(took, time.Since(began))
	}
	b.StopTimer()
	slices.Sort(took)
	mu.Lock()
	defer mu.Unlock()
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "µs/p50")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "µs/p99")
	b.ReportMetric(float64(events)/float64(b.N), "events/op")
}
