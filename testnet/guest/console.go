package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Kind says what a line of the console is about.
type Kind int

// The kinds of lines.
const (
	Other     Kind = iota // the kernel's words, or init's
	TickLine              // tick N, from the guest or from package memvm's machine
	CheckOK               // memory and disk are as they should be
	CheckFail             // they are not: Text says what
	Ready                 // the workload is at work, and its first check was good
	Panic                 // the kernel is dead
)

// Line is a line of a guest's console and when it could be read.
type Line struct {
	At   time.Duration // CLOCK_MONOTONIC of this host, the same for all consoles
	Kind Kind
	Text string // without the line's end
	N    uint64 // of a tick its number, of a good check its gen: writes since the start
}

// Tick is a tick and when it was seen, on the clock of [Line].
type Tick struct {
	N  uint64
	At time.Duration
}

// Parse reads one line, without its time.
func Parse(text string) Line {
	line := Line{Text: strings.TrimRight(text, "\r\n")}
	if rest, ok := strings.CutPrefix(line.Text, "tick "); ok {
		number, _, _ := strings.Cut(rest, " ")
		if n, err := strconv.ParseUint(number, 10, 64); err == nil {
			line.Kind, line.N = TickLine, n
		}
		return line
	}
	switch {
	case strings.HasPrefix(line.Text, "check ok "):
		line.Kind = CheckOK
		for field := range strings.FieldsSeq(line.Text) {
			if number, ok := strings.CutPrefix(field, "gen="); ok {
				line.N, _ = strconv.ParseUint(number, 10, 64)
			}
		}
	case strings.HasPrefix(line.Text, "check FAIL"):
		line.Kind = CheckFail
	case strings.HasPrefix(line.Text, "ready "):
		line.Kind = Ready
	case strings.Contains(line.Text, "Kernel panic"):
		line.Kind = Panic
	}
	return line
}

// Console is a guest's console as one file shows it. The zero value reads from
// the file's beginning.
type Console struct {
	Path string

	file *os.File
	rest []byte // the beginning of a line whose end is not there yet
}

// maxLine bounds a line, in bytes; longer ones are cut. What runs on a serial
// port can print anything.
const maxLine = 4096

// Poll returns the lines that appeared since the call before. A file that is not
// there yet has no lines; one that was cut short or replaced is read from its
// beginning.
func (c *Console) Poll() ([]Line, error) {
	if err := c.open(); err != nil || c.file == nil {
		return nil, err
	}
	var lines []Line
	buffer := make([]byte, 32<<10)
	for {
		n, err := c.file.Read(buffer)
		if n > 0 {
			lines = append(lines, c.split(buffer[:n], monotonic())...)
		}
		if err == io.EOF {
			return lines, nil
		}
		if err != nil {
			return lines, fmt.Errorf("read console: %w", err)
		}
	}
}

// Close ends the reading. The file stays.
func (c *Console) Close() {
	if c.file != nil {
		c.file.Close()
		c.file = nil
	}
}

// open opens the file, again if another one has taken its place.
func (c *Console) open() error {
	there, err := os.Stat(c.Path)
	if errors.Is(err, os.ErrNotExist) {
		return nil // what was open is read to its end
	}
	if err != nil {
		return fmt.Errorf("find console: %w", err)
	}
	if c.file != nil {
		have, err := c.file.Stat()
		if err != nil {
			return fmt.Errorf("read console: %w", err)
		}
		at, err := c.file.Seek(0, io.SeekCurrent)
		if err != nil {
			return fmt.Errorf("read console: %w", err)
		}
		if os.SameFile(have, there) && there.Size() >= at {
			return nil
		}
		c.Close()
	}
	c.rest = nil
	if c.file, err = os.Open(c.Path); err != nil {
		c.file = nil
		return fmt.Errorf("open console: %w", err)
	}
	return nil
}

// split takes the whole lines out of what was read.
func (c *Console) split(p []byte, at time.Duration) []Line {
	var lines []Line
	for {
		head, tail, found := bytes.Cut(p, []byte("\n"))
		if len(c.rest)+len(head) <= maxLine {
			c.rest = append(c.rest, head...)
		}
		if !found {
			return lines
		}
		line := Parse(string(c.rest))
		line.At = at
		lines = append(lines, line)
		c.rest = c.rest[:0]
		p = tail
	}
}

// Watch follows the console in the file at path until ctx ends; then the channel
// is closed. The file may appear later, and it may be replaced. Lines that are
// there already get the time of the call. A line is stamped within about a
// millisecond of its being written, more on a busy host. The channel holds 1024
// lines; a reader that is slower delays only itself.
func Watch(ctx context.Context, path string) <-chan Line {
	lines := make(chan Line, 1024)
	go func() {
		defer close(lines)
		console := &Console{Path: path}
		defer console.Close()
		bell := newBell(filepath.Dir(path))
		defer bell.close()
		for ctx.Err() == nil {
			found, err := console.Poll()
			if err != nil {
				found = append(found, Line{At: monotonic(), Text: err.Error()})
				console.Close()
			}
			for _, line := range found {
				select {
				case lines <- line:
				case <-ctx.Done():
					return
				}
			}
			bell.wait(err != nil)
		}
	}()
	return lines
}

// monotonic is this host's CLOCK_MONOTONIC.
func monotonic() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic("guest: no monotonic clock: " + err.Error())
	}
	return time.Duration(t.Nano())
}
