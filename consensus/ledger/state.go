package ledger

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/dcnode/dcnode/consensus/ledger/merkle"
)

// act is one transaction that is being applied.
type act struct {
	Place
	author  *Member  // who carries it
	account *Account // who signed it, if its account did; else nil
	tx      *Tx
	network [32]byte // the overlay's name

	saidKey string // whose numbers were looked at by heard, and what they were
	said    *Said
}

// site is the account of the member that carries the transaction.
func (a *act) site() string { return a.author.Site }

// speaks says whether the transaction is the word of that account: signed by its
// keys or, for the account of a site, carried by that member.
func (a *act) speaks(account string) bool {
	if a.account != nil {
		return a.account.Name == account
	}
	return a.author.Site == account
}

// who is the account whose word the transaction is.
func (a *act) who() string {
	if a.account != nil {
		return a.account.Name
	}
	return a.author.Site
}

// Advance moves consensus time to that of the event at p, which may carry no
// transaction, and returns what fell due.
//
// A deadline counts from the first round after the one in which its phase began.
// The events of one round share their time, which is the median of its judges'
// clocks; when an idle overlay wakes, most of those judges may be from before it
// fell asleep. The judges of the next round have all seen the event: they are
// later.
func (s *State) Advance(p Place) []Effect {
	s.next = p.Index + 1
	s.now = max(s.now, p.Time)
	out := s.fallDue(p)
	s.mix(p, 0, out, nil)
	return out
}

// Apply applies one transaction of the event at p, after Advance. network is the
// overlay's name, which signatures of accounts are bound to. The error, if any, is a
// *RefusedError: nothing but the outcome's digest has changed.
func (s *State) Apply(network [32]byte, p Place, tx Tx) ([]Effect, error) {
	out, err := s.try(network, p, &tx)
	s.mix(p, tx.Seq, out, err)
	return out, err
}

func (s *State) try(network [32]byte, p Place, tx *Tx) ([]Effect, error) {
	author := s.member(p.Author)
	if author == nil {
		return nil, refuse("member %d is not in the roster", p.Author)
	}
	if tx.Body == nil {
		return nil, refuse("transaction has no body")
	}
	a := &act{Place: p, author: author, tx: tx, network: network}
	if err := s.authorise(a); err != nil {
		return nil, err
	}
	if err := s.say(a); err != nil { // what is refused now is not to be said again either
		return nil, err
	}
	return tx.Body.apply(s, a)
}

// mix takes what happened into the digest of all outcomes.
func (s *State) mix(p Place, seq uint64, out []Effect, err error) {
	if err == nil && len(out) == 0 && seq == 0 {
		return
	}
	h := sha256.New()
	h.Write(s.outcome[:])
	var b [24]byte
	binary.BigEndian.PutUint64(b[:], p.Index)
	binary.BigEndian.PutUint64(b[8:], uint64(p.Author))
	binary.BigEndian.PutUint64(b[16:], seq)
	h.Write(b[:])
	if err != nil {
		h.Write([]byte(err.Error()))
	}
	for i := range out {
		e := &out[i]
		fmt.Fprintf(h, "\x00%s\x00%s\x00%s\x00%d\x00%s\x00%d\x00%s", e.Kind, e.Machine, e.Image, e.Member, e.Account, e.Move.To, e.Move.Phase)
	}
	h.Sum(s.outcome[:0])
}

// Outcome is a digest of all that came of the order so far: members that made
// anything else of it have another one from that transaction on.
func (s *State) Outcome() [32]byte { return s.outcome }

// Clone is an independent copy. It costs nothing: what two states share is never
// changed.
func (s *State) Clone() *State {
	c := *s
	c.members, c.votes = slices.Clone(s.members), slices.Clone(s.votes)
	c.index = s.index.clone()
	return &c
}

// Rules are the constants of the overlay.
func (s *State) Rules() Rules { return s.rules }

// Now is the consensus time of the last event.
func (s *State) Now() Time { return s.now }

// Next is the index of the next event.
func (s *State) Next() uint64 { return s.next }

// RosterVersion grows with each change of the members, their weights or keys.
func (s *State) RosterVersion() uint64 { return s.roster }

// Members are those in the roster, by ID. Read only.
func (s *State) Members() []*Member { return s.members }

// Proposals are those that wait for votes, by ID. Read only.
func (s *State) Proposals() []*Proposal { return s.votes }

// Member is the member with that ID, or nil. Read only.
func (s *State) Member(id MemberID) *Member { return s.member(id) }

func (s *State) member(id MemberID) *Member {
	if i := s.rank(id); i >= 0 {
		return s.members[i]
	}
	return nil
}

// rank is a member's place in the roster; -1: it is not in it.
func (s *State) rank(id MemberID) int {
	i, ok := slices.BinarySearchFunc(s.members, id, byID)
	if !ok {
		return -1
	}
	return i
}

func byID(m *Member, id MemberID) int { return cmp.Compare(m.ID, id) }

// putMember replaces a member. The slice is the state's own: see Clone.
func (s *State) putMember(m *Member) { s.members[s.rank(m.ID)] = m }

// BySite finds a member by its site; nil: there is none.
func (s *State) BySite(site string) *Member {
	for _, m := range s.members {
		if m.Site == site {
			return m
		}
	}
	return nil
}

// Site is what people call a member; "member 7" for one that is not in the roster.
func (s *State) Site(id MemberID) string {
	if m := s.member(id); m != nil {
		return m.Site
	}
	return fmt.Sprintf("member %d", id)
}

// Weight is the weight of all members.
func (s *State) Weight() uint64 {
	var sum uint64
	for _, m := range s.members {
		sum += m.Weight
	}
	return sum
}

// Machine is the machine of that name, or nil. Read only.
func (s *State) Machine(name string) *Machine {
	m, _ := s.machines.Get(name)
	return m
}

// Machines are all machines, in no order that means anything. Read only.
func (s *State) Machines() iter.Seq[*Machine] {
	return func(yield func(*Machine) bool) {
		for _, m := range s.machines.All() {
			if !yield(m) {
				return
			}
		}
	}
}

// SortedMachines are all machines by name. Read only.
func (s *State) SortedMachines() []*Machine {
	return sorted(s.machines.Len(), s.Machines(), func(m *Machine) string { return m.Name })
}

// Images are all images by name. Read only.
func (s *State) Images() []*Image {
	return sorted(s.images.Len(), values(s.images), func(i *Image) string { return i.Name })
}

// Accounts are all accounts of which something is kept, by name: those with keys, and
// those of sites to which something belongs or once belonged. Read only.
func (s *State) Accounts() []*Account {
	return sorted(s.accounts.Len(), values(s.accounts), func(a *Account) string { return a.Name })
}

// Account is the account of that name, or nil. A site that nothing was ever said of
// has an account without keys that is not kept. Read only.
func (s *State) Account(name string) *Account {
	if a, ok := s.accounts.Get(name); ok {
		return a
	}
	if m := s.BySite(name); m != nil {
		return &Account{Name: name, Sponsor: m.ID}
	}
	return nil
}

// Image is the image of that name, without its tag, or nil. Read only.
func (s *State) Image(name string) *Image {
	i, _ := s.images.Get(name)
	return i
}

// Path is what moves between two members have shown, or nil. Read only.
func (s *State) Path(from, to MemberID) *Path {
	p, _ := s.paths.Get(pathKey(from, to))
	return p
}

func pathKey(from, to MemberID) string {
	return strconv.FormatUint(uint64(from), 10) + ">" + strconv.FormatUint(uint64(to), 10)
}

// Version finds a version of an image by name or name:tag; nil: there is none.
func (s *State) Version(ref string) *Version {
	name, tag := SplitRef(ref)
	if img := s.Image(name); img != nil {
		return img.tagged(tag)
	}
	return nil
}

// SplitRef is the name and the tag of an image.
func SplitRef(ref string) (name, tag string) {
	name, tag, ok := strings.Cut(ref, ":")
	if !ok {
		tag = DefaultTag
	}
	return name, tag
}

func values[V any](m merkle.Map[V]) iter.Seq[V] {
	return func(yield func(V) bool) {
		for _, v := range m.All() {
			if !yield(v) {
				return
			}
		}
	}
}

func sorted[V any](n int, all iter.Seq[V], name func(V) string) []V {
	out := make([]V, 0, n)
	for v := range all {
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b V) int { return strings.Compare(name(a), name(b)) })
	return out
}
