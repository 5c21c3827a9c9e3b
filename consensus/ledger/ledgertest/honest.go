package ledgertest

import (
	"crypto/ed25519"
	"fmt"
	"slices"

	"github.com/dcnode/dcnode/consensus/ledger"
)

const mib = int64(1) << 20

// honest is something that may well be said now: by whom, for which account, what. It
// need not hold.
func (w *world) honest() (ledger.MemberID, string, ledger.Body) {
	if n := w.IntN(100); n < 70 {
		if m := w.machine(); m != nil {
			return w.ofMachine(m)
		}
	}
	switch n := w.IntN(100); {
	case n < 30:
		return w.define()
	case n < 42:
		return w.ofImage()
	case n < 56:
		return w.ofAccount()
	case n < 84:
		return w.ofRoster()
	case n < 90:
		return w.rotate()
	case n < 93:
		out := w.s.Outcome()
		return w.member(), "", &ledger.Root{Index: w.index - min(w.index, 1+uint64(w.IntN(3))), Outcome: out[:]}
	case n < 96:
		return w.member(), "", &ledger.Tick{}
	}
	return w.policyOfAccount()
}

// speaker is who may carry the word of an account, and whether it has to be signed.
func (w *world) speaker(account string) (ledger.MemberID, string) {
	if m := w.s.BySite(account); m != nil {
		return m.ID, ""
	}
	return w.member(), account
}

// ofMachine is something about a machine.
func (w *world) ofMachine(m *ledger.Machine) (ledger.MemberID, string, ledger.Body) {
	if w.IntN(8) == 0 {
		by, account := w.speaker(m.Account)
		return by, account, &ledger.SetPolicy{Machine: m.Name, Policy: w.policy(m.Name, w.IntN(3) == 0)}
	}
	if len(m.Policy.Movers) > 0 && w.IntN(3) == 0 || w.IntN(30) == 0 {
		return w.approve(m)
	}
	mv := m.Move
	switch {
	case mv == nil && w.IntN(12) == 0:
		if w.s.Member(m.Owner) == nil {
			by, account := w.speaker(m.Account)
			return by, account, &ledger.Delete{Name: m.Name}
		}
		return m.Owner, "", &ledger.Delete{Name: m.Name}
	case mv == nil && m.Last != nil && m.Last.Phase == ledger.Done && m.Last.Truth == nil && w.IntN(2) == 0:
		return m.Last.From, "", &ledger.Report{Machine: m.Name, Move: m.Last.ID, Truth: ledger.Truth{
			Image: w.Int64N(900 * mib), Disk: w.Int64N(90 * mib), Memory: w.Int64N(900 * mib), Pause: w.Int64N(400),
		}}
	case mv == nil && (m.Stopped || w.IntN(15) == 0):
		return m.Owner, "", &ledger.Set{Name: m.Name, Stopped: !m.Stopped}
	case mv == nil:
		return m.Owner, "", w.intent(m)
	case mv.Phase == ledger.Bidding:
		return w.bid(m)
	}
	return w.onTheWay(m, mv)
}

func (w *world) approve(m *ledger.Machine) (ledger.MemberID, string, ledger.Body) {
	who := "a1"
	movers := slices.Clone(m.Policy.Movers)
	if acc := w.s.Account(m.Account); acc != nil {
		movers = append(movers, acc.Policy.Movers...)
	}
	if len(movers) > 0 {
		who = pick(w, movers)
	}
	t := &ledger.Approve{Machine: m.Name, Epoch: m.Epoch, Until: w.now + ledger.Time(w.IntN(600))*ledger.Second}
	if w.IntN(2) == 0 {
		t.To = w.member()
	}
	by, account := w.speaker(who)
	return by, account, t
}

func (w *world) intent(m *ledger.Machine) *ledger.Intent {
	t := &ledger.Intent{Machine: m.Name, Epoch: m.Epoch, Needs: ledger.Needs{
		Memory: m.Memory, Disk: w.Int64N(3) * mib, VCPUs: w.IntN(4), Driver: "qemu", Version: "10.0.2",
		MemoryBytes: w.Int64N(100 * mib), DiskBytes: w.Int64N(100 * mib), DirtyRate: w.Int64N(20 * mib),
	}}
	if w.IntN(3) == 0 {
		t.Needs.Accelerator, t.Needs.MachineType, t.Needs.CPUFeatures = "kvm", "q35", []string{"avx", "sse4"}
	}
	if w.IntN(4) == 0 {
		t.Only = w.member()
	}
	if w.IntN(4) == 0 {
		t.Limits = ledger.Limits{MaxDowntime: w.Int64N(400), Bandwidth: w.Int64N(50 * mib), PostCopy: w.IntN(3) == 0}
	}
	for _, o := range w.s.Members() {
		if o.ID != m.Owner && w.IntN(4) == 0 {
			t.Needs.Paths = append(t.Needs.Paths, ledger.Way{Member: o.ID, RTT: w.Int64N(200_000), Bandwidth: w.Int64N(100 * mib)})
		}
	}
	return t
}

// bid is by one that has not bid yet, if there is one.
func (w *world) bid(m *ledger.Machine) (ledger.MemberID, string, ledger.Body) {
	mv := m.Move
	var free []ledger.MemberID
	for _, o := range w.s.Members() {
		bidden := slices.ContainsFunc(mv.Bids, func(b *ledger.Bid) bool { return b.Member == o.ID })
		if o.ID != m.Owner && !bidden && (mv.Only == 0 || mv.Only == o.ID) {
			free = append(free, o.ID)
		}
	}
	if len(free) == 0 || w.IntN(25) == 0 {
		return mv.From, "", &ledger.Abort{Machine: m.Name, Move: mv.ID, Reason: "not now"}
	}
	room := mv.Needs.Memory * pick(w, []int64{1, 1, 1, 2, 2, 5, 5, 0})
	b := &ledger.Bid{
		Machine: m.Name, Move: mv.ID, Able: true, Expires: w.now + ledger.Time(1+w.IntN(50))*ledger.Second, FreeMemory: room,
		FreeDisk: w.Int64N(20) * 50 * mib, FreeVCPUs: w.Int64N(8), Driver: "qemu", Version: "10.0.2", Accelerator: "kvm",
		Machines: []string{"pc", "q35"}, CPUModel: "host", CPUFeatures: []string{"avx", "sse4", "vmx"}, RTT: w.Int64N(100_000),
		Bandwidth: w.Int64N(8) * 20 * mib, MissingData: w.Int64N(4) * 25 * mib, Moves: w.Int64N(3),
	}
	if w.IntN(2) == 0 { // alike, so that there are ties
		b.FreeDisk, b.RTT, b.Bandwidth, b.MissingData = 1000*mib, 1000, 100*mib, 0
	}
	switch w.IntN(12) {
	case 0:
		b.Able, b.Reason = false, "full"
	case 1:
		b.CPUFeatures = []string{"vmx"}
	case 2:
		b.Driver = "memvm"
	}
	return pick(w, free), "", b
}

// onTheWay is something about a machine that was promised to a member.
func (w *world) onTheWay(m *ledger.Machine, mv *ledger.Move) (ledger.MemberID, string, ledger.Body) {
	n := w.IntN(24)
	switch {
	case mv.Phase == ledger.Released && (n < 10 || n < 20 && !mv.LeaseOver):
		return mv.To, "", &ledger.Confirm{Machine: m.Name, Epoch: m.Epoch}
	case mv.Phase == ledger.Released && (mv.LeaseOver || n < 21):
		return mv.From, "", &ledger.Reclaim{Machine: m.Name, Epoch: m.Epoch}
	case mv.Phase == ledger.Released:
		return mv.To, "", &ledger.Decline{Machine: m.Name, Epoch: m.Epoch, Reason: "cannot load it"}
	case n == 0:
		return mv.From, "", &ledger.Abort{Machine: m.Name, Move: mv.ID}
	case n == 1:
		return mv.To, "", &ledger.Abort{Machine: m.Name, Move: mv.ID, Reason: "full by now"}
	case !mv.Accepted && n < 14:
		return mv.To, "", &ledger.Accept{Machine: m.Name, Move: mv.ID}
	case mv.Accepted && n < 8:
		return mv.From, "", &ledger.Beat{Machine: m.Name, Move: mv.ID, Bytes: mv.Moved + w.Int64N(10)*mib}
	}
	return mv.From, "", &ledger.Release{Machine: m.Name, Move: mv.ID, Epoch: m.Epoch + 1, To: mv.To, After: ledger.Time(w.IntN(1000))}
}

func (w *world) define() (ledger.MemberID, string, ledger.Body) {
	images := w.s.Images()
	if len(images) == 0 {
		return w.ofImage()
	}
	img := pick(w, images)
	t := &ledger.Define{Name: w.machineName(), Image: img.Name, Spec: []byte("{}"), Memory: (1 + w.Int64N(4)) * mib}
	if tag := pick(w, img.Tags).Tag; tag != "" {
		t.Image += ":" + tag
	}
	if w.IntN(3) == 0 {
		t.Policy = w.policy(t.Name, true)
	}
	by := w.member()
	account := ""
	if w.IntN(2) == 0 {
		account = fmt.Sprintf("a%d", w.IntN(4)*w.IntN(2)) // most of one: what is kept apart is of one account
		t.Site = w.s.Site(by)
	}
	return by, account, t
}

func (w *world) machineName() string { return fmt.Sprintf("m%d", w.IntN(10)) }
func (w *world) accountName() string { return fmt.Sprintf("a%d", w.IntN(4)) }

// policy is one that a person might set: kind ones leave most moves possible.
func (w *world) policy(of string, kind bool) ledger.Policy {
	var p ledger.Policy
	var sites, others, kin []string
	account := ""
	if m := w.s.Machine(of); m != nil {
		account = m.Account
	}
	for _, m := range w.s.Members() {
		sites = append(sites, m.Site)
	}
	for i := range 10 {
		if name := fmt.Sprintf("m%d", i); name != of {
			others = append(others, name)
			if m := w.s.Machine(name); m == nil || account == "" || m.Account == account || w.IntN(20) == 0 {
				kin = append(kin, name)
			}
		}
	}
	slices.Sort(sites)
	rules := []func(){
		func() { p.Regions = some(w, []string{"ap", "eu", "us"}, 2) },
		func() { p.NotRegions = some(w, []string{"ap", "eu", "us"}, 4) },
		func() { p.Sites = some(w, sites, 2) },
		func() { p.NotSites = some(w, sites, 4) },
		func() { p.Apart = some(w, kin, 4) },
		func() { p.Apart = some(w, kin, 4) },
		func() { p.With = some(w, others, 12) },
		func() { p.MaxDowntime, p.MaxBandwidth = 1+w.Int64N(1000), 1+w.Int64N(80*mib) },
		func() { p.Windows = w.windows() },
		func() {
			p.Movers = some(w, append([]string{"a0", "a1", "a2"}, sites...), 3)
			p.Approvals = min(len(p.Movers), w.IntN(3))
		},
		func() { p.Pinned = true },
		func() { p.PostCopy = true },
	}
	n := 1
	if !kind {
		n = 1 + w.IntN(4)
	}
	for range n {
		if rule := w.IntN(len(rules) * 3 / 2); rule < len(rules) {
			rules[rule]()
		}
	}
	return p
}

func (w *world) windows() []ledger.Span {
	var out []ledger.Span
	for range 1 + w.IntN(2) {
		s := ledger.Span{From: w.IntN(24 * 60), To: w.IntN(24*60 + 1), Days: some(w, []int{0, 1, 2, 3, 4, 5, 6}, 2)}
		if w.IntN(2) == 0 { // one that is open now, and will close soon
			now := int(w.now/ledger.Minute) % (24 * 60)
			s.From, s.To, s.Days = (now+24*60-w.IntN(200))%(24*60), (now+1+w.IntN(20))%(24*60), nil
		}
		if s.From != s.To {
			out = append(out, s)
		}
	}
	return out
}

func (w *world) policyOfAccount() (ledger.MemberID, string, ledger.Body) {
	accounts := w.s.Accounts()
	if len(accounts) == 0 {
		return w.ofAccount()
	}
	acc := pick(w, accounts)
	p := w.policy("", true)
	p.Apart, p.With = nil, nil
	by, account := w.speaker(acc.Name)
	return by, account, &ledger.SetPolicy{Account: acc.Name, Policy: p}
}

func (w *world) ofImage() (ledger.MemberID, string, ledger.Body) {
	name := fmt.Sprintf("i%d", w.IntN(3))
	tag := pick(w, []string{"", "", "v1", "v2"})
	img := w.s.Image(name)
	switch n := w.IntN(10); {
	case img != nil && n < 3:
		return w.member(), "", &ledger.Hold{Name: name, Tag: tag, Held: w.IntN(3) > 0}
	case img != nil && n < 5:
		by, account := w.speaker(img.Account)
		return by, account, &ledger.Withdraw{Name: name, Tag: tag}
	}
	k := w.IntN(3)
	t := &ledger.Publish{Name: name, Tag: tag, Commit: fmt.Sprintf("bafy%d", k), Size: int64(k+1) * mib, Stored: int64(k) * mib}
	by, account := w.member(), ""
	switch {
	case img != nil:
		by, account = w.speaker(img.Account)
	case w.IntN(3) == 0:
		account = w.accountName()
	}
	if account != "" {
		t.Site = w.s.Site(by)
	}
	return by, account, t
}

func (w *world) ofAccount() (ledger.MemberID, string, ledger.Body) {
	name, by := w.accountName(), w.member()
	acc := w.s.Account(name)
	if acc != nil && w.IntN(3) == 0 {
		if w.s.Member(acc.Sponsor) != nil {
			by = acc.Sponsor
		}
		if w.IntN(4) == 0 {
			name = w.s.Site(by) // a quota for itself
		}
		return by, "", &ledger.SetQuota{Account: name, Quota: ledger.Quota{Machines: w.Int64N(4), Memory: w.Int64N(10) * mib, Images: w.Int64N(3)}}
	}
	t := &ledger.SetAccount{Name: name, Site: w.s.Site(by)}
	for range 1 + w.IntN(3) {
		t.Keys = append(t.Keys, public(w.key(fmt.Sprintf("account %d", w.IntN(20)))))
	}
	slices.SortFunc(t.Keys, slices.Compare)
	t.Keys = slices.CompactFunc(t.Keys, slices.Equal)
	t.Threshold = 1 + w.IntN(len(t.Keys))
	return by, name, t
}

func (w *world) ofRoster() (ledger.MemberID, string, ledger.Body) {
	if open := w.s.Proposals(); len(open) > 0 && w.IntN(6) > 0 {
		p, by := pick(w, open), w.member()
		for range 3 { // rather one that has not voted yet
			if slices.ContainsFunc(p.Yes, func(v ledger.Vote) bool { return v.Member == by }) {
				by = w.member()
			}
		}
		return by, "", p.Vote(w.IntN(7) > 0)
	}
	members := w.s.Members()
	t := &ledger.Propose{Reason: "so it is"}
	n := w.IntN(10)
	if len(members) < 4 && n < 9 {
		n %= 4
	}
	switch {
	case n < 4 && len(members) < 13:
		w.made++
		number := w.made
		if w.IntN(4) == 0 {
			number = 1 + w.IntN(w.made) // one that was here before
		}
		key := w.key(fmt.Sprint("site ", number))
		t.Change, t.Site, t.Region, t.Weight, t.Key = ledger.Join, fmt.Sprintf("s%d", number), w.region(), w.weight(), public(key)
		t.Proof = ed25519.Sign(key, ledger.CardBytes(w.network, t.Site, t.Region, t.Weight, t.Key, w.before(t.Key)))
	case n < 8:
		t.Change, t.Member, t.Force = ledger.Leave, w.member(), w.IntN(2) == 0
		if open := w.s.Proposals(); len(open) > 0 && w.IntN(2) == 0 { // one whose votes are then of nobody
			if yes := pick(w, open).Yes; len(yes) > 0 && w.s.Member(yes[0].Member) != nil {
				t.Member = yes[0].Member
			}
		}
	default:
		t.Change, t.Member, t.Region = ledger.Update, w.member(), w.region()
		if w.IntN(2) == 0 {
			t.Weight = w.weight()
		}
	}
	return w.member(), "", t
}

// before is what a card says of who had the key, or now and then what an older one did.
func (w *world) before(key []byte) ledger.MemberID {
	if w.IntN(5) == 0 {
		return 0
	}
	return w.s.LastNumber(key)
}

func (w *world) rotate() (ledger.MemberID, string, ledger.Body) {
	m := pick(w, w.s.Members())
	if len(m.Old) > 0 {
		return m.ID, "", &ledger.Rotate{}
	}
	w.made++
	key := w.key(fmt.Sprint("rotated ", w.made))
	return m.ID, "", &ledger.Rotate{Key: public(key), Proof: ed25519.Sign(key, ledger.RotateBytes(w.network, m.ID, public(key)))}
}
