package consensus

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/dcnode/dcnode/consensus/internal/h26"
)

// Checkpoint is what a decided round hands to the next: with it, and with the events
// born in round MinBirth or later, a member goes on exactly as one that has seen
// everything. It is the same at every member, byte for byte.
type Checkpoint struct {
	Network  Hash
	Round    uint64    // decided
	Judges   []Parent  // of Round, in the order of member IDs
	Copied   bool      // the judges were taken over from the round before
	Copies   uint64    // how many rounds in a row did so, up to Round
	MinBirth uint64    // events born earlier are ancient in round Round + 1
	Ordered  uint64    // events that the rounds up to Round put in order
	LastTime Timestamp // of the last of those
	Epochs   []Epoch   // from the one that MinBirth is in to those ordered but not in force
}

// The encoding, all numbers big-endian and of fixed size, so that a checkpoint has
// one encoding only:
//
//	version 1 | network 32 | round 8 | copied 1 | copies 8 | min birth 8
//	ordered 8 | last time 8 | judges 1, each as a parent in an event
//	epochs 2, each: from 8, see 8 8, judge any 1, coin interval 8,
//	  non-ancient rounds 8, whiten 1, members 1, each: ID 8, weight 8, key 1+n
const checkpointVersion = 1

const checkpointDomain = "dcnode hashgraph checkpoint v1\x00"

// MaxCheckpoint bounds the bytes of an encoded checkpoint.
const MaxCheckpoint = 4 << 20

// Hash is the SHA-256 of the encoding in its own domain: it names the checkpoint,
// and is what members sign.
func (cp *Checkpoint) Hash() Hash {
	return sha256.Sum256(append([]byte(checkpointDomain), cp.Marshal()...))
}

// Marshal is the encoding.
func (cp *Checkpoint) Marshal() []byte {
	be := binary.BigEndian
	b := append([]byte{checkpointVersion}, cp.Network[:]...)
	b = be.AppendUint64(b, cp.Round)
	b = appendBool(b, cp.Copied)
	b = be.AppendUint64(b, cp.Copies)
	b = be.AppendUint64(b, cp.MinBirth)
	b = be.AppendUint64(b, cp.Ordered)
	b = be.AppendUint64(b, uint64(cp.LastTime))
	b = append(b, byte(len(cp.Judges)))
	for i := range cp.Judges {
		b = appendParent(b, &cp.Judges[i])
	}
	b = be.AppendUint16(b, uint16(len(cp.Epochs)))
	for i := range cp.Epochs {
		b = cp.Epochs[i].append(b)
	}
	return b
}

func (ep *Epoch) append(b []byte) []byte {
	be, p := binary.BigEndian, &ep.Params
	b = be.AppendUint64(b, ep.From)
	b = be.AppendUint64(b, p.SeeNum)
	b = be.AppendUint64(b, p.SeeDen)
	b = appendBool(b, p.JudgeAny)
	b = be.AppendUint64(b, p.CoinInterval)
	b = be.AppendUint64(b, p.NonAncientRounds)
	b = appendBool(b, p.Whiten)
	b = append(b, byte(len(ep.Roster)))
	for i := range ep.Roster {
		m := &ep.Roster[i]
		b = be.AppendUint64(b, m.ID)
		b = be.AppendUint64(b, m.Weight)
		b = append(append(b, byte(len(m.Key))), m.Key...)
	}
	return b
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

// UnmarshalCheckpoint reads an encoding. It accepts exactly what Marshal makes of a
// checkpoint that a Core can go on from, as far as that can be seen in it alone.
// Errors are ErrInvalid.
func UnmarshalCheckpoint(b []byte) (*Checkpoint, error) {
	if len(b) > MaxCheckpoint {
		return nil, fmt.Errorf("%w: a checkpoint of %d bytes, at most %d are allowed", ErrInvalid, len(b), MaxCheckpoint)
	}
	r := &reader{b: b}
	if v := r.take(1)[0]; v != checkpointVersion {
		return nil, fmt.Errorf("%w: checkpoint version %d, this program reads %d", ErrInvalid, v, checkpointVersion)
	}
	cp := &Checkpoint{Network: r.hash(), Round: r.u64(), Copied: r.flag(), Copies: r.u64(), MinBirth: r.u64(), Ordered: r.u64()}
	cp.LastTime = Timestamp(r.u64())
	for range int(r.take(1)[0]) {
		cp.Judges = append(cp.Judges, r.parent())
	}
	for range int(binary.BigEndian.Uint16(r.take(2))) {
		if cp.Epochs = append(cp.Epochs, r.epoch()); r.err != nil {
			break
		}
	}
	if r.err == nil && len(r.b) > 0 {
		r.err = fmt.Errorf("%d bytes follow it", len(r.b))
	}
	if r.err == nil {
		r.err = cp.check()
	}
	if r.err != nil {
		return nil, fmt.Errorf("%w: checkpoint: %w", ErrInvalid, r.err)
	}
	return cp, nil
}

func (r *reader) flag() bool {
	v := r.take(1)[0]
	if v > 1 && r.err == nil {
		r.err = fmt.Errorf("a yes or no is %d", v)
	}
	return v == 1
}

func (r *reader) epoch() Epoch {
	ep := Epoch{From: r.u64()}
	ep.Params = Params{
		SeeNum: r.u64(), SeeDen: r.u64(), JudgeAny: r.flag(),
		CoinInterval: r.u64(), NonAncientRounds: r.u64(), Whiten: r.flag(),
	}
	for range int(r.take(1)[0]) {
		m := Member{ID: r.u64(), Weight: r.u64()}
		if n := int(r.take(1)[0]); n > 0 {
			m.Key = append(ed25519.PublicKey(nil), r.take(n)...)
		}
		ep.Roster = append(ep.Roster, m)
	}
	return ep
}

// check says what makes it impossible to go on from a checkpoint.
func (cp *Checkpoint) check() error {
	switch {
	case cp.Round == 0 || cp.Round >= 1<<62:
		return fmt.Errorf("round %d", cp.Round)
	case cp.MinBirth == 0 || cp.MinBirth > cp.Round:
		return fmt.Errorf("round %d with events from round %d on", cp.Round, cp.MinBirth)
	case cp.Copies >= cp.Round || cp.Copied != (cp.Copies > 0) || cp.Copies > h26.MaxCopies:
		return fmt.Errorf("judges of round %d taken over %d times", cp.Round, cp.Copies)
	case cp.LastTime < 0:
		return fmt.Errorf("last time %d", cp.LastTime)
	case len(cp.Judges) == 0 || len(cp.Judges) > MaxMembers:
		return fmt.Errorf("%d judges, want 1 to %d", len(cp.Judges), MaxMembers)
	case len(cp.Epochs) == 0:
		return fmt.Errorf("no roster")
	case cp.Epochs[0].From > min(cp.MinBirth, cp.Round-cp.Copies):
		return fmt.Errorf("the first roster begins in round %d", cp.Epochs[0].From)
	}
	for i := range cp.Judges {
		j := &cp.Judges[i]
		if j.BirthRound < cp.MinBirth || j.BirthRound > cp.Round {
			return fmt.Errorf("a judge is born in round %d", j.BirthRound)
		}
		if i > 0 && cp.Judges[i-1].Creator >= j.Creator {
			return fmt.Errorf("the judges are not in the order of member IDs")
		}
	}
	for i := range cp.Epochs {
		ep := &cp.Epochs[i]
		if ep.From == 0 || ep.From > cp.Round+ChangeDelay || i > 0 && cp.Epochs[i-1].From >= ep.From {
			return fmt.Errorf("a roster from round %d on is out of place", ep.From)
		}
		if err := ep.check(); err != nil {
			return err
		}
	}
	return nil
}
