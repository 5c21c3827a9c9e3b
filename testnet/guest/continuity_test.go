package guest

import (
	"testing"
	"time"
)

const ms = time.Millisecond

// ticks are count ticks, one each 10 ms.
func ticks(first uint64, at time.Duration, count int) []Tick {
	var list []Tick
	for i := range count {
		list = append(list, Tick{N: first + uint64(i), At: at + time.Duration(i)*10*ms})
	}
	return list
}

func TestCleanMoveIsWholeAndItsPauseIsMeasured(t *testing.T) {
	c := Compare(ticks(1, 0, 100), ticks(101, 1290*ms, 100)) // the source's last is at 990 ms
	want := Continuity{Gap: 300 * ms, GapAfter: 100, Handover: 300 * ms, First: 1, Last: 200, Ticks: 200}
	if c != want || !c.Whole() {
		t.Errorf("got %+v", c)
	}
}

func TestGapWithinOneSiteIsFound(t *testing.T) {
	source := append(ticks(1, 0, 50), ticks(51, 2000*ms, 50)...)
	c := Compare(source, ticks(101, 2600*ms, 10))
	if c.Gap != 1510*ms || c.GapAfter != 50 || c.Handover != 110*ms || !c.Whole() {
		t.Errorf("got %+v", c)
	}
}

func TestLostTicksAreMissing(t *testing.T) {
	c := Compare(ticks(1, 0, 100), ticks(111, 1000*ms, 10))
	if c.Missing != 10 || c.Whole() {
		t.Errorf("got %+v", c)
	}
}

func TestMachineThatRunsTwiceIsFound(t *testing.T) {
	c := Compare(ticks(1, 0, 100), ticks(91, 950*ms, 20)) // 91 to 100 at both, 50 ms of them together
	if c.Duplicate != 10 || c.Backwards == 0 || c.Handover >= 0 || c.Whole() {
		t.Errorf("got %+v", c)
	}
}

func TestMachineThatGoesBackIsFound(t *testing.T) {
	c := Compare(ticks(1, 0, 100), ticks(81, 1200*ms, 30)) // resumed from an earlier state
	if c.Duplicate != 20 || c.Backwards != 19 || c.Whole() {
		t.Errorf("got %+v", c)
	}
}

func TestSilenceIsNotWhole(t *testing.T) {
	if c := Compare(nil, nil); c.Whole() {
		t.Errorf("got %+v", c)
	}
	if c := Compare(nil, ticks(5, 0, 10)); !c.Whole() || c.Handover != 0 || c.First != 5 {
		t.Errorf("got %+v", c)
	}
}
