package ledger

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"slices"
	"strconv"
)

// Bounds of accounts.
const (
	MaxKeys     = 8       // of one account
	maxAccounts = 4096    // with one sponsor
	maxTotal    = 1 << 62 // bytes that one account has in all
)

// authorise finds out whose word a transaction is. Without an account it is that of
// the member whose event carries it, and the event's signature covers it. With one it
// is that of the account: see signers for whose signatures it takes. What is refused
// here has not been said: a member that is not meant to carry it, or that has changed
// something in it, cannot use up its number.
func (s *State) authorise(a *act) error {
	tx := a.tx
	if tx.Account == "" {
		switch {
		case len(tx.Sigs) > 0:
			return refuse("transaction has signatures of an account and does not name it")
		case tx.Body.Kind() == KindAccount:
			return refuse("an account is made and changed by its own keys: sign with them")
		}
		return s.heard(a)
	}
	site, may := signable(tx.Body)
	switch {
	case !may:
		return refuse("%s is a member's word: an account cannot say it", tx.Body.Kind())
	case site == "" && bound(tx.Body):
		return refuse("account %.70q: a signed %s names the site that is to carry it", tx.Account, tx.Body.Kind())
	case site != "" && site != a.site():
		return refuse("account %.70q signed this for %.70q to carry: %s cannot", tx.Account, site, a.site())
	case len(tx.Sigs) == 0 || len(tx.Sigs) > maxSigs:
		return refuse("account %.70q: %d signatures, 1 to %d are taken", tx.Account, len(tx.Sigs), maxSigs)
	}
	acc, found := s.accounts.Get(tx.Account)
	if found {
		a.account = acc
	} else {
		a.account = &Account{Name: tx.Account, Sponsor: a.Author}
	}
	signers, err := s.signers(a, found)
	if err != nil {
		return err
	}
	if err := s.heard(a); err != nil {
		return err
	}
	return signers.check(a.network, tx)
}

// signable says whether an account can say that, and the site that alone may carry it:
// "" for any.
func signable(b Body) (site string, ok bool) {
	switch b := b.(type) {
	case *SetAccount:
		return b.Site, true
	case *Publish:
		return b.Site, true
	case *Define:
		return b.Site, true
	case *SetPolicy, *Approve, *Withdraw, *Delete:
		return "", true
	}
	return "", false
}

// bound says that it matters who carries such a transaction: a machine begins there,
// and an image is there.
func bound(b Body) bool { return b.Kind() == KindDefine || b.Kind() == KindPublish }

// here refuses what names another site than its carrier's.
func (a *act) here(site string) error {
	if site != "" && site != a.site() {
		return refuse("this is for site %.70q to say, not for %s", site, a.site())
	}
	return nil
}

// signers are the keys that a transaction of an account has to be signed by: at least
// so many of had, and of has.
type signers struct {
	had, has       [][]byte
	ofHad, ofHas   int
	account, wants string
}

func (s *State) signers(a *act, found bool) (signers, error) {
	t, set := a.tx.Body.(*SetAccount)
	g := signers{account: a.tx.Account}
	switch {
	case set && t.Name != a.tx.Account:
		return g, refuse("account %.70q cannot set account %.70q", a.tx.Account, t.Name)
	case set:
		if err := t.check(s); err != nil {
			return g, err
		}
	case !found || len(a.account.Keys) == 0:
		return g, refuse("there is no account %.70q with keys: make it with `dcnode account new`", a.tx.Account)
	}
	acc := a.account
	switch {
	case set && !found:
		if t.Site == "" {
			return g, refuse("account %s: a new account names the site that carries it as its sponsor", t.Name)
		}
		g.has, g.ofHas, g.wants = t.Keys, len(t.Keys), "all of its keys"
	case set:
		g.had, g.ofHad, g.has, g.ofHas = acc.Keys, acc.Threshold, t.Keys, 1
		g.wants = fmt.Sprintf("%d of the keys that it has and one that it is to have", acc.Threshold)
	default:
		g.had, g.ofHad = acc.Keys, acc.Threshold
		g.wants = fmt.Sprintf("%d of its %d keys", acc.Threshold, len(acc.Keys))
	}
	return g, nil
}

// check verifies a transaction's signatures. Each must be good and by a key of the
// account, once; what can be told without mathematics is told before.
func (g signers) check(network [32]byte, tx *Tx) error {
	had, has := 0, 0
	for i, sig := range tx.Sigs {
		old, now := contains(g.had, sig.Key), contains(g.has, sig.Key)
		switch {
		case !old && !now:
			return refuse("account %s: signature %d is by a key that the account does not have", g.account, i+1)
		case i > 0 && bytes.Compare(tx.Sigs[i-1].Key, sig.Key) >= 0:
			return refuse("account %s: signatures stand by key, each key once", g.account)
		}
		if old {
			had++
		}
		if now {
			has++
		}
	}
	if had < g.ofHad || has < g.ofHas {
		return refuse("account %s: it takes the signatures of %s", g.account, g.wants)
	}
	b, err := SignBytes(network, *tx)
	if err != nil {
		return refuse("account %s: %v", g.account, err)
	}
	for i, sig := range tx.Sigs {
		if !verify(sig.Key, b, sig.Sig) {
			return refuse("account %s: signature %d is not good for this transaction in this overlay", g.account, i+1)
		}
	}
	return nil
}

func contains(keys [][]byte, key []byte) bool {
	return slices.ContainsFunc(keys, func(k []byte) bool { return bytes.Equal(k, key) })
}

// verify is ed25519.Verify for a key of any length.
func verify(key, msg, sig []byte) bool {
	return len(key) == ed25519.PublicKeySize && ed25519.Verify(key, msg, sig)
}

// saidKey names an author in State.said.
func saidKey(a *act) string {
	if a.account != nil {
		return "a/" + a.account.Name
	}
	return memberKey(a.Author)
}

func memberKey(id MemberID) string { return "m/" + strconv.FormatUint(uint64(id), 10) }

// heard refuses a number that its author has said already, or that is too old to know.
func (s *State) heard(a *act) error {
	n, key := a.tx.Seq, saidKey(a)
	have := s.saidBy(key)
	a.saidKey, a.said = key, have
	if n == 0 {
		return refuse("transaction has no number")
	}
	if have.has(n) {
		return refuse("transaction %d of %s is ordered already", n, a.who())
	}
	if n <= have.floor {
		return refuse("transaction %d of %s is older than the last %d", n, a.who(), maxSeen)
	}
	if last := have.last(); a.account != nil && replaces(a.tx.Body) && n < last {
		return refuse("account %s has said %d since it said this, %d: sign it anew if it is still to hold", a.account.Name, last, n)
	}
	return nil
}

// replaces says that such a word takes the place of an earlier one. Any member may carry
// it, and one that keeps it back must not be able to undo with it what came after.
func replaces(b Body) bool {
	k := b.Kind()
	return k == KindPolicy || k == KindAccount || k == KindApprove
}

// say takes the transaction's number down. That of an account which is about to be
// made is taken down when it is: see SetAccount.
func (s *State) say(a *act) error {
	if a.account != nil {
		if _, ok := s.accounts.Get(a.account.Name); !ok {
			return nil
		}
	}
	s.note(a)
	return nil
}

func (s *State) note(a *act) {
	key, have := saidKey(a), a.said
	if key != a.saidKey {
		have = s.saidBy(key)
	}
	s.said = s.said.Set(key, have.with(a.tx.Seq))
}

// saidBy are the numbers that were said by whom the key means.
func (s *State) saidBy(key string) *Said {
	if h, ok := s.said.Get(key); ok {
		return h
	}
	return new(Said)
}

// check says what is wrong with the account as it is to be.
func (t *SetAccount) check(s *State) error {
	if err := CheckName("account", t.Name); err != nil {
		return err
	}
	if s.BySite(t.Name) != nil {
		return refuse("account %s: that is the name of a site, which speaks for itself", t.Name)
	}
	for _, p := range s.votes {
		if p.Change == Join && p.Site == t.Name {
			return refuse("account %s: that is the name of a site that proposal %d would let in", t.Name, p.ID)
		}
	}
	if len(t.Keys) == 0 || len(t.Keys) > MaxKeys {
		return refuse("account %s: %d keys, 1 to %d are taken", t.Name, len(t.Keys), MaxKeys)
	}
	for i, k := range t.Keys {
		switch {
		case len(k) != ed25519.PublicKeySize:
			return refuse("account %s: key %d has %d bytes, an Ed25519 key has %d", t.Name, i+1, len(k), ed25519.PublicKeySize)
		case i > 0 && bytes.Compare(t.Keys[i-1], k) >= 0:
			return refuse("account %s: keys stand in ascending order, each once", t.Name)
		}
	}
	if t.Threshold < 1 || t.Threshold > len(t.Keys) {
		return refuse("account %s: a threshold of %d of %d keys", t.Name, t.Threshold, len(t.Keys))
	}
	return nil
}

func (t *SetAccount) apply(s *State, a *act) ([]Effect, error) {
	next := *a.account
	if _, found := s.accounts.Get(t.Name); !found {
		if n := s.index.sponsored(a.Author); n >= maxAccounts {
			return nil, refuse("%s is the sponsor of %d accounts, the most that one member may be", a.site(), n)
		}
		s.note(a)
	}
	next.Keys, next.Threshold = t.Keys, t.Threshold
	s.putAccount(&next)
	return []Effect{{Kind: KindAccount, Account: t.Name}}, nil
}

func (t *SetQuota) apply(s *State, a *act) ([]Effect, error) {
	acc := s.Account(t.Account)
	if acc == nil {
		return nil, refuse("there is no account %.70q", t.Account)
	}
	q, next := t.Quota, *acc
	if q.Machines < 0 || q.Images < 0 || q.Memory < 0 || max(q.Machines, q.Images, q.Memory) > maxTotal {
		return nil, refuse("account %s: a quota is 0 for no bound, or a number up to 2^62", acc.Name)
	}
	if acc.Sponsor != a.Author {
		if s.member(acc.Sponsor) != nil {
			return nil, refuse("account %s is sponsored by %s: only it can set the quota", acc.Name, s.Site(acc.Sponsor))
		}
		if n := s.index.sponsored(a.Author); n >= maxAccounts {
			return nil, refuse("%s is the sponsor of %d accounts, the most that one member may be", a.site(), n)
		}
	}
	next.Quota, next.Sponsor = q, a.Author
	s.putAccount(&next)
	return []Effect{{Kind: KindQuota, Account: acc.Name, Member: a.Author}}, nil
}

// putAccount makes a the account of its name. It is the state's from now on.
func (s *State) putAccount(a *Account) {
	if old, ok := s.accounts.Get(a.Name); ok {
		s.index.sponsor(old, -1)
	}
	s.index.sponsor(a, 1)
	s.accounts = s.accounts.Set(a.Name, a)
}

// room says whether an account may have so much more. All are 0 or more, memory at
// most maxSize.
func (s *State) room(name string, more Quota) error {
	acc := s.Account(name)
	if acc == nil {
		return refuse("there is no account %s", name)
	}
	for _, q := range []struct {
		what             string
		used, more, most int64
	}{
		{"machines", acc.Used.Machines, more.Machines, acc.Quota.Machines},
		{"bytes of memory", acc.Used.Memory, more.Memory, acc.Quota.Memory},
		{"images", acc.Used.Images, more.Images, acc.Quota.Images},
	} {
		most := q.most
		if most == 0 {
			most = maxTotal
		}
		if q.more > 0 && q.used > most-q.more {
			return refuse("account %s has %d of %d %s, and %d more are wanted: ask its sponsor, %s, for more",
				name, q.used, most, q.what, q.more, s.Site(acc.Sponsor))
		}
	}
	return nil
}

// use counts what an account has, sign 1 for more and -1 for less. An account that
// was only a site's is kept from now on.
func (s *State) use(name string, what Quota, sign int64) {
	next := *s.Account(name)
	next.Used.Machines += sign * what.Machines
	next.Used.Memory += sign * what.Memory
	next.Used.Images += sign * what.Images
	s.putAccount(&next)
}
