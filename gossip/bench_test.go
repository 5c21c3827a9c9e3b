package gossip

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// eventSize is that of a typical event: four parents and one transaction.
const eventSize = 700

// BenchmarkHop is the way from Publish at one member to Messages at the others: four
// of them on loopback TCP in this process. "alone" publishes one message and waits for
// it, "layer" has all four publish at once, as members do that step through the layers
// of the hashgraph. It reports the latency of one delivery, the CPU time of all four
// members together and the bytes on each link, per message.
//
// The bytes are those of the loopback interface, IP headers included; for figures
// without other programs' traffic run it in a network namespace of its own:
//
//	unshare -n sh -c 'ip link set lo up; go test ./gossip -run - -bench Hop'
func BenchmarkHop(b *testing.B) {
	all := onOneMachine(b, 4)
	b.Run("alone", func(b *testing.B) {
		benchHop(b, all, func(i int) []int { return []int{i % 4} })
	})
	b.Run("layer", func(b *testing.B) {
		benchHop(b, all, func(int) []int { return []int{0, 1, 2, 3} })
	})
}

// benchHop has authors(i) publish in round i, and ends the round when all have all.
func benchHop(b *testing.B, all []*Overlay, authors func(i int) []int) {
	var mu sync.Mutex
	var took []time.Duration
	messages := 0
	event := func(i, author int) []byte {
		data := make([]byte, eventSize)
		binary.BigEndian.PutUint64(data, uint64(time.Now().UnixNano()))
		binary.BigEndian.PutUint64(data[8:], uint64(i)<<8|uint64(author))
		return data
	}
	round := func(i int) {
		list := authors(i)
		var wait sync.WaitGroup
		for at, o := range all {
			n := len(list)
			if slices.Contains(list, at) {
				n--
			}
			wait.Go(func() {
				for range n {
					m := <-o.Messages()
					d := time.Since(time.Unix(0, int64(binary.BigEndian.Uint64(m.Data))))
					mu.Lock()
					took = append(took, d)
					mu.Unlock()
				}
			})
		}
		for _, at := range list {
			if err := all[at].Publish(b.Context(), event(i, at)); err != nil {
				b.Error(err)
			}
			messages++
		}
		wait.Wait()
	}
	for i := range 200 {
		round(i)
	}
	took, messages = took[:0], 0
	bytes, cpu := loopbackBytes(b), cpuTime(b)
	for i := 0; b.Loop(); i++ {
		round(i)
	}
	cpu, bytes = cpuTime(b)-cpu, loopbackBytes(b)-bytes
	slices.Sort(took)
	var sum time.Duration
	for _, d := range took {
		sum += d
	}
	us := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }
	links := messages * (len(all) - 1)
	b.ReportMetric(us(sum)/float64(len(took)), "us-mean")
	b.ReportMetric(us(took[len(took)*99/100]), "us-p99")
	b.ReportMetric(us(cpu)/float64(messages), "cpu-us/msg")
	b.ReportMetric(float64(bytes)/float64(links), "wire-B/msg/link")
}

// BenchmarkIdle is what seven members cost that have nothing to say, after a minute in
// which they settled: bytes a second on each link, both ways and IP headers included
// (see BenchmarkHop), and CPU time of each member in per cent of a core. An iteration is
// a second; it takes -benchtime 120x or so to mean something.
func BenchmarkIdle(b *testing.B) {
	const n = 7
	onOneMachine(b, n)
	time.Sleep(time.Minute)
	b.ResetTimer()
	begin, cpu, bytes := time.Now(), cpuTime(b), loopbackBytes(b)
	time.Sleep(time.Duration(b.N) * time.Second)
	cpu, bytes = cpuTime(b)-cpu, loopbackBytes(b)-bytes
	took := time.Since(begin).Seconds()
	b.ReportMetric(float64(bytes)/took/(n*(n-1)/2), "B/s/link")
	b.ReportMetric(100*cpu.Seconds()/took/n, "%core/member")
}

// onOneMachine starts n members on loopback and waits until all hear each other.
func onOneMachine(tb testing.TB, n int) []*Overlay {
	tb.Helper()
	var roster []peer.ID
	for i := range n {
		roster = append(roster, idOf(tb, fmt.Sprint("member ", i)))
	}
	var all []*Overlay
	var boot []string
	for i := range n {
		o, err := New(Config{
			Key: keyOf(tb, fmt.Sprint("member ", i)), Network: "bench", Listen: []string{anyTCP}, Bootstrap: boot,
			Members: func() []peer.ID { return roster },
		})
		if err != nil {
			tb.Fatal(err)
		}
		run(tb, o)
		boot = append(boot, o.Addrs()...)
		all = append(all, o)
	}
	for _, o := range all {
		awaitConnected(tb, o, n-1)
	}
	return all
}

func cpuTime(tb testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// loopbackBytes is what the loopback interface of this network namespace has carried.
func loopbackBytes(tb testing.TB) (n int64) {
	f, err := os.Open("/proc/self/net/dev")
	if err != nil {
		return 0 // not on Linux
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(lines.Text()), "lo:"); ok {
			if _, err := fmt.Sscan(rest, &n); err != nil {
				tb.Fatal(err)
			}
		}
	}
	return n
}
