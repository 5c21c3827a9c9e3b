// Package qemu drives unmodified QEMU (7.2 and later; 9.0 and later to migrate
// without KVM) through its monitor, its NBD server and its migration stream.
//
// # A machine
//
// A machine is one QEMU process in a session of its own: it outlives the daemon,
// and [Driver.Attach] finds it again by its monitor socket. The process at the other
// end of that socket is known by SO_PEERCRED and held by a pidfd, so a reused
// process id can never be signalled. Disks are virtio-blk over a qcow2 overlay over
// a read-only raw base.
//
// # Leaving
//
//	dirty bitmap A on every overlay, then what is allocated there   first Changes
//	add bitmap B and freeze A in one transaction, read A, drop A    each further Changes
//	migrate to one end of a socket pair                             Memory
//	…, status pre-switchover: CPUs stopped, block I/O drained        Paused
//	drop exports and bitmaps, migrate-continue                      Finish
//	device state, status completed, end of file                     Memory ends
//
// QEMU resumes the source by itself when a migration that had stopped it fails or is
// cancelled. After the owner has given the machine away that must not happen:
// [vmm.Outgoing.Cancel] without resume therefore lets a stopped migration complete
// into a sink, which ends with the CPUs stopped, and the reader of the stream may be
// closed at any time without QEMU noticing. End of file is passed on only when QEMU
// says "completed".
//
// # Arriving
//
// QEMU starts with -incoming defer and -S on empty overlays and exports them writable
// over NBD on a unix socket; after the stream has been loaded the exports are removed
// and the machine waits, paused, for Resume.
package qemu
