package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/node/api"
)

func imageCommand(t *terminal) *cobra.Command {
	return group(&cobra.Command{Use: "image", Short: "Images: add, tag, list, holders, fetch, remove"},
		imageAdd(t), imageTag(t), imageList(t), imageHolders(t), imageFetch(t), imageRemove(t))
}

func imageAdd(t *terminal) *cobra.Command {
	var q api.AddImage
	var sign signFlags
	c := &cobra.Command{
		Use: "add NAME[:TAG] FILE", Short: "Make a disk (raw or qcow2) an image", Args: exactly("NAME", "FILE"),
		Example: "  dcnode image add debian disk.qcow2\n  dcnode image add tiny root.ext4 --kernel vmlinuz --initrd initrd.gz --append 'console=ttyS0'",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := t.client()
			if err != nil {
				return err
			}
			q.Name, q.Path = args[0], args[1]
			for _, p := range []*string{&q.Path, &q.Kernel, &q.Initrd} {
				if *p == "" {
					continue
				}
				if *p, err = filepath.Abs(*p); err != nil {
					return fmt.Errorf("name file: %w", err)
				}
			}
			tell, end := t.progress()
			img, err := t.addImage(c.Context(), cl, &sign, q, tell)
			end()
			if err != nil {
				return err
			}
			return t.print(img, func() {
				fmt.Fprintf(t.out, "image %s: %s of disk, %s stored, commit %s\n", img.Name, bytes(img.Size), bytes(img.Stored), img.Commit)
			})
		},
	}
	c.Flags().StringVar(&q.Kernel, "kernel", "", "kernel to boot it with")
	c.Flags().StringVar(&q.Initrd, "initrd", "", "initial RAM disk")
	c.Flags().StringVar(&q.Append, "append", "", "kernel command line")
	sign.addAccount(c, "account that it is to belong to (default: this site)")
	c.Flags().StringArrayVar(&sign.keys, "key", nil, "file with a key of the account; may be given again")
	return c
}

// addImage makes an image; that of an account is signed before it is published.
func (t *terminal) addImage(ctx context.Context, cl *api.Client, f *signFlags, q api.AddImage, tell api.Tell) (api.Image, error) {
	if f.account == "" {
		return cl.AddImage(ctx, q, tell)
	}
	if _, err := readKeyFiles(f.keys); err != nil { // before the work
		return api.Image{}, err
	}
	q.Account = f.account
	p, err := cl.ImportImage(ctx, q, tell)
	if err != nil {
		return api.Image{}, err
	}
	tell(api.Progress{Phase: "publish"})
	if err := t.publish(ctx, cl, f, f.account, p); err != nil {
		return api.Image{}, err
	}
	return findImage(ctx, cl, q.Name)
}

// publish orders a Publish as this site's word, or as an account's.
func (t *terminal) publish(ctx context.Context, cl *api.Client, f *signFlags, account string, p *ledger.Publish) error {
	s, err := cl.Signing(ctx, account)
	if err != nil {
		return err
	}
	if s.Site == account && len(f.keys) == 0 {
		_, err = cl.Say(ctx, api.Say{Publish: p})
		return err
	}
	p.Site = s.Site
	_, _, err = t.say(ctx, cl, f, account, p)
	return err
}

// findImage is an image by name or name:tag.
func findImage(ctx context.Context, cl *api.Client, ref string) (api.Image, error) {
	all, err := cl.ListImages(ctx)
	if err != nil {
		return api.Image{}, err
	}
	for _, i := range all {
		if i.Name == strings.TrimSuffix(ref, ":"+ledger.DefaultTag) {
			return i, nil
		}
	}
	return api.Image{}, fmt.Errorf("there is no image %s: see `dcnode image ls`", ref)
}

func imageTag(t *terminal) *cobra.Command {
	var f signFlags
	c := &cobra.Command{
		Use: "tag NAME[:TAG] NEWTAG", Short: "Give a version of an image another tag", Args: exactly("NAME", "NEWTAG"),
		Long:    "Makes NEWTAG name the version that NAME[:TAG] is. A tag that is there moves; machines keep\nthe version that they were made from. Say it at a site that holds the image.",
		Example: "  dcnode image add debian:12 disk.qcow2\n  dcnode image tag debian:12 stable",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := t.client()
			if err != nil {
				return err
			}
			img, err := findImage(c.Context(), cl, args[0])
			if err != nil {
				return err
			}
			if !img.Here {
				return fmt.Errorf("image %s is not here: fetch it with `dcnode image fetch %s`, or say it where it is", args[0], args[0])
			}
			name, _ := ledger.SplitRef(img.Name)
			p := &ledger.Publish{Name: name, Tag: args[1], Commit: img.Commit, Size: img.Size, Stored: img.Stored}
			if err := t.publish(c.Context(), cl, &f, img.Account, p); err != nil {
				return err
			}
			return t.print(p, func() { fmt.Fprintf(t.out, "%s is %s now\n", ledger.Ref(name, args[1]), img.Commit) })
		},
	}
	c.Flags().StringArrayVar(&f.keys, "key", nil, "file with a key of the account that the image belongs to; may be given again")
	return c
}

func imageHolders(t *terminal) *cobra.Command {
	return &cobra.Command{
		Use: "holders NAME[:TAG]", Short: "List the sites that say they hold all of an image", Args: exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := t.client()
			if err != nil {
				return err
			}
			img, err := findImage(c.Context(), cl, args[0])
			if err != nil {
				return err
			}
			return t.print(img.HeldBy, func() {
				for _, s := range img.HeldBy {
					fmt.Fprintln(t.out, s)
				}
			})
		},
	}
}

func imageList(t *terminal) *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List the images of the overlay", Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := t.client()
			if err != nil {
				return err
			}
			images, err := cl.ListImages(c.Context())
			if err != nil {
				return err
			}
			return t.print(images, func() {
				rows := []string{"NAME\tSIZE\tSTORED\tHERE\tHELD BY\tCOMMIT"}
				for _, i := range images {
					here := "no"
					if i.Here {
						here = "yes"
					}
					rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s", i.Name, bytes(i.Size), bytes(i.Stored), here, strings.Join(i.HeldBy, ","), i.Commit))
				}
				t.table(rows...)
			})
		},
	}
}

func imageFetch(t *terminal) *cobra.Command {
	return &cobra.Command{
		Use: "fetch NAME", Short: "Fetch an image to this site", Args: exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := t.client()
			if err != nil {
				return err
			}
			tell, end := t.progress()
			img, err := cl.FetchImage(c.Context(), args[0], tell)
			end()
			if err != nil {
				return err
			}
			return t.print(img, func() { fmt.Fprintf(t.out, "image %s is here\n", img.Name) })
		},
	}
}

func imageRemove(t *terminal) *cobra.Command {
	var f signFlags
	c := &cobra.Command{
		Use: "rm NAME[:TAG]", Short: "Withdraw an image, or drop this site's copy", Args: exactly("NAME"),
		Long: "Withdraws a tag that belongs to this site, or with --key to an account, and drops the\ncopy here; of an image of others it drops the copy.",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := t.client()
			if err != nil {
				return err
			}
			gone, err := t.removeImage(c.Context(), cl, &f, args[0])
			if err != nil {
				return err
			}
			return t.print(gone, func() {
				if gone.Withdrawn {
					fmt.Fprintf(t.out, "image %s is withdrawn, for all\n", gone.Name)
					return
				}
				fmt.Fprintf(t.out, "this site gives up its copy of image %s; the others keep theirs\n", gone.Name)
			})
		},
	}
	c.Flags().StringArrayVar(&f.keys, "key", nil, "file with a key of the account that the image belongs to; may be given again")
	return c
}

// removeImage withdraws an image or drops this site's copy; that of an account is
// withdrawn with its keys.
func (t *terminal) removeImage(ctx context.Context, cl *api.Client, f *signFlags, ref string) (api.RemovedImage, error) {
	if len(f.keys) == 0 {
		return cl.RemoveImage(ctx, ref)
	}
	img, err := findImage(ctx, cl, ref)
	if err != nil {
		return api.RemovedImage{}, err
	}
	name, tag := ledger.SplitRef(ref)
	_, said, err := t.say(ctx, cl, f, img.Account, &ledger.Withdraw{Name: name, Tag: tag})
	return api.RemovedImage{Name: ref, Withdrawn: said}, err
}
