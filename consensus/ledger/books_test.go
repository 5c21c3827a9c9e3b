package ledger

import (
	"cmp"
	"crypto/ed25519"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestTheLawKeepsItsBooks throws random transactions of members and accounts at the
// ledger. After each, what the state counts is what a count over it finds, who is a
// member follows from the votes, and a replica made of a snapshot is the same.
func TestTheLawKeepsItsBooks(t *testing.T) {
	accepted := map[Kind]int{}
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 7))
		w := newWorld(t, "s1", "s2*3", "s3")
		used := map[MemberID]bool{1: true, 2: true, 3: true}
		for range 300 {
			m := w.s.members[r.IntN(len(w.s.members))]
			tx := randomLaw(r, w, m)
			was := maps.Collect(membersOf(w.s))
			w.seq++
			tx.Seq = w.seq
			signAs(t, &tx)
			if _, err := w.carry(m.Site, tx); err == nil {
				accepted[tx.Body.Kind()]++
			}
			checkBooks(t, w.s)
			for id := range membersOf(w.s) {
				if _, old := was[id]; !old && used[id] {
					t.Fatalf("seed %d: number %d is used again", seed, id)
				}
				used[id] = true
			}
			if t.Failed() {
				t.Fatalf("seed %d, after %s by %s: %+v", seed, tx.Body.Kind(), m.Site, tx.Body)
			}
		}
		sameAfterLoad(t, w)
	}
	for _, k := range []Kind{
		KindPropose, KindVote, KindRotate, KindAccount, KindQuota, KindPublish, KindWithdraw, KindHold, KindDefine, KindDelete, KindPolicy,
		KindIntent, KindBid, KindRelease, KindConfirm,
	} {
		if accepted[k] < 20 {
			t.Errorf("%s was accepted %d times only, so little was tested: %v", k, accepted[k], accepted)
		}
	}
}

func membersOf(s *State) func(func(MemberID, *Member) bool) {
	return func(yield func(MemberID, *Member) bool) {
		for _, m := range s.members {
			if !yield(m.ID, m) {
				return
			}
		}
	}
}

// signAs signs for an account with the keys that are named after it.
func signAs(t *testing.T, tx *Tx) {
	if tx.Account == "" {
		return
	}
	if err := Sign(testNet, tx, testKey(tx.Account)); err != nil {
		t.Fatal(err)
	}
}

// randomLaw is a transaction that is likely to fit the state.
func randomLaw(r *rand.Rand, w *world, m *Member) Tx {
	s := w.s
	account, tx := "", Tx{}
	if r.IntN(3) == 0 {
		account = fmt.Sprintf("a%d", r.IntN(3))
		tx.Account = account
	}
	site := ""
	if account != "" {
		site = m.Site
	}
	image, tag := fmt.Sprintf("i%d", r.IntN(3)), []string{"", "v1", "v2"}[r.IntN(3)]
	name := fmt.Sprintf("m%d", r.IntN(6))
	other := s.members[r.IntN(len(s.members))]
	switch r.IntN(16) {
	case 0:
		key := fmt.Sprintf("a%d", r.IntN(3))
		return Tx{Account: key, Body: &SetAccount{Name: key, Keys: [][]byte{testPub(key)}, Threshold: 1, Site: m.Site}}
	case 1:
		return Tx{Body: &SetQuota{Account: fmt.Sprintf("a%d", r.IntN(3)), Quota: Quota{Machines: int64(r.IntN(3)), Memory: int64(r.IntN(9)), Images: int64(r.IntN(3))}}}
	case 2, 3:
		tx.Body = &Publish{Name: image, Tag: tag, Commit: fmt.Sprintf("c%d", r.IntN(4)), Size: 1, Stored: 1, Site: site}
	case 4:
		tx.Body = &Withdraw{Name: image, Tag: tag}
	case 5:
		return Tx{Body: &Hold{Name: image, Tag: tag, Held: r.IntN(3) > 0}}
	case 6, 7:
		tx.Body = &Define{Name: name, Image: Ref(image, tag), Memory: int64(1 + r.IntN(4)), Site: site}
	case 8:
		if r.IntN(3) > 0 {
			tx.Account = ""
		}
		tx.Body = &Delete{Name: name}
	case 9:
		tx.Body = &SetPolicy{Account: cmp.Or(account, m.Site), Policy: Policy{MaxDowntime: int64(r.IntN(3))}}
	case 10, 11:
		return Tx{Body: randomMove(r, s, m)}
	case 12:
		return Tx{Body: randomRotate(r, m)}
	case 13:
		return Tx{Body: randomProposal(r, s, other)}
	default:
		if len(s.votes) == 0 {
			return Tx{Body: randomProposal(r, s, other)}
		}
		return Tx{Body: s.votes[r.IntN(len(s.votes))].Vote(r.IntN(8) > 0)}
	}
	return tx
}

func randomRotate(r *rand.Rand, m *Member) Body {
	if len(m.Old) > 0 {
		return new(Rotate)
	}
	name := fmt.Sprintf("%s-%d", m.Site, r.IntN(1000))
	return &Rotate{Key: testPub(name), Proof: signText(name, RotateBytes(testNet, m.ID, testPub(name)))}
}

func signText(key string, text []byte) []byte {
	return ed25519.Sign(testKey(key), text)
}

func randomProposal(r *rand.Rand, s *State, m *Member) Body {
	site := fmt.Sprintf("s%d", 1+r.IntN(6))
	weight := uint64(1 + r.IntN(4))
	switch r.IntN(4) {
	case 0:
		return &Propose{Change: Leave, Member: m.ID, Force: r.IntN(2) == 0}
	case 1:
		return &Propose{Change: Update, Member: m.ID, Weight: weight}
	}
	return &Propose{Change: Join, Site: site, Weight: weight, Key: testPub(site), Proof: signText(site, CardBytes(testNet, site, "", weight, testPub(site), s.LastNumber(testPub(site))))}
}

// randomMove takes the move of a machine a step on, if the member can.
func randomMove(r *rand.Rand, s *State, by *Member) Body {
	for _, k := range r.Perm(6) {
		m := s.Machine(fmt.Sprintf("m%d", k))
		switch {
		case m == nil:
		case m.Move == nil && m.Owner == by.ID:
			return &Intent{Machine: m.Name, Epoch: m.Epoch, Needs: Needs{Memory: m.Memory, Driver: "memvm"}}
		case m.Move == nil:
		case m.Move.Phase == Bidding && by.ID != m.Owner:
			return &Bid{Machine: m.Name, Move: m.Move.ID, Able: true, Expires: s.now + Second, FreeMemory: 100, Driver: "memvm", Bandwidth: 1000}
		case m.Move.Phase == Copying && by.ID == m.Owner:
			return &Release{Machine: m.Name, Move: m.Move.ID, Epoch: m.Epoch + 1, To: m.Move.To}
		case m.Move.Phase == Released && by.ID == m.Owner:
			return &Confirm{Machine: m.Name, Epoch: m.Epoch}
		}
	}
	return &Hold{Name: "i0", Held: true}
}

// checkBooks counts again what the state counts.
func checkBooks(t *testing.T, s *State) {
	t.Helper()
	used := map[string]Quota{}
	made := map[string]int64{}
	for m := range s.Machines() {
		u := used[m.Account]
		used[m.Account] = Quota{u.Machines + 1, u.Memory + m.Memory, u.Images}
		made[madeFrom(m)]++
		if s.VersionOf(m) == nil {
			t.Errorf("machine %s was made from %s, which is not there", m.Name, madeFrom(m))
		}
		if mv := m.Move; mv != nil && mv.Phase != Released {
			for _, id := range []MemberID{mv.From, mv.To, mv.Only} {
				if id != 0 && s.member(id) == nil {
					t.Errorf("machine %s: the move needs member %d, which has left", m.Name, id)
				}
			}
		}
	}
	for _, img := range s.Images() {
		u := used[img.Account]
		used[img.Account] = Quota{u.Machines, u.Memory, u.Images + 1}
		for i, v := range img.Tags {
			if v.Machines != made[img.Name+"@"+v.Commit] {
				t.Errorf("image %s: %d machines are made from %s, it says %d", Ref(img.Name, v.Tag), made[img.Name+"@"+v.Commit], v.Commit, v.Machines)
			}
			for _, id := range v.Holders {
				if s.member(id) == nil {
					t.Errorf("image %s: holder %d has left", img.Name, id)
				}
			}
			if i > 0 && v.Tag != "" && img.Tags[i-1].Tag >= v.Tag || v.Tag == "" && v.Machines == 0 || !slices.IsSorted(v.Holders) {
				t.Errorf("image %s: versions are not in order: %+v", img.Name, img.Tags)
			}
		}
	}
	sponsors := map[MemberID]int{}
	for _, a := range s.Accounts() {
		if a.Used != used[a.Name] {
			t.Errorf("account %s has %+v and says %+v", a.Name, used[a.Name], a.Used)
		}
		if len(a.Keys) == 0 && s.BySite(a.Name) == nil {
			t.Errorf("account %s has no keys and is no site's", a.Name)
		}
		if len(a.Keys) > 0 && s.BySite(a.Name) != nil {
			t.Errorf("account %s has keys and is a site's", a.Name)
		}
		sponsors[a.Sponsor]++
		delete(used, a.Name)
	}
	if len(used) > 0 {
		t.Errorf("accounts that are not kept have %v", used)
	}
	for _, o := range s.index.sponsors {
		if sponsors[o.member] != o.accounts {
			t.Errorf("member %d sponsors %d accounts, the index says %d", o.member, sponsors[o.member], o.accounts)
		}
		delete(sponsors, o.member)
	}
	if len(sponsors) > 0 {
		t.Errorf("sponsors that the index does not know: %v", sponsors)
	}
	checkRoster(t, s)
}

func checkRoster(t *testing.T, s *State) {
	t.Helper()
	keys := map[string]string{}
	own := func(key []byte, whose string) {
		if have, ok := keys[string(key)]; ok && len(key) > 0 {
			t.Errorf("%s and %s have one key", have, whose)
		}
		keys[string(key)] = whose
	}
	if !slices.IsSortedFunc(s.members, func(a, b *Member) int { return int(a.ID) - int(b.ID) }) || s.Weight() == 0 || len(s.members) > MaxMembers {
		t.Errorf("the roster is not one: %+v", s.members)
	}
	sites := map[string]bool{}
	for _, m := range s.members {
		own(m.Key, m.Site)
		own(m.Old, m.Site+", before")
		if sites[m.Site] || m.ID > s.lastID {
			t.Errorf("member %d, site %s: number or site is not its own", m.ID, m.Site)
		}
		sites[m.Site] = true
	}
	of := map[MemberID]int{}
	for _, p := range s.votes {
		own(p.Key, fmt.Sprintf("proposal %d", p.ID))
		if of[p.By]++; of[p.By] > maxProposalsOf || len(s.votes) > maxProposals {
			t.Errorf("%d proposals are open, %d of one member", len(s.votes), of[p.By])
		}
		if p.Change == Join && sites[p.Site] || p.Change != Join && s.member(p.Member) == nil {
			t.Errorf("proposal %d, %s of %s, cannot be", p.ID, p.Change, p.Site)
		}
		var yes, no uint64
		for _, m := range s.members {
			if slices.ContainsFunc(p.Yes, func(v Vote) bool { return v.Member == m.ID }) {
				yes += m.Weight
			}
			if slices.ContainsFunc(p.No, func(v Vote) bool { return v.Member == m.ID }) {
				no += m.Weight
			}
		}
		if total := s.Weight(); 3*yes > 2*total && s.mayEnact(p) == nil || 3*no >= total {
			t.Errorf("proposal %d waits with %d for and %d against of %d", p.ID, yes, no, total)
		}
	}
	// What the log of changes makes of the founders is the roster.
	if err := s.checkChanges(); err != nil {
		t.Error(err)
	}
}

// sameAfterLoad lets a replica that was made of a snapshot go on beside the state.
func sameAfterLoad(t *testing.T, w *world) {
	t.Helper()
	root, b, err := w.s.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	twin, err := Load(b)
	if err != nil {
		t.Fatal(err)
	}
	checkBooks(t, twin)
	if r, err := twin.Root(); err != nil || r != root {
		t.Errorf("a replica made of a snapshot has another root (%v)", err)
	}
	r := rand.New(rand.NewPCG(w.index, 9))
	for range 40 {
		m := w.s.members[r.IntN(len(w.s.members))]
		w.seq++
		tx := randomLaw(r, w, m)
		tx.Seq = w.seq
		signAs(t, &tx)
		p := w.place(m.Site, int64(w.s.now/Millisecond)+1)
		w.s.Advance(p)
		twin.Advance(p)
		_, err1 := w.s.Apply(testNet, p, tx)
		_, err2 := twin.Apply(testNet, p, tx)
		if fmt.Sprint(err1) != fmt.Sprint(err2) || w.s.Outcome() != twin.Outcome() {
			t.Fatalf("%s: the state says %v, the replica %v", tx.Body.Kind(), err1, err2)
		}
	}
	checkBooks(t, twin)
	a, _ := w.s.Root()
	if b, err := twin.Root(); err != nil || a != b {
		t.Errorf("after the same events a replica made of a snapshot has another root (%v)", err)
	}
}
