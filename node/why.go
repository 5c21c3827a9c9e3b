package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/node/api"
	"github.com/dcnode/dcnode/vmm"
)

// Why implements api.Machines.
func (n *Node) Why(ctx context.Context, name string) (api.Why, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, reasonable, fmt.Errorf("the ordering loop has not answered within %v: see this node's log", reasonable))
	defer cancel()
	s, err := n.order.State(ctx)
	if err != nil {
		return api.Why{}, err
	}
	lm := s.Machine(name)
	if lm == nil {
		return api.Why{}, fmt.Errorf("there is no machine %s: see `dcnode vm ls`", name)
	}
	ord, err := n.order.loop.Status(ctx)
	if err != nil {
		return api.Why{}, err
	}
	w := n.why(s, lm, time.Now())
	if w.Here, err = n.knowsHere(ctx, name); err != nil {
		w.Words = append(w.Words, fmt.Sprintf("at %s: its process does not answer: %v", w.Asked, err))
	}
	if ord.Observing || ord.Behind || ord.Joining || ord.Outside {
		w.Words = append(w.Words, w.Asked+" is not abreast of the order: this may be over already (see `dcnode status`)")
	}
	if words := w.hereWords(lm, n.owns(lm), time.Now()); words != "" {
		w.Words = append(w.Words, words)
	}
	return w.Why, nil
}

// unknown is the state of a process that does not answer.
const unknown vmm.State = "unknown"

// why is an api.Why in the making.
type why struct{ api.Why }

// why is what the order knows, and who is here to order more.
func (n *Node) why(s *ledger.State, lm *ledger.Machine, now time.Time) why {
	st := s.Standing(lm)
	w := why{api.Why{
		Machine: lm.Name, Asked: n.site(n.self), Owner: s.Site(lm.Owner), Epoch: lm.Epoch, Phase: api.AtRest,
		Since: int64(st.Since), Deadline: int64(st.Deadline), Missing: []api.Missing{}, Words: []string{st.Text},
	}}
	if lm.Move != nil {
		w.Phase, w.Moved = string(st.Phase), lm.Move.Moved
	}
	w.times(now)
	here := func(id ledger.MemberID) bool { return id == n.self || n.sees(n.peer(id)) }
	for _, m := range st.Missing {
		x := api.Missing{What: m.What, By: s.Site(m.By), Connected: here(m.By)}
		w.Missing = append(w.Missing, x)
	}
	q := s.Quorum(here)
	w.Quorum = api.Quorum{Total: q.Total, Needed: q.Needed, Seen: q.Seen, Lacks: q.Lacks(), Away: []string{}}
	for _, id := range q.Away {
		w.Quorum.Away = append(w.Quorum.Away, s.Site(id))
	}
	w.quorumWords()
	return w
}

// times are when the phase began and ends. Consensus time is the median of the members'
// clocks: the clock here is about that.
func (w *why) times(now time.Time) {
	if w.Since == 0 {
		return
	}
	words := "since " + clock(w.Since)
	switch {
	case w.Phase == api.AtRest:
		words = "its last move ended at " + clock(w.Since)
	case w.Deadline == 0:
	default:
		left := time.Unix(0, w.Deadline).Sub(now)
		w.Left = left.Seconds()
		words += ", deadline " + clock(w.Deadline)
		if left > 0 {
			words += fmt.Sprintf(", in %.1f s by the clock of %s", left.Seconds(), w.Asked)
		} else {
			words += fmt.Sprintf(", %.1f s ago by the clock of %s: the next event of the order says so", -left.Seconds(), w.Asked)
		}
	}
	w.Words = append(w.Words, words)
}

func clock(ns int64) string { return time.Unix(0, ns).UTC().Format("2006-01-02 15:04:05.000Z") }

// quorumWords say what is in the way of what is missing.
func (w *why) quorumWords() {
	q := &w.Quorum
	away := strings.Join(q.Away, ", ")
	if q.Lacks > 0 {
		w.Words = append(w.Words, fmt.Sprintf("nothing can be ordered as %s sees it: weight %d of %d is needed, %d is here, %d is missing; not connected: %s",
			w.Asked, q.Needed, q.Total, q.Seen, q.Lacks, away))
		return
	}
	var owe []string
	for _, m := range w.Missing {
		if !m.Connected {
			owe = append(owe, m.By)
		}
	}
	if len(owe) > 0 {
		w.Words = append(w.Words, fmt.Sprintf("not connected to %s: %s; the order moves without", w.Asked, strings.Join(owe, ", ")))
	}
}

// knowsHere is what this node knows of a machine on its host, or nil.
func (n *Node) knowsHere(ctx context.Context, name string) (*api.Here, error) {
	n.mu.Lock()
	m, o, c := n.machines[name], n.outs[name], n.claims[name]
	n.mu.Unlock()
	if m == nil && c == nil {
		return nil, nil
	}
	h := &api.Here{State: vmm.Ended}
	if c != nil {
		h.Task = c.what
	}
	if o != nil {
		if p, at := o.told(); !at.IsZero() {
			h.Progress, h.Ago = &p, time.Since(at).Seconds()
		}
	}
	if m == nil {
		return h, nil
	}
	n.mu.Lock()
	h.Step = string(m.Step)
	n.mu.Unlock()
	if vm := n.process(m); vm != nil {
		st, err := vm.State(ctx)
		if err != nil && !errors.Is(err, vmm.ErrGone) {
			h.State = unknown
			return h, err
		}
		if err == nil {
			h.State = st
		}
	}
	return h, nil
}

// hereWords say what is known on this host alone.
func (w *why) hereWords(lm *ledger.Machine, ours bool, now time.Time) string {
	h, at := w.Here, "at "+w.Asked
	if h == nil {
		if ours && lm.Move == nil {
			return at + " nothing of it is ready: look into this node's log"
		}
		return ""
	}
	if p := h.Progress; p != nil {
		return at + ": " + progressWords(p, h, now)
	}
	var words string
	switch step(h.Step) {
	case stepArriving:
		words = "its state is arriving"
	case stepLoaded:
		words = "its state has arrived whole, and it has not run yet"
	case stepReleased:
		words = "it stands still until the order says whose it is"
	default:
		words = "its process is " + string(h.State)
		if still := h.State == vmm.Paused || h.State == vmm.Fenced; still && lm.Move != nil && lm.Move.Phase == ledger.Released {
			words = "it stands still until its confirmation is ordered"
		}
	}
	if h.Task != "" {
		words += ", and it " + h.Task
	}
	return at + ": " + words
}

// progressWords tell how far a move away from here has come.
func progressWords(p *api.Progress, h *api.Here, now time.Time) string {
	words := p.Phase
	if p.Within > 0 {
		left := p.Within - p.Waited
		until := now.Add(time.Duration((left - h.Ago) * float64(time.Second)))
		return fmt.Sprintf("%s since %.1f s, until %s", words, p.Waited+h.Ago, clock(until.UnixNano()))
	}
	switch {
	case p.Total > 0:
		words += fmt.Sprintf(", %s of %s", ledger.Bytes(p.Done), ledger.Bytes(p.Total))
	case p.Done > 0:
		words += ", " + ledger.Bytes(p.Done) + " so far"
	}
	return fmt.Sprintf("%s; its process is %s", words, h.State)
}
