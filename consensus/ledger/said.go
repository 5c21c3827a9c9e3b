package ledger

import (
	"slices"

	"github.com/dcnode/dcnode/consensus/ledger/merkle"
)

// Said tells an author's transactions that were ordered from new ones: each number
// holds once. It never changes.
type Said struct {
	floor uint64 // numbers up to here are too old
	// seen and fresh are the others, at most maxSeen, each ascending. New ones go to
	// fresh, which is short: so what most transactions copy is short.
	seen, fresh []uint64
}

// maxFresh is how long fresh may become before it is merged into seen.
const maxFresh = 16

// said is a Said as it is encoded.
type said struct {
	Floor uint64   `json:"floor,omitempty"`
	Seen  []uint64 `json:"seen,omitempty"` // ascending, the last maxSeen
}

// MarshalCBOR implements cbor.Marshaler.
func (h Said) MarshalCBOR() ([]byte, error) { return merkle.Encode(said{h.floor, h.numbers()}) }

// UnmarshalCBOR implements cbor.Unmarshaler.
func (h *Said) UnmarshalCBOR(b []byte) error {
	var in said
	if err := merkle.Decode(b, &in); err != nil {
		return err
	}
	*h = Said{floor: in.Floor, seen: in.Seen}
	return nil
}

// numbers are all that are remembered, ascending.
func (h *Said) numbers() []uint64 {
	if len(h.fresh) == 0 {
		return h.seen
	}
	all := slices.Concat(h.seen, h.fresh)
	slices.Sort(all)
	return all
}

// has says whether a number is remembered.
func (h *Said) has(n uint64) bool {
	_, old := slices.BinarySearch(h.seen, n)
	_, new := slices.BinarySearch(h.fresh, n)
	return old || new
}

// with remembers one number more, which it does not have yet, and forgets the least of
// more than maxSeen.
func (h *Said) with(n uint64) *Said {
	next := Said{floor: h.floor, seen: h.seen, fresh: make([]uint64, 0, len(h.fresh)+1)}
	i, _ := slices.BinarySearch(h.fresh, n)
	next.fresh = append(append(append(next.fresh, h.fresh[:i]...), n), h.fresh[i:]...)
	if len(next.seen)+len(next.fresh) > maxSeen {
		least := &next.seen
		if len(next.seen) == 0 || next.fresh[0] < next.seen[0] {
			least = &next.fresh
		}
		next.floor, *least = (*least)[0], (*least)[1:]
	}
	if len(next.fresh) >= maxFresh {
		next.seen, next.fresh = next.numbers(), nil
	}
	return &next
}

// LastSaid is the highest number that an own transaction of a member, once ordered,
// has had; 0: none. Its next must be higher.
func (s *State) LastSaid(id MemberID) uint64 {
	said, _ := s.said.Get(memberKey(id))
	return said.last()
}

func (h *Said) last() uint64 {
	if h == nil {
		return 0
	}
	last := h.floor
	for _, l := range [][]uint64{h.seen, h.fresh} {
		if n := len(l); n > 0 {
			last = max(last, l[n-1])
		}
	}
	return last
}

// LastSaidBy is the same for an account whose keys sign.
func (s *State) LastSaidBy(account string) uint64 {
	said, _ := s.said.Get("a/" + account)
	return said.last()
}
