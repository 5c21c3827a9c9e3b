package node

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/dcnode/dcnode/consensus"
	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/node/certificate"
	"github.com/dcnode/dcnode/node/eventlog"
)

// The protocol by which members sign the ledger's state for a certificate: the request
// is an index, of 8 bytes; the answer is the digest of the state after the event there,
// and the member's signature of certificate.Statement.
const (
	protoAttest  = "/attest/1"
	attestWithin = 5 * time.Second // for an answer, and for a member to come to the index
	attestTries  = 3               // with a later index each, in an overlay that is busy
)

// serveAudit answers members that compare states or want one signed.
func (n *Node) serveAudit() {
	n.overlay.HandleRequest(protoAttest, func(ctx context.Context, from peer.ID, req []byte) ([]byte, error) {
		if n.member(from) == 0 || len(req) != 8 {
			return nil, errors.New("a request that makes no sense")
		}
		digest, sig, err := n.attest(ctx, binary.BigEndian.Uint64(req))
		return append(digest[:], sig...), err
	})
	n.overlay.HandleRequest(protoOutcome, func(ctx context.Context, from peer.ID, req []byte) (reply []byte, err error) {
		if n.member(from) == 0 || len(req) != 24 {
			return nil, errors.New("a request that makes no sense")
		}
		err = n.order.do(ctx, func() { reply = n.order.past.answer(req) })
		return reply, err
	})
}

// attest signs the state after the event at an index, which may be about to come.
func (n *Node) attest(ctx context.Context, index uint64) (digest [32]byte, sig []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, attestWithin)
	defer cancel()
	if err = n.order.until(ctx, func(s *ledger.State) bool { return s.Next() > index }); err != nil {
		return digest, nil, fmt.Errorf("event %d of the order is not here yet: %w", index, err)
	}
	var self *ledger.Member
	if derr := n.order.do(ctx, func() {
		s := n.order.state
		if s.Next() != index+1 {
			s = n.order.past.state(index)
		}
		if s == nil {
			err = fmt.Errorf("the state after event %d is not kept: only that after each %dth of the last %d is", index, keptEvery, keptEvery*keptStates)
			return
		}
		self = s.Member(n.self)
		digest, err = s.Digest()
	}); derr != nil || err != nil {
		return digest, nil, errors.Join(derr, err)
	}
	if self == nil {
		return digest, nil, fmt.Errorf("this node was no member at index %d", index)
	}
	private, err := n.identity().private()
	if err != nil {
		return digest, nil, err
	}
	for _, key := range private {
		if key.Public().(ed25519.PublicKey).Equal(ed25519.PublicKey(self.Key)) {
			return digest, ed25519.Sign(key, certificate.Statement(n.network, index, digest)), nil
		}
	}
	return digest, nil, fmt.Errorf("the ledger at index %d names a key for this member that is not here", index)
}

// Certify makes a certificate of the release of a machine with that epoch, or of its
// last one if epoch is 0. Members of more than two thirds of the weight must answer.
func (n *Node) Certify(ctx context.Context, machine string, epoch uint64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, reasonable)
	defer cancel()
	var err error
	for range attestTries {
		var b []byte
		if b, err = n.certify(ctx, machine, epoch); err == nil {
			return b, nil
		}
		var few *fewSignedError
		if !errors.As(err, &few) {
			break
		}
	}
	return nil, err
}

// fewSignedError: too few members have signed a state.
type fewSignedError struct{ err error }

func (e *fewSignedError) Error() string { return e.err.Error() }
func (e *fewSignedError) Unwrap() error { return e.err }

func (n *Node) certify(ctx context.Context, machine string, epoch uint64) ([]byte, error) {
	s, h, err := n.showing(ctx, machine, epoch)
	if err != nil {
		return nil, fmt.Errorf("certify: %w", err)
	}
	found, err := n.evidence(s, machine, h)
	if err != nil {
		return nil, fmt.Errorf("certify the move of %s: %w", machine, err)
	}
	digest, err := s.Digest()
	if err != nil {
		return nil, err
	}
	sigs, err := n.gather(ctx, s, digest)
	if err != nil {
		return nil, fmt.Errorf("certify the move of %s: %w", machine, &fewSignedError{err})
	}
	founders, err := n.genesis.ledgerMembers()
	if err != nil {
		return nil, err
	}
	c, err := certificate.Build(certificate.Parts{
		Network: n.network, Founders: founders, State: s, Machine: machine, Epoch: h.Epoch, Signatures: sigs,
		Confirm: found.confirm,
		Event: func(h consensus.Hash) ([]byte, error) {
			if raw := found.events[h]; raw != nil {
				return raw, nil
			}
			return nil, fmt.Errorf("event %x is not in the log of this member, which joined or was away then: ask another one for the certificate", h[:8])
		},
	})
	if err != nil {
		return nil, err
	}
	return c.Encode()
}

// showing is a state that others have kept too and that shows a release, and what has
// come of it by now: the last one that is kept or, if that is too old, that of now, which
// the others have as long as nothing is ordered.
func (n *Node) showing(ctx context.Context, machine string, epoch uint64) (s *ledger.State, h *ledger.Handover, err error) {
	derr := n.order.do(ctx, func() {
		s = n.order.state.Clone()
		if h, err = certificate.Handover(s, machine, epoch); err != nil {
			return
		}
		if kept := n.order.past.newest(); kept != nil {
			was, kerr := certificate.Handover(kept, machine, h.Epoch)
			if kerr == nil && was.Index == h.Index && confirmed(kept.Machine(machine), was) == confirmed(s.Machine(machine), h) {
				s = kept.Clone()
			}
		}
		// A state shares blocks with the loop's, which only the loop may fill in. With its
		// digest known it may be read by anyone.
		_, err = s.Digest()
	})
	return s, h, errors.Join(derr, err)
}

// gather asks all members for their signatures of a state.
func (n *Node) gather(ctx context.Context, s *ledger.State, digest [32]byte) ([]certificate.Signature, error) {
	index := s.Next() - 1
	statement := certificate.Statement(n.network, index, digest)
	req := binary.BigEndian.AppendUint64(nil, index)
	answers := make([][]byte, len(s.Members()))
	why := make([]error, len(answers))
	var asked sync.WaitGroup
	for i, m := range s.Members() {
		asked.Go(func() {
			if m.ID == n.self {
				var d [32]byte
				d, answers[i], why[i] = n.attest(ctx, index)
				answers[i] = append(d[:], answers[i]...)
				return
			}
			rctx, cancel := context.WithTimeout(ctx, attestWithin+time.Second)
			defer cancel()
			answers[i], why[i] = n.overlay.Request(rctx, n.peer(m.ID), protoAttest, req, 32+ed25519.SignatureSize)
		})
	}
	asked.Wait()
	var out []certificate.Signature
	var weight uint64
	var others []error
	for i, m := range s.Members() {
		a := answers[i]
		switch {
		case why[i] != nil:
			others = append(others, fmt.Errorf("%s does not sign: %w", m.Site, why[i]))
		case len(a) != 32+ed25519.SignatureSize || [32]byte(a) != digest:
			others = append(others, fmt.Errorf("%s has computed another state", m.Site))
		case !ed25519.Verify(m.Key, statement, a[32:]):
			others = append(others, fmt.Errorf("%s has signed with another key than the ledger's", m.Site))
		default:
			out = append(out, certificate.Signature{Member: m.ID, Sig: a[32:]})
			weight += m.Weight
		}
	}
	if 3*weight <= 2*s.Weight() {
		return nil, errors.Join(append([]error{fmt.Errorf("members of weight %d of %d sign the state after event %d, it takes more than two thirds", weight, s.Weight(), index)}, others...)...)
	}
	return out, nil
}

// evidence is the events of a certificate, from this member's log.
type evidence struct {
	events  map[consensus.Hash][]byte
	confirm []byte
}

func (n *Node) evidence(s *ledger.State, machine string, h *ledger.Handover) (*evidence, error) {
	found := &evidence{events: map[consensus.Hash][]byte{consensus.Hash(h.Event): nil}}
	for _, c := range s.RosterChanges() {
		for _, e := range c.Events {
			found.events[consensus.Hash(e)] = nil
		}
	}
	taken := confirmed(s.Machine(machine), h)
	log, err := eventlog.Read(n.cfg.Dir)
	if err != nil {
		return nil, err
	}
	for rec, err := range log.Records() {
		if err != nil {
			return nil, err
		}
		if rec.Event == nil {
			continue
		}
		hash := rec.Event.Hash()
		if _, wanted := found.events[hash]; wanted {
			found.events[hash] = append([]byte(nil), rec.Raw()...)
		}
		if taken && ledger.MemberID(rec.Event.Creator) == h.Owner && confirms(rec.Event, machine, h.Epoch) {
			found.confirm = append([]byte(nil), rec.Raw()...) // the last one
		}
	}
	return found, nil
}

// confirmed says whether the ledger has taken a new owner's word that it runs the machine.
func confirmed(m *ledger.Machine, of *ledger.Handover) bool {
	for i, h := range m.Handovers {
		switch {
		case h.Epoch != of.Epoch:
		case i == len(m.Handovers)-1:
			return m.Move == nil || m.Move.Phase != ledger.Released
		default:
			return m.Handovers[i+1].Why != ledger.KindDecline && m.Handovers[i+1].Why != ledger.KindReclaim
		}
	}
	return false
}

func confirms(e *consensus.Event, machine string, epoch uint64) bool {
	for _, raw := range e.Payload {
		tx, err := ledger.Decode(raw)
		if err != nil {
			continue
		}
		if c, ok := tx.Body.(*ledger.Confirm); ok && c.Machine == machine && c.Epoch == epoch {
			return true
		}
	}
	return false
}
