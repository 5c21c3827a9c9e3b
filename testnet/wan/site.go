package wan

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// site is a network namespace and the TUN device in it.
type site struct {
	name    string
	address netip.Prefix
	space   *os.File // the namespace
	tun     int      // the device, non-blocking; each read and write is a virtio header and a packet
}

// deviceName is the device's name in each namespace.
const deviceName = "wan0"

// headerSize is the size of struct virtio_net_hdr, in bytes.
const headerSize = 10

// Available says why networks cannot be made here, and what to do about it.
func Available() error {
	_, err := os.Stat("/dev/net/tun")
	if err == nil {
		err = inNewNamespace(func() error {
			tun, err := openTUN()
			if err == nil {
				unix.Close(tun)
			}
			return err
		})
	}
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("emulate a network: %w; remedy: modprobe tun, or give the container --device /dev/net/tun", err)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("emulate a network: %w; remedy: run as root, in a container with --cap-add NET_ADMIN --cap-add SYS_ADMIN", err)
	case err != nil:
		return fmt.Errorf("emulate a network: %w; remedy: use a Linux with network namespaces and TUN devices", err)
	}
	return nil
}

// newSite makes a namespace with a device of that address. TCP in it may keep
// as many bytes under way as window says.
func newSite(name string, address netip.Prefix, mtu int, window int64) (*site, error) {
	s := &site{name: name, address: address, tun: -1}
	err := inNewNamespace(func() error {
		var err error
		if s.space, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		// The sites speak IPv4; a device that solicits routers is noise.
		_ = os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0o644)
		for _, which := range []string{"tcp_rmem", "tcp_wmem"} {
			// Where this is not allowed, TCP is as fast as the host's limits let it.
			_ = raiseLimit("/proc/sys/net/ipv4/"+which, window)
		}
		if s.tun, err = openTUN(); err != nil {
			return err
		}
		return configure(address, mtu)
	})
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *site) close() {
	if s.tun >= 0 {
		unix.Close(s.tun)
	}
	if s.space != nil {
		s.space.Close()
	}
}

// inNewNamespace calls do on a thread that is in a network namespace of its own
// for that long.
func inNewNamespace(do func() error) error {
	return onOwnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		return do()
	})
}

// enter calls do on a thread that is in the site's namespace for that long.
func (s *site) enter(do func() error) error {
	return onOwnThread(func() error {
		if err := unix.Setns(int(s.space.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter site %s: %w", s.name, err)
		}
		return do()
	})
}

// onOwnThread calls do on a thread that no other goroutine uses meanwhile and
// brings it back to the namespace it came from.
func onOwnThread(do func() error) error {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer home.Close()
	err = do()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		// The thread stays locked and ends with its goroutine: it is no use to others.
		return errors.Join(err, fmt.Errorf("leave a network namespace: %w", back))
	}
	runtime.UnlockOSThread()
	return err
}

// openTUN makes the device in the thread's namespace (Linux,
// Documentation/networking/tuntap.rst).
func openTUN() (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	request, err := unix.NewIfreq(deviceName)
	if err == nil {
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("make a TUN device: %w", err)
	}
	return fd, nil
}

// configure gives the devices of the thread's namespace their addresses and
// starts them.
func configure(address netip.Prefix, mtu int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var firstErr error
	set := func(device string, what uint, value func(*unix.Ifreq) error) {
		request, err := unix.NewIfreq(device)
		if err == nil {
			err = value(request)
		}
		if err == nil {
			err = unix.IoctlIfreq(fd, what, request)
		}
		if err != nil && firstErr == nil {
			firstErr = fmt.Errorf("configure %s: %w", device, err)
		}
	}
	up := func(r *unix.Ifreq) error { r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING); return nil }
	ip := address.Addr().As4()
	bits := ^uint32(0) << (32 - address.Bits())
	set("lo", unix.SIOCSIFFLAGS, up)
	set(deviceName, unix.SIOCSIFADDR, func(r *unix.Ifreq) error { return r.SetInet4Addr(ip[:]) })
	set(deviceName, unix.SIOCSIFNETMASK, func(r *unix.Ifreq) error {
		return r.SetInet4Addr([]byte{byte(bits >> 24), byte(bits >> 16), byte(bits >> 8), byte(bits)})
	})
	set(deviceName, unix.SIOCSIFMTU, func(r *unix.Ifreq) error { r.SetUint32(uint32(mtu)); return nil })
	set(deviceName, unix.SIOCSIFTXQLEN, func(r *unix.Ifreq) error { r.SetUint32(2000); return nil })
	set(deviceName, unix.SIOCSIFFLAGS, up)
	return firstErr
}

// raiseLimit raises the last of three numbers, the maximum, of a TCP setting.
func raiseLimit(path string, limit int64) error {
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	fields := strings.Fields(string(old))
	if len(fields) != 3 {
		return fmt.Errorf("%s is %q", path, old)
	}
	if have, err := strconv.ParseInt(fields[2], 10, 64); err != nil || have >= limit {
		return err
	}
	fields[2] = strconv.FormatInt(min(limit, 1<<30), 10)
	return os.WriteFile(path, []byte(strings.Join(fields, " ")), 0o644)
}

// offload asks the kernel for large TCP units, or for single packets while a
// link loses packets: losing a unit would lose a burst.
func (n *Network) offload() error {
	n.lock.Lock()
	defer n.lock.Unlock()
	flags := unix.TUN_F_CSUM | unix.TUN_F_TSO4
	for _, row := range n.path.links {
		for _, l := range row {
			if l.Loss > 0 {
				flags = 0
			}
		}
	}
	for _, s := range n.sites {
		if err := unix.IoctlSetInt(s.tun, unix.TUNSETOFFLOAD, flags); err != nil {
			return fmt.Errorf("set up the device of site %s: %w", s.name, err)
		}
	}
	return nil
}
