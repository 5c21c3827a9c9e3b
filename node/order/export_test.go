package order

import (
	"crypto/ed25519"
	"encoding/binary"

	"github.com/dcnode/dcnode/consensus"
)

// Abandon lets go of the log as the death of the process would.
func (l *Loop) Abandon() { l.events.Abandon() }

// Offer is a reply that offers one checkpoint, as the holder of key signs it.
func Offer(oldest uint64, cp *consensus.Checkpoint, root [32]byte, key ed25519.PrivateKey) []byte {
	p := point{body: cp.Marshal(), hash: cp.Hash(), root: root}
	b := binary.BigEndian.AppendUint64(nil, oldest)
	b = binary.BigEndian.AppendUint32(b, uint32(len(p.body)))
	b = append(append(b, p.body...), root[:]...)
	return append(b, ed25519.Sign(key, p.signed(cp.Network))...)
}
