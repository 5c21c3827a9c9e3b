package ordertest

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/dcnode/dcnode/consensus"
	"github.com/dcnode/dcnode/node/order"
)

// Journal is the simplest Machine whose states are equal only if the orders are: the
// number of events and a hash over all that they said. Look at it in the loop only.
type Journal struct {
	Next  uint64   // index of the next event
	Chain [32]byte // over index, time, author and payload of all before
	// Seen, if not nil, is called with each event.
	Seen func(ev consensus.Ordered)
}

var _ order.Machine = (*Journal)(nil)

// Apply implements order.Machine.
func (j *Journal) Apply(ev consensus.Ordered) error {
	if ev.Index != j.Next {
		return fmt.Errorf("event %d follows %d events", ev.Index, j.Next)
	}
	h := sha256.New()
	h.Write(j.Chain[:])
	be := binary.BigEndian
	h.Write(be.AppendUint64(be.AppendUint64(be.AppendUint64(nil, ev.Index), uint64(ev.Time)), ev.Event.Creator))
	for _, tx := range ev.Event.Payload {
		h.Write(be.AppendUint32(nil, uint32(len(tx))))
		h.Write(tx)
	}
	h.Sum(j.Chain[:0])
	j.Next++
	if j.Seen != nil {
		j.Seen(ev)
	}
	return nil
}

// Snapshot implements order.Machine.
func (j *Journal) Snapshot() ([32]byte, []byte, error) {
	b := binary.BigEndian.AppendUint64(j.Chain[:len(j.Chain):len(j.Chain)], j.Next)
	return sha256.Sum256(b), b, nil
}

// Check implements order.Machine.
func (j *Journal) Check(root [32]byte, b []byte) error {
	if len(b) != 40 || sha256.Sum256(b) != root {
		return fmt.Errorf("%d bytes are no journal with the root %x", len(b), root[:4])
	}
	return nil
}

// Restore implements order.Machine.
func (j *Journal) Restore(root [32]byte, b []byte) error {
	if err := j.Check(root, b); err != nil {
		return err
	}
	copy(j.Chain[:], b)
	j.Next = binary.BigEndian.Uint64(b[32:])
	return nil
}
