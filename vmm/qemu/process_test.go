package qemu

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dcnode/dcnode/vmm"
)

// sleeper is a process that has nothing to do with QEMU.
func sleeper(t *testing.T) (*exec.Cmd, <-chan struct{}) {
	t.Helper()
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); cmd.Wait() }()
	t.Cleanup(func() { cmd.Process.Kill(); <-ended })
	return cmd, ended
}

func TestReusedProcessIDIsNotKilled(t *testing.T) {
	cmd, ended := sleeper(t)
	f := vmm.Files{Dir: t.TempDir()}
	now, err := stamp(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(now)
	d := New(Config{})
	for _, old := range []string{
		fields[0] + " 1 " + fields[2] + "\n",                                    // started at another time
		fields[0] + " " + fields[1] + " 00000000-0000-0000-0000-000000000000\n", // of another boot
	} {
		pid := filepath.Join(f.Dir, "qemu.pid")
		if err := os.WriteFile(pid, []byte(old), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := d.Discard(t.Context(), testSpec(), f); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(pid); err == nil {
			t.Error("stale pid file is still there")
		}
	}
	if cmd.Process.Signal(syscall.Signal(0)) != nil {
		t.Error("a stranger was killed")
	}
	if err := os.WriteFile(filepath.Join(f.Dir, "qemu.pid"), []byte(now), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.Discard(t.Context(), testSpec(), f); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Error("the process that the pid file really names lives on")
	}
}

func TestSocketsFitWhateverTheDirectory(t *testing.T) {
	long := filepath.Join(t.TempDir(), strings.Repeat("a-very-long-name/", 10))
	for _, dir := range []string{"/var/lib/dcnode/vm/web1", long} {
		p, err := resolve(vmm.Files{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		for _, sock := range []string{p.qmp(), p.nbd(), p.fence()} {
			if len(sock) > 107 {
				t.Errorf("socket path %s has %d bytes", sock, len(sock))
			}
		}
	}
}

func TestSocketDirectoryOfAnotherIsRefused(t *testing.T) {
	p := paths{dir: "/x", sock: filepath.Join(t.TempDir(), "s")}
	if err := os.Mkdir(p.sock, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := p.ready(); err == nil {
		t.Error("used a directory that others may enter")
	}
	os.Remove(p.sock)
	if err := os.Symlink(t.TempDir(), p.sock); err != nil {
		t.Fatal(err)
	}
	if err := p.ready(); err == nil {
		t.Error("followed a link that was there before")
	}
}

func TestCommandLineSaysTheSameAtEverySite(t *testing.T) {
	s := testSpec()
	s.MachineType, s.CPU, s.Accelerator = "pc-q35-9.2", "max", "tcg"
	f := vmm.Files{Dir: "/a", Disks: []vmm.Disk{{Name: "disk0", Base: "/base,1.raw", Size: mib}}}
	line := func(dir string, incoming bool) string {
		args, err := commandLine(s, f, paths{dir: dir, sock: dir}, true, incoming)
		if err != nil {
			t.Fatal(err)
		}
		return strings.ReplaceAll(strings.Join(args, " "), dir+"/", "")
	}
	src, dst := line("/a,b", false), line("/dst", true)
	if want := strings.ReplaceAll(src, "/a,,b/", "") + " -incoming defer"; dst != want {
		t.Errorf("source      %s\ndestination %s", src, dst)
	}
	for _, want := range []string{"path=/a,,b/console.log", `"filename":"/base,1.raw"`, "-sandbox on", "-S"} {
		if !strings.Contains(src, want) {
			t.Errorf("no %s in %s", want, src)
		}
	}
}

func TestOldQEMUWithoutKVMRefusesToMigrate(t *testing.T) {
	for _, c := range []struct {
		major int
		kvm   bool
		may   bool
	}{{7, false, false}, {8, false, false}, {9, false, true}, {10, false, true}, {7, true, true}} {
		if why := stuck("x", c.major, c.kvm); (why == "") != c.may {
			t.Errorf("QEMU %d, KVM %v: %q", c.major, c.kvm, why)
		}
	}
}
