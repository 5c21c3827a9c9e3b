package ledger

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Verdict is what the ledger makes of a member as the destination of a move.
type Verdict struct {
	Member   MemberID `json:"member"`
	Eligible bool     `json:"eligible"`
	Rank     int      `json:"rank,omitempty"`     // 1 would be selected; 0: not eligible
	Reasons  []string `json:"reasons,omitempty"`  // all that is against it
	Remedies []string `json:"remedies,omitempty"` // what would make it eligible, where that can be said
	Forecast Forecast `json:"forecast"`           // if it has bid
	// Score is what ranks are made by: the predicted milliseconds times what the
	// member's word has been worth so far.
	Score int64 `json:"score,omitempty"`
	// Room is what would be reserved there.
	Room Room `json:"room"`
}

func (v *Verdict) no(reason, remedy string) {
	v.Reasons = append(v.Reasons, reason)
	if remedy != "" {
		v.Remedies = append(v.Remedies, remedy)
	}
}

// evaluate judges every member as the destination of a move of m, by member: same
// state, same bids, same answer everywhere. It changes nothing.
//
// What a bid says is believed as far as it cannot be known better. The bandwidth is
// the lesser of the bidder's and the owner's own measurement, the round trip the
// greater. Regions and the room that is promised already are the ledger's own
// knowledge. What a member claims to miss of the image cannot be checked before the
// move; the time that its moves take beside what its bids had promised can, and its
// later scores are multiplied by that.
func (s *State) evaluate(m *Machine, mv *Move, bids []*Bid, at Time) []Verdict {
	out := make([]Verdict, 0, len(s.members))
	closed := s.closed(m, at)
	for _, dst := range s.members {
		v := Verdict{Member: dst.ID}
		if dst.ID == m.Owner {
			v.no("it is there now", "")
			out = append(out, v)
			continue
		}
		if mv.Only != 0 && dst.ID != mv.Only {
			v.no("only "+s.Site(mv.Only)+" was asked for", "")
		}
		if closed != "" {
			v.no(closed, "wait until the window opens, or change the windows of the policy of "+m.Name)
		}
		for _, o := range s.objections(m, dst) {
			v.no(o.why, o.remedy)
		}
		i := slices.IndexFunc(bids, func(b *Bid) bool { return b.Member == dst.ID })
		switch {
		case i >= 0:
			s.judge(&v, m, mv, dst, bids[i], at)
		case dst.Record.Silent >= MaxSilent:
			v.no(fmt.Sprintf("did not answer, and not in the %d biddings before: nobody waits for it", dst.Record.Silent), "see why "+dst.Site+" does not answer: `dcnode member ls`")
		default:
			v.no("did not answer", "see whether "+dst.Site+" is reachable: `dcnode member ls`")
		}
		v.Eligible = len(v.Reasons) == 0
		out = append(out, v)
	}
	s.rankAll(mv, out)
	return out
}

// judge looks at what a member has bid.
func (s *State) judge(v *Verdict, m *Machine, mv *Move, dst *Member, b *Bid, at Time) {
	if !b.Able {
		v.no(b.Reason, "")
		return
	}
	if at >= b.Expires {
		v.no("its bid has expired", "ask again")
	}
	s.judgeDriver(v, &mv.Needs, dst, b)
	s.judgeRoom(v, &mv.Needs, dst, b)
	rtt, bandwidth, unsure := believed(&mv.Needs, b)
	if bandwidth == 0 {
		v.no("the way to it was not measured", "see whether "+dst.Site+" is reachable: `dcnode member ls`")
		return
	}
	v.Forecast = forecast(work{
		image: b.MissingData, disk: mv.Needs.DiskBytes, memory: mv.Needs.MemoryBytes, dirty: mv.Needs.DirtyRate,
		hot: mv.Needs.Hot, diskRate: mv.Needs.DiskRate, encodes: mv.Needs.Encodes,
		rtt: rtt, bandwidth: bandwidth, unsure: unsure, limits: mv.Limits, habit: m.Habit, path: s.Path(m.Owner, dst.ID),
	})
	v.Score = dst.Record.weigh(v.Forecast.Millis)
}

// believed are the round trip and the bandwidth that count, and whether who measured that
// bandwidth is not sure of it.
func believed(n *Needs, b *Bid) (rtt, bandwidth int64, unsure bool) {
	rtt, bandwidth, unsure = b.RTT, b.Bandwidth, b.Unsure
	i, ok := slices.BinarySearchFunc(n.Paths, b.Member, func(w Way, id MemberID) int { return cmp.Compare(w.Member, id) })
	if !ok {
		return rtt, bandwidth, unsure
	}
	if own := n.Paths[i].Bandwidth; own > 0 && (bandwidth == 0 || own < bandwidth) {
		bandwidth, unsure = own, n.Paths[i].Unsure
	}
	return max(rtt, n.Paths[i].RTT), bandwidth, unsure
}

// judgeDriver says what is against running the machine there.
func (s *State) judgeDriver(v *Verdict, n *Needs, dst *Member, b *Bid) {
	if n.Driver != "" && b.Driver != n.Driver {
		v.no(fmt.Sprintf("the machine runs under %s, there is %s", n.Driver, orNothing(b.Driver)), "install "+n.Driver+" at "+dst.Site)
		return // the rest would follow from it
	}
	if n.Accelerator == "kvm" && b.Accelerator != "kvm" {
		v.no(fmt.Sprintf("the machine runs under kvm, there is %s", orNothing(b.Accelerator)), "let "+dst.Site+" use kvm")
	}
	if !b.knows(n.MachineType) {
		v.no(fmt.Sprintf("%s %s does not know the machine type %s", b.Driver, b.Version, n.MachineType),
			fmt.Sprintf("install a %s at %s that knows %s", n.Driver, dst.Site, n.MachineType))
	}
	if lacks := b.lacks(n); lacks != "" {
		v.no("its processor lacks "+lacks, "restart the machine with a processor model that "+dst.Site+" has too")
	}
	if older(b.Version, n.Version) {
		v.no(fmt.Sprintf("%s there is %s, older than %s here: it may not read the machine's state", n.Driver, orNothing(b.Version), n.Version),
			fmt.Sprintf("upgrade %s at %s to %s or later", n.Driver, dst.Site, n.Version))
	}
}

func orNothing(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// missing are those of want that have lacks. Both are sorted.
func missing(want, have []string) []string {
	var out []string
	for _, w := range want {
		if _, ok := slices.BinarySearch(have, w); !ok {
			out = append(out, w)
		}
	}
	return out
}

// older says whether version a of a driver cannot be trusted to read what b wrote. A
// versioned machine type lets a newer QEMU read an older one's state; the other way
// is nobody's promise. The first two numbers tell: a third is of repairs only, which
// leave the format of the state alone. What is not known is not older; versions that
// cannot be compared must be equal.
func older(a, b string) bool {
	if b == "" || a == b {
		return false
	}
	a1, a2, okA := release(a)
	b1, b2, okB := release(b)
	if !okA || !okB {
		return true
	}
	return a1 < b1 || a1 == b1 && a2 < b2
}

// release are the first two numbers of a version.
func release(version string) (major, minor uint64, ok bool) {
	parts := strings.SplitN(version, ".", 3)
	major, err := strconv.ParseUint(parts[0], 10, 32)
	if err != nil {
		return 0, 0, false
	}
	if len(parts) > 1 {
		if minor, err = strconv.ParseUint(parts[1], 10, 32); err != nil {
			return 0, 0, false
		}
	}
	return major, minor, true
}

// judgeRoom says whether there is room beside what is on its way there already.
func (s *State) judgeRoom(v *Verdict, n *Needs, dst *Member, b *Bid) {
	v.Room = Room{Memory: n.Memory, Disk: plus(n.Disk, b.MissingData), VCPUs: int64(n.VCPUs), Moves: 1}
	promised := s.Reserved(dst.ID)
	if free := b.FreeMemory - promised.Memory; free < v.Room.Memory {
		v.no(fmt.Sprintf("%s of its memory are not promised to other machines, %s are needed", mib(free), mib(v.Room.Memory)),
			fmt.Sprintf("free %s of memory at %s", mib(v.Room.Memory-max(free, 0)), dst.Site))
	}
	if free := b.FreeDisk - promised.Disk; free < v.Room.Disk {
		v.no(fmt.Sprintf("%s of its disk are not promised to other machines, up to %s are needed", mib(free), mib(v.Room.Disk)),
			fmt.Sprintf("free %s of disk at %s", mib(v.Room.Disk-max(free, 0)), dst.Site))
	}
	if free := b.FreeVCPUs - promised.VCPUs; b.FreeVCPUs > 0 && free < v.Room.VCPUs {
		v.no(fmt.Sprintf("%d of its virtual processors are not promised to other machines, %d are needed", max(free, 0), v.Room.VCPUs),
			fmt.Sprintf("free %d virtual processors at %s", v.Room.VCPUs-max(free, 0), dst.Site))
	}
}

// mib tells bytes as people say them.
func mib(n int64) string {
	switch n = max(n, 0); {
	case n < 1<<20:
		return fmt.Sprintf("%d bytes", n)
	case n < 10<<20:
		return fmt.Sprintf("%d.%d MiB", n>>20, n&(1<<20-1)*10>>20)
	}
	return fmt.Sprintf("%d MiB", n>>20)
}

// rankAll gives the eligible members their ranks: the least score first. Equal ones
// are told apart by their place in the roster turned by the move's number, so that no
// member is favoured for ever.
func (s *State) rankAll(mv *Move, vs []Verdict) {
	var order []int
	for i := range vs {
		if vs[i].Eligible {
			order = append(order, i)
		}
	}
	n := len(s.members)
	turned := func(id MemberID) int { return (s.rank(id) + int(mv.ID%uint64(n))) % n }
	slices.SortFunc(order, func(i, j int) int {
		return cmp.Or(cmp.Compare(vs[i].Score, vs[j].Score), cmp.Compare(turned(vs[i].Member), turned(vs[j].Member)))
	})
	for rank, i := range order {
		vs[i].Rank = rank + 1
	}
}

// selectFor ends the bidding for m: the best is selected and its room reserved, or the
// move leads nowhere.
func (s *State) selectFor(m *Machine, p Place) Effect {
	c, mv := edit(m)
	vs := s.evaluate(c, mv, mv.Bids, s.now)
	best := slices.IndexFunc(vs, func(v Verdict) bool { return v.Rank == 1 })
	mv.Against = against(s, mv, vs, best)
	if best < 0 {
		return s.end(c, Nowhere, KindNowhere, p, s.whyNowhere(mv))
	}
	w := &vs[best]
	mv.To, mv.SelectedAt, mv.SelectedIndex, mv.Accepted = w.Member, s.now, p.Index, false
	mv.Forecast, mv.Reserved = w.Forecast, w.Room
	mv.enter(Copying, p)
	s.put(c)
	s.record(w.Member, func(r *Record) { r.Won++ })
	return effectOf(KindSelected, c.Name, mv)
}

// against is why each that was not selected was not.
func against(s *State, mv *Move, vs []Verdict, best int) []Against {
	var out []Against
	for i, v := range vs {
		switch {
		case i == best || v.Member == mv.From:
		case v.Eligible:
			out = append(out, Against{v.Member, []string{behind(s, &v, &vs[best])}})
		default:
			out = append(out, Against{v.Member, brief(v.Reasons, s.text())})
		}
	}
	return out
}

// behind is why an eligible member was not the best.
func behind(s *State, v, best *Verdict) string {
	text := "predicted " + seconds(v.Forecast.Millis)
	if v.Score != v.Forecast.Millis {
		text += ", counted as " + seconds(v.Score) + " by how it has kept its bids"
	}
	if more := v.Score - best.Score; more > 0 {
		return fmt.Sprintf("%s, %s more than %s", text, seconds(more), s.Site(best.Member))
	}
	return fmt.Sprintf("%s, as %s, whose turn it was", text, s.Site(best.Member))
}

// whyNowhere tells all reasons in one.
func (s *State) whyNowhere(mv *Move) string {
	if len(mv.Bids) == 0 {
		return "no member answered within the bid window"
	}
	why := make([]string, 0, len(mv.Against))
	for _, x := range mv.Against {
		if mv.Only == 0 || mv.Only == x.Member {
			why = append(why, s.Site(x.Member)+": "+strings.Join(x.Reasons, ", "))
		}
	}
	return "no member is eligible (" + clip(strings.Join(why, "; "), maxReason-64) + ")"
}

// Plan is what would become of a move of that machine now, if these were the bids: a
// verdict for every member, by member. It asks for nothing and changes nothing. An
// error says that the move could not be asked for at all, by a *RefusedError.
//
// Bids carry their Member; those that make no sense are taken as not given.
func (s *State) Plan(name string, n Needs, only MemberID, ask Limits, bids []Bid) ([]Verdict, error) {
	m := s.Machine(name)
	switch {
	case m == nil:
		return nil, refuse("there is no machine %s", name)
	case only != 0 && s.member(only) == nil:
		return nil, refuse("member %d is not in the roster", only)
	case only == m.Owner:
		return nil, refuse("machine %s is at %s already", m.Name, s.Site(only))
	}
	if err := checkNeeds(&n); err != nil {
		return nil, refuse("%s", err)
	}
	limits, err := s.limits(m, ask)
	if err != nil {
		return nil, err
	}
	mv := &Move{ID: s.next, Machine: m.Name, Epoch: m.Epoch, From: m.Owner, Only: only, Needs: n, Limits: limits}
	sound := make([]*Bid, 0, len(bids))
	for i := range bids {
		if checkBid(&bids[i]) == nil {
			sound = append(sound, &bids[i])
		}
	}
	vs := s.evaluate(m, mv, sound, s.now)
	if to, err := s.approved(m, only); err != nil || to != only {
		for i := range vs {
			v := &vs[i]
			switch {
			case v.Member == m.Owner || err == nil && v.Member == to:
				continue
			case err == nil:
				v.no("the move is approved for "+s.Site(to)+" only", "have it approved for "+s.Site(v.Member))
			default:
				v.no(err.Error(), "have it approved: `dcnode vm approve "+m.Name+"`")
			}
			v.Eligible, v.Rank = false, 0
		}
		s.rankAll(mv, vs)
	}
	return vs, nil
}
