package fence

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	guardName = "dcnode-fence"
	wordArm   = "arm"
	wordLift  = "lift"
	wordDone  = "done"
	maxWords  = 256
)

// What the guard inherits.
const (
	fdProcess = 3 + iota // pidfd of the process
	fdTie                // the process's end of the pair
	fdOurs               // our end: held, never used
	fdListen
)

// The guard is this same program under another name, so that there is one binary
// and a test has it too. It must be caught before anything else begins.
func init() {
	if os.Args[0] != guardName {
		return
	}
	if err := guard(); err != nil {
		fmt.Fprintln(os.Stderr, "dcnode: guard:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// keeper is the state of a guard.
type keeper struct {
	process int // pidfd
	timer   int // timerfd

	mu      sync.Mutex
	stopped bool // by us
	lifted  bool
}

func guard() error {
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGPIPE)
	if len(os.Args) != 3 {
		return errors.New("is started by dcnode only")
	}
	pid, err := strconv.Atoi(os.Args[1])
	if err != nil {
		return err
	}
	if err := unix.Listen(fdListen, 8); err != nil { // again: now the socket is known to be ours
		return fmt.Errorf("listen: %w", err)
	}
	file := os.NewFile(fdListen, "listener")
	ln, err := net.FileListener(file)
	if err != nil {
		return err
	}
	file.Close()
	k := &keeper{process: fdProcess}
	if k.timer, err = unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK); err != nil {
		return fmt.Errorf("make timer: %w", err)
	}
	if _, err := unix.FcntlInt(fdTie, unix.F_SETSIG, int(unix.SIGSTOP)); err != nil {
		return fmt.Errorf("tie: %w", err)
	}
	if _, err := unix.FcntlInt(fdTie, unix.F_SETOWN, pid); err != nil {
		return fmt.Errorf("tie: %w", err)
	}
	// The number is the process's as long as this descriptor says that it lives.
	if ended(fdProcess, 0) {
		return nil
	}
	over := make(chan error, 3)
	go func() { ended(fdProcess, -1); over <- nil }()
	go func() { over <- k.wait() }()
	go func() { over <- k.serve(ln) }()
	return <-over
}

// ended waits for the end of a process: milliseconds, or for ever (-1).
func ended(pidfd int32, wait int) bool {
	fds := []unix.PollFd{{Fd: pidfd, Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, wait)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return n > 0 || err != nil
	}
}

// wait stops the process when the timer says so.
func (k *keeper) wait() error {
	f := os.NewFile(uintptr(k.timer), "timer")
	var b [8]byte
	for {
		if _, err := f.Read(b[:]); err != nil {
			return fmt.Errorf("wait for the time: %w", err)
		}
		k.mu.Lock()
		if !k.lifted {
			if err := unix.PidfdSendSignal(k.process, unix.SIGSTOP, nil, 0); err != nil {
				k.mu.Unlock()
				return fmt.Errorf("stop the process: %w", err)
			}
			k.stopped = true
			fmt.Fprintln(os.Stderr, "dcnode: guard: the machine stands still: it was not confirmed in time")
		}
		k.mu.Unlock()
	}
}

// serve answers until the fence is lifted.
func (k *keeper) serve(ln net.Listener) error {
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		_ = c.SetDeadline(time.Now().Add(answerWithin))
		line, err := bufio.NewReaderSize(c, maxWords).ReadString('\n')
		if err == nil {
			answer := wordDone
			if err := k.heed(strings.Fields(line)); err != nil {
				answer = err.Error()
			}
			fmt.Fprintln(c, answer)
		}
		c.Close()
		if k.lifted { // only heed sets it
			return nil
		}
	}
}

func (k *keeper) heed(words []string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case len(words) == 2 && words[0] == wordArm:
		at, err := strconv.ParseInt(words[1], 10, 64)
		if err != nil {
			return err
		}
		if k.stopped {
			return errors.New("the process stands still already")
		}
		now, err := bootTime()
		if err != nil {
			return err
		}
		if at <= int64(now) { // or it would run until the timer is heard
			return errors.New("the time has passed already")
		}
		if err := tie(unix.O_ASYNC); err != nil {
			return err
		}
		return unix.TimerfdSettime(k.timer, unix.TFD_TIMER_ABSTIME, &unix.ItimerSpec{Value: unix.NsecToTimespec(at)}, nil)
	case len(words) == 1 && words[0] == wordLift:
		if err := tie(0); err != nil {
			return err
		}
		if err := os.Remove(os.Args[2]); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		k.lifted = true
		if k.stopped {
			return unix.PidfdSendSignal(k.process, unix.SIGCONT, nil, 0)
		}
		return nil
	}
	return errors.New("unknown word")
}

// tie sets whether the kernel stops the process when our end is closed.
func tie(async int) error {
	flags, err := unix.FcntlInt(fdTie, unix.F_GETFL, 0)
	if err == nil {
		_, err = unix.FcntlInt(fdTie, unix.F_SETFL, flags&^unix.O_ASYNC|async)
	}
	if err != nil {
		return fmt.Errorf("tie: %w", err)
	}
	return nil
}

// endGuard kills the guard at the other end of a connection, since it does not
// answer, and waits for its end: the process it has tied stands still then.
func endGuard(conn net.Conn) error {
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var cerr error
	if err := raw.Control(func(fd uintptr) { cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return err
	}
	if cerr != nil {
		return fmt.Errorf("ask who the guard is: %w", cerr)
	}
	pidfd, err := unix.PidfdOpen(int(cred.Pid), 0)
	if errors.Is(err, unix.ESRCH) {
		return ErrNoGuard
	}
	if err != nil {
		return fmt.Errorf("hold the guard: %w", err)
	}
	defer unix.Close(pidfd)
	// Before the guard has begun the socket is its parent's.
	if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", cred.Pid)); err != nil || !strings.HasPrefix(string(name), guardName+"\x00") {
		return fmt.Errorf("the guard does not answer within %v", answerWithin)
	}
	if err := unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("end the guard: %w", err)
	}
	if !ended(int32(pidfd), int(answerWithin.Milliseconds())) {
		return fmt.Errorf("the guard, process %d, does not end", cred.Pid)
	}
	return ErrNoGuard
}
