package graph

import "slices"

// Shrink reduces a graph for which fails is true: it leaves out events with or without
// all above them, members, parents, and changes of rules, and makes numbers small, as
// long as fails stays true. The result cannot be reduced by any one such step.
func Shrink(g *Graph, fails func(*Graph) bool) *Graph {
	for {
		before := g.weight()
		g = dropEvents(g, fails)
		g = dropMembers(g, fails)
		g = splice(g, fails)
		g = dropRules(g, fails)
		g = dropParents(g, fails)
		g = simplify(g, fails)
		if g.weight() == before {
			return g
		}
	}
}

// weight falls with each step of Shrink.
func (g *Graph) weight() int {
	w := len(g.Events)
	for _, e := range g.Events {
		w += len(e.Parents) + bit(e.Coin > 0) + bit(e.Time != 0) + bit(e.Hash != [32]byte{}) + int(e.Birth)
	}
	for _, r := range g.Rules {
		w += len(r.Members) + 1
		for _, m := range r.Members {
			w += bit(m.Stake > 1)
		}
	}
	return w
}

// without is the graph without some events and all above them.
func (g *Graph) without(drop func(x int) bool) *Graph {
	keep := make([]bool, len(g.Events))
	for x, e := range g.Events {
		keep[x] = !drop(x)
		for _, q := range e.Parents {
			keep[x] = keep[x] && keep[q]
		}
	}
	return g.Keep(keep)
}

// dropEvents tries ever smaller runs of events, from the end.
func dropEvents(g *Graph, fails func(*Graph) bool) *Graph {
	for size := max(1, len(g.Events)/2); ; size /= 2 {
		for to := len(g.Events); to > 0; to -= size {
			from := max(0, to-size)
			if h := g.without(func(x int) bool { return from <= x && x < to }); fails(h) {
				g = h
				to = min(to, len(g.Events)+size)
			}
		}
		if size <= 1 {
			return g
		}
	}
}

func dropMembers(g *Graph, fails func(*Graph) bool) *Graph {
	for _, id := range g.MemberIDs() {
		h := g.without(func(x int) bool { return g.Events[x].Creator == id })
		h.Rules = slices.Clone(g.Rules)
		ok := true
		for i := range h.Rules {
			h.Rules[i].Members = slices.DeleteFunc(slices.Clone(g.Rules[i].Members), func(m Member) bool { return m.ID == id })
			var total uint64
			for _, m := range h.Rules[i].Members {
				total += m.Stake
			}
			ok = ok && total > 0
		}
		if ok && fails(h) {
			g = h
		}
	}
	return g
}

// dropRules tries each of the rules: those after the first ones may become the first.
func dropRules(g *Graph, fails func(*Graph) bool) *Graph {
	for i := len(g.Rules) - 1; i >= 0 && len(g.Rules) > 1; i-- {
		h := &Graph{Rules: slices.Delete(slices.Clone(g.Rules), i, i+1), Events: g.Events}
		h.Rules[0].From = 1
		ids := h.MemberIDs()
		foreign := func(e Event) bool { return !slices.Contains(ids, e.Creator) }
		if !slices.ContainsFunc(h.Events, foreign) && fails(h) {
			g = h
		}
	}
	return g
}

// splice tries to leave out single events: those above one name its self-parent instead.
func splice(g *Graph, fails func(*Graph) bool) *Graph {
	for x := len(g.Events) - 1; x >= 0; x-- {
		h := &Graph{Rules: g.Rules, Events: slices.Clone(g.Events)}
		to := g.Events[x].SelfParent
		for y := x + 1; y < len(h.Events); y++ {
			e := &h.Events[y]
			k := slices.Index(e.Parents, x)
			if k < 0 {
				continue
			}
			if e.Parents = slices.Clone(e.Parents); to == None {
				e.Parents = slices.Delete(e.Parents, k, k+1)
			} else {
				e.Parents[k] = to
			}
			if e.SelfParent == x {
				e.SelfParent = to
			}
		}
		if h = h.without(func(y int) bool { return y == x }); fails(h) {
			g = h
		}
	}
	return g
}

func dropParents(g *Graph, fails func(*Graph) bool) *Graph {
	for x := len(g.Events) - 1; x >= 0; x-- {
		for k := len(g.Events[x].Parents) - 1; k >= 0; k-- {
			h := g.with(x, func(e *Event) {
				if e.Parents[k] == e.SelfParent {
					e.SelfParent = None
				}
				e.Parents = slices.Delete(slices.Clone(e.Parents), k, k+1)
			})
			if fails(h) {
				g = h
			}
		}
	}
	return g
}

// with is the graph with one event changed.
func (g *Graph) with(x int, change func(*Event)) *Graph {
	h := &Graph{Rules: g.Rules, Events: slices.Clone(g.Events)}
	change(&h.Events[x])
	return h
}

// simplify makes numbers small that play no part.
func simplify(g *Graph, fails func(*Graph) bool) *Graph {
	try := func(h *Graph) {
		if fails(h) {
			g = h
		}
	}
	for i := range g.Rules {
		for k := range g.Rules[i].Members {
			h := &Graph{Rules: slices.Clone(g.Rules), Events: g.Events}
			h.Rules[i].Members = slices.Clone(h.Rules[i].Members)
			h.Rules[i].Members[k].Stake = min(1, h.Rules[i].Members[k].Stake)
			if h.Rules[i].Members[k] != g.Rules[i].Members[k] {
				try(h)
			}
		}
	}
	for x := range g.Events {
		e := g.Events[x]
		low := uint64(1)
		for _, q := range e.Parents {
			low = max(low, g.Events[q].Birth)
		}
		for _, change := range []func(*Event){
			func(e *Event) { e.Coin = 0 },
			func(e *Event) { e.Time = 0 },
			func(e *Event) { e.Hash = [32]byte{} },
			func(e *Event) { e.Birth = min(e.Birth, low) },
		} {
			h := g.with(x, change)
			if h.weight() < g.weight() {
				try(h)
			}
		}
	}
	return g
}
