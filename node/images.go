package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/dcnode/dcnode/blockstore"
	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/node/api"
)

// AddImage implements api.Images.
func (n *Node) AddImage(ctx context.Context, r api.AddImage, tell api.Tell) (api.Image, error) {
	if err := ledger.CheckName("image", r.Name); err != nil {
		return api.Image{}, err
	}
	s, err := n.order.State(ctx)
	if err != nil {
		return api.Image{}, err
	}
	if have := s.Image(r.Name); have != nil {
		return api.Image{}, fmt.Errorf("image %s exists already (published by %s): choose another name", r.Name, s.Site(have.Publisher))
	}
	info, err := n.store.Import(ctx, blockstore.Source{
		Path: r.Path, Kernel: r.Kernel, Initrd: r.Initrd, Append: r.Append, Kind: blockstore.OS,
		Author: n.site(n.self), Time: time.Now().Unix(),
	}, func(done, total int64) { tell(api.Progress{Phase: "import", Done: done, Total: total}) })
	if err != nil {
		return api.Image{}, err
	}
	tell(api.Progress{Phase: "publish"})
	if _, err := n.decree(ctx, &ledger.Publish{Name: r.Name, Commit: info.Commit.String(), Size: info.Size, Stored: info.Bytes}); err != nil {
		var refused *ledger.RefusedError
		if errors.As(err, &refused) { // another was quicker: nothing of this one may stay
			err = errors.Join(err, n.drop(ctx, api.Image{Image: ledger.Image{Commit: info.Commit.String()}}))
		}
		return api.Image{}, err
	}
	return n.image(ctx, r.Name)
}

// ListImages implements api.Images.
func (n *Node) ListImages(ctx context.Context) ([]api.Image, error) {
	s, err := n.order.State(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]api.Image, 0, len(s.Images))
	for i := range s.Images {
		img, err := n.look(ctx, s, &s.Images[i])
		if err != nil {
			return nil, err
		}
		out = append(out, img)
	}
	return out, nil
}

func (n *Node) image(ctx context.Context, name string) (api.Image, error) {
	s, err := n.order.State(ctx)
	if err != nil {
		return api.Image{}, err
	}
	img := s.Image(name)
	if img == nil {
		return api.Image{}, fmt.Errorf("there is no image %s: see `dcnode image ls`", name)
	}
	return n.look(ctx, s, img)
}

func (n *Node) look(ctx context.Context, s *ledger.State, img *ledger.Image) (api.Image, error) {
	out := api.Image{Image: *img}
	for _, h := range img.Holders {
		out.HeldBy = append(out.HeldBy, s.Site(h))
	}
	c, err := cid.Decode(img.Commit)
	if err != nil {
		return out, fmt.Errorf("commit of image %s: %w", img.Name, err)
	}
	out.Here, err = n.store.Has(ctx, c)
	if err == nil && !out.Here {
		out.Missing = img.Stored
	}
	return out, err
}

// FetchImage implements api.Images.
func (n *Node) FetchImage(ctx context.Context, name string, tell api.Tell) (api.Image, error) {
	img, err := n.image(ctx, name)
	if err != nil || img.Here {
		return img, err
	}
	c, err := cid.Decode(img.Commit)
	if err != nil {
		return img, err
	}
	if _, err := n.store.Fetch(ctx, c, n.othersOf(img.Holders), func(p blockstore.Progress) {
		tell(api.Progress{Phase: "fetch", Done: p.Done, Total: p.Total})
	}); err != nil {
		return img, err
	}
	if _, err := n.decree(ctx, &ledger.Hold{Name: name, Held: true}); err != nil {
		return img, err
	}
	return n.image(ctx, name)
}

func (n *Node) othersOf(ids []ledger.MemberID) []peer.ID {
	var out []peer.ID
	for _, id := range ids {
		if id != n.self {
			out = append(out, n.genesis.peer(id))
		}
	}
	return out
}

// holds tells the ledger that this node has the image of a machine.
func (n *Node) holds(ctx context.Context, machine string) {
	s, err := n.order.State(ctx)
	if err != nil {
		return
	}
	m := s.Machine(machine)
	if m == nil {
		return
	}
	if img := s.Image(m.Image); img != nil && !slices.Contains(img.Holders, n.self) {
		n.submitLater(&ledger.Hold{Name: m.Image, Held: true})
	}
}

// RemoveImage implements api.Images: the publisher withdraws the name; every
// node may drop its own blocks.
func (n *Node) RemoveImage(ctx context.Context, name string) error {
	img, err := n.image(ctx, name)
	if err != nil {
		return err
	}
	s, err := n.order.State(ctx)
	if err != nil {
		return err
	}
	for _, m := range s.Machines {
		if m.Image == name {
			return fmt.Errorf("image %s is in use by machine %s", name, m.Name)
		}
	}
	if img.Publisher == n.self {
		if _, err := n.decree(ctx, &ledger.Withdraw{Name: name}); err != nil {
			return err
		}
	} else if slices.Contains(img.Holders, n.self) {
		if _, err := n.decree(ctx, &ledger.Hold{Name: name}); err != nil {
			return err
		}
	}
	return n.drop(ctx, img)
}

// drop deletes an image's blocks and files that no other image here needs.
func (n *Node) drop(ctx context.Context, img api.Image) error {
	s, err := n.order.State(ctx)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(s.Machines, func(m ledger.Machine) bool { return m.Commit == img.Commit }) {
		return nil // one was defined meanwhile: its disks are built on these
	}
	var keep []cid.Cid
	for _, o := range s.Images {
		if o.Commit == img.Commit && o.Name != img.Name {
			return nil
		}
		if c, err := cid.Decode(o.Commit); err == nil && o.Name != img.Name {
			if have, err := n.store.Has(ctx, c); err == nil && have {
				keep = append(keep, c)
			}
		}
	}
	c, err := cid.Decode(img.Commit)
	if err != nil {
		return err
	}
	if _, err := n.store.Remove(ctx, c, keep); err != nil {
		return err
	}
	return os.RemoveAll(filepath.Join(n.cfg.Dir, "images", img.Commit))
}
