// Package slow holds the rules of the hashgraph twice, each written straight from its
// definitions: H26 by the rules of 2026, which package h26 runs fast, and H16 by the
// paper of 2016. Both are recursive functions with tables of what is known already,
// named as in the papers, and share nothing with the fast engine: where the two
// disagree, one of them is wrong.
package slow

// None is the index that names no event.
const None = -1

// Params are the constants of the rules. H16 uses only CoinInterval.
type Params struct {
	SeeNum, SeeDen   uint64 // fraction of stake that the fast step must exceed
	JudgeAny         bool   // received by: any judge (true), all judges (false)
	CoinInterval     uint64 // every how many voting rounds a coin is tossed
	NonAncientRounds uint64 // how far behind the judges an event may be born
	Whiten           bool   // break ties by whitened hash before the place in the walk
}

// Member is a member of a roster.
type Member struct{ ID, Stake uint64 }

// Rules hold from round From on, until those with a higher From. Members are in the
// order that counts.
type Rules struct {
	From uint64
	Params
	Members []Member
}

// Event is what the rules use of an event. Its parents come before it.
type Event struct {
	Name       int64  // breaks ties of H16 between events without hashes
	Creator    uint64 // member ID; events of those outside the roster count for nobody
	Birth      uint64 // birth round
	Time       int64  // creation time, ns
	Coin       uint32 // picks a member, modulo their number; the lowest bit is the coin of H16
	SelfParent int    // index, or None
	Parents    []int  // indices in signed order, the self-parent first if there is one
	Hash       [32]byte
}

// supermajority reports whether a stake is more than two thirds of the total.
func (r *Rules) supermajority(stake uint64) bool {
	var total uint64
	for _, m := range r.Members {
		total += m.Stake
	}
	return 3*stake > 2*total
}

// member is the place of a member in the roster, or None.
func (r *Rules) member(id uint64) int {
	for m := range r.Members {
		if r.Members[m].ID == id {
			return m
		}
	}
	return None
}

// stakeOf is the stake of a member, 0 for one who is not in the roster.
func (r *Rules) stakeOf(id uint64) uint64 {
	if m := r.member(id); m != None {
		return r.Members[m].Stake
	}
	return 0
}

// pair is a key of the tables: an event and a member, two events.
type pair struct{ x, m int }

// recall looks a value up or works it out.
func recall[K comparable, V any](table map[K]V, key K, work func() V) V {
	if v, ok := table[key]; ok {
		return v
	}
	v := work()
	table[key] = v
	return v
}

// xor is the bitwise exclusive or of two hashes.
func xor(a, b [32]byte) [32]byte {
	for i := range a {
		a[i] ^= b[i]
	}
	return a
}
