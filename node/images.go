package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/dcnode/dcnode/blockstore"
	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/node/api"
)

// AddImage implements api.Images.
func (n *Node) AddImage(ctx context.Context, r api.AddImage, tell api.Tell) (api.Image, error) {
	p, err := n.ImportImage(ctx, r, tell)
	if err != nil {
		return api.Image{}, err
	}
	tell(api.Progress{Phase: "publish"})
	if _, err := n.decree(ctx, p); err != nil {
		var refused *ledger.RefusedError
		if errors.As(err, &refused) { // another was quicker: nothing of this one may stay
			err = errors.Join(err, n.drop(ctx, r.Name, p.Commit))
		}
		return api.Image{}, err
	}
	return n.image(ctx, r.Name)
}

// ImportImage implements api.Law: all of AddImage but the publishing.
func (n *Node) ImportImage(ctx context.Context, r api.AddImage, tell api.Tell) (*ledger.Publish, error) {
	name, tag := ledger.SplitRef(r.Name)
	if err := errors.Join(ledger.CheckName("image", name), ledger.CheckName("tag", tag)); err != nil {
		return nil, err
	}
	s, err := n.order.State(ctx)
	if err != nil {
		return nil, err
	}
	account := cmp.Or(r.Account, n.site(n.self))
	if have := s.Image(name); have != nil && (have.Account != account || s.Version(r.Name) != nil) {
		return nil, fmt.Errorf("image %s exists already (published by %s): choose another name", r.Name, have.Account)
	}
	info, err := n.store.Import(ctx, blockstore.Source{
		Path: r.Path, Kernel: r.Kernel, Initrd: r.Initrd, Append: r.Append, Kind: blockstore.OS,
		Author: account, Time: time.Now().Unix(),
	}, func(done, total int64) { tell(api.Progress{Phase: "import", Done: done, Total: total}) })
	if err != nil {
		return nil, err
	}
	return &ledger.Publish{Name: name, Tag: tag, Commit: info.Commit.String(), Size: info.Size, Stored: info.Bytes, Site: n.site(n.self)}, nil
}

// ListImages implements api.Images.
func (n *Node) ListImages(ctx context.Context) ([]api.Image, error) {
	s, err := n.order.State(ctx)
	if err != nil {
		return nil, err
	}
	out := []api.Image{}
	for _, img := range s.Images() {
		for i := range img.Tags {
			v, err := n.look(ctx, s, img, &img.Tags[i])
			if err != nil {
				return nil, err
			}
			out = append(out, v)
		}
	}
	return out, nil
}

func (n *Node) image(ctx context.Context, ref string) (api.Image, error) {
	s, err := n.order.State(ctx)
	if err != nil {
		return api.Image{}, err
	}
	name, _ := ledger.SplitRef(ref)
	img, v := s.Image(name), s.Version(ref)
	if v == nil {
		return api.Image{}, fmt.Errorf("there is no image %s: see `dcnode image ls`", ref)
	}
	return n.look(ctx, s, img, v)
}

// refOf is what people call a version of an image.
func refOf(name, tag string) string {
	if tag == ledger.DefaultTag {
		return name
	}
	return name + ":" + tag
}

func (n *Node) look(ctx context.Context, s *ledger.State, img *ledger.Image, v *ledger.Version) (api.Image, error) {
	out := api.Image{Name: refOf(img.Name, v.Tag), Account: img.Account, Version: *v}
	for _, h := range v.Holders {
		out.HeldBy = append(out.HeldBy, s.Site(h))
	}
	c, err := cid.Decode(v.Commit)
	if err != nil {
		return out, fmt.Errorf("commit of image %s: %w", out.Name, err)
	}
	out.Here, err = n.store.Has(ctx, c)
	if err == nil && !out.Here {
		out.Missing = v.Stored
	}
	return out, err
}

// FetchImage implements api.Images.
func (n *Node) FetchImage(ctx context.Context, ref string, tell api.Tell) (api.Image, error) {
	img, err := n.image(ctx, ref)
	if err != nil || img.Here && slices.Contains(img.Holders, n.self) {
		return img, err
	}
	c, err := cid.Decode(img.Commit)
	if err != nil {
		return img, err
	}
	if !img.Here { // another tag of it may have brought it, and then only the others have to know
		if _, err := n.store.Fetch(ctx, c, n.othersOf(img.Holders), func(p blockstore.Progress) {
			tell(api.Progress{Phase: "fetch", Done: p.Done, Total: p.Total})
		}); err != nil {
			return img, err
		}
	}
	name, tag := ledger.SplitRef(ref)
	if _, err := n.decree(ctx, &ledger.Hold{Name: name, Tag: tag, Held: true}); err != nil {
		return img, err
	}
	return n.image(ctx, ref)
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
	if v := s.VersionOf(m); v != nil && !slices.Contains(v.Holders, n.self) {
		name, _ := ledger.SplitRef(m.Image)
		n.submitLater(&ledger.Hold{Name: name, Commit: m.Commit, Held: true})
	}
}

// RemoveImage implements api.Images: the account that it belongs to withdraws the
// name; every node may drop its own blocks.
func (n *Node) RemoveImage(ctx context.Context, ref string) (api.RemovedImage, error) {
	out := api.RemovedImage{Name: ref}
	img, err := n.image(ctx, ref)
	if err != nil {
		return out, err
	}
	s, err := n.order.State(ctx)
	if err != nil {
		return out, err
	}
	for m := range s.Machines() {
		if m.Commit == img.Commit {
			return out, fmt.Errorf("image %s is in use by machine %s", ref, m.Name)
		}
	}
	name, tag := ledger.SplitRef(ref)
	if img.Account == n.site(n.self) {
		if _, err := n.decree(ctx, &ledger.Withdraw{Name: name, Tag: tag}); err != nil {
			return out, err
		}
		out.Withdrawn = true
	} else if slices.Contains(img.Holders, n.self) {
		if _, err := n.decree(ctx, &ledger.Hold{Name: name, Tag: tag}); err != nil {
			return out, err
		}
	}
	return out, n.drop(ctx, img.Name, img.Commit)
}

// drop deletes an image's blocks and files that no other image or machine here needs.
func (n *Node) drop(ctx context.Context, ref, commit string) error {
	s, err := n.order.State(ctx)
	if err != nil {
		return err
	}
	for m := range s.Machines() {
		if m.Commit == commit {
			return nil // one was defined meanwhile: its disks are built on these
		}
	}
	var keep []cid.Cid
	for _, img := range s.Images() {
		for _, v := range img.Tags {
			switch {
			case refOf(img.Name, v.Tag) == ref:
				continue
			case v.Commit == commit:
				return nil
			}
			if c, err := cid.Decode(v.Commit); err == nil {
				if have, err := n.store.Has(ctx, c); err == nil && have {
					keep = append(keep, c)
				}
			}
		}
	}
	c, err := cid.Decode(commit)
	if err != nil {
		return err
	}
	if _, err := n.store.Remove(ctx, c, keep); err != nil {
		return err
	}
	return os.RemoveAll(filepath.Join(n.cfg.Dir, "images", commit))
}
