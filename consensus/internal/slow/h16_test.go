package slow

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
)

// babbleDAG is a graph with the answers that babble's own tests assert. Its rounds
// count from 0.
type babbleDAG struct {
	N      int
	Coin   uint64 `json:"coin_period"`
	Events []struct {
		Name        string
		Creator     int
		Self, Other *string
	}
	Rounds    map[string][]string
	Famous    []string
	Undecided []string
	Received  map[string][]string
	Counts    map[string]int `json:"received_counts"`
}

func babble(t *testing.T) map[string]babbleDAG {
	t.Helper()
	b, err := os.ReadFile("../../testdata/babble_dags.json")
	if err != nil {
		t.Fatal(err)
	}
	var dags map[string]babbleDAG
	if err := json.Unmarshal(b, &dags); err != nil {
		t.Fatal(err)
	}
	if len(dags) != 3 {
		t.Fatalf("%d graphs, want 3", len(dags))
	}
	return dags
}

// events of the graph, all with one coin, and their places by name.
func (d babbleDAG) events(coin uint32) ([]Event, map[string]int) {
	var events []Event
	index := map[string]int{}
	for x, e := range d.Events {
		v := Event{Name: int64(x), Creator: uint64(e.Creator), Birth: 1, Time: int64(x), Coin: coin, SelfParent: None}
		if e.Self != nil {
			v.SelfParent = index[*e.Self]
			v.Parents = append(v.Parents, v.SelfParent)
		}
		if e.Other != nil {
			v.Parents = append(v.Parents, index[*e.Other])
		}
		index[e.Name] = x
		events = append(events, v)
	}
	return events, index
}

func (d babbleDAG) rules() Rules {
	r := Rules{From: 1, Params: Params{CoinInterval: 10}}
	if d.Coin > 0 {
		r.CoinInterval = d.Coin
	}
	for m := range d.N {
		r.Members = append(r.Members, Member{uint64(m), 1})
	}
	return r
}

// Rounds, witnesses and fame are babble's. So is what is received, when the search
// begins after an event's own round as babble's does.
func TestPaperRulesAgreeWithBabble(t *testing.T) {
	for name, d := range babble(t) {
		events, index := d.events(1)
		h := NewH16(events, d.rules())
		verdicts := h.Verdicts()
		witnesses := map[int]uint64{}
		for round, names := range d.Rounds {
			r, err := strconv.Atoi(round)
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range names {
				witnesses[index[w]] = uint64(r) + 1
			}
		}
		for x, v := range verdicts {
			if r, is := witnesses[x]; is != v.Witness || is && r != v.Round {
				t.Errorf("%s %s: round %d, witness %v; want %d, %v", name, d.Events[x].Name, v.Round, v.Witness, r, is)
			}
		}
		for _, w := range d.Famous {
			if f := verdicts[index[w]].Fame; f != Famous {
				t.Errorf("%s %s: fame %d, want famous", name, w, f)
			}
		}
		for _, w := range d.Undecided {
			if f := verdicts[index[w]].Fame; f != Undecided {
				t.Errorf("%s %s: fame %d, want undecided", name, w, f)
			}
		}
		h.OwnRoundExcluded = true
		verdicts = h.Verdicts()
		got := map[uint64][]string{}
		for x, v := range verdicts {
			if v.RoundReceived > 0 {
				got[v.RoundReceived-1] = append(got[v.RoundReceived-1], d.Events[x].Name)
			}
		}
		for r, list := range got {
			want, listed := d.Received[fmt.Sprint(r)]
			slices.Sort(want)
			slices.Sort(list)
			if listed && !slices.Equal(list, want) {
				t.Errorf("%s: round %d receives %v, want %v", name, r, list, want)
			}
			if n, counted := d.Counts[fmt.Sprint(r)]; counted && n != len(list) {
				t.Errorf("%s: round %d receives %v, want %d of them", name, r, list, n)
			}
			if len(d.Received) > 0 && !listed {
				t.Errorf("%s: round %d receives %v, want nothing", name, r, list)
			}
		}
		if len(got) < max(len(d.Received), len(d.Counts)) {
			t.Errorf("%s: received %v, want in rounds of %v %v", name, got, d.Received, d.Counts)
		}
	}
}

// Round 0 of babble's funky graph stays open, while later rounds are decided, until
// votes that went through a coin round decide its last witness.
func TestCoinRoundIsPassed(t *testing.T) {
	d := babble(t)["funky4"]
	events, index := d.events(1)
	h := NewH16(events[:len(events)-2], d.rules())
	before := h.Verdicts()
	if before[index["w00"]].Fame != Undecided || len(h.judges) != 1 {
		t.Errorf("w00 has fame %d and %d rounds are decided before the last two events, want undecided and none", before[index["w00"]].Fame, len(h.judges)-1)
	}
	for _, w := range []string{"w10", "w11", "w12", "w13", "w20", "w21", "w22", "w23"} {
		if before[index[w]].Fame == Undecided {
			t.Errorf("%s is undecided, want decided before round 0 is", w)
		}
	}
	h = NewH16(events, d.rules())
	if after := h.Verdicts(); after[index["w00"]].Fame != Famous || len(h.judges) != 5 {
		t.Errorf("w00 has fame %d and %d rounds are decided, want famous and 4", after[index["w00"]].Fame, len(h.judges)-1)
	}
}

// With the paper's inclusive rule more is received early than under babble's, among
// it f1 in babble's round 1 of the simple graph.
func TestPaperReceivesInAnEventsOwnRound(t *testing.T) {
	d := babble(t)["simple3"]
	events, index := d.events(1)
	v := NewH16(events, d.rules()).Verdicts()[index["f1"]]
	if v.Round != 2 || v.RoundReceived != 2 {
		t.Errorf("f1 is of round %d and received in %d, want 2 and 2", v.Round, v.RoundReceived)
	}
}
