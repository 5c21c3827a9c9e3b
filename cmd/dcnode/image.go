package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dcnode/dcnode/node/api"
)

func imageCommand(t *terminal) *cobra.Command {
	return group(&cobra.Command{Use: "image", Short: "Images: add, list, fetch, remove"},
		imageAdd(t), imageList(t), imageFetch(t), imageRemove(t))
}

func imageAdd(t *terminal) *cobra.Command {
	var q api.AddImage
	c := &cobra.Command{
		Use: "add NAME FILE", Short: "Make a disk (raw or qcow2) an image", Args: exactly("NAME", "FILE"),
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
			img, err := cl.AddImage(c.Context(), q, tell)
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
	return c
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
	return &cobra.Command{
		Use: "rm NAME", Short: "Withdraw an image, or drop this site's copy", Args: exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := t.client()
			if err != nil {
				return err
			}
			return cl.RemoveImage(c.Context(), args[0])
		},
	}
}
