package consensustest

import (
	"fmt"
	"io"
	"math/rand/v2"

	"github.com/dcnode/dcnode/consensus"
)

// Options describe a network in virtual time. All times are ns.
type Options struct {
	Seed       uint64
	Weights    []uint64 // one for each founding member
	Params     consensus.Params
	Delay      int64     // one way, between any two members
	Delays     [][]int64 // one way, from and to; if given, instead of Delay
	Jitter     int64     // uniform, added to the delay
	Loss       float64   // probability that a message is lost
	Sync       int64     // between a member's exchanges of heads with a random other
	Flush      int64     // between the syncs of a disk; 0: each write is synced
	Reach      int64     // after how long a member's transport notices that another is gone; 0: never
	Liars      []Liar
	Crash      float64 // probability that an honest member restarts at a Ready
	Down       int64   // how long a restart takes, at most
	Checkpoint uint64  // rounds between checkpoints; 0: consensus.CheckpointEvery
	Compact    bool    // members drop what lies before their last checkpoint
	Trace      io.Writer
}

// Network runs one Core for each member against a simulated network and checks
// after each step that all members have one order. The same options and calls give
// the same run. It is driven from one goroutine.
type Network struct {
	Now     int64
	Members []*Member
	Created int // events that honest members made
	Crashes int // restarts that came upon a member at a Ready
	Stale   int // own events of honest members that were never to be ordered
	Counts  Counts

	opt     Options
	rng     *rand.Rand
	queue   agenda
	serial  uint64
	calm    bool // no faults from now on
	group   []int
	oneWay  map[[2]int]bool
	newest  map[[2]int]int64 // per link: when the newest message that came was sent
	founded []consensus.Member
	changes map[string]change // what is ordered as a change of the rules, by its text
	books
	err error
}

// NewNetwork makes the network; nothing happens before Run.
func NewNetwork(opt Options) (*Network, error) {
	w := &Network{
		opt: opt, rng: rand.New(rand.NewPCG(opt.Seed, 26)),
		oneWay: map[[2]int]bool{}, newest: map[[2]int]int64{}, changes: map[string]change{}, books: newBooks(),
	}
	for i, weight := range opt.Weights {
		w.founded = append(w.founded, consensus.Member{ID: uint64(i + 1), Key: keyOf(uint64(i + 1)), Weight: weight})
	}
	for range opt.Weights {
		if _, err := w.enter(); err != nil {
			return nil, err
		}
	}
	for _, l := range opt.Liars {
		l := l
		w.Members[l.Member].liar = &liar{Liar: l, audience: map[consensus.Hash][]int{}}
	}
	return w, nil
}

// keyOf stands in for a public key: the simulator does not sign.
func keyOf(id uint64) []byte {
	k := make([]byte, 32)
	k[0], k[1] = byte(id), byte(id>>8)
	return k
}

// enter adds the next member, who starts with an empty disk.
func (w *Network) enter() (*Member, error) {
	m := &Member{ID: uint64(len(w.Members) + 1), net: w, index: len(w.Members)}
	m.wipe()
	w.Members = append(w.Members, m)
	w.group = append(w.group, 0)
	if err := m.start(); err != nil {
		return nil, err
	}
	w.after(1+w.rng.Int64N(w.opt.Sync), m.exchange)
	return m, nil
}

// Partition puts members into groups; messages between groups are lost from now on.
func (w *Network) Partition(groups ...int) {
	was := append([]int(nil), w.group...)
	copy(w.group, groups)
	w.tracef("partition %v", w.group)
	for i := range w.group {
		for k := range w.group {
			if before, now := was[i] == was[k], w.group[i] == w.group[k]; before != now && i != k {
				w.reach(i, k)
			}
		}
	}
}

// CutOneWay loses what is sent from one member to another, or no longer does.
func (w *Network) CutOneWay(from, to int, cut bool) {
	w.oneWay[[2]int{from, to}] = cut
	w.tracef("link %d -> %d cut: %v", from, to, cut)
}

// connected is what the transport of one member would say of another.
func (w *Network) connected(from, to int) bool {
	return w.group[from] == w.group[to] && !w.Members[from].down && !w.Members[to].down
}

// reach tells a member's Core whether another can be reached, some time after that changed.
func (w *Network) reach(from, to int) {
	if w.opt.Reach == 0 {
		return
	}
	was := w.connected(from, to)
	w.after(w.opt.Reach, func() {
		if m := w.Members[from]; w.connected(from, to) == was && !m.down && m.ID != w.Members[to].ID {
			m.Core.Reach(w.Members[to].ID, was, w.rtt(from, to))
			m.wake()
		}
	})
}

// rtt is the round trip without jitter.
func (w *Network) rtt(a, b int) int64 { return w.delay(a, b) + w.delay(b, a) }

func (w *Network) delay(from, to int) int64 {
	if w.opt.Delays == nil {
		return w.opt.Delay
	}
	n := len(w.opt.Delays)
	return w.opt.Delays[from%n][to%n] // who joins later joins at some founder's place
}

// diameter is the longest delay with its jitter.
func (w *Network) diameter() int64 {
	most := w.opt.Delay
	for _, row := range w.opt.Delays {
		for _, d := range row {
			most = max(most, d)
		}
	}
	return most + w.opt.Jitter
}

// Submit gives member i a transaction to have ordered. Texts must be unique.
func (w *Network) Submit(i int, tx string) {
	m := w.Members[i]
	w.sent[tx] = w.Now
	w.texts = append(w.texts, tx)
	w.tracef("member %d is given %q", i, tx)
	m.pool = append(m.pool, []byte(tx))
	if !m.down && m.Core.Status().Busy == 0 && w.Ordered() > 0 {
		w.Counts[WokeUp]++
	}
	m.wake()
}

// Run lets the network go on until the given time, or until a check fails.
func (w *Network) Run(until int64) error {
	for w.err == nil && len(w.queue) > 0 && w.queue[0].at <= until {
		s := w.queue.pop()
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
	w.queue.push(step{w.Now + d, w.serial, f})
}

// send calls f at the other end after the delay, unless the message is lost or cut off.
func (w *Network) send(from, to int, f func(*Member)) {
	if from == to {
		return
	}
	if w.opt.Loss > 0 && w.rng.Float64() < w.opt.Loss {
		w.Counts[Lost]++
		return
	}
	d := w.delay(from, to)
	if w.opt.Jitter > 0 {
		d += w.rng.Int64N(w.opt.Jitter)
	}
	at := w.Now
	w.after(d, func() {
		m := w.Members[to]
		if w.cut(from, to) || m.down {
			return
		}
		link := [2]int{from, to}
		if at < w.newest[link] {
			w.Counts[Jittered]++
		}
		w.newest[link] = max(w.newest[link], at)
		m.take(f)
	})
}

// cut reports whether a message does not pass, and counts why.
func (w *Network) cut(from, to int) bool {
	if w.group[from] != w.group[to] {
		if w.anyQuorum() {
			w.Counts[CutMinority]++
		} else {
			w.Counts[CutNoQuorum]++
		}
		return true
	}
	if w.oneWay[[2]int{from, to}] {
		w.Counts[CutOneWay]++
		return true
	}
	return false
}

// anyQuorum reports whether some group has a supermajority of the founders' weight.
func (w *Network) anyQuorum() bool {
	var total uint64
	held := map[int]uint64{}
	for i, weight := range w.opt.Weights {
		total += weight
		held[w.group[i]] += weight
		if 3*held[w.group[i]] > 2*total && 3*held[w.group[i]] > 2*sum(w.opt.Weights) {
			return true
		}
	}
	return false
}

func sum(list []uint64) uint64 {
	var s uint64
	for _, x := range list {
		s += x
	}
	return s
}

func (w *Network) fail(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf("at %d ns: %s", w.Now, fmt.Sprintf(format, args...))
		w.tracef("FAILED: %v", w.err)
	}
}

func (w *Network) tracef(format string, args ...any) {
	if w.opt.Trace != nil {
		fmt.Fprintf(w.opt.Trace, "%12.6f ms  %s\n", float64(w.Now)/1e6, fmt.Sprintf(format, args...))
	}
}

// step is something that happens; agenda is a heap of them.
type step struct {
	at     int64
	serial uint64
	do     func()
}

type agenda []step

func (a agenda) less(i, j int) bool {
	return a[i].at < a[j].at || a[i].at == a[j].at && a[i].serial < a[j].serial
}

func (a *agenda) push(s step) {
	*a = append(*a, s)
	h := *a
	for i := len(h) - 1; i > 0; {
		up := (i - 1) / 2
		if !h.less(i, up) {
			return
		}
		h[i], h[up] = h[up], h[i]
		i = up
	}
}

func (a *agenda) pop() step {
	h := *a
	s := h[0]
	n := len(h) - 1
	h[0], h[n] = h[n], step{}
	h = h[:n]
	*a = h
	for i := 0; ; {
		k := 2*i + 1
		if k >= n {
			return s
		}
		if k+1 < n && h.less(k+1, k) {
			k++
		}
		if !h.less(k, i) {
			return s
		}
		h[i], h[k] = h[k], h[i]
		i = k
	}
}
