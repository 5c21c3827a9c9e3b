package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/dcnode/dcnode/vmm/fence"
	"golang.org/x/sys/unix"
)

// process is a QEMU process held by a pidfd: it can be signalled and awaited
// without fear that its number has passed to another.
type process struct {
	pid  int
	fd   *os.File
	done chan struct{} // closed when it has ended
}

// hold takes hold of a process. The caller makes sure that pid is still the one meant.
func hold(pid int) (*process, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("hold process %d: %w", pid, err)
	}
	return &process{pid: pid, fd: os.NewFile(uintptr(fd), "pidfd"), done: make(chan struct{})}, nil
}

// watch closes done when the process has ended or release was called.
func (p *process) watch() (ended bool) {
	defer close(p.done)
	raw, err := p.fd.SyscallConn()
	if err != nil {
		return false
	}
	err = raw.Read(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		return err == nil && n > 0
	})
	return err == nil
}

// release lets go; the process lives on.
func (p *process) release() { p.fd.Close() }

func (p *process) kill() error { return p.signal(unix.SIGKILL) }

// signal sends a signal; a process that has ended is no error.
func (p *process) signal(s syscall.Signal) error {
	raw, err := p.fd.SyscallConn()
	if err != nil {
		return err
	}
	var kerr error
	if err := raw.Control(func(fd uintptr) { kerr = unix.PidfdSendSignal(int(fd), s, nil, 0) }); err != nil {
		return err
	}
	if errors.Is(kerr, unix.ESRCH) {
		return nil
	}
	return kerr
}

// peer is the process that listens at a unix socket: the kernel's word, not its own.
func peer(conn net.Conn) (int, error) {
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return 0, errors.New("not a unix socket")
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var cerr error
	if err := raw.Control(func(fd uintptr) { cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return 0, err
	}
	if cerr != nil {
		return 0, cerr
	}
	return int(cred.Pid), nil
}

// stamp says which process a number meant: the boot and the time it started.
func stamp(pid int) (string, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 20 {
		return "", fmt.Errorf("read /proc/%d/stat: too short", pid)
	}
	return fmt.Sprintf("%d %s %s\n", pid, fields[19], strings.TrimSpace(string(boot))), nil // field 22: starttime
}

// holdByFile takes hold of the process that the pid file names, if it is still that one.
func holdByFile(path string) (*process, error) {
	was, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	word, _, _ := strings.Cut(string(was), " ")
	pid, err := strconv.Atoi(word)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	p, err := hold(pid)
	if err != nil {
		return nil, err
	}
	if is, err := stamp(pid); err != nil || is != string(was) {
		p.release()
		return nil, fmt.Errorf("process %d is another one by now: %w", pid, os.ErrProcessDone)
	}
	return p, nil
}

// spawn starts QEMU in its own session, its output appended to the log, and its guard
// if it is to have one. It returns a channel that is closed when the process has been
// reaped.
func spawn(binary string, args []string, logPath string, guard *fence.Fence) (*exec.Cmd, <-chan struct{}, error) {
	log, err := os.OpenFile(logPath, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("open log: %w", err)
	}
	defer log.Close()
	fmt.Fprintf(log, "dcnode: %s %s\n", binary, strings.Join(args, " "))
	cmd := exec.Command(binary, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if guard != nil {
		cmd.ExtraFiles = []*os.File{guard.Tie()}
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("start %s: %w", binary, err)
	}
	if guard != nil {
		if err := guard.Guard(cmd.Process.Pid, log); err != nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			return nil, nil, err
		}
	}
	reaped := make(chan struct{})
	go func() {
		defer close(reaped)
		_ = cmd.Wait() // its last words are in the log
	}()
	return cmd, reaped, nil
}

// lastWords are the last lines, three at most, that QEMU wrote to its log after
// offset from: the cause often stands before the consequence.
func lastWords(path string, from int64) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	const most, lines = 8 << 10, 3
	if st, err := f.Stat(); err == nil {
		from = max(from, st.Size()-most)
	}
	b, _ := io.ReadAll(io.NewSectionReader(f, from, most))
	var words []string
	for l := range strings.Lines(string(b)) {
		if l = strings.TrimSpace(l); l != "" && !strings.HasPrefix(l, "dcnode: ") {
			words = append(words, strings.TrimPrefix(l, "qemu-system-x86_64: "))
		}
	}
	return strings.Join(words[max(0, len(words)-lines):], "; ")
}

func size(path string) int64 {
	st, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return st.Size()
}

// waitEnd waits at most d for c to be closed.
func waitEnd(ctx context.Context, c <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-c:
		return true
	case <-t.C:
	case <-ctx.Done():
	}
	return false
}
