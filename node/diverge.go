package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/node/api"
)

// divergedFile says why this node does not start any more, for people.
const divergedFile = "diverged.txt"

// bisectWithin bounds the search for the event at which this member left the others.
const bisectWithin = 20 * time.Second

// errDiverged is what is wrong with a directory that has a divergedFile.
func errDiverged(dir string) error {
	path := filepath.Join(dir, divergedFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look whether this node has stopped for good: %w", err)
	}
	return fmt.Errorf("this node does not start, because of what %s says: %s", path, text)
}

// explain makes the end of the ordering loop one that people understand. If others
// contradict this member, it finds out from where on. The loop has ended: this member
// says nothing any more, and what was the loop's may be read.
func (n *Node) explain(ctx context.Context, ended error) error {
	if !errors.Is(ended, errDoubted) {
		return ended
	}
	ctx, cancel := context.WithTimeout(ctx, bisectWithin)
	defer cancel()
	against := n.order.contradicting()
	e := &DivergedError{Dir: n.cfg.Dir}
	found := map[uint64]uint64{} // weight by index
	first := map[uint64]finding{}
	for _, c := range against {
		e.Sites = append(e.Sites, n.order.state.Site(c.member))
		f := n.bisect(ctx, c)
		found[f.index] += n.order.state.Member(c.member).Weight
		if was, ok := first[f.index]; !ok || !was.exact || was.step < 0 {
			first[f.index] = f
		}
	}
	var best uint64 // what most say; of two, the earlier
	for _, i := range sortedKeys(found) {
		if found[i] > found[best] {
			best = i
		}
	}
	e.Index, e.Exact = best, first[best].exact
	if e.Exact {
		e.What = n.whatHappened(best, first[best].step)
	}
	if err := writeFile(filepath.Join(n.cfg.Dir, divergedFile), []byte(e.Error()+"\n"), 0o644); err != nil {
		return errors.Join(e, err)
	}
	return e
}

func sortedKeys[V any](m map[uint64]V) []uint64 {
	var out []uint64
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// finding is where a member's outcomes leave this one's.
type finding struct {
	index uint64
	exact bool // it has the same outcome at the index before
	step  int  // 0: when time advanced, 1: the first transaction, …; -1: not known
}

// bisect asks a member for its outcomes until it knows where they leave this one's.
func (n *Node) bisect(ctx context.Context, c testimony) finding {
	f := n.order.past.part(c, func(from, step uint64) (uint64, [][32]byte, error) {
		reply, err := n.ask(ctx, c.member, from, step)
		if err != nil {
			return 0, nil, err
		}
		return parseOutcomes(reply)
	})
	if f.exact {
		f.step = n.steps(ctx, c.member, f.index)
	}
	return f
}

// part finds the first place at which another's outcomes differ from these, by asking
// for them fewer and fewer places apart. Outcomes are chained: once they differ, they
// differ for ever.
func (p *past) part(c testimony, ask func(from, step uint64) (oldest uint64, theirs [][32]byte, err error)) finding {
	low, high := p.outcomes.oldest(), c.index // the first that differs is from low to high
	f := finding{exact: low == 0, step: -1}
	for low < high {
		step := (high-low)/maxOutcomes + 1
		oldest, theirs, err := ask(low, step)
		if err != nil || len(theirs) == 0 && oldest <= low {
			return finding{index: high, step: -1}
		}
		if len(theirs) == 0 {
			low, f.exact = min(oldest, high), false
			continue
		}
		from := low
		for i, d := range theirs {
			at := from + uint64(i)*step
			if at >= high {
				break
			}
			if o, _ := p.outcomes.get(at); o.digest != d {
				high = at
				break
			}
			low, f.exact = at+1, true
		}
	}
	f.index = high
	return f
}

func (n *Node) ask(ctx context.Context, of ledger.MemberID, from, step uint64) ([]byte, error) {
	return n.overlay.Request(ctx, n.peer(of), protoOutcome, outcomeRequest(from, step), maxOutcomeReply)
}

// steps finds the step of an event at which a member's outcome leaves this one's.
func (n *Node) steps(ctx context.Context, of ledger.MemberID, index uint64) int {
	mine, _ := n.order.past.outcomes.get(index)
	reply, err := n.ask(ctx, of, index, 0)
	if err != nil {
		return -1
	}
	for i := range mine.steps {
		at := 8 + 8*i
		if len(reply) < at+8 {
			return -1
		}
		if [8]byte(reply[at:]) != mine.steps[i] {
			return i
		}
	}
	return -1
}

// whatHappened is the transaction of an event at which the states part, in words.
func (n *Node) whatHappened(index uint64, step int) string {
	o, _ := n.order.past.outcomes.get(index)
	by := n.order.state.Site(o.author)
	if step == 0 {
		return "when time advanced to the event by " + by
	}
	if step < 0 {
		return "event by " + by
	}
	kind := "kind not known"
	if j := n.order.scribe.journal; j != nil {
		entries, _ := j.At(index)
		for _, e := range entries {
			if e.N == step-1 {
				kind = "kind " + cmp.Or(e.Kind, "not known")
			}
		}
	}
	return fmt.Sprintf("transaction %d by %s: %s", step-1, by, kind)
}

// doubted names the members that have computed another state, for status: they are
// too few to be right. In the loop.
func (n *Node) doubted() []api.Suspect {
	var out []api.Suspect
	for _, c := range n.order.contradicting() {
		out = append(out, api.Suspect{Site: n.order.state.Site(c.member), Count: 1, What: fmt.Sprintf("computed another state by event %d", c.index)})
	}
	return out
}
