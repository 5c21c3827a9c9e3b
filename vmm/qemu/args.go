package qemu

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/dcnode/dcnode/vmm"
)

// sandboxArg forbids QEMU what a machine never needs.
const sandboxArg = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"

// escape makes a value fit for QEMU's key=value options.
func escape(s string) string { return strings.ReplaceAll(s, ",", ",,") }

// guestUUID is what the guest sees; it follows from the name, so that it is the
// same at every site.
func guestUUID(name string) string {
	s := sha256.Sum256([]byte("dcnode machine " + name))
	s[6] = s[6]&0x0f | 0x80
	s[8] = s[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", s[:4], s[4:6], s[6:8], s[8:10], s[10:16])
}

// node is the block node of a disk's overlay.
func node(disk string) string { return "dc-" + disk }

// commandLine is everything after the binary's name. The machine starts stopped.
func commandLine(s vmm.Spec, f vmm.Files, p paths, sandbox, incoming bool) ([]string, error) {
	accel := s.Accelerator
	if accel == "tcg" {
		accel = "tcg,thread=multi"
	}
	args := []string{
		"-name", "guest=" + escape(s.Name),
		"-uuid", guestUUID(s.Name),
		"-no-user-config", "-nodefaults", "-display", "none", "-S",
		"-machine", s.MachineType, "-accel", accel, "-cpu", s.CPU,
		"-m", strconv.FormatInt(s.Memory>>20, 10) + "M", "-smp", strconv.Itoa(s.VCPUs),
		"-rtc", "base=utc",
		"-chardev", "file,id=console,append=on,path=" + escape(p.console()), "-serial", "chardev:console",
		"-chardev", "socket,id=qmp,server=on,wait=off,path=" + escape(p.qmp()), "-mon", "chardev=qmp,mode=control",
	}
	if sandbox {
		args = append(args, "-sandbox", sandboxArg)
	}
	for i, d := range f.Disks {
		nodes, err := blockNodes(d, p)
		if err != nil {
			return nil, err
		}
		args = append(args, nodes...)
		args = append(args, "-device", fmt.Sprintf("virtio-blk-pci,drive=%s,id=dev-%s,bootindex=%d", node(d.Name), d.Name, i+1))
	}
	for _, o := range [][2]string{{"-kernel", f.Kernel}, {"-initrd", f.Initrd}, {"-append", s.Append}} {
		if o[1] != "" && (o[0] != "-append" || f.Kernel != "") {
			args = append(args, o[0], o[1])
		}
	}
	if incoming {
		args = append(args, "-incoming", "defer")
	}
	return args, nil
}

// blockNodes are the -blockdev options of one disk: base, overlay file, overlay.
func blockNodes(d vmm.Disk, p paths) ([]string, error) {
	var nodes []any
	overlay := map[string]any{
		"driver": "qcow2", "node-name": node(d.Name), "file": node(d.Name) + "-file",
		"discard": "unmap", "backing": nil,
	}
	if d.Base != "" {
		base, err := filepath.Abs(d.Base)
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, map[string]any{
			"driver": "raw", "node-name": node(d.Name) + "-base", "read-only": true,
			"file": map[string]any{"driver": "file", "filename": base, "read-only": true},
		})
		overlay["backing"] = node(d.Name) + "-base"
	}
	nodes = append(nodes, map[string]any{
		"driver": "file", "node-name": node(d.Name) + "-file", "filename": p.overlay(d.Name), "discard": "unmap",
	}, overlay)
	var args []string
	for _, n := range nodes {
		b, err := json.Marshal(n)
		if err != nil {
			return nil, err
		}
		args = append(args, "-blockdev", string(b))
	}
	return args, nil
}

// check says what is wrong with a machine's definition for this driver.
func check(s vmm.Spec, f vmm.Files) error {
	if err := s.Check(); err != nil {
		return err
	}
	if s.Driver != driverName {
		return fmt.Errorf("machine %s is for driver %s, not %s", s.Name, s.Driver, driverName)
	}
	seen := map[string]bool{}
	for _, d := range f.Disks {
		if !plainName(d.Name) || seen[d.Name] {
			return fmt.Errorf("disk name %q: use letters, digits and dashes, at most 16, each name once", d.Name)
		}
		seen[d.Name] = true
		if d.Size <= 0 || d.Size%4096 != 0 {
			return fmt.Errorf("disk %s of %d bytes: its size must be a positive multiple of 4096", d.Name, d.Size)
		}
	}
	return nil
}

func plainName(s string) bool {
	if s == "" || len(s) > 16 || s[0] == '-' {
		return false
	}
	return strings.Trim(strings.ToLower(s), "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}
