package ledgertest

import (
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/dcnode/dcnode/consensus/ledger"
)

// machinesStep compares every machine before and after.
func (m *model) machinesStep(st *step) error {
	for x := range st.post.Machines() {
		was := st.pre.Machine(x.Name)
		if was == x {
			continue
		}
		if err := m.machineStep(st, was, x); err != nil {
			return fmt.Errorf("machine %s: %w", x.Name, err)
		}
	}
	for x := range st.pre.Machines() {
		if st.post.Machine(x.Name) == nil {
			if t, ok := body[*ledger.Delete](st); !ok || t.Name != x.Name {
				return fmt.Errorf("machine %s is gone and nobody has deleted it", x.Name)
			}
			m.epochs[x.Name] = x.Epoch
		}
	}
	return nil
}

func body[B ledger.Body](st *step) (b B, ok bool) {
	if st.tx != nil {
		b, ok = st.tx.Body.(B)
	}
	return b, ok
}

func (m *model) machineStep(st *step, was, x *ledger.Machine) error {
	if was == nil {
		if t, ok := body[*ledger.Define](st); !ok || t.Name != x.Name || x.Epoch != m.epochs[x.Name]+1 || x.Owner != st.place.Author || x.Move != nil {
			return errors.New("it is there and nobody has defined it so")
		}
		return nil
	}
	if x.Account != was.Account || x.Memory != was.Memory || x.Commit != was.Commit || !slices.Equal(x.Spec, was.Spec) {
		return errors.New("it is another machine")
	}
	if !reflect.DeepEqual(x.Policy, was.Policy) {
		if t, ok := body[*ledger.SetPolicy](st); !ok || t.Machine != x.Name {
			return errors.New("its policy has changed and nobody has set it")
		}
	}
	switch {
	case x.Epoch == was.Epoch && x.Owner != was.Owner:
		return fmt.Errorf("it goes from %d to %d in epoch %d", was.Owner, x.Owner, x.Epoch)
	case x.Epoch < was.Epoch || x.Epoch > was.Epoch+1:
		return fmt.Errorf("its epoch goes from %d to %d", was.Epoch, x.Epoch)
	case x.Epoch > was.Epoch:
		if err := m.handover(st, was, x); err != nil {
			return fmt.Errorf("it goes from %d to %d: %w", was.Owner, x.Owner, err)
		}
	}
	return m.moveStep(st, was, x)
}

// handover checks that a machine may go to its new owner: by a Release that the law in
// force allows, or back.
func (m *model) handover(st *step, was, x *ledger.Machine) error {
	if n := len(x.Handovers); n > 1 && x.Handovers[n-2].Epoch != was.Epoch {
		return fmt.Errorf("its handovers are %v", x.Handovers)
	}
	mv := was.Move
	if mv == nil {
		return errors.New("it does not move")
	}
	if t, ok := body[*ledger.Release](st); ok {
		to := st.pre.Member(x.Owner)
		switch {
		case t.Machine != x.Name || mv.Phase != ledger.Copying || mv.To != x.Owner || t.To != x.Owner || st.place.Author != was.Owner:
			return errors.New("that was not agreed")
		case to == nil:
			return errors.New("that is not a member")
		}
		if why := forbidden(st.pre, was, to); why != "" {
			return errors.New("the law forbids it: " + why)
		}
		if !opened(st.pre, was, st.post.Now()) {
			return errors.New("the law forbids it: its windows are closed")
		}
		for _, p := range policies(st.pre, was) {
			have := 0
			for _, account := range m.agreed[fmt.Sprint(x.Name, " ", mv.ID)] {
				if slices.Contains(p.Movers, account) {
					have++
				}
			}
			if len(p.Movers) > 0 && have < max(p.Approvals, 1) {
				return fmt.Errorf("the law forbids it: %d have approved of it, of %v", have, p.Movers)
			}
		}
		return within(st.pre, was, mv.Limits)
	}
	if mv.Phase != ledger.Released || x.Owner != mv.From || x.Move != nil {
		return errors.New("that is not the way back")
	}
	if t, ok := body[*ledger.Decline](st); ok && t.Machine == x.Name && st.place.Author == was.Owner {
		return nil
	}
	if t, ok := body[*ledger.Reclaim](st); ok && t.Machine == x.Name && st.place.Author == mv.From && mv.LeaseOver && st.post.Now() >= mv.ReleasedAt+m.rules.Lease {
		return nil
	}
	return errors.New("nobody may say that")
}

// forbidden is why a machine may not be at a member.
func forbidden(s *ledger.State, x *ledger.Machine, to *ledger.Member) string {
	for _, p := range policies(s, x) {
		switch {
		case len(p.Regions) > 0 && (to.Region == "" || !slices.Contains(p.Regions, to.Region)):
			return "region " + to.Region + " is not among those allowed"
		case to.Region != "" && slices.Contains(p.NotRegions, to.Region):
			return "not in region " + to.Region
		case len(p.Sites) > 0 && !slices.Contains(p.Sites, to.Site):
			return "site " + to.Site + " is not among those allowed"
		case slices.Contains(p.NotSites, to.Site):
			return "not at site " + to.Site
		case p.Pinned && x.Owner != to.ID:
			return "pinned"
		}
	}
	for o := range s.Machines() {
		if o.Name == x.Name || o.Account != x.Account || !slices.Contains(x.Policy.Apart, o.Name) && !slices.Contains(o.Policy.Apart, x.Name) {
			continue
		}
		if mv := o.Move; o.Owner == to.ID || mv != nil && (mv.To == to.ID || mv.Phase == ledger.Released && mv.From == to.ID) {
			return "apart from " + o.Name
		}
	}
	for _, name := range x.Policy.With {
		if name == x.Name {
			continue
		}
		o := s.Machine(name)
		if o == nil || o.Owner != to.ID && (o.Move == nil || o.Move.To != to.ID || o.Move.From != x.Owner) {
			return "not with " + name
		}
	}
	return ""
}

// within says what is wrong with the limits of a move.
func within(s *ledger.State, x *ledger.Machine, l ledger.Limits) error {
	for _, p := range policies(s, x) {
		switch {
		case p.MaxDowntime > 0 && l.MaxDowntime > p.MaxDowntime:
			return fmt.Errorf("a pause of %d ms where %d are allowed", l.MaxDowntime, p.MaxDowntime)
		case p.MaxBandwidth > 0 && (l.Bandwidth == 0 || l.Bandwidth > p.MaxBandwidth):
			return fmt.Errorf("%d bytes a second where %d are allowed", l.Bandwidth, p.MaxBandwidth)
		case l.PostCopy && !p.PostCopy:
			return errors.New("post-copy where it is not allowed")
		}
	}
	return nil
}

// moveStep compares a machine's move before and after.
func (m *model) moveStep(st *step, was, x *ledger.Machine) error {
	old, mv := was.Move, x.Move
	switch {
	case old == nil && mv == nil:
		return nil
	case old == nil:
		return m.begun(st, was, x)
	case mv == nil:
		return m.ended(st, old, x)
	case old.ID != mv.ID:
		return fmt.Errorf("move %d is %d now", old.ID, mv.ID)
	}
	if mv.To != 0 && (old.To != mv.To || old.SelectedIndex != mv.SelectedIndex) {
		return m.selected(st, x)
	}
	if t, ok := body[*ledger.Beat](st); ok && t.Machine == x.Name {
		if mv.Moved != t.Bytes {
			return fmt.Errorf("%d bytes were told of, and %d are known", t.Bytes, mv.Moved)
		}
		if key := fmt.Sprint(x.Name, " ", mv.ID); m.beats[key] == 0 {
			m.beats[key] = st.post.Now()
		}
	}
	if old.Phase != mv.Phase {
		if _, ok := body[*ledger.Release](st); !ok || old.Phase != ledger.Copying || mv.Phase != ledger.Released || x.Epoch != was.Epoch+1 {
			return fmt.Errorf("its move is %s, was %s", mv.Phase, old.Phase)
		}
	}
	return nil
}

func (m *model) begun(st *step, was, x *ledger.Machine) error {
	t, ok := body[*ledger.Intent](st)
	mv := x.Move
	if !ok || t.Machine != x.Name || mv.Phase != ledger.Bidding || mv.From != st.place.Author || was.Owner != st.place.Author || t.Epoch != x.Epoch || was.Stopped {
		return errors.New("it moves and nobody could want that")
	}
	key := fmt.Sprint(x.Name, " ", mv.ID)
	if m.moves[key] {
		return fmt.Errorf("it has two moves of number %d", mv.ID)
	}
	m.moves[key] = true
	if t.Only != 0 && mv.Only != t.Only || len(x.Approvals) > 0 {
		return fmt.Errorf("wanted to %d, it moves to %d, with %d approvals left", t.Only, mv.Only, len(x.Approvals))
	}
	if !opened(st.pre, was, st.post.Now()) {
		return errors.New("it moves while its windows are closed")
	}
	for _, p := range policies(st.pre, was) {
		have := 0
		for _, a := range was.Approvals {
			if a.Epoch != x.Epoch || a.Until <= st.post.Now() || a.To != 0 && a.To != mv.Only {
				continue
			}
			if !slices.Contains(m.agreed[key], a.Account) {
				m.agreed[key] = append(m.agreed[key], a.Account)
			}
			if slices.Contains(p.Movers, a.Account) {
				have++
			}
		}
		if len(p.Movers) > 0 && have < max(p.Approvals, 1) {
			return fmt.Errorf("it moves with %d approvals of %d", have, p.Approvals)
		}
	}
	if p := was.Policy; p.Pinned {
		return errors.New("it is pinned and moves")
	}
	return within(st.pre, was, mv.Limits)
}

// selected checks that the member which a move has selected may have the machine, and
// has room for it beside what comes already.
func (m *model) selected(st *step, x *ledger.Machine) error {
	mv := x.Move
	to := st.post.Member(mv.To)
	i := slices.IndexFunc(mv.Bids, func(b *ledger.Bid) bool { return b.Member == mv.To })
	if to == nil || i < 0 || mv.Phase != ledger.Copying || mv.Only != 0 && mv.Only != mv.To || mv.To == mv.From {
		return fmt.Errorf("member %d is selected, which is none or has not bid", mv.To)
	}
	b := mv.Bids[i]
	switch {
	case !b.Able || st.post.Now() >= b.Expires:
		return fmt.Errorf("member %d is selected by a bid that does not hold", mv.To)
	case !roomy(st, mv.To):
		return fmt.Errorf("member %d has %d, %d, %d free and promises %+v", mv.To, b.FreeMemory, b.FreeDisk, b.FreeVCPUs, st.post.Reserved(mv.To))
	case mv.Needs.Driver != "" && b.Driver != mv.Needs.Driver:
		return fmt.Errorf("member %d is selected without the driver", mv.To)
	}
	if why := forbidden(st.post, x, to); why != "" {
		return fmt.Errorf("member %d is selected, which the law forbids: %s", mv.To, why)
	}
	if !opened(st.post, x, st.post.Now()) {
		return errors.New("a member is selected while its windows are closed")
	}
	return nil
}

// roomy says whether those moves that have selected a member in one step could do so,
// one after the other: the bid of each leaves room for it beside all that had it
// before. Reserved has been counted again by indexesHold.
func roomy(st *step, to ledger.MemberID) bool {
	var fresh []*ledger.Move
	for x := range st.post.Machines() {
		was := st.pre.Machine(x.Name)
		if x.Move != nil && x.Move.To == to && (was == nil || was.Move == nil || was.Move.To != to) {
			fresh = append(fresh, x.Move)
		}
	}
	r := st.post.Reserved(to)
	for len(fresh) > 0 { // whoever fits beside all others may have been the last
		last := slices.IndexFunc(fresh, func(mv *ledger.Move) bool {
			b := mv.Bids[slices.IndexFunc(mv.Bids, func(b *ledger.Bid) bool { return b.Member == to })]
			return r.Memory <= b.FreeMemory && r.Disk <= b.FreeDisk && (b.FreeVCPUs == 0 || mv.Reserved.VCPUs == 0 || r.VCPUs <= b.FreeVCPUs)
		})
		if last < 0 {
			return false
		}
		x := fresh[last].Reserved
		r.Memory, r.Disk, r.VCPUs = r.Memory-x.Memory, r.Disk-x.Disk, r.VCPUs-x.VCPUs
		fresh = slices.Delete(fresh, last, last+1)
	}
	return true
}

// ended checks who or what has ended a move.
func (m *model) ended(st *step, old *ledger.Move, x *ledger.Machine) error {
	last := x.Last
	if last == nil || last.ID != old.ID {
		return fmt.Errorf("its move %d is forgotten", old.ID)
	}
	by := st.place.Author
	ok := false
	switch last.Phase {
	case ledger.Done:
		_, ok = body[*ledger.Confirm](st)
		ok = ok && old.Phase == ledger.Released && by == old.To && x.Owner == old.To
	case ledger.Declined, ledger.Reclaimed:
		ok = old.Phase == ledger.Released && x.Owner == old.From // see handover
	case ledger.Nowhere, ledger.Aborted:
		ok = old.Phase != ledger.Released && x.Owner == old.From
	}
	if !ok {
		return fmt.Errorf("its move that was %s has ended as %s", old.Phase, last.Phase)
	}
	if t, abort := body[*ledger.Abort](st); abort && t.Machine == x.Name && by != old.From && by != old.To {
		return fmt.Errorf("its move was ended by %d, which has no part in it", by)
	}
	return nil
}
