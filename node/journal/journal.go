// Package journal keeps in files what the order made of each transaction, for people:
// who said what, when, whether it held, and if not, why.
//
// It is derived. The event log is the truth, and replaying it tells the same; the
// journal saves the replaying. So nothing rests on it: a full disk or a damaged file
// costs entries, which is on record as a gap, and never stops a node.
//
// The ordering loop appends, and does not wait for the disk: Append puts entries into
// memory, where readers see them at once, and Run writes them out a moment later.
// After a crash the order is replayed from a checkpoint and Append takes only what is
// not here yet. For that to fill what a power cut took, call Sync before a checkpoint
// is saved: what is older than it will not be replayed.
//
//	j, err := journal.Open(journal.Config{Dir: dir, Network: network})
//	go j.Run(ctx)
//	j.Append(entries) // in the loop, all of one event at once
//	for e, err := range j.Read(0, journal.Filter{Machine: "7"}) { … }
//
// The journal is a folder of segments, files of about 16 MiB that only grow, each
// with a sparse index beside it. The oldest go when there is a limit.
package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/dcnode/dcnode/node/disk"
)

// Folder is where the journal is in a data directory.
const Folder = "journal"

// Config is what a journal is made of. Only Dir and Network are needed.
type Config struct {
	Dir      string   // the data directory; the journal is in its Folder, which is made if need be
	MaxBytes int64    // on disk; the oldest segments go; 0: keep all
	Network  [32]byte // a journal of another one is refused

	// For tests.
	SegmentSize int64         // how large a file grows; 0: 16 MiB, or an eighth of MaxBytes
	Buffer      int           // bytes that may wait to be written; 0: 32 MiB
	Delay       time.Duration // between an Append and its writing; 0: 100 ms
	Retry       time.Duration // between attempts to write; 0: 1 s
	Fault       disk.Fault
}

func (c *Config) fill() {
	if c.SegmentSize == 0 {
		c.SegmentSize = 16 << 20
		if c.MaxBytes > 0 {
			c.SegmentSize = max(blockSize, min(c.SegmentSize, c.MaxBytes/8))
		}
	}
	if c.Buffer == 0 {
		c.Buffer = 32 << 20
	}
	if c.Delay == 0 {
		c.Delay = 100 * time.Millisecond
	}
	if c.Retry == 0 {
		c.Retry = time.Second
	}
}

// Journal is open for writing and reading. One process may have it open; the caller
// sees to that. Its methods may be called from any goroutine.
type Journal struct {
	cfg  Config
	disk disk.Disk
	dir  string

	dirty chan struct{} // of size 1: something waits to be written
	hurry chan struct{} // of size 1: much does

	writing sync.Mutex // held while files change; before mu
	f       *os.File   // the last segment; nil: none is begun, or it is full
	next    uint64     // number of the newest segment that there ever was
	ended   bool       // Close has returned

	mu      sync.Mutex // guards what follows
	segs    []*segment // oldest first
	pending []*chunk   // what waits to be written
	bytes   int        // in pending
	last    uint64     // the highest index taken or known to lack
	any     bool       // there is one
	lost    *loss      // what was dropped and is not yet in a gap
	dropped uint64     // entries since the start
	trouble error      // why writing fails now
	damaged map[uint64]bool
	notes   []string
	changed chan struct{}
	closed  bool
}

// chunk is a run of records that waits to be written, about a block.
type chunk struct {
	data   []byte // only ever appended to: a reader may hold a prefix
	index  uint64 // of the first
	last   uint64 // highest index
	middle bool   // the first is not the first of its index
	sealed bool   // it is being written
}

// loss is a stretch of the order of which entries were dropped.
type loss struct {
	from, to uint64
	why      string
}

var errClosed = errors.New("the journal is closed")

// Open opens the journal in a data directory or makes it. A torn end is cut off and
// damage passed over; Notes says so.
func Open(cfg Config) (*Journal, error) {
	cfg.fill()
	j := &Journal{
		cfg: cfg, disk: disk.Disk{Fault: cfg.Fault}, dir: filepath.Join(cfg.Dir, Folder),
		dirty: make(chan struct{}, 1), hurry: make(chan struct{}, 1), damaged: map[uint64]bool{},
	}
	if err := os.MkdirAll(j.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make journal: %w", err)
	}
	_ = j.disk.ClearTemporary(j.dir) // what stays takes room and does no harm
	if err := j.load(); err != nil {
		if j.f != nil {
			j.f.Close()
		}
		return nil, fmt.Errorf("open journal: %w", err)
	}
	return j, nil
}

// Last is the highest index that was taken, or that is known to be lacking; false if
// there is none. Append ignores what is not above it.
func (j *Journal) Last() (index uint64, ok bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.last, j.any
}

// First is the lowest index that is here; what was before it is no longer kept, or
// never was.
func (j *Journal) First() (index uint64, ok bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case len(j.segs) > 0:
		return j.segs[0].first, true
	case len(j.pending) > 0:
		return j.pending[0].index, true
	}
	return 0, false
}

// Changed gives a channel that is closed when something has been appended since the
// call. To follow, call it before reading.
func (j *Journal) Changed() <-chan struct{} {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.changed == nil {
		j.changed = make(chan struct{})
	}
	return j.changed
}

// keepNotes bounds what is kept of past troubles; the newest are.
const keepNotes = 64

// note is called with mu held, or by Open.
func (j *Journal) note(format string, args ...any) {
	if len(j.notes) == keepNotes {
		j.notes = slices.Delete(j.notes, 0, 1)
	}
	j.notes = append(j.notes, fmt.Sprintf(format, args...))
}

// damage notes damage to a segment, once. mu is not held.
func (j *Journal) damage(s *segment, at int64, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.damaged[s.number] {
		j.damaged[s.number] = true
		j.note("%s, byte %d: %v: entries are lacking there; the event log still has what they were made of", s.path, at, err)
	}
}

// Notes says what is wrong and what was repaired or dropped, for a person to read.
func (j *Journal) Notes() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	out := slices.Clone(j.notes)
	if j.dropped > 0 {
		out = append(out, fmt.Sprintf("%d entries were dropped since the start: the journal has gaps there", j.dropped))
	}
	if j.trouble != nil {
		out = append(out, fmt.Sprintf("%v; %d bytes wait in memory, and it is tried again every %v", j.trouble, j.bytes, j.cfg.Retry))
	}
	return out
}
