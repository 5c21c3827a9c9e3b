// Package survey knows the facts that a move is planned from: how far the other
// members are and how fast bytes come from them ([Survey]), and what this host has
// free ([LookAtHost]). They are measured, not typed in.
//
// # How a path is measured
//
// A stream of the overlay is opened, of the kind that a move uses, so over the same
// connection and its congestion control. The receiver grants the sender bytes, begins
// with 64 KiB, and goes on until the last third of what arrived took 50 ms and one and
// a half round trips, or 8 MiB or a second are over. The rate of that third is the
// path's: what came before it opened the congestion window. Then the roles change.
// See run.go.
//
// One measurement is not believed alone. A host that has other work makes a path look
// slower than it is, by ten times and more; so a run whose bytes came in bursts, or whose
// reader was starved of processors, is made again at once and counts little. And a figure
// is sure only when two measurements agree, or a transfer has shown it ([Path.Unsure]).
//
// What is measured disturbs what is carried. So a member takes part in one
// measurement at a time, no more than so many bytes a minute are spent on it, and nobody is measured who
// moves a machine: what a transfer achieves is told by the transfer ([Survey.Learn]).
package survey

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/dcnode/dcnode/gossip"
)

// protocol carries one measurement.
const protocol = "/survey/1"

// Defaults of Config.
const (
	DefaultFresh     = 5 * time.Minute
	DefaultPerMinute = 64 << 20
)

const (
	probeWithin = 15 * time.Second // one measurement, both directions
	turnWithin  = 3 * time.Second  // for a server to end the one before
	pings       = 3                // of which the least is the round trip

	// A figure is mixed with the one before, unless that is too old: a run of a
	// fraction of a second says less than a transfer.
	probeWeight = 0.5
	doubtWeight = 0.125 // of a run that is doubtful
	alike       = 1.25  // factor within which two measurements agree
	bulkWeight  = 0.75
	leastBulk   = 1 << 20 // bytes, and time, below which a transfer says nothing
	leastTook   = 200 * time.Millisecond
)

// Errors that a caller may branch on: the last known path may do.
var (
	// ErrBusy: this member or the other moves a machine, or the other has been measured
	// enough, or is being measured by somebody else.
	ErrBusy = errors.New("busy")
	// ErrSpent: too much has been spent on measuring in the last minute.
	ErrSpent = errors.New("measured enough for now")
)

// Overlay is what a survey needs of [gossip.Overlay].
type Overlay interface {
	Open(ctx context.Context, to peer.ID, proto string) (gossip.Stream, error)
	RTT(ctx context.Context, p peer.ID) (time.Duration, error)
	Handle(proto string, h func(ctx context.Context, s gossip.Stream))
	Peers() []gossip.PeerState
}

// Config says how a survey is made. The zero value works.
type Config struct {
	// Self is this member. Two that measure each other take their turns by ID.
	Self peer.ID
	// Fresh is how long a path counts as known.
	// 0: DefaultFresh.
	Fresh time.Duration
	// PerMinute bounds the bytes spent on measuring, both ways together: once for what
	// is asked from here, and once for each member that asks. 0: DefaultPerMinute.
	PerMinute int64
	// Busy says that a member sends or receives a machine, as far as is known here. Nil:
	// nobody's moves are known.
	Busy func(peer.ID) bool
	Log  *slog.Logger // nil: no log
}

// Path is the way between this member and another.
type Path struct {
	RTT       time.Duration `json:"rtt"`
	Bandwidth int64         `json:"bandwidth"` // bytes a second towards us
	Away      int64         `json:"away"`      // bytes a second away from us, as the other measured it; 0: not known
	At        time.Time     `json:"at"`        // when it was last measured or learnt
	// Unsure and AwayUnsure: the figure may be far off, mostly too low. No two
	// measurements agree yet, and no transfer has shown it.
	Unsure     bool `json:"unsure,omitempty"`
	AwayUnsure bool `json:"away_unsure,omitempty"`

	last, lastAway int64     // of the measurements without doubt; 0: there is none
	measured       time.Time // At without what transfers have told
}

// Survey measures the paths to the other members and remembers them. Its methods may
// be called from any goroutine.
type Survey struct {
	overlay Overlay
	cfg     Config
	turn    chan struct{} // held by the measurement that this member takes part in
	watch   watch

	mu      sync.Mutex
	paths   map[peer.ID]Path
	flights map[peer.ID]*flight
	mine    bucket
	theirs  map[peer.ID]*bucket
	moving  int
}

// flight is a measurement under way.
type flight struct {
	done chan struct{} // closed at its end; then the rest is valid
	path Path
	err  error
	gone bool // it ended because the one who asked for it went away
}

// New makes a survey. It starts nothing: see Serve and Run.
func New(o Overlay, cfg Config) *Survey {
	if cfg.Fresh <= 0 {
		cfg.Fresh = DefaultFresh
	}
	if cfg.PerMinute <= 0 {
		cfg.PerMinute = DefaultPerMinute
	}
	if cfg.Busy == nil {
		cfg.Busy = func(peer.ID) bool { return false }
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Survey{
		overlay: o, cfg: cfg, turn: make(chan struct{}, 1), watch: overslept,
		paths: map[peer.ID]Path{}, flights: map[peer.ID]*flight{}, theirs: map[peer.ID]*bucket{},
	}
}

// Path is the last known path to a member; no, if there is none that is fresh.
func (s *Survey) Path(p peer.ID) (Path, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	path, ok := s.paths[p]
	return path, ok && time.Since(path.At) < s.cfg.Fresh
}

// Least is the bandwidth of the slowest known path from a member to here: a careful
// guess about one that cannot be measured now. 0: none is known.
func (s *Survey) Least() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	least := int64(0)
	for _, p := range s.paths {
		if p.Bandwidth > 0 && (least == 0 || p.Bandwidth < least) {
			least = p.Bandwidth
		}
	}
	return least
}

// Moving says that this member sends or receives a machine, until the function that it
// returns is called: nothing is measured meanwhile.
func (s *Survey) Moving() (end func()) {
	s.count(1)
	return sync.OnceFunc(func() { s.count(-1) })
}

func (s *Survey) count(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.moving += n
}

// Learn takes what a transfer from a member to here achieved. Short ones say nothing.
func (s *Survey) Learn(p peer.ID, bytes int64, took time.Duration) {
	s.learn(p, bytes, took, func(path *Path) (*int64, *bool) { return &path.Bandwidth, &path.Unsure })
}

// LearnAway takes what a transfer from here to a member achieved.
func (s *Survey) LearnAway(p peer.ID, bytes int64, took time.Duration) {
	s.learn(p, bytes, took, func(path *Path) (*int64, *bool) { return &path.Away, &path.AwayUnsure })
}

func (s *Survey) learn(p peer.ID, bytes int64, took time.Duration, of func(*Path) (*int64, *bool)) {
	if bytes < leastBulk || took < leastTook {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	path := s.paths[p]
	if time.Since(path.At) >= s.cfg.Fresh {
		path = Path{RTT: path.RTT}
	}
	rate, unsure := of(&path)
	if *unsure {
		*rate, *unsure = 0, false
	}
	*rate = mix(*rate, perSecond(bytes, took), bulkWeight)
	path.At = time.Now()
	s.paths[p] = path
}

// Same says that a member has another key: what is known of the path to the peer that
// it was holds for the one that it is now.
func (s *Survey) Same(was, now peer.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if path, ok := s.paths[was]; ok && s.paths[now].At.IsZero() {
		s.paths[now] = path
	}
}

// mix is an exponentially weighted mean; 0 is no figure.
func mix(old, now int64, weight float64) int64 {
	switch {
	case now <= 0:
		return old
	case old <= 0:
		return now
	}
	return int64(float64(old) + weight*(float64(now)-float64(old)))
}

// weigh is what is known of one direction after a measurement, as it was before.
func weigh(rate int64, unsure bool, last int64, f figure) (int64, bool, int64) {
	agree := func(a, b int64) bool {
		return float64(max(a, b)) <= alike*float64(min(a, b))
	}
	switch {
	case f.rate <= 0:
		return rate, unsure, last
	case f.doubt:
		return mix(rate, f.rate, doubtWeight), unsure || rate == 0, last
	case rate == 0 || last == 0 && unsure:
		return f.rate, true, f.rate
	case agree(rate, f.rate):
		return mix(rate, f.rate, probeWeight), false, f.rate
	case last > 0 && agree(last, f.rate): // two that agree outvote what was before
		return mix(last, f.rate, probeWeight), false, f.rate
	}
	// One of both is wrong, and what disturbs a measurement makes it slower.
	return max(rate, f.rate), true, f.rate
}

// note keeps a measurement. The caller holds no lock.
func (s *Survey) note(p peer.ID, rtt time.Duration, towards, away figure) Path {
	s.mu.Lock()
	defer s.mu.Unlock()
	path := s.paths[p]
	if time.Since(path.At) >= s.cfg.Fresh {
		path = Path{}
	}
	if rtt > 0 {
		path.RTT = rtt
	}
	path.Bandwidth, path.Unsure, path.last = weigh(path.Bandwidth, path.Unsure, path.last, towards)
	path.Away, path.AwayUnsure, path.lastAway = weigh(path.Away, path.AwayUnsure, path.lastAway, away)
	path.At = time.Now()
	path.measured = path.At
	s.paths[p] = path
	return path
}

// Forget drops what is known of those who do not stay.
func (s *Survey) Forget(stays func(peer.ID) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	gone := func(p peer.ID) bool { return !stays(p) }
	maps.DeleteFunc(s.paths, func(p peer.ID, _ Path) bool { return gone(p) })
	maps.DeleteFunc(s.theirs, func(p peer.ID, _ *bucket) bool { return gone(p) })
}

// describe names what was being done.
func describe(p peer.ID, err error) error {
	return fmt.Errorf("measure the path to %s: %w", p, err)
}
