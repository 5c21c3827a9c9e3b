package consensustest

import (
	"fmt"
	"math/rand/v2"

	"github.com/dcnode/dcnode/consensus"
)

// Bounds that every run keeps, see Result.
const (
	// MostLayers is how many layers may go by from the end of all faults until
	// everything is ordered everywhere; a layer takes the longest delay at least.
	// Layers are counted and not time: between two there may be an exchange that
	// repairs what was lost.
	MostLayers = 40
	// mostExchanges is how many exchanges of heads that may take.
	mostExchanges = 60
	// firstWait, ns, is how long a member that has measured nothing yet may wait for
	// others that it never heard of.
	firstWait = 600_000_000
)

// Result is what a run came to.
type Result struct {
	Err     error // the first check that failed
	Counts  Counts
	Events  int
	Ordered int
	Layers  uint64   // from the end of the faults until everything was ordered everywhere
	Network *Network // as it was in the end
}

// Simulate runs a scenario to its end: the faults, then quiet, until everything is
// ordered everywhere and nothing more is made; then it checks what can only be
// checked in the end.
func Simulate(s Scenario) Result {
	w, err := NewNetwork(s.Options)
	if err != nil {
		return Result{Err: err}
	}
	w.load(&s)
	for _, f := range s.Faults {
		w.after(f.At, func() { w.inject(f) })
	}
	for _, l := range s.Liars {
		if l.Does == LiarGone {
			w.after(s.Length/4, func() { w.Counts[LiarGone]++; w.Members[l.Member].Down(-1) })
		}
	}
	res := Result{Network: w}
	if res.Err = w.Run(s.Length); res.Err == nil {
		w.Calm()
		if res.Layers, res.Err = w.settle(); res.Err == nil {
			res.Err = w.verify()
		}
	}
	w.countRules()
	res.Counts, res.Events, res.Ordered = w.Counts, len(w.all), len(w.order)
	return res
}

// load spreads the transactions over time and honest founders.
func (w *Network) load(s *Scenario) {
	rng := rand.New(rand.NewPCG(s.Seed, 7))
	var at int64
	for i := range s.Load {
		at += 1 + rng.Int64N(2*s.Every)
		to := rng.IntN(len(w.Members))
		w.after(at, func() {
			if w.calm {
				return
			}
			for k := range w.Members {
				m := w.Members[(to+k)%len(w.Members)]
				if m.liar == nil && m.speaks() {
					w.Submit(m.index, fmt.Sprintf("tx %d", i))
					return
				}
			}
		})
	}
}

// inject makes a fault happen.
func (w *Network) inject(f Fault) {
	if w.calm {
		return
	}
	w.tracef("fault: %v for %d, members %v, %d", f.Kind, f.For, f.Who, f.Arg)
	if f.Kind == Joined {
		w.join(f)
		return
	}
	for _, i := range f.Who {
		if i >= len(w.Members) {
			return // whom shrinking took away
		}
	}
	m := w.Members[f.Who[0]]
	switch f.Kind {
	case CutMinority, CutNoQuorum:
		w.split(f)
	case CutOneWay:
		w.CutOneWay(f.Who[0], f.Who[1], true)
		w.after(f.For, func() { w.CutOneWay(f.Who[0], f.Who[1], false) })
	case QuorumDown:
		for _, i := range f.Who {
			w.Members[i].Down(f.For)
		}
	case LostTail:
		m.Reboot(f.For)
	case SlowDisk:
		m.slow = f.Arg
		w.after(f.For, func() { m.slow = 0 })
	case SkewedClock:
		m.skew = f.Arg
	case SteppedClock:
		m.skew += f.Arg
		w.after(f.For, func() { m.skew -= 2 * f.Arg })
	case Left, Reweighed, RulesChanged:
		c := change{kind: f.Kind, id: m.ID, weight: uint64(f.Arg), params: w.otherRules(f)}
		if by := w.honestMember(); by != nil {
			w.change(by.index, c)
		}
	default: // the crashes
		m.crashes = append(m.crashes, f.Kind)
	}
}

func (w *Network) otherRules(f Fault) consensus.Params {
	r := &maker{Rand: rand.New(rand.NewPCG(uint64(f.At), 3)), least: uint64(f.Arg)}
	return r.params()
}

// honestMember is one that can have something ordered.
func (w *Network) honestMember() *Member {
	for _, m := range w.Members {
		if m.liar == nil && m.speaks() {
			return m
		}
	}
	return nil
}

// split cuts members off, all together, and heals it.
func (w *Network) split(f Fault) {
	groups := make([]int, len(w.Members))
	for _, i := range f.Who {
		groups[i] = 1
	}
	w.Partition(groups...)
	w.after(f.For, func() {
		if !w.calm {
			w.Partition(make([]int, len(w.Members))...)
		}
	})
}

// join lets a new member come, and has its entry ordered.
func (w *Network) join(f Fault) {
	m, err := w.enter()
	if err != nil {
		w.fail("a new member does not start: %v", err)
		return
	}
	if by := w.honestMember(); by != nil {
		w.change(by.index, change{kind: Joined, id: m.ID, weight: uint64(f.Arg)})
	}
}

// Calm ends all faults: what is cut heals, who is down comes back, liars only carry on.
func (w *Network) Calm() {
	w.tracef("calm")
	w.countRules()
	w.calm = true
	w.opt.Loss, w.opt.Crash = 0, 0
	clear(w.oneWay)
	w.Partition(make([]int, len(w.Members))...)
	for _, m := range w.Members {
		m.slow, m.crashes = 0, nil
		if m.liar != nil {
			m.release()
			if m.liar.Does == LiarGone {
				continue
			}
		}
		if m.down {
			m.restart()
		}
	}
}

// top is the highest layer that any honest member knows.
func (w *Network) top() uint64 {
	var top uint64
	for _, m := range w.Members {
		if m.liar != nil || m.down {
			continue
		}
		for _, o := range m.Core.Status().Members {
			top = max(top, o.Layer)
		}
	}
	return top
}

// settle runs until everything is ordered everywhere and nobody makes an event, and
// reports in how many layers.
func (w *Network) settle() (uint64, error) {
	first, from := w.top(), w.Now
	end := w.Now + firstWait + mostExchanges*w.opt.Sync + 100*w.diameter()
	for len(w.Unordered()) > 0 {
		if err := w.Run(w.Now + w.diameter()); err != nil {
			return 0, err
		}
		if w.Now > end {
			return 0, w.stuck()
		}
	}
	// Near members make many layers in the time of one of a far member's.
	layers := min(w.top()-min(first, w.top()), 1+uint64((w.Now-from)/w.diameter()))
	if layers > MostLayers {
		return layers, fmt.Errorf("everything was ordered %d layers after the last fault, want at most %d", layers, MostLayers)
	}
	return layers, w.sleep()
}

// sleep checks that soon nobody makes an event any more. What liars said and nobody
// builds on may keep the others awake until it is ancient.
func (w *Network) sleep() error {
	rounds := int64(w.opt.Params.NonAncientRounds)
	for i := range w.rules {
		rounds = max(rounds, int64(w.rules[i].params.NonAncientRounds))
	}
	before := -1
	for end := w.Now + firstWait + (rounds+20)*4*w.diameter() + 60*w.opt.Sync; w.Created != before; {
		if w.Now > end {
			return fmt.Errorf("events are made for ever, and nothing is to be ordered: %w", w.stuck())
		}
		before = w.Created
		// Long enough for an event that only one member has to be found there.
		if err := w.Run(w.Now + 10*w.diameter() + 12*w.opt.Sync); err != nil {
			return err
		}
	}
	if err := w.Run(w.Now + 50*w.diameter() + 4*w.opt.Sync); err != nil {
		return err
	}
	if w.Created != before {
		return fmt.Errorf("%d events were made when nothing was undecided", w.Created-before)
	}
	return nil
}

// stuck says who waits for what.
func (w *Network) stuck() error {
	s := fmt.Sprintf("long after the last fault %d transactions are not ordered everywhere", len(w.Unordered()))
	for _, tx := range w.Unordered() {
		s += fmt.Sprintf(" %q", tx)
	}
	for _, m := range w.Members {
		if m.down {
			s += fmt.Sprintf("\n  member %d: down", m.index)
			continue
		}
		st := m.Core.Status()
		s += fmt.Sprintf("\n  member %d: liar %v, observing %v, pool %d, applied %d, missing %d, %+v", m.index, m.liar != nil, m.observing != nil,
			len(m.pool), m.state.applied, len(m.Core.Missing()), st)
	}
	return fmt.Errorf("%s", s)
}
