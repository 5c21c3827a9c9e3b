package consensustest

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/dcnode/dcnode/consensus"
)

// Scenario is a network, what it is given to order, and what befalls it. It is plain
// data: equal scenarios give equal runs.
type Scenario struct {
	Options
	Topology string
	Load     int   // transactions
	Every    int64 // ns between them, on average
	Faults   []Fault
	Length   int64 // ns until the faults end
	Join     int   // members that come later
}

// Fault is one thing that befalls a network. What Who and Arg mean depends on its kind.
type Fault struct {
	Kind    Kind
	At, For int64 // ns
	Who     []int // member indices
	Arg     int64
}

// sites is the delay matrix of members at points of a line; local is the delay within a point.
func sites(points []int64, local int64) [][]int64 {
	out := make([][]int64, len(points))
	for i := range points {
		out[i] = make([]int64, len(points))
		for k := range points {
			out[i][k] = max(local, max(points[i]-points[k], points[k]-points[i]))
		}
	}
	return out
}

// maker draws a scenario.
type maker struct {
	*rand.Rand
	s       Scenario
	n       int
	d       int64  // the delay that the rest is measured in
	budget  uint64 // weight that may still lie or lose what it said; less than a third in all
	spare   uint64 // weight that may still leave
	suspect []int  // members that lie or lose
	least   uint64 // rounds that events must live
}

func (r *maker) between(a, b int64) int64 { return a + r.Int64N(b-a+1) }

func (r *maker) chance(p float64) bool { return r.Float64() < p }

// Generate draws the scenario of a seed: size, weights, distances, rules, load and faults.
func Generate(seed uint64) Scenario {
	r := &maker{Rand: rand.New(rand.NewPCG(seed, 6161))}
	r.s.Seed = seed
	switch p := r.Float64(); {
	case p < 0.45:
		r.n = 1 + r.IntN(5)
	case p < 0.78:
		r.n = 5 + r.IntN(5)
	case p < 0.95:
		r.n = 10 + r.IntN(7)
	default:
		r.n = 17 + r.IntN(15)
	}
	r.d = []int64{1_000_000, 5_000_000, 15_000_000}[r.IntN(3)]
	r.roster()
	r.distances()
	r.rules()
	layers := max(18, 700/int64(r.n))
	layers = min(layers, 90)
	r.s.Length = layers * r.s.spread()
	r.s.Load = int(layers)/3 + r.IntN(int(layers))
	if r.s.Every = r.s.Length / int64(r.s.Load); r.chance(0.2) {
		r.s.Every, r.s.Load = r.s.Length/3, 3 // mostly idle
	}
	if r.n >= 3 && r.n <= 7 && r.chance(0.10) {
		r.farBehind()
		return r.s
	}
	switch p := r.Float64(); {
	case r.n >= 4 && p < 0.05:
		r.leftBehind()
	case r.n >= 4 && p < 0.10:
		r.forgotten()
	}
	r.liars()
	for range r.IntN(6) {
		r.fault()
	}
	return r.s
}

// spread is about the time of one layer.
func (s *Scenario) spread() int64 {
	w := Network{opt: s.Options}
	return w.diameter()
}

func (r *maker) roster() {
	for range r.n {
		r.s.Weights = append(r.s.Weights, 1)
	}
	switch p := r.Float64(); {
	case p < 0.25:
		for i := range r.s.Weights {
			r.s.Weights[i] = 1 + r.Uint64N(5)
		}
	case p < 0.4 && r.n > 1:
		r.s.Weights[r.IntN(r.n)] = 0
	}
	total := sum(r.s.Weights)
	r.budget = (total - 1) / 3
	r.spare = total / 4
}

func (r *maker) distances() {
	d, n := r.d, r.n
	points := make([]int64, n)
	r.s.Delay = d
	switch r.IntN(6) {
	case 0:
		r.s.Topology = "three sites"
		for i := range points {
			points[i] = int64(i%3) * d
		}
	case 1:
		r.s.Topology = "five sites on a line"
		for i := range points {
			points[i] = int64(i%5) * d / 2
		}
	case 2:
		r.s.Topology = "one far member"
		points[n-1] = 3 * d
	case 3:
		r.s.Topology = "one far site"
		for i := range points {
			points[i] = int64(i%4/3) * 3 * d
		}
	default:
		r.s.Topology = "equal"
	}
	if r.s.Topology != "equal" {
		local := d / 10
		if far := r.s.Topology == "one far member" || r.s.Topology == "one far site"; far {
			// Who is farther than the events' life in rounds of the others is never heard.
			local, r.least = d/2+r.Int64N(d/2), 20
		}
		r.s.Delays = sites(points, local)
	}
	switch p := r.Float64(); {
	case p < 0.5:
		r.s.Jitter = d / 10
	case p < 0.8:
		r.s.Jitter = 1 + r.Int64N(d)
	case p < 0.95:
		r.s.Jitter = 1 + r.Int64N(3*d)
	}
	r.s.Loss = []float64{0, 0, 0, 0.02, 0.1, 0.3}[r.IntN(6)]
	r.s.Sync = r.between(4, 25) * d
	r.s.Flush = []int64{0, 1_000_000, 10_000_000}[r.IntN(3)] * r.between(1, 3)
	r.s.Reach = int64(r.IntN(2)) * r.between(2, 10) * d
	r.s.Down = 1 + r.Int64N(20*d)
	r.s.Crash = []float64{0, 0, 0, 0, 0.002, 0.02}[r.IntN(6)]
	if r.chance(0.3) {
		r.s.Checkpoint, r.s.Compact = 3+r.Uint64N(20), r.chance(0.5)
	}
}

func (r *maker) rules() {
	r.s.Params = consensus.DefaultParams
	if r.chance(0.5) {
		r.s.Params = r.params()
	}
}

func (r *maker) params() consensus.Params {
	p := consensus.DefaultParams
	p.JudgeAny, p.Whiten = r.chance(0.6), r.chance(0.7)
	p.CoinInterval = 2 + r.Uint64N(7)
	if r.chance(0.4) {
		p.SeeNum, p.SeeDen = 1, 1
	}
	if r.chance(0.5) {
		p.NonAncientRounds = max(2+r.Uint64N(10), r.least)
	}
	return p
}

// suspects takes members into the budget of those that lie or lose what they said.
func (r *maker) suspects() (int, bool) {
	i := r.IntN(r.n)
	if slices.Contains(r.suspect, i) || r.s.Weights[i] > r.budget || r.n < 2 {
		return 0, false
	}
	r.budget -= r.s.Weights[i]
	r.suspect = append(r.suspect, i)
	return i, true
}

func (r *maker) liars() {
	if r.chance(0.5) {
		return
	}
	for range r.n {
		if i, ok := r.suspects(); ok {
			r.s.Liars = append(r.s.Liars, Liar{Member: i, Does: LiarEquivocates + Kind(r.IntN(int(LiarGone-LiarEquivocates)+1))})
		}
		if r.chance(0.3) {
			return
		}
	}
}

// fault draws one fault. Some kinds may have no place in this network.
func (r *maker) fault() {
	f := Fault{At: r.between(0, r.s.Length*7/10), For: r.between(2, 30) * r.d, Who: []int{r.IntN(r.n)}}
	kinds := []Kind{
		CutMinority, CutNoQuorum, CutOneWay, QuorumDown, CrashBeforeSave, CrashWhileSaving, CrashBeforeSend, CrashWhileSending,
		CrashBeforeApply, CrashWhileApplying, CrashBeforeAdvance, LostTail, LostTail, SlowDisk, SkewedClock, SteppedClock,
		Joined, Left, Reweighed, RulesChanged,
	}
	f.Kind = kinds[r.IntN(len(kinds))]
	switch f.Kind {
	case CutMinority:
		f.Who = r.group(sum(r.s.Weights) / 3)
	case CutNoQuorum, QuorumDown:
		f.Who = r.group(sum(r.s.Weights) * 2 / 3)
	case CutOneWay:
		f.Who = append(f.Who, r.IntN(r.n))
	case LostTail:
		i, ok := r.suspects()
		if !ok {
			return
		}
		f.Who[0] = i
	case RulesChanged:
		f.Arg = int64(r.least)
	case SlowDisk:
		f.Arg = r.between(r.d/4, 3*r.d)
	case SkewedClock, SteppedClock:
		f.Arg = r.between(r.d, 3600_000_000_000)
		if r.chance(0.5) {
			f.Arg = -f.Arg
		}
	case Joined:
		if len(r.s.Liars) > 0 && r.spare == 0 || r.n+r.s.Join >= 31 {
			return
		}
		f.Who[0] = r.n + r.s.Join
		r.s.Join++
		f.Arg = 1
	case Left, Reweighed:
		if !r.reweigh(&f) {
			return
		}
	}
	if len(f.Who) > 0 {
		r.s.Faults = append(r.s.Faults, f)
	}
}

// group draws members of no more than a given weight.
func (r *maker) group(most uint64) []int {
	var out []int
	var held uint64
	for _, i := range r.Perm(r.n) {
		if held+r.s.Weights[i] <= most {
			held += r.s.Weights[i]
			out = append(out, i)
		}
	}
	return out
}

// reweigh draws a change of weight that leaves liars below a third.
func (r *maker) reweigh(f *Fault) bool {
	i := f.Who[0]
	slack := r.budget * 3 // what the total may lose before the suspects are a third of it
	if r.n < 2 || slices.Contains(r.suspect, i) || slices.ContainsFunc(r.s.Faults, func(o Fault) bool {
		return (o.Kind == Left || o.Kind == Reweighed) && o.Who[0] == i
	}) {
		return false
	}
	f.Arg = r.between(0, int64(r.s.Weights[i])+2)
	if f.Kind == Left {
		f.Arg = 0
	}
	if loss := int64(r.s.Weights[i]) - f.Arg; loss > 0 {
		if uint64(loss) > slack || uint64(loss) > r.spare {
			return false
		}
		r.budget -= uint64(loss+2) / 3
		r.spare -= uint64(loss)
	}
	return true
}

// farBehind keeps a member away for so long that the others have dropped what it
// lacks: it has to go on from a checkpoint.
func (r *maker) farBehind() {
	away := r.IntN(r.n)
	for i := range r.s.Weights {
		r.s.Weights[i] = 1
	}
	if r.n == 3 {
		r.s.Weights[away] = 0
	}
	r.s.Params.NonAncientRounds = max(2+r.Uint64N(6), r.least)
	r.s.Loss, r.s.Crash = 0, 0
	r.s.Compact, r.s.Checkpoint = true, 4+r.Uint64N(16)
	r.s.Jitter = min(r.s.Jitter, r.d/5)
	r.s.Length = 120 * r.s.spread()
	r.s.Every, r.s.Load = 2*r.s.spread(), 60
	from := r.between(0, r.s.Length/4)
	kind := []Kind{CutMinority, LostTail}[r.IntN(2)]
	if r.n == 3 {
		kind = CutMinority
	}
	r.s.Faults = append(r.s.Faults,
		Fault{Kind: kind, At: from, For: r.s.Length - from - 20*r.s.spread(), Who: []int{away}},
		Fault{Kind: CrashBeforeAdvance, At: r.s.Length - 40*r.s.spread(), For: r.d, Who: []int{(away + 1) % r.n}},
	)
}

// leftBehind cuts a member off until what it said is ancient.
func (r *maker) leftBehind() {
	r.s.Params.NonAncientRounds = max(2+r.Uint64N(3), r.least)
	r.s.Faults = append(r.s.Faults, Fault{
		Kind: CutMinority, At: r.between(r.s.Length/8, r.s.Length/4), For: r.s.Length / 2, Who: r.group(sum(r.s.Weights) / 3),
	})
}

// forgotten cuts a member off and has it reboot: what it said meanwhile nobody knows.
func (r *maker) forgotten() {
	i, ok := r.suspects()
	if !ok {
		return
	}
	at := r.between(r.s.Length/8, r.s.Length/2)
	r.s.Flush = 1000 * r.d
	r.s.Faults = append(r.s.Faults,
		Fault{Kind: CutMinority, At: at, For: 12 * r.d, Who: []int{i}},
		Fault{Kind: LostTail, At: at + r.between(1, 8)*r.d, For: 6 * r.d, Who: []int{i}},
	)
}

// String is the scenario for people: what differs from a quiet network of equals.
func (s *Scenario) String() string {
	out := fmt.Sprintf("seed %d: %d members, weights %v, %s, delay %d, jitter %d, loss %g, %+v, %d transactions in %d ns",
		s.Seed, len(s.Weights), s.Weights, s.Topology, s.Delay, s.Jitter, s.Loss, s.Params, s.Load, s.Length)
	for _, l := range s.Liars {
		out += fmt.Sprintf("\n  member %d: %v", l.Member, l.Does)
	}
	for _, f := range s.Faults {
		out += fmt.Sprintf("\n  at %d for %d: %v, members %v, %d", f.At, f.For, f.Kind, f.Who, f.Arg)
	}
	return out
}
