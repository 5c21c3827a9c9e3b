//go:build unix

package h26

import (
	"syscall"
	"testing"
)

// cpuSeconds is what this process has used, kernel and collector included.
func cpuSeconds(b *testing.B) float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return float64(u.Utime.Sec+u.Stime.Sec) + float64(u.Utime.Usec+u.Stime.Usec)/1e6
}

func benchmark(b *testing.B, n int, s source) { benchmarkUnder(b, equalRules(n), n, s) }

func benchmarkUnder(b *testing.B, rules Rules, n int, s source) {
	g := New(rules)
	run(g, s, 100*n) // to the size of the window
	b.ReportAllocs()
	b.ResetTimer()
	before := cpuSeconds(b)
	ordered := run(g, s, b.N)
	b.StopTimer()
	// Of the processor, so that other jobs on the machine do not spoil it.
	b.ReportMetric(float64(b.N)/(cpuSeconds(b)-before), "events/s")
	b.ReportMetric(float64(ordered)/float64(b.N), "ordered/event")
}

func BenchmarkRandom4(b *testing.B)  { benchmark(b, 4, newGossip(4)) }
func BenchmarkRandom16(b *testing.B) { benchmark(b, 16, newGossip(16)) }
func BenchmarkRandom64(b *testing.B) { benchmark(b, 64, newGossip(64)) }

func BenchmarkClocked4(b *testing.B)  { benchmark(b, 4, newClocked(4)) }
func BenchmarkClocked16(b *testing.B) { benchmark(b, 16, newClocked(16)) }
func BenchmarkClocked64(b *testing.B) { benchmark(b, 64, newClocked(64)) }

func BenchmarkCareful4(b *testing.B)  { benchmarkUnder(b, careful(4), 4, newGossip(4)) }
func BenchmarkCareful16(b *testing.B) { benchmarkUnder(b, careful(16), 16, newGossip(16)) }
func BenchmarkCareful64(b *testing.B) { benchmarkUnder(b, careful(64), 64, newGossip(64)) }

// Stakes that differ cannot be counted as bits.
func BenchmarkWeighted64(b *testing.B) {
	r := equalRules(64)
	for i := range r.Members {
		r.Members[i].Stake = uint64(1 + i%7)
	}
	benchmarkUnder(b, r, 64, newGossip(64))
}
