package guest

import (
	"fmt"
	"io"
)

// cpio writes an archive in the "newc" format, which is what the kernel unpacks
// into its first root file system (Linux, Documentation/driver-api/early-userspace/
// buffer-format.rst): for each file a header of 8-digit hexadecimal fields, the
// name, the content, each padded to 4 bytes; TRAILER!!! at the end. Times are 0
// and inodes count up, so equal content makes equal archives.
type cpio struct {
	w     io.Writer
	inode int
	err   error // the first; later calls do nothing
}

const (
	modeDir  = 0o040755
	modeFile = 0o100644
	modeProg = 0o100755
)

// add writes one file or, without content, one folder.
func (c *cpio) add(name string, mode uint32, content []byte) {
	c.inode++
	links := 1
	if mode == modeDir {
		links = 2
	}
	c.header(name, mode, links, len(content))
	c.write(content)
	c.pad(len(content))
}

// close ends the archive. The writer under it stays open.
func (c *cpio) close() error {
	c.inode = 0
	c.header("TRAILER!!!", 0, 1, 0)
	return c.err
}

func (c *cpio) header(name string, mode uint32, links, size int) {
	head := "070701"
	for _, field := range []int{
		c.inode, int(mode), 0, 0, links, 0, size, // owner, group and time are 0
		0, 0, 0, 0, len(name) + 1, 0, // no devices, no checksum
	} {
		head += fmt.Sprintf("%08x", field)
	}
	head += name + "\x00"
	c.write([]byte(head))
	c.pad(len(head))
}

func (c *cpio) pad(written int) { c.write(make([]byte, -written&3)) }

func (c *cpio) write(p []byte) {
	if c.err == nil {
		_, c.err = c.w.Write(p)
	}
}
