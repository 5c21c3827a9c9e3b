package guest

import (
	"bufio"
	"compress/gzip"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
)

//go:embed init.sh
var initScript []byte

// drivers are the modules that the guest loads: the PCI transport, disks, and the
// power button, so that it can be asked to stop.
func drivers() []string { return []string{"virtio_pci", "virtio_blk", "ext4", "evdev", "button"} }

// writeInitrd writes the initial RAM disk: init, busybox, drivers, workload.
func writeInitrd(path string, root packages, workload []byte) error {
	modules, err := root.resolve(drivers()...)
	if err != nil {
		return err
	}
	busybox, err := os.ReadFile(root.busybox())
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	buffered := bufio.NewWriterSize(f, 1<<20)
	packed, err := gzip.NewWriterLevel(buffered, gzip.BestSpeed)
	if err != nil {
		return err
	}
	archive := &cpio{w: packed}
	archive.add("bin", modeDir, nil)
	archive.add("bin/busybox", modeProg, busybox)
	archive.add("dev", modeDir, nil)
	archive.add("init", modeProg, initScript)
	archive.add("dcnode-guest", modeProg, workload)
	archive.add("modules", modeDir, nil)
	order := ""
	for _, module := range modules {
		content, err := os.ReadFile(module)
		if err != nil {
			return err
		}
		order += fmt.Sprintln(filepath.Base(module))
		archive.add("modules/"+filepath.Base(module), modeFile, content)
	}
	archive.add("modules/order", modeFile, []byte(order))
	if err := archive.close(); err != nil {
		return err
	}
	if err := packed.Close(); err != nil {
		return err
	}
	if err := buffered.Flush(); err != nil {
		return err
	}
	return f.Close()
}
