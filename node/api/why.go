package api

import (
	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/vmm"
)

// AtRest is the phase of a machine that does not move.
const AtRest = "at rest"

// Why is what a machine waits for, as one member knows it.
type Why struct {
	Machine  string    `json:"machine"`
	Asked    string    `json:"asked"` // site of the member that says all this
	Owner    string    `json:"owner"` // site
	Epoch    uint64    `json:"epoch"`
	Phase    string    `json:"phase"`                  // of its move, or AtRest
	Since    int64     `json:"since,omitempty"`        // consensus time, ns since the Unix epoch; 0: not known
	Deadline int64     `json:"deadline,omitempty"`     // likewise; 0: there is none, or it is not set yet
	Left     float64   `json:"left_seconds,omitempty"` // until the deadline by the clock here; below 0: it has passed, and the order has not said so
	Missing  []Missing `json:"missing"`
	Moved    int64     `json:"moved,omitempty"` // bytes that have been copied, as the order knows
	Quorum   Quorum    `json:"quorum"`
	Here     *Here     `json:"here,omitempty"` // null: nothing of it is at this member
	Words    []string  `json:"words"`          // all that, as sentences
}

// Missing is a transaction that a machine waits for.
type Missing struct {
	What      ledger.Kind `json:"what"`
	By        string      `json:"by"`        // site of the member that owes it
	Connected bool        `json:"connected"` // to the member that was asked
}

// Quorum is the weight that the member which was asked sees, itself included, and the
// weight that the order needs to move.
type Quorum struct {
	Total  uint64   `json:"total"`
	Needed uint64   `json:"needed"`
	Seen   uint64   `json:"seen"`
	Lacks  uint64   `json:"lacks"`
	Away   []string `json:"away"` // sites
}

// Here is what a member knows of a machine on its own host.
type Here struct {
	State    vmm.State `json:"state"`
	Step     string    `json:"step"`                  // how far it has come here: here, released, arriving or loaded
	Task     string    `json:"task,omitempty"`        // what is being done with it: "is being stopped"
	Progress *Progress `json:"progress,omitempty"`    // of its move away
	Ago      float64   `json:"ago_seconds,omitempty"` // since the move has told of its progress
}
