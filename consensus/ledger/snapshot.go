package ledger

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/ipfs/go-cid"

	"github.com/dcnode/dcnode/consensus/ledger/merkle"
)

// stateFormat is the version of a snapshot that this package writes and reads.
const stateFormat = 2

// root is the top node of the state's DAG.
type root struct {
	Format   int         `json:"format"`
	Rules    Rules       `json:"rules"`
	Now      Time        `json:"now"`
	Next     uint64      `json:"next"`
	Outcome  []byte      `json:"outcome"`
	LastID   MemberID    `json:"last_id"`
	Roster   uint64      `json:"roster"`
	Members  []*Member   `json:"members"`
	Votes    []*Proposal `json:"proposals"`
	Accounts merkle.Link `json:"accounts"`
	Images   merkle.Link `json:"images"`
	Machines merkle.Link `json:"machines"`
	Paths    merkle.Link `json:"paths"`
	Said     merkle.Link `json:"said"`
	Changes  merkle.Link `json:"changes"`
	Graves   merkle.Link `json:"graves"`
	Floor    uint64      `json:"floor"`
}

// New is the state before the first event, with the founding members. Zero rules
// are DefaultRules.
func New(members []Member, rules Rules) (*State, error) {
	s := &State{rules: rules.filled(), index: newIndexes()}
	for _, m := range members {
		s.members = append(s.members, &m)
		s.lastID = max(s.lastID, m.ID)
	}
	if err := checkMembers(s.members); err != nil {
		return nil, err
	}
	return s, nil
}

func (r Rules) filled() Rules {
	fill := func(t *Time, d Time) {
		if *t == 0 {
			*t = d
		}
	}
	fill(&r.BidWindow, DefaultRules.BidWindow)
	fill(&r.Accept, DefaultRules.Accept)
	fill(&r.Copy, DefaultRules.Copy)
	fill(&r.Whole, DefaultRules.Whole)
	fill(&r.Lease, DefaultRules.Lease)
	fill(&r.Vote, DefaultRules.Vote)
	fill(&r.BidExpiry, DefaultRules.BidExpiry)
	return r
}

// checkMembers sorts a roster and says what is wrong with it.
func checkMembers(ms []*Member) error {
	slices.SortFunc(ms, func(a, b *Member) int { return cmp.Compare(a.ID, b.ID) })
	if len(ms) > MaxMembers {
		return fmt.Errorf("%d members, at most %d are allowed", len(ms), MaxMembers)
	}
	for i, m := range ms {
		if m.ID == 0 || m.Site == "" {
			return fmt.Errorf("member %d has no number or no site", i)
		}
		if m.Weight > maxWeight {
			return fmt.Errorf("member %s: a weight of %d is more than %d", m.Site, m.Weight, uint64(maxWeight))
		}
		for _, o := range ms[:i] {
			if o.ID == m.ID || o.Site == m.Site || len(m.Key) > 0 && slices.Equal(o.Key, m.Key) {
				return fmt.Errorf("members %s and %s: number, site and key must be unique", o.Site, m.Site)
			}
		}
	}
	return nil
}

// Root is the CID of the state: members with the same history have the same.
func (s *State) Root() (cid.Cid, error) {
	_, c, err := s.top()
	return c, err
}

// top is the state's top node and its CID.
func (s *State) top() ([]byte, cid.Cid, error) {
	r := root{
		Format: stateFormat, Rules: s.rules, Now: s.now, Next: s.next, Outcome: s.outcome[:], LastID: s.lastID,
		Roster: s.roster, Members: s.members, Votes: s.votes, Floor: s.floor,
	}
	accounts, err1 := s.accounts.Root()
	images, err2 := s.images.Root()
	machines, err3 := s.machines.Root()
	paths, err4 := s.paths.Root()
	said, err5 := s.said.Root()
	changes, err6 := s.changes.Root()
	graves, err7 := s.graves.Root()
	r.Accounts, r.Images, r.Machines = merkle.Link{Cid: accounts}, merkle.Link{Cid: images}, merkle.Link{Cid: machines}
	r.Paths, r.Said, r.Changes = merkle.Link{Cid: paths}, merkle.Link{Cid: said}, merkle.Link{Cid: changes}
	r.Graves = merkle.Link{Cid: graves}
	if err := errors.Join(err1, err2, err3, err4, err5, err6, err7); err != nil {
		return nil, cid.Undef, fmt.Errorf("encode ledger: %w", err)
	}
	b, err := merkle.Encode(r)
	if err != nil {
		return nil, cid.Undef, fmt.Errorf("encode ledger: %w", err)
	}
	return b, merkle.Sum(b), nil
}

// Blocks gives every block of the state's DAG, children before parents, the top node
// last. They are not to be changed.
func (s *State) Blocks(yield func(cid.Cid, []byte) bool) error {
	on := true
	each := func(c cid.Cid, b []byte) bool {
		on = on && yield(c, b)
		return on
	}
	for _, blocks := range []func(func(cid.Cid, []byte) bool) error{s.accounts.Blocks, s.images.Blocks, s.machines.Blocks, s.paths.Blocks, s.said.Blocks, s.changes.Blocks, s.graves.Blocks} {
		if err := blocks(each); err != nil || !on {
			return err
		}
	}
	b, c, err := s.top()
	if err == nil {
		yield(c, b)
	}
	return err
}

// Snapshot is the whole state as a CARv1: its root, and all blocks of its DAG.
func (s *State) Snapshot() (cid.Cid, []byte, error) {
	c, err := s.Root()
	if err != nil {
		return c, nil, err
	}
	b, err := merkle.WriteCAR(c, s.Blocks)
	return c, b, err
}

// Load is the state that a snapshot holds. Every block is compared with its CID, and
// what does not belong together is an error.
func Load(snapshot []byte) (*State, error) {
	c, get, err := merkle.ReadCAR(snapshot)
	if err != nil {
		return nil, fmt.Errorf("read ledger: %w", err)
	}
	b, ok := get(c)
	if !ok {
		return nil, errors.New("read ledger: the snapshot has no root")
	}
	var r root
	if err := merkle.Decode(b, &r); err != nil {
		return nil, fmt.Errorf("read ledger: %w", err)
	}
	if r.Format != stateFormat || len(r.Outcome) != 32 {
		return nil, fmt.Errorf("read ledger: it is of format %d, this dcnode knows %d", r.Format, stateFormat)
	}
	s := &State{
		rules: r.Rules, now: r.Now, next: r.Next, outcome: [32]byte(r.Outcome), lastID: r.LastID, roster: r.Roster,
		members: r.Members, votes: r.Votes, floor: r.Floor, index: newIndexes(),
	}
	for i, m := range s.members {
		if m == nil || i > 0 && s.members[i-1] != nil && s.members[i-1].ID >= m.ID {
			return nil, fmt.Errorf("read ledger: member %d of it is none or stands at the wrong place", i)
		}
	}
	if err := checkMembers(s.members); err != nil {
		return nil, fmt.Errorf("read ledger: %w", err)
	}
	var err1, err2, err3, err4, err5, err6, err7 error
	s.accounts, err1 = merkle.Load[*Account](r.Accounts.Cid, get)
	s.images, err2 = merkle.Load[*Image](r.Images.Cid, get)
	s.machines, err3 = merkle.Load[*Machine](r.Machines.Cid, get)
	s.paths, err4 = merkle.Load[*Path](r.Paths.Cid, get)
	s.said, err5 = merkle.Load[*Said](r.Said.Cid, get)
	s.changes, err6 = merkle.Load[*RosterChange](r.Changes.Cid, get)
	s.graves, err7 = merkle.Load[uint64](r.Graves.Cid, get)
	if err := errors.Join(err1, err2, err3, err4, err5, err6, err7, s.checkChanges()); err != nil {
		return nil, fmt.Errorf("read ledger: %w", err)
	}
	if err := s.sound(); err != nil {
		return nil, fmt.Errorf("read ledger: %w", err)
	}
	for _, m := range s.machines.All() {
		s.index.replace(nil, m)
	}
	for _, a := range s.accounts.All() {
		s.index.sponsor(a, 1)
	}
	for _, c := range s.RosterChanges() {
		s.index.number(c)
	}
	return s, nil
}
