package guest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/dcnode/dcnode/scripts"
)

// What mkfs.ext4 would draw at random or take from the clock is fixed, so that
// equal packages make equal disks.
const (
	diskUUID = "6b8f1c52-6f5e-4b5f-9d0e-dc0de0000001"
	diskSeed = "6b8f1c52-6f5e-4b5f-9d0e-dc0de0000002"
	diskTime = 1704067200 // 2024-01-01, seconds since 1970
)

// writeDisk writes the base disk: the kernel's modules and the packages'
// documentation as /usr, to have real files to share, and free space to work in.
func writeDisk(ctx context.Context, path string, root packages, o Options) error {
	mkfs, environment, err := findMkfs(ctx, o)
	if err != nil {
		return err
	}
	tree := filepath.Join(filepath.Dir(path), "tree")
	defer os.RemoveAll(tree)
	if err := plant(tree, root); err != nil {
		return fmt.Errorf("copy files: %w", err)
	}
	files, err := count(tree)
	if err != nil {
		return err
	}
	if err := createSparse(path, DiskSize); err != nil {
		return err
	}
	// No lazy initialisation: the guest would write to its disk unasked.
	cmd := exec.CommandContext(ctx, mkfs, "-q", "-F", "-m", "0", "-N", "8192", "-b", "4096", "-J", "size=8",
		"-U", diskUUID, "-L", "dcnode", "-E", "hash_seed="+diskSeed+",root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0,nodiscard",
		"-O", "^huge_file,^resize_inode,64bit,metadata_csum", "-d", tree, path)
	environment = append(environment, fmt.Sprintf("SOURCE_DATE_EPOCH=%d", diskTime), fmt.Sprintf("E2FSPROGS_FAKE_TIME=%d", diskTime), "LC_ALL=C")
	cmd.Env = append(os.Environ(), environment...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mkfs.ext4: %w: %s; remedy: see that %s has 300 MB free", err, strings.TrimSpace(string(out)), o.CacheDir)
	}
	// mkfs copies the tree's times, among them those at which its inodes last
	// changed and were read: debugfs, its neighbour, sets them in the image.
	cmd = exec.CommandContext(ctx, filepath.Join(filepath.Dir(mkfs), "debugfs"), "-w", "-f", "-", path)
	cmd.Env = append(os.Environ(), environment...)
	cmd.Stdin = strings.NewReader(changeTimes(files))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("debugfs: %w: %s; remedy: apt-get install --reinstall e2fsprogs", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// count counts the files and folders of the tree, itself among them.
func count(tree string) (int, error) {
	files := 0
	err := filepath.WalkDir(tree, func(_ string, _ os.DirEntry, err error) error {
		files++
		return err
	})
	return files, err
}

// changeTimes is the debugfs script that sets the times of all inodes: the
// root (2) and, from 11 on, lost+found and the files of the tree but its root.
func changeTimes(files int) string {
	var script strings.Builder
	set := func(inode int) {
		for _, field := range []string{"ctime", "atime", "mtime"} {
			fmt.Fprintf(&script, "set_inode_field <%d> %s @%d\nset_inode_field <%d> %s_extra 0\n", inode, field, diskTime, inode, field)
		}
	}
	set(2)
	for i := range files {
		set(11 + i)
	}
	return script.String()
}

// plant lays the disk's files out.
func plant(tree string, root packages) error {
	parts := map[string]string{
		root.modules():                           "usr/lib/modules/" + root.release,
		filepath.Join(root.dir, "usr/share/doc"): "usr/share/doc",
	}
	for from, to := range parts {
		if err := os.CopyFS(filepath.Join(tree, to), os.DirFS(from)); err != nil {
			return err
		}
	}
	bin := filepath.Join(tree, "usr/bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return err
	}
	busybox, err := os.ReadFile(root.busybox())
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(bin, "busybox"), busybox, 0o755)
}

func createSparse(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Truncate(size)
}

// findMkfs finds mkfs.ext4 on the system or unpacks it. The environment is what
// the program needs besides the usual.
func findMkfs(ctx context.Context, o Options) (path string, environment []string, err error) {
	const name = "mkfs.ext4"
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/sbin") {
		if path := filepath.Join(dir, name); dir != "" && exists(path) {
			return path, nil, nil
		}
	}
	dir := filepath.Join(o.CacheDir, "e2fsprogs")
	if _, err := scripts.Run(ctx, o.Log, "debs.sh", dir, "e2fsprogs"); err != nil {
		return "", nil, fmt.Errorf("there is no %s: %w; or: apt-get install e2fsprogs", name, err)
	}
	libraries := "LD_LIBRARY_PATH=" + filepath.Join(dir, "lib/x86_64-linux-gnu") + ":" + filepath.Join(dir, "usr/lib/x86_64-linux-gnu")
	return filepath.Join(dir, "sbin", name), []string{libraries}, nil
}
