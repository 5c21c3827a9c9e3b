// Package eventlog keeps the events of one member on disk, and the checkpoints
// from which their order can be continued.
//
// The rule that it serves: an own event is on stable storage before anyone else
// can see it, or else the member knows that it may not be. Append writes and does
// not wait for the disk; a sync follows within ten milliseconds. If only the
// process dies, the kernel still writes everything. If the machine dies, what was
// not synced may be lost, and the next Open says so: Suspect. The member must then
// learn from the others what it said last, and say nothing before that.
//
// The log is a folder of files, each of about 64 MiB, that only grow. All history
// stays on disk. In memory there is an index of the newest events only (see
// Forget), and for each file a few numbers.
package eventlog

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/dcnode/dcnode/consensus"
	"github.com/dcnode/dcnode/node/disk"
)

// Names in a data directory.
const (
	// Folder is where the log is.
	Folder  = "events"
	oldFile = "events.log" // the log of the first format
)

const bootFile = "/proc/sys/kernel/random/boot_id"

// Config is what a log is made of. Only Dir and Network are needed.
type Config struct {
	Dir     string         // the data directory; the log is in its Folder, which is made if need be
	Network consensus.Hash // a log of another one is refused

	// Strict syncs before Append returns: nothing that anyone has seen is lost even
	// when the power fails.
	Strict bool
	// SyncDelay is how long after an Append the sync begins; 0: 10 ms.
	SyncDelay time.Duration
	// SegmentSize is how large a file grows; 0: 64 MiB.
	SegmentSize int64

	// For tests. BootID names the boot of the machine; empty: what the kernel says.
	BootID string
	Fault  disk.Fault
}

func (c *Config) fill() {
	if c.SyncDelay == 0 {
		c.SyncDelay = 10 * time.Millisecond
	}
	if c.SegmentSize == 0 {
		c.SegmentSize = 64 << 20
	}
	c.SegmentSize = min(c.SegmentSize, maxSegment-recordHead-maxBody)
	if c.BootID == "" {
		c.BootID = thisBoot()
	}
}

// thisBoot is the kernel's name for the time since the machine was started; empty
// where there is none.
func thisBoot() string {
	b, _ := os.ReadFile(bootFile)
	return strings.TrimSpace(string(b))
}

// Condition is what is known of how the run before this one ended.
type Condition int

const (
	// Fresh: there was no log. If the member has spoken before, from a log that is
	// gone now, it does not know what it said.
	Fresh Condition = iota
	// Clean: Close has returned, and nothing was written since.
	Clean
	// SameBoot: the process died but the machine did not. Everything that Append
	// took is here.
	SameBoot
	// Suspect: the machine may have been down, or the end of the log is damaged.
	// Own events that others have seen may be lacking. Open says so (and Fresh) again
	// until something is appended or the log is closed: a caller that needs to know it
	// for longer has to note it before that.
	Suspect
)

func (c Condition) String() string {
	return [...]string{"fresh", "clean", "same boot", "suspect"}[c]
}

// Opened is what Open found.
type Opened struct {
	Condition  Condition
	Checkpoint *Checkpoint // the newest whole one; nil: begin with the genesis
	From       Position    // of the first event that Replay gives
	Notes      []string    // what was repaired or left out, for a person to read
}

// Log is the log of one member, open for writing. One process may have it open;
// the caller sees to that. Its methods may be called from any goroutine; Append
// from one at a time.
type Log struct {
	cfg    Config
	disk   disk.Disk
	dir    string
	opened Opened
	upTo   Position // where the log ended when it was opened

	mu     sync.Mutex // guards what follows
	hist   history
	f      *os.File // the last segment
	synced int64    // bytes of it that are on the disk
	rotate bool     // a new segment is to begin
	doubt  bool     // the log does not name this boot yet
	win    window
	broken error // why nothing is written any more
	closed bool

	syncing sync.Mutex    // held while syncing; before mu
	dirty   chan struct{} // of size 1: something is to be synced
	stop    chan struct{}
	stopped chan struct{}

	saving sync.Mutex // held while a checkpoint is written; before syncing
	rounds []uint64   // of the checkpoints on disk, ascending
}

// Open opens the log in a data directory or makes it. What a crash cut short at
// the very end is removed; other damage is a *DamageError, and nothing is changed.
func Open(cfg Config) (*Log, error) {
	cfg.fill()
	l := &Log{
		cfg: cfg, disk: disk.Disk{Fault: cfg.Fault}, dir: filepath.Join(cfg.Dir, Folder),
		win:   window{index: map[consensus.Hash]Position{}},
		dirty: make(chan struct{}, 1), stop: make(chan struct{}), stopped: make(chan struct{}),
	}
	if err := refuseOld(cfg.Dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(l.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make event log: %w", err)
	}
	if err := l.read(); err != nil {
		return nil, err
	}
	if err := l.take(); err != nil {
		if l.f != nil {
			l.f.Close()
		}
		return nil, fmt.Errorf("open event log %s: %w", l.dir, err)
	}
	go l.syncLoop()
	return l, nil
}

func refuseOld(dir string) error {
	path := filepath.Join(dir, oldFile)
	if _, err := os.Stat(path); err == nil {
		return fmt.Errorf("open event log: %s is a log of the first format, which this version does not read: move it out of the data directory; this member then gets the history from the others and says nothing before it has (if all members come from that version, begin a new overlay with `dcnode init` and `dcnode genesis`)", path)
	}
	return nil
}

// read finds out what there is.
func (l *Log) read() error {
	if err := l.disk.ClearTemporary(l.dir); err != nil {
		return fmt.Errorf("open event log: remove what a crash left: %w", err)
	}
	if err := l.readCheckpoints(); err != nil {
		return err
	}
	var birth uint64
	if cp := l.opened.Checkpoint; cp != nil {
		birth = cp.MinBirth
	}
	begun := false
	h, err := load(l.dir, l.cfg.BootID, birth, func(s *segment) {
		_ = l.disk.Place(s.summaryPath(), s.marshalSummary())
	}, func(s *segment, rec *record, e *consensus.Event) {
		if !begun && e.BirthRound >= birth {
			begun = true
			l.win.base = s.next()
		}
		if begun {
			l.win.add(s, rec.off, len(rec.body), e, e.Hash())
		}
	})
	if err != nil {
		return err
	}
	l.hist = *h
	if n := len(h.segs); n > 0 {
		if h.segs[0].network != l.cfg.Network {
			return fmt.Errorf("open event log: %s is of another overlay: use another data directory", l.dir)
		}
		l.upTo = h.segs[n-1].next()
	}
	if !begun {
		l.win.base = l.upTo
	}
	l.opened.From = l.win.base
	l.opened.Condition = l.condition()
	if h.torn != "" {
		l.opened.Notes = append(l.opened.Notes, h.torn)
	}
	return nil
}

func (l *Log) condition() Condition {
	h := &l.hist
	switch {
	case len(h.segs) == 0 && l.opened.Checkpoint == nil:
		return Fresh
	case len(h.segs) == 0:
		l.opened.Notes = append(l.opened.Notes, "there are checkpoints but no events")
		return Suspect
	case h.closed && h.torn == "":
		return Clean
	case h.boot == unknown && h.torn == "" && l.upTo == 0 && l.opened.Checkpoint == nil:
		return Fresh // and so it was the last time
	case h.boot == l.cfg.BootID && h.boot != unknown && !h.lossy:
		return SameBoot
	}
	return Suspect
}

// take makes the log ours: repaired, durable, and marked as being in use.
func (l *Log) take() error {
	// Who dies before having acted on what Open said must hear it again.
	l.doubt = l.opened.Condition == Fresh || l.opened.Condition == Suspect
	if len(l.hist.segs) == 0 {
		return l.newSegment()
	}
	s := l.last()
	f, err := os.OpenFile(s.path, os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	l.f = f
	if l.hist.torn != "" {
		if err := l.disk.Truncate(f, s.size); err != nil {
			return err
		}
	}
	// What is here is durable before a record says so.
	if err := l.disk.Sync(f); err != nil {
		return err
	}
	l.synced = s.size
	if err := l.put(kindRun, l.boot()); err != nil {
		return err
	}
	if err := l.disk.Sync(f); err != nil {
		return err
	}
	l.synced = s.size
	return nil
}

// unknown stands for the boot id of a run that has not appended anything yet.
const unknown = "?"

// boot is what a kindRun record says now.
func (l *Log) boot() []byte {
	if l.doubt || l.cfg.BootID == "" {
		return []byte(unknown)
	}
	return []byte(l.cfg.BootID)
}

func (l *Log) last() *segment { return l.hist.segs[len(l.hist.segs)-1] }

// put writes one record that is no event.
func (l *Log) put(k kind, body []byte) error {
	s := l.last()
	b := appendRecord(nil, s.salt, s.size, l.synced, k, body)
	if err := l.disk.Write(l.f, b, s.size); err != nil {
		_ = l.disk.Truncate(l.f, s.size)
		return err
	}
	s.size += int64(len(b))
	return nil
}

// newSegment begins the next file. The one before is on the disk.
func (l *Log) newSegment() error {
	s := &segment{network: l.cfg.Network, number: uint64(len(l.hist.segs) + 1), size: segmentHead}
	s.path = filepath.Join(l.dir, segmentName(s.number))
	if s.number > 1 {
		s.first = l.last().next()
	}
	var salt [8]byte
	if _, err := rand.Read(salt[:]); err != nil {
		return fmt.Errorf("draw salt: %w", err)
	}
	s.salt = binary.BigEndian.Uint64(salt[:])
	run := appendRecord(nil, s.salt, s.size, s.size, kindRun, l.boot())
	if err := l.disk.Place(s.path, s.head(), run); err != nil {
		return err
	}
	f, err := os.OpenFile(s.path, os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	s.size += int64(len(run))
	if l.f != nil {
		l.f.Close()
		l.last().blocks = nil
	}
	l.hist.segs = append(l.hist.segs, s)
	l.f, l.synced = f, s.size
	return nil
}

// Opened is what Open found.
func (l *Log) Opened() Opened { return l.opened }

// Replay gives the events that were in the log when it was opened and that are
// needed to go on from the checkpoint, parents first. Some may be older than need
// be; the hashgraph calls them ancient.
func (l *Log) Replay() iter.Seq2[*consensus.Event, error] {
	return func(yield func(*consensus.Event, error) bool) {
		for r, err := range l.between(l.opened.From, l.upTo) {
			if !yield(r.Event, err) {
				return
			}
		}
	}
}

// errClosed is what Append says after Close.
var errClosed = errors.New("the event log is closed")

// Close makes everything durable and marks that this run ended well.
func (l *Log) Close() error {
	if !l.end() {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.f.Close()
	if l.broken != nil {
		return l.broken
	}
	err := l.disk.Sync(l.f)
	if err == nil {
		l.synced = l.last().size
		err = l.put(kindClosed, nil)
	}
	if err == nil {
		err = l.disk.Sync(l.f)
	}
	if err != nil {
		return fmt.Errorf("close event log %s: %w", l.dir, err)
	}
	return nil
}

// Abandon lets go of the log as the death of the process would: without a sync and
// without a mark. It is for a member that is in doubt, and for tests.
func (l *Log) Abandon() {
	if l.end() {
		l.f.Close()
	}
}

// end stops the syncs and says whether it was the first to do so.
func (l *Log) end() bool {
	l.mu.Lock()
	was := l.closed
	l.closed = true
	l.mu.Unlock()
	if !was {
		close(l.stop)
		<-l.stopped
		l.syncing.Lock()
		defer l.syncing.Unlock()
	}
	return !was
}

// SyncedSize is the file that is being written and how many bytes of it are on the
// disk for certain: a test that cuts the rest off emulates a power cut.
func (l *Log) SyncedSize() (path string, size int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last().path, l.synced
}
