package node

import (
	"context"
	"encoding/hex"
	"slices"

	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/node/api"
)

var _ api.Backend = (*Node)(nil)

// Version is the release of this dcnode.
const Version = "0.1.0"

// Status implements api.Overlay.
func (n *Node) Status(ctx context.Context) (api.Status, error) {
	st := api.Status{
		Site: n.site(n.self), Peer: n.overlay.ID().String(), Network: n.genesis.Network(), Version: Version,
		Addrs: n.overlay.Addrs(),
	}
	n.mu.Lock()
	st.Drivers = slices.Clone(n.can)
	n.mu.Unlock()
	seen := n.overlay.Peers()
	for _, c := range n.roster.now().members {
		m := api.MemberStatus{Site: c.Site, Peer: c.Peer.String(), Region: c.Region, Self: c.ID == n.self}
		m.Connected = m.Self
		for _, p := range seen {
			if p.ID == c.Peer || p.ID == c.Old && p.Connected {
				m.Connected, m.Transport, m.RTT = p.Connected || m.Self, p.Transport, p.RTT.Microseconds()
			}
		}
		st.Members = append(st.Members, m)
	}
	ord, err := n.order.loop.Status(ctx)
	if err != nil {
		return st, err
	}
	st.Round, st.Waiting, st.Observing = ord.Pending, ord.Waiting, ord.Observing
	st.Joining, st.Behind = ord.Joining, ord.Behind
	if out, of := n.outside(); out {
		st.Site, st.Awaits = n.invited.Card.Site, of // no roster has it yet
	}
	if ord.Entering != nil {
		st.Lacks = ord.Entering.Lacks
	}
	st.Left = ord.Left
	for _, m := range ord.WaitsFor {
		st.WaitsFor = append(st.WaitsFor, n.site(ledger.MemberID(m)))
	}
	st.Log.File, st.Log.Synced = n.order.loop.LogFile()
	st.Pace = api.Pace{Late: ord.Late, Copied: ord.Copied, WaitUS: ord.Delta / 1000}
	for _, m := range ord.Members {
		for i := range st.Members {
			if st.Members[i].Site == n.site(ledger.MemberID(m.ID)) {
				st.Members[i].Live = m.Live
			}
		}
	}
	for _, s := range ord.Suspects {
		sus := api.Suspect{Site: n.site(ledger.MemberID(s.Member)), What: s.What, Count: s.Count}
		for _, h := range s.Evidence {
			sus.Evidence = append(sus.Evidence, hex.EncodeToString(h[:]))
		}
		st.Suspects = append(st.Suspects, sus)
	}
	if err := n.order.do(ctx, func() { st.Suspects = append(st.Suspects, n.doubted()...) }); err != nil {
		return st, err
	}
	s, root, err := n.order.Root(ctx)
	if err == nil {
		st.Ordered, st.Root = s.Next(), root.String()
	}
	return st, err
}

// Ledger implements api.Overlay.
func (n *Node) Ledger(ctx context.Context) (*api.Ledger, error) {
	s, root, err := n.order.Root(ctx)
	if err != nil {
		return nil, err
	}
	return api.Export(s, root), nil
}
