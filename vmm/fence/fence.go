// Package fence makes a process stand still at a given time, whatever becomes of
// the one that asked for it.
//
// A machine that has arrived runs before the order has confirmed it. If that does
// not come, it must stand still before another site may run it: also when dcnode
// has been killed, hangs, or was stopped, and QEMU lives on without it. So a small
// process of its own, the guard, waits for the time and stops the machine then
// (SIGSTOP: nothing can refuse it, and nothing is lost by it). The guard can be
// killed too; therefore it holds one end of a socket pair whose other end the
// machine's process inherits, set up so that the kernel stops that process when the
// guard's end is closed. Nobody has to be alive for it.
//
// A fence is armed, and then lifted by whoever knows that the machine may run; a
// machine that stands still by it runs on from there.
package fence

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNoGuard: no guard listens at the socket: there never was one, it was lifted, or
// it was killed. If it was armed then, the process stands still.
var ErrNoGuard = errors.New("no guard is there")

// answerWithin is how long a guard may take for an answer; it has nothing else to do.
const answerWithin = 3 * time.Second

// Fence is a guard that is not started yet. Use [New], let the process inherit
// [Fence.Tie], then call [Fence.Guard]; Close in any case.
type Fence struct {
	sock string
	ln   *os.File
	tie  *os.File // the process's end
	ours *os.File // the guard's end
}

// New makes what a guard needs; it will listen at the path sock.
func New(sock string) (*Fence, error) {
	if err := os.Remove(sock); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("make fence: %w", err)
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: sock, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("make fence: %w", err)
	}
	ln.SetUnlinkOnClose(false)
	defer ln.Close()
	f := &Fence{sock: sock}
	if f.ln, err = ln.File(); err != nil {
		return nil, errors.Join(fmt.Errorf("make fence: %w", err), os.Remove(sock))
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		f.Close()
		return nil, errors.Join(fmt.Errorf("make fence: socket pair: %w", err), os.Remove(sock))
	}
	f.tie, f.ours = os.NewFile(uintptr(fds[0]), "tie"), os.NewFile(uintptr(fds[1]), "guard")
	return f, nil
}

// Tie is the file that the process inherits and leaves open.
func (f *Fence) Tie() *os.File { return f.tie }

// Guard starts the guard of the process pid, which the caller has not reaped yet; what
// the guard has to say goes to log. It ends with the process, whose owner then removes
// the socket, or when it is lifted.
func (f *Fence) Guard(pid int, log *os.File) error {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("guard process %d: %w", pid, err)
	}
	process := os.NewFile(uintptr(pidfd), "pidfd")
	defer process.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{guardName, fmt.Sprint(pid), f.sock}
	cmd.Env = []string{}
	cmd.ExtraFiles = []*os.File{process, f.tie, f.ours, f.ln} // in the order of fdProcess and so on
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the guard of process %d: %w", pid, err)
	}
	go func() { _ = cmd.Wait() }() // it tells nobody how it ended
	return nil
}

// Close lets go of what the guard and the process have by now. The socket stays.
func (f *Fence) Close() {
	for _, c := range []*os.File{f.ln, f.tie, f.ours} {
		if c != nil {
			c.Close()
		}
	}
}

// Arm makes the guard at sock stop its process at a time, by a clock that also counts
// while the host sleeps; a time that has passed is refused. When it returns nil that is
// certain: from here on the process also stands still as soon as the guard ends.
func Arm(ctx context.Context, sock string, at time.Time) error {
	now, err := bootTime()
	if err != nil {
		return err
	}
	return ask(ctx, sock, fmt.Sprintf("%s %d", wordArm, int64(now+time.Until(at))))
}

// Lift ends the guard at sock. A process that it has stopped runs on. ErrNoGuard says
// that the caller has to look after that, with SIGCONT: the stop may not show in [Stopped]
// yet. A guard that does not answer is killed, and then is not there.
func Lift(ctx context.Context, sock string) error {
	return ask(ctx, sock, wordLift)
}

// ask says one line to the guard and waits for its answer.
func ask(ctx context.Context, sock, line string) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", sock)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return ErrNoGuard
	case err != nil:
		return fmt.Errorf("reach the guard: %w", err)
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	answer := ""
	if _, err = fmt.Fprintln(conn, line); err == nil {
		answer, err = bufio.NewReaderSize(conn, maxWords).ReadString('\n')
	}
	switch answer = strings.TrimSpace(answer); {
	case answer == wordDone:
		return nil
	case answer != "":
		return fmt.Errorf("the guard refuses %q: %s", line, answer)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return endGuard(conn)
	}
	return ErrNoGuard // it has just ended
}

// Stopped says whether a process stands still by a signal.
func Stopped(pid int) (bool, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false, err
	}
	_, after, ok := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " ")
	return ok && strings.HasPrefix(after, "T"), nil
}

// bootTime is the clock of the guard.
func bootTime() (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0, fmt.Errorf("read the clock: %w", err)
	}
	return time.Duration(ts.Nano()), nil
}
