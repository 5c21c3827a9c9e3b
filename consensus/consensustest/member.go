package consensustest

import (
	"errors"
	"fmt"
	"slices"

	"github.com/dcnode/dcnode/consensus"
)

// clockBase is what members' clocks show when a network begins.
const clockBase = 1_700_000_000_000_000_000

// maxLies ends a liar's lies: what they want ordered keeps the others awake.
const maxLies = 40

// Member is one member of a Network: a Core, its driver and its disk.
type Member struct {
	Core *consensus.Core

	net   *Network
	index int
	liar  bool
	lies  int
	down  bool
	timer uint64 // serial of the newest timer: older ones are void

	// The disk.
	log   []*consensus.Event
	store map[consensus.Hash]*consensus.Event
	pool  [][]byte
	taken map[consensus.Hash]bool // stale events whose payload went back to the pool

	applied int // places ordered since the start
	counted int // places that were counted, before and after restarts
	seen    map[string]bool
	times   []int64
}

// start makes the Core and feeds it what is on the disk.
func (m *Member) start() error {
	w := m.net
	roster := make([]consensus.Member, len(w.opt.Weights))
	for i, weight := range w.opt.Weights {
		roster[i] = consensus.Member{ID: uint64(i + 1), Weight: weight}
	}
	core, err := consensus.New(consensus.Config{Roster: roster, Self: uint64(m.index + 1), Params: w.opt.Params})
	if err != nil {
		return err
	}
	m.Core, m.applied, m.down = core, 0, false
	if m.seen == nil {
		m.seen, m.taken = map[string]bool{}, map[consensus.Hash]bool{}
	}
	for _, e := range m.log {
		if err := core.Add(e); err != nil {
			return fmt.Errorf("replay: %w", err)
		}
		for rd, ok := core.Ready(); ok; rd, ok = core.Ready() {
			m.apply(&rd)
			core.Advance()
		}
	}
	return nil
}

// add hands an event from elsewhere to the Core.
func (m *Member) add(e *consensus.Event) {
	err := m.Core.Add(e)
	switch {
	case errors.Is(err, consensus.ErrInvalid):
		m.net.fail("member %d refuses an event of %d: %v", m.index, e.Creator, err)
	}
}

// receive is add and what follows from it.
func (m *Member) receive(events ...*consensus.Event) {
	for _, e := range events {
		m.add(e)
	}
	m.pump()
}

// pump is the driver: all that is ready, then perhaps an own event, and again.
func (m *Member) pump() {
	for !m.down && m.net.err == nil {
		for rd, ok := m.Core.Ready(); ok; rd, ok = m.Core.Ready() {
			if !m.handle(&rd) {
				return
			}
			m.Core.Advance()
		}
		now, wait := m.Core.Due(m.net.Now+1, len(m.pool) > 0)
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
	mine := m.timer
	m.net.after(wait, func() {
		if mine == m.timer {
			m.pump()
		}
	})
}

func (m *Member) create() {
	w := m.net
	k := min(len(m.pool), 16)
	e := m.Core.Next(consensus.Timestamp(clockBase+w.Now), w.rng.Uint32(), slices.Clone(m.pool[:k]))
	m.pool = m.pool[k:]
	if !m.liar {
		w.Created++
	} else if m.lies < maxLies && w.rng.IntN(3) == 0 {
		m.lies++
		m.lie(e)
	}
	if err := m.Core.Add(e); err != nil {
		w.fail("member %d refuses its own event: %v", m.index, err)
	}
}

// lie makes a second event like e, or one that goes back behind the own last ones,
// and sends it to half of the members.
func (m *Member) lie(e *consensus.Event) {
	w := m.net
	f := *e
	f.Coin, f.Time = w.rng.Uint32(), e.Time+1
	f.Payload = [][]byte{fmt.Appendf(nil, "lie %d", w.Now)}
	if h := f.Hash(); w.rng.IntN(2) == 0 {
		m.store[h] = &f
	}
	for to := range w.Members {
		if to%2 == w.rng.IntN(2) {
			w.send(m.index, to, func() { w.Members[to].receive(&f) })
		}
	}
}

// handle does the work of one Ready. It reports false if the member crashed on it.
func (m *Member) handle(rd *consensus.Ready) bool {
	w := m.net
	crash := 0
	if !m.liar && w.opt.Crash > 0 && w.rng.Float64() < w.opt.Crash {
		crash = 1 + w.rng.IntN(4)
	}
	if crash == 1 {
		for _, e := range rd.Send { // a pool is emptied by what is saved, not by Next
			m.pool = append(m.pool, e.Payload...)
		}
		return m.crash()
	}
	for _, e := range rd.Save {
		m.log = append(m.log, e)
		m.store[e.Hash()] = e
	}
	if crash == 2 {
		return m.crash()
	}
	for _, e := range rd.Send {
		for to := range w.Members {
			w.send(m.index, to, func() { w.Members[to].receive(e) })
		}
	}
	for _, want := range rd.Missing {
		m.fetch(want, int(want.Child)-1)
	}
	if crash == 3 {
		return m.crash()
	}
	m.apply(rd)
	if crash == 4 {
		return m.crash()
	}
	return true
}

func (m *Member) apply(rd *consensus.Ready) {
	for i := range rd.Ordered {
		m.net.check(m, &rd.Ordered[i])
	}
	for _, e := range rd.Stale {
		if h := e.Hash(); !m.taken[h] {
			m.taken[h] = true
			m.net.Stale++
			m.pool = append(m.pool, e.Payload...)
		}
	}
}

func (m *Member) crash() bool {
	m.net.Crashes++
	m.Down(1 + m.net.rng.Int64N(m.net.opt.Down))
	return false
}

// Down stops the member and starts it again from its disk after d ns.
func (m *Member) Down(d int64) {
	m.down = true
	m.timer++
	m.net.after(d, func() {
		if err := m.start(); err != nil {
			m.net.fail("member %d does not start: %v", m.index, err)
			return
		}
		m.pump()
	})
}

// fetch asks another member for an event by hash.
func (m *Member) fetch(want consensus.Want, from int) {
	w := m.net
	if from == m.index {
		return
	}
	w.send(m.index, from, func() {
		if e := w.Members[from].store[want.Hash]; e != nil {
			w.send(from, m.index, func() { m.receive(e) })
		}
	})
}

// exchange is the safety net below the broadcast: tell a random other what is here,
// get what is not; ask again for parents that are missing.
func (m *Member) exchange() {
	w := m.net
	w.after(w.opt.Sync, m.exchange)
	if m.down || len(w.Members) == 1 {
		return
	}
	to := w.rng.IntN(len(w.Members) - 1)
	if to >= m.index {
		to++
	}
	heads, oldest := m.Core.Heads(), m.Core.Status().Oldest
	pending := m.Core.Pending()
	w.send(m.index, to, func() {
		other := w.Members[to]
		events := other.Core.Lacking(heads)
		if other.Core.Status().Oldest > pending-min(pending, 3) {
			events = nil // too far apart: from the log
			for _, e := range other.log {
				if e.BirthRound >= oldest {
					events = append(events, e)
				}
			}
		}
		if len(events) > 0 {
			w.send(to, m.index, func() { m.receive(events...) })
		}
	})
	for _, want := range m.Core.Missing() {
		m.fetch(want, to)
	}
}
