// Package api is how people talk to a node on the same host: HTTP with JSON over
// a unix socket in the node's data directory. Who may open the socket may give
// orders; nobody else can.
//
// A request that takes time answers with lines of JSON, each a [Line]: progress
// as it comes, and last a result or an error.
package api

import (
	"context"
	"encoding/json"

	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/vmm"
)

// Line is one line of an answer.
type Line struct {
	Progress *Progress       `json:"progress,omitempty"`
	Result   json.RawMessage `json:"result,omitempty"`
	Error    string          `json:"error,omitempty"`
}

// Progress is how far a task has come.
type Progress struct {
	Phase string `json:"phase"`           // what is being done, a word or two
	Done  int64  `json:"done,omitempty"`  // bytes
	Total int64  `json:"total,omitempty"` // bytes; 0: not known
	Sent  int64  `json:"sent,omitempty"`  // bytes that went over the link for it

	// When it waits for something that must come within a time: seconds so far, and at most.
	Waited float64 `json:"waited,omitempty"`
	Within float64 `json:"within,omitempty"`
}

// Tell takes progress; it must not block.
type Tell func(Progress)

// Status is a node's view of itself and of the overlay.
type Status struct {
	Site    string             `json:"site"`
	Peer    string             `json:"peer"`
	Network string             `json:"network"`
	Version string             `json:"version"`
	Addrs   []string           `json:"addrs"`
	Drivers []vmm.Capabilities `json:"drivers"` // those that have been tried so far
	Members []MemberStatus     `json:"members"`
	Ordered uint64             `json:"ordered"` // events in the order
	Root    string             `json:"root"`    // CID of the ledger's state
	Round   uint64             `json:"round"`   // that is being decided
	Waiting int                `json:"waiting"` // own transactions that are not ordered yet

	Observing bool      `json:"observing,omitempty"` // makes no events: not sure which was its last one
	WaitsFor  []string  `json:"waits_for,omitempty"` // sites that have not said yet which it was, while it matters
	Joining   bool      `json:"joining,omitempty"`   // fetches what the checkpoint that it took over begins with
	Behind    bool      `json:"behind,omitempty"`    // so far that it takes over a checkpoint of the others
	Awaits    []string  `json:"awaits,omitempty"`    // sites whose approval this node waits for, to become a member
	Lacks     string    `json:"lacks,omitempty"`     // what it lacks to begin, once it is invited
	Left      bool      `json:"left,omitempty"`      // it is no longer a member
	Suspects  []Suspect `json:"suspects,omitempty"`  // members that break the rules
	Log       Log       `json:"log"`
	Pace      Pace      `json:"pace"`
}

// Pace is how the order goes.
type Pace struct {
	Late   uint64 `json:"late"`    // rounds decided later than the first chance, since the start
	Copied uint64 `json:"copied"`  // rounds without enough judges of their own, since the start
	WaitUS int64  `json:"wait_us"` // µs that stragglers are waited for now
}

// Suspect is a member that breaks the rules, or whose connection does, and how.
type Suspect struct {
	Site     string   `json:"site"`
	What     string   `json:"what"`
	Count    uint64   `json:"count"`
	Evidence []string `json:"evidence,omitempty"` // hashes of two events that it signed and that contradict each other
}

// Log is where events are being written, and how much of that would survive a power
// cut.
type Log struct {
	File   string `json:"file,omitempty"`
	Synced int64  `json:"synced,omitempty"` // bytes
}

// MemberStatus is what a node sees of one member.
type MemberStatus struct {
	Site      string `json:"site"`
	Peer      string `json:"peer"`
	Region    string `json:"region,omitempty"`
	Self      bool   `json:"self,omitempty"`
	Connected bool   `json:"connected"`
	Live      bool   `json:"live"` // waited for by the order: neither far behind nor often late
	Transport string `json:"transport,omitempty"`
	RTT       int64  `json:"rtt_us,omitempty"` // microseconds
}

// AddImage asks for a file to become an image.
type AddImage struct {
	Name   string `json:"name"`
	Path   string `json:"path"` // absolute; read by the node
	Kernel string `json:"kernel,omitempty"`
	Initrd string `json:"initrd,omitempty"`
	Append string `json:"append,omitempty"`
	// Account that it is to belong to; empty: this member's site. See Law.ImportImage.
	Account string `json:"account,omitempty"`
}

// Image is a version of an image and whether this node has it.
type Image struct {
	Name    string `json:"name"` // with the tag, unless that is the default one
	Account string `json:"account"`
	ledger.Version
	Here    bool     `json:"here"`
	HeldBy  []string `json:"held_by"` // sites
	Missing int64    `json:"missing"` // bytes that this node lacks
}

// RemovedImage is what became of an image that was removed.
type RemovedImage struct {
	Name      string `json:"name"`
	Withdrawn bool   `json:"withdrawn"` // for all; else only the copy of this site is gone
}

// RunMachine asks for a new machine.
type RunMachine struct {
	Name   string `json:"name"`
	Image  string `json:"image"`
	Memory int64  `json:"memory"` // bytes
	VCPUs  int    `json:"vcpus"`
	CPU    string `json:"cpu,omitempty"`
	Driver string `json:"driver,omitempty"` // empty: the best that works here
	Append string `json:"append,omitempty"` // added to the image's kernel command line
	Signed []byte `json:"signed,omitempty"` // its definition, signed by the account that it is to belong to: see Law.Design
}

// Machine is a machine as the ledger has it and as it is here.
type Machine struct {
	ledger.Machine
	Site    string    `json:"site"`            // of the owner
	Here    bool      `json:"here"`            // it is on this host
	State   vmm.State `json:"state,omitempty"` // when it is here
	Detail  vmm.Spec  `json:"detail"`
	Console string    `json:"console,omitempty"` // path of its console log, when it is here
}

// Migrate asks for a move.
type Migrate struct {
	Name        string `json:"name"`
	To          string `json:"to,omitempty"`           // site; empty: the overlay selects
	MaxDowntime int64  `json:"max_downtime,omitempty"` // milliseconds; 0: as the policy says, or 300
	Bandwidth   int64  `json:"bandwidth,omitempty"`    // bytes a second, at most; 0: as the policy says, or no cap
}

// Cancelled is a move that was called off. Its machine runs on where it was.
type Cancelled struct {
	Machine string `json:"machine"`
	Site    string `json:"site"`           // where it runs on
	To      string `json:"to,omitempty"`   // site that it was to move to, if that was known
	Move    uint64 `json:"move,omitempty"` // index of its intent; 0: that was not ordered yet
	Reason  string `json:"reason"`
}

// Bid is one member's answer to an intent, for people.
type Bid struct {
	Member           string  `json:"member"` // site
	Eligible         bool    `json:"eligible"`
	Reason           string  `json:"reason,omitempty"`
	PredictedSeconds float64 `json:"predicted_seconds"`
	MissingBytes     int64   `json:"missing_bytes"`
	RTTMillis        float64 `json:"rtt_ms"`
	Bandwidth        int64   `json:"bandwidth"` // bytes per second
	FreeMemory       int64   `json:"free_memory"`
	VMM              string  `json:"vmm,omitempty"`
}

// Bytes are the bytes of a move: what the machine had, and what was sent for it.
type Bytes struct {
	MemoryPlain int64            `json:"memory_plain"`
	MemorySent  int64            `json:"memory_sent"`
	DiskPlain   int64            `json:"disk_plain"`
	DiskSent    int64            `json:"disk_sent"`
	ImageSent   int64            `json:"image_sent"`
	ByOrigin    map[string]int64 `json:"by_origin"` // plain bytes of memory by where the destination found them
}

// Consensus is the time that the order took, in milliseconds.
type Consensus struct {
	Selection float64 `json:"intent_to_selection"`
	Release   float64 `json:"release_to_ordered"`
	Move      float64 `json:"selection_to_release_ordered"`
}

// Cuts are those of the link during a move, through which it went on.
type Cuts struct {
	Count     int     `json:"count"`
	Seconds   float64 `json:"seconds"`    // without a connection
	SentTwice int64   `json:"sent_twice"` // bytes that were sent again
}

// Report is what a move did.
type Report struct {
	Machine      string             `json:"machine"`
	Driver       string             `json:"driver"`
	Accelerator  string             `json:"accelerator"`
	Source       string             `json:"source"`
	Destination  string             `json:"destination"`
	Epoch        uint64             `json:"epoch"`
	Why          string             `json:"why"` // why this destination
	Bids         []Bid              `json:"bids"`
	TotalSeconds float64            `json:"total_seconds"` // from the order given to the destination confirmed
	DowntimeQEMU int64              `json:"downtime_qemu_ms"`
	Consensus    Consensus          `json:"consensus_ms"`
	Phases       map[string]float64 `json:"phase_seconds"`
	Bytes        Bytes              `json:"bytes"`
	Cuts         Cuts               `json:"cuts"`
	Forecast     *ledger.Forecast   `json:"forecast,omitempty"` // what the ledger predicted of it
	Truth        *ledger.Truth      `json:"truth,omitempty"`    // what it was, as the ledger has it
	Digest       string             `json:"digest"`             // SHA-256 of memory and device state, compared at the destination
}

// Overlay is what a node tells of itself.
type Overlay interface {
	Status(ctx context.Context) (Status, error)
	Ledger(ctx context.Context) (*Ledger, error)
}

// Images are a node's images.
type Images interface {
	AddImage(ctx context.Context, r AddImage, tell Tell) (Image, error)
	ListImages(ctx context.Context) ([]Image, error)
	FetchImage(ctx context.Context, name string, tell Tell) (Image, error)
	RemoveImage(ctx context.Context, name string) (RemovedImage, error)
}

// Machines are a node's machines.
type Machines interface {
	RunMachine(ctx context.Context, r RunMachine, tell Tell) (Machine, error)
	ListMachines(ctx context.Context) ([]Machine, error)
	StopMachine(ctx context.Context, name string) (Machine, error)
	StartMachine(ctx context.Context, name string) (Machine, error)
	RemoveMachine(ctx context.Context, name string) error
	Migrate(ctx context.Context, r Migrate, tell Tell) (Report, error)
	// CancelMove ends a move away from here that is not released.
	CancelMove(ctx context.Context, name string) (Cancelled, error)
	// Why asks nothing of anyone: it is what this member knows.
	Why(ctx context.Context, name string) (Why, error)
}

// Backend is all of it.
type Backend interface {
	Overlay
	Order
	Members
	Audit
	Images
	Machines
	Law
}
