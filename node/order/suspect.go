package order

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/dcnode/dcnode/consensus"
)

// Suspect is a member that breaks the rules, or whose connection does, and how.
type Suspect struct {
	Member uint64
	What   string // in words
	Count  uint64
	Last   time.Time
	// Evidence is, of a fork, the hashes of two events that the member signed and of
	// which neither builds on the other: anyone who has the events can check it.
	Evidence []consensus.Hash
}

// fault is what a sender may be blamed for.
type fault int

const (
	badEvent fault = iota // an event that does not decode, breaks a rule or is not signed
	flood                 // more than there is room for
	dropped               // sent while it was paused
	badReply              // an answer to a request that makes no sense
)

var faultText = map[fault]string{
	badEvent: "sends events that break the rules or are not signed by their creator",
	flood:    "sends more than it may",
	dropped:  "was not listened to for a while, because of what it sent",
	badReply: "answers requests with what makes no sense",
}

// A sender may send an invalid event now and then: a relay passes on what it has
// not checked. Whoever sends more is not listened to for a while; its own events
// then come from others or by asking.
const (
	maxCredit  = 64               // invalid events at once
	creditTime = time.Second      // until one more is forgiven
	pauseTime  = 10 * time.Second // for which what it publishes is dropped
)

// accuse counts a fault of a sender and pauses it if there are too many.
func (in *intake) accuse(s *sender, f fault, cause error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.blame(s, f, cause)
	now := time.Now()
	if n := int(now.Sub(s.since) / creditTime); n > 0 {
		s.credit, s.since = min(maxCredit, s.credit+n), s.since.Add(time.Duration(n)*creditTime)
	}
	if s.credit--; s.credit <= 0 {
		s.credit = 0
		s.paused = now.Add(pauseTime)
	}
	if id := in.l.cfg.Peer(s.id); in.blamer != nil && id != "" {
		in.blamer.Blame(id, faultText[f])
	}
}

// blameReply accuses a member of an answer that makes no sense.
func (in *intake) blameReply(id uint64, cause error) {
	in.mu.Lock()
	s := in.sender(id)
	in.mu.Unlock()
	in.accuse(s, badReply, cause)
}

// blame counts a fault. The caller holds the lock.
func (in *intake) blame(s *sender, f fault, cause error) {
	sus := s.faults[f]
	if sus == nil {
		sus = &Suspect{Member: s.id, What: faultText[f]}
		s.faults[f] = sus
	}
	if now := time.Now(); now.Sub(sus.Last) > time.Minute { // a flood must not flood the log
		in.l.log.Warn("a member "+sus.What, "member", s.id, "times", sus.Count+1, "cause", cause)
	}
	sus.Count++
	sus.Last = time.Now()
}

// suspects are the senders that were blamed.
func (in *intake) suspects() []Suspect {
	in.mu.Lock()
	defer in.mu.Unlock()
	var out []Suspect
	for _, s := range in.senders {
		for _, sus := range s.faults {
			out = append(out, *sus)
		}
	}
	slices.SortFunc(out, func(a, b Suspect) int {
		return cmp.Or(cmp.Compare(a.Member, b.Member), cmp.Compare(a.What, b.What))
	})
	return out
}

// forked are the members that contradict themselves, each with one proof of it.
func (l *Loop) forked() []Suspect {
	var out []Suspect
	for _, f := range l.core.Forks() {
		if i := slices.IndexFunc(out, func(s Suspect) bool { return s.Member == f.A.Creator }); i >= 0 {
			out[i].Count++
			continue
		}
		out = append(out, Suspect{
			Member: f.A.Creator, Count: 1,
			What:     fmt.Sprintf("contradicts itself: two events, number %d and number %d, neither built on the other", f.A.Seq, f.B.Seq),
			Evidence: []consensus.Hash{f.A.Hash(), f.B.Hash()},
		})
	}
	return out
}
