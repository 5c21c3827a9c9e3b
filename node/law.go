package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/node/api"
	"github.com/dcnode/dcnode/vmm"
)

// Signing implements api.Law.
func (n *Node) Signing(ctx context.Context, account string) (api.Signing, error) {
	s, err := n.order.State(ctx)
	if err != nil {
		return api.Signing{}, err
	}
	seq := max(s.LastSaidBy(account)+1, uint64(max(time.Now().UnixNano(), 0)))
	return api.Signing{Network: n.network[:], Site: n.site(n.self), Seq: seq, Account: s.Account(account)}, nil
}

// Say implements api.Law: it orders a word of this node, or one that an account has
// signed.
func (n *Node) Say(ctx context.Context, q api.Say) (api.Said, error) {
	var v Verdict
	var err error
	switch {
	case q.Signed != nil:
		v, err = n.sayFor(ctx, q.Signed)
	case q.Policy != nil:
		v, err = n.decree(ctx, q.Policy)
	case q.Approve != nil:
		v, err = n.decree(ctx, q.Approve)
	case q.Quota != nil:
		v, err = n.decree(ctx, q.Quota)
	case q.Publish != nil:
		v, err = n.decree(ctx, q.Publish)
	default:
		err = errors.New("nothing was given to be ordered")
	}
	return api.Said{ID: v.ID, Index: v.Place.Index}, err
}

// sayFor orders what an account has signed, and lets go of an image that is none, or
// none any more.
func (n *Node) sayFor(ctx context.Context, signed []byte) (Verdict, error) {
	tx, err := decodeSigned(signed)
	if err != nil {
		return Verdict{}, err
	}
	s, err := n.order.State(ctx)
	if err != nil {
		return Verdict{}, err
	}
	var gone string // commit
	if w, ok := tx.Body.(*ledger.Withdraw); ok {
		if had := s.Version(ledger.Ref(w.Name, w.Tag)); had != nil {
			gone = had.Commit
		}
	}
	v, err := n.carry(ctx, tx)
	if p, ok := tx.Body.(*ledger.Publish); ok && errors.As(err, new(*ledger.RefusedError)) {
		return v, errors.Join(err, n.drop(ctx, "", p.Commit))
	}
	if err == nil && gone != "" {
		err = n.drop(ctx, "", gone)
	}
	return v, err
}

// decodeSigned reads a transaction of an account.
func decodeSigned(raw []byte) (ledger.Tx, error) {
	tx, err := ledger.Decode(raw)
	if err == nil && tx.Account == "" {
		err = errors.New("the transaction is not signed by an account")
	}
	return tx, err
}

// carry orders a transaction of an account.
func (n *Node) carry(ctx context.Context, tx ledger.Tx) (Verdict, error) {
	wait, cancel := context.WithTimeout(ctx, orderWithin)
	defer cancel()
	v, err := n.order.SubmitSigned(wait, tx)
	if err != nil && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("%s is not ordered yet: the order does not move: %s", tx.Body.Kind(), n.whoIsAway())
	}
	return v, err
}

// MayMove implements api.Law.
func (n *Node) MayMove(ctx context.Context, q api.May) (api.Answer, error) {
	a := api.Answer{Machine: q.Machine, To: q.To, Reasons: []string{}}
	s, err := n.order.State(ctx)
	if err != nil {
		return a, err
	}
	to, err := destination(s, q.Machine, q.To)
	if err != nil {
		return a, err
	}
	a.Reasons = append(a.Reasons, s.MayMove(q.Machine, to, q.Limits)...)
	a.Allowed = len(a.Reasons) == 0
	return a, nil
}

// destination finds a machine and the member at a site; no site: 0.
func destination(s *ledger.State, machine, site string) (ledger.MemberID, error) {
	if s.Machine(machine) == nil {
		return 0, fmt.Errorf("there is no machine %s: see `dcnode vm ls`", machine)
	}
	if site == "" {
		return 0, nil
	}
	to := s.BySite(site)
	if to == nil {
		return 0, fmt.Errorf("there is no member %s: see `dcnode status`", site)
	}
	return to.ID, nil
}

// Design implements api.Law. It fetches the image, and defines nothing.
func (n *Node) Design(ctx context.Context, r api.RunMachine, tell api.Tell) (*ledger.Define, error) {
	_, d, err := n.design(ctx, r, tell)
	if err == nil {
		d.Site = n.site(n.self)
	}
	return d, err
}

// agree is the definition that an account has signed, if it is of the machine that
// would be made here.
func (n *Node) agree(m *machine, mine *ledger.Define, signed []byte) (ledger.Tx, error) {
	tx, err := decodeSigned(signed)
	if err != nil {
		return tx, err
	}
	d, ok := tx.Body.(*ledger.Define)
	if !ok || d.Name != mine.Name || d.Image != mine.Image || d.Site != n.site(n.self) {
		return tx, fmt.Errorf("what account %s has signed is not the definition of machine %s at %s", tx.Account, mine.Name, n.site(n.self))
	}
	var spec vmm.Spec
	if err := json.Unmarshal(d.Spec, &spec); err != nil {
		return tx, fmt.Errorf("description of machine %s: %w", d.Name, err)
	}
	if spec != m.Spec || d.Memory != m.Spec.Memory {
		return tx, fmt.Errorf("what account %s has signed for machine %s is not what it would be here: sign it anew", tx.Account, d.Name)
	}
	return tx, nil
}
