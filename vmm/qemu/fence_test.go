package qemu

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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
