// Package blockstore keeps disk images as blocks named by their content, and
// moves them between sites.
//
// An image is a DAG. Its top is a commit, a DAG-CBOR node that names each disk
// by the CID of a UnixFS file; the file's leaves are raw blocks of one fixed
// size, aligned to the disk, in a balanced tree. Every name is the SHA-256 of
// what it names, so three things come for free: equal regions of two images are
// one block, stored and sent once; equal subtrees are recognised by one
// comparison; and whoever hands over a block, it is checked before it is kept.
//
//	commit ──► disk root ──► interior node ──► leaf (256 KiB)
//	   │                         └───────────► leaf
//	   └─────► kernel, initrd (UnixFS files)
//
// A leaf of zeroes is a hole: its CID is known beforehand, so it is neither
// stored nor sent, and a materialised disk is sparse there.
//
// Blocks travel by the Bitswap protocol, version 1.2, under the overlay's own
// prefix. Serving is boxo's Bitswap server. Asking is this package's own
// scheduler (pull.go): it asks the holders it was told of and nobody else,
// spreads the wants over them from one queue so that no block is asked of two
// at once, keeps a bounded window outstanding at each, moves the wants of a
// silent holder to another after seconds, and ends with an error that names the
// block and the holders where nothing moves.
//
// Whatever is read from disk is hashed again. A block that does not match its
// name is never handed out: it is set aside below corrupt/, and the image
// counts as incomplete until the block is fetched again.
package blockstore
