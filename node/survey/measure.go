package survey

import (
	"context"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/dcnode/dcnode/gossip"
)

// Measure measures the path to a member now, both ways, in about a second. Whoever asks
// while it is being measured gets the same answer. [ErrBusy] and [ErrSpent] say that
// it should not be measured now.
func (s *Survey) Measure(ctx context.Context, p peer.ID) (Path, error) {
	for {
		f, mine := s.board(p)
		if mine {
			f.path, f.err = s.measure(ctx, p)
			f.gone = f.err != nil && ctx.Err() != nil
			s.land(p, f)
			return f.path, f.err
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return Path{}, describe(p, context.Cause(ctx))
		}
		if !f.gone {
			return f.path, f.err
		}
	}
}

// board joins the measurement under way, or begins one.
func (s *Survey) board(p peer.ID) (f *flight, mine bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f = s.flights[p]; f != nil {
		return f, false
	}
	f = &flight{done: make(chan struct{})}
	s.flights[p] = f
	return f, true
}

func (s *Survey) land(p peer.ID, f *flight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.flights, p)
	close(f.done)
}

func (s *Survey) measure(ctx context.Context, p peer.ID) (Path, error) {
	if err := s.may(p, s.purse); err != nil {
		return Path{}, describe(p, err)
	}
	ctx, cancel := context.WithTimeout(ctx, probeWithin)
	defer cancel()
	rtt, err := s.ping(ctx, p)
	if err != nil {
		return Path{}, describe(p, err)
	}
	st, err := s.overlay.Open(ctx, p, protocol)
	if err != nil {
		return Path{}, describe(p, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = st.Reset() })
	defer stop()
	towards, away, spent, err := ask(st, rtt)
	s.pay(s.purse, p, spent)
	if err != nil {
		_ = st.Reset()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return Path{}, describe(p, err)
	}
	_ = st.Close() // nothing is on its way any more
	return s.note(p, rtt, towards, away), nil
}

// ping takes the least of some round trips: the others met something on their way.
func (s *Survey) ping(ctx context.Context, p peer.ID) (least time.Duration, err error) {
	for range pings {
		rtt, err := s.overlay.RTT(ctx, p)
		if err != nil {
			return 0, err
		}
		if least == 0 || rtt < least {
			least = rtt
		}
	}
	return max(least, time.Microsecond), nil
}

// ask is the opener's side of a stream.
func ask(st gossip.Stream, rtt time.Duration) (towards, away, spent int64, err error) {
	_ = st.SetDeadline(time.Now().Add(probeWithin))
	what, _, err := readWord(st)
	switch {
	case err != nil:
		return 0, 0, 0, err
	case what == wordBusy:
		return 0, 0, 0, fmt.Errorf("%w: the other member moves a machine, or has been measured enough for now", ErrBusy)
	case what != wordWelcome:
		return 0, 0, 0, fmt.Errorf("%w: word %q", errNonsense, what)
	}
	if err := writeWord(st, wordTrip, int64(rtt)); err != nil {
		return 0, 0, 0, err
	}
	towards, spent, err = receive(st, rtt)
	if err != nil {
		return 0, 0, spent, err
	}
	away, sent, err := send(st)
	return towards, away, spent + sent, err
}

// Serve lets others measure the path to here. Call it before the overlay runs.
func (s *Survey) Serve() {
	s.overlay.Handle(protocol, func(ctx context.Context, st gossip.Stream) {
		if err := s.serve(ctx, st); err != nil {
			s.cfg.Log.Debug("a measurement broke off", "peer", st.Peer(), "cause", err)
			_ = st.Reset()
			return
		}
		_ = st.Close()
	})
}

// serve is the server's side of a stream.
func (s *Survey) serve(ctx context.Context, st gossip.Stream) error {
	p := st.Peer()
	_ = st.SetDeadline(time.Now().Add(turnWithin + probeWithin))
	free, ok := s.take(ctx)
	if ok {
		defer free()
	}
	if !ok || s.may(p, s.account) != nil {
		return writeWord(st, wordBusy, 0)
	}
	if err := writeWord(st, wordWelcome, 0); err != nil {
		return err
	}
	what, trip, err := readWord(st)
	if err == nil && what != wordTrip {
		err = fmt.Errorf("%w: word %q", errNonsense, what)
	}
	if err != nil {
		return err
	}
	away, sent, err := send(st)
	s.pay(s.account, p, sent)
	if err != nil {
		return err
	}
	path, known := s.Path(p)
	if known && path.Bandwidth > 0 && time.Since(path.At) < s.cfg.Fresh/2 {
		s.hear(p, away)
		return writeWord(st, wordDone, path.Bandwidth)
	}
	// Whoever lies about the round trip spoils what is known about itself.
	towards, got, err := receive(st, time.Duration(min(trip, int64(longest))))
	s.pay(s.account, p, got)
	if err != nil {
		return err
	}
	s.note(p, 0, towards, away)
	return nil
}

// hear notes what another member says that it gets from here; the rest of the path is
// no younger for it.
func (s *Survey) hear(p peer.ID, away int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	path := s.paths[p]
	path.Away = mix(path.Away, away, probeWeight)
	s.paths[p] = path
}

// take waits for its turn to be measured.
func (s *Survey) take(ctx context.Context) (free func(), ok bool) {
	t := time.NewTimer(turnWithin)
	defer t.Stop()
	select {
	case s.turn <- struct{}{}:
		return func() { <-s.turn }, true
	case <-t.C:
	case <-ctx.Done():
	}
	return nil, false
}

// may says why nothing should be measured now.
func (s *Survey) may(p peer.ID, of func(peer.ID) *bucket) error {
	if s.cfg.Busy(p) {
		return fmt.Errorf("%w: it moves a machine", ErrBusy)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.moving > 0:
		return fmt.Errorf("%w: this member moves a machine", ErrBusy)
	case !of(p).has(time.Now(), s.cfg.PerMinute):
		return fmt.Errorf("%w: %d MiB in a minute", ErrSpent, s.cfg.PerMinute>>20)
	}
	return nil
}

// purse is the bucket that is paid from for what is measured from here.
func (s *Survey) purse(peer.ID) *bucket { return &s.mine }

// account is the bucket of a member that measures.
func (s *Survey) account(p peer.ID) *bucket {
	b := s.theirs[p]
	if b == nil {
		b = new(bucket)
		s.theirs[p] = b
	}
	return b
}

func (s *Survey) pay(of func(peer.ID) *bucket, p peer.ID, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	of(p).spent += float64(n)
}

// bucket is how much was spent, less what time has forgiven.
type bucket struct {
	spent float64
	at    time.Time
}

// has says whether anything may be spent. One measurement may overdraw it: nobody
// knows before what it takes.
func (b *bucket) has(now time.Time, perMinute int64) bool {
	b.spent = max(0, b.spent-now.Sub(b.at).Minutes()*float64(perMinute))
	b.at = now
	return b.spent < float64(perMinute)
}
