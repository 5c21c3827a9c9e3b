package blockstore

import (
	"testing"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
)

// tcpSite is a store on a real host that listens on the loopback interface.
// Its resource manager sets no limits: libp2p's defaults allow a peer 64 streams
// of a protocol, over which a Bitswap server loses blocks.
func tcpSite(t *testing.T) *site {
	t.Helper()
	h, err := libp2p.New(
		libp2p.Transport(tcp.NewTCPTransport), libp2p.Security(libp2ptls.ID, libp2ptls.New),
		libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay(), libp2p.DisableMetrics(),
		libp2p.ResourceManager(&network.NullResourceManager{}),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	s := &site{open(t, Config{LeafSize: 64 * kib}), h, h.ID()}
	s.join(t, nil)
	return s
}

func know(h host.Host, others ...host.Host) {
	for _, o := range others {
		h.Peerstore().AddAddrs(o.ID(), o.Addrs(), peerstore.PermanentAddrTTL)
	}
}

func TestFetchOverTCP(t *testing.T) {
	alice, bob, carol := tcpSite(t), tcpSite(t), tcpSite(t)
	know(carol.host, alice.host, bob.host)
	data := noise(1, 12<<20)
	path := put(t, data)
	info := importFile(t, alice.Store, path)
	importFile(t, bob.Store, path)
	rep := fetch(t, carol, info.Commit, alice, bob)
	if rep.Bytes != info.Stored || len(rep.ByPeer) != 2 {
		t.Errorf("report %+v, want %d bytes", rep, info.Stored)
	}
	t.Logf("%d bytes in %s, shares %v, %d duplicates", rep.Bytes, rep.Took, rep.ByPeer, rep.Duplicates)
	same(t, materialised(t, carol.Store, info.Commit), data)
}

func TestUnreachableHolderDoesNotStopTheOthers(t *testing.T) {
	alice, bob, carol := tcpSite(t), tcpSite(t), tcpSite(t)
	know(carol.host, alice.host, bob.host)
	bob.host.Close()
	data := noise(1, 2<<20)
	info := importFile(t, alice.Store, put(t, data))
	rep, err := carol.Fetch(t.Context(), info.Commit, []peer.ID{bob.id, alice.id, carol.id, alice.id}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(rep.ByPeer) != 2 || rep.ByPeer[0].Blocks != 0 || rep.ByPeer[1].Bytes != info.Stored {
		t.Errorf("shares %+v", rep.ByPeer)
	}
	same(t, materialised(t, carol.Store, info.Commit), data)
}
