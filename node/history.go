package node

import (
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"slices"

	"github.com/dcnode/dcnode/consensus"
	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/node/eventlog"
)

// History is what a node has seen, read from its data directory by someone who need
// not trust the node. The node may run meanwhile: what it had written when the
// History was opened is what there is.
type History struct {
	genesis Genesis
	log     *eventlog.Reader
	joined  map[ledger.MemberID]string // sites of members that came later, once the order is computed
}

// OpenHistory reads the data directory of a node. genesis is the file of the
// founding roster; empty means the one in the directory, which whoever made the
// rest may have made too.
func OpenHistory(dir, genesis string) (*History, error) {
	if genesis == "" {
		genesis = filepath.Join(dir, genesisFile)
	}
	h := &History{joined: map[ledger.MemberID]string{}}
	var err error
	if h.genesis, err = ReadGenesis(genesis); err != nil {
		return nil, fmt.Errorf("read history: %w", err)
	}
	if h.log, err = eventlog.Read(dir); err != nil {
		return nil, fmt.Errorf("read history: %w", err)
	}
	if h.log.Network != h.genesis.network() {
		return nil, fmt.Errorf("read history: the events in %s are of another overlay than the genesis %s", dir, genesis)
	}
	return h, nil
}

// Notes say what of the files could not be read.
func (h *History) Notes() []string { return h.log.Notes }

// Told is one event of a history as the node took it in, or a gap in it.
type Told struct {
	ID      uint64           // 0, 1, 2, …: its place in the log
	Event   *consensus.Event // nil: a gap
	Gap     *eventlog.Adoption
	Hash    consensus.Hash
	Parents []uint64 // IDs of those that are in the log, in signed order
	Self    bool     // the first of them is the self-parent
	Site    string   // of the creator
	Raw     []byte   // the encoding with the signature; holds until the next
}

// Events gives the history in the order of the log, parents first. Nothing is
// checked. It keeps the hashes of all events in memory, about 100 bytes each.
func (h *History) Events() iter.Seq2[Told, error] {
	return func(yield func(Told, error) bool) {
		type known struct{ id, creator, birth uint64 }
		ids := map[consensus.Hash]known{}
		for rec, err := range h.log.Records() {
			if err != nil {
				yield(Told{}, err)
				return
			}
			out := Told{ID: uint64(rec.Position), Event: rec.Event, Gap: rec.Adopted, Raw: rec.Raw()}
			if e := rec.Event; e != nil {
				out.Hash, out.Site = e.Hash(), h.site(e.Creator)
				for i := range e.Parents {
					p := &e.Parents[i]
					// A misnamed parent was ancient by its name, and counts for nothing.
					k, ok := ids[p.Hash]
					if !ok || k.creator != p.Creator || k.birth != p.BirthRound || slices.Contains(out.Parents, k.id) {
						continue
					}
					out.Parents = append(out.Parents, k.id)
					out.Self = out.Self || i == 0 && p.Creator == e.Creator
				}
				ids[out.Hash] = known{out.ID, e.Creator, e.BirthRound}
			}
			if !yield(out, nil) {
				return
			}
		}
	}
}

func (h *History) site(member uint64) string {
	if member > 0 && member <= uint64(len(h.genesis.Members)) {
		return h.genesis.Members[member-1].Site
	}
	if site := h.joined[ledger.MemberID(member)]; site != "" {
		return site
	}
	return fmt.Sprintf("member-%d", member)
}

// Epochs are the rosters and parameters of all rounds, which only the order itself
// can tell.
func (h *History) Epochs() ([]consensus.Epoch, error) {
	a, err := newAuditor(h)
	if err != nil {
		return nil, err
	}
	a.trusting = true
	if err = a.run(); errors.Is(err, errGap) {
		err = nil // there is no order to tell more
	}
	return a.epochs, err
}
