// Package consensus is the hashgraph: signed events go in, one total order comes
// out, the same at every member.
//
// The package is pure. It reads no clock, starts no goroutine, does no I/O and
// draws no random number; time, coins and keys are arguments. One goroutine
// drives a [Core]:
//
//	for rd, ok := core.Ready(); ok; rd, ok = core.Ready() {
//		save(rd.Save)        // written before anyone can see them
//		send(rd.Send)        // own events, to every member
//		fetch(rd.Missing)    // parents that someone must have
//		keep(rd.Checkpoints) // with the state as it is now
//		apply(rd.Ordered)    // the total order; what changes the roster calls Change
//		repool(rd.Stale)     // what was lost is said again
//		core.Advance()
//	}
//	if now, wait := core.Due(mono, pool.Len() > 0); now {
//		e := core.Next(clock(), coin(), pool.Take())
//		e.Sign(key)
//		core.Add(e) // and round the loop again
//	}
//
// # Words
//
// A member's events form a chain; two events of one member neither of which is on
// the other's chain are a fork. A member's first event in a voting round is its
// witness there; a round is decided when it is known which witnesses are its
// judges; the judges order what they have below them. Rounds are decided one after
// another, and the one that is next is pending. An event carries the pending round
// of its creator, its birth round. An event born too far behind the judges is
// ancient and leaves the graph; if it was not ordered by then it never will be: it
// is stale. The layer of an event is how many times a quorum has answered a quorum
// below it: it paces creation (one event per member and layer) and nothing else.
//
// # Changes
//
// Rosters and parameters belong to rounds. The order itself changes them: whoever
// applies it calls Change, and the change is obeyed from ChangeDelay rounds later on.
// An event is checked by the roster of the round it was born in.
//
// # Restart
//
// Feed everything that was saved to Add, in the order in which it was saved, with
// Replay on, and handle each Ready. The same order comes out again, and the Core knows
// its own last event. Save, Send and Missing of such a replay mean nothing new.
//
// Or begin with the last checkpoint and the state that was kept with it, and feed
// the events born in its MinBirth or later, and the own last event in any case. So
// does one who is new or was away too long, with a checkpoint that enough of the
// others have signed. Orders, indices and times go on exactly where it was taken.
package consensus

import (
	"crypto/ed25519"
	"errors"
)

// What Add says of an event that it does not take. Use errors.Is.
var (
	ErrDuplicate = errors.New("event is here already")
	ErrAncient   = errors.New("event was born too long ago to be ordered")
	ErrInvalid   = errors.New("event breaks a rule")
	ErrFuture    = errors.New("event is ahead of this member, and there is no room to keep it")
	ErrFull      = errors.New("event lacks parents, and there is no room to keep it")
	ErrFlood     = errors.New("event is one too many of its creator")
)

// Hash is a SHA-256.
type Hash [32]byte

// Timestamp is nanoseconds since the Unix epoch, as some member's clock said.
type Timestamp int64

// Member is one entry of the roster.
type Member struct {
	ID     uint64 // stable; the roster is ordered by it
	Key    ed25519.PublicKey
	Weight uint64
}

// Parent names an event that another builds on.
type Parent struct {
	Hash       Hash
	Creator    uint64
	BirthRound uint64
}

// Event is what a member says: what it has seen (the parents) and what it wants
// ordered (the payload). Immutable once signed.
type Event struct {
	Network    Hash
	Creator    uint64
	Seq        uint64 // self-parent's + 1; a hint only
	BirthRound uint64 // the creator's pending round at creation
	Parents    []Parent
	Time       Timestamp
	Coin       uint32
	Payload    [][]byte
	Signature  []byte

	hash   Hash
	sealed *Event // this event, when hash is its hash; in a copy it is another
}

// Params are the constants of the rules; every member must have the same.
type Params struct {
	SeeNum, SeeDen   uint64 // the "see" fraction of the fast step: 2, 3
	JudgeAny         bool
	CoinInterval     uint64 // 12
	NonAncientRounds uint64 // 26
	Whiten           bool   // ties are broken by the events' hashes, whitened by the judges'
}

// DefaultParams are those of the 2026 rules, set for a ledger: any judge orders, the
// fast step is taken, and nobody gains by the order of a walk.
var DefaultParams = Params{SeeNum: 2, SeeDen: 3, JudgeAny: true, CoinInterval: 12, NonAncientRounds: 26, Whiten: true}

// Epoch is a run of rounds with one roster and one set of parameters: from round
// From up to the next epoch.
type Epoch struct {
	From   uint64
	Roster []Member
	Params Params
}

const (
	// ChangeDelay is the number of rounds from the one that ordered a change of
	// roster or parameters to the first that obeys it. Events are checked by the
	// roster of their birth round, so a member that is fewer rounds behind than this
	// knows the creators of all it gets.
	ChangeDelay = 8
	// CheckpointEvery is the number of rounds from one checkpoint to the next. The first
	// round of each roster has one as well, and so has the round before it: whoever
	// joins can begin at one that names it, however young the overlay is.
	CheckpointEvery = 512
)

// Config is what a Core is made of.
type Config struct {
	Network Hash
	Roster  []Member // ordered by ID, no duplicates, at least one with weight
	Self    uint64   // this member's ID; one that is not in the roster only observes
	Params  Params   // zero: DefaultParams

	// From is where to go on; Roster and Params are then those of its epochs. Feed
	// all events born in round From.MinBirth or later, in any order that has parents
	// first; until the judges of the checkpoint are among them nothing is decided
	// and nothing created. What was ordered before the checkpoint is not ordered
	// again.
	From *Checkpoint
	// CheckpointEvery is the number of rounds between checkpoints, the same at every
	// member; zero: the constant of that name. Others are taken where a roster
	// begins.
	CheckpointEvery uint64
}

// Ordered is an event with its place in the total order.
type Ordered struct {
	Event *Event
	Index uint64    // 0, 1, 2, …: position in the total order
	Round uint64    // round received
	Time  Timestamp // consensus time, strictly increasing
}

// Fork is evidence: two signed events of one creator of which neither is on the
// other's self-chain.
type Fork struct{ A, B *Event }

// Want is a parent that an event needs and that is not here.
type Want struct {
	Hash    Hash
	Creator uint64 // of the parent
	Child   uint64 // creator of an event that names it: it must have it
}

// Ready is work for the driver. Its parts are to be handled in the order of the fields.
type Ready struct {
	// Save: events that entered the DAG since the last Advance, parents first.
	// Write them (no sync needed) before anything else of this Ready is done: an
	// own event that someone has seen and that is lost in a restart is a fork.
	Save []*Event
	// Send: own events among Save, for every member.
	Send []*Event
	// Missing: parents to fetch by hash.
	Missing []Want
	// Checkpoints: to be taken now, when all Ordered of earlier Readys are applied
	// and none of this one.
	Checkpoints []Checkpoint
	// Ordered: the continuation of the total order.
	Ordered []Ordered
	// Stale: own events with payload that became ancient without being ordered.
	// That is final, at every member: put their transactions back in the pool. A
	// replay after a restart reports them again; a transaction that may not count
	// twice needs a key by which its second copy is known.
	Stale []*Event
}
