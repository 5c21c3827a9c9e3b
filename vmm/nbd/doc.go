// Package nbd is a client of the Network Block Device protocol, as much of it as
// is needed to copy disks out of and into QEMU: fixed newstyle negotiation,
// structured replies, metadata contexts, and the commands READ, WRITE,
// WRITE_ZEROES, TRIM, FLUSH and BLOCK_STATUS, pipelined on one connection.
//
// What the server says is checked: sizes, offsets, lengths, that a read is covered
// once and whole, that a status makes progress. A server that breaks the protocol
// loses the connection, and all requests under way fail with the reason. So does a
// request whose context ends: nothing else could keep a late answer out of a buffer
// that its owner uses again.
//
// The protocol: doc/proto.md of github.com/NetworkBlockDevice/nbd.
package nbd
