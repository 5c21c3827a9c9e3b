package node

import (
	"fmt"
	"sync/atomic"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/dcnode/dcnode/consensus"
	"github.com/dcnode/dcnode/consensus/ledger"
)

// roster is who is a member now. The ordering loop replaces it as a whole when it has
// changed; everyone else reads it.
type roster struct{ table atomic.Pointer[table] }

// table is a roster that does not change any more.
type table struct {
	members []member                    // by ID: those of the ledger
	byPeer  map[peer.ID]ledger.MemberID // with the members of leaving, and with keys that are being changed
	leaving []member                    // the ledger has them no more, the order still counts them
	sites   map[ledger.MemberID]string  // also of those who left, as far as this run knows
}

// member is a member as the overlay needs it.
type member struct {
	ID     ledger.MemberID
	Site   string
	Region string
	Weight uint64
	Peer   peer.ID // of its key
	Old    peer.ID // of its key before a rotation that is not over; else empty
}

// set makes the ledger's members the roster. inForce are those that the order still
// counts: a member that leaves is heard until its last round is over.
func (r *roster) set(members []*ledger.Member, inForce []consensus.Member) {
	t := &table{byPeer: map[peer.ID]ledger.MemberID{}, sites: map[ledger.MemberID]string{}}
	was := r.now()
	for id, site := range was.sites {
		t.sites[id] = site
	}
	present := map[ledger.MemberID]bool{}
	for _, m := range members {
		x := member{ID: m.ID, Site: m.Site, Region: m.Region, Weight: m.Weight, Peer: peerOf(m.Key)}
		if len(m.Old) > 0 {
			x.Old = peerOf(m.Old)
		}
		t.members = append(t.members, x)
		t.sites[m.ID], present[m.ID] = m.Site, true
		t.enter(x)
	}
	for _, m := range inForce {
		if id := ledger.MemberID(m.ID); !present[id] {
			x, known := was.find(id) // with both its peers, if it leaves while it changes its key
			if !known {
				x = member{ID: id, Weight: m.Weight, Site: t.sites[id], Peer: peerOf(m.Key)}
			}
			t.leaving = append(t.leaving, x)
			t.enter(x)
		}
	}
	r.table.Store(t)
}

// call gives a name to who is no member yet.
func (r *roster) call(id ledger.MemberID, site string) {
	r.table.Store(&table{sites: map[ledger.MemberID]string{id: site}})
}

func (t *table) enter(m member) {
	for _, p := range []peer.ID{m.Peer, m.Old} {
		if p != "" {
			t.byPeer[p] = m.ID
		}
	}
}

func (r *roster) now() *table {
	if t := r.table.Load(); t != nil {
		return t
	}
	return &table{}
}

// member is the number of a peer; 0 for a stranger.
func (r *roster) member(id peer.ID) ledger.MemberID { return r.now().byPeer[id] }

// allow says whether a peer is, or speaks for, a member.
func (r *roster) allow(id peer.ID) bool { return r.member(id) != 0 }

// find is the member with that number.
func (t *table) find(id ledger.MemberID) (member, bool) {
	for _, list := range [][]member{t.members, t.leaving} {
		for _, m := range list {
			if m.ID == id {
				return m, true
			}
		}
	}
	return member{}, false
}

// site is what people call a member.
func (r *roster) site(id ledger.MemberID) string {
	if s := r.now().sites[id]; s != "" {
		return s
	}
	return fmt.Sprintf("member %d", id)
}

// peer is where a member is reached: at its key, or at the one before while it
// changes it and is still seen there. Empty: it is no member.
func (n *Node) peer(id ledger.MemberID) peer.ID {
	m, _ := n.roster.now().find(id)
	if m.Old != "" && !n.sees(m.Peer) && n.sees(m.Old) {
		return m.Old
	}
	return m.Peer
}

// sees says whether there is a connection to a peer.
func (n *Node) sees(id peer.ID) bool {
	return n.overlay != nil && len(n.overlay.Host().Network().ConnsToPeer(id)) > 0
}

// memberPeers are the peers of all members: of this one the one that it is now.
func (n *Node) memberPeers() []peer.ID {
	t := n.roster.now()
	out := []peer.ID{n.host}
	for _, list := range [][]member{t.members, t.leaving} {
		for _, m := range list {
			for _, p := range []peer.ID{m.Peer, m.Old} {
				if p != "" && m.ID != n.self {
					out = append(out, p)
				}
			}
		}
	}
	return out
}

// member is the number of a peer; 0 for a stranger.
func (n *Node) member(id peer.ID) ledger.MemberID { return n.roster.member(id) }

// site is what people call a member.
func (n *Node) site(id ledger.MemberID) string { return n.roster.site(id) }

// othersOf are the peers of some members, without this one.
func (n *Node) othersOf(ids []ledger.MemberID) []peer.ID {
	var out []peer.ID
	for _, id := range ids {
		if p := n.peer(id); id != n.self && p != "" {
			out = append(out, p)
		}
	}
	return out
}
