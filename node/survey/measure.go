package survey

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/dcnode/dcnode/gossip"
)

// Measure measures the path to a member now, both ways, in about a second; in three, if
// what it sees is doubtful. Whoever asks while it is being measured gets the same answer.
// [ErrBusy] and [ErrSpent] say that it should not be measured now.
func (s *Survey) Measure(ctx context.Context, p peer.ID) (Path, error) {
	for {
		f, mine := s.board(p)
		if mine {
			f.path, f.err = s.repeat(ctx, p)
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

// tries is how often a path is measured in a row when the figures are doubtful.
const tries = 3

// repeat measures until there are figures without doubt, or so often that it is no use.
func (s *Survey) repeat(ctx context.Context, p peer.ID) (path Path, err error) {
	for i := range tries {
		next, doubt, err := s.measure(ctx, p)
		if err != nil && i == 0 {
			return Path{}, err
		}
		if err != nil { // what is known by now is better than nothing
			return path, nil
		}
		if path = next; !doubt {
			break
		}
	}
	return path, nil
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

// measure measures once. A member takes part in one measurement at a time, and so each
// takes its own turn and that of the other: the lesser ID's first, so that no two wait for
// each other.
func (s *Survey) measure(ctx context.Context, p peer.ID) (path Path, doubt bool, err error) {
	if err := s.may(p, s.purse); err != nil {
		return path, false, describe(p, err)
	}
	ctx, cancel := context.WithTimeout(ctx, probeWithin)
	defer cancel()
	rtt, err := s.ping(ctx, p)
	if err != nil {
		return path, false, describe(p, err)
	}
	before := time.Now()
	first := s.cfg.Self < p
	if first {
		free, err := s.own(ctx)
		if err != nil {
			return path, false, describe(p, err)
		}
		defer free()
	}
	st, err := s.overlay.Open(ctx, p, protocol)
	if err != nil {
		return path, false, describe(p, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = st.Reset() })
	defer stop()
	fail := func(err error) (Path, bool, error) {
		_ = st.Reset()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return Path{}, false, describe(p, err)
	}
	if err := welcome(st); err != nil {
		return fail(err)
	}
	if !first {
		free, err := s.own(ctx)
		if err != nil {
			return fail(err)
		}
		defer free()
	}
	if known, ok := s.Path(p); ok && known.Bandwidth > 0 && known.Away > 0 && known.measured.After(before) {
		_ = st.Close() // the other has measured it meanwhile
		return s.note(p, rtt, figure{}, figure{}), false, nil
	}
	towards, away, spent, err := s.ask(st, rtt)
	s.pay(s.purse, p, spent)
	if err != nil {
		return fail(err)
	}
	_ = st.Close() // nothing is on its way any more
	return s.note(p, rtt, towards, away), towards.doubt || away.doubt, nil
}

// own takes this member's turn.
func (s *Survey) own(ctx context.Context) (free func(), err error) {
	free, ok := s.take(ctx)
	if !ok {
		return nil, fmt.Errorf("%w: this member takes part in another measurement", ErrBusy)
	}
	return free, nil
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

// welcome waits for the server's turn.
func welcome(st gossip.Stream) error {
	_ = st.SetDeadline(time.Now().Add(2 * turnWithin))
	what, _, err := readWord(st)
	switch {
	case err != nil:
		return err
	case what == wordBusy:
		return fmt.Errorf("%w: the other member moves a machine, or is being measured, or has been enough for now", ErrBusy)
	case what != wordWelcome:
		return fmt.Errorf("%w: word %q", errNonsense, what)
	}
	return nil
}

// ask is the opener's side of a stream, once it is welcome.
func (s *Survey) ask(st gossip.Stream, rtt time.Duration) (towards, away figure, spent int64, err error) {
	_ = st.SetDeadline(time.Now().Add(probeWithin))
	if err := writeWord(st, wordTrip, max(int64(rtt), 1)); err != nil {
		return towards, away, 0, err
	}
	towards, spent, err = receive(st, rtt, s.watch)
	if err != nil {
		return figure{}, away, spent, err
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
	_ = st.SetDeadline(time.Now().Add(2*turnWithin + probeWithin))
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
	if errors.Is(err, io.EOF) {
		return nil // it knows the path by now
	}
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
	if known && path.Bandwidth > 0 && !path.Unsure && time.Since(path.At) < s.cfg.Fresh/2 {
		s.hear(p, away)
		return writeWord(st, wordDone, path.Bandwidth)
	}
	// Whoever lies about the round trip spoils what is known about itself.
	towards, got, err := receive(st, time.Duration(min(trip, int64(longest))), s.watch)
	s.pay(s.account, p, got)
	if err != nil {
		return err
	}
	s.note(p, 0, towards, away)
	return nil
}

// hear notes what another member says that it gets from here; the rest of the path is
// no younger for it.
func (s *Survey) hear(p peer.ID, away figure) {
	s.mu.Lock()
	defer s.mu.Unlock()
	path := s.paths[p]
	path.Away, path.AwayUnsure, path.lastAway = weigh(path.Away, path.AwayUnsure, path.lastAway, away)
	path.measured = time.Now()
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
