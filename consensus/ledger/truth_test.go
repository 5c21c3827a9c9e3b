package ledger

import "testing"

func TestIdleOverlayDoesNotMakeAMoveShorter(t *testing.T) {
	for _, c := range []struct {
		what                      string
		selected, released, ended Time
		after                     Time
		said, want                int64
	}{
		{"the order was awake", 10, 19, 20, 8, 9000, 9000},
		{"it slept while the machine was copied", 10, 11, 20, 8, 9000, 9000},
		{"and the source says nothing: it knows since when it was ready", 10, 11, 20, 8, 0, 8000},
		{"the source says more than can be", 10, 11, 20, 8, 1 << 50, 10_000},
		{"the source says less than can be", 10, 19, 20, 0, 1, 9000},
		{"time stands still", 10, 10, 10, 0, 0, 0},
		{"the source speaks of a year", 10, 11, 20, 365 * 24 * 3600, 0, 10_000},
	} {
		mv := &Move{SelectedAt: c.selected * Second, ReleasedAt: c.released * Second, EndedAt: c.ended * Second, After: c.after * Second}
		if got := took(mv, c.said, mv.EndedAt); got != c.want {
			t.Errorf("%s: %d ms, want %d", c.what, got, c.want)
		}
	}
}

func TestReportSaysHowLongWithinConsensusTime(t *testing.T) {
	w := newWorld(t, "alice", "bob").machines("web1@alice")
	id := w.intend("web1", "")
	w.bid("bob", "web1", nil)
	w.finish("web1", 3*Second)
	w.refused("alice", &Report{Machine: "web1", Move: id, Truth: Truth{Millis: -1}}, "sizes are from 0")
	w.must("alice", &Report{Machine: "web1", Move: id, Truth: Truth{Millis: 1 << 49}})
	m := w.s.Machine("web1")
	if most := int64((m.Last.EndedAt - m.Last.SelectedAt) / Millisecond); m.Last.Truth.Millis != most {
		t.Errorf("it took %d ms, and was over after %d", m.Last.Truth.Millis, most)
	}
}

func TestWhatIsWrittenAgainTravelsOnceAPass(t *testing.T) {
	w := work{memory: 256 * mib1, dirty: 20 * mib1, rtt: 1000, bandwidth: 40 * mib1, limits: Limits{MaxDowntime: 300}}
	wide := forecast(w)
	w.hot = 4 * mib1
	narrow := forecast(w)
	if narrow.Memory >= wide.Memory || narrow.Memory > 256*mib1+13*4*mib1 || narrow.Millis >= wide.Millis {
		t.Errorf("4 MiB written again and again: %d MiB in %d ms, all over: %d MiB in %d ms", narrow.Memory>>20, narrow.Millis, wide.Memory>>20, wide.Millis)
	}
	w.hot = 1 << 49
	if f := forecast(w); f != wide {
		t.Errorf("more than there is: %+v, want %+v", f, wide)
	}
}

func TestWritesToDiskTravelMeanwhile(t *testing.T) {
	w := work{memory: 100 * mib1, disk: 10 * mib1, rtt: 1000, bandwidth: 10 * mib1, limits: Limits{MaxDowntime: 300}}
	still := forecast(w)
	w.diskRate = mib1
	f := forecast(w)
	if more := f.Disk - still.Disk; more < 11*mib1 || more > 14*mib1 {
		t.Errorf("1 MiB/s for some 11 s: %d bytes more", more)
	}
	w.diskRate = maxSize
	if f := forecast(w); f.Disk < still.Disk || f.Millis < 0 || f.Millis > maxMillis {
		t.Errorf("whatever is said: %+v", f)
	}
}

func TestMemoryIsNotQuickerThanItsEncoder(t *testing.T) {
	w := work{memory: 100 * mib1, rtt: 1000, bandwidth: 50 * mib1, limits: Limits{MaxDowntime: 300}}
	free := forecast(w)
	w.encodes = 1000 * mib1
	if f := forecast(w); f != free {
		t.Errorf("an encoder quicker than the link: %+v, want %+v", f, free)
	}
	w.encodes = 10 * mib1
	if f := forecast(w); f.Millis < 10_000 || f.Millis > 15_000 || f.Memory != free.Memory {
		t.Errorf("100 MiB at 10 MiB/s: %+v", f)
	}
	w.encodes = 1
	if f := forecast(w); f.Millis <= 0 || f.Millis > maxMillis {
		t.Errorf("one byte a second: %+v", f)
	}
}

func TestUnsureBandwidthMakesTheRangeWider(t *testing.T) {
	w := work{memory: gib1, disk: 100 * mib1, dirty: mib1, rtt: 3000, bandwidth: 5 * mib1, limits: Limits{MaxDowntime: 300}}
	sure := forecast(w)
	w.unsure = true
	unsure := forecast(w)
	w.bandwidth, w.unsure = 40*mib1, false
	truth := forecast(w)
	if sure.Low <= truth.Millis {
		t.Fatalf("%d ms is in the range from %d on anyway", truth.Millis, sure.Low)
	}
	if unsure.Low > truth.Millis || unsure.Millis != sure.Millis || unsure.High != sure.High {
		t.Errorf("sure: %+v\nunsure: %+v", sure, unsure)
	}
	w.bandwidth, w.unsure = maxSize, true
	if f := forecast(w); f.Low <= 0 || f.Low > f.Millis {
		t.Errorf("the fastest path: %+v", f)
	}
}
