package blockstore

import (
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// block is one wanted block.
type block struct {
	cid  cid.Cid
	size int64 // bytes; 0: not known
}

// order is a block that is being asked for.
type order struct {
	block
	priority int32
	at       *holder          // owes it now; nil: waits
	asked    map[*holder]bool // was asked at any time
	refused  map[*holder]bool // said no in this round
	round    int
	after    time.Time // not asked again before
	avoid    *holder   // fell silent over it: others first
	due      int64     // at.bytes by which it must have come, or it is lost
	since    time.Time // asked of at
}

func (o *order) weight() int64 {
	if o.size > 0 {
		return o.size
	}
	return guessSize
}

// holder is a peer that is said to have the blocks.
type holder struct {
	id     peer.ID
	out    *sender
	up     bool
	why    error // it is not up
	owes   map[cid.Cid]*order
	owed   int64 // bytes
	window int64
	heard  time.Time // last block, or when it was first owed something
	lately int64     // bytes since the last tick
	rate   float64   // bytes a second, smoothed
	blocks int
	bytes  int64
}

func (h *holder) room() bool { return h.up && (h.owed < h.window || len(h.owes) == 0) }

// arrival is news from a holder.
type arrival struct {
	from    peer.ID
	blocks  []blocks.Block
	refused []cid.Cid
	up      bool
	down    error
}
