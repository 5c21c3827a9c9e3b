// Package memvm is a virtual machine without a hypervisor: a computer of memory
// pages, disks and one CPU whose program is known, for places where QEMU cannot
// run and for tests that want to know every byte.
//
// # What it computes
//
// Time is counted in steps, one about every 10 ms. Step k writes a few pages and
// a few disk blocks; which ones, and what, follows from [vmm.Spec.Seed] and k alone.
// The last writer of each page and block after n steps has a closed form, so the
// whole state after n steps can be computed without running the steps, and a
// machine that was moved can be checked byte by byte: [Machine.Verify] for its
// memory, [CheckDisks] for its disks. A start on overlays that already hold steps
// goes on with the last of them.
//
// Memory looks like that of an ordinary guest: a quarter is zero, a quarter is the
// same for every seed (program text), a quarter equals blocks of the first disk's
// base (page cache), a quarter is unique; the hot pages are rewritten for ever,
// mostly in place.
//
// # How it moves
//
// Disks: a base that nobody writes, an overlay file, a map of which blocks the
// overlay holds, and a dirty bitmap while a migration runs. Memory: QEMU's own
// stream format, version 3 (stream.go), pre-copy rounds, a pause when the rest
// fits the limit at the rate the reader takes it. The last section holds the step
// and a digest of all pages, kept up to date by every write; the receiver keeps the
// same digest over what it stores and refuses a stream in which a page was lost,
// torn, stale or misplaced, and disks that are not those of that very step.
//
// The machine lives in its process and dies with it.
package memvm
