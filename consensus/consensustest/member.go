package consensustest

import (
	"errors"
	"slices"

	"github.com/dcnode/dcnode/consensus"
)

// clockBase is what members' clocks show when a network begins.
const clockBase = 1_700_000_000_000_000_000

// Member is one member of a Network: a Core, its driver, its disk and its clock.
type Member struct {
	Core *consensus.Core
	ID   uint64

	net   *Network
	index int
	liar  *liar // nil: honest
	down  bool
	boot  uint64 // starts so far: what was begun before the last one is void
	timer uint64 // serial of the newest timer: older ones are void

	skew    int64               // of the clock
	made    consensus.Timestamp // what the clock showed at the last own event
	fresh   []*consensus.Event  // own events since the last write
	slow    int64               // how long the disk takes for a write
	writing bool                // the disk is at it: the driver waits
	inbox   []func(*Member)     // what came meanwhile

	disk
	state     machine
	observing *observing
	offers    map[int]*saved  // checkpoints that others offer, by member index
	took      map[uint64]bool // rounds of the checkpoints since the last start
	rejoined  bool            // from a checkpoint that others signed, and nothing was ordered since
	crashes   []Kind          // at which points to crash next
	noted     int             // places that were counted, before and after restarts
	times     []int64         // from submission until this member knew the place
}

// start makes the Core and feeds it what is on the disk. It is not sure of its own
// last event after a reboot that may have lost some.
func (m *Member) start() error {
	w := m.net
	m.boot++
	m.down, m.writing, m.inbox = false, false, nil
	core, err := consensus.New(m.config())
	if err != nil {
		return err
	}
	m.Core, m.took = core, map[uint64]bool{}
	m.Core.Observe(m.observing != nil)
	if m.from != nil {
		m.state = m.from.state
		if !m.rejoined && m.liar == nil {
			w.Counts[Compacted]++
		}
	} else {
		m.state = machine{roster: w.founded, params: w.opt.Params}
	}
	m.replay(m.replay(m.log))
	for i := range w.Members {
		if i != m.index && m.index >= 0 {
			w.reach(m.index, i)
			w.reach(i, m.index)
		}
	}
	return nil
}

// replay feeds events that were saved, and returns those that could not enter yet:
// one branch too many, as long as nobody has built on it.
func (m *Member) replay(events []*consensus.Event) (left []*consensus.Event) {
	w := m.net
	for _, e := range events {
		err := m.Core.Add(e)
		switch {
		case errors.Is(err, consensus.ErrFlood) || errors.Is(err, consensus.ErrFuture) || errors.Is(err, consensus.ErrFull):
			left = append(left, e)
		case err != nil && !errors.Is(err, consensus.ErrAncient) && !errors.Is(err, consensus.ErrDuplicate):
			w.fail("member %d cannot replay an event of %d: %v", m.index, e.Creator, err)
		}
		for rd, ok := m.Core.Ready(); ok && w.err == nil; rd, ok = m.Core.Ready() {
			m.apply(&rd, len(rd.Ordered))
			m.Core.Advance()
			for _, want := range rd.Missing {
				m.fetch(want, m.index)
			}
		}
	}
	return left
}

func (m *Member) config() consensus.Config {
	cfg := consensus.Config{Roster: m.net.founded, Self: m.ID, Params: m.net.opt.Params, CheckpointEvery: m.net.opt.Checkpoint}
	if m.from != nil {
		cp := m.from.cp
		cfg.From = &cp
	}
	return cfg
}

// take handles a message: at once, or when the disk is done with what it is at.
func (m *Member) take(f func(*Member)) {
	if m.writing {
		m.net.Counts[SlowDisk]++
		m.inbox = append(m.inbox, f)
		return
	}
	f(m)
	m.wake()
}

// add hands events from elsewhere to the Core.
func (m *Member) add(events ...*consensus.Event) {
	for _, e := range events {
		err := m.Core.Add(e)
		if err == nil || m.liar != nil {
			continue
		}
		w := m.net
		kind, forged := w.forged[w.hashOf(e)]
		switch {
		case forged && (errors.Is(err, consensus.ErrInvalid) || errors.Is(err, consensus.ErrFlood) || errors.Is(err, consensus.ErrFuture)):
			w.Counts[kind]++
		case errors.Is(err, consensus.ErrInvalid):
			w.fail("member %d refuses an event of member %d: %v", m.index, e.Creator-1, err)
		}
	}
}

// wake is the driver: all that is ready, then perhaps an own event, and again.
func (m *Member) wake() {
	w := m.net
	for !m.down && !m.writing && w.err == nil {
		if rd, ok := m.Core.Ready(); ok {
			m.handle(&rd)
			continue
		}
		m.moveOut()
		now, wait := m.Core.Due(w.Now+1, len(m.pool) > 0)
		if now && m.liar != nil && m.liar.Does == LiarSilent {
			w.Counts[LiarSilent]++
			return
		}
		if !now {
			m.arm(wait)
			return
		}
		m.create()
	}
}

func (m *Member) arm(wait int64) {
	if wait <= 0 {
		return
	}
	m.timer++
	mine, boot := m.timer, m.boot
	m.net.after(wait, func() {
		if mine == m.timer && boot == m.boot {
			m.wake()
		}
	})
}

// clock is what the member's wall clock shows.
func (m *Member) clock() consensus.Timestamp {
	return consensus.Timestamp(clockBase + m.net.Now + m.skew)
}

func (m *Member) create() {
	w := m.net
	k := min(len(m.pool), 16)
	e := m.Core.Next(m.clock(), w.rng.Uint32(), slices.Clone(m.pool[:k]))
	if e == nil {
		w.fail("member %d is due to make an event, and makes none", m.index)
		return
	}
	m.pool = m.pool[k:]
	if m.liar != nil {
		e = m.lie(e)
		if e == nil {
			return
		}
	} else {
		w.made(m, e)
	}
	m.fresh = append(m.fresh, e)
	w.tracef("member %d makes %s", m.index, w.describe(e))
	if err := m.Core.Add(e); err != nil && m.liar == nil {
		w.fail("member %d refuses its own event: %v", m.index, err)
	}
}

// handle does the work of one Ready, in its order.
func (m *Member) handle(rd *consensus.Ready) {
	if m.slow == 0 || len(rd.Save) == 0 || m.net.calm {
		m.finish(rd)
		return
	}
	m.writing = true
	boot := m.boot
	m.net.after(m.slow, func() {
		if boot != m.boot || m.down {
			return
		}
		m.writing = false
		m.finish(rd)
		inbox := m.inbox
		m.inbox = nil
		for _, f := range inbox {
			if boot == m.boot && !m.down {
				f(m)
			}
		}
		m.wake()
	})
}

func (m *Member) finish(rd *consensus.Ready) {
	point := m.crashPoint(rd)
	switch point {
	case CrashBeforeSave:
		m.crash(point)
		return
	case CrashWhileSaving:
		m.save(rd.Save[:1+m.net.rng.IntN(len(rd.Save)-1)])
		m.crash(point)
		return
	}
	m.save(rd.Save)
	m.fresh = nil
	if point == CrashBeforeSend {
		m.crash(point)
		return
	}
	for _, e := range rd.Send {
		m.broadcast(e, point == CrashWhileSending)
	}
	if point == CrashWhileSending {
		m.crash(point)
		return
	}
	for _, want := range rd.Missing {
		m.fetch(want, m.net.holder(want.Child))
	}
	switch point {
	case CrashBeforeApply:
	case CrashWhileApplying:
		m.apply(rd, 1+m.net.rng.IntN(len(rd.Ordered)-1))
	default:
		m.apply(rd, len(rd.Ordered))
	}
	if point != 0 {
		m.crash(point)
		return
	}
	m.Core.Advance()
}

// broadcast sends an own event to every member, or only to some.
func (m *Member) broadcast(e *consensus.Event, some bool) {
	w := m.net
	if m.liar != nil {
		m.tell(e)
		return
	}
	for to := range w.Members {
		if !some || w.rng.IntN(2) == 0 {
			w.send(m.index, to, func(o *Member) { o.add(e) })
		}
	}
}

// crashPoint is where on this work the member will crash, 0 if nowhere. A crash that
// was asked for waits until its point has something to interrupt.
func (m *Member) crashPoint(rd *consensus.Ready) Kind {
	w := m.net
	if m.liar != nil || w.calm {
		return 0
	}
	if len(m.crashes) > 0 {
		if p := m.crashes[0]; interrupts(p, rd) {
			m.crashes = m.crashes[1:]
			return p
		}
		return 0
	}
	if w.opt.Crash > 0 && w.rng.Float64() < w.opt.Crash {
		if p := CrashBeforeSave + Kind(w.rng.IntN(int(CrashBeforeAdvance-CrashBeforeSave)+1)); interrupts(p, rd) {
			return p
		}
	}
	return 0
}

func interrupts(p Kind, rd *consensus.Ready) bool {
	switch p {
	case CrashBeforeSave:
		return len(rd.Save) > 0
	case CrashWhileSaving:
		return len(rd.Save) > 1
	case CrashBeforeSend, CrashWhileSending:
		return len(rd.Send) > 0
	case CrashBeforeApply:
		return len(rd.Ordered) > 0
	case CrashWhileApplying:
		return len(rd.Ordered) > 1
	}
	return true
}

// crash stops the member in the middle of some work; it starts again from its disk.
// Payloads of events that were not saved are still where they came from.
func (m *Member) crash(point Kind) {
	w := m.net
	w.Crashes++
	w.Counts[point]++
	w.tracef("member %d crashes: %v", m.index, point)
	m.Down(1 + w.rng.Int64N(max(w.opt.Down, 1)))
}

// Down stops the member and starts it again from its disk after d ns; below 0: never.
func (m *Member) Down(d int64) {
	w := m.net
	if m.down {
		return
	}
	m.recall()
	m.down = true
	m.boot++
	boot := m.boot
	w.noteDown()
	for i := range w.Members {
		if i != m.index {
			w.reach(i, m.index)
		}
	}
	if d < 0 {
		return
	}
	w.after(d, func() {
		if boot == m.boot && m.down {
			m.restart()
		}
	})
}

func (m *Member) restart() {
	w := m.net
	w.tracef("member %d starts", m.index)
	defer w.noteDown()
	if err := m.start(); err != nil {
		w.fail("member %d does not start: %v", m.index, err)
		return
	}
	if m.observing != nil {
		m.ask()
	}
	m.wake()
}
