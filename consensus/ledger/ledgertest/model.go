package ledgertest

import (
	"fmt"
	"slices"

	"github.com/dcnode/dcnode/consensus/ledger"
)

// model knows of the order what a state does not tell: which numbers held, who was
// ever a member, and who has voted for what.
type model struct {
	network [32]byte
	rules   ledger.Rules
	held    map[string]bool // "author number" of what was said and held
	roster  map[ledger.MemberID]entry
	lastID  ledger.MemberID
	open    map[uint64]*ballot
	moves   map[string]bool        // "machine move" of every move that there was
	beats   map[string]ledger.Time // when the source of a move gave its first sign of life, by "machine move"
	cards   map[string]bool        // proofs of those who have joined
	agreed  map[string][]string    // accounts that have approved of a move, by "machine move"
	rotated map[ledger.MemberID][]ledger.Time
	epochs  map[string]uint64 // that machines had when they were deleted
}

// entry is a member as the order knows it.
type entry struct {
	site, region, key string
	weight            uint64
}

// ballot is a proposal and the last word of each that voted.
type ballot struct {
	change  ledger.Change
	member  ledger.MemberID
	t       ledger.Propose
	yes, no map[ledger.MemberID]bool
}

func newModel(s *Script) *model {
	m := &model{
		network: s.Network, rules: s.Rules, held: map[string]bool{}, roster: map[ledger.MemberID]entry{},
		open: map[uint64]*ballot{}, moves: map[string]bool{}, beats: map[string]ledger.Time{},
		epochs: map[string]uint64{}, agreed: map[string][]string{}, cards: map[string]bool{}, rotated: map[ledger.MemberID][]ledger.Time{},
	}
	for i := range s.Founders {
		f := &s.Founders[i]
		m.roster[f.ID] = entryOf(f)
		m.lastID = max(m.lastID, f.ID)
	}
	return m
}

func entryOf(m *ledger.Member) entry { return entry{m.Site, m.Region, string(m.Key), m.Weight} }

func (m *model) total() (sum uint64) {
	for _, e := range m.roster {
		sum += e.weight
	}
	return sum
}

// weighs is the weight of those that are members now.
func (m *model) weighs(votes map[ledger.MemberID]bool) (sum uint64) {
	for id := range votes {
		sum += m.roster[id].weight
	}
	return sum
}

// step is one thing that happened: tx is nil if only time has passed.
type step struct {
	pre, post *ledger.State
	place     ledger.Place
	tx        *ledger.Tx
	out       []ledger.Effect
	err       error
}

func (st *step) site() string { return st.pre.Site(st.place.Author) }

// who is the author whose number the transaction has.
func (st *step) who() string {
	if st.tx.Account != "" {
		return "a/" + st.tx.Account
	}
	return fmt.Sprint("m/", st.place.Author)
}

// check says what is wrong with what the ledger made of a step.
func (m *model) check(st *step) error {
	if st.err != nil {
		return m.refused(st)
	}
	if st.tx != nil {
		if st.pre.Member(st.place.Author) == nil {
			return fmt.Errorf("a transaction of %d holds, which is not a member", st.place.Author)
		}
		if err := m.said(st); err != nil {
			return err
		}
		if err := m.mayDo(st); err != nil {
			return fmt.Errorf("%s holds: %w", st.tx.Body.Kind(), err)
		}
	}
	if err := m.rosterStep(st); err != nil {
		return err
	}
	if err := m.machinesStep(st); err != nil {
		return err
	}
	if st.tx == nil {
		if err := m.timeStep(st); err != nil {
			return err
		}
	}
	return m.holds(st.post)
}

// said checks that a number of an author holds once.
func (m *model) said(st *step) error {
	key := fmt.Sprint(st.who(), " ", st.tx.Seq)
	if m.held[key] || st.tx.Seq == 0 {
		return fmt.Errorf("number %s holds again", key)
	}
	m.held[key] = true
	return nil
}

// refused checks that a refusal has changed nothing and says why.
func (m *model) refused(st *step) error {
	if text := st.err.Error(); text == "" || len(text) > 4096 {
		return fmt.Errorf("a refusal of %d bytes", len(text))
	}
	if len(st.out) > 0 {
		return fmt.Errorf("a refusal with effects: %v", st.out)
	}
	before, err1 := parts(st.pre)
	after, err2 := parts(st.post)
	if err1 != nil || err2 != nil {
		return fmt.Errorf("no root: %v, %v", err1, err2)
	}
	for name, was := range before {
		if name != "outcome" && name != "said" && after[name] != was {
			return fmt.Errorf("%s was refused (%v) and has changed %s", st.tx.Body.Kind(), st.err, name)
		}
	}
	return nil
}

// holds checks what is true of every state.
func (m *model) holds(s *ledger.State) error {
	machines := s.SortedMachines()
	if err := m.indexesHold(s, machines); err != nil {
		return err
	}
	for _, x := range machines {
		if followed(s, x.Name, x.Name, len(machines)) {
			return fmt.Errorf("machine %s follows itself by way of others", x.Name)
		}
	}
	used := map[string]ledger.Quota{}
	made := map[string]int64{}
	for _, x := range machines {
		u := used[x.Account]
		u.Machines, u.Memory = u.Machines+1, u.Memory+x.Memory
		used[x.Account] = u
		name, _ := ledger.SplitRef(x.Image)
		made[name+"@"+x.Commit]++
		if s.Account(x.Account) == nil {
			return fmt.Errorf("machine %s belongs to account %s, which there is not", x.Name, x.Account)
		}
		if s.VersionOf(x) == nil {
			return fmt.Errorf("machine %s is made from %s %s, which there is not", x.Name, x.Image, x.Commit)
		}
		if last := x.Handovers[len(x.Handovers)-1]; last.Epoch != x.Epoch || last.Owner != x.Owner {
			return fmt.Errorf("machine %s: its last handover is another than its owner and epoch", x.Name)
		}
		if m.roster[x.Owner].site == "" && s.Member(x.Owner) != nil || x.Owner > m.lastID || x.Owner == 0 {
			return fmt.Errorf("machine %s is owned by %d, which never was a member", x.Name, x.Owner)
		}
	}
	for _, img := range s.Images() {
		u := used[img.Account]
		u.Images++
		used[img.Account] = u
		if err := m.imageHolds(s, img, made); err != nil {
			return err
		}
	}
	for from := ledger.MemberID(1); from <= m.lastID; from++ {
		for to := ledger.MemberID(1); to <= m.lastID; to++ {
			if s.Path(from, to) != nil && (s.Member(from) == nil || s.Member(to) == nil) {
				return fmt.Errorf("the path from %d to %d is kept, of which one has left", from, to)
			}
		}
	}
	for key, n := range made {
		return fmt.Errorf("%d machines are made from %s, which counts none", n, key)
	}
	for _, a := range s.Accounts() {
		if a.Used != used[a.Name] {
			return fmt.Errorf("account %s has %+v and is said to have %+v", a.Name, used[a.Name], a.Used)
		}
		delete(used, a.Name)
	}
	for name, q := range used {
		return fmt.Errorf("account %s has %+v and is not kept", name, q)
	}
	return nil
}

// followed says whether a machine that is not itself has to be where last is, by way of
// at most so many others.
func followed(s *ledger.State, name, last string, steps int) bool {
	x := s.Machine(name)
	if x == nil || steps < 0 {
		return false
	}
	return slices.ContainsFunc(x.Policy.With, func(o string) bool {
		return o != name && (o == last || followed(s, o, last, steps-1))
	})
}

// imageHolds checks one image, and takes its machines out of made.
func (m *model) imageHolds(s *ledger.State, img *ledger.Image, made map[string]int64) error {
	seen := map[string]int64{}
	for i, v := range img.Tags {
		if v.Tag != "" && slices.ContainsFunc(img.Tags[:i], func(o ledger.Version) bool { return o.Tag == v.Tag }) {
			return fmt.Errorf("image %s has two versions under %s", img.Name, v.Tag)
		}
		key := img.Name + "@" + v.Commit
		if n, twice := seen[key]; twice && n != v.Machines {
			return fmt.Errorf("image %s counts %d and %d machines of %s", img.Name, n, v.Machines, v.Commit)
		}
		seen[key] = v.Machines
		for k, id := range v.Holders {
			if s.Member(id) == nil || k > 0 && v.Holders[k-1] >= id {
				return fmt.Errorf("image %s: holders %v of %s", img.Name, v.Holders, v.Tag)
			}
		}
	}
	for key, n := range seen {
		if made[key] != n {
			return fmt.Errorf("%d machines are made from %s, which counts %d", made[key], key, n)
		}
		delete(made, key)
	}
	return nil
}

// indexesHold checks what the state finds by other things than names.
func (m *model) indexesHold(s *ledger.State, machines []*ledger.Machine) error {
	reserved := map[ledger.MemberID]ledger.Room{}
	owned, coming := map[ledger.MemberID][]string{}, map[ledger.MemberID][]string{}
	var due ledger.Time
	soonest := func(t ledger.Time) {
		if t = max(t, 1); due == 0 || t < due {
			due = t
		}
	}
	for _, x := range machines {
		owned[x.Owner] = append(owned[x.Owner], x.Name)
		mv := x.Move
		if mv == nil {
			continue
		}
		if mv.To != 0 {
			r := reserved[mv.To]
			r.Memory, r.Disk, r.VCPUs, r.Moves = r.Memory+mv.Reserved.Memory, r.Disk+mv.Reserved.Disk, r.VCPUs+mv.Reserved.VCPUs, r.Moves+mv.Reserved.Moves
			reserved[mv.To] = r
			coming[mv.To] = append(coming[mv.To], x.Name)
			if mv.Reserved.Moves != 1 || mv.Reserved.Memory != mv.Needs.Memory {
				return fmt.Errorf("the move of %s reserves %+v of %+v", x.Name, mv.Reserved, mv.Needs)
			}
		}
		if !mv.LeaseOver {
			soonest(mv.Deadline)
		}
	}
	for _, p := range s.Proposals() {
		soonest(p.Expires)
	}
	if s.Due() != due {
		return fmt.Errorf("due is %d, and the next deadline is %d", s.Due(), due)
	}
	for id := ledger.MemberID(0); id <= m.lastID+1; id++ {
		if s.Reserved(id) != reserved[id] {
			return fmt.Errorf("at member %d %+v are reserved, and moves there reserve %+v", id, s.Reserved(id), reserved[id])
		}
		if a, b := names(s, id); !slices.Equal(a, owned[id]) || !slices.Equal(b, coming[id]) {
			return fmt.Errorf("at member %d are %v and come %v, found are %v and %v", id, owned[id], coming[id], a, b)
		}
	}
	return nil
}

func names(s *ledger.State, id ledger.MemberID) (at, coming []string) {
	for x := range s.At(id) {
		at = append(at, x.Name)
	}
	for x := range s.Coming(id) {
		coming = append(coming, x.Name)
	}
	return at, coming
}
