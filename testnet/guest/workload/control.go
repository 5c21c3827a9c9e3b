package main

import (
	"bufio"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// obey reads commands; asked has room for one request.
func obey(in io.Reader, asked chan<- struct{}) {
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		switch strings.TrimSpace(lines.Text()) {
		case "check":
			select {
			case asked <- struct{}{}:
			default:
			}
		case "poweroff":
			powerOff()
		}
	}
}

// quiet keeps the console from repeating what it reads and from adding carriage returns.
func quiet() {
	fd := int(os.Stdin.Fd())
	if t, err := unix.IoctlGetTermios(fd, unix.TCGETS); err == nil {
		t.Lflag &^= unix.ECHO
		t.Oflag &^= unix.OPOST
		_ = unix.IoctlSetTermios(fd, unix.TCSETS, t)
	}
}

// watchPowerButton ends the machine politely when its power button is pressed.
// The button is one of the input devices, whose drivers init has loaded.
func watchPowerButton() {
	devices, _ := filepath.Glob("/dev/input/event*")
	for _, device := range devices {
		if f, err := os.Open(device); err == nil {
			go waitForPowerKey(f)
		}
	}
}

func waitForPowerKey(f *os.File) {
	const keyEvent, powerKey = 1, 116 // linux/input-event-codes.h
	var event struct {
		Seconds, Microseconds int64
		Type, Code            uint16
		Value                 int32
	}
	for binary.Read(f, binary.LittleEndian, &event) == nil {
		if event.Type == keyEvent && event.Code == powerKey && event.Value == 1 {
			powerOff()
		}
	}
}

// powerOff ends the machine, if this is one: what is outside of one stays.
func powerOff() {
	if os.Getpid() != 1 {
		os.Exit(0)
	}
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}
