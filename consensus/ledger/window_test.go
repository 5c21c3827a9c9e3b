package ledger

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestWindowsAgreeWithTheCalendar compares them minute by minute with package time.
func TestWindowsAgreeWithTheCalendar(t *testing.T) {
	inSpan := func(w Span, at time.Time) bool {
		begins := func(day time.Weekday) bool {
			if len(w.Days) == 0 {
				return true
			}
			for _, d := range w.Days {
				if time.Weekday(d) == day {
					return true
				}
			}
			return false
		}
		minute := at.Hour()*60 + at.Minute()
		if w.From < w.To {
			return minute >= w.From && minute < w.To && begins(at.Weekday())
		}
		return minute >= w.From && begins(at.Weekday()) || minute < w.To && begins(at.AddDate(0, 0, -1).Weekday())
	}
	open := func(p Policy, at time.Time) bool {
		for _, w := range p.Windows {
			if inSpan(w, at) {
				return true
			}
		}
		return len(p.Windows) == 0
	}
	r := rand.New(rand.NewPCG(1, 2))
	random := func() Policy {
		var p Policy
		for range r.IntN(4) {
			w := Span{From: r.IntN(dayMinutes), To: r.IntN(dayMinutes + 1)}
			if w.From == w.To {
				continue
			}
			for d := range 7 {
				if r.IntN(2) == 0 {
					w.Days = append(w.Days, d)
				}
			}
			p.Windows = append(p.Windows, w)
		}
		if err := p.check(); err != nil {
			t.Fatal(err)
		}
		return p
	}
	for range 8 {
		s, err := New(roster("alice"), Rules{})
		if err != nil {
			t.Fatal(err)
		}
		m := &Machine{Name: "m", Account: "alice", Policy: random()}
		acc := &Account{Name: "alice", Policy: random()}
		s.putAccount(acc)
		begin := time.Date(2026, 11, 20+r.IntN(5), 0, 0, 30, 0, time.UTC)
		var end, last Time
		wasOpen := false
		for i := range 9 * dayMinutes {
			at := begin.Add(time.Duration(i) * time.Minute)
			now := Time(at.UnixNano())
			want := open(m.Policy, at) && open(acc.Policy, at)
			got, in := s.windowEnd(m, now)
			if in != want || s.inWindow(m, now) != want || (s.closed(m, now) == "") != want {
				t.Fatalf("at %s: open %v, the calendar says %v: %+v and %+v", at, in, want, m.Policy.Windows, acc.Policy.Windows)
			}
			if in && wasOpen && got != end && end > now {
				t.Fatalf("at %s the window ends at %v, a minute before it was to end at %v", at, got, end)
			}
			if !in && wasOpen && end != now-30*Second {
				t.Fatalf("at %s it is closed, it was to end at %v", at, time.Unix(0, int64(end)).UTC())
			}
			if in && end != 0 && end <= now && wasOpen && last != 0 {
				t.Fatalf("at %s it is open, after it was to end at %v", at, time.Unix(0, int64(end)).UTC())
			}
			end, wasOpen, last = got, in, now
		}
	}
}

func TestTimesBeforeTheEpochAndAtTheEndOfTimeDoNotPanic(t *testing.T) {
	s, err := New(roster("alice"), Rules{})
	if err != nil {
		t.Fatal(err)
	}
	m := &Machine{Name: "m", Policy: Policy{Windows: []Span{{From: 0, To: 1}, {Days: []int{6}, From: 1439, To: 10}}}}
	for _, at := range []Time{-1 << 63, -1, 0, 1, 1<<63 - 1} {
		if end, in := s.windowEnd(m, at); in && end <= at && at < 1<<62 {
			t.Errorf("at %d the window ends at %d", at, end)
		}
		_ = s.closed(m, at)
	}
}
