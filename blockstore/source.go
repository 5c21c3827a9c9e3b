package blockstore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// disk is a source of disk content, for one goroutine.
type disk interface {
	io.Closer
	Size() int64
	// ReadAt fills p or fails; inside Size there is no io.EOF.
	ReadAt(p []byte, off int64) (int, error)
	// Data returns the next run of bytes at or after off that may hold
	// anything but zeroes; io.EOF where there is none.
	Data(off int64) (start, end int64, err error)
}

// strangers are image formats that are not read, by what their files begin with.
func strangers() []struct{ magic, name string } {
	return []struct{ magic, name string }{
		{"KDMV", "VMDK"}, {"# Disk DescriptorFile", "VMDK"}, {"vhdxfile", "VHDX"}, {"conectix", "VHD"},
		{"<<< ", "VDI"}, {"QED\x00", "QED"}, {"LUKS\xba\xbe", "LUKS (encrypted)"},
		{"\x1f\x8b", "gzip"}, {"\xfd7zXZ\x00", "xz"}, {"\x28\xb5\x2f\xfd", "zstd"}, {"BZh", "bzip2"},
	}
}

const qcow2Magic = "QFI\xfb"

// openDisk opens a raw or qcow2 image by its content. A file is taken as raw
// only if it does not begin like another format.
func openDisk(path string) (disk, error) {
	f, err := openRead(path)
	if err != nil {
		return nil, fmt.Errorf("open image: %w", err)
	}
	d, err := openDiskFile(f, 0)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open image %s: %w", path, err)
	}
	return d, nil
}

// openRead opens a file for reading, and does not wait for the writer of a pipe.
func openRead(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
}

// openDiskFile recognises the format of f; depth counts backing files. On success f
// belongs to the disk.
func openDiskFile(f *os.File, depth int) (disk, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: not a regular file: copy the device to a file first", ErrFormat)
	}
	if st.Size() == 0 {
		return nil, fmt.Errorf("%w: the file is empty: check that its download or copy finished", ErrFormat)
	}
	head := make([]byte, 64)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	head = head[:n]
	if bytes.HasPrefix(head, []byte(qcow2Magic)) {
		return openQcow2(f, st.Size(), depth)
	}
	for _, s := range strangers() {
		if bytes.HasPrefix(head, []byte(s.magic)) {
			return nil, fmt.Errorf("%w: it is %s: convert it with `qemu-img convert -O qcow2`, or unpack it", ErrFormat, s.name)
		}
	}
	if st.Size()%512 != 0 {
		return nil, fmt.Errorf("%w: a raw disk of %d bytes is not a multiple of 512: check that its copy finished, or extend it with `truncate -s %%512`", ErrFormat, st.Size())
	}
	return &rawDisk{f, st.Size()}, nil
}

// rawDisk is a raw image file, possibly sparse.
type rawDisk struct {
	f    *os.File
	size int64
}

func (d *rawDisk) Size() int64  { return d.size }
func (d *rawDisk) Close() error { return d.f.Close() }

// ReadAt reads within the size the file had when it was opened; a file that
// shrank since is an error, not zeroes.
func (d *rawDisk) ReadAt(p []byte, off int64) (int, error) {
	n, err := d.f.ReadAt(p, off)
	if n == len(p) {
		return n, nil
	}
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: the file shrank while it was read: stop what writes to it", ErrFormat)
	}
	return n, err
}

// Data asks the filesystem for the next extent; where it cannot tell, the rest is one.
func (d *rawDisk) Data(off int64) (int64, int64, error) {
	if off >= d.size {
		return 0, 0, io.EOF
	}
	start, err := d.f.Seek(off, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return 0, 0, io.EOF
	}
	if err != nil {
		return off, d.size, nil
	}
	end, err := d.f.Seek(start, unix.SEEK_HOLE)
	if err != nil || end > d.size {
		end = d.size
	}
	if start >= d.size {
		return 0, 0, io.EOF
	}
	return start, end, nil
}
