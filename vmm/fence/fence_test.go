package fence

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// process is one that says something all the time, and its guard.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	sock string
	said *bufio.Reader
}

func guarded(t *testing.T) *process {
	t.Helper()
	p := &process{t: t, sock: filepath.Join(t.TempDir(), "fence.sock")}
	f, err := New(p.sock)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p.cmd = exec.Command("sh", "-c", "while echo tick; do sleep 0.01; done")
	p.cmd.ExtraFiles = []*os.File{f.Tie()}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.said = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.cmd.Process.Kill(); _, _ = io.Copy(io.Discard, p.said); _ = p.cmd.Wait() })
	if err := f.Guard(p.cmd.Process.Pid, os.Stderr); err != nil {
		t.Fatal(err)
	}
	p.begun()
	return p
}

// begun waits for the guard's first answer, which says that it is tied: on a busy host
// its start may take longer than an answer.
func (p *process) begun() {
	p.t.Helper()
	for end := time.Now().Add(time.Minute); ; {
		err := ask(p.t.Context(), p.sock, "nothing")
		if err != nil && strings.Contains(err.Error(), "unknown word") {
			return
		}
		if time.Now().After(end) {
			p.t.Fatalf("the guard has not begun: %v", err)
		}
	}
}

// until waits for the process to stand still, or not to.
func (p *process) until(stopped bool) {
	p.t.Helper()
	p.untilPid(p.cmd.Process.Pid, stopped)
}

func (p *process) untilPid(pid int, stopped bool) {
	p.t.Helper()
	for end := time.Now().Add(time.Minute); ; {
		is, err := Stopped(pid)
		if err != nil {
			p.t.Fatal(err)
		}
		if is == stopped {
			return
		}
		if time.Now().After(end) {
			p.t.Fatalf("stands still: %v, for a minute", is)
		}
		time.Sleep(time.Millisecond)
	}
}

func (p *process) ticks() {
	p.t.Helper()
	for range 3 {
		if l, err := p.said.ReadString('\n'); err != nil || strings.TrimSpace(l) != "tick" {
			p.t.Fatalf("said %q: %v", l, err)
		}
	}
}

// guard is the number of the guard.
func (p *process) guard() int {
	p.t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		p.t.Fatal(err)
	}
	for _, l := range lines {
		if b, err := os.ReadFile(l); err == nil && strings.HasPrefix(string(b), guardName+"\x00") && strings.Contains(string(b), p.sock) {
			pid := 0
			for _, c := range filepath.Base(filepath.Dir(l)) {
				pid = 10*pid + int(c-'0')
			}
			return pid
		}
	}
	p.t.Fatal("no guard")
	return 0
}

func (p *process) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func TestProcessStandsStillAtTheTimeAndRunsOnWhenLifted(t *testing.T) {
	p := guarded(t)
	p.ticks()
	// On a busy host the time may have passed before the guard hears of it.
	wait := 50 * time.Millisecond
	for Arm(t.Context(), p.sock, time.Now().Add(wait)) != nil {
		if wait *= 2; wait > time.Minute {
			t.Fatal("no time is early enough")
		}
	}
	p.until(true)
	if err := Arm(t.Context(), p.sock, time.Now().Add(time.Hour)); err == nil {
		t.Error("a fence that has fallen was armed anew")
	}
	p.must(Lift(t.Context(), p.sock))
	p.until(false)
	p.ticks()
	if err := Lift(t.Context(), p.sock); !errors.Is(err, ErrNoGuard) {
		t.Errorf("the guard is still there: %v", err)
	}
}

func TestTimeThatHasPassedIsRefused(t *testing.T) {
	p := guarded(t)
	for _, ago := range []time.Duration{0, time.Second, 1000 * time.Hour} {
		if err := Arm(t.Context(), p.sock, time.Now().Add(-ago)); err == nil {
			t.Errorf("armed for %v ago", ago)
		}
	}
	p.until(false)
	p.ticks()
}

func TestLiftedFenceNeverFalls(t *testing.T) {
	p := guarded(t)
	p.must(Arm(t.Context(), p.sock, time.Now().Add(time.Hour)))
	p.must(Lift(t.Context(), p.sock)) // its end is the end of the guard, which lets go of the tie
	p.ticks()
	p.until(false)
}

func TestArmedProcessStandsStillWhenItsGuardIsKilled(t *testing.T) {
	p := guarded(t)
	p.must(Arm(t.Context(), p.sock, time.Now().Add(time.Hour)))
	p.must(unix.Kill(p.guard(), unix.SIGKILL))
	p.until(true)
	if err := Lift(t.Context(), p.sock); !errors.Is(err, ErrNoGuard) {
		t.Errorf("lift: %v, want ErrNoGuard", err)
	}
}

func TestProcessRunsOnWhenAGuardThatWasNotArmedIsKilled(t *testing.T) {
	p := guarded(t)
	pid := p.guard()
	p.must(unix.Kill(pid, unix.SIGKILL))
	for errors.Is(unix.Kill(pid, 0), nil) { // its parent, this test, reaps it
		time.Sleep(time.Millisecond)
	}
	p.ticks()
	p.until(false)
}

func TestGuardThatHangsIsEndedAndTheProcessStandsStill(t *testing.T) {
	p := guarded(t)
	p.must(Arm(t.Context(), p.sock, time.Now().Add(time.Hour)))
	pid := p.guard()
	p.must(unix.Kill(pid, unix.SIGSTOP))
	p.untilPid(pid, true)
	if err := Lift(t.Context(), p.sock); !errors.Is(err, ErrNoGuard) {
		t.Fatalf("lift: %v, want ErrNoGuard", err)
	}
	p.until(true)
}

func TestGuardEndsWithItsProcess(t *testing.T) {
	p := guarded(t)
	p.must(Arm(t.Context(), p.sock, time.Now().Add(time.Hour)))
	p.must(p.cmd.Process.Kill())
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if err := ask(t.Context(), p.sock, "anybody"); errors.Is(err, ErrNoGuard) {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the guard is left")
		}
	}
}

func TestNobodyListens(t *testing.T) {
	sock := filepath.Join(t.TempDir(), "none.sock")
	if err := Arm(t.Context(), sock, time.Now()); !errors.Is(err, ErrNoGuard) {
		t.Errorf("arm: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Lift(ctx, sock); err == nil {
		t.Error("lifted with nobody there")
	}
}
