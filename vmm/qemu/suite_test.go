package qemu

import (
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dcnode/dcnode/vmm"
	"github.com/dcnode/dcnode/vmm/vmmtest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func withVM() bool { return flag.Lookup("vm").Value.String() == "true" }

var _ = flag.Bool("vm", false, "run the tests that need a real QEMU: DCNODE_QEMU and DCNODE_QEMU_IMG name the programs")

// liveQEMU is the configuration of a real QEMU; without -vm the test is skipped, with
// -vm and without QEMU it fails.
func liveQEMU(t *testing.T) Config {
	t.Helper()
	if !withVM() {
		t.Skip("needs a real QEMU: run with -vm")
	}
	cfg := Config{Binary: os.Getenv("DCNODE_QEMU"), ImgBinary: os.Getenv("DCNODE_QEMU_IMG")}
	if cfg.Binary == "" || cfg.ImgBinary == "" {
		t.Fatal("-vm needs DCNODE_QEMU and DCNODE_QEMU_IMG: paths of qemu-system-x86_64 (9.0 or later) and qemu-img")
	}
	return cfg
}

func newDriver(t *testing.T, cfg Config) *Driver {
	t.Helper()
	d := New(cfg)
	t.Cleanup(d.Close)
	return d
}

// bootBase is a raw disk of 8 MiB that counts.
func bootBase(t *testing.T) string {
	t.Helper()
	b := make([]byte, 8*mib)
	copy(b, counter())
	rand.NewChaCha8([32]byte{7}).Read(b[2*mib : 6*mib])
	path := filepath.Join(t.TempDir(), "base.raw")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func testSpec() vmm.Spec {
	return vmm.Spec{Name: "web1", Driver: "qemu", Memory: 32 * mib, VCPUs: 1}
}

func TestConformance(t *testing.T) {
	cfg := liveQEMU(t)
	probed := newDriver(t, cfg)
	caps := probed.Probe(t.Context())
	t.Logf("%+v", caps)
	if !caps.CanMigrate {
		t.Fatalf("this QEMU cannot migrate: %s%s", caps.Why, caps.WhyNot)
	}
	base := bootBase(t)
	vmmtest.Suite{
		New: func(t *testing.T) vmm.Driver {
			d := newDriver(t, cfg)
			d.found = probed.found // probing takes seconds where KVM opens but does not work
			return d
		},
		Spec:  testSpec(),
		Disks: []vmm.Disk{{Name: "disk0", Base: base, Size: 16 * mib}, {Name: "disk1", Size: 4 * mib}},
		Image: func(t *testing.T, f vmm.Files, i int) []byte { return image(t, cfg, f, i) },
		Check: func(t *testing.T, _ vmm.Spec, f vmm.Files) error {
			return checkCounter(image(t, cfg, f, 0))
		},
		LetGo:    func(d vmm.Driver) { d.(*Driver).Close() },
		Deadline: 60 * time.Second,
	}.Run(t)
}

// image reads a disk with qemu-img.
func image(t *testing.T, cfg Config, f vmm.Files, i int) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "image.raw")
	p, err := resolve(f)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := exec.Command(cfg.ImgBinary, "convert", "-U", "-O", "raw", p.overlay(f.Disks[i].Name), out).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img: %v: %s", err, b)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// checkCounter finds the newest block and expects each of the 63 before it: the
// counts, one after the other, each in its place.
func checkCounter(disk []byte) error {
	block := func(i int) []byte { return disk[mib+i*4096 : mib+(i+1)*4096] }
	newest := -1
	for i := range 64 {
		b := block(i)
		n := int(binary.LittleEndian.Uint32(b))
		for w := 4; w < len(b); w += 4 {
			if got := int(binary.LittleEndian.Uint32(b[w:])); got != n {
				return fmt.Errorf("block %d is torn: it holds %d and %d", i, n, got)
			}
		}
		if n%64 != i && n != 0 {
			return fmt.Errorf("block %d holds the count %d", i, n)
		}
		newest = max(newest, n)
	}
	for n := max(0, newest-63); n <= newest; n++ {
		if got := int(binary.LittleEndian.Uint32(block(n % 64))); got != n {
			return fmt.Errorf("block %d holds %d, not %d; the newest is %d", n%64, got, n, newest)
		}
	}
	return nil
}

func TestProbeWithoutQEMUSaysWhatToInstall(t *testing.T) {
	c := New(Config{Binary: filepath.Join(t.TempDir(), "none")}).Probe(t.Context())
	if c.Available || c.CanMigrate || !strings.Contains(c.Why, "apt-get install qemu-system-x86") || strings.Contains(c.Why, "\n") {
		t.Errorf("got %+v", c)
	}
}
