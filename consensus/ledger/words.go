package ledger

import (
	"fmt"
	"strings"
)

// Say is what came of a transaction in one plain sentence, accepted or refused, for
// people; of a tx without a body it is what fell due. s is the state afterwards. What
// others have written is made fit to print: without control characters, and not long.
func Say(s *State, p Place, tx Tx, effects []Effect, err error) string {
	w := &words{s: s, place: p, effects: effects}
	var parts []string
	if tx.Body != nil {
		who := w.site(p.Author)
		if tx.Account != "" {
			who = "account " + name(tx.Account) + ", by way of " + who + ","
		}
		parts = append(parts, who+" "+w.transaction(tx.Body))
	}
	if err != nil {
		return strings.Join(append(parts, "refused: "+printable(err.Error(), maxReason)), "; ")
	}
	for i := range effects {
		e := &effects[i]
		if tx.Body != nil && (e.Kind == tx.Body.Kind() || told(e.Kind, tx.Body.Kind())) {
			continue // that is what has been said already
		}
		parts = append(parts, w.effect(e))
	}
	return strings.Join(parts, "; ")
}

// told says whether an effect adds nothing to the words of the transaction it is of.
func told(effect, tx Kind) bool { return effect == KindRoster && tx == KindRotate }

// SayEffect is one thing that followed from the order, or fell due, as a sentence.
func SayEffect(s *State, e *Effect) string { return (&words{s: s}).effect(e) }

// SayBody is what a transaction would say, without its author's name, for whoever is to
// sign it where no state is at hand. now is about when it would be ordered.
func SayBody(b Body, now Time) string {
	return (&words{s: new(State), place: Place{Time: now}}).transaction(b)
}

// words find the words for one transaction.
type words struct {
	s       *State
	place   Place
	effects []Effect
}

// site is what a member is called or, after it has left, was called last.
func (w *words) site(id MemberID) string {
	if m := w.s.member(id); m != nil {
		return name(m.Site)
	}
	for v := w.s.roster; v > 0; v-- {
		if c := w.s.RosterChange(v); c != nil && c.Member == id {
			return name(c.Site)
		}
	}
	return fmt.Sprintf("member %d", id)
}

// transaction is what follows its author's name.
func (w *words) transaction(b Body) string {
	switch t := b.(type) {
	case *Propose:
		return w.propose(t)
	case *CastVote:
		return w.vote(t)
	case *Rotate:
		if len(t.Key) == 0 {
			return "forgets its old key"
		}
		return "takes another key, " + short(t.Key)
	case *SetAccount:
		return fmt.Sprintf("sets the keys of account %s: %d of %s must sign", name(t.Name), t.Threshold, count(len(t.Keys), "key"))
	case *SetQuota:
		return fmt.Sprintf("bounds account %s: %s", name(t.Account), t.Quota.say())
	case *Publish:
		return fmt.Sprintf("publishes image %s%s, %s in blocks of %s", ref(t.Name, t.Tag), forAccount(t.Account), Bytes(t.Size), Bytes(t.Stored))
	case *Withdraw:
		return "withdraws image " + ref(t.Name, t.Tag)
	case *Hold:
		if t.Held {
			return "holds all blocks of image " + ref(t.Name, t.Tag)
		}
		return "no longer holds image " + ref(t.Name, t.Tag)
	case *Define:
		return fmt.Sprintf("defines %s from image %s%s, %s of memory%s", name(t.Name), name(t.Image), forAccount(t.Account), Bytes(t.Memory), t.Policy.clause())
	case *Set:
		if t.Stopped {
			return "has stopped " + name(t.Name)
		}
		return "has started " + name(t.Name)
	case *Delete:
		return "deletes " + name(t.Name)
	case *SetPolicy:
		if t.Machine == "" {
			return fmt.Sprintf("sets the policy of account %s: %s", name(t.Account), t.Policy.say())
		}
		return fmt.Sprintf("sets the policy of %s: %s", name(t.Machine), t.Policy.say())
	}
	return w.move(b)
}

// move is what follows its author's name, of the transactions of a move.
func (w *words) move(b Body) string {
	switch t := b.(type) {
	case *Approve:
		return fmt.Sprintf("approves the next move of %s%s in epoch %d%s, for %s", name(t.Machine), w.where(t.To), t.Epoch, forAccount(t.Account), Duration(t.Until-w.place.Time))
	case *Intent:
		return fmt.Sprintf("wants to move %s%s: %s of memory, %s to send at least%s", name(t.Machine), w.only(t.Only), Bytes(t.Needs.Memory), Bytes(boundedSum(t.Needs.MemoryBytes, t.Needs.DiskBytes)), t.Limits.clause())
	case *Bid:
		return w.bid(t)
	case *Accept:
		return "gets ready for " + name(t.Machine)
	case *Beat:
		return fmt.Sprintf("is still copying %s: %s so far", name(t.Machine), Bytes(t.Bytes))
	case *Release:
		return fmt.Sprintf("releases %s to %s, epoch %d", name(t.Machine), w.site(t.To), t.Epoch)
	case *Confirm:
		return fmt.Sprintf("runs %s, epoch %d", name(t.Machine), t.Epoch)
	case *Decline:
		return fmt.Sprintf("gives %s back, epoch %d%s", name(t.Machine), t.Epoch, because(t.Reason))
	case *Abort:
		return fmt.Sprintf("ends the move of %s%s", name(t.Machine), because(t.Reason))
	case *Reclaim:
		return fmt.Sprintf("takes %s back, epoch %d: nobody has confirmed it within the lease", name(t.Machine), t.Epoch)
	case *Report:
		return fmt.Sprintf("reports the move of %s: %s of the image, %s of disk and %s of memory were sent, and it paused for %s", name(t.Machine), Bytes(t.Truth.Image), Bytes(t.Truth.Disk), Bytes(t.Truth.Memory), Millis(t.Truth.Pause))
	case *Root:
		return fmt.Sprintf("has computed %s after event %d", short(t.Outcome), t.Index)
	case *Tick:
		return "lets time pass"
	}
	return "says something of kind " + string(b.Kind())
}

func (w *words) propose(t *Propose) string {
	switch why := because(t.Reason); t.Change {
	case Join:
		return fmt.Sprintf("proposes that %s%s joins with weight %d and key %s%s", name(t.Site), inRegion(t.Region), t.Weight, short(t.Key), why)
	case Leave:
		if t.Member == w.place.Author {
			return "proposes to leave" + forced(t.Force) + why
		}
		return fmt.Sprintf("proposes that %s leaves%s%s", w.site(t.Member), forced(t.Force), why)
	case Update:
		var what []string
		if t.Site != "" {
			what = append(what, "site "+name(t.Site))
		}
		if t.Region != "" {
			what = append(what, "region "+name(t.Region))
		}
		if t.Weight != 0 {
			what = append(what, fmt.Sprintf("weight %d", t.Weight))
		}
		return fmt.Sprintf("proposes for %s %s%s", w.site(t.Member), list(what, "no change"), why)
	}
	return fmt.Sprintf("proposes a change of kind %s", name(string(t.Change)))
}

func (w *words) vote(t *CastVote) string {
	side := "against"
	if t.Yes {
		side = "for"
	}
	for _, p := range w.s.votes {
		if p.ID == t.Proposal {
			return fmt.Sprintf("votes %s proposal %d: %s", side, t.Proposal, w.proposal(p))
		}
	}
	return fmt.Sprintf("votes %s proposal %d", side, t.Proposal)
}

// proposal is what it would do.
func (w *words) proposal(p *Proposal) string {
	switch p.Change {
	case Join:
		return fmt.Sprintf("%s joins with weight %d", name(p.Site), p.Weight)
	case Leave:
		return w.site(p.Member) + " leaves"
	}
	return w.site(p.Member) + " changes"
}

func (w *words) bid(t *Bid) string {
	if !t.Able {
		return fmt.Sprintf("cannot take %s%s", name(t.Machine), because(t.Reason))
	}
	missing := "has the whole image"
	if t.MissingData > 0 {
		missing = "lacks " + Bytes(t.MissingData)
	}
	return fmt.Sprintf("bids for %s: can take it, %s, gets %s/s at %s round trip", name(t.Machine), missing, Bytes(t.Bandwidth), micros(t.RTT))
}

func (w *words) where(to MemberID) string {
	if to == 0 {
		return ""
	}
	return " to " + w.site(to)
}

func (w *words) only(to MemberID) string {
	if to == 0 {
		return ""
	}
	return " to " + w.site(to) + " and nowhere else"
}

// effect is one thing that followed, as a sentence of its own.
func (w *words) effect(e *Effect) string {
	m := name(e.Machine)
	switch mv := &e.Move; e.Kind {
	case KindSelected:
		return fmt.Sprintf("the ledger selects %s for %s: predicted %s%s", w.site(mv.To), m, Millis(mv.Forecast.Millis), w.against(mv, mv.To))
	case KindNowhere:
		return fmt.Sprintf("%s can go nowhere%s", m, w.against(mv, 0))
	case KindLeaseEnd:
		return fmt.Sprintf("the lease of %s is over: %s may take it back", m, w.site(mv.From))
	case KindRoster:
		if c := w.s.RosterChange(w.s.roster); c != nil && c.Member == e.Member {
			return w.roster(c)
		}
		return "the roster changes: " + w.site(e.Member)
	case KindLapsed:
		return "a proposal about " + w.site(e.Member) + " has come to nothing"
	case KindRejected:
		return "so many refuse a proposal about " + w.site(e.Member) + " that it cannot pass"
	case KindAbort:
		return fmt.Sprintf("the move of %s%s has ended%s", m, w.where(mv.To), because(mv.Reason))
	case KindRelease:
		return fmt.Sprintf("%s is released to %s, epoch %d", m, w.site(mv.To), mv.Epoch+1)
	case KindConfirm:
		return fmt.Sprintf("%s runs at %s", m, w.site(mv.To))
	case KindDecline, KindReclaim:
		return fmt.Sprintf("%s is back at %s%s", m, w.site(mv.From), because(mv.Reason))
	case KindAccept:
		return fmt.Sprintf("%s gets ready for %s", w.site(mv.To), m)
	}
	return strings.Join(w.about(e), " ")
}

// about names an effect without words of its own.
func (w *words) about(e *Effect) []string {
	out := []string{string(e.Kind)}
	for _, s := range []string{e.Machine, e.Image, e.Account} {
		if s != "" {
			out = append(out, name(s))
		}
	}
	if e.Member != 0 {
		out = append(out, w.site(e.Member))
	}
	return out
}

func (w *words) roster(c *RosterChange) string {
	switch c.Change {
	case Join:
		return fmt.Sprintf("%s is a member: number %d%s, weight %d", name(c.Site), c.Member, inRegion(c.Region), c.Weight)
	case Leave:
		return name(c.Site) + " is a member no more"
	case Rotation:
		return fmt.Sprintf("%s speaks with key %s", name(c.Site), short(c.Key))
	}
	return fmt.Sprintf("member %d is now %s%s, weight %d", c.Member, name(c.Site), inRegion(c.Region), c.Weight)
}

// against is why the others were not selected.
func (w *words) against(mv *Move, winner MemberID) string {
	var b strings.Builder
	for _, a := range mv.Against {
		if a.Member == winner {
			continue
		}
		why := make([]string, len(a.Reasons))
		for i, r := range a.Reasons {
			why[i] = printable(r, maxReason)
		}
		fmt.Fprintf(&b, "; %s not: %s", w.site(a.Member), list(why, "no reason is kept"))
	}
	if b.Len() == 0 && winner == 0 {
		return because(mv.Reason)
	}
	return b.String()
}

// MachineOf is the machine that a transaction of a move is about; empty: it is of no move.
func MachineOf(b Body) string {
	switch t := b.(type) {
	case *Approve:
		return t.Machine
	case *Intent:
		return t.Machine
	case *Bid:
		return t.Machine
	case *Accept:
		return t.Machine
	case *Beat:
		return t.Machine
	case *Release:
		return t.Machine
	case *Confirm:
		return t.Machine
	case *Decline:
		return t.Machine
	case *Abort:
		return t.Machine
	case *Reclaim:
		return t.Machine
	case *Report:
		return t.Machine
	}
	return ""
}
