package blockstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Progress is how far a Fetch is.
type Progress struct {
	Done, Total       int64 // bytes of leaves that were missing
	Blocks, AllBlocks int   // the same in leaves
}

// FetchReport says what a Fetch moved.
type FetchReport struct {
	Bytes      int64 // received and stored, interior nodes included
	Blocks     int
	Duplicates int // received more than once
	Unasked    int // received, never asked for, and dropped
	ByPeer     []PeerShare
	Took       time.Duration
}

// PeerShare is one holder's part in a Fetch.
type PeerShare struct {
	Peer   peer.ID
	Blocks int
	Bytes  int64
}

// Commit returns the commit c, from this store or else from a holder, which is
// then kept.
func (s *Store) Commit(ctx context.Context, c cid.Cid, holders []peer.ID) (Commit, error) {
	commit, err := s.localCommit(ctx, c)
	if err == nil || !fetchable(err) || len(holders) == 0 {
		return commit, err
	}
	p, err := s.newPull(ctx, holders)
	if err != nil {
		return Commit{}, fmt.Errorf("fetch commit %s: %w", c, err)
	}
	defer p.close()
	return p.commit(ctx, c)
}

// fetchable reports whether err is mended by fetching.
func fetchable(err error) bool {
	return errors.Is(err, ErrIncomplete) || errors.Is(err, ErrCorrupt)
}

// commit is the commit c, fetched where it is not local.
func (p *pull) commit(ctx context.Context, c cid.Cid) (Commit, error) {
	commit, err := p.store.localCommit(ctx, c)
	if err == nil || !fetchable(err) {
		return commit, err
	}
	if err := p.fetchAll([]block{{cid: c}}); err != nil {
		return Commit{}, fmt.Errorf("fetch commit %s: %w", c, err)
	}
	return p.store.localCommit(ctx, c)
}

// fetchAll fetches a list of blocks.
func (p *pull) fetchAll(want []block) error {
	source := make(chan block, len(want))
	for _, b := range want {
		source <- b
	}
	close(source)
	return p.fetch(source, func(int, int64) {})
}

// tree fetches the interior nodes of files that are not local, level by level:
// as many round trips as the tree is deep. What is shared with another image is
// local already.
func (p *pull) tree(ctx context.Context, files []file) error {
	var level []child
	seen := once()
	push := func(c child) {
		if c.cid.Prefix().Codec != cid.Raw && seen(c.cid) {
			level = append(level, c)
		}
	}
	for _, f := range files {
		push(child{f.root, f.size})
	}
	for depth := 0; len(level) > 0; depth++ {
		if depth == maxDepth {
			return fmt.Errorf("%w: tree deeper than %d", ErrFormat, maxDepth)
		}
		if err := p.nodes(ctx, level); err != nil {
			return fmt.Errorf("fetch interior nodes: %w", err)
		}
		at := level
		level = nil
		for _, n := range at {
			children, err := p.store.local.children(ctx, n)
			if err != nil {
				return err
			}
			for _, c := range children {
				push(c)
			}
		}
	}
	return nil
}

// nodes fetches those of the interior nodes that are missing or corrupt.
func (p *pull) nodes(ctx context.Context, level []child) error {
	var want []block
	for _, n := range level {
		switch _, err := p.store.local.children(ctx, n); {
		case err == nil:
		case fetchable(err):
			want = append(want, block{cid: n.cid})
		default:
			return err
		}
	}
	if len(want) == 0 {
		return nil
	}
	return p.fetchAll(want)
}

// Missing says what of the image c this store lacks: each leaf counted once.
// It fetches the commit and the interior nodes from the holders, never a leaf.
// With everything but leaves local it asks nobody.
func (s *Store) Missing(ctx context.Context, c cid.Cid, holders []peer.ID) (Need, error) {
	s.use.RLock()
	defer s.use.RUnlock()
	need, err := s.lacking(ctx, c)
	if err == nil || !fetchable(err) {
		return need, err
	}
	p, err := s.newPull(ctx, holders)
	if err != nil {
		return Need{}, fmt.Errorf("look into image %s: %w", c, err)
	}
	defer p.close()
	if _, err := p.outline(ctx, c); err != nil {
		return Need{}, fmt.Errorf("look into image %s: %w", c, err)
	}
	return s.lacking(ctx, c)
}

// outline fetches commit and interior nodes.
func (p *pull) outline(ctx context.Context, c cid.Cid) (Commit, error) {
	commit, err := p.commit(ctx, c)
	if err != nil {
		return Commit{}, err
	}
	return commit, p.tree(ctx, commit.files())
}

// Fetch makes the image c complete here. It asks the holders, all of them and
// nobody else: first for commit and interior nodes, then for every missing leaf.
// Peers are reached by the addresses the host knows; a holder that goes away
// is replaced by the others and tried again. progress, which may be nil, is told
// after blocks are stored. It fails with ErrNotHeld where all holders refuse a
// block, with ErrStalled where nothing arrives for Config.StallTimeout, and with
// ErrNoSpace; what arrived until then stays, and the next Fetch goes on from it.
// The report is valid with an error too.
func (s *Store) Fetch(ctx context.Context, c cid.Cid, holders []peer.ID, progress func(Progress)) (FetchReport, error) {
	s.use.RLock()
	defer s.use.RUnlock()
	start := time.Now()
	if has, err := s.Has(ctx, c); has || err != nil {
		return FetchReport{Took: time.Since(start)}, err
	}
	p, err := s.newPull(ctx, holders)
	if err != nil {
		return FetchReport{}, fmt.Errorf("fetch image %s: %w", c, err)
	}
	defer p.close()
	if progress == nil {
		progress = func(Progress) {}
	}
	err = p.image(ctx, c, progress)
	rep := p.report
	rep.Took = time.Since(start)
	for _, h := range p.list {
		rep.ByPeer = append(rep.ByPeer, PeerShare{h.id, h.blocks, h.bytes})
	}
	if err != nil {
		return rep, fmt.Errorf("fetch image %s: %w", c, err)
	}
	return rep, nil
}

func (p *pull) image(ctx context.Context, c cid.Cid, progress func(Progress)) error {
	commit, err := p.outline(ctx, c)
	if err != nil {
		return err
	}
	need, err := p.store.lacking(ctx, c)
	if err != nil {
		return err
	}
	if err := p.store.room(p.store.dir, need.Bytes); err != nil {
		return err
	}
	now := Progress{Total: need.Bytes, AllBlocks: need.Blocks}
	progress(now)
	walk, stop := context.WithCancel(p.ctx)
	defer stop()
	source, failed := make(chan block, 1024), make(chan error, 1)
	go func() {
		defer close(source)
		failed <- p.leaves(walk, commit, source)
	}()
	err = p.fetch(source, func(blocks int, bytes int64) {
		now.Blocks += blocks
		now.Done += bytes
		progress(now)
	})
	stop()
	if walkErr := <-failed; err == nil {
		err = walkErr
	}
	return err
}

// leaves sends the missing leaves of the commit to out, in order of the disks.
func (p *pull) leaves(ctx context.Context, commit Commit, out chan<- block) error {
	w := walker{local: p.store.local, node: once(), leaf: func(l leaf) error {
		if ok, err := p.store.local.Has(ctx, l.cid); ok || err != nil {
			return err
		}
		select {
		case out <- block{l.cid, l.size}:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}}
	for _, f := range commit.files() {
		if err := w.file(ctx, f); err != nil {
			return err
		}
	}
	return nil
}
