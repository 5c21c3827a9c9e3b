package ledger

import (
	"cmp"
	"fmt"
	"slices"
)

// A week in minutes, from midnight before Sunday, UTC.
const (
	dayMinutes  = 24 * 60
	weekMinutes = 7 * dayMinutes
)

// epochDay: the Unix epoch was the beginning of a Thursday.
const epochDay = 4

// stretch is a part of the week, [from, to) in minutes; to is at most weekMinutes.
type stretch struct{ from, to int }

// checkSpans says what is wrong with the windows of a policy.
func checkSpans(spans []Span) error {
	if len(spans) > maxPolicyList {
		return fmt.Errorf("policy: %d windows, at most %d are allowed", len(spans), maxPolicyList)
	}
	for i, w := range spans {
		switch {
		case w.From < 0 || w.From >= dayMinutes || w.To < 0 || w.To > dayMinutes:
			return fmt.Errorf("policy: window %d is from minute %d to %d: a day has minutes 0 to %d", i, w.From, w.To, dayMinutes)
		case w.From == w.To:
			return fmt.Errorf("policy: window %d ends when it begins: a whole day is from 00:00 to 24:00", i)
		case len(w.Days) > 7:
			return fmt.Errorf("policy: window %d has %d days", i, len(w.Days))
		}
		for j, d := range w.Days {
			if d < 0 || d > 6 || j > 0 && w.Days[j-1] >= d {
				return fmt.Errorf("policy: window %d: days are 0 (Sunday) to 6, ascending, each once", i)
			}
		}
	}
	return nil
}

// week are the stretches in which a policy with these windows is open: ascending,
// apart from each other. No windows: the whole week.
func week(spans []Span) []stretch {
	if len(spans) == 0 {
		return []stretch{{0, weekMinutes}}
	}
	var all []stretch
	add := func(from, to int) {
		if to > weekMinutes { // from Saturday into Sunday
			all = append(all, stretch{0, to - weekMinutes})
			to = weekMinutes
		}
		all = append(all, stretch{from, to})
	}
	for _, w := range spans {
		length := w.To - w.From
		if length < 0 {
			length += dayMinutes
		}
		for d := range 7 {
			if len(w.Days) == 0 || slices.Contains(w.Days, d) {
				add(d*dayMinutes+w.From, d*dayMinutes+w.From+length)
			}
		}
	}
	slices.SortFunc(all, func(a, b stretch) int { return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to)) })
	out := all[:1]
	for _, x := range all[1:] {
		if last := &out[len(out)-1]; x.from <= last.to {
			last.to = max(last.to, x.to)
		} else {
			out = append(out, x)
		}
	}
	return out
}

// both are the stretches that two weeks share.
func both(a, b []stretch) []stretch {
	var out []stretch
	for i, j := 0, 0; i < len(a) && j < len(b); {
		if x := (stretch{max(a[i].from, b[j].from), min(a[i].to, b[j].to)}); x.from < x.to {
			out = append(out, x)
		}
		if a[i].to < b[j].to {
			i++
		} else {
			j++
		}
	}
	return out
}

// open are the stretches of the week in which all policies of a machine let it move;
// always: no policy has windows.
func (s *State) open(m *Machine) (open []stretch, always bool) {
	open, always = week(nil), true
	for _, l := range s.layers(m) {
		if len(l.Windows) > 0 {
			open, always = both(open, week(l.Windows)), false
		}
	}
	return open, always
}

// minute is the minute of the week at t, and when that minute began.
func minute(t Time) (int, Time) {
	n := t / Minute
	if t%Minute < 0 {
		n--
	}
	m := (int64(n)%weekMinutes + epochDay*dayMinutes) % weekMinutes
	if m < 0 {
		m += weekMinutes
	}
	return int(m), n * Minute
}

// inWindow says whether the policies of a machine let it move at t.
func (s *State) inWindow(m *Machine, t Time) bool {
	_, in := s.windowEnd(m, t)
	return in
}

// windowEnd is when the window that t is in ends; 0: never. in is false if t is in
// none.
func (s *State) windowEnd(m *Machine, t Time) (end Time, in bool) {
	open, always := s.open(m)
	if always {
		return 0, true
	}
	now, began := minute(t)
	for i, x := range open {
		if now < x.from || now >= x.to {
			continue
		}
		length := x.to - now
		if x.to == weekMinutes && open[0].from == 0 && i > 0 {
			length += open[0].to // on into Sunday
		}
		if x == (stretch{0, weekMinutes}) {
			return 0, true
		}
		return later(began, Time(length)*Minute), true
	}
	return 0, false
}

// closed is why a machine may not move at t because of the time; empty if it may.
func (s *State) closed(m *Machine, t Time) string {
	open, _ := s.open(m)
	if len(open) == 0 {
		return "the windows of its policy and of its account's never open together"
	}
	if s.inWindow(m, t) {
		return ""
	}
	now, _ := minute(t)
	next := open[0].from + weekMinutes
	for _, x := range open {
		if x.from > now {
			next = x.from
			break
		}
	}
	at := next % weekMinutes
	return fmt.Sprintf("its policy lets it move in certain windows only: the next opens at %s %02d:%02d UTC, in %s",
		[]string{"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"}[at/dayMinutes],
		at%dayMinutes/60, at%60, hours(next-now))
}

// hours tells minutes as people say them.
func hours(minutes int) string {
	if minutes < 60 {
		return fmt.Sprintf("%d min", minutes)
	}
	return fmt.Sprintf("%d h %d min", minutes/60, minutes%60)
}
