package ledger

import (
	"cmp"
	"iter"
	"slices"

	"github.com/tidwall/btree"

	"github.com/dcnode/dcnode/consensus/ledger/merkle"
)

// indexes find entries of the state by other things than their names. They follow
// from its content and are made again from it by Load.
type indexes struct {
	waiting  *btree.BTreeG[timer] // machines whose deadline waits for a later round, by round
	timers   *btree.BTreeG[timer] // machines with a deadline, by time
	owned    *btree.BTreeG[entry] // machines by owner
	coming   *btree.BTreeG[entry] // machines on their way to a member, by it
	apart    *btree.BTreeG[entry] // machines whose policy keeps them apart from another, by apartKey of that
	made     *btree.BTreeG[entry] // machines by the version of an image that they were made from, see madeFrom
	promised []promise            // room that is reserved at members
	sponsors []sponsor            // how many accounts members sponsor
	numbers  merkle.Map[MemberID] // the highest number of a member with a key, by key
}

// timer is something that happens to a machine at a time or after a round.
type timer struct {
	at   uint64 // Time, or round
	name string
}

// entry is a machine in a group: of a member, or around a machine.
type entry struct {
	member MemberID
	key    string
	name   string
}

// promise is room that is reserved at a member.
type promise struct {
	member MemberID
	room   Room
}

// sponsor is how many accounts have a member as their sponsor.
type sponsor struct {
	member   MemberID
	accounts int
}

func newIndexes() indexes {
	byTimer := func(a, b timer) bool { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.name, b.name)) < 0 }
	byEntry := func(a, b entry) bool {
		return cmp.Or(cmp.Compare(a.member, b.member), cmp.Compare(a.key, b.key), cmp.Compare(a.name, b.name)) < 0
	}
	alone := btree.Options{NoLocks: true}
	return indexes{
		waiting: btree.NewBTreeGOptions(byTimer, alone), timers: btree.NewBTreeGOptions(byTimer, alone),
		owned: btree.NewBTreeGOptions(byEntry, alone), coming: btree.NewBTreeGOptions(byEntry, alone),
		apart: btree.NewBTreeGOptions(byEntry, alone), made: btree.NewBTreeGOptions(byEntry, alone),
	}
}

func (x *indexes) clone() indexes {
	return indexes{
		waiting: x.waiting.Copy(), timers: x.timers.Copy(), owned: x.owned.Copy(), coming: x.coming.Copy(),
		apart: x.apart.Copy(), made: x.made.Copy(),
		promised: slices.Clone(x.promised), sponsors: slices.Clone(x.sponsors), numbers: x.numbers,
	}
}

// put makes m the machine of its name. m is the state's from now on.
func (s *State) put(m *Machine) { s.putFor(s.Machine(m.Name), m) }

// putFor is put where the machine of that name, as the state has it now, is at hand.
func (s *State) putFor(old, m *Machine) {
	s.index.replace(old, m)
	s.machines = s.machines.Set(m.Name, m)
}

// remove takes a machine out of the state.
func (s *State) remove(m *Machine) {
	s.index.replace(m, nil)
	s.machines = s.machines.Delete(m.Name)
}

// edit is a copy of a machine and of the move that is under way, for put.
func edit(m *Machine) (*Machine, *Move) {
	c := *m
	if m.Move == nil {
		return &c, nil
	}
	mv := *m.Move
	c.Move = &mv
	return &c, &mv
}

// replace lets a machine be found as m is and no longer as old was; either may be nil.
// What both are found by stays as it is: most transactions change none of it.
func (x *indexes) replace(old, m *Machine) {
	swap(x.owned, ownedBy(old), ownedBy(m))
	if old == nil || m == nil || old.Image != m.Image || old.Commit != m.Commit {
		swap(x.made, madeEntry(old), madeEntry(m))
	}
	if old == nil || m == nil || old.Account != m.Account || !slices.Equal(old.Policy.Apart, m.Policy.Apart) {
		x.keepApart(old, (*btree.BTreeG[entry]).Delete)
		x.keepApart(m, (*btree.BTreeG[entry]).Set)
	}
	waited, timed := due(old)
	waits, timing := due(m)
	swap(x.waiting, waited, waits)
	swap(x.timers, timed, timing)
	was, reserved := coming(old)
	is, reserves := coming(m)
	swap(x.coming, was, is)
	if was.member != is.member || reserved != reserves {
		x.reserve(was.member, reserved, -1)
		x.reserve(is.member, reserves, 1)
	}
}

// swap takes one element out and puts another in; zero ones are none.
func swap[T comparable](t *btree.BTreeG[T], out, in T) {
	var none T
	if out == in {
		return
	}
	if out != none {
		t.Delete(out)
	}
	if in != none {
		t.Set(in)
	}
}

func ownedBy(m *Machine) entry {
	if m == nil {
		return entry{}
	}
	return entry{member: m.Owner, name: m.Name}
}

func madeEntry(m *Machine) entry {
	if m == nil {
		return entry{}
	}
	return entry{key: madeFrom(m), name: m.Name}
}

func (x *indexes) keepApart(m *Machine, do func(*btree.BTreeG[entry], entry) (entry, bool)) {
	if m == nil {
		return
	}
	for _, other := range m.Policy.Apart {
		do(x.apart, entry{key: apartKey(m.Account, other), name: m.Name})
	}
}

// due is where a machine with a move stands among those that wait for a later round, or
// for a time.
func due(m *Machine) (waiting, at timer) {
	switch {
	case m == nil || m.Move == nil || m.Move.LeaseOver:
		return timer{}, timer{}
	case m.Move.Deadline == 0:
		return timer{m.Move.Round, m.Name}, timer{}
	}
	return timer{}, timer{uint64(m.Move.Deadline), m.Name}
}

// coming is where a machine is on its way to, and what is reserved there.
func coming(m *Machine) (entry, Room) {
	if m == nil || m.Move == nil || m.Move.To == 0 {
		return entry{}, Room{}
	}
	return entry{member: m.Move.To, name: m.Name}, m.Move.Reserved
}

func (x *indexes) reserve(id MemberID, r Room, sign int64) {
	if id == 0 {
		return
	}
	i := 0
	for i < len(x.promised) && x.promised[i].member != id {
		i++
	}
	if i == len(x.promised) {
		x.promised = append(x.promised, promise{member: id})
	}
	p := &x.promised[i].room
	p.Memory += sign * r.Memory
	p.Disk += sign * r.Disk
	p.VCPUs += sign * r.VCPUs
	p.Moves += sign * r.Moves
	if *p == (Room{}) {
		x.promised = append(x.promised[:i], x.promised[i+1:]...)
	}
}

// madeFrom names a version of an image: its tag may be another's by now.
func madeFrom(m *Machine) string {
	name, _ := SplitRef(m.Image)
	return name + "@" + m.Commit
}

// sponsor counts an account with its sponsor.
func (x *indexes) sponsor(a *Account, sign int) {
	i := slices.IndexFunc(x.sponsors, func(o sponsor) bool { return o.member == a.Sponsor })
	if i < 0 {
		i = len(x.sponsors)
		x.sponsors = append(x.sponsors, sponsor{member: a.Sponsor})
	}
	if x.sponsors[i].accounts += sign; x.sponsors[i].accounts == 0 {
		x.sponsors = slices.Delete(x.sponsors, i, i+1)
	}
}

// number takes down whose a key is by a change of the roster.
func (x *indexes) number(c *RosterChange) {
	if key := string(c.Key); key != "" {
		was, _ := x.numbers.Get(key)
		x.numbers = x.numbers.Set(key, max(was, c.Member))
	}
}

// sponsored is how many accounts a member sponsors.
func (x *indexes) sponsored(id MemberID) int {
	for _, o := range x.sponsors {
		if o.member == id {
			return o.accounts
		}
	}
	return 0
}

// Reserved is the room that moves under way will take at a member.
func (s *State) Reserved(id MemberID) Room {
	for _, p := range s.index.promised {
		if p.member == id {
			return p.room
		}
	}
	return Room{}
}

// At are the machines that a member owns, by name. Read only.
func (s *State) At(id MemberID) iter.Seq[*Machine] { return s.group(s.index.owned, entry{member: id}) }

// Coming are the machines with a move that has selected a member, by name; those
// that are released are its own already. Read only.
func (s *State) Coming(id MemberID) iter.Seq[*Machine] {
	return s.group(s.index.coming, entry{member: id})
}

// apartFrom are the machines of its account whose policy keeps them apart from a machine.
func (s *State) apartFrom(m *Machine) iter.Seq[*Machine] {
	return s.group(s.index.apart, entry{key: apartKey(m.Account, m.Name)})
}

// apartKey names a machine for those of its account: a name has no slash.
func apartKey(account, machine string) string { return account + "/" + machine }

func (s *State) group(t *btree.BTreeG[entry], of entry) iter.Seq[*Machine] {
	return func(yield func(*Machine) bool) {
		t.Ascend(of, func(e entry) bool {
			return e.member == of.member && e.key == of.key && yield(s.Machine(e.name))
		})
	}
}

// Due is the earliest time at which the passing of consensus time alone changes
// something; 0 if there is none. Somebody must then let an event be ordered. It is
// in the past while a deadline waits for a round to count from.
func (s *State) Due() Time {
	if s.index.waiting.Len() > 0 {
		return 1
	}
	var due Time
	if t, ok := s.index.timers.Min(); ok {
		due = Time(t.at)
	}
	for _, p := range s.votes {
		if at := max(p.Expires, 1); due == 0 || at < due {
			due = at
		}
	}
	return due
}

// fallDue gives deadlines to phases that have begun in an earlier round, and ends
// what has reached its own.
func (s *State) fallDue(p Place) []Effect {
	var out []Effect
	for {
		t, ok := s.index.waiting.Min()
		if !ok || t.at >= p.Round {
			break
		}
		m, mv := edit(s.Machine(t.name))
		mv.Deadline = later(s.now, s.limit(m))
		s.put(m)
	}
	for {
		t, ok := s.index.timers.Min()
		if !ok || Time(t.at) > s.now {
			break
		}
		out = append(out, s.expire(s.Machine(t.name), p)...)
	}
	return append(out, s.lapse(p)...)
}
