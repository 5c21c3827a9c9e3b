package qemu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/dcnode/dcnode/vmm/qmp"
	"golang.org/x/sys/unix"
)

// monitor is a connected monitor and the connection under it.
type monitor struct {
	*qmp.Client
	conn net.Conn
}

// dial connects to a monitor that listens.
func dial(ctx context.Context, sock string, call time.Duration) (monitor, error) {
	var mon monitor
	unixDial := qmp.Unix(sock)
	mon.Client = qmp.New(qmp.Config{Timeout: call, Dial: func(ctx context.Context) (c net.Conn, err error) {
		mon.conn, err = unixDial(ctx)
		return mon.conn, err
	}})
	return mon, mon.ConnectContext(ctx)
}

// dialNew connects to the monitor of a process that has just been started and may
// not listen yet; ended is closed when there is no hope.
func dialNew(ctx context.Context, sock string, ended <-chan struct{}, call time.Duration) (monitor, error) {
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		c, err := dial(ctx, sock, call)
		if err == nil || !notYet(err) {
			return c, err
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ended:
			t.Stop()
			return c, errors.New("it ended before it could be talked to")
		case <-ctx.Done():
			t.Stop()
			return c, fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
	}
}

// dialBusy connects to the monitor of a process that listens, but whose queue may be
// full of those who asked while it stood still.
func dialBusy(ctx context.Context, sock string, call time.Duration) (monitor, error) {
	for {
		c, err := dial(ctx, sock, call)
		if !errors.Is(err, syscall.EAGAIN) {
			return c, err
		}
		t := time.NewTimer(20 * time.Millisecond)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return c, fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
	}
}

// notYet: the socket is not bound, or bound but not listening.
func notYet(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

func isNoProcess(err error) bool { return errors.Is(err, syscall.ESRCH) }

// holdBySocket takes hold of the process that listens at a monitor socket, also
// when it is too busy to answer.
func holdBySocket(sock string) (*process, error) {
	conn, err := net.DialTimeout("unix", sock, 2*time.Second)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return holdPeer(conn)
}

// holdPeer takes hold of the process at the other end of a connection, the one that
// listened there. If it had ended in between, so that its number may mean another by
// now, the connection would be hung up.
func holdPeer(conn net.Conn) (*process, error) {
	pid, err := peer(conn)
	if err != nil {
		return nil, fmt.Errorf("ask for the peer's process: %w", err)
	}
	p, err := hold(pid)
	if err != nil {
		return nil, err
	}
	if hungUp(conn) {
		p.release()
		return nil, fmt.Errorf("process %d has just ended: %w", pid, os.ErrProcessDone)
	}
	return p, nil
}

func hungUp(conn net.Conn) bool {
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return true
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return true
	}
	up := false
	err = raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd)}}
		_, perr := unix.Poll(fds, 0)
		up = perr == nil && fds[0].Revents&(unix.POLLHUP|unix.POLLERR) == 0
	})
	return err != nil || !up
}
