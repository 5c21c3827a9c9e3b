package h26

// Vertex is what the rules use of an event.
type Vertex struct {
	Creator    int      // slot; one that the roster of a round lacks counts for nobody in it
	Birth      uint64   // birth round
	Time       int64    // creation time, ns
	Coin       uint32   // picks a member, modulo their number
	SelfParent int      // index, or None
	Parents    []int    // indices in signed order, the self-parent first if there is one
	Hash       [32]byte // used to break ties
}

// store holds the events that may still matter, in order of insertion. Events that
// were let go of stay at the front of its slices until they are half of them.
type store struct {
	base    int // index of the first event kept
	old     int // index of the first event that may not be let go of
	origin  int // index of vert[0]
	vert    []vertex
	hash    [][32]byte
	parents []int32 // of all events: how far before the child each parent is
	dropped uint64  // how many are gone from the front of parents
}

type vertex struct {
	birth   uint64
	time    int64
	parents uint64 // where its parents are, counted from the beginning
	stamp   uint32 // of the last walk that came by
	coin    uint32
	self    int32 // how far before it the self-parent is, 0: none
	slot    int32
	place   int32  // in a list that is being made
	count   uint16 // of parents
	got     bool   // received in a decided round
}

// Base is the index of the first event that is still kept.
func (s *store) Base() int { return s.base }

// Len is the index that the next event gets.
func (s *store) Len() int { return s.origin + len(s.vert) }

func (s *store) vertex(x int) *vertex { return &s.vert[x-s.origin] }

// parentsOf gives the distances of v to its parents. Those that lead below base
// lead to events that are gone.
func (s *store) parentsOf(v *vertex) []int32 {
	o := v.parents - s.dropped
	return s.parents[o : o+uint64(v.count)]
}

// Add puts an event on the graph and returns its index. Its parents must be there;
// one that was forgotten is to be left out. Decide has to be called to use it. The
// slice of parents stays the caller's.
func (s *store) Add(v Vertex) int {
	x := s.Len()
	e := vertex{
		birth: v.Birth, time: v.Time, coin: v.Coin, slot: int32(v.Creator), place: None,
		parents: s.dropped + uint64(len(s.parents)), count: uint16(len(v.Parents)),
	}
	if v.SelfParent != None {
		e.self = int32(x - v.SelfParent)
	}
	for _, q := range v.Parents {
		s.parents = append(s.parents, int32(x-q))
	}
	s.vert = append(s.vert, e)
	s.hash = append(s.hash, v.Hash)
	return x
}

// Forget lets go of the events at the front that are ancient and returns the new
// base. It does nothing while there are fewer than min of them.
func (g *Engine) Forget(min int) int {
	for g.old < g.start && g.vertex(g.old).birth < g.minBirth {
		g.old++
	}
	if g.old-g.base >= min {
		g.base = g.old
		g.compact()
	}
	return g.base
}

// compact moves what is kept to the front once that is no more than what is not.
func (s *store) compact() {
	gone := s.base - s.origin
	if gone == 0 || 2*gone < len(s.vert) {
		return
	}
	first := len(s.parents)
	if gone < len(s.vert) {
		first = int(s.vert[gone].parents - s.dropped)
	}
	s.vert = cut(s.vert, gone)
	s.hash = cut(s.hash, gone)
	s.parents = cut(s.parents, first)
	s.dropped += uint64(first)
	s.origin = s.base
}

// cut drops the first k. What a burst has left far too large is given back.
func cut[T any](s []T, k int) []T {
	kept := s[k:]
	if cap(s) > 1024+8*len(kept) {
		return append(make([]T, 0, 2*len(kept)), kept...)
	}
	return s[:copy(s, kept)]
}
