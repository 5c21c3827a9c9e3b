package node

import (
	"errors"
	"fmt"
	"slices"

	"github.com/dcnode/dcnode/consensus/ledger"
)

// How often each member says what it has computed, if anything was said meanwhile. What
// the others say does not count: one that says something all the time would silence all.
const (
	rootEvery = 4096 // events
	rootAfter = 10 * ledger.Minute
)

// doubt is what the members have said of their outcomes. It belongs to the ordering loop.
type doubt struct {
	every uint64 // rootEvery, or less in a test

	index  uint64      // at which this member has last said its own; or the first event
	time   ledger.Time // of that
	any    bool        // index and time are known
	anew   bool        // something was said since
	words  []testimony // the last word of each member, by member
	fresh  bool        // words have come since compare
	agreed uint64      // the highest index at which another member had the same outcome
}

// testimony is what a member says that came of the order up to an index.
type testimony struct {
	member ledger.MemberID
	index  uint64
	digest [32]byte
	differ bool // from what this member has computed
}

// take notes what was ordered.
func (d *doubt) take(p ledger.Place, body ledger.Body, refused error) {
	switch t := body.(type) {
	case *ledger.Root:
		if refused != nil {
			return
		}
		i, known := slices.BinarySearchFunc(d.words, p.Author, func(c testimony, id ledger.MemberID) int { return int(int64(c.member) - int64(id)) })
		if !known {
			d.words = slices.Insert(d.words, i, testimony{member: p.Author})
		}
		d.words[i], d.fresh = testimony{member: p.Author, index: t.Index, digest: [32]byte(t.Outcome)}, true
	case *ledger.Tick:
	default:
		d.anew = true
	}
}

// due says whether it is time to say what came of the order up to p, and notes that it is said.
func (d *doubt) due(p ledger.Place) bool {
	if !d.any {
		d.index, d.time, d.any = p.Index, p.Time, true
	}
	every := d.every
	if every == 0 {
		every = rootEvery
	}
	if !d.anew || p.Index-d.index < every && p.Time-d.time < rootAfter {
		return false
	}
	d.index, d.time, d.anew = p.Index, p.Time, false
	return true
}

// DivergedError: this member has computed another state from the same order than
// members of more than a third of the weight.
type DivergedError struct {
	Sites []string // that have computed another state
	Index uint64   // of the first event at which they differ
	Exact bool     // else it is that or an earlier one
	What  string   // the transaction of that event; empty: not known
	Dir   string   // the data directory
}

func (e *DivergedError) Error() string {
	from := fmt.Sprintf("event %d on", e.Index)
	if !e.Exact {
		from = fmt.Sprintf("event %d on, or from an earlier one", e.Index)
	}
	if e.What != "" {
		from += " (" + e.What + ")"
	}
	return fmt.Sprintf("this member computed another state than %s from %s: it has stopped, and takes part no more. Keep %s for a report; then upgrade this node or check its memory and disks, and start it on a copy of the directory without %s and the checkpoints in it, so that it computes the state anew", joined(e.Sites), from, e.Dir, divergedFile)
}

func joined(sites []string) string {
	switch n := len(sites); n {
	case 0:
		return "others"
	case 1:
		return sites[0]
	default:
		out := sites[0]
		for _, s := range sites[1 : n-1] {
			out += ", " + s
		}
		return out + " and " + sites[n-1]
	}
}

// errDoubted ends the ordering loop: too many members contradict this one.
var errDoubted = errors.New("members of more than a third of the weight have computed another state than this one")

// compare looks whether the others agree with this member, and says what it has
// computed when it is time. In the loop, after the event at p.
func (r *replica) compare(p ledger.Place) error {
	if r.doubt.fresh {
		r.doubt.fresh = false
		if r.contradicted() {
			return errDoubted
		}
	}
	if !r.doubt.due(p) || r.state.Member(r.self) == nil {
		return nil
	}
	o := r.state.Outcome()
	_, raw, err := r.encode(&ledger.Root{Index: p.Index, Outcome: o[:]})
	if err == nil {
		err = r.loop.Enqueue(raw)
	}
	if err != nil {
		r.slog.Warn("say what came of the order", "cause", err) // the pool is full: the next time, then
	}
	return nil
}

// contradicted compares the last words of all members with this one's past, and says
// whether members of more than a third of the weight have computed something else.
func (r *replica) contradicted() bool {
	var against uint64
	for i := range r.doubt.words {
		c := &r.doubt.words[i]
		m := r.state.Member(c.member)
		o, here := r.past.outcomes.get(c.index)
		if m == nil || c.member == r.self {
			continue
		}
		if here {
			if c.differ = o.digest != c.digest; !c.differ {
				r.doubt.agreed = max(r.doubt.agreed, c.index)
			}
		}
		if c.differ {
			against += m.Weight
		}
	}
	return 3*against > r.state.Weight()
}

// contradicting are the members whose last word is another than this one's.
func (r *replica) contradicting() []testimony {
	return slices.DeleteFunc(slices.Clone(r.doubt.words), func(c testimony) bool {
		return !c.differ || r.state.Member(c.member) == nil
	})
}
