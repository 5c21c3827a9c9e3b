// Command dcnode-guest is the program inside the guests of the test network. It
// makes loss visible: whoever reads the guest's console knows that no page of
// its memory, no block of its disk and no instant of its time went missing.
//
// Every 10 ms it prints
//
//	tick N
//
// with N counting up by one. Meanwhile it rewrites pages of a working set and
// blocks of a file at given rates, each with a generation and a checksum, and
// keeps the generations that it expects apart from them. About once a second it
// has gone through all pages and all blocks, the latter past the page cache, and
// prints one of
//
//	check ok pages=4096 blocks=512 gen=1017 writes=33 seconds=0.21
//	check FAIL what is wrong
//
// where gen counts page and block writes since the start and writes the block
// writes among them. After a failure it never says ok again. Once, after the
// first good check, it prints
//
//	ready pages=4096 blocks=512
//
// and some seconds later, when its page cache is filled from the disk's files,
//
//	warm bytes=67108864
//
// A line "check" on its input asks for a check at once, "poweroff" ends the
// machine; so does the power button.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

// config is what the kernel's command line or the flags ask for.
type config struct {
	memory     int    // MiB of working set
	memoryRate int    // KiB of pages rewritten each second
	disk       int    // MiB of file
	diskRate   int    // KiB of blocks rewritten each second
	warm       int    // MiB of the disk's files read into the page cache
	file       string // the file with the blocks
	tree       string // the files to warm
}

func main() {
	c := config{memory: 16, memoryRate: 1024, disk: 32, diskRate: 512, warm: 64}
	for name, value := range c.parameters() {
		flag.IntVar(value, name, *value, "see the package comment; on the kernel's command line dcnode."+name+"=N")
	}
	flag.StringVar(&c.file, "file", "/disk/work.blocks", "file that holds the blocks")
	flag.StringVar(&c.tree, "tree", "/disk/usr", "files to read into the page cache")
	flag.Parse()
	if line, err := os.ReadFile("/proc/cmdline"); err == nil && os.Getpid() == 1 {
		c.fromKernel(string(line))
	}
	// The ticks, the writers and the checks each get a thread that the kernel
	// schedules, even on one CPU.
	runtime.GOMAXPROCS(6)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if os.Getpid() == 1 {
		quiet()
		watchPowerButton()
	}
	asked := make(chan struct{}, 1)
	go obey(os.Stdin, asked)
	if err := run(ctx, c, asked, os.Stdout); err != nil {
		fmt.Fprintf(os.Stdout, "check FAIL %v\n", err)
		if os.Getpid() == 1 {
			select {} // keep the machine for whoever looks at it
		}
		os.Exit(1)
	}
}

// parameters are the numbers that can be set, by name.
func (c *config) parameters() map[string]*int {
	return map[string]*int{
		"memory": &c.memory, "memory-rate": &c.memoryRate,
		"disk": &c.disk, "disk-rate": &c.diskRate, "warm": &c.warm,
	}
}

// fromKernel takes dcnode.NAME=N from the kernel's command line.
func (c *config) fromKernel(line string) {
	parameters := c.parameters()
	for _, word := range strings.Fields(line) {
		name, value, ok := strings.Cut(strings.TrimPrefix(word, "dcnode."), "=")
		if !ok || !strings.HasPrefix(word, "dcnode.") {
			continue
		}
		if p := parameters[name]; p != nil {
			if n, err := strconv.Atoi(value); err == nil && n >= 0 {
				*p = n
			}
		}
	}
}

// run ticks, works and checks until ctx ends; asked asks for a check at once.
func run(ctx context.Context, c config, asked <-chan struct{}, out io.Writer) error {
	w, err := newWork(c)
	if err != nil {
		return err
	}
	defer w.close()
	go tick(ctx, out)
	go func() { fmt.Fprintf(out, "warm bytes=%d\n", warm(c.tree, int64(c.warm)<<20)) }()
	go w.writePages(ctx)
	go w.writeBlocks(ctx)
	return w.checkForever(ctx, asked, out)
}
