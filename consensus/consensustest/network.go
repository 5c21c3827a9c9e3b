package consensustest

import (
	"container/heap"
	"fmt"
	"math/rand/v2"

	"github.com/dcnode/dcnode/consensus"
)

// Options describe a network in virtual time. All times are ns.
type Options struct {
	Seed    uint64
	Weights []uint64 // one for each member
	Params  consensus.Params
	Delay   int64   // one way, between any two members
	Jitter  int64   // uniform, added to the delay
	Loss    float64 // probability that a message is lost
	Sync    int64   // between a member's exchanges of heads with a random other
	Liars   int     // members, from the last, that make forks
	Crash   float64 // probability that an honest member restarts at a Ready
	Down    int64   // how long a restart takes, at most
}

// Network runs one Core for each member against a simulated network and checks
// after each step that all members have one order. The same options give the same
// run. It is driven from one goroutine.
type Network struct {
	Now     int64
	Members []*Member
	Created int // events that honest members made
	Crashes int // restarts that came upon a member at a Ready
	Stale   int // own events of honest members that were never to be ordered

	opt    Options
	rng    *rand.Rand
	queue  agenda
	serial uint64
	order  []place
	group  []int // of each member: messages pass within a group
	sent   map[string]int64
	known  map[string]int // how many honest members have ordered a payload
	lat    []int64        // from submission until all members knew the order
	err    error
}

// place is an entry of the order that all must agree on.
type place struct {
	hash consensus.Hash
	time consensus.Timestamp
}

// NewNetwork makes the network; nothing happens before Run.
func NewNetwork(opt Options) (*Network, error) {
	w := &Network{
		opt: opt, rng: rand.New(rand.NewPCG(opt.Seed, 26)),
		sent: map[string]int64{}, known: map[string]int{},
		group: make([]int, len(opt.Weights)),
	}
	for i := range opt.Weights {
		m := &Member{net: w, index: i, liar: i >= len(opt.Weights)-opt.Liars, store: map[consensus.Hash]*consensus.Event{}}
		if err := m.start(); err != nil {
			return nil, err
		}
		w.Members = append(w.Members, m)
		w.after(w.rng.Int64N(opt.Sync), m.exchange)
	}
	return w, nil
}

// Partition puts members into groups; messages between groups are lost from now on.
func (w *Network) Partition(groups ...int) { copy(w.group, groups) }

// Submit gives member i a transaction to have ordered. Texts must be unique.
func (w *Network) Submit(i int, tx string) {
	w.sent[tx] = w.Now
	m := w.Members[i]
	m.pool = append(m.pool, []byte(tx))
	m.pump()
}

// Run lets the network go on until the given time, or until a check fails.
func (w *Network) Run(until int64) error {
	for w.err == nil && len(w.queue) > 0 && w.queue[0].at <= until {
		s := heap.Pop(&w.queue).(step)
		w.Now = s.at
		s.do()
	}
	w.Now = max(w.Now, until)
	return w.err
}

// After calls f when d ns have passed.
func (w *Network) After(d int64, f func()) { w.after(d, f) }

func (w *Network) after(d int64, f func()) {
	w.serial++
	heap.Push(&w.queue, step{w.Now + d, w.serial, f})
}

// Ordered is the length of the longest order of any member.
func (w *Network) Ordered() int { return len(w.order) }

// Latencies are the times from submission until all honest members knew the place.
func (w *Network) Latencies() []int64 { return w.lat }

// Unordered lists the transactions that some honest member has not ordered.
func (w *Network) Unordered() []string {
	var out []string
	for tx := range w.sent {
		if w.known[tx] != w.honest() {
			out = append(out, tx)
		}
	}
	return out
}

// timesOf are the times from submission until member i knew the place.
func (w *Network) timesOf(i int) []int64 { return w.Members[i].times }

func (w *Network) honest() int { return len(w.Members) - w.opt.Liars }

// send calls f at the other end after the delay, unless the message is lost.
func (w *Network) send(from, to int, f func()) {
	if from == to || w.rng.Float64() < w.opt.Loss {
		return
	}
	d := w.opt.Delay
	if w.opt.Jitter > 0 {
		d += w.rng.Int64N(w.opt.Jitter)
	}
	w.after(d, func() {
		if w.group[from] == w.group[to] && !w.Members[to].down {
			f()
		}
	})
}

func (w *Network) fail(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf("at %d ns: %s", w.Now, fmt.Sprintf(format, args...))
	}
}

// check compares what member m ordered with what the others did.
func (w *Network) check(m *Member, o *consensus.Ordered) {
	p := place{o.Event.Hash(), o.Time}
	switch {
	case o.Index != uint64(m.applied):
		w.fail("member %d: place %d after %d events", m.index, o.Index, m.applied)
	case m.applied < len(w.order) && w.order[m.applied] != p:
		w.fail("member %d has %x at %d in place %d, another has %x at %d", m.index,
			p.hash[:4], p.time, o.Index, w.order[m.applied].hash[:4], w.order[m.applied].time)
	case m.applied > 0 && w.order[m.applied-1].time >= o.Time:
		w.fail("member %d: time %d in place %d does not increase", m.index, o.Time, o.Index)
	case m.applied == len(w.order):
		w.order = append(w.order, p)
	}
	m.applied++
	if m.applied <= m.counted || m.liar {
		return
	}
	m.counted = m.applied
	for _, tx := range o.Event.Payload {
		w.count(m, string(tx))
	}
}

func (w *Network) count(m *Member, tx string) {
	at, ok := w.sent[tx]
	if !ok {
		return // made up by a liar
	}
	if m.seen[tx] {
		w.fail("member %d ordered %q twice", m.index, tx)
	}
	m.seen[tx] = true
	m.times = append(m.times, w.Now-at)
	if w.known[tx]++; w.known[tx] == w.honest() {
		w.lat = append(w.lat, w.Now-at)
	}
}

// step is something that happens; agenda is a heap of them.
type step struct {
	at     int64
	serial uint64
	do     func()
}

type agenda []step

func (a agenda) Len() int { return len(a) }
func (a agenda) Less(i, j int) bool {
	return a[i].at < a[j].at || a[i].at == a[j].at && a[i].serial < a[j].serial
}
func (a agenda) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *agenda) Push(x any)   { *a = append(*a, x.(step)) }
func (a *agenda) Pop() any {
	s := (*a)[len(*a)-1]
	*a = (*a)[:len(*a)-1]
	return s
}
