package ledger

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/dcnode/dcnode/consensus/ledger/merkle"
)

// long is a list of n different names, each as long as one may be, in order.
func long(prefix string, n, size int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%s%0*d", prefix, size-len(prefix), i)
	}
	return out
}

// TestNobodyMakesTheStateTooLargeToKeep lets everybody say the longest that is taken of
// one machine, account and image: each is still a value that the maps of the state keep.
func TestNobodyMakesTheStateTooLargeToKeep(t *testing.T) {
	var founders []string
	for i := range MaxMembers {
		founders = append(founders, fmt.Sprintf("s%062d/%s", i, strings.Repeat("r", MaxName)))
	}
	w := newWorld(t, founders...)
	for i := range founders {
		founders[i], _, _ = strings.Cut(founders[i], "/")
	}
	first, name := founders[0], strings.Repeat("m", MaxName)
	image := strings.Repeat("i", MaxName)
	for i := range maxTags {
		w.must(first, &Publish{Name: image, Tag: fmt.Sprintf("t%062d", i), Commit: fmt.Sprintf("%0*d", maxCommit, i), Size: maxSize, Stored: maxSize})
		for _, site := range founders {
			if i < 2 {
				w.must(site, &Hold{Name: image, Tag: fmt.Sprintf("t%062d", i), Held: true})
			}
		}
	}
	// Holders cost the same under each tag: what two of them hold stands for all.
	img := w.s.Image(image).edit()
	for i := range img.Tags {
		img.Tags[i].Holders = slices.Clone(img.Tags[0].Holders)
		for k := range img.Tags[i].Holders {
			img.Tags[i].Holders[k] |= 1 << 63
		}
	}
	fitsInMap(t, "image", img)

	windows := slices.Repeat([]Span{{Days: []int{0, 1, 2, 3, 4, 5, 6}, From: 1000, To: 1001}}, maxPolicyList)
	policy := Policy{
		NotSites: long("a", 64, 80), NotRegions: long("b", 30, 80), Movers: long("c", maxMovers, 63),
		Windows: windows[:1], MaxDowntime: maxPause, MaxBandwidth: maxSize, Approvals: 1, PostCopy: true,
	}
	for i := range windows {
		windows[i].From, windows[i].To = i*20, i*20+19
	}
	policy.Windows = windows
	for len(policy.NotSites) > 0 && policy.check() != nil { // as much as is taken
		policy.NotSites = policy.NotSites[1:]
	}
	if err := policy.check(); err != nil {
		t.Fatal(err)
	}
	ref := Ref(image, fmt.Sprintf("t%062d", 0))
	w.must(first, &Define{Name: name, Image: ref, Memory: maxSize, Spec: make([]byte, maxSpec)})
	needs := Needs{
		Memory: 1, Disk: maxSize, VCPUs: 1, Driver: strings.Repeat("d", maxTerm), Version: strings.Repeat("v", maxShort),
		Accelerator: strings.Repeat("a", maxShort), MachineType: strings.Repeat("t", maxShort), CPUFeatures: long("f", 80, 100),
		MemoryBytes: maxSize, DiskBytes: maxSize, DirtyRate: maxSize,
	}
	for i := range MaxMembers {
		needs.Paths = append(needs.Paths, Way{Member: MemberID(i + 1), RTT: maxRTT, Bandwidth: maxSize, Unsure: true})
	}
	for round := range 2 { // the second with a last move
		w.must(first, &Intent{Machine: name, Epoch: 1, Needs: needs})
		for _, site := range founders[1:] {
			mv := w.s.Machine(name).Move
			w.must(site, &Bid{
				Machine: name, Move: mv.ID, Able: round == 1, Expires: w.s.now + Second, FreeMemory: maxSize, FreeDisk: maxSize, FreeVCPUs: maxVCPUs,
				Driver: needs.Driver, Version: strings.Repeat("w", maxTerm), Accelerator: strings.Repeat("a", maxTerm),
				Machines: long("x", 60, maxShort), CPUModel: strings.Repeat("c", maxTerm), CPUFeatures: long("g", 60, maxShort),
				RTT: maxRTT, Bandwidth: maxSize, MissingData: maxSize, Moves: maxVCPUs, Reason: strings.Repeat("?", maxReason),
			})
			if _, err := w.s.Root(); err != nil {
				t.Fatal(err)
			}
		}
	}
	m, _ := edit(w.s.Machine(name))
	if m.Last == nil {
		t.Fatal("no bidding has ended")
	}
	// What selection makes of it, with all that may stand beside it.
	bids := m.Last
	m.Move = &Move{}
	*m.Move = *bids
	m.Move.Bids, m.Move.Against, m.Move.Needs = nil, nil, needs
	for i, site := range founders[1:] {
		all := Bid{
			Machine: name, Move: 1 << 63, Able: true, Expires: 1 << 62, FreeMemory: maxSize, FreeDisk: maxSize, FreeVCPUs: maxVCPUs,
			Driver: needs.Driver, Version: strings.Repeat("w", maxTerm), Accelerator: strings.Repeat("a", maxTerm), Machines: long("x", 60, maxShort),
			CPUModel: strings.Repeat("c", maxTerm), RTT: maxRTT, Bandwidth: maxSize, MissingData: maxSize, Moves: maxVCPUs,
			Reason: strings.Repeat("?", maxReason),
		}
		id := MemberID(1<<63) + MemberID(i)
		b := all.kept(&needs, w.s.text())
		b.Member, b.Index = id, 1<<63
		m.Move.Bids = append(m.Move.Bids, b)
		m.Move.Against = append(m.Move.Against, Against{id, brief([]string{strings.Repeat(site, 100), site}, w.s.text())})
	}
	m.Policy = policy
	for _, mover := range slices.Concat(policy.Movers, policy.Movers) { // of both policies
		m.Approvals = append(m.Approvals, Approval{Account: mover, Epoch: 1 << 63, To: 1 << 63, Until: 1 << 62})
	}
	for _, mover := range policy.Movers {
		m.Move.Approved = append(m.Move.Approved, mover, mover)
	}
	for range 2 * maxHandovers {
		hand(m, 1<<63, KindDecline, Place{Index: 1 << 63})
	}
	m.Move.Reason = strings.Repeat("r", maxReason)
	m.Last.Reason = m.Move.Reason
	fitsInMap(t, "machine", m)

	account := Account{Name: name, Threshold: MaxKeys, Sponsor: 1 << 63, Quota: Quota{maxTotal, maxTotal, maxTotal}, Used: Quota{maxTotal, maxTotal, maxTotal}, Policy: policy}
	for range MaxKeys {
		account.Keys = append(account.Keys, testPub("k"))
	}
	fitsInMap(t, "account", &account)
}

func fitsInMap(t *testing.T, what string, v any) {
	t.Helper()
	b, err := merkle.Encode(v)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the largest %s has %d bytes of %d", what, len(b), merkle.MaxValue)
	if len(b) > merkle.MaxValue {
		t.Errorf("a %s of %d bytes is taken, and a map keeps %d at most", what, len(b), merkle.MaxValue)
	}
}
