package qemu

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dcnode/dcnode/vmm"
	"github.com/dcnode/dcnode/vmm/fence"
)

// A stop that the kernel has only just sent shows in no state of the process yet.
func TestStopThatIsOnItsWayIsTakenBackToo(t *testing.T) {
	dir := t.TempDir()
	p := paths{dir: dir, sock: dir}
	cmd := exec.Command("sh", "-c", "while :; do :; done")
	must(t, cmd.Start())
	pid := cmd.Process.Pid
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	s, err := stamp(pid)
	must(t, err)
	must(t, os.WriteFile(p.pid(), []byte(s), 0o600))
	for range 100 {
		must(t, unix.Kill(pid, unix.SIGSTOP))
		must(t, p.goOn())
		time.Sleep(time.Millisecond) // for it to heed what it was sent, if it still does
		still, err := fence.Stopped(pid)
		must(t, err)
		if still {
			t.Fatal("it stands still, and nobody will let it run on")
		}
	}
}

func TestMachineThatDoesNotStartLeavesNoSocket(t *testing.T) {
	dir := t.TempDir()
	p := paths{dir: dir, sock: filepath.Join(dir, "s")}
	must(t, p.ready())
	guard, err := fence.New(p.fence())
	must(t, err)
	defer guard.Close()
	m := newMachine(testSpec(), vmm.Files{Dir: dir}, p, New(Config{}).cfg)
	if err := m.start(t.Context(), filepath.Join(dir, "none"), nil, guard); err == nil {
		t.Fatal("nothing was started")
	}
	if _, err := os.Stat(p.sock); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its sockets are left: %v", err)
	}
}
