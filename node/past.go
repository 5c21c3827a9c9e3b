package node

import (
	"encoding/binary"
	"errors"

	"github.com/dcnode/dcnode/consensus"
	"github.com/dcnode/dcnode/consensus/ledger"
)

const (
	keptStates   = 512     // places of the order for which the ledger is kept as it was
	keptEvery    = 16      // events between two of those: a copy costs as much as several events
	keptOutcomes = 1 << 16 // places of the order for which what came of them is kept, as a digest
)

// past is what this member's ledger was at the last places of the order. It belongs to
// the ordering loop, and to whoever has seen the loop end.
type past struct {
	states   ring[*ledger.State] // by index / keptEvery
	outcomes ring[outcome]
	steps    [][8]byte // of the event that is being applied
}

// outcome is the ledger's outcome after one event, and how it came to it.
type outcome struct {
	digest [32]byte
	event  consensus.Hash
	author ledger.MemberID
	// steps are the first bytes of the outcome after time had advanced, and after each
	// transaction; nil if nothing came of the event but what time did.
	steps [][8]byte
}

// ring is the last values of a sequence, by index.
type ring[T any] struct {
	size  int
	items []T // by index modulo size; it grows until it is full
	first uint64
	next  uint64
}

// put adds the value of an index. One that does not follow the one before begins the
// ring anew.
func (r *ring[T]) put(index uint64, v T) {
	if index != r.next || len(r.items) == 0 {
		r.items, r.first = r.items[:0], index
	}
	if at := int((index - r.first) % uint64(r.size)); at < len(r.items) {
		r.items[at] = v
	} else {
		r.items = append(r.items, v)
	}
	r.next = index + 1
}

// oldest is the lowest index that is here; next follows the highest.
func (r *ring[T]) oldest() uint64 {
	if n := uint64(len(r.items)); n == uint64(r.size) {
		return r.next - n
	}
	return r.first
}

func (r *ring[T]) get(index uint64) (v T, ok bool) {
	if len(r.items) == 0 || index < r.oldest() || index >= r.next {
		return v, false
	}
	return r.items[int((index-r.first)%uint64(r.size))], true
}

func newPast() past {
	return past{states: ring[*ledger.State]{size: keptStates}, outcomes: ring[outcome]{size: keptOutcomes}}
}

// step notes the outcome after one thing that was applied.
func (p *past) step(s *ledger.State) {
	o := s.Outcome()
	p.steps = append(p.steps, [8]byte(o[:8]))
}

// event notes the ledger after one event.
func (p *past) event(at ledger.Place, s *ledger.State) {
	o := outcome{digest: s.Outcome(), event: at.Event, author: at.Author}
	if len(p.steps) > 1 {
		o.steps = append([][8]byte(nil), p.steps...)
	}
	p.steps = p.steps[:0]
	p.outcomes.put(at.Index, o)
	if at.Index%keptEvery == 0 {
		p.states.put(at.Index/keptEvery, s.Clone())
	}
}

// state is the ledger after the event at an index, if that was kept; nil: it was not.
func (p *past) state(index uint64) *ledger.State {
	if index%keptEvery != 0 {
		return nil
	}
	s, _ := p.states.get(index / keptEvery)
	return s
}

// newest is the state that was kept last, or nil.
func (p *past) newest() *ledger.State {
	s, _ := p.states.get(p.states.next - 1)
	return s
}

// The protocol by which members compare what they have computed: the request is an
// index, a step and a count, of 8 bytes each; the answer is the lowest index that is
// here and the outcomes at index, index + step, …, as far as they are here. With a step of 0
// it is the steps of one event.
const (
	protoOutcome    = "/outcome/1"
	maxOutcomes     = 256
	maxOutcomeReply = 8 + 8*(consensus.MaxPayload+1)
)

// outcomeRequest asks for outcomes.
func outcomeRequest(from, step uint64) []byte {
	be := binary.BigEndian
	return be.AppendUint64(be.AppendUint64(be.AppendUint64(nil, from), step), maxOutcomes)
}

// parseOutcomes reads the answer.
func parseOutcomes(reply []byte) (oldest uint64, out [][32]byte, err error) {
	if len(reply) < 8 {
		return 0, nil, errors.New("an answer that makes no sense")
	}
	for b := reply[8:]; len(b) >= 32; b = b[32:] {
		out = append(out, [32]byte(b))
	}
	return binary.BigEndian.Uint64(reply), out, nil
}

// answer serves protoOutcome. In the loop.
func (p *past) answer(req []byte) []byte {
	if len(req) != 24 {
		return nil
	}
	be := binary.BigEndian
	index, step, count := be.Uint64(req), be.Uint64(req[8:]), min(be.Uint64(req[16:]), maxOutcomes)
	out := be.AppendUint64(nil, p.outcomes.oldest())
	if step == 0 {
		o, _ := p.outcomes.get(index)
		for _, s := range o.steps {
			out = append(out, s[:]...)
		}
		return out
	}
	for range count {
		o, ok := p.outcomes.get(index)
		if !ok || index+step < index {
			break
		}
		out = append(out, o.digest[:]...)
		index += step
	}
	return out
}
