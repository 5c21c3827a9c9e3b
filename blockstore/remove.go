package blockstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
)

// reach calls visit once for each block of the image c that is named by what is
// here: leaves before the nodes over them, the commit last, so that a removal
// in that order can be repeated when it was cut short. Blocks below missing
// nodes are not known, so not visited.
func (s *Store) reach(ctx context.Context, c cid.Cid, seen func(cid.Cid) bool, visit func(cid.Cid) error) error {
	commit, err := s.localCommit(ctx, c)
	if errors.Is(err, ErrIncomplete) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, f := range commit.files() {
		var nodes []cid.Cid
		w := walker{local: s.local,
			node: func(n cid.Cid) bool {
				if !seen(n) {
					return false
				}
				nodes = append(nodes, n)
				return true
			},
			leaf: func(l leaf) error {
				if !seen(l.cid) {
					return nil
				}
				return visit(l.cid)
			},
			lost: func(_ cid.Cid, err error) error {
				if errors.Is(err, ErrIncomplete) {
					return nil
				}
				return err
			},
		}
		if err := w.file(ctx, f); err != nil {
			return err
		}
		for i := len(nodes) - 1; i >= 0; i-- {
			if err := visit(nodes[i]); err != nil {
				return err
			}
		}
	}
	if !seen(c) {
		return nil
	}
	return visit(c)
}

// Remove deletes the blocks of the image c that none of the images keep uses,
// and returns how many bytes that freed. What is not here needs no removal; an
// image in keep that is here in part keeps that part. It fails with ErrBusy
// while images are imported, fetched or materialised.
func (s *Store) Remove(ctx context.Context, c cid.Cid, keep []cid.Cid) (freed int64, err error) {
	if !s.use.TryLock() {
		return 0, fmt.Errorf("remove image %s: %w: an image is being imported, fetched or written out; try again when that is done", c, ErrBusy)
	}
	defer s.use.Unlock()
	kept, err := s.kept(ctx, keep)
	if err != nil {
		return 0, fmt.Errorf("remove image %s: %w", c, err)
	}
	seen := once()
	err = s.reach(ctx, c, seen, func(b cid.Cid) error {
		if _, ok := kept[string(b.Hash())]; ok {
			return nil
		}
		n, err := s.drop(ctx, b)
		freed += n
		return err
	})
	if err != nil {
		return freed, fmt.Errorf("remove image %s: %w", c, err)
	}
	return freed, nil
}

// Collect deletes every block that none of the images keep uses: what broken-off
// imports and fetches left, and what was forgotten. It fails with ErrBusy as
// Remove does.
func (s *Store) Collect(ctx context.Context, keep []cid.Cid) (freed int64, err error) {
	if !s.use.TryLock() {
		return 0, fmt.Errorf("collect unused blocks: %w: an image is being imported, fetched or written out; try again when that is done", ErrBusy)
	}
	defer s.use.Unlock()
	kept, err := s.kept(ctx, keep)
	if err != nil {
		return 0, fmt.Errorf("collect unused blocks: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	all, err := s.local.AllKeysChan(ctx)
	if err != nil {
		return 0, fmt.Errorf("collect unused blocks: %w", err)
	}
	for c := range all {
		if _, ok := kept[string(c.Hash())]; ok {
			continue
		}
		n, err := s.drop(ctx, c)
		freed += n
		if err != nil {
			return freed, fmt.Errorf("collect unused blocks: %w", err)
		}
	}
	return freed, ctx.Err()
}

// kept is the set of blocks that the images use, by multihash.
func (s *Store) kept(ctx context.Context, images []cid.Cid) (map[string]struct{}, error) {
	kept := make(map[string]struct{})
	seen := once()
	for _, c := range images {
		err := s.reach(ctx, c, seen, func(b cid.Cid) error {
			kept[string(b.Hash())] = struct{}{}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("read kept image %s: %w", c, err)
		}
	}
	return kept, nil
}

// drop deletes one block and returns its size.
func (s *Store) drop(ctx context.Context, c cid.Cid) (int64, error) {
	n, err := s.local.GetSize(ctx, c)
	if ipld.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("look up block %s: %w", c, err)
	}
	return int64(n), s.local.DeleteBlock(ctx, c)
}

// Verify reads and hashes every block of the image c. The error names each
// block that is corrupt or missing (the first few, where they are many); corrupt
// ones are set aside, so that fetching the image again repairs it.
func (s *Store) Verify(ctx context.Context, c cid.Cid) error {
	s.use.RLock()
	defer s.use.RUnlock()
	commit, err := s.localCommit(ctx, c)
	if err != nil {
		return fmt.Errorf("verify image %s: %w", c, err)
	}
	const named = 8
	var bad []error
	count := 0
	note := func(err error) error {
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		if count++; count <= named {
			bad = append(bad, err)
		}
		return nil
	}
	seen := once()
	w := walker{local: s.local, node: seen, leaf: func(l leaf) error {
		if !seen(l.cid) {
			return nil
		}
		_, err := s.leafData(ctx, l)
		return note(err)
	}, lost: func(_ cid.Cid, err error) error { return note(err) }}
	for _, f := range commit.files() {
		if err := w.file(ctx, f); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			bad = append(bad, err)
			count++
		}
	}
	if count > 0 {
		return fmt.Errorf("verify image %s: %d of its blocks are bad: %w", c, count, errors.Join(bad...))
	}
	return nil
}
