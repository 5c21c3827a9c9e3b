package eventlog_test

import (
	"testing"

	"github.com/dcnode/dcnode/consensus"
	"github.com/dcnode/dcnode/node/eventlog"
)

// BenchmarkAppend is one small event, without the sync that follows later.
func BenchmarkAppend(b *testing.B) {
	l, err := eventlog.Open(eventlog.Config{Dir: b.TempDir(), Network: network})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Abandon()
	events := history(20000)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		e := *events[i%len(events)]
		e.Seq += uint64(i) // another hash
		if err := l.Append([]*consensus.Event{&e}); err != nil {
			b.Fatal(err)
		}
		if i%1000 == 0 {
			l.Forget(e.BirthRound)
		}
	}
}

// BenchmarkOpen is a start after 20,000 events, about 5 MB, without a checkpoint.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	l, err := eventlog.Open(config(dir))
	if err != nil {
		b.Fatal(err)
	}
	if err := l.Append(history(20000)); err != nil {
		b.Fatal(err)
	}
	l.Abandon()
	for b.Loop() {
		l, err := eventlog.Open(config(dir))
		if err != nil {
			b.Fatal(err)
		}
		n := 0
		for _, err := range l.Replay() {
			if n++; err != nil {
				b.Fatal(err)
			}
		}
		if n != 20000 {
			b.Fatal(n)
		}
		l.Abandon()
	}
}
