package order

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dcnode/dcnode/consensus"
)

const (
	// idle is how long the loop sleeps when nothing is due.
	idle = time.Minute
	// tickSlack is how long after a deadline a member lets the overlay's time pass
	// it, in case somebody else's event does so first.
	tickSlack = 20 * time.Millisecond
)

// Run is the life of the loop. It returns nil when ctx ends, [ErrRejoined] or
// [ErrTwin], and an error when an event cannot be saved, for a member that cannot
// save must not speak, or when the Machine cannot go on. It is called once.
func (l *Loop) Run(ctx context.Context) error {
	defer close(l.ended)
	g, gctx := errgroup.WithContext(ctx)
	l.ctx, l.group = gctx, g
	if l.cfg.Precise {
		a, err := newAlarm(l.wake)
		if err != nil {
			return err
		}
		l.alarm = a
		g.Go(a.run)
	}
	g.Go(func() error { return l.loop(gctx) })
	if l.entering == nil {
		g.Go(func() error { return l.net.observe(gctx) })
	}
	switch {
	case l.overlay == nil:
	case l.entering != nil:
		g.Go(func() error { return l.overlay.Receive(gctx, l.intake.deliver) })
		g.Go(func() error { return l.net.enter(gctx) })
	default:
		for range verifiers() {
			g.Go(func() error { return l.intake.verify(gctx) })
		}
		g.Go(func() error { return l.overlay.Receive(gctx, l.intake.deliver) })
		g.Go(func() error { return l.net.run(gctx) })
		g.Go(func() error { return l.net.reach(gctx) })
	}
	err := g.Wait()
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		return nil
	}
	return err
}

func (l *Loop) loop(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	if l.alarm != nil {
		defer l.alarm.close()
	}
	l.net.want(l.core.Missing()) // what the log lacks
	for {
		l.takeIn()
		next, err := l.create()
		if err != nil {
			return err
		}
		timer.Reset(next)
		if l.alarm != nil && next < preciseBelow {
			l.alarm.set(next)
		}
		select {
		case f := <-l.calls:
			f()
		case <-l.wake:
		case <-timer.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// takeIn gives all that has come to the hashgraph.
func (l *Loop) takeIn() {
	for _, a := range l.inbox.take() {
		fresh := false
		switch {
		case a.call != nil:
			a.call()
		case a.ev != nil:
			fresh = l.takeEvent(a)
		}
		if a.size > 0 {
			l.intake.release(a.from, a.size)
		}
		if a.lot != nil {
			a.lot.looked(fresh)
		}
	}
}

// takeEvent adds one event of another member, or one of this member's own that
// another had, and says whether it was new.
func (l *Loop) takeEvent(a arrival) bool {
	if l.fatal != nil || l.core.Has(a.hash) {
		return false
	}
	key, member := l.core.Key(a.ev.Creator, a.ev.BirthRound)
	switch birth := a.ev.BirthRound; {
	case member && !key.Equal(a.key):
		return false // its creator's key changed while it was on its way; who needs it asks again
	case !member && birth <= l.core.Settled() && a.ev.Creator != l.cfg.Self:
		return false // its creator left while it was on its way
	}
	own := a.ev.Creator == l.cfg.Self
	if own && !l.events.Has(a.hash) && l.surprised(a.ev) {
		return false
	}
	err := l.core.Add(a.ev)
	if own && err == nil {
		l.knowOwn(a.ev.Seq)
	}
	if own && errors.Is(err, consensus.ErrAncient) && l.watch != nil {
		// The hashgraph builds on it and does not keep it.
		if l.fatal = l.events.Append([]*consensus.Event{a.ev}); l.fatal == nil {
			l.watch.here[a.hash] = true
			l.knowOwn(a.ev.Seq)
		}
	}
	l.intake.judge(a, err)
	return err == nil
}

// create makes own events while they are due and says when to look again. An event
// that is due is made before what came is written and applied: others wait for it,
// and one write takes both, parents first.
func (l *Loop) create() (time.Duration, error) {
	if l.entering != nil {
		return idle, l.fatal
	}
	l.hear()
	if err := l.tick(); err != nil {
		return 0, err
	}
	for l.fatal == nil {
		l.hear()
		due, wait := l.core.Due(int64(time.Since(l.start)), l.pool.waiting())
		if due {
			if err := l.speak(); err != nil {
				return 0, err
			}
		}
		if err := l.drain(); err != nil {
			return 0, err
		}
		if !due {
			return min(l.net.chase(), l.nextLook(wait)), nil
		}
	}
	return 0, l.fatal
}

// speak makes one own event and adds it.
func (l *Loop) speak() error {
	var coin [4]byte
	if _, err := rand.Read(coin[:]); err != nil {
		return fmt.Errorf("draw coin: %w", err)
	}
	load := l.pool.load()
	e := l.core.Next(consensus.Timestamp(time.Now().UnixNano()), binary.BigEndian.Uint32(coin[:]), payloads(load))
	e.Sign(l.voice.key)
	l.pool.flies(e, load)
	l.knowOwn(e.Seq)
	if err := l.core.Add(e); err != nil {
		return fmt.Errorf("add own event: %w", err)
	}
	return nil
}

// drain hands out what the hashgraph has ready: write, publish, fetch, apply.
func (l *Loop) drain() error {
	for rd, ok := l.core.Ready(); ok; rd, ok = l.core.Ready() {
		if !l.replays {
			if len(rd.Save) > 0 {
				if err := l.events.Append(rd.Save); err != nil {
					return err
				}
			}
			l.publish(rd.Send)
			l.net.want(rd.Missing)
		}
		for i := range rd.Checkpoints {
			if err := l.take(&rd.Checkpoints[i]); err != nil {
				return err
			}
		}
		for _, ev := range rd.Ordered {
			if err := l.apply(ev); err != nil {
				return err
			}
		}
		if !l.replays {
			l.pool.retract(rd.Stale)
		}
		l.core.Advance()
		l.note()
	}
	return nil
}

func (l *Loop) publish(own []*consensus.Event) {
	if l.overlay == nil {
		return
	}
	for _, e := range own {
		if err := l.overlay.Publish(l.ctx, e.Marshal()); err != nil && l.ctx.Err() == nil {
			l.log.Warn("publish an event", "cause", err) // who lacks it asks for it
		}
	}
}

// apply gives one event of the order to the Machine.
func (l *Loop) apply(ev consensus.Ordered) error {
	if err := l.cfg.Machine.Apply(ev); err != nil {
		return fmt.Errorf("apply event %d of the order: %w", ev.Index, err)
	}
	l.pool.ordered(ev)
	if l.changer == nil {
		return nil
	}
	for _, ch := range l.changer.Changes() {
		if err := l.core.Change(ev.Round, ch.Roster, ch.Params); err != nil {
			l.log.Warn("a change of the roster cannot be obeyed, by no member", "index", ev.Index, "cause", err)
			l.changer.Refused(ch, err)
			continue
		}
		l.noteEpochs()
	}
	return nil
}

// nextLook is the earlier of the hashgraph's wish and the Machine's next deadline.
func (l *Loop) nextLook(wait int64) time.Duration {
	next := idle
	if wait > 0 {
		next = min(next, time.Duration(wait))
	}
	if due := l.due(); due != 0 {
		until := time.Until(time.Unix(0, due)) + tickSlack
		next = min(next, max(until, tickSlack))
	}
	return next
}

func (l *Loop) due() int64 {
	if l.timer == nil || l.voice.key == nil {
		return 0
	}
	return l.timer.Due()
}

// tick orders an empty transaction when a deadline of the Machine has passed and
// the overlay is idle.
func (l *Loop) tick() error {
	due := l.due()
	if due == 0 || !l.pool.empty() || time.Now().UnixNano() < due+int64(tickSlack) {
		return nil
	}
	raw, err := l.timer.Tick()
	if err == nil {
		err = l.pool.put(&pending{raw: raw})
	}
	if err != nil {
		return fmt.Errorf("order a tick: %w", err)
	}
	return nil
}
