package certificate

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"

	"github.com/dcnode/dcnode/consensus"
	"github.com/dcnode/dcnode/consensus/ledger"
)

// Finding is what a certificate shows: who holds one can say it.
type Finding struct {
	Network   string          `json:"network"`
	Machine   string          `json:"machine"`
	Epoch     uint64          `json:"epoch"`
	Index     uint64          `json:"index"` // in the order, of the release
	Event     string          `json:"event"` // its hash
	By        string          `json:"by"`    // the site that released it
	ByMember  ledger.MemberID `json:"by_member"`
	To        string          `json:"to"`
	ToMember  ledger.MemberID `json:"to_member"`
	Confirmed bool            `json:"confirmed"` // the new owner has said that it runs it, and the ledger has taken that
	Confirm   string          `json:"confirm,omitempty"`
	StateAt   uint64          `json:"state_index"` // of the event after which the state was signed
	State     string          `json:"state"`       // its digest
	StateTime int64           `json:"state_time"`  // its consensus time, ns since 1970
	Signed    []string        `json:"signed"`      // sites
	Weight    uint64          `json:"signed_weight"`
	Total     uint64          `json:"total_weight"`
	Changes   int             `json:"roster_changes"` // since the genesis
}

// Sentence is the finding in one sentence.
func (f *Finding) Sentence() string {
	s := fmt.Sprintf("at index %d, event %s by %s released %s to %s with epoch %d", f.Index, f.Event, f.By, f.Machine, f.To, f.Epoch)
	if f.Confirmed {
		s += fmt.Sprintf(", and %s has confirmed that it runs it", f.To)
	}
	return s
}

// verifier goes down the chain that a certificate claims.
type verifier struct {
	network [32]byte
	cert    *Certificate

	roster []ledger.Member                         // as of the last change that was followed
	keys   map[ledger.MemberID][]ed25519.PublicKey // all that a member has had, the newest last
	sites  map[ledger.MemberID]string
	used   map[[32]byte]bool // what was voted on already
	log    []ledger.RosterChange
	find   Finding
}

// Verify follows a certificate from the founders of an overlay, as its genesis names
// them, to the release that it shows. Nothing in it is believed; the error names what
// does not hold.
func Verify(founders []ledger.Member, network [32]byte, c *Certificate) (*Finding, error) {
	v := &verifier{
		network: network, cert: c, keys: map[ledger.MemberID][]ed25519.PublicKey{}, sites: map[ledger.MemberID]string{}, used: map[[32]byte]bool{},
	}
	for _, step := range []struct {
		of string
		do func() error
	}{
		{"the certificate", v.begin},
		{"the genesis", func() error { return v.found(founders) }},
		{"the roster's past", v.follow},
		{"the signatures of the state", v.signatures},
		{"the state", v.state},
	} {
		if err := step.do(); err != nil {
			return nil, fmt.Errorf("%s: %w", step.of, err)
		}
	}
	return &v.find, nil
}

func (v *verifier) begin() error {
	c := v.cert
	switch {
	case c.Format != format:
		return fmt.Errorf("it is of format %d, this dcnode knows %d", c.Format, format)
	case !bytes.Equal(c.Network, v.network[:]):
		return fmt.Errorf("it is of overlay %x, the genesis is of %x", c.Network[:min(len(c.Network), 8)], v.network[:8])
	case len(c.State.Digest) != 32:
		return fmt.Errorf("the digest of the state has %d bytes, want 32", len(c.State.Digest))
	case len(c.Roster) > maxChanges:
		return fmt.Errorf("%d changes of the roster, at most %d are followed", len(c.Roster), maxChanges)
	case len(c.Signatures) > ledger.MaxMembers:
		return fmt.Errorf("%d signatures, at most %d members can be", len(c.Signatures), ledger.MaxMembers)
	}
	v.find.Network = fmt.Sprintf("%x", v.network)
	v.find.Changes = len(c.Roster)
	return nil
}

func (v *verifier) found(founders []ledger.Member) error {
	v.roster = slices.Clone(founders)
	slices.SortFunc(v.roster, func(a, b ledger.Member) int { return cmp.Compare(a.ID, b.ID) })
	for _, m := range v.roster {
		if len(m.Key) != ed25519.PublicKeySize {
			return fmt.Errorf("the key of %s has %d bytes, want %d", m.Site, len(m.Key), ed25519.PublicKeySize)
		}
		v.keys[m.ID], v.sites[m.ID] = []ed25519.PublicKey{m.Key}, m.Site
	}
	if total(v.roster) == 0 {
		return errors.New("it names no member with weight")
	}
	return nil
}

// event reads an event of this overlay that is signed by its creator.
func (v *verifier) event(raw []byte, keys func(ledger.MemberID) []ed25519.PublicKey) (*consensus.Event, error) {
	e, err := consensus.Unmarshal(raw)
	if err != nil {
		return nil, err
	}
	if e.Network != v.network {
		return nil, fmt.Errorf("event %x is of another overlay", short(e))
	}
	who := ledger.MemberID(e.Creator)
	for _, k := range keys(who) {
		if e.Verify(k) == nil {
			return e, nil
		}
	}
	return nil, fmt.Errorf("event %x is not signed by member %d, whom it names", short(e), who)
}

func short(e *consensus.Event) []byte {
	h := e.Hash()
	return h[:8]
}

// said are the transactions of one type in an event, as its creator's own words.
func said[B ledger.Body](e *consensus.Event) []B {
	var out []B
	for _, raw := range e.Payload {
		tx, err := ledger.Decode(raw)
		if err != nil || tx.Account != "" {
			continue // the ledger has taken it for nothing, or for an account's
		}
		if b, ok := tx.Body.(B); ok {
			out = append(out, b)
		}
	}
	return out
}

func signedBy(key ed25519.PublicKey, statement, sig []byte) bool {
	return len(key) == ed25519.PublicKeySize && len(sig) == ed25519.SignatureSize && ed25519.Verify(key, statement, sig)
}

func total(roster []ledger.Member) uint64 {
	var sum uint64
	for _, m := range roster {
		sum += m.Weight
	}
	return sum
}

// enough says whether a weight is more than two thirds of all; weights are at most
// 2^32 each, so nothing overflows.
func enough(weight, of uint64) bool { return 3*weight > 2*of }

func member(roster []ledger.Member, id ledger.MemberID) *ledger.Member {
	for i := range roster {
		if roster[i].ID == id {
			return &roster[i]
		}
	}
	return nil
}

// signatures checks that members of more than two thirds of the weight have signed the state.
func (v *verifier) signatures() error {
	c := v.cert
	statement := Statement(v.network, c.Index, [32]byte(c.State.Digest))
	var last ledger.MemberID
	for _, s := range c.Signatures {
		m := member(v.roster, s.Member)
		switch {
		case s.Member <= last:
			return fmt.Errorf("they are not by ascending member at %d", s.Member)
		case m == nil:
			return fmt.Errorf("member %d is not in the roster", s.Member)
		case !signedBy(m.Key, statement, s.Sig):
			return fmt.Errorf("that of %s does not hold for index %d and digest %x", m.Site, c.Index, c.State.Digest[:8])
		}
		last = s.Member
		v.find.Signed = append(v.find.Signed, m.Site)
		v.find.Weight += m.Weight
	}
	v.find.Total = total(v.roster)
	if !enough(v.find.Weight, v.find.Total) {
		return fmt.Errorf("members of weight %d of %d have signed, it takes more than two thirds", v.find.Weight, v.find.Total)
	}
	return nil
}

// state checks what the signed state says of the roster and of the machine.
func (v *verifier) state() error {
	c := v.cert
	proof := &ledger.Proof{Top: c.State.Top}
	for _, b := range c.State.Proof {
		proof.Blocks = append(proof.Blocks, b)
	}
	shown, err := proof.Show([32]byte(c.State.Digest), c.Machine)
	if err != nil {
		return err
	}
	if shown.Next != c.Index+1 || c.Index+1 == 0 {
		return fmt.Errorf("it is as of index %d, the signatures are for %d", int64(shown.Next)-1, c.Index)
	}
	if err := v.sameRoster(shown.Members); err != nil {
		return err
	}
	if err := shown.Changes(v.log); err != nil {
		return err
	}
	v.find.Machine, v.find.StateAt, v.find.StateTime = c.Machine, c.Index, int64(shown.Now)
	v.find.State = fmt.Sprintf("%x", []byte(c.State.Digest))
	return v.release(shown.Machine)
}

func (v *verifier) sameRoster(have []*ledger.Member) error {
	if len(have) != len(v.roster) {
		return fmt.Errorf("it has %d members, the genesis and the changes since make %d", len(have), len(v.roster))
	}
	for i, m := range v.roster {
		if h := have[i]; h.ID != m.ID || h.Site != m.Site || h.Region != m.Region || h.Weight != m.Weight || !bytes.Equal(h.Key, m.Key) {
			return fmt.Errorf("member %d is another there than the genesis and the changes since make it", m.ID)
		}
	}
	return nil
}

// release finds the handover in the machine's entry and compares it with the event.
func (v *verifier) release(m *ledger.Machine) error {
	c := v.cert
	i := slices.IndexFunc(m.Handovers, func(h ledger.Handover) bool { return h.Epoch == c.Epoch })
	if m.Name != c.Machine || i < 0 {
		return fmt.Errorf("machine %s has had no handover with epoch %d", c.Machine, c.Epoch)
	}
	h := m.Handovers[i]
	if h.Why != ledger.KindRelease {
		return fmt.Errorf("epoch %d of %s was no release, but %s", c.Epoch, c.Machine, h.Why)
	}
	e, err := v.event(c.Release, v.ever)
	if err != nil {
		return fmt.Errorf("the release: %w", err)
	}
	hash, by := e.Hash(), ledger.MemberID(e.Creator)
	if !bytes.Equal(hash[:], h.Event) {
		return fmt.Errorf("the release: the state names event %x, not %x", h.Event[:min(len(h.Event), 8)], hash[:8])
	}
	if !slices.ContainsFunc(said[*ledger.Release](e), func(r *ledger.Release) bool {
		return r.Machine == c.Machine && r.Epoch == h.Epoch && r.To == h.Owner
	}) {
		return fmt.Errorf("the release: event %x releases no %s to member %d with epoch %d", hash[:8], c.Machine, h.Owner, h.Epoch)
	}
	if i > 0 && m.Handovers[i-1].Owner != by {
		return fmt.Errorf("the release: event %x is by member %d, but the machine was member %d's", hash[:8], by, m.Handovers[i-1].Owner)
	}
	v.find.Epoch, v.find.Index, v.find.Event = h.Epoch, h.Index, fmt.Sprintf("%x", hash)
	v.find.By, v.find.ByMember, v.find.To, v.find.ToMember = v.sites[by], by, v.sites[h.Owner], h.Owner
	return v.confirm(m, i)
}

// confirm looks whether the new owner runs the machine: it says so, and the state does
// not say otherwise.
func (v *verifier) confirm(m *ledger.Machine, i int) error {
	c, h := v.cert, m.Handovers[i]
	if len(c.Confirm) == 0 {
		return nil
	}
	e, err := v.event(c.Confirm, v.ever)
	if err != nil {
		return fmt.Errorf("the confirmation: %w", err)
	}
	if ledger.MemberID(e.Creator) != h.Owner || !slices.ContainsFunc(said[*ledger.Confirm](e), func(r *ledger.Confirm) bool {
		return r.Machine == c.Machine && r.Epoch == h.Epoch
	}) {
		return fmt.Errorf("the confirmation: event %x does not confirm %s with epoch %d for member %d", short(e), c.Machine, h.Epoch, h.Owner)
	}
	last := i == len(m.Handovers)-1
	switch {
	case last && m.Move != nil && m.Move.Phase == ledger.Released:
		return fmt.Errorf("the confirmation: the ledger has not taken it by index %d", c.Index)
	case !last && slices.Contains([]ledger.Kind{ledger.KindDecline, ledger.KindReclaim}, m.Handovers[i+1].Why):
		return errors.New("the confirmation: the machine was given back without it")
	}
	v.find.Confirmed, v.find.Confirm = true, fmt.Sprintf("%x", e.Hash())
	return nil
}
