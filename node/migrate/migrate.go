// Package migrate copies one running machine from one node to another over one
// stream of bytes.
//
//	source ─► encode ─► stream ─► decode ─► destination
//
// [Send] runs the left half and [Receive] the right; they meet only in the frames
// of the stream (frame.go). The order of things is
//
//	disk        passes over the disks, until what a pass finds is small
//	memory      the machine's own stream, re-encoded by package ramstream; disk passes go on
//	switchover  the machine has paused: Release, the last blocks, a barrier, the rest of memory
//	loading     the destination compares digests, loads the state, says so
//
// One rule says what a failure means. Until Release was called the machine belongs
// to the source: whatever goes wrong, Send cancels and it runs on. From then on
// only the order of events can say whose it is: Send stops, leaves the machine
// paused, and tells its caller so ([Error].Released). Receive never reports a
// machine loaded unless every byte of its disks and memory came and was compared
// with the source's digests; and it never resumes a machine.
//
// Bytes in flight are downtime: what lies between the two machines when the source
// pauses must still cross. So the sender keeps no more than about two
// bandwidth-delay products unacknowledged (flow.go), counted until the destination
// has used them, and batches nothing that the machine is waiting for.
package migrate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/dcnode/dcnode/vmm"
	"github.com/dcnode/dcnode/vmm/ramstream"
)

// Stream is the way between the two nodes. Send and Receive do not close it; after
// an error its deadline has passed and it is good for nothing but to be reset. It
// must be authenticated and encrypted: checksums here find faults, not attackers.
type Stream interface {
	io.Reader
	io.Writer
	// SetDeadline bounds reads and writes, also those that already block.
	SetDeadline(t time.Time) error
}

// Interruptible is a Stream that outlives its connections. Time that it spends cut is
// no stall and measures nothing.
type Interruptible interface {
	// Cut says how often the stream was cut, and whether it is now.
	Cut() (times int, now bool)
}

// cuts is what a stream says of its cuts; none if it knows of none.
func cuts(s Stream) (times int, now bool) {
	if i, ok := s.(Interruptible); ok {
		return i.Cut()
	}
	return 0, false
}

// Defaults of Job and Sink.
const (
	DefaultStallTimeout = 20 * time.Second
	DefaultMaxDowntime  = 300 * time.Millisecond
)

// Job is a machine to send.
type Job struct {
	Machine vmm.Outgoing
	// Bases are the disk images that both sides hold, in the order of the
	// destination's Sink.Bases. Pages equal to one of their blocks are not sent.
	Bases []ramstream.Base
	// Index is the index of Bases; nil: made while the disks are copied, at about
	// 1 GB/s. A node that sends several machines of one image keeps it.
	Index *ramstream.Index
	// Release is called exactly once, right after the machine has paused and before
	// Finish. It submits the release and returns without waiting for its order. If
	// it fails, so does Send, with Error.Released set.
	Release func(ctx context.Context) error
	// Progress is called at each change of phase and at most ten times a second,
	// by one goroutine at a time. It must not block. It may be nil.
	Progress func(Progress)
	// MaxDowntime is the pause that the user allows; disk passes go on until what
	// is left of the disks takes a quarter of it. 0: DefaultMaxDowntime.
	MaxDowntime  time.Duration
	MaxBandwidth int64         // bytes per second on the stream; 0: no limit
	StallTimeout time.Duration // without progress for so long, Send fails; 0: DefaultStallTimeout
	Log          *slog.Logger  // nil: no log
}

// Sink is a machine to receive into.
type Sink struct {
	Machine      vmm.Incoming
	Bases        []ramstream.Base // as Job.Bases: the same images in the same order
	Progress     func(Progress)   // as Job.Progress
	StallTimeout time.Duration    // as Job.StallTimeout
	Log          *slog.Logger     // nil: no log
}

// Phase is a part of a migration.
type Phase string

// The phases of a migration, in order. The destination is in switchover from the
// last disk barrier on.
const (
	Preparing  Phase = "preparing"
	Disk       Phase = "disk"
	Memory     Phase = "memory"
	Switchover Phase = "switchover"
	Loading    Phase = "loading"
	Done       Phase = "done"
)

// Progress is a migration as it stands.
type Progress struct {
	Phase          Phase   `json:"phase"`
	DoneBytes      int64   `json:"done_bytes"`      // of disks and memory, before encoding
	SentBytes      int64   `json:"sent_bytes"`      // on the stream; at the destination: received
	RemainingBytes int64   `json:"remaining_bytes"` // of this disk pass; -1: not known
	Rate           float64 `json:"rate"`            // bytes per second on the stream, of late
}

// PhaseTime is how long a phase took.
type PhaseTime struct {
	Phase    Phase         `json:"phase"`
	Duration time.Duration `json:"duration"`
}

// Report says what a migration did. It is valid, as far as it got, with an error too.
type Report struct {
	Phases      []PhaseTime     `json:"phases"`
	MemoryPlain int64           `json:"memory_plain"` // bytes of the machine's stream
	MemorySent  int64           `json:"memory_sent"`  // bytes of memory frames
	DiskPlain   int64           `json:"disk_plain"`   // bytes of disk that were not zero
	DiskZero    int64           `json:"disk_zero"`    // bytes of disk that were
	DiskSent    int64           `json:"disk_sent"`    // bytes of disk frames
	Stream      ramstream.Stats `json:"stream"`       // memory by origin; source only
	Passes      int             `json:"passes"`       // over the disks, the last included; source only
	Digest      [32]byte        `json:"-"`            // SHA-256 of the plain memory stream
	PausedAt    time.Time       `json:"paused_at"`    // when the driver had paused the machine; source only
	Downtime    int64           `json:"downtime"`     // ms, as the driver measured it; source only
	Released    bool            `json:"released"`     // Release was called; source only
}

// Errors that callers branch on. They come wrapped in an *Error.
var (
	// ErrStalled: the other side, or the machine, made no progress for StallTimeout.
	ErrStalled = errors.New("no progress")
	// ErrDamaged: what arrived is not what was sent.
	ErrDamaged = errors.New("state arrived damaged")
)

// Error says where a migration broke off.
type Error struct {
	Phase Phase
	// Released tells the source's node that the machine is paused and that only
	// the order of events may decide who runs it. If it is false the machine runs
	// on at the source. At the destination it is always false.
	Released bool
	Err      error
}

func (e *Error) Error() string { return fmt.Sprintf("migrate in phase %s: %v", e.Phase, e.Err) }

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }

// PeerError is the reason that the other side gave for giving up.
type PeerError struct {
	Side   string // "source" or "destination"
	Reason string
}

func (e *PeerError) Error() string { return e.Side + " gave up: " + e.Reason }

// linkError is a failure of the stream itself; nothing more can be said over it.
type linkError struct{ err error }

func (e *linkError) Error() string { return "the connection was lost (" + rootOf(e.err).Error() + ")" }

// rootOf is the innermost cause: what lies around it are names of layers.
func rootOf(err error) error {
	for {
		switch e := err.(type) { //nolint:errorlint // it is the walk that errors.As makes
		case interface{ Unwrap() error }:
			if inner := e.Unwrap(); inner != nil {
				err = inner
				continue
			}
		case interface{ Unwrap() []error }:
			if all := e.Unwrap(); len(all) > 0 {
				err = all[len(all)-1]
				continue
			}
		}
		return err
	}
}

func logger(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}

func (j Job) withDefaults() (Job, error) {
	switch {
	case j.Machine == nil:
		return j, errors.New("send machine: Job.Machine is missing")
	case j.Release == nil:
		return j, errors.New("send machine: Job.Release is missing: nothing may leave without it")
	case len(j.Bases) > maxBases:
		return j, fmt.Errorf("send machine: %d bases, at most %d", len(j.Bases), maxBases)
	}
	if j.StallTimeout <= 0 {
		j.StallTimeout = DefaultStallTimeout
	}
	if j.MaxDowntime <= 0 {
		j.MaxDowntime = DefaultMaxDowntime
	}
	j.Log = logger(j.Log)
	return j, nil
}

func (k Sink) withDefaults() (Sink, error) {
	if k.Machine == nil {
		return k, errors.New("receive machine: Sink.Machine is missing")
	}
	if k.StallTimeout <= 0 {
		k.StallTimeout = DefaultStallTimeout
	}
	k.Log = logger(k.Log)
	return k, nil
}
