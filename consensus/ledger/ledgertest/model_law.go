package ledgertest

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"

	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/consensus/ledger/merkle"
)

// mayDo checks that a transaction which holds is its author's to say, in the state
// before it.
func (m *model) mayDo(st *step) error {
	if st.tx.Account != "" {
		if err := m.signed(st); err != nil {
			return err
		}
	} else if len(st.tx.Sigs) > 0 {
		return errors.New("signatures of nobody")
	}
	if err := m.ofMachine(st); err != nil {
		return err
	}
	return m.ofRest(st)
}

// speaks says whose word the transaction is.
func (st *step) speaks(account string) bool {
	return account == cmp.Or(st.tx.Account, st.site())
}

// signed checks an account's signatures: so many of its keys as it takes.
func (m *model) signed(st *step) error {
	msg, err := ledger.SignBytes(m.network, *st.tx)
	if err != nil {
		return err
	}
	good := func(keys [][]byte) (n int) {
		for _, k := range keys {
			for _, s := range st.tx.Sigs {
				if bytes.Equal(s.Key, k) && len(k) == ed25519.PublicKeySize && ed25519.Verify(k, msg, s.Sig) {
					n++
					break
				}
			}
		}
		return n
	}
	var acc *ledger.Account
	for _, a := range st.pre.Accounts() {
		if a.Name == st.tx.Account {
			acc = a
		}
	}
	set, is := st.tx.Body.(*ledger.SetAccount)
	site := ""
	switch t := st.tx.Body.(type) {
	case *ledger.SetAccount:
		site = t.Site
	case *ledger.Define:
		site = cmp.Or(t.Site, "?")
	case *ledger.Publish:
		site = cmp.Or(t.Site, "?")
	case *ledger.SetPolicy, *ledger.Approve, *ledger.Withdraw, *ledger.Delete:
	default:
		return errors.New("an account cannot say that")
	}
	switch {
	case site != "" && site != st.site():
		return fmt.Errorf("%s carries what is for %s", st.site(), site)
	case is && acc == nil && (good(set.Keys) < len(set.Keys) || len(set.Keys) == 0 || set.Name != st.tx.Account || set.Threshold < 1 || set.Threshold > len(set.Keys)):
		return errors.New("not all keys of a new account have signed")
	case is && acc != nil && good(set.Keys) == 0:
		return errors.New("none of the new keys has signed")
	case acc == nil && !is, acc != nil && len(acc.Keys) == 0:
		return errors.New("there is no such account")
	case acc != nil && good(acc.Keys) < acc.Threshold:
		return fmt.Errorf("%d of %d keys have signed", good(acc.Keys), acc.Threshold)
	}
	return nil
}

// ofMachine checks what is said of a machine and its move.
func (m *model) ofMachine(st *step) error {
	by := st.place.Author
	find := func(name string) (*ledger.Machine, *ledger.Move) {
		x := st.pre.Machine(name)
		if x == nil {
			return &ledger.Machine{}, &ledger.Move{}
		}
		if x.Move == nil {
			return x, &ledger.Move{}
		}
		return x, x.Move
	}
	ok := true
	switch t := st.tx.Body.(type) {
	case *ledger.Set:
		x, mv := find(t.Name)
		ok = x.Owner == by && mv.ID == 0
	case *ledger.Delete:
		x, mv := find(t.Name)
		here := st.pre.Member(x.Owner) != nil
		ok = x.Name != "" && (here && x.Owner == by && st.tx.Account == "" || !here && st.speaks(x.Account)) &&
			(mv.ID == 0 || !here && st.pre.Member(mv.From) == nil)
	case *ledger.Approve:
		x, _ := find(t.Machine)
		ok = x.Epoch == t.Epoch && x.Name != "" && st.speaks(cmp.Or(t.Account, st.tx.Account, st.site())) && t.Until > st.pre.Now() && t.Until <= st.pre.Now()+30*ledger.Day
	case *ledger.SetPolicy:
		x, _ := find(t.Machine)
		ok = st.speaks(cmp.Or(t.Account, x.Account)) && (t.Account == "") != (t.Machine == "") && st.post.Account(cmp.Or(t.Account, x.Account)) != nil
	case *ledger.Intent:
		x, mv := find(t.Machine)
		ok = x.Owner == by && mv.ID == 0 && x.Epoch == t.Epoch && !x.Stopped && t.Needs.Memory >= 0 && t.Needs.Disk >= 0 && t.Needs.VCPUs >= 0
	case *ledger.Bid:
		_, mv := find(t.Machine)
		ok = mv.ID == t.Move && mv.Phase == ledger.Bidding && by != mv.From && (mv.Only == 0 || mv.Only == by) &&
			min(t.FreeMemory, t.FreeDisk, t.FreeVCPUs, t.Bandwidth, t.RTT, t.MissingData) >= 0
		for _, b := range mv.Bids {
			ok = ok && b.Member != by
		}
	case *ledger.Accept:
		_, mv := find(t.Machine)
		ok = mv.ID == t.Move && mv.To == by && mv.Phase == ledger.Copying && !mv.Accepted
	case *ledger.Beat:
		_, mv := find(t.Machine)
		ok = mv.ID == t.Move && mv.From == by && mv.Phase == ledger.Copying && mv.Accepted && t.Bytes > mv.Moved
		if x := st.pre.Machine(t.Machine); ok {
			end, begun := m.copiedBy(x)
			ok = opened(st.pre, x, st.pre.Now()) && (!begun || st.pre.Now() < end)
		}
	case *ledger.Release:
		x, mv := find(t.Machine)
		ok = mv.ID == t.Move && x.Owner == by && mv.Phase == ledger.Copying && mv.To == t.To && t.Epoch == x.Epoch+1
	case *ledger.Confirm:
		x, mv := find(t.Machine)
		ok = x.Owner == by && mv.Phase == ledger.Released && x.Epoch == t.Epoch
	case *ledger.Decline:
		x, mv := find(t.Machine)
		ok = x.Owner == by && mv.Phase == ledger.Released && x.Epoch == t.Epoch
	case *ledger.Reclaim:
		x, mv := find(t.Machine)
		ok = mv.From == by && mv.Phase == ledger.Released && x.Epoch == t.Epoch && mv.LeaseOver
	case *ledger.Abort:
		_, mv := find(t.Machine)
		ok = mv.ID == t.Move && mv.ID != 0 && mv.Phase != ledger.Released && (by == mv.From || by == mv.To)
	case *ledger.Report:
		x, _ := find(t.Machine)
		ok = x.Last != nil && x.Last.ID == t.Move && x.Last.Phase == ledger.Done && x.Last.From == by && x.Last.Truth == nil
	}
	if !ok {
		return fmt.Errorf("%d has no right to it", by)
	}
	return nil
}

// ofRest checks what is said of images, accounts and the roster.
func (m *model) ofRest(st *step) error {
	ok := true
	switch t := st.tx.Body.(type) {
	case *ledger.Define:
		account := cmp.Or(t.Account, st.tx.Account, st.site())
		ok = st.speaks(account) && st.pre.Machine(t.Name) == nil && t.Memory > 0 && t.Memory <= 1<<50
		if x := st.post.Machine(t.Name); ok {
			if why := forbidden(st.post, x, st.post.Member(x.Owner)); why != "" {
				return errors.New("the law forbids it: " + why)
			}
			return quota(st.post, account, true)
		}
	case *ledger.Publish:
		account := cmp.Or(t.Account, st.tx.Account, st.site())
		was := st.pre.Image(t.Name)
		ok = st.speaks(account) && (was == nil || was.Account == account) && min(t.Size, t.Stored) >= 0
		if ok && was == nil {
			return quota(st.post, account, false)
		}
	case *ledger.Withdraw:
		was := st.pre.Image(t.Name)
		ok = was != nil && st.speaks(was.Account)
	case *ledger.SetAccount:
		ok = st.pre.BySite(t.Name) == nil && st.tx.Account == t.Name
	case *ledger.SetQuota:
		acc := st.pre.Account(t.Account)
		ok = acc != nil && (acc.Sponsor == st.place.Author || st.pre.Member(acc.Sponsor) == nil) &&
			min(t.Quota.Images, t.Quota.Machines, t.Quota.Memory) >= 0
	case *ledger.CastVote:
		ok = m.open[t.Proposal] != nil
	case *ledger.Propose:
		ok = t.Change == ledger.Join || st.pre.Member(t.Member) != nil
	}
	if !ok {
		return fmt.Errorf("%s has no right to it", cmp.Or(st.tx.Account, st.site()))
	}
	return nil
}

// quota says what an account has too much of, by counting it: of machines, or of images.
func quota(s *ledger.State, account string, machines bool) error {
	var has ledger.Quota
	for x := range s.Machines() {
		if x.Account == account {
			has.Machines, has.Memory = has.Machines+1, has.Memory+x.Memory
		}
	}
	for _, i := range s.Images() {
		if i.Account == account {
			has.Images++
		}
	}
	acc := s.Account(account)
	if acc == nil {
		return fmt.Errorf("there is no account %s", account)
	}
	q := acc.Quota
	if machines && (q.Machines > 0 && has.Machines > q.Machines || q.Memory > 0 && has.Memory > q.Memory) ||
		!machines && q.Images > 0 && has.Images > q.Images {
		return fmt.Errorf("account %s has %+v of %+v", account, has, q)
	}
	return nil
}

// parts are the fields of a state's top node, as text.
func parts(s *ledger.State) (map[string]string, error) {
	var last []byte
	err := s.Blocks(func(_ cid.Cid, block []byte) bool {
		last = block
		return true
	})
	if err != nil {
		return nil, err
	}
	var fields map[string]merkle.Raw
	if err := merkle.Decode(last, &fields); err != nil {
		return nil, err
	}
	out := map[string]string{}
	for name, v := range fields {
		out[name] = string(v)
	}
	return out, nil
}
