package ledger

import (
	"fmt"
	"iter"
	"slices"
)

// defaultPause is the longest pause of a move, in milliseconds, if nobody says
// anything else.
const defaultPause = 300

// apply begins a move. What the law forbids wherever the machine would go cannot even
// be asked for.
func (t *Intent) apply(s *State, a *act) ([]Effect, error) {
	m, err := s.owned(t.Machine, a)
	if err != nil {
		return nil, err
	}
	switch {
	case m.Move != nil:
		return nil, refuse("machine %s is moving already (%s)", m.Name, m.Move.Phase)
	case m.Epoch != t.Epoch:
		return nil, refuse("machine %s is in epoch %d, the intent speaks of %d: it has moved meanwhile", m.Name, m.Epoch, t.Epoch)
	case m.Stopped:
		return nil, refuse("machine %s is stopped: start it first", m.Name)
	case m.Last != nil && m.Last.ID == a.Index: // a move's number is that of the event
		return nil, refuse("machine %s had another move by the same event: make this one again", m.Name)
	case t.Only == a.Author:
		return nil, refuse("machine %s is at %s already", m.Name, s.Site(a.Author))
	case t.Only != 0 && s.member(t.Only) == nil:
		return nil, refuse("member %d is not in the roster", t.Only)
	case len(s.members) < 2:
		return nil, refuse("there is no other member to move to")
	}
	if err := checkNeeds(&t.Needs); err != nil {
		return nil, refuse("%s", err)
	}
	limits, err := s.limits(m, t.Limits)
	if err != nil {
		return nil, err
	}
	only, err := s.approved(m, t.Only)
	if err != nil {
		return nil, err
	}
	if closed := s.closed(m, s.now); closed != "" {
		return nil, refuse("machine %s: %s", m.Name, closed)
	}
	if nobody := s.nobodyFor(m, only); nobody != "" {
		return nil, refuse("machine %s may not move: %s", m.Name, nobody)
	}
	c, _ := edit(m)
	by := s.approving(m, only)
	c.Approvals = nil
	c.Move = &Move{
		ID: a.Index, Machine: m.Name, Epoch: m.Epoch, From: a.Author, Only: only, Phase: Bidding, Needs: t.Needs,
		Limits: limits, Approved: by, IntentAt: s.now, Round: a.Round,
	}
	s.put(c)
	return []Effect{effectOf(KindIntent, c.Name, c.Move)}, nil
}

// limits are what a move of m may cost, of what its mover asks for and what the
// policies allow.
func (s *State) limits(m *Machine, ask Limits) (Limits, error) {
	if ask.MaxDowntime < 0 || ask.MaxDowntime > maxPause || !size(ask.Bandwidth) {
		return ask, refuse("the longest pause is from 1 to %d ms, the bandwidth from 1 to %d bytes a second; 0: as the policy says", maxPause, int64(maxSize))
	}
	out := ask
	if why := s.overLimits(m, ask); len(why) > 0 {
		return ask, refuse("machine %s: %s", m.Name, join(why))
	}
	if out.MaxDowntime == 0 {
		out.MaxDowntime = defaultPause
	}
	for _, l := range s.layers(m) {
		if l.MaxDowntime > 0 {
			out.MaxDowntime = min(out.MaxDowntime, l.MaxDowntime)
		}
		if l.MaxBandwidth > 0 && (out.Bandwidth == 0 || out.Bandwidth > l.MaxBandwidth) {
			out.Bandwidth = l.MaxBandwidth
		}
	}
	return out, nil
}

// overLimits is what the policies of m have against these limits. Zero ones are no
// wish.
func (s *State) overLimits(m *Machine, l Limits) []string {
	var why []string
	for _, p := range s.layers(m) {
		if p.MaxDowntime > 0 && l.MaxDowntime > p.MaxDowntime {
			why = append(why, fmt.Sprintf("the policy of %s allows a pause of %d ms, not %d", p.whose(), p.MaxDowntime, l.MaxDowntime))
		}
		if p.MaxBandwidth > 0 && l.Bandwidth > p.MaxBandwidth {
			why = append(why, fmt.Sprintf("the policy of %s allows %d bytes a second and no more", p.whose(), p.MaxBandwidth))
		}
		if l.PostCopy && !p.PostCopy {
			why = append(why, fmt.Sprintf("the policy of %s does not allow post-copy", p.whose()))
		}
	}
	return why
}

// apply takes what a member offers. The bidding ends when all who are waited for have
// said something.
func (t *Bid) apply(s *State, a *act) ([]Effect, error) {
	m, err := s.moving(t.Machine, t.Move)
	if err != nil {
		return nil, err
	}
	mv := m.Move
	switch {
	case mv.Phase != Bidding:
		return nil, refuse("the bidding for machine %s is over", m.Name)
	case a.Author == mv.From:
		return nil, refuse("the owner of machine %s cannot bid for it", m.Name)
	case mv.Only != 0 && a.Author != mv.Only:
		return nil, refuse("only %s was asked to bid for machine %s", s.Site(mv.Only), m.Name)
	case mv.bidOf(a.Author) != nil:
		return nil, refuse("%s has bid already", s.Site(a.Author))
	}
	if err := checkBid(t); err != nil {
		return nil, refuse("%s", err)
	}
	if t.Able && (t.Expires <= s.now || t.Expires > later(s.now, s.rules.BidExpiry)) {
		return nil, refuse("the bid holds until a time that is past, or more than %d s ahead", s.rules.BidExpiry/Second)
	}
	c, mv := edit(m)
	b := t.kept(&mv.Needs, s.text())
	b.Member, b.Index = a.Author, a.Index
	mv.Bids = slices.Concat(mv.Bids, []*Bid{b})
	s.putFor(m, c)
	s.record(a.Author, func(r *Record) { r.Bids, r.Silent, r.Trust = r.Bids+1, 0, forgive(r.Trust) })
	if s.awaits(c) {
		return nil, nil
	}
	return []Effect{s.selectFor(c, a.Place)}, nil
}

// awaited are the members whose bids the bidding for m still waits for: not those who
// have let several pass, those whom the policy forbids anyway, nor those who have
// joined since.
func (s *State) awaited(m *Machine) iter.Seq[MemberID] {
	return func(yield func(MemberID) bool) {
		for _, b := range s.members {
			if s.waitsFor(m, b) && !yield(b.ID) {
				return
			}
		}
	}
}

// awaits says whether the bidding for m still waits for anybody. It asks for the member
// after the last that has bid first: mostly they bid in turn.
func (s *State) awaits(m *Machine) bool {
	from := 0
	if n := len(m.Move.Bids); n > 0 {
		from = s.rank(m.Move.Bids[n-1].Member) + 1
	}
	for i := range s.members {
		if s.waitsFor(m, s.members[(from+i)%len(s.members)]) {
			return true
		}
	}
	return false
}

// waitsFor says whether the bidding for m waits for b.
func (s *State) waitsFor(m *Machine, b *Member) bool {
	mv := m.Move
	return b.ID != mv.From && (mv.Only == 0 || b.ID == mv.Only) && b.Since <= mv.ID && b.Record.Silent < MaxSilent &&
		mv.bidOf(b.ID) == nil && len(s.forbids(m, b)) == 0
}

// bidOf is a member's bid, or nil.
func (mv *Move) bidOf(id MemberID) *Bid {
	for _, b := range mv.Bids {
		if b.Member == id {
			return b
		}
	}
	return nil
}

// apply notes that the selected member keeps its word.
func (t *Accept) apply(s *State, a *act) ([]Effect, error) {
	m, err := s.moving(t.Machine, t.Move)
	if err != nil {
		return nil, err
	}
	switch mv := m.Move; {
	case mv.Phase != Copying || mv.To != a.Author:
		return nil, refuse("machine %s was not promised to %s, or not any more", m.Name, s.Site(a.Author))
	case mv.Accepted:
		return nil, refuse("%s has accepted machine %s already", s.Site(a.Author), m.Name)
	}
	c, mv := edit(m)
	mv.Accepted = true
	mv.enter(Copying, a.Place)
	s.put(c)
	return []Effect{effectOf(KindAccept, c.Name, mv)}, nil
}

// apply begins the deadline of the copying anew. One that was said too late does not:
// whoever says one in each round would never meet a deadline.
func (t *Beat) apply(s *State, a *act) ([]Effect, error) {
	m, err := s.moving(t.Machine, t.Move)
	if err != nil {
		return nil, err
	}
	switch mv := m.Move; {
	case a.Author != mv.From:
		return nil, refuse("machine %s is moved by %s", m.Name, s.Site(mv.From))
	case mv.Phase != Copying || !mv.Accepted:
		return nil, refuse("machine %s is not being copied: %s", m.Name, mv.Phase)
	case t.Bytes <= mv.Moved || !size(t.Bytes):
		return nil, refuse("machine %s: a sign of life tells of more bytes than the %d of the one before, not of %d", m.Name, mv.Moved, t.Bytes)
	case mv.Until != 0 && s.now >= mv.Until:
		return nil, refuse("machine %s: %s", m.Name, s.overlong(mv))
	}
	if closed := s.closed(m, s.now); closed != "" {
		return nil, refuse("machine %s: %s", m.Name, closed)
	}
	c, mv := edit(m)
	if mv.Until == 0 {
		mv.Until = later(s.now, s.whole(mv))
	}
	mv.Moved = t.Bytes
	mv.enter(Copying, a.Place)
	s.put(c)
	return nil, nil
}

// What copying may take in all: so many times the longest time that was predicted for
// it, and no longer than maxWhole, for the prediction is made from what the source says.
// A link may turn out a tenth of what was measured, and terabytes take weeks at
// 10 Mbit/s; a move that takes longer than this leads nowhere, and holds room at its
// destination that others wait for.
const (
	patience = 8
	maxWhole = 366 * Day
)

// whole is how long the copying of a move may last from the first sign of life on.
func (s *State) whole(mv *Move) Time {
	high := Time(min(max(mv.Forecast.High, 0), maxMillis)) * Millisecond
	return min(later(s.rules.Whole, min(high, maxWhole)*patience), maxWhole)
}

func (s *State) overlong(mv *Move) string {
	return fmt.Sprintf("copying took more than %s, and %s at most were predicted", seconds(int64(s.whole(mv)/Millisecond)), seconds(mv.Forecast.High))
}

// moving is the machine of that name if that move of it is under way.
func (s *State) moving(name string, id uint64) (*Machine, error) {
	m := s.Machine(name)
	if m == nil || m.Move == nil || m.Move.ID != id {
		return nil, refuse("there is no move %d of machine %s", id, name)
	}
	return m, nil
}

// underWay are the names of all machines that move, sorted.
func (s *State) underWay() []string {
	var out []string
	s.index.waiting.Scan(func(t timer) bool { out = append(out, t.name); return true })
	s.index.timers.Scan(func(t timer) bool { out = append(out, t.name); return true })
	slices.Sort(out)
	return out
}

// enter begins a phase: its deadline counts from the next round; see Advance.
func (mv *Move) enter(p Phase, at Place) {
	mv.Phase, mv.Round, mv.Deadline = p, at.Round, 0
}

// limit is how long the phase of a move may last from now on: at least 1. Copying
// ends with the window that it is in.
func (s *State) limit(m *Machine) Time {
	mv := m.Move
	var d Time
	switch mv.Phase {
	case Bidding:
		d = s.rules.BidWindow
	case Copying:
		d = s.rules.Accept
		if mv.Accepted {
			d = s.rules.Copy
		}
		if end, in := s.windowEnd(m, s.now); !in {
			d = 1
		} else if end != 0 {
			d = min(d, end-s.now)
		}
		if mv.Until != 0 {
			d = min(d, mv.Until-s.now)
		}
	case Released:
		d = s.rules.Lease
	}
	return max(d, 1)
}

// expire does what follows when the phase of m's move has reached its deadline.
func (s *State) expire(m *Machine, p Place) []Effect {
	mv := m.Move
	switch mv.Phase {
	case Bidding:
		for _, id := range slices.Collect(s.awaited(m)) { // their records change
			s.record(id, func(r *Record) { r.Silent++ })
		}
		return []Effect{s.selectFor(m, p)}
	case Released:
		c, mv := edit(m)
		mv.LeaseOver = true
		s.put(c)
		return []Effect{effectOf(KindLeaseEnd, c.Name, mv)}
	}
	if closed := s.closed(m, s.now); closed != "" {
		return []Effect{s.end(m, Aborted, KindAbort, p, "it did not get ready within the window: "+closed)}
	}
	if mv.Until != 0 && s.now >= mv.Until {
		return []Effect{s.end(m, Aborted, KindAbort, p, s.overlong(mv))}
	}
	if mv.Accepted {
		return []Effect{s.end(m, Aborted, KindAbort, p, fmt.Sprintf("no sign of life of %s for %s", s.Site(mv.From), seconds(int64(s.rules.Copy/Millisecond))))}
	}
	return []Effect{s.passOn(m, p, fmt.Sprintf("did not accept within %s", seconds(int64(s.rules.Accept/Millisecond))))}
}

// passOn counts the word of the selected member as broken and selects the next best
// of the bids that still hold.
func (s *State) passOn(m *Machine, p Place, why string) Effect {
	c, mv := edit(m)
	broken := mv.To
	s.record(broken, func(r *Record) { r.Broken++ })
	mv.Bids = slices.Clone(mv.Bids)
	for i, b := range mv.Bids {
		if b.Member == broken {
			c := *b
			c.Able, c.Reason = false, clip(why, s.text())
			mv.Bids[i] = &c
		}
	}
	mv.To, mv.Reserved, mv.Forecast = 0, Room{}, Forecast{}
	mv.enter(Bidding, p)
	return s.selectFor(c, p)
}

// record changes a member's record, if it is still a member.
func (s *State) record(id MemberID, change func(*Record)) {
	if m := s.member(id); m != nil {
		c := *m
		change(&c.Record)
		s.putMember(&c)
	}
}

// end closes the move of m and keeps what is worth keeping of it as the last one. The
// room that was reserved is free again.
func (s *State) end(m *Machine, how Phase, k Kind, p Place, reason string) Effect {
	c, mv := edit(m)
	mv.Phase, mv.Reason, mv.EndedAt, mv.Deadline = how, clip(reason, maxReason), s.now, 0
	e := effectOf(k, c.Name, mv)
	c.Last, c.Move = mv.trimmed(), nil
	s.put(c)
	return e
}

// Bounds of what is kept of a move that is over: the journal has the rest.
const (
	lastBids    = 4
	lastAgainst = 8
	lastReason  = 200 // bytes
)

// trimmed is a move without what only its selection needed.
func (mv *Move) trimmed() *Move {
	c := *mv
	c.Needs.CPUFeatures, c.Needs.Paths, c.Approved = nil, nil, nil
	c.Bids, c.Against = nil, nil
	for _, b := range mv.Bids {
		if b.Member == mv.To || len(c.Bids) < lastBids-1 || len(c.Bids) < lastBids && c.bidOf(mv.To) != nil {
			kept := *b
			kept.Machines, kept.CPUModel = nil, ""
			kept.Reason = clip(b.Reason, lastReason)
			c.Bids = append(c.Bids, &kept)
		}
	}
	for _, x := range mv.Against[:min(len(mv.Against), lastAgainst)] {
		c.Against = append(c.Against, Against{x.Member, []string{clip(join(x.Reasons), lastReason)}})
	}
	return &c
}

func effectOf(k Kind, machine string, mv *Move) Effect {
	return Effect{Kind: k, Machine: machine, Move: *mv}
}

// seconds tells milliseconds as people say them.
func seconds(ms int64) string {
	switch {
	case ms < 1000:
		return fmt.Sprintf("%d ms", ms)
	case ms < 100_000:
		return fmt.Sprintf("%d.%d s", ms/1000, ms%1000/100)
	}
	return hours(int(min(ms/60_000, 1<<30)))
}
