// Package qmp talks to QEMU's monitor, the QEMU Machine Protocol: one JSON value a
// line over a unix socket, commands one way, replies and events the other.
//
// [Client] implements [github.com/digitalocean/go-qemu/qmp.Monitor], so go-qemu's
// Domain and raw API work on top of it, and offers what that interface cannot say:
// a context for each call, errors with their class, several file descriptors with a
// command, out-of-band commands, replies of any size, and the cause when the
// connection is lost.
//
// One goroutine reads. It matches replies to calls by id and hands events to
// subscribers through bounded queues; a subscriber that does not read loses its
// oldest events, and is told how many, but never stalls the reader. A call that was
// given up leaves its id behind, so that its late reply is dropped and not taken
// for another's.
//
// The protocol: docs/interop/qmp-spec.rst in QEMU's source.
package qmp
