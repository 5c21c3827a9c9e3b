package guest

import (
	"bytes"
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// packages is the folder in which Debian's packages are unpacked.
type packages struct {
	dir      string
	release  string // of the kernel, such as 6.1.0-56-cloud-amd64
	versions []byte // of the packages
}

func openPackages(dir string) (packages, error) {
	versions, err := os.ReadFile(filepath.Join(dir, ".packages"))
	if err != nil {
		return packages{}, err
	}
	kernels, _ := filepath.Glob(filepath.Join(dir, "boot", "vmlinuz-*"))
	if len(kernels) != 1 {
		return packages{}, fmt.Errorf("%d kernels in %s, want 1; remedy: remove that folder and try again", len(kernels), dir)
	}
	release := strings.TrimPrefix(filepath.Base(kernels[0]), "vmlinuz-")
	return packages{dir: dir, release: release, versions: versions}, nil
}

func (p packages) kernel() string { return filepath.Join(p.dir, "boot", "vmlinuz-"+p.release) }

func (p packages) modules() string {
	for _, dir := range []string{"lib/modules", "usr/lib/modules"} { // before and after Debian 13
		if path := filepath.Join(p.dir, dir, p.release); exists(path) {
			return path
		}
	}
	return filepath.Join(p.dir, "lib/modules", p.release)
}

func (p packages) busybox() string {
	if path := filepath.Join(p.dir, "bin/busybox"); exists(path) {
		return path
	}
	return filepath.Join(p.dir, "usr/bin/busybox")
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// resolve returns the files of the modules named and of all they need, each
// after what it needs. Modules built into the kernel need no file. The
// dependencies are read from the modules themselves: modules.dep is made when a
// kernel is installed, and this one is not.
func (p packages) resolve(names ...string) ([]string, error) {
	index, err := p.index()
	if err != nil {
		return nil, err
	}
	var order []string
	var add func(name, neededBy string) error
	add = func(name, neededBy string) error {
		path, known := index[moduleName(name)]
		switch {
		case !known:
			return fmt.Errorf("kernel %s has no module %s, which %s needs", p.release, name, neededBy)
		case path == "" || slices.Contains(order, path): // built in, or there already
			return nil
		}
		needs, err := moduleNeeds(path)
		if err != nil {
			return err
		}
		for _, need := range needs {
			if err := add(need, name); err != nil {
				return err
			}
		}
		order = append(order, path)
		return nil
	}
	for _, name := range names {
		if err := add(name, "the guest"); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// index gives the file of each module; the empty path stands for built in.
func (p packages) index() (map[string]string, error) {
	builtin, err := os.ReadFile(filepath.Join(p.modules(), "modules.builtin"))
	if err != nil {
		return nil, err
	}
	index := map[string]string{}
	for line := range strings.Lines(string(builtin)) {
		index[moduleName(strings.TrimSpace(line))] = ""
	}
	err = filepath.WalkDir(p.modules(), func(path string, entry os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".ko") {
			index[moduleName(path)] = path
		}
		return err
	})
	return index, err
}

// moduleName turns a path or a name into the kernel's spelling of the module.
func moduleName(path string) string {
	return strings.ReplaceAll(strings.TrimSuffix(filepath.Base(path), ".ko"), "-", "_")
}

// moduleNeeds reads "depends=a,b" from a module's .modinfo section, a list of
// strings that end in zero bytes.
func moduleNeeds(path string) ([]string, error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read module %s: %w", filepath.Base(path), err)
	}
	defer f.Close()
	section := f.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("module %s does not describe itself", filepath.Base(path))
	}
	info, err := section.Data()
	if err != nil {
		return nil, fmt.Errorf("read module %s: %w", filepath.Base(path), err)
	}
	for field := range bytes.SplitSeq(info, []byte{0}) {
		if list, ok := bytes.CutPrefix(field, []byte("depends=")); ok && len(list) > 0 {
			return strings.Split(string(list), ","), nil
		}
	}
	return nil, nil
}
