package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/dcnode/dcnode/consensus"
	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/gossip"
)

// Deadlines of a change of the roster.
const (
	lookAgain    = 200 * time.Millisecond // whether a new roster is in force
	partWithin   = 20 * time.Second       // for the last rounds of a member that leaves
	partAtStart  = 5 * time.Second        // for others to be connected to one that has left and was started again
	sayItWaits   = time.Minute            // between two lines of a log about the same
	restWithin   = 15 * time.Minute       // for migrations to end before the node opens itself again
	forgetWithin = 2 * time.Minute        // for the order to take the end of a rotation
	refusedFor   = 10 * time.Second       // by all that answer, until this node believes them
)

// hostKey is the key with which this node takes part in the overlay: the one that the
// roster in force names. While the key is being changed the others take both, but not
// before they have come to that place of the order, which may need this node's word;
// when the new roster is in force here, they have.
func (n *Node) hostKey() (crypto.PrivKey, error) {
	key := n.keys.key
	if m := n.order.state.Member(n.self); m != nil {
		if key = n.keys.holder(m.Key); key == nil && len(m.Old) > 0 {
			key = n.keys.holder(m.Old)
		}
	}
	for _, m := range n.order.loop.InForce() {
		if m.ID == uint64(n.self) {
			if named := n.keys.holder(m.Key); named != nil {
				key = named
			}
		}
	}
	if key == nil {
		return nil, fmt.Errorf("the ledger names another key for this member than those in %s: put back %s as it was", n.cfg.Dir, identityFile)
	}
	n.host = peerOf(publicOf(key))
	return key, nil
}

// rosterChanged is called by the ordering loop when the ledger's roster has changed, and
// again when that has come into force, so that who has left is cut off at that moment;
// it never blocks.
func (n *Node) rosterChanged(s *ledger.State) {
	n.roster.set(s.Members(), n.order.loop.InForce())
	for _, m := range n.roster.now().members {
		if m.Old != "" {
			n.survey.Same(m.Old, m.Peer)
		}
	}
	n.overlay.Refresh()
	n.mu.Lock()
	was := n.belongs
	n.belongs = s.Member(n.self) != nil
	is := n.belongs
	n.mu.Unlock()
	if was != is {
		n.spawn(func() { n.follow(is) })
	}
}

// follow sees it through that this node becomes a member, or is one no more, until that
// is in force. It takes as long as it takes, but for who has left: nobody can make the
// others let it go.
func (n *Node) follow(is bool) {
	var late <-chan time.Time
	if !is {
		timer := time.NewTimer(partWithin)
		defer timer.Stop()
		late = timer.C
	}
wait:
	for n.counts() != is {
		select {
		case <-time.After(lookAgain):
		case <-late:
			break wait
		case <-n.taskCtx.Done():
			return
		}
	}
	if is {
		if err := keepSelf(n.cfg.Dir, n.self); err != nil {
			n.log.Error("remember that this is a member", "cause", err)
		}
		n.log.Info("this node is a member", "site", n.site(n.self), "overlay", n.genesis.Network())
		return
	}
	n.linger()
	if err := n.noteLeft(); err != nil {
		n.log.Error("remember that this is no member any more", "cause", err)
	}
	n.end(n.departed())
}

// counts says whether the order counts this node: the roster in force has it.
func (n *Node) counts() bool {
	return slices.ContainsFunc(n.order.loop.InForce(), func(m consensus.Member) bool { return m.ID == uint64(n.self) })
}

// linger stays while others still hear this node, which has left: they cut it off when
// they have come to its last round themselves, and need its events until then. After a
// start they are given a moment to be there.
func (n *Node) linger() {
	began := time.Now()
	for time.Since(began) < partWithin {
		heard := slices.ContainsFunc(n.overlay.Peers(), func(p gossip.PeerState) bool { return p.Connected })
		if !heard && (!n.parting || time.Since(began) > partAtStart) || pause(n.taskCtx, lookAgain) != nil {
			return
		}
	}
}

// end makes Run return.
func (n *Node) end(why error) {
	select {
	case n.over <- why:
	default:
	}
}

// NotMemberError: the node has left the overlay, or was voted out.
type NotMemberError struct {
	Site, Network string
	Machines      []string // that are still on this host
	Refused       []string // sites that refuse this node, if that is how it knows
}

func (e *NotMemberError) Error() string {
	s := fmt.Sprintf("this node (%s) is no longer a member of overlay %s: it has left or was voted out, and takes part no more", e.Site, e.Network)
	if len(e.Refused) > 0 {
		s = fmt.Sprintf("this node (%s) is no longer a member of overlay %s: %s refuse it: it was voted out while it was away, or they know another key of it", e.Site, e.Network, strings.Join(e.Refused, ", "))
	}
	if len(e.Machines) == 0 {
		return s + "; nothing of the overlay's is left here"
	}
	return s + "; on this host there are still: " + strings.Join(e.Machines, ", ")
}

// departed says that this node is no longer a member, and what it leaves behind.
// refused are the sites that do not let it in, if it has not read it in the ledger.
func (n *Node) departed(refused ...string) error {
	e := &NotMemberError{Site: n.site(n.self), Network: n.genesis.Network(), Refused: refused}
	records, err := n.readRecords()
	for _, r := range records {
		e.Machines = append(e.Machines, r.Spec.Name)
	}
	if err != nil {
		return errors.Join(e, err)
	}
	return e
}

// belong is a member's part in the roster: it waits to be let in, goes on with what
// it has begun to change of itself, and ends when the node must.
func (n *Node) belong(ctx context.Context) error {
	n.spawn(func() { n.awaitApproval(ctx) })
	n.spawn(func() { n.turn(ctx) })
	n.spawn(func() { n.heedRefusals(ctx) })
	if n.parting {
		n.spawn(func() { n.follow(false) })
	}
	select {
	case err := <-n.over:
		if !errors.Is(err, ErrReopen) {
			n.log.Error("the node ends", "cause", err)
		}
		return err
	case <-ctx.Done():
		return nil
	}
}

// heedRefusals ends the node when nobody has let it in for a while, and members of more
// than a third of the weight refuse it. Who was voted out while it was away cannot read
// that in the ledger, as nobody tells it anything; but so much weight has an honest
// member in it whose roster this node is not in.
func (n *Node) heedRefusals(ctx context.Context) {
	var since time.Time
	for {
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return
		}
		by := n.refusedBy(ctx)
		switch {
		case by == nil:
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		case time.Since(since) >= refusedFor:
			n.end(n.departed(by...))
			return
		}
	}
}

// refusedBy are the sites that refuse this node, if it is a member as far as it knows,
// they have more than a third of the weight, and nobody is connected to it.
func (n *Node) refusedBy(ctx context.Context) []string {
	s, err := n.order.State(ctx)
	if err != nil || s.Member(n.self) == nil {
		return nil
	}
	refuses := map[peer.ID]bool{}
	for _, p := range n.overlay.Peers() {
		if p.Connected {
			return nil
		}
		refuses[p.ID] = errors.Is(p.Err, gossip.ErrRefused)
	}
	var by []string
	weight := uint64(0)
	for _, m := range s.Members() {
		if m.ID != n.self && refuses[n.peer(m.ID)] {
			by = append(by, m.Site)
			weight += m.Weight
		}
	}
	if 3*weight <= s.Weight() { // it cannot overflow: weights and members are bounded
		return nil
	}
	return by
}

// outside says whether this node has been invited and is not a member yet, and whose
// word it waits for.
func (n *Node) outside() (bool, []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.belongs || n.entered || n.invited == nil {
		return false, nil
	}
	var of []string
	for _, m := range n.invited.Roster {
		of = append(of, m.Site)
	}
	return true, of
}

// awaitApproval tells the log what an invited node waits for.
func (n *Node) awaitApproval(ctx context.Context) {
	for {
		out, of := n.outside()
		if !out {
			return
		}
		n.log.Info("waits for the approval of members of more than two thirds of the weight: they say `dcnode member approve "+n.invited.Card.Site+"`", "members", strings.Join(of, ", "))
		select {
		case <-time.After(sayItWaits):
		case <-ctx.Done():
			return
		}
	}
}
