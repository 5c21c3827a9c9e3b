package journal_test

import (
	"fmt"
	"testing"

	"github.com/dcnode/dcnode/node/journal"
)

// typical is one transaction as it comes: a bid of some 150 bytes, about one of a
// thousand machines.
func typical(i int) journal.Entry {
	return journal.Entry{
		Index: uint64(i), Round: uint64(i / 8), Time: int64(i) * 1e6, Author: uint64(i%7) + 1, Site: "frankfurt", Event: [32]byte{byte(i), byte(i >> 8), byte(i >> 16)},
		Kind: "bid", Machine: fmt.Sprint(i % 1000), Text: "Frankfurt bids for web1: 412 MB to send, done in 38 s.", Raw: make([]byte, 150),
	}
}

// bench opens a journal with entries, written out.
func bench(b *testing.B, n int) *journal.Journal {
	b.Helper()
	j := open(b, journal.Config{Dir: b.TempDir(), Network: network})
	for i := range n {
		if err := j.Append([]journal.Entry{typical(i)}); err != nil {
			b.Fatal(err)
		}
		if i%10000 == 0 {
			flush(b, j)
		}
	}
	flush(b, j)
	noNotes(b, j)
	return j
}

func perSecond(b *testing.B, n int) {
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "entries/s")
}

// BenchmarkAppend is one entry in a call, and the writing of all of them.
func BenchmarkAppend(b *testing.B) {
	j := bench(b, 1)
	entries := make([]journal.Entry, 1000)
	for i := range entries {
		entries[i] = typical(i)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		e := entries[i%len(entries)]
		e.Index = uint64(i) + 1
		if err := j.Append([]journal.Entry{e}); err != nil {
			b.Fatal(err)
		}
		if i%50000 == 0 {
			flush(b, j)
		}
	}
	flush(b, j)
	noNotes(b, j)
	perSecond(b, b.N)
}

const million = 1_000_000

// BenchmarkRead is a filtered reading of a million entries.
func BenchmarkRead(b *testing.B) {
	j := bench(b, million)
	for _, c := range []struct {
		name string
		want journal.Filter
		n    int
	}{
		{"machine", journal.Filter{Machine: "77"}, million / 1000},
		{"none", journal.Filter{Machine: "x"}, 0},
		{"all", journal.Filter{}, million},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				n := 0
				for _, err := range j.Read(0, c.want) {
					if n++; err != nil {
						b.Fatal(err)
					}
				}
				if n != c.n {
					b.Fatal(n)
				}
			}
			perSecond(b, b.N*million)
		})
	}
}

// BenchmarkLatest is the newest of a million entries: 20 of one machine, and 20 of
// one of which there is nothing, for which everything is read.
func BenchmarkLatest(b *testing.B) {
	j := bench(b, million)
	for _, c := range []struct {
		name, machine string
		n             int
	}{{"machine", "77", 20}, {"any", "", 20}, {"none", "x", 0}} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				if got, err := j.Latest(20, journal.Filter{Machine: c.machine}); err != nil || len(got) != c.n {
					b.Fatal(len(got), err)
				}
			}
		})
	}
}

// BenchmarkAt is one index of a million.
func BenchmarkAt(b *testing.B) {
	j := bench(b, million)
	for i := 0; b.Loop(); i++ {
		if got, err := j.At(uint64(i) * 7919 % million); err != nil || len(got) != 1 {
			b.Fatal(len(got), err)
		}
	}
}

// BenchmarkOpen is a start with a million entries.
func BenchmarkOpen(b *testing.B) {
	cfg := journal.Config{Dir: b.TempDir(), Network: network}
	j := open(b, cfg)
	for i := range million {
		if err := j.Append([]journal.Entry{typical(i)}); err != nil {
			b.Fatal(err)
		}
		if i%10000 == 0 {
			flush(b, j)
		}
	}
	if err := j.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		j, err := journal.Open(cfg)
		if err != nil {
			b.Fatal(err)
		}
		j.Abandon()
	}
}
