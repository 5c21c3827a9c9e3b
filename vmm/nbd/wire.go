package nbd

import (
	"fmt"
	"syscall"
)

// Numbers of the protocol (proto.md, "Values").
const (
	magicServer  = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption  = 0x49484156454f5054 // "IHAVEOPT"
	magicOptRep  = 0x3e889045565a9
	magicRequest = 0x25609513
	magicSimple  = 0x67446698
	magicStruct  = 0x668e33ef

	flagFixed    = 1 << 0
	flagNoZeroes = 1 << 1

	optAbort      = 2
	optGo         = 7
	optStructured = 8
	optSetMeta    = 10

	repAck      = 1
	repInfo     = 3
	repMeta     = 4
	repErrorBit = 1 << 31

	infoExport    = 0
	infoBlockSize = 3

	cmdRead        = 0
	cmdWrite       = 1
	cmdDisconnect  = 2
	cmdFlush       = 3
	cmdTrim        = 4
	cmdWriteZeroes = 6
	cmdBlockStatus = 7

	cmdFlagNoHole = 1 << 1

	chunkDone        = 1 << 0
	chunkNone        = 0
	chunkData        = 1
	chunkHole        = 2
	chunkStatus      = 5
	chunkErrorBit    = 1 << 15
	chunkErrorOffset = chunkErrorBit | 2

	headerLen = 28
)

// Limits on what a server may make this client hold.
const (
	maxOptionReply  = 64 << 10
	maxErrorText    = 4 << 10
	maxStatusChunk  = 8 << 20
	maxReadChunks   = 1 << 16
	defaultMaxBlock = 32 << 20
)

// Flags are an export's transmission flags.
type Flags uint16

// Transmission flags.
const (
	HasFlags     Flags = 1 << 0
	ReadOnly     Flags = 1 << 1
	CanFlush     Flags = 1 << 2
	CanTrim      Flags = 1 << 5
	CanZero      Flags = 1 << 6
	CanMultiConn Flags = 1 << 8
)

// Metadata contexts that QEMU offers.
const (
	// Allocation tells holes and zeroes: [StateHole], [StateZero].
	Allocation = "base:allocation"
	// Depth tells how many layers down a cluster lies: 0 nowhere, 1 in the top layer.
	Depth = "qemu:allocation-depth"
)

// DirtyBitmap is the context of a bitmap that is exported with the disk; its status
// is 1 where the bitmap is set.
func DirtyBitmap(name string) string { return "qemu:dirty-bitmap:" + name }

// Status bits of [Allocation].
const (
	StateHole = 1 << 0
	StateZero = 1 << 1
)

// Segment is a run of one disk with one status.
type Segment struct {
	Offset, Length int64
	Status         uint32
}

// Error is a request that the server refused.
type Error struct {
	Op    string // "read", "write", …
	Errno syscall.Errno
	Text  string // the server's own words, maybe empty
}

func (e *Error) Error() string {
	if e.Text == "" {
		return fmt.Sprintf("nbd %s: %v", e.Op, e.Errno)
	}
	return fmt.Sprintf("nbd %s: %s (%v)", e.Op, e.Text, e.Errno)
}

func (e *Error) Unwrap() error { return e.Errno }

var opNames = [...]string{"read", "write", "disconnect", "flush", "trim", "cache", "write zeroes", "block status"}
