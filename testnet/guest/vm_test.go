package guest

import (
	"context"
	"encoding/json"
	"flag"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dcnode/dcnode/scripts"
)

var vm = flag.Bool("vm", false, "also run the tests that boot machines")

// TestGuestBootsTicksChecksAndPowersOff makes QEMU and a guest ready and runs it,
// emulated. It needs Debian's packages the first time, and half a minute.
func TestGuestBootsTicksChecksAndPowersOff(t *testing.T) {
	if !*vm {
		t.Skip("SKIPPED: boots a machine; run with -vm")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	bin, err := scripts.QEMU(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	workload := filepath.Join(t.TempDir(), "dcnode-guest")
	build := exec.CommandContext(ctx, "go", "build", "-ldflags", "-s -w", "-o", workload, "./workload")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the workload: %v: %s", err, out)
	}
	g, err := Prepare(ctx, Options{Workload: workload})
	if err != nil {
		t.Fatal(err)
	}

	dir := t.TempDir()
	overlay, console := filepath.Join(dir, "disk.qcow2"), filepath.Join(dir, "console.log")
	if out, err := exec.CommandContext(ctx, filepath.Join(bin, "qemu-img"), "create", "-f", "qcow2",
		"-b", g.Disk, "-F", "raw", overlay).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img: %v: %s", err, out)
	}
	lines := Watch(ctx, console)
	start := time.Now()
	qemu := exec.CommandContext(ctx, filepath.Join(bin, "qemu-system-x86_64"), "-machine", "q35", "-accel", "tcg,thread=multi",
		"-cpu", "max", "-m", "256", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-kernel", g.Kernel, "-initrd", g.Initrd, "-append", g.Append,
		"-drive", "file="+overlay+",if=none,id=disk0,format=qcow2", "-device", "virtio-blk-pci,drive=disk0",
		"-serial", "file:"+console, "-qmp", "unix:"+filepath.Join(dir, "qmp")+",server=on,wait=off")
	var said strings.Builder
	qemu.Stderr = &said
	if err := qemu.Start(); err != nil {
		t.Fatal(err)
	}
	defer qemu.Process.Kill()

	var seen []Tick
	checks, ready := 0, false
	for checks < 4 || len(seen) < 200 {
		line, open := <-lines
		switch {
		case !open:
			t.Fatalf("%d ticks, %d checks, ready %v before time was up; QEMU says %q", len(seen), checks, ready, said.String())
		case line.Kind == CheckFail, line.Kind == Panic:
			t.Fatal(line.Text)
		case line.Kind == TickLine:
			seen = append(seen, Tick{line.N, line.At})
		case line.Kind == CheckOK:
			checks++
		case line.Kind == Ready:
			ready = true
			t.Logf("ready after %v", time.Since(start).Round(10*time.Millisecond))
		}
	}
	c := Compare(seen, nil)
	t.Log(c)
	if !ready || !c.Whole() {
		t.Errorf("ready %v, ticks not whole: %v", ready, c)
	}
	pressPowerButton(t, filepath.Join(dir, "qmp"))
	if err := qemu.Wait(); err != nil {
		t.Errorf("the power button did not end the machine well: %v: %s", err, said.String())
	}
}

func pressPowerButton(t *testing.T, socket string) {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	for _, command := range []string{"qmp_capabilities", "system_powerdown"} {
		if err := json.NewEncoder(conn).Encode(map[string]string{"execute": command}); err != nil {
			t.Fatal(err)
		}
	}
	go io.Copy(io.Discard, conn)
}
