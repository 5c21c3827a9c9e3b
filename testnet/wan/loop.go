package wan

import (
	"context"
	"encoding/binary"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

const (
	burst     = 64      // packets read from one site before others get a turn
	maxUnit   = 1 << 16 // bytes of the largest unit
	patience  = 40 * time.Microsecond
	lookAfter = time.Second // how long the loop sleeps when nothing is under way
)

// loop carries packets until ctx ends or the Network is closed. It has a thread
// of its own, ahead of ordinary ones where that is allowed: an emulator that
// waits for the CPU emulates a slower network than it was asked for.
func (n *Network) loop(ctx context.Context) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	first := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Priority: 5}
	if unix.SchedSetAttr(0, &first, 0) == nil {
		usual := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL}
		defer unix.SchedSetAttr(0, &usual, 0)
	} else {
		n.config.Log.Info("no real-time priority: on a busy host the network is slower than asked for")
	}
	waits := make([]unix.PollFd, 0, len(n.sites)+1)
	for _, s := range n.sites {
		waits = append(waits, unix.PollFd{Fd: int32(s.tun), Events: unix.POLLIN})
	}
	waits = append(waits, unix.PollFd{Fd: int32(n.wake), Events: unix.POLLIN})
	c := &carrier{Network: n, unit: make([]byte, headerSize+maxUnit)}
	for !n.over(ctx) {
		timeout := unix.NsecToTimespec(int64(c.idle()))
		if _, err := unix.Ppoll(waits, &timeout, nil); err != nil && err != unix.EINTR {
			return err
		}
		for i := range n.sites {
			if waits[i].Revents != 0 {
				c.collect(i)
			}
		}
		c.deliver()
	}
	return nil
}

// over: has ctx ended, or the Network been closed?
func (n *Network) over(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return true
	case <-n.closed:
		return true
	default:
		return false
	}
}

// carrier is what the loop's thread needs: room for one unit, and buffers to use again.
type carrier struct {
	*Network
	unit []byte
	free [3][][]byte // buffers by size, see classes
}

// classes are the sizes of buffers: a packet, a unit of a slow link, any unit.
func classes() [3]int { return [3]int{2 << 10, 16 << 10, headerSize + maxUnit} }

// idle is how long the loop may sleep. It is a little longer than the next
// packet's time, so that the ones right after it need no waking of their own.
func (c *carrier) idle() time.Duration {
	c.lock.Lock()
	defer c.lock.Unlock()
	due, ok := c.path.next()
	if !ok {
		return lookAfter
	}
	return max(0, due+patience-clock())
}

// collect takes what a site sends.
func (c *carrier) collect(from int) {
	for range burst {
		size, err := unix.Read(c.sites[from].tun, c.unit)
		if err != nil { // nothing more
			return
		}
		k, ok := c.inspect(c.unit[:size])
		if !ok {
			continue
		}
		k.from = from
		now := clock()
		c.lock.Lock()
		k.data = c.buffer(size)
		copy(k.data, c.unit[:size])
		sent := c.path.send(now, k)
		c.lock.Unlock()
		if !sent {
			c.release(k.data)
		}
	}
}

// deliver writes what has arrived.
func (c *carrier) deliver() {
	for {
		c.lock.Lock()
		k, delivered, ok := c.path.deliver(clock())
		c.lock.Unlock()
		if !ok {
			return
		}
		if delivered {
			// A device that is full or down drops it, as any would.
			_, _ = unix.Write(c.sites[k.to].tun, k.data)
		}
		c.release(k.data)
	}
}

// inspect finds out where a unit goes and what it is on a wire. It is not ok if
// it goes to no site.
func (c *carrier) inspect(unit []byte) (packet, bool) {
	if len(unit) < headerSize+20 || unit[headerSize]>>4 != 4 {
		return packet{}, false
	}
	ip := unit[headerSize:]
	first := c.config.Subnet.Masked().Addr().As4()
	to := int(int64(binary.BigEndian.Uint32(ip[16:20])) - int64(binary.BigEndian.Uint32(first[:])) - 1)
	if to < 0 || to >= len(c.sites) {
		return packet{}, false
	}
	count, wire := segments(unit)
	return packet{to: to, wire: wire, count: count}, true
}

// segments counts the packets that a unit is on a wire and their bytes. The
// header before the unit (virtio 1.2, section 5.1.6) tells how large their
// payloads are; each has the headers of IP and TCP.
func segments(unit []byte) (count, wire int) {
	const typeAt, sizeAt, tcp4 = 1, 4, 1
	ip := unit[headerSize:]
	payload := int(binary.NativeEndian.Uint16(unit[sizeAt:]))
	headers := int(ip[0]&15) * 4
	if unit[typeAt]&0x7f != tcp4 || payload == 0 || len(ip) < headers+20 {
		return 1, len(ip)
	}
	headers += int(ip[headers+12]>>4) * 4
	count = max(1, (len(ip)-headers+payload-1)/payload)
	return count, len(ip) + (count-1)*headers
}

// buffer is a buffer of that size; release gives it back.
func (c *carrier) buffer(size int) []byte {
	for i, class := range classes() {
		if size > class {
			continue
		}
		list := c.free[i]
		if len(list) == 0 {
			return make([]byte, size, class)
		}
		c.free[i] = list[:len(list)-1]
		return list[len(list)-1][:size]
	}
	return make([]byte, size)
}

func (c *carrier) release(p []byte) {
	for i, class := range classes() {
		if cap(p) == class && len(c.free[i]) < 1024 {
			c.free[i] = append(c.free[i], p)
		}
	}
}

// clock is CLOCK_MONOTONIC.
func clock() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic("wan: no monotonic clock: " + err.Error())
	}
	return time.Duration(t.Nano())
}
