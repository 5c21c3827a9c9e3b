package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/dcnode/dcnode/vmm"
)

// makeOverlay makes an empty qcow2 overlay, unless there is one and it may stay.
func makeOverlay(ctx context.Context, img string, d vmm.Disk, path string, fresh bool) error {
	_, err := os.Stat(path)
	switch {
	case err == nil && !fresh:
		return nil
	case err == nil:
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("replace overlay: %w", err)
		}
	case !errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("look at overlay: %w", err)
	}
	args := []string{"create", "-q", "-f", "qcow2"}
	if d.Base != "" {
		base, err := filepath.Abs(d.Base)
		if err != nil {
			return err
		}
		if _, err := os.Stat(base); err != nil {
			return fmt.Errorf("base of disk %s: %w", d.Name, err)
		}
		args = append(args, "-b", base, "-F", "raw")
	}
	// Under another name first: a half-made overlay must not look like one.
	tmp := path + ".new"
	args = append(args, tmp, strconv.FormatInt(d.Size, 10))
	if out, err := exec.CommandContext(ctx, img, args...).CombinedOutput(); err != nil {
		os.Remove(tmp)
		return fmt.Errorf("make overlay of disk %s: %w: %s", d.Name, err, strings.TrimSpace(string(out)))
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("make overlay of disk %s: %w", d.Name, err)
	}
	return nil
}
