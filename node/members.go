package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/gossip"
	"github.com/dcnode/dcnode/node/api"
)

// ListMembers implements api.Members.
func (n *Node) ListMembers(ctx context.Context) (api.MemberList, error) {
	s, err := n.order.State(ctx)
	if err != nil {
		return api.MemberList{}, err
	}
	ord, err := n.order.loop.Status(ctx)
	if err != nil {
		return api.MemberList{}, err
	}
	live := map[ledger.MemberID]bool{}
	for _, m := range ord.Members {
		live[ledger.MemberID(m.ID)] = m.Live
	}
	out := api.MemberList{Members: []api.Member{}, Proposals: []api.Proposal{}, Weight: s.Weight()}
	seen := n.overlay.Peers()
	for _, m := range s.Members() {
		x := api.Member{
			ID: m.ID, Site: m.Site, Region: m.Region, Weight: m.Weight, Peer: peerOf(m.Key).String(),
			Rotating: len(m.Old) > 0, Machines: []string{}, Record: m.Record,
		}
		for lm := range s.At(m.ID) {
			x.Machines = append(x.Machines, lm.Name)
		}
		n.describeMember(&x, n.peer(m.ID), seen, live[m.ID])
		out.Members = append(out.Members, x)
	}
	for _, p := range s.Proposals() {
		out.Proposals = append(out.Proposals, viewProposal(s, p))
	}
	return out, nil
}

// describeMember says how a member stands with this node.
func (n *Node) describeMember(x *api.Member, at peer.ID, seen []gossip.PeerState, live bool) {
	x.State = api.MemberAway
	if x.ID == n.self {
		x.State = api.MemberHere
		return
	}
	for _, p := range seen {
		if p.ID != at {
			continue
		}
		if !p.Since.IsZero() {
			x.Since = p.Since.UnixNano()
		}
		switch {
		case p.Connected && live:
			x.State = api.MemberConnected
		case p.Connected:
			x.State = api.MemberAsleep
		}
		x.RTT = p.RTT.Microseconds()
	}
}

// viewProposal is a proposal that waits, for people.
func viewProposal(s *ledger.State, p *ledger.Proposal) api.Proposal {
	out := api.Proposal{
		ID: p.ID, Change: p.Change, Member: p.Member, Site: p.Site, Region: p.Region, Weight: p.Weight, Force: p.Force,
		By: s.Site(p.By), Reason: p.Reason, Yes: []string{}, No: []string{}, Total: s.Weight(), Expires: int64(p.Expires), Open: true,
	}
	if len(p.Key) > 0 {
		out.Peer = peerOf(p.Key).String()
	}
	for _, v := range p.Yes {
		if m := s.Member(v.Member); m != nil {
			out.Yes = append(out.Yes, m.Site)
			out.Have += m.Weight
		}
	}
	for _, v := range p.No {
		if m := s.Member(v.Member); m != nil {
			out.No = append(out.No, m.Site)
		}
	}
	if enough := 2*out.Total/3 + 1; out.Have < enough {
		out.Needs = enough - out.Have
	}
	return out
}

// propose orders a change of the roster and says what became of it.
func (n *Node) propose(ctx context.Context, p *ledger.Propose) (api.Proposal, error) {
	v, err := n.decree(ctx, p)
	if err != nil {
		return api.Proposal{}, err
	}
	return n.proposal(ctx, api.Proposal{
		ID: v.Place.Index, Change: p.Change, Member: p.Member, Site: p.Site, Region: p.Region, Weight: p.Weight,
		Force: p.Force, By: n.site(n.self), Reason: p.Reason,
	})
}

// proposal is a proposal as it is now; was is as it was known before. One that does not
// wait any more holds or was dropped: the roster says which.
func (n *Node) proposal(ctx context.Context, was api.Proposal) (api.Proposal, error) {
	s, err := n.order.State(ctx)
	if err != nil {
		return was, err
	}
	for _, p := range s.Proposals() {
		if p.ID == was.ID {
			return viewProposal(s, p), nil
		}
	}
	was.Open, was.Needs, was.Total = false, 0, s.Weight()
	m := s.Member(was.Member)
	if was.Change == ledger.Join {
		m = s.BySite(was.Site)
	}
	switch was.Change {
	case ledger.Join:
		was.Holds = m != nil
	case ledger.Leave:
		was.Holds = m == nil
	case ledger.Update:
		was.Holds = m != nil && (was.Weight == 0 || m.Weight == was.Weight) && (was.Region == "" || m.Region == was.Region)
	}
	if m != nil {
		was.Member, was.Site = m.ID, m.Site
	}
	return was, nil
}

// VoteMember implements api.Members.
func (n *Node) VoteMember(ctx context.Context, r api.CastVote) (api.Proposal, error) {
	s, err := n.order.State(ctx)
	if err != nil {
		return api.Proposal{}, err
	}
	p, err := findProposal(s, r.On)
	if err != nil {
		return api.Proposal{}, err
	}
	was := viewProposal(s, p)
	if _, err := n.decree(ctx, p.Vote(r.Yes)); err != nil {
		return api.Proposal{}, err
	}
	if r.Yes && !slices.Contains(was.Yes, n.site(n.self)) { // it may be what has decided
		if m := s.Member(n.self); m != nil {
			was.Yes, was.Have = append(was.Yes, m.Site), was.Have+m.Weight
		}
	}
	return n.proposal(ctx, was)
}

// findProposal is the proposal with that number, or about that site.
func findProposal(s *ledger.State, on string) (*ledger.Proposal, error) {
	var found *ledger.Proposal
	id, err := strconv.ParseUint(on, 10, 64)
	for _, p := range s.Proposals() {
		switch {
		case err == nil && p.ID == id:
			return p, nil
		case p.Site != on:
		case found != nil:
			return nil, fmt.Errorf("there is more than one proposal about %s: give the number of the one that you mean (see `dcnode member ls`)", on)
		default:
			found = p
		}
	}
	if found == nil {
		return nil, fmt.Errorf("no proposal about %s waits for votes: see `dcnode member ls`", on)
	}
	return found, nil
}

// RemoveMember implements api.Members.
func (n *Node) RemoveMember(ctx context.Context, r api.LeaveOverlay) (api.Proposal, error) {
	s, err := n.order.State(ctx)
	if err != nil {
		return api.Proposal{}, err
	}
	m := s.Member(n.self)
	if r.Site != "" {
		m = s.BySite(r.Site)
	}
	if m == nil {
		return api.Proposal{}, fmt.Errorf("there is no member %s: see `dcnode member ls`", r.Site)
	}
	p, err := n.propose(ctx, &ledger.Propose{Change: ledger.Leave, Member: m.ID, Force: r.Force, Reason: r.Reason})
	if p.Site == "" {
		p.Site = m.Site
	}
	return p, err
}

// SetMember implements api.Members.
func (n *Node) SetMember(ctx context.Context, r api.SetMember) (api.Proposal, error) {
	s, err := n.order.State(ctx)
	if err != nil {
		return api.Proposal{}, err
	}
	m := s.BySite(r.Site)
	if m == nil {
		return api.Proposal{}, fmt.Errorf("there is no member %s: see `dcnode member ls`", r.Site)
	}
	return n.propose(ctx, &ledger.Propose{Change: ledger.Update, Member: m.ID, Region: r.Region, Weight: r.Weight})
}

// InviteMember implements api.Members. Inviting again gives the invitation again.
func (n *Node) InviteMember(ctx context.Context, r api.Invite) (api.Invited, error) {
	var c Card
	if err := json.Unmarshal(r.Card, &c); err != nil {
		return api.Invited{}, fmt.Errorf("read card: it is no member.json: %w", err)
	}
	if err := c.check(); err != nil {
		return api.Invited{}, err
	}
	if c.Overlay != n.genesis.overlay() {
		return api.Invited{}, fmt.Errorf("the card of %s is not for this overlay, %s: give that site genesis.json, and let it make another card with `dcnode init --overlay genesis.json`", c.Site, n.genesis.Network())
	}
	p, err := n.proposeJoin(ctx, c)
	if err != nil {
		return api.Invited{}, err
	}
	text, err := n.invitation(ctx, c, p)
	return api.Invited{Proposal: p, Invitation: text}, err
}

// proposeJoin has a card voted on, unless it is already.
func (n *Node) proposeJoin(ctx context.Context, c Card) (api.Proposal, error) {
	s, err := n.order.State(ctx)
	if err != nil {
		return api.Proposal{}, err
	}
	key := keyOf(c.Peer)
	if m := s.BySite(c.Site); m != nil && bytes.Equal(m.Key, key) {
		return api.Proposal{Change: ledger.Join, Member: m.ID, Site: m.Site, Region: m.Region, Weight: m.Weight, Peer: c.Peer.String(), Yes: []string{}, No: []string{}, Holds: true, Total: s.Weight()}, nil
	}
	for _, p := range s.Proposals() {
		if p.Change != ledger.Join || p.Site != c.Site || !bytes.Equal(p.Key, key) {
			continue
		}
		if slices.ContainsFunc(p.Yes, func(v ledger.Vote) bool { return v.Member == n.self }) {
			return viewProposal(s, p), nil
		}
		return n.VoteMember(ctx, api.CastVote{On: strconv.FormatUint(p.ID, 10), Yes: true})
	}
	p, err := n.propose(ctx, &ledger.Propose{Change: ledger.Join, Site: c.Site, Region: c.Region, Weight: c.Weight, Key: key, Proof: c.Signature})
	p.Peer = c.Peer.String()
	return p, err
}

// invitation is the file for a new site.
func (n *Node) invitation(ctx context.Context, c Card, p api.Proposal) (json.RawMessage, error) {
	s, err := n.order.State(ctx)
	if err != nil {
		return nil, err
	}
	self := s.Member(n.self)
	if self == nil {
		return nil, errors.New("this node is not a member and cannot invite")
	}
	i := Invitation{Genesis: n.genesis, Member: p.Member, Proposal: p.ID, Card: c, By: n.self, Addrs: n.addresses()}
	for _, m := range s.Members() {
		if m.ID != p.Member {
			i.Roster = append(i.Roster, Invited{ID: m.ID, Site: m.Site, Weight: m.Weight, Peer: peerOf(m.Key)})
		}
	}
	key := n.identity().holder(self.Key)
	if key == nil {
		return nil, errors.New("this node does not have the key that the ledger names")
	}
	text, err := i.signed()
	if err != nil {
		return nil, err
	}
	if i.Sig, err = key.Sign(text); err != nil {
		return nil, fmt.Errorf("sign invitation: %w", err)
	}
	return json.Marshal(i)
}

// Addresses in an invitation.
const (
	maxAddrs   = 32
	maxAddrsOf = 4 // of one member
)

// addresses are some at which members can be reached, this one's first.
func (n *Node) addresses() []string {
	out := n.overlay.Addrs()
	out = out[:min(len(out), 2*maxAddrsOf)]
	for _, p := range n.overlay.Peers() {
		if !p.Connected {
			continue
		}
		addrs := n.overlay.Host().Peerstore().Addrs(p.ID)
		for _, a := range addrs[:min(len(addrs), maxAddrsOf)] {
			out = append(out, a.String()+"/p2p/"+p.ID.String())
		}
	}
	return out[:min(len(out), maxAddrs)]
}

// RotateKey implements api.Members: it returns when the ledger has the new key. The
// rest goes by itself: see stage.
func (n *Node) RotateKey(ctx context.Context) (api.Rotated, error) {
	s, err := n.order.State(ctx)
	if err != nil {
		return api.Rotated{}, err
	}
	m := s.Member(n.self)
	if m == nil {
		return api.Rotated{}, errors.New("this node is not a member and has no key to change")
	}
	if len(m.Old) > 0 {
		return api.Rotated{}, errors.New("the last change of this member's key is not over yet: see `dcnode member ls`")
	}
	if err := n.makeNext(); err != nil {
		return api.Rotated{}, err
	}
	next := publicOf(n.identity().next)
	return carryOn(ctx, n, func(ctx context.Context) (api.Rotated, error) {
		n.spawn(func() { n.turn(n.taskCtx) })
		wait, cancel := context.WithTimeoutCause(ctx, orderWithin, fmt.Errorf("the new key is not ordered yet: the order does not move: %s; it is kept and said again", n.whoIsAway()))
		defer cancel()
		err := n.order.until(wait, func(s *ledger.State) bool {
			m := s.Member(n.self)
			return m == nil || bytes.Equal(m.Key, next)
		})
		return api.Rotated{Old: peerOf(m.Key).String(), New: peerOf(next).String()}, err
	})
}
