package consensustest

import (
	"slices"

	"github.com/dcnode/dcnode/consensus"
)

// disk is what a member has after a restart.
type disk struct {
	from   *saved // the log begins there; nil: at the beginning
	log    []*consensus.Event
	store  map[consensus.Hash]*consensus.Event
	synced int // entries of the log that outlive a power cut
	wrote  int64
	pool   [][]byte
	taken  map[consensus.Hash]bool // stale events whose payload went back to the pool
	last   *saved                  // the newest checkpoint of its own
}

// saved is a checkpoint with the state that goes with it.
type saved struct {
	cp    consensus.Checkpoint
	bytes string
	state machine
}

func (m *Member) wipe() {
	m.disk = disk{store: map[consensus.Hash]*consensus.Event{}, taken: map[consensus.Hash]bool{}}
}

// save writes events; they survive a crash of the process at once, and a crash of the
// machine after the next flush.
func (m *Member) save(events []*consensus.Event) {
	w := m.net
	m.flush()
	m.wrote = w.Now
	for _, e := range events {
		h := w.hashOf(e)
		if m.store[h] != nil {
			continue
		}
		m.log = append(m.log, e)
		m.store[h] = e
		if m.liar == nil {
			w.register(m, e, h)
		}
	}
	if w.opt.Flush == 0 {
		m.synced = len(m.log)
	}
}

// flush brings up to date how much of the log a disk that syncs every so often has
// synced by now.
func (m *Member) flush() {
	every := m.net.opt.Flush
	if every == 0 || m.net.Now/every != m.wrote/every {
		m.synced = len(m.log)
	}
}

// recall puts back into the pool what is in own events that were made and not saved.
func (m *Member) recall() {
	w := m.net
	for _, e := range m.fresh {
		if m.store[w.hashOf(e)] == nil {
			m.pool = append(m.pool, e.Payload...)
			w.unmade(m, e)
		}
	}
	m.fresh = nil
}

// Reboot is Down for the whole machine: a tail of the log that was not synced is lost.
func (m *Member) Reboot(d int64) {
	w := m.net
	if m.down {
		return
	}
	m.Down(-1)
	m.flush()
	keep := m.synced + w.rng.IntN(len(m.log)-m.synced+1)
	lost := slices.Clone(m.log[keep:])
	m.log = m.log[:keep]
	w.tracef("member %d reboots: %d events are lost", m.index, len(lost))
	before := m.observing
	m.observing = &observing{}
	if before != nil {
		m.observing.lost = before.lost
	}
	for _, e := range lost {
		w.Counts[LostTail]++
		delete(m.store, w.hashOf(e))
		if e.Creator == m.ID && !slices.Contains(m.observing.lost, e) {
			m.observing.lost = append(m.observing.lost, e)
		}
	}
	boot := m.boot
	w.after(d, func() {
		if boot == m.boot && m.down {
			m.restart()
		}
	})
}

// observing is the state of a member that may have said more than it remembers. It
// says nothing until members of a quorum have told it what they know of it, all of
// that is here, and twice the longest round trip went by without news.
type observing struct {
	lost    []*consensus.Event // what the simulator knows that the member does not
	heard   []int              // members that answered
	named   []consensus.Hash   // own last events that they know
	changed int64              // when the last own event was news
	asked   bool
}

// ask puts the question to all, and again until the member is sure.
func (m *Member) ask() {
	w, o := m.net, m.observing
	if o == nil || m.down {
		return
	}
	if !o.asked {
		o.asked, o.changed = true, w.Now
	}
	if m.sure() {
		m.resume()
		return
	}
	for to := range w.Members {
		w.send(m.index, to, func(other *Member) {
			var tips []*consensus.Event
			if last := other.lastOf(m.ID); last != nil {
				tips = append(tips, last)
			}
			w.send(to, m.index, func(*Member) { m.told(o, to, tips) })
		})
	}
	boot := m.boot
	w.after(w.diameter()*2+w.opt.Sync/4, func() {
		if boot == m.boot {
			m.ask()
		}
	})
}

// lastOf is the last event of a member that this one has in its log.
func (m *Member) lastOf(id uint64) *consensus.Event {
	var last *consensus.Event
	for _, e := range m.log {
		if e.Creator == id && (last == nil || e.Seq >= last.Seq) {
			last = e
		}
	}
	return last
}

// told notes the answer of another member.
func (m *Member) told(o *observing, from int, tips []*consensus.Event) {
	if m.observing != o {
		return
	}
	if !slices.Contains(o.heard, from) {
		o.heard = append(o.heard, from)
	}
	for _, e := range tips {
		h := m.net.hashOf(e)
		if !slices.Contains(o.named, h) {
			o.named = append(o.named, h)
			o.changed = m.net.Now
		}
		m.add(e)
	}
}

// sure reports whether the member may speak again.
func (m *Member) sure() bool {
	w, o := m.net, m.observing
	held := m.state.weight(m.ID)
	for _, i := range o.heard {
		held += m.state.weight(w.Members[i].ID)
	}
	if 3*held <= 2*m.state.total() || w.Now-o.changed < 4*w.diameter() {
		return false
	}
	for _, h := range o.named {
		if e := w.events[h]; m.store[h] == nil && (e == nil || e.BirthRound >= m.Core.Status().Oldest) {
			return false
		}
	}
	return true
}

// resume lets the member speak. What it lost for good is said again: the books must
// not take a second copy for an error.
func (m *Member) resume() {
	w := m.net
	for _, e := range m.observing.lost {
		if h := w.hashOf(e); m.store[h] != nil {
			w.Counts[LostOwnTail]++
		} else {
			w.Counts[LostForGood]++
			w.excused[m.ID] = true
			for _, tx := range e.Payload {
				w.again[string(tx)] = true
				m.pool = append(m.pool, tx)
			}
		}
	}
	w.tracef("member %d is sure of its own last event again", m.index)
	m.observing = nil
	m.Core.Observe(false)
	m.wake()
}
