package guest

import (
	"golang.org/x/sys/unix"
)

// bell rings when something in a folder changes, by inotify. Where that cannot
// be had, or the folder is not there yet, it rings every 2 ms.
type bell struct {
	fd     int // of inotify, or -1
	dir    string
	placed bool
}

func newBell(dir string) *bell {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		fd = -1
	}
	b := &bell{fd: fd, dir: dir}
	b.place()
	return b
}

func (b *bell) place() {
	if b.fd >= 0 && !b.placed {
		_, err := unix.InotifyAddWatch(b.fd, b.dir, unix.IN_MODIFY|unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_DELETE_SELF)
		b.placed = err == nil
	}
}

// wait returns when the bell rings, or after 50 ms so that the caller can look
// whether it should go on; pause is for a caller that has trouble.
func (b *bell) wait(pause bool) {
	if pause {
		_, _ = unix.Poll(nil, 50)
		return
	}
	if !b.placed {
		_, _ = unix.Poll(nil, 2)
		b.place()
		return
	}
	n, _ := unix.Poll([]unix.PollFd{{Fd: int32(b.fd), Events: unix.POLLIN}}, 50)
	if n <= 0 {
		return
	}
	var events [16 << 10]byte
	n, err := unix.Read(b.fd, events[:])
	if err == nil && folderGone(events[:n]) {
		b.placed = false
	}
}

// folderGone: does an event say that the folder itself was removed?
func folderGone(events []byte) bool {
	const head = unix.SizeofInotifyEvent // descriptor, mask, cookie, length of the name that follows
	for len(events) >= head {
		mask := uint32(events[4]) | uint32(events[5])<<8 | uint32(events[6])<<16 | uint32(events[7])<<24
		name := int(uint32(events[12]) | uint32(events[13])<<8 | uint32(events[14])<<16 | uint32(events[15])<<24)
		if mask&(unix.IN_DELETE_SELF|unix.IN_IGNORED) != 0 {
			return true
		}
		events = events[min(head+name, len(events)):]
	}
	return false
}

func (b *bell) close() {
	if b.fd >= 0 {
		unix.Close(b.fd)
	}
}
