package eventlog

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dcnode/dcnode/consensus"
)

// Append writes events, parents first. When it returns they survive the death of
// the process, and, with Strict or after a Sync, of the machine. Events that are in
// the index already are passed over.
//
// An error is final: nothing is written after it, and a member that gets one must
// not speak any more. It may be that of a sync that a former Append began.
func (l *Log) Append(events []*consensus.Event) error {
	if err := l.write(events); err != nil {
		return err
	}
	if l.cfg.Strict {
		return l.Sync()
	}
	select {
	case l.dirty <- struct{}{}:
	default:
	}
	return nil
}

// addition is an event of one Append.
type addition struct {
	ev   *consensus.Event
	hash consensus.Hash
	off  int64
	n    int
}

func (l *Log) write(events []*consensus.Event) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.usable(); err != nil {
		return err
	}
	if l.doubt && len(events) > 0 {
		l.doubt = false
		if err := l.put(kindRun, l.boot()); err != nil {
			return l.fail(err)
		}
	}
	for len(events) > 0 {
		if l.rotate || l.last().size >= l.cfg.SegmentSize {
			if err := l.nextSegment(); err != nil {
				return l.fail(err)
			}
		}
		n, err := l.writeSome(events)
		if err != nil {
			return l.fail(err)
		}
		events = events[n:]
	}
	return nil
}

// writeSome writes as many of the events as the segment takes, in one go.
func (l *Log) writeSome(events []*consensus.Event) (int, error) {
	s := l.last()
	var buf []byte
	var added []addition
	taken := 0
	for _, e := range events {
		off := s.size + int64(len(buf))
		if off >= l.cfg.SegmentSize && taken > 0 {
			break
		}
		taken++
		h := e.Hash()
		if _, ok := l.win.index[h]; ok || within(added, h) {
			continue
		}
		raw := e.Marshal()
		buf = appendRecord(buf, s.salt, off, l.synced, kindEvent, raw)
		added = append(added, addition{e, h, off, len(raw)})
	}
	if len(added) == 0 {
		return taken, nil
	}
	if err := l.disk.Write(l.f, buf, s.size); err != nil {
		// A part of it may be there. Without it the log is whole; if it stays, the
		// next Open removes it.
		_ = l.disk.Truncate(l.f, s.size)
		return 0, err
	}
	for _, a := range added {
		l.win.add(s, a.off, a.n, a.ev, a.hash)
		s.note(a.ev, a.off)
	}
	s.size += int64(len(buf))
	return taken, nil
}

func within(added []addition, h consensus.Hash) bool {
	for i := range added {
		if added[i].hash == h {
			return true
		}
	}
	return false
}

// nextSegment finishes the last segment and begins another.
func (l *Log) nextSegment() error {
	if err := l.disk.Sync(l.f); err != nil {
		return err
	}
	s := l.last()
	l.synced = s.size
	// It can be made again, so it may fail for any reason but the disk's end.
	_ = l.disk.Place(s.summaryPath(), s.marshalSummary())
	l.rotate = false
	return l.newSegment()
}

func (l *Log) usable() error {
	switch {
	case l.broken != nil:
		return l.broken
	case l.closed:
		return errClosed
	}
	return nil
}

// fail ends the writing for good.
func (l *Log) fail(err error) error {
	if l.broken != nil {
		return l.broken
	}
	remedy := "see to the disk and start again"
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		remedy = "make room on the disk and start again"
	}
	l.broken = fmt.Errorf("save events in %s: %w: %s", l.dir, err, remedy)
	return l.broken
}

// Sync makes everything that was appended survive the death of the machine. An
// error is final, as of Append.
func (l *Log) Sync() error {
	l.syncing.Lock()
	defer l.syncing.Unlock()
	l.mu.Lock()
	err := l.usable()
	f, end := l.f, l.last().size
	done := end == l.synced
	l.mu.Unlock()
	if err != nil || done {
		return err
	}
	err = l.disk.Sync(f)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.f != f && (err == nil || errors.Is(err, os.ErrClosed)):
		// A new segment was begun meanwhile, and the old one synced before that.
		return l.broken
	case err != nil:
		// The kernel may have dropped what it could not write: a later sync that
		// succeeds would say nothing of it.
		return l.fail(err)
	}
	l.synced = max(l.synced, end)
	return l.broken
}

// syncLoop syncs a while after each Append; those in between are synced with it.
func (l *Log) syncLoop() {
	defer close(l.stopped)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-l.dirty:
		case <-l.stop:
			return
		}
		timer.Reset(l.cfg.SyncDelay)
		select {
		case <-timer.C:
		case <-l.stop:
			return
		}
		_ = l.Sync() // the next Append says what was wrong
	}
}

// Err is why nothing is written any more; nil while all is well.
func (l *Log) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.broken
}
