package consensustest

import (
	"fmt"
	"slices"

	"github.com/dcnode/dcnode/consensus"
	"github.com/dcnode/dcnode/consensus/graph"
)

// mostSlow is how many events the slow reference is given at most: its time grows
// with a power of them.
const mostSlow = 220

// verify checks what can only be checked in the end.
func (w *Network) verify() error {
	for _, m := range w.Members {
		if m.liar != nil || m.down {
			continue
		}
		if err := w.verifyForks(m); err != nil {
			return err
		}
		if st := m.Core.Status(); st.Halted || int(st.Ordered) != len(w.order) {
			return fmt.Errorf("member %d ordered %d of %d events (halted: %v)", m.index, st.Ordered, len(w.order), st.Halted)
		}
		if err := w.verifyCheckpoints(m); err != nil {
			return err
		}
		w.Counts[LateRound] += int(m.Core.Status().Late)
	}
	if err := w.verifyEpochs(); err != nil {
		return err
	}
	if len(w.all) == 0 {
		return nil
	}
	if err := w.verifyReference(); err != nil {
		return err
	}
	for range 2 {
		if err := w.verifyView(); err != nil {
			return err
		}
	}
	return nil
}

// verifyForks checks that a member names all who forked under its eyes and nobody else.
func (w *Network) verifyForks(m *Member) error {
	named := map[uint64]bool{}
	for _, f := range m.Core.Forks() {
		by := f.A.Creator
		named[by] = true
		if f.B.Creator != by || w.hashOf(f.A) == w.hashOf(f.B) {
			return fmt.Errorf("member %d has evidence that is none: %s and %s", m.index, w.describe(f.A), w.describe(f.B))
		}
		if o := w.Members[w.holder(by)]; o.liar == nil && !w.excused[by] {
			return fmt.Errorf("member %d says that member %d forked: %s and %s", m.index, o.index, w.describe(f.A), w.describe(f.B))
		}
	}
	first := map[ownPlace]*consensus.Event{}
	for _, e := range m.log {
		p := slot(e)
		other, again := first[p]
		if !again {
			first[p] = e
			continue
		}
		if other.BirthRound != e.BirthRound || m.from != nil {
			continue // one branch may have been gone when the other came
		}
		if !named[e.Creator] {
			return fmt.Errorf("member %d saw %s and %s and does not say that it is a fork", m.index, w.describe(other), w.describe(e))
		}
		w.Counts[ForkNamed]++
	}
	return nil
}

// verifyCheckpoints checks that a member took all checkpoints that any member did, from
// where it began on, among them those for the first round of each roster and the
// round before.
func (w *Network) verifyCheckpoints(m *Member) error {
	var since uint64
	if m.from != nil {
		since = m.from.cp.Round
	}
	for r := range w.cps {
		if r > since && !m.took[r] {
			return fmt.Errorf("member %d took no checkpoint of round %d, others did", m.index, r)
		}
	}
	for i := range w.rules {
		for r := w.rules[i].from - 1; r <= w.rules[i].from; r++ {
			if r > since && r < m.Core.Pending() && !m.took[r] {
				return fmt.Errorf("member %d took no checkpoint of round %d, where new rules begin", m.index, r)
			}
		}
	}
	return nil
}

// verifyEpochs checks that all members know the same rosters of rounds to come.
func (w *Network) verifyEpochs() error {
	var first string
	for _, m := range w.Members {
		if m.liar != nil || m.down {
			continue
		}
		eps := m.Core.Epochs()
		last := fmt.Sprintf("%v", eps[len(eps)-1])
		if first == "" {
			first = last
		}
		if last != first {
			return fmt.Errorf("member %d has the roster %s, another %s", m.index, last, first)
		}
	}
	return nil
}

// Graph is all that honest members have saved, as a graph of package graph, and the
// places of the events of the order in it.
func (w *Network) Graph() *graph.Graph {
	s := machine{roster: w.founded, params: w.opt.Params}
	g := &graph.Graph{Rules: []graph.Rules{rulesOf(1, &s)}}
	for i := range w.rules {
		r := &w.rules[i]
		r.apply(&s)
		if last := &g.Rules[len(g.Rules)-1]; last.From == r.from {
			*last = rulesOf(r.from, &s)
		} else {
			g.Rules = append(g.Rules, rulesOf(r.from, &s))
		}
	}
	index := make(map[consensus.Hash]int, len(w.all))
	for i, e := range w.all {
		v := graph.Event{
			ID: int64(i), Time: int64(e.Time), Creator: e.Creator, Birth: e.BirthRound, Coin: e.Coin,
			SelfParent: graph.None, Hash: w.hashOf(e),
		}
		for k := range e.Parents {
			x, ok := index[e.Parents[k].Hash]
			if !ok || g.Events[x].Birth != e.Parents[k].BirthRound || g.Events[x].Creator != e.Parents[k].Creator {
				continue
			}
			if k == 0 && e.Parents[k].Creator == e.Creator {
				v.SelfParent = x
			}
			v.Parents = append(v.Parents, x)
		}
		index[w.hashOf(e)] = i
		g.Events = append(g.Events, v)
	}
	return g
}

func rulesOf(from uint64, s *machine) graph.Rules {
	p := s.params
	if p == (consensus.Params{}) {
		p = consensus.DefaultParams
	}
	r := graph.Rules{From: from, Params: graph.Params(p)}
	for _, m := range s.roster {
		r.Members = append(r.Members, graph.Member{ID: m.ID, Stake: m.Weight})
	}
	return r
}

// verifyReference compares the order with that of the rules as they are written down,
// for a small graph, and with that of the bare engine on the whole graph for others.
func (w *Network) verifyReference() error {
	g := w.Graph()
	var res graph.Result
	if len(g.Events) <= mostSlow {
		res = g.SlowOrder()
	} else {
		res = g.Order()
	}
	k := 0
	for _, r := range res.Rounds {
		for _, x := range r.Received {
			if k == len(w.order) {
				return nil
			}
			p := w.order[k]
			if g.Events[x.Index].Hash != p.hash || r.Round != p.round {
				return fmt.Errorf("the reference has %x of round %d in place %d, the members have %x of round %d",
					g.Events[x.Index].Hash[:4], r.Round, k, p.hash[:4], p.round)
			}
			k++
		}
	}
	if k < len(w.order) {
		return fmt.Errorf("the reference orders %d events, the members %d", k, len(w.order))
	}
	return nil
}

// verifyView feeds what is below some random events, in another order, to a Core that
// only observes: it must come to the beginning of the same order.
func (w *Network) verifyView() error {
	chosen := make([]bool, len(w.all))
	tips := 1 + w.rng.IntN(1+len(w.Members))
	for range tips {
		chosen[w.rng.IntN(len(w.all))] = true
	}
	index := make(map[consensus.Hash]int, len(w.all))
	for i, e := range w.all {
		index[w.hashOf(e)] = i
	}
	for i := len(w.all) - 1; i >= 0; i-- {
		if !chosen[i] {
			continue
		}
		for k := range w.all[i].Parents {
			if p, ok := index[w.all[i].Parents[k].Hash]; ok {
				chosen[p] = true
			}
		}
	}
	m := &Member{ID: 1 << 40, net: w, index: -1, liar: &liar{}}
	m.wipe()
	if err := m.start(); err != nil {
		return err
	}
	for _, e := range w.mixed(chosen, index) {
		m.add(e)
		for rd, ok := m.Core.Ready(); ok && w.err == nil; rd, ok = m.Core.Ready() {
			m.apply(&rd, len(rd.Ordered))
			m.Core.Advance()
		}
	}
	return w.err
}

// mixed are the chosen events in a random order that has parents first.
func (w *Network) mixed(chosen []bool, index map[consensus.Hash]int) []*consensus.Event {
	left := make([]int, len(w.all))
	children := make([][]int, len(w.all))
	var open []int
	for i, e := range w.all {
		if !chosen[i] {
			continue
		}
		for k := range e.Parents {
			if p, ok := index[e.Parents[k].Hash]; ok {
				left[i]++
				children[p] = append(children[p], i)
			}
		}
		if left[i] == 0 {
			open = append(open, i)
		}
	}
	var out []*consensus.Event
	for len(open) > 0 {
		k := w.rng.IntN(len(open))
		x := open[k]
		open = slices.Delete(open, k, k+1)
		out = append(out, w.all[x])
		for _, c := range children[x] {
			if left[c]--; left[c] == 0 {
				open = append(open, c)
			}
		}
	}
	return out
}
