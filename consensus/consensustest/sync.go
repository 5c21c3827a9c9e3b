package consensustest

import (
	"slices"

	"github.com/dcnode/dcnode/consensus"
)

// holder is the index of a member with this ID.
func (w *Network) holder(id uint64) int {
	if id == 0 || id > uint64(len(w.Members)) {
		return 0
	}
	return int(id - 1)
}

// fetch asks another member for an event by hash, unless it is in the own log.
func (m *Member) fetch(want consensus.Want, from int) {
	w := m.net
	if e := m.store[want.Hash]; e != nil {
		m.add(e)
		return
	}
	w.send(m.index, from, func(other *Member) {
		if e := other.store[want.Hash]; e != nil {
			w.send(from, m.index, func(*Member) { m.add(e) })
		}
	})
}

// exchange is the safety net below the broadcast: tell a random other what is here,
// get what is not; ask again for parents that are missing.
func (m *Member) exchange() {
	w := m.net
	w.after(w.opt.Sync, m.exchange)
	if m.down || m.writing || len(w.Members) == 1 {
		return
	}
	to := w.rng.IntN(len(w.Members) - 1)
	if to >= m.index {
		to++
	}
	heads, oldest, pending := m.Core.Heads(), m.Core.Status().Oldest, m.Core.Pending()
	w.send(m.index, to, func(other *Member) { other.answer(m.index, heads, oldest, pending) })
	for _, want := range m.Core.Missing() {
		m.fetch(want, to)
	}
}

// answer sends another member what it lacks: from the graph if the two are close,
// from the log if not, and if that begins too late, a checkpoint to go on from.
func (m *Member) answer(to int, heads []consensus.Hash, oldest, pending uint64) {
	w := m.net
	mine := m.Core.Status().Oldest
	if mine > oldest && m.from != nil && m.from.cp.MinBirth > oldest {
		offer := m.last
		w.send(m.index, to, func(o *Member) { o.offered(m.index, offer, mine) })
		if mine > pending {
			return
		}
	}
	if within(m.Core.Heads(), heads) {
		return
	}
	events := m.Core.Lacking(heads)
	if mine > pending-min(pending, 3) {
		events = nil
		for _, e := range m.log {
			if e.BirthRound >= oldest {
				events = append(events, e)
			}
		}
	}
	if len(events) > 0 {
		w.send(m.index, to, func(o *Member) { o.add(events...) })
	}
}

// offered notes a checkpoint that another member vouches for. When members of more
// than a third of the weight vouch for one, at least one of them is honest: this
// member drops its graph and goes on from there, unless it can do without.
func (m *Member) offered(from int, offer *saved, oldest uint64) {
	w := m.net
	pending := m.Core.Pending()
	if offer == nil || m.liar != nil || offer.cp.Round <= pending {
		return
	}
	if oldest <= pending && !m.Core.Status().Joining && len(m.Core.Missing()) == 0 {
		return
	}
	if m.offers == nil {
		m.offers = map[int]*saved{}
	}
	m.offers[from] = offer
	var held uint64
	for i := range w.Members {
		if o := m.offers[i]; o != nil && o.bytes == offer.bytes {
			held += m.state.weight(w.Members[i].ID)
		}
	}
	if 3*held <= m.state.total() {
		return
	}
	m.offers = nil
	w.tracef("member %d goes on from the checkpoint of round %d", m.index, offer.cp.Round)
	m.rejoin(offer)
}

// rejoin starts the member again from a checkpoint of others. Its own last event is
// kept: it is the self-parent of the next.
func (m *Member) rejoin(s *saved) {
	w := m.net
	m.recall()
	own := m.lastOf(m.ID)
	w.loseBefore(m, s)
	m.keepFrom(s)
	if own != nil && m.store[w.hashOf(own)] == nil {
		m.log = append([]*consensus.Event{own}, m.log...)
		m.store[w.hashOf(own)] = own
	}
	m.synced = len(m.log)
	m.rejoined = true
	m.noted = max(m.noted, int(s.cp.Ordered))
	if err := m.start(); err != nil {
		w.fail("member %d does not start from a checkpoint: %v", m.index, err)
		return
	}
	if m.observing != nil {
		m.ask()
	}
}

// keepFrom makes a checkpoint the beginning of the log.
func (m *Member) keepFrom(s *saved) {
	w := m.net
	var kept []*consensus.Event
	for _, e := range m.log {
		if e.BirthRound >= s.cp.MinBirth {
			kept = append(kept, e)
		} else {
			delete(m.store, w.hashOf(e))
		}
	}
	m.from, m.log = s, kept
	m.synced = len(m.log)
}

// checkpoint takes one of the Core's with the state of this moment.
func (m *Member) checkpoint(cp consensus.Checkpoint) {
	w := m.net
	b := string(cp.Marshal())
	s := &saved{cp: cp, bytes: b, state: m.state}
	if m.liar == nil {
		w.checkpointed(m, s)
	}
	if m.last == nil || m.last.cp.Round < cp.Round {
		m.last = s
		if w.opt.Compact {
			// Not before the work at hand is done: a crash now must find the log whole.
			boot := m.boot
			w.after(1, func() {
				if boot == m.boot && !m.down {
					m.keepFrom(s)
				}
			})
		}
	}
}

// within reports whether all of a are in b.
func within(a, b []consensus.Hash) bool {
	for _, h := range a {
		if !slices.Contains(b, h) {
			return false
		}
	}
	return true
}
