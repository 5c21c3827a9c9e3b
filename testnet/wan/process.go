package wan

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// markName is the environment variable that says to which Network a process
// belongs, as PID-NAMESPACE.PID.START-TIME of the process that has the Network.
const markName = "DCNODE_WAN"

// Enter calls do on a thread that is at the site: sockets that it opens, and
// processes that it starts, are there. It must not leave that to other goroutines.
func (n *Network) Enter(site string, do func() error) error {
	i, err := n.index(site)
	if err != nil {
		return err
	}
	return n.sites[i].enter(do)
}

// Start starts a command at the site.
func (n *Network) Start(site string, cmd *exec.Cmd) error {
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env, n.mark)
	return n.Enter(site, cmd.Start)
}

// Command is exec.CommandContext for a program that runs at the site, however
// and whenever the command is started. It needs the program nsenter (util-linux).
func (n *Network) Command(ctx context.Context, site, name string, args ...string) (*exec.Cmd, error) {
	i, err := n.index(site)
	if err != nil {
		return nil, err
	}
	space := n.sites[i].path()
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + space, "--", name}, args...)...)
	cmd.Env = append(os.Environ(), n.mark)
	return cmd, cmd.Err
}

// Path is where a person finds the site's namespace while this process lives:
//
//	nsenter --net=PATH ping 10.77.0.2
func (n *Network) Path(site string) (string, error) {
	i, err := n.index(site)
	if err != nil {
		return "", err
	}
	return n.sites[i].path(), nil
}

func (s *site) path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), s.space.Fd()) }

func newMark() string {
	return fmt.Sprintf("%s=%s.%d.%s", markName, pidNamespace(), os.Getpid(), startTime(os.Getpid()))
}

// orphaned: does a process belong to a Network whose process is gone?
func orphaned(environment []byte) bool {
	for variable := range bytes.SplitSeq(environment, []byte{0}) {
		value, ok := bytes.CutPrefix(variable, []byte(markName+"="))
		if !ok {
			continue
		}
		part := strings.Split(string(value), ".")
		if len(part) != 3 || part[0] != pidNamespace() {
			return false // of a container, perhaps: its numbers are not ours
		}
		owner, err := strconv.Atoi(part[1])
		return err == nil && startTime(owner) != part[2]
	}
	return false
}

// pidNamespace names the namespace in which this process's number counts.
func pidNamespace() string {
	name, _ := os.Readlink("/proc/self/ns/pid")
	return strings.Trim(name, "pid:[]")
}

// startTime is when a process started, in clock ticks since boot, or "" if there
// is none (proc_pid_stat(5), field 22; the name in field 2 may hold anything).
func startTime(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return ""
	}
	return fields[19]
}

// endOrphans kills the processes of Networks that are gone, and counts them.
func endOrphans() int {
	ended, _ := end(func(dir string) bool {
		environment, err := os.ReadFile(filepath.Join(dir, "environ"))
		return err == nil && orphaned(environment)
	})
	return ended
}

// endProcesses kills the processes that are at the sites.
func (n *Network) endProcesses() error {
	here := map[[2]uint64]bool{}
	for _, s := range n.sites {
		if id, err := identity(fmt.Sprintf("/proc/self/fd/%d", s.space.Fd())); err == nil {
			here[id] = true
		}
	}
	ended, err := end(func(dir string) bool {
		id, err := identity(filepath.Join(dir, "ns", "net"))
		return err == nil && here[id]
	})
	if ended > 0 {
		n.config.Log.Info("ended processes that were still at the sites", "processes", ended)
	}
	return err
}

// identity is what makes two paths the same namespace.
func identity(path string) ([2]uint64, error) {
	var s unix.Stat_t
	err := unix.Stat(path, &s)
	return [2]uint64{s.Dev, s.Ino}, err
}

// end kills the processes that match, except this one, and waits until they have
// ended. It looks again until there is none, for they may be starting others.
func end(match func(dir string) bool) (int, error) {
	ended := 0
	for range 10 {
		dirs, err := filepath.Glob("/proc/[0-9]*")
		if err != nil {
			return ended, err
		}
		found := 0
		for _, dir := range dirs {
			pid, err := strconv.Atoi(filepath.Base(dir))
			if err != nil || pid == os.Getpid() || !match(dir) {
				continue
			}
			found++
			if err := kill(pid, func() bool { return match(dir) }); err != nil {
				return ended, err
			}
		}
		if found == 0 {
			return ended, nil
		}
		ended += found
	}
	return ended, errors.New("end processes: new ones kept appearing; remedy: find who starts them")
}

// kill kills a process and waits for it to end. It holds on to the process
// before it looks a last time, so that it cannot hit another of the same number.
func kill(pid int, match func() bool) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil // it has ended
	}
	defer unix.Close(fd)
	if !match() {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("end process %d: %w", pid, err)
	}
	deadline := time.Now().Add(5 * time.Second)
	for time.Now().Before(deadline) {
		if ready, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 1000); ready > 0 {
			return nil
		}
	}
	return fmt.Errorf("process %d does not end; remedy: see what it waits for in /proc/%d/stack", pid, pid)
}
