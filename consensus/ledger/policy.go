package ledger

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// maxPolicyList bounds every list of a policy.
const maxPolicyList = 64

// maxPause is the longest pause that a policy or a mover may speak of, milliseconds.
const maxPause = int64(Hour / Millisecond)

// isZero says that a policy says nothing.
func (p *Policy) isZero() bool {
	return len(p.Regions)+len(p.NotRegions)+len(p.Sites)+len(p.NotSites)+len(p.Apart)+len(p.With)+len(p.Windows)+len(p.Movers) == 0 &&
		p.MaxDowntime == 0 && p.MaxBandwidth == 0 && p.Approvals == 0 && !p.PostCopy && !p.Pinned
}

// check says what is wrong with a policy by itself: bounds, order, and contradictions
// that need no state to be seen.
func (p *Policy) check() error {
	for _, l := range []struct {
		what string
		list []string
	}{
		{"regions", p.Regions}, {"not_regions", p.NotRegions}, {"sites", p.Sites}, {"not_sites", p.NotSites},
		{"apart", p.Apart}, {"with", p.With}, {"movers", p.Movers},
	} {
		if err := checkList("policy: "+l.what, l.list, maxPolicyList); err != nil {
			return err
		}
	}
	if len(p.Movers) > maxMovers {
		return fmt.Errorf("policy: %d movers, at most %d are allowed", len(p.Movers), maxMovers)
	}
	if err := fits("policy", p.Regions, p.NotRegions, p.Sites, p.NotSites, p.Apart, p.With, p.Movers); err != nil {
		return err
	}
	for _, c := range []struct {
		a, b string
		x, y []string
	}{{"regions", "not_regions", p.Regions, p.NotRegions}, {"sites", "not_sites", p.Sites, p.NotSites}, {"with", "apart", p.With, p.Apart}} {
		for _, name := range c.x {
			if slices.Contains(c.y, name) {
				return fmt.Errorf("policy: %s is in %s and in %s: take it out of one", name, c.a, c.b)
			}
		}
	}
	switch {
	case p.MaxDowntime < 0 || p.MaxDowntime > maxPause:
		return fmt.Errorf("policy: a longest pause of %d ms: from 1 to %d, or 0 to leave it to the mover", p.MaxDowntime, maxPause)
	case p.MaxBandwidth < 0 || p.MaxBandwidth > maxSize:
		return fmt.Errorf("policy: a bandwidth of %d: bytes a second, or 0 for no cap", p.MaxBandwidth)
	case p.Approvals < 0 || p.Approvals > len(p.Movers):
		return fmt.Errorf("policy: %d approvals of %d movers: name as many movers as must approve", p.Approvals, len(p.Movers))
	}
	return checkSpans(p.Windows)
}

// checkAccount says what is wrong with a policy for all machines of an account.
func (p *Policy) checkAccount() error {
	if len(p.Apart)+len(p.With) > 0 {
		return errors.New("policy: apart and with are between machines: set them on a machine")
	}
	return p.check()
}

// checkList says what is wrong with a list of names.
func checkList(what string, list []string, most int) error {
	if len(list) > most {
		return fmt.Errorf("%s: %d entries, at most %d are allowed", what, len(list), most)
	}
	for i, name := range list {
		if name == "" || !shortText(name) {
			return fmt.Errorf("%s: entry %d is empty, too long or not UTF-8", what, i)
		}
		if i > 0 && list[i-1] >= name {
			return fmt.Errorf("%s: %s is not after %s: sort the list and name each once", what, name, list[i-1])
		}
	}
	return nil
}

// layer is one of the policies that hold for a machine.
type layer struct {
	account string // empty: of the machine
	machine string
	*Policy
}

func (l layer) whose() string {
	if l.account != "" {
		return "account " + l.account
	}
	return "machine " + l.machine
}

// layers are the policies that hold for a machine: its own, and its account's if
// that says anything. Both must allow what is done.
func (s *State) layers(m *Machine) []layer {
	out := append(make([]layer, 0, 2), layer{machine: m.Name, Policy: &m.Policy})
	if a, ok := s.accounts.Get(m.Account); ok && !a.Policy.isZero() {
		out = append(out, layer{account: m.Account, Policy: &a.Policy})
	}
	return out
}

// objection is a reason against a machine's being at a member, and what would take it
// away.
type objection struct{ why, remedy string }

// forbids is every reason why a machine may not be at a member: empty if it may. It
// may be asked of a machine that is not in the state yet, with its owner.
func (s *State) forbids(m *Machine, to *Member) []string {
	var why []string
	for _, o := range s.objections(m, to) {
		why = append(why, o.why)
	}
	return why
}

func (s *State) objections(m *Machine, to *Member) []objection {
	var out []objection
	for _, l := range s.layers(m) {
		out = append(out, l.against(m, to)...)
	}
	for _, name := range m.Policy.Apart {
		if o := s.Machine(name); o != nil && name != m.Name && o.Account == m.Account && at(o, to.ID) {
			out = append(out, objection{
				fmt.Sprintf("the policy of machine %s keeps it apart from %s, which is %s", m.Name, name, whereAt(o, to)),
				fmt.Sprintf("move %s away from %s", name, to.Site),
			})
		}
	}
	for o := range s.apartFrom(m) {
		if o.Name != m.Name && !slices.Contains(m.Policy.Apart, o.Name) && at(o, to.ID) {
			out = append(out, objection{
				fmt.Sprintf("the policy of machine %s, which is %s, keeps %s apart from it", o.Name, whereAt(o, to), m.Name),
				fmt.Sprintf("move %s away from %s", o.Name, to.Site),
			})
		}
	}
	out = append(out, s.apartFromCompany(m, to)...)
	return out
}

// foreign says which machine of another account a policy for one of account names under
// apart. That would do nothing: else anybody could keep the machine of a stranger off
// sites by naming it.
func (s *State) foreign(account string, p *Policy) error {
	for _, name := range p.Apart {
		if o := s.Machine(name); o != nil && o.Account != account {
			return fmt.Errorf("policy: apart: machine %s belongs to account %s, and apart is between machines of one account: take it out", name, o.Account)
		}
	}
	return nil
}

// against is what one policy has against a member.
func (l layer) against(m *Machine, to *Member) []objection {
	var out []objection
	say := func(why, remedy string) {
		out = append(out, objection{"the policy of " + l.whose() + " " + why, remedy + " the policy of " + l.whose()})
	}
	switch {
	case len(l.Regions) == 0 || to.Region != "" && slices.Contains(l.Regions, to.Region):
	case to.Region == "":
		say(fmt.Sprintf("allows only %s, and %s is in no region", listed("region", l.Regions), to.Site), fmt.Sprintf("vote %s into a region, or allow all regions in", to.Site))
	default:
		say(fmt.Sprintf("allows only %s, and %s is in %s", listed("region", l.Regions), to.Site, to.Region), fmt.Sprintf("allow region %s in", to.Region))
	}
	if to.Region != "" && slices.Contains(l.NotRegions, to.Region) {
		say("forbids region "+to.Region, fmt.Sprintf("take region %s out of", to.Region))
	}
	if len(l.Sites) > 0 && !slices.Contains(l.Sites, to.Site) {
		say("allows only "+listed("site", l.Sites), fmt.Sprintf("allow site %s in", to.Site))
	}
	if slices.Contains(l.NotSites, to.Site) {
		say("forbids site "+to.Site, fmt.Sprintf("take site %s out of", to.Site))
	}
	if l.Pinned && m.Owner != to.ID {
		say("pins it where it is", "unpin it in")
	}
	return out
}

// listed names a few of a list.
func listed(what string, list []string) string {
	const most = 8
	if len(list) == 1 {
		return what + " " + list[0]
	}
	if len(list) > most {
		return fmt.Sprintf("%ss %s and %d more", what, strings.Join(list[:most], ", "), len(list)-most)
	}
	return what + "s " + strings.Join(list, ", ")
}

// at says whether a machine is at a member, may come to it, or may come back to it.
func at(m *Machine, id MemberID) bool {
	return m.Owner == id || m.Move != nil && (m.Move.To == id || m.Move.Phase == Released && m.Move.From == id)
}

func whereAt(m *Machine, to *Member) string {
	switch {
	case m.Owner == to.ID:
		return "at " + to.Site
	case m.Move.To == to.ID:
		return "on its way to " + to.Site
	}
	return "not yet confirmed elsewhere and may come back to " + to.Site
}

// apply sets a policy. It may forbid where the machine is now, and even that it
// shares its site with a machine that it is kept apart from: it must be able to move
// away, and the law is about moves. A move under way that the new policy forbids ends
// here, unless it is released.
func (t *SetPolicy) apply(s *State, a *act) ([]Effect, error) {
	if (t.Machine == "") == (t.Account == "") {
		return nil, refuse("a policy is of a machine or of an account: name one of them")
	}
	if t.Account != "" {
		return t.onAccount(s, a)
	}
	m := s.Machine(t.Machine)
	if m == nil {
		return nil, refuse("there is no machine %s", t.Machine)
	}
	if !a.speaks(m.Account) {
		return nil, refuse("machine %s belongs to account %s: only it can set the policy, not %s", m.Name, m.Account, a.who())
	}
	if err := t.Policy.check(); err != nil {
		return nil, refuse("%s", err)
	}
	if err := s.foreign(m.Account, &t.Policy); err != nil {
		return nil, refuse("%s", err)
	}
	if err := s.circle(m.Name, t.Policy.With); err != nil {
		return nil, refuse("%s", err)
	}
	c, _ := edit(m)
	c.Policy = t.Policy
	s.put(c)
	touched := append([]string{c.Name}, t.Policy.Apart...)
	return append([]Effect{{Kind: KindPolicy, Machine: c.Name, Account: c.Account}}, s.abortForbidden(touched, a.Place)...), nil
}

func (t *SetPolicy) onAccount(s *State, a *act) ([]Effect, error) {
	if !a.speaks(t.Account) {
		return nil, refuse("account %s can set its policy, not %s", t.Account, a.who())
	}
	acc := s.Account(t.Account)
	if acc == nil {
		return nil, refuse("there is no account %s", t.Account)
	}
	if err := t.Policy.checkAccount(); err != nil {
		return nil, refuse("%s", err)
	}
	c := *acc
	c.Policy = t.Policy
	s.putAccount(&c)
	var touched []string
	for _, name := range s.underWay() {
		if s.Machine(name).Account == c.Name {
			touched = append(touched, name)
		}
	}
	return append([]Effect{{Kind: KindPolicy, Account: c.Name}}, s.abortForbidden(touched, a.Place)...), nil
}

// abortForbidden ends those moves of the named machines that are not released and
// that the policies as they are now forbid.
func (s *State) abortForbidden(names []string, p Place) []Effect {
	var out []Effect
	for _, name := range names {
		m := s.Machine(name)
		if m == nil || m.Move == nil || m.Move.Phase == Released {
			continue
		}
		if why := s.forbidsMove(m, m.Move); len(why) > 0 {
			out = append(out, s.end(m, Aborted, KindAbort, p, "the policy was changed: "+join(why)))
		}
	}
	return out
}

// forbidsMove is why a move that is under way may not go on.
func (s *State) forbidsMove(m *Machine, mv *Move) []string {
	has := mv.Limits
	if has.Bandwidth == 0 {
		has.Bandwidth = maxSize + 1 // no cap: more than any policy allows
	}
	why := s.overLimits(m, has)
	if closed := s.closed(m, s.now); closed != "" {
		why = append(why, closed)
	}
	if missing := s.lacking(m, mv.Approved); missing != "" {
		why = append(why, missing)
	}
	if mv.To != 0 {
		if to := s.member(mv.To); to != nil {
			return append(why, s.forbids(m, to)...)
		}
		return append(why, s.Site(mv.To)+" has left the overlay")
	}
	if nobody := s.nobodyFor(m, mv.Only); nobody != "" {
		why = append(why, nobody)
	}
	return why
}

// nobodyFor is why policy leaves no candidate at all: empty if it leaves one. Of
// several candidates the reasons are told by site.
func (s *State) nobodyFor(m *Machine, only MemberID) string {
	var why []string
	for _, to := range s.members {
		if to.ID == m.Owner || only != 0 && to.ID != only {
			continue
		}
		r := s.forbids(m, to)
		switch {
		case len(r) == 0:
			return ""
		case only != 0:
			return join(r)
		}
		why = append(why, to.Site+": "+join(r))
	}
	if len(why) == 0 {
		return "there is no member that it may go to"
	}
	return "no site is allowed (" + clip(strings.Join(why, "; "), maxReason/2) + ")"
}

// MayMove is all that the law has against moving a machine to a member within these
// limits now: policies, windows, approvals that are missing. Empty: nothing. Nothing
// is asked for by it, and whether there is room is another question; see Plan.
func (s *State) MayMove(name string, to MemberID, l Limits) []string {
	m, dst := s.Machine(name), s.member(to)
	switch {
	case m == nil:
		return []string{fmt.Sprintf("there is no machine %s", name)}
	case dst == nil:
		return []string{fmt.Sprintf("member %d is not in the roster", to)}
	case m.Owner == to:
		return []string{fmt.Sprintf("machine %s is at %s already", m.Name, dst.Site)}
	}
	why := s.forbids(m, dst)
	if closed := s.closed(m, s.now); closed != "" {
		why = append(why, closed)
	}
	if _, err := s.limits(m, l); err != nil {
		why = append(why, err.Error())
	}
	if missing := s.unapproved(m, to); missing != "" {
		why = append(why, missing)
	}
	return why
}
