package eventlog

import (
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"

	"github.com/dcnode/dcnode/consensus"
)

// Reader reads a log without changing anything, also while a member writes it: it
// gives what was whole when Read was called.
type Reader struct {
	Network consensus.Hash
	Notes   []string // what was left out, for a person to read

	dir  string
	hist *history
}

// Read opens the log in a data directory for reading.
func Read(dir string) (*Reader, error) {
	if err := refuseOld(dir); err != nil {
		return nil, err
	}
	r := &Reader{dir: filepath.Join(dir, Folder)}
	none := func(*segment, *record, *consensus.Event) {}
	var err error
	if r.hist, err = load(r.dir, thisBoot(), never, func(*segment) {}, none); err != nil {
		return nil, err
	}
	if len(r.hist.segs) == 0 {
		return nil, fmt.Errorf("open event log: there is none in %s", r.dir)
	}
	r.Network = r.hist.segs[0].network
	if r.hist.torn != "" {
		r.Notes = append(r.Notes, r.hist.torn)
	}
	return r, nil
}

// never is a birth round that no event has.
const never = 1<<64 - 1

// Events is how many there are.
func (r *Reader) Events() uint64 { return uint64(r.hist.segs[len(r.hist.segs)-1].next()) }

// Records gives everything that is in the log, in the order in which it was written.
func (r *Reader) Records() iter.Seq2[Record, error] {
	var parts []stretch
	for _, s := range r.hist.segs {
		parts = append(parts, s.whole())
	}
	return records(parts)
}

// Checkpoints are those that are whole, the newest first. Others are named in Notes.
func (r *Reader) Checkpoints() ([]Checkpoint, error) {
	names, err := listCheckpoints(r.dir)
	if err != nil {
		return nil, err
	}
	var out []Checkpoint
	for _, name := range names {
		c, err := readCheckpoint(filepath.Join(r.dir, name), r.Network)
		var bad *DamageError
		switch {
		case errors.As(err, &bad):
			r.Notes = append(r.Notes, err.Error())
		case errors.Is(err, os.ErrNotExist): // a running member has removed it meanwhile
		case err != nil:
			return nil, err
		default:
			out = append(out, *c)
		}
	}
	return out, nil
}
