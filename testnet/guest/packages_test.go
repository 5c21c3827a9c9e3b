package guest

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestModulesComeAfterWhatTheyNeed(t *testing.T) {
	p := kernelWith(t, map[string]string{
		"drivers/virtio_pci.ko":  "virtio,virtio_ring",
		"drivers/virtio_ring.ko": "virtio",
		"drivers/virtio.ko":      "",
		"drivers/virtio-rng.ko":  "virtio,crc32c",
	}, "kernel/lib/crc32c.ko")
	files, err := p.resolve("virtio_pci", "virtio_rng", "crc32c")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, file := range files {
		names = append(names, filepath.Base(file))
	}
	if got := strings.Join(names, " "); got != "virtio.ko virtio_ring.ko virtio_pci.ko virtio-rng.ko" {
		t.Errorf("got %s", got)
	}
}

func TestModuleThatIsNotThereIsNamedWithWhoNeedsIt(t *testing.T) {
	p := kernelWith(t, map[string]string{"drivers/virtio_blk.ko": "virtio"}, "")
	_, err := p.resolve("virtio_blk")
	if err == nil || !strings.Contains(err.Error(), "no module virtio, which virtio_blk needs") {
		t.Errorf("got %v", err)
	}
}

// kernelWith makes a kernel's folder of modules, each with the modules it needs.
func kernelWith(t *testing.T, modules map[string]string, builtin string) packages {
	t.Helper()
	p := packages{dir: t.TempDir(), release: "6.1.0"}
	for path, needs := range modules {
		path = filepath.Join(p.modules(), "kernel", path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, module("license=GPL\x00depends="+needs+"\x00"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(p.modules(), "modules.builtin"), []byte(builtin+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return p
}

// module is an ELF file with nothing but a .modinfo section.
func module(info string) []byte {
	const names = "\x00.modinfo\x00.shstrtab\x00"
	head := elf.Header64{
		Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT),
		Shoff: 64, Ehsize: 64, Shentsize: 64, Shnum: 3, Shstrndx: 2,
	}
	const data = 64 + 3*64
	sections := []elf.Section64{
		{},
		{Name: 1, Type: uint32(elf.SHT_PROGBITS), Off: data, Size: uint64(len(info))},
		{Name: 10, Type: uint32(elf.SHT_STRTAB), Off: data + uint64(len(info)), Size: uint64(len(names))},
	}
	var b bytes.Buffer
	for _, part := range []any{head, sections, []byte(info + names)} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			panic(err) // memory
		}
	}
	return b.Bytes()
}
