package eventlog

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dcnode/dcnode/consensus"
)

// Checkpoint is what the order goes on from, and the state that it has led to.
type Checkpoint struct {
	Round    uint64   // the last that is decided
	MinBirth uint64   // events born earlier are ancient from there on
	Body     []byte   // the hashgraph's part
	Root     [32]byte // the digest of the state, as the state machine has it
	Snapshot []byte   // the state machine's part
}

// A checkpoint file:
//
//	magic 8 | network 32 | round 8 | least birth round 8 | state root 32
//	length of the body 8 | body | snapshot | SHA-256 32 of all before
//
// The digest at the end is of the file: what the root is a digest of, only the state
// machine knows.
const (
	checkpointMagic = "dcchkpt2"
	checkpointHead  = 8 + 32 + 8 + 8 + 32 + 8
	keepCheckpoints = 2
)

func checkpointName(round uint64) string { return fmt.Sprintf("checkpoint-%020d.cp", round) }

// SaveCheckpoint keeps a checkpoint; everything that was appended before is made
// durable first. The newest two are kept. An error leaves those that were there.
func (l *Log) SaveCheckpoint(c Checkpoint) error {
	l.saving.Lock()
	defer l.saving.Unlock()
	if err := l.Sync(); err != nil {
		return err
	}
	if err := l.save(c); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	// A start from here then reads little that is older.
	l.rotate = l.rotate || l.last().size > l.cfg.SegmentSize/4
	return nil
}

// Adopt keeps a checkpoint that came from other members, for a member that is too
// far behind to follow: call it before any event that rests on it is appended.
// The history has a gap there, which the log remembers.
func (l *Log) Adopt(c Checkpoint) error {
	l.saving.Lock()
	defer l.saving.Unlock()
	if err := l.Sync(); err != nil {
		return err
	}
	if err := l.save(c); err != nil {
		return err
	}
	l.mu.Lock()
	err := l.usable()
	if err == nil {
		if err = l.put(kindAdopt, adoption(c.Round, c.MinBirth)); err != nil {
			err = l.fail(err)
		}
	}
	l.mu.Unlock()
	if err != nil {
		return err
	}
	return l.Sync()
}

func (l *Log) save(c Checkpoint) error {
	if n := len(l.rounds); n > 0 && c.Round < l.rounds[n-1] {
		return fmt.Errorf("save checkpoint of round %d: there is a newer one, of round %d", c.Round, l.rounds[n-1])
	}
	if err := l.disk.Place(filepath.Join(l.dir, checkpointName(c.Round)), c.marshal(l.cfg.Network)); err != nil {
		return fmt.Errorf("save checkpoint: %w", err)
	}
	if n := len(l.rounds); n == 0 || l.rounds[n-1] != c.Round {
		l.rounds = append(l.rounds, c.Round)
	}
	for len(l.rounds) > keepCheckpoints {
		if err := l.disk.Remove(filepath.Join(l.dir, checkpointName(l.rounds[0]))); err != nil {
			return fmt.Errorf("remove an old checkpoint: %w", err)
		}
		l.rounds = l.rounds[1:]
	}
	return nil
}

// Checkpoints are those on disk, the newest first.
func (l *Log) Checkpoints() ([]Checkpoint, error) {
	l.saving.Lock()
	defer l.saving.Unlock()
	var out []Checkpoint
	for _, r := range slices.Backward(l.rounds) {
		c, err := readCheckpoint(filepath.Join(l.dir, checkpointName(r)), l.cfg.Network)
		if err != nil {
			return out, err
		}
		out = append(out, *c)
	}
	return out, nil
}

// readCheckpoints finds the newest whole checkpoint and puts damaged ones aside.
func (l *Log) readCheckpoints() error {
	names, err := listCheckpoints(l.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		path := filepath.Join(l.dir, name)
		c, err := readCheckpoint(path, l.cfg.Network)
		var bad *DamageError
		if errors.As(err, &bad) {
			l.opened.Notes = append(l.opened.Notes, fmt.Sprintf("%v; it is put aside as %s.bad", err, name))
			if err := l.disk.Rename(path, path+".bad"); err != nil {
				return fmt.Errorf("open event log: put a damaged checkpoint aside: %w", err)
			}
			continue
		}
		if err != nil {
			return err
		}
		if l.opened.Checkpoint == nil {
			l.opened.Checkpoint = c
		}
		l.rounds = append(l.rounds, c.Round)
	}
	slices.Sort(l.rounds)
	return nil
}

// listCheckpoints are the names of the checkpoint files in a folder, newest first.
func listCheckpoints(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open event log: %w", err)
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "checkpoint-") && strings.HasSuffix(e.Name(), ".cp") {
			names = append(names, e.Name())
		}
	}
	slices.Reverse(names)
	return names, nil
}

const doWithout = "an older one, or the whole history, takes its place"

func (c *Checkpoint) marshal(network consensus.Hash) []byte {
	b := make([]byte, 0, checkpointHead+len(c.Body)+len(c.Snapshot)+sha256.Size)
	b = append(append(b, checkpointMagic...), network[:]...)
	b = binary.BigEndian.AppendUint64(b, c.Round)
	b = binary.BigEndian.AppendUint64(b, c.MinBirth)
	b = append(b, c.Root[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(len(c.Body)))
	b = append(append(b, c.Body...), c.Snapshot...)
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

// readCheckpoint reads a checkpoint file; a *DamageError says that it is not whole.
func readCheckpoint(path string, network consensus.Hash) (*Checkpoint, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read checkpoint: %w", err)
	}
	c, err := unmarshalCheckpoint(b, network)
	if err == nil && filepath.Base(path) != checkpointName(c.Round) {
		err = fmt.Errorf("it is of round %d", c.Round)
	}
	if err != nil {
		return nil, &DamageError{File: path, What: err.Error(), Remedy: doWithout}
	}
	return c, nil
}

// unmarshalCheckpoint shares b.
func unmarshalCheckpoint(b []byte, network consensus.Hash) (*Checkpoint, error) {
	if len(b) < checkpointHead+sha256.Size || !bytes.HasPrefix(b, []byte(checkpointMagic)) {
		return nil, errors.New("it is no checkpoint")
	}
	b, sum := b[:len(b)-sha256.Size], b[len(b)-sha256.Size:]
	if have := sha256.Sum256(b); !bytes.Equal(have[:], sum) {
		return nil, errors.New("its digest does not fit")
	}
	if !bytes.Equal(b[8:40], network[:]) {
		return nil, errors.New("it is of another overlay")
	}
	be := binary.BigEndian
	c := &Checkpoint{Round: be.Uint64(b[40:]), MinBirth: be.Uint64(b[48:]), Root: [32]byte(b[56:])}
	n := be.Uint64(b[88:])
	if b = b[checkpointHead:]; n > uint64(len(b)) {
		return nil, errors.New("its parts do not fit its size")
	}
	c.Body, c.Snapshot = b[:n:n], b[n:]
	return c, nil
}
