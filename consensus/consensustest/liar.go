package consensustest

import (
	"slices"

	"github.com/dcnode/dcnode/consensus"
)

// Liar is a member that does not keep to the rules.
type Liar struct {
	Member int   // index
	Does   Kind  // one of the Liar kinds
	Late   int64 // ns, of one that is just in time; 0: one to three delays, each time another
}

// maxLies ends the lies that cost others memory.
const maxLies = 60

// liar is what a liar keeps to itself.
type liar struct {
	Liar
	lies     int
	audience map[consensus.Hash][]int // who is to get an event at first, if not all
	branch   *consensus.Event         // last event of the second branch
	held     []*consensus.Event
}

// twin is an event like e that is not e.
func (m *Member) twin(e *consensus.Event) *consensus.Event {
	f := *e
	f.Parents = slices.Clone(e.Parents)
	f.Coin, f.Time = m.net.rng.Uint32(), e.Time+1+consensus.Timestamp(m.net.rng.Int64N(1000))
	f.Payload = nil
	if !m.net.calm {
		f.Payload = [][]byte{[]byte("lie")}
	}
	return &f
}

// give sends a false event to some members.
func (m *Member) give(f *consensus.Event, kind Kind, to []int) {
	w := m.net
	w.forged[w.hashOf(f)] = kind
	w.tracef("member %d lies (%v) to %v: %s", m.index, kind, to, w.describe(f))
	for _, k := range to {
		w.send(m.index, k, func(o *Member) { o.add(f) })
	}
}

// halves splits the others in two.
func (m *Member) halves() (a, b []int) {
	for i := range m.net.Members {
		if m.net.rng.IntN(2) == 0 {
			a = append(a, i)
		} else {
			b = append(b, i)
		}
	}
	return a, b
}

func (m *Member) all() []int {
	all := make([]int, len(m.net.Members))
	for i := range all {
		all[i] = i
	}
	return all
}

// lie turns an event that a Core made into what the liar makes of it; what it
// returns is added and sent as own. Beside that it may send others.
func (m *Member) lie(e *consensus.Event) *consensus.Event {
	w, l := m.net, m.liar
	if l.lies >= maxLies || w.calm {
		return e
	}
	switch l.Does {
	case LiarEquivocates:
		m.equivocate(e)
	case LiarGoesBack:
		m.goBack(e)
	case LiarBornLater:
		f := m.twin(e)
		f.BirthRound += 1 + w.rng.Uint64N(4)
		if w.rng.IntN(4) == 0 {
			f.BirthRound += 1000
		}
		m.forge(f, m.all())
	case LiarBornEarlier:
		m.bornEarlier(e)
	case LiarMisnames:
		m.misname(e)
	case LiarOffTime:
		l.lies++
		w.Counts[LiarOffTime]++
		if e.Time = e.Time - clockBase + 1; w.rng.IntN(2) == 0 || len(e.Parents) > 0 && e.Parents[0].Creator == m.ID {
			e.Time += clockBase + consensus.Timestamp(1+w.rng.Int64N(100))*1_000_000_000*86400*365/100
		}
	case LiarGrindsCoin:
		m.grind(e)
	case LiarFloods:
		if w.rng.IntN(6) == 0 {
			l.lies += 10
			for range 20 + w.rng.IntN(20) {
				m.forge(m.twin(e), m.all())
			}
		}
	case LiarReplays:
		f := m.twin(e)
		f.Network[0] ^= 0xff
		m.forge(f, m.all())
	}
	return e
}

func (m *Member) forge(f *consensus.Event, to []int) {
	m.liar.lies++
	m.give(f, m.liar.Does, to)
}

// equivocate tells one half e and the other half something else, and goes on on
// both branches.
func (m *Member) equivocate(e *consensus.Event) {
	w, l := m.net, m.liar
	if w.rng.IntN(3) == 0 {
		return
	}
	f := m.twin(e)
	if b := l.branch; b != nil && w.rng.IntN(2) == 0 && len(f.Parents) > 0 && f.Parents[0].Creator == m.ID && b.BirthRound <= f.BirthRound {
		f.Parents[0] = consensus.Parent{Hash: w.hashOf(b), Creator: m.ID, BirthRound: b.BirthRound}
		f.Seq, f.Time = b.Seq+1, max(f.Time, b.Time+1)
	}
	l.branch = f
	here, there := m.halves()
	l.audience[w.hashOf(e)] = here
	m.store[w.hashOf(f)] = f
	m.forge(f, there)
	w.Counts[LiarEquivocates]++
}

// goBack makes a second child of an own old event.
func (m *Member) goBack(e *consensus.Event) {
	w := m.net
	var own []*consensus.Event
	for i := len(m.log) - 1; i >= 0 && len(own) < 8; i-- {
		if m.log[i].Creator == m.ID {
			own = append(own, m.log[i])
		}
	}
	if len(own) < 2 {
		return
	}
	old := own[1+w.rng.IntN(len(own)-1)]
	f := m.twin(e)
	if len(f.Parents) == 0 || f.Parents[0].Creator != m.ID {
		return
	}
	f.Parents[0] = consensus.Parent{Hash: w.hashOf(old), Creator: m.ID, BirthRound: old.BirthRound}
	f.Seq = old.Seq + 1
	m.store[w.hashOf(f)] = f
	m.forge(f, m.all())
	w.Counts[LiarGoesBack]++
}

func (m *Member) bornEarlier(e *consensus.Event) {
	f := m.twin(e)
	var top uint64
	for i := range f.Parents {
		top = max(top, f.Parents[i].BirthRound)
	}
	if top < 2 {
		return
	}
	f.BirthRound = top - 1
	m.forge(f, m.all())
}

func (m *Member) misname(e *consensus.Event) {
	if len(e.Parents) == 0 {
		return
	}
	w := m.net
	f := m.twin(e)
	p := &f.Parents[w.rng.IntN(len(f.Parents))]
	switch {
	case w.rng.IntN(2) == 0 && p.BirthRound < f.BirthRound:
		p.BirthRound++
	case p.BirthRound > 1 && w.rng.IntN(2) == 0:
		p.BirthRound--
	default:
		p.Creator = 1 + p.Creator%uint64(len(w.founded))
	}
	m.forge(f, m.all())
}

// grind tries coins until the hash is low, always for the same member's coin.
func (m *Member) grind(e *consensus.Event) {
	w := m.net
	n := uint32(len(w.founded))
	best := consensus.Hash{0: 0xff}
	var coin uint32
	for range 16 {
		e.Coin = w.rng.Uint32()/n*n + uint32(m.index)%n
		if h := e.Hash(); string(h[:]) < string(best[:]) {
			best, coin = h, e.Coin
		}
	}
	e.Coin = coin
	m.liar.lies++
	w.Counts[LiarGrindsCoin]++
}

// tell sends an own event of a liar.
func (m *Member) tell(e *consensus.Event) {
	w, l := m.net, m.liar
	to := m.all()
	if some, ok := l.audience[w.hashOf(e)]; ok {
		to = some
	}
	switch {
	case w.calm:
	case l.Does == LiarWithholds:
		if l.held = append(l.held, e); len(l.held) < 3+w.rng.IntN(4) {
			return
		}
		w.Counts[LiarWithholds]++
		m.release()
		return
	case l.Does == LiarJustInTime:
		w.Counts[LiarJustInTime]++
		late := l.Late
		if late == 0 {
			late = w.diameter() * (4 + w.rng.Int64N(8)) / 4
		}
		w.after(late, func() {
			for _, k := range to {
				w.send(m.index, k, func(o *Member) { o.add(e) })
			}
		})
		return
	}
	for _, k := range to {
		w.send(m.index, k, func(o *Member) { o.add(e) })
	}
}

func (m *Member) release() {
	held := m.liar.held
	m.liar.held = nil
	for to := range m.net.Members {
		m.net.send(m.index, to, func(o *Member) { o.add(held...) })
	}
}
