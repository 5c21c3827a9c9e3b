package h26

import "testing"

type source interface {
	next(v *Vertex, pending uint64)
}

// run puts events on the graph one by one and decides after each.
func run(g *Engine, s source, events int) (ordered int) {
	var v Vertex
	for range events {
		s.next(&v, g.Pending())
		g.Add(v)
		for d, ok := g.Decide(); ok; d, ok = g.Decide() {
			ordered += len(d.Received)
		}
		g.Forget(64)
	}
	return ordered
}

func benchmark(b *testing.B, n int, s source) { benchmarkUnder(b, equalRules(n), n, s) }

func benchmarkUnder(b *testing.B, rules Rules, n int, s source) {
	g := New(rules)
	run(g, s, 100*n) // to the size of the window
	b.ReportAllocs()
	b.ResetTimer()
	ordered := run(g, s, b.N)
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64(ordered)/float64(b.N), "ordered/event")
}

func BenchmarkRandom4(b *testing.B)  { benchmark(b, 4, newGossip(4)) }
func BenchmarkRandom16(b *testing.B) { benchmark(b, 16, newGossip(16)) }
func BenchmarkRandom64(b *testing.B) { benchmark(b, 64, newGossip(64)) }

func BenchmarkClocked4(b *testing.B)  { benchmark(b, 4, newClocked(4)) }
func BenchmarkClocked16(b *testing.B) { benchmark(b, 16, newClocked(16)) }
func BenchmarkClocked64(b *testing.B) { benchmark(b, 64, newClocked(64)) }

// The most careful parameters: every judge must have an event below it, the fast step
// must see everyone.
func careful(n int) Rules {
	r := equalRules(n)
	r.SeeNum, r.SeeDen, r.JudgeAny = 1, 1, false
	return r
}

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
