package survey

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/dcnode/dcnode/gossip"
)

// mesh is an overlay without a network: each pair has a path of its own.
type mesh struct {
	rtt   time.Duration
	rates map[[2]peer.ID]float64 // bytes a second, from and to
	at    map[peer.ID]*station
	serve sync.WaitGroup // handlers
	// stall is how much longer than it should, in its n-th millisecond, a stream takes
	// to carry something; nil: nothing stalls.
	stall func(n int64) time.Duration
}

// station is one member's end of it.
type station struct {
	mesh    *mesh
	id      peer.ID
	handle  func(context.Context, gossip.Stream)
	mu      sync.Mutex
	opened  int
	stuck   bool // pings and streams never answer
	strange func(st gossip.Stream)
}

func newMesh(t *testing.T, rtt time.Duration, members ...peer.ID) *mesh {
	m := &mesh{rtt: rtt, rates: map[[2]peer.ID]float64{}, at: map[peer.ID]*station{}}
	for _, id := range members {
		m.at[id] = &station{mesh: m, id: id}
	}
	t.Cleanup(m.serve.Wait)
	return m
}

func (s *station) Handle(_ string, h func(context.Context, gossip.Stream)) { s.handle = h }

func (s *station) Peers() (out []gossip.PeerState) {
	for id := range s.mesh.at {
		if id != s.id {
			out = append(out, gossip.PeerState{ID: id, Connected: true})
		}
	}
	return out
}

func (s *station) RTT(ctx context.Context, p peer.ID) (time.Duration, error) {
	if s.mesh.at[p] == nil {
		return 0, gossip.ErrUnreachable
	}
	wait := s.mesh.rtt
	if s.mesh.at[p].stuck {
		wait = time.Hour
	}
	select {
	case <-time.After(wait):
		return s.mesh.rtt, nil
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

func (s *station) Open(_ context.Context, to peer.ID, _ string) (gossip.Stream, error) {
	far := s.mesh.at[to]
	if far == nil {
		return nil, gossip.ErrUnreachable
	}
	far.mu.Lock()
	far.opened++
	far.mu.Unlock()
	there := newLane(s.mesh.rates[[2]peer.ID{s.id, to}], s.mesh.rtt/2)
	back := newLane(s.mesh.rates[[2]peer.ID{to, s.id}], s.mesh.rtt/2)
	there.stall, back.stall = s.mesh.stall, s.mesh.stall
	serve := far.handle
	if far.strange != nil {
		serve = func(_ context.Context, st gossip.Stream) { far.strange(st) }
	}
	s.mesh.serve.Go(func() { serve(context.Background(), &stream{in: there, out: back, far: s.id}) })
	return &stream{in: back, out: there, far: to}, nil
}

// lane carries bytes one way: at a rate, after a delay, with room for 1 MiB to wait.
type lane struct {
	rate  float64
	delay time.Duration
	stall func(int64) time.Duration
	born  time.Time

	mu      sync.Mutex
	changed chan struct{}
	queue   []parcel
	queued  int
	free    time.Time // when the lane can take more
	err     error     // of reads, once the queue is empty, and of writes
	by      time.Time // deadline
}

type parcel struct {
	bytes []byte
	at    time.Time
}

func newLane(rate float64, delay time.Duration) *lane {
	if rate == 0 {
		rate = 125e6
	}
	return &lane{rate: rate, delay: delay, born: time.Now(), changed: make(chan struct{})}
}

func (l *lane) change(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	close(l.changed)
	l.changed = make(chan struct{})
}

// wait ends at a change, at a time or at the deadline. The caller holds the lock.
func (l *lane) wait(until time.Time) error {
	if !l.by.IsZero() && !time.Now().Before(l.by) {
		return os.ErrDeadlineExceeded
	}
	next := l.by
	if !until.IsZero() && (next.IsZero() || until.Before(next)) {
		next = until
	}
	var timer <-chan time.Time
	if !next.IsZero() {
		timer = time.After(time.Until(next))
	}
	c := l.changed
	l.mu.Unlock()
	defer l.mu.Lock()
	select {
	case <-c:
	case <-timer:
	}
	return nil
}

func (l *lane) write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for n := 0; n < len(p); {
		if l.err != nil {
			return n, l.err
		}
		if l.queued >= 1<<20 {
			if err := l.wait(time.Time{}); err != nil {
				return n, err
			}
			continue
		}
		part := p[n:min(len(p), n+16<<10)]
		now := time.Now()
		if l.free.Before(now) {
			l.free = now
		}
		l.free = l.free.Add(time.Duration(float64(len(part)) / l.rate * float64(time.Second)))
		if l.stall != nil {
			l.free = l.free.Add(l.stall(l.free.Sub(l.born).Milliseconds()))
		}
		l.queue = append(l.queue, parcel{append([]byte(nil), part...), l.free.Add(l.delay)})
		l.queued += len(part)
		n += len(part)
		close(l.changed)
		l.changed = make(chan struct{})
	}
	return len(p), nil
}

func (l *lane) read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		var until time.Time
		if len(l.queue) > 0 {
			if until = l.queue[0].at; !until.After(time.Now()) {
				break
			}
		} else if l.err != nil {
			return 0, l.err
		}
		if err := l.wait(until); err != nil {
			return 0, err
		}
	}
	n := copy(p, l.queue[0].bytes)
	l.queued -= n
	if l.queue[0].bytes = l.queue[0].bytes[n:]; len(l.queue[0].bytes) == 0 {
		l.queue = l.queue[1:]
	}
	close(l.changed)
	l.changed = make(chan struct{})
	return n, nil
}

// stream is one end of two lanes.
type stream struct {
	in, out *lane
	far     peer.ID
}

var errReset = errors.New("stream reset")

func (s *stream) Read(p []byte) (int, error)  { return s.in.read(p) }
func (s *stream) Write(p []byte) (int, error) { return s.out.write(p) }
func (s *stream) Peer() peer.ID               { return s.far }
func (s *stream) CloseWrite() error           { s.out.change(func() { s.out.err = io.EOF }); return nil }
func (s *stream) Close() error                { return s.CloseWrite() }

func (s *stream) Reset() error {
	for _, l := range []*lane{s.in, s.out} {
		l.change(func() { l.queue, l.err = nil, errReset })
	}
	return nil
}

func (s *stream) SetReadDeadline(t time.Time) error {
	s.in.change(func() { s.in.by = t })
	return nil
}

func (s *stream) SetWriteDeadline(t time.Time) error {
	s.out.change(func() { s.out.by = t })
	return nil
}

func (s *stream) SetDeadline(t time.Time) error {
	for _, l := range []*lane{s.in, s.out} {
		l.change(func() { l.by = t })
	}
	return nil
}
