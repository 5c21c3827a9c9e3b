package blockstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"golang.org/x/sys/unix"
)

// Leaf sizes, in bytes. A leaf is a power of two, so that a leaf of zeroes has
// one of a dozen CIDs that every store knows.
const (
	minLeaf     = 512
	defaultLeaf = 256 << 10
)

// Config is what Open needs; the zero value is usable.
type Config struct {
	Log *slog.Logger // nil: nothing is logged
	// LeafSize is the size in bytes of the leaves that Import makes: a power
	// of two from 4 KiB to 1 MiB; 0: 256 KiB. Images with other leaf sizes are
	// read, fetched and served all the same, but share no blocks with these.
	LeafSize int
	// StallTimeout is how long Fetch goes without receiving a block before it
	// gives up; 0: 30 s.
	StallTimeout time.Duration
	// Patience is how long one holder may stay silent while it owes blocks
	// before they are asked of another, or again; 0: 3 s.
	Patience time.Duration
}

func (c Config) withDefaults() (Config, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.LeafSize == 0 {
		c.LeafSize = defaultLeaf
	}
	if c.LeafSize < 4<<10 || c.LeafSize > 1<<20 || c.LeafSize&(c.LeafSize-1) != 0 {
		return c, fmt.Errorf("leaf size %d: use a power of two from 4096 to 1048576", c.LeafSize)
	}
	if c.StallTimeout == 0 {
		c.StallTimeout = 30 * time.Second
	}
	if c.Patience == 0 {
		c.Patience = 3 * time.Second
	}
	return c, nil
}

// Store is the images of one site. Its methods may be called concurrently.
type Store struct {
	dir   string
	cfg   Config
	log   *slog.Logger
	local *local
	lock  *os.File
	// free says how many bytes an unprivileged user may still write below a path.
	free func(path string) (int64, error)

	// use is held for reading by whoever relies on blocks staying where they
	// are, and for writing by whoever removes some.
	use sync.RWMutex

	outputs outputs

	mu       sync.Mutex
	exchange *exchange // nil until Join
	closed   bool
}

// Open opens the store below dir, making it if need be. One process may have a
// store open; for a second one Open fails with ErrLocked.
func Open(dir string, cfg Config) (*Store, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("open blockstore: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open blockstore: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	l, err := openLocal(dir, cfg.Log)
	if err != nil {
		lock.Close()
		return nil, err
	}
	return &Store{dir: dir, cfg: cfg, log: cfg.Log, local: l, lock: lock, free: freeBytes}, nil
}

// lockDir takes the store's lock; the kernel drops it when the process ends.
func lockDir(dir string) (*os.File, error) {
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open blockstore: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = fmt.Errorf("%w by another process: stop it, or use another directory", ErrLocked)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open blockstore %s: %w", dir, err)
	}
	return f, nil
}

// Close leaves the network and closes the files. Calls that are under way end
// with errors; wait for them first where that matters.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	x := s.exchange
	s.exchange = nil
	s.mu.Unlock()
	if x != nil {
		x.close()
	}
	return errors.Join(s.local.files.Close(), s.lock.Close())
}

// freeBytes is the room below path that an unprivileged user may fill.
func freeBytes(path string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, fmt.Errorf("find free space of %s: %w", path, err)
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// room fails with ErrNoSpace where fewer than need bytes are free below path.
func (s *Store) room(path string, need int64) error {
	free, err := s.free(path)
	if err != nil {
		return err
	}
	if free < need {
		return fmt.Errorf("%w below %s: %s needed, %s free: free some, or use a larger disk",
			ErrNoSpace, path, bytesText(need), bytesText(free))
	}
	return nil
}

// Has reports whether the image c is complete here: commit, interior nodes and
// every leaf. It looks, and does not hash; see Verify.
func (s *Store) Has(ctx context.Context, c cid.Cid) (bool, error) {
	need, err := s.lacking(ctx, c)
	if errors.Is(err, ErrIncomplete) || errors.Is(err, ErrCorrupt) {
		return false, nil
	}
	return err == nil && need.Blocks == 0, err
}

// Stats are counters since Open, and sizes as of now.
type Stats struct {
	Bytes          int64 // of disk that the blocks' files and directories hold
	Corrupt        int64 // blocks found corrupt and set aside
	BlocksSent     int64
	BytesSent      int64
	BlocksReceived int64 // asked for and kept
	BytesReceived  int64
}

// Stats returns the store's counters.
func (s *Store) Stats() Stats {
	st := Stats{Corrupt: s.local.corrupt.Load()}
	if n, err := s.local.files.DiskUsage(context.Background()); err == nil {
		st.Bytes = int64(n)
	}
	if x := s.network(); x != nil {
		x.count(&st)
	}
	return st
}

func (s *Store) network() *exchange {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.exchange
}
