package blockstore

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/x/simlibp2p"
	"github.com/marcopolo/simnet"
)

const prefix = "/dcnode-test"

// site is a store on a simulated network.
type site struct {
	*Store
	host host.Host
	id   peer.ID
}

// sites runs f in a bubble of simulated time with n sites, all joined, 20 ms
// apart, at 100 Mbit/s each. f's stores use 64 KiB leaves.
func sites(t *testing.T, n int, f func(t *testing.T, at []*site)) {
	synctest.Test(t, func(t *testing.T) {
		at := simulated(t, n)
		for _, s := range at {
			s.join(t, nil)
		}
		f(t, at)
	})
}

// simulated is n sites that know each other's addresses and have not joined.
func simulated(t *testing.T, n int) []*site {
	t.Helper()
	link := simnet.LinkSettings{BitsPerSecond: 100 * simlibp2p.OneMbps}
	net, meta, err := simlibp2p.SimpleLibp2pNetwork([]simlibp2p.NodeLinkSettingsAndCount{
		{LinkSettings: simnet.NodeBiDiLinkSettings{Downlink: link, Uplink: link}, Count: n},
	}, simnet.StaticLatency(10*time.Millisecond), simlibp2p.NetworkSettings{})
	if err != nil {
		t.Fatal(err)
	}
	net.Start()
	t.Cleanup(net.Close)
	var at []*site
	for _, h := range meta.Nodes {
		t.Cleanup(func() { h.Close() })
		for _, other := range meta.Nodes {
			h.Peerstore().AddAddrs(other.ID(), other.Addrs(), peerstore.PermanentAddrTTL)
		}
		at = append(at, &site{open(t, Config{LeafSize: 64 * kib}), h, h.ID()})
	}
	return at
}

func (s *site) join(t *testing.T, allowed func(peer.ID) bool) {
	t.Helper()
	if err := s.Join(t.Context(), s.host, prefix, allowed); err != nil {
		t.Fatal(err)
	}
}

func fetch(t *testing.T, s *site, c cid.Cid, from ...*site) FetchReport {
	t.Helper()
	rep, err := s.Fetch(t.Context(), c, ids(from), nil)
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

func ids(of []*site) []peer.ID {
	var all []peer.ID
	for _, s := range of {
		all = append(all, s.id)
	}
	return all
}

func TestFetchedImageIsWhole(t *testing.T) {
	sites(t, 2, func(t *testing.T, at []*site) {
		alice, bob := at[0], at[1]
		data := noise(1, 8<<20+512)
		clear(data[1<<20 : 3<<20])
		info, err := alice.Import(t.Context(), Source{Path: put(t, data), Kernel: put(t, noise(2, 99_999)), Time: 1}, nil)
		if err != nil {
			t.Fatal(err)
		}
		var last Progress
		rep, err := bob.Fetch(t.Context(), info.Commit, []peer.ID{alice.id}, func(p Progress) { last = p })
		if err != nil {
			t.Fatal(err)
		}
		if last.Done != last.Total || last.Total != info.Bytes || last.Blocks != info.Blocks || last.AllBlocks != info.Blocks {
			t.Errorf("last progress %+v, want %d bytes in %d blocks", last, info.Bytes, info.Blocks)
		}
		if rep.Duplicates != 0 || rep.Unasked != 0 || rep.Bytes != info.Stored {
			t.Errorf("report %+v, want %d bytes once", rep, info.Stored)
		}
		same(t, materialised(t, bob.Store, info.Commit), data)
		if err := bob.Verify(t.Context(), info.Commit); err != nil {
			t.Error(err)
		}
		if ok, err := bob.Has(t.Context(), info.Commit); !ok || err != nil {
			t.Errorf("has: %v, %v", ok, err)
		}
		if again := fetch(t, bob, info.Commit, alice); again.Blocks != 0 {
			t.Errorf("a second fetch moved %d blocks", again.Blocks)
		}
		if sent := alice.Stats().BytesSent; sent != info.Stored {
			t.Errorf("alice sent %d bytes, want %d", sent, info.Stored)
		}
	})
}

// TestOnlyWhatIsMissingIsFetched gives bob half of the image beforehand.
func TestOnlyWhatIsMissingIsFetched(t *testing.T) {
	sites(t, 2, func(t *testing.T, at []*site) {
		alice, bob := at[0], at[1]
		data := noise(1, 8<<20)
		half := append(append([]byte{}, data[:4<<20]...), noise(2, 4<<20)...)
		info := importFile(t, alice.Store, put(t, data))
		importFile(t, bob.Store, put(t, half))
		need, err := bob.Missing(t.Context(), info.Commit, []peer.ID{alice.id})
		if err != nil {
			t.Fatal(err)
		}
		if want := (Need{Blocks: 64, Bytes: 4 << 20}); need != want {
			t.Fatalf("missing %+v, want %+v", need, want)
		}
		if n := bob.Stats().BytesReceived; n > 64*kib {
			t.Errorf("%d bytes came for looking: a leaf was fetched", n)
		}
		before := alice.Stats()
		rep := fetch(t, bob, info.Commit, alice)
		if rep.Blocks != 64 || rep.Bytes != 4<<20 {
			t.Errorf("fetched %d blocks, %d bytes; want the 64 leaves, 4 MiB", rep.Blocks, rep.Bytes)
		}
		if n := alice.Stats().BytesSent - before.BytesSent; n != 4<<20 {
			t.Errorf("alice sent %d bytes", n)
		}
		same(t, materialised(t, bob.Store, info.Commit), data)
		if need, err := bob.Missing(t.Context(), info.Commit, nil); need != (Need{}) || err != nil {
			t.Errorf("missing after the fetch: %+v, %v", need, err)
		}
	})
}

func TestTwoHoldersShareTheWork(t *testing.T) {
	sites(t, 3, func(t *testing.T, at []*site) {
		alice, bob, carol := at[0], at[1], at[2]
		data := noise(1, 8<<20)
		path := put(t, data)
		info := importFile(t, alice.Store, path)
		importFile(t, bob.Store, path)
		rep := fetch(t, carol, info.Commit, alice, bob)
		if rep.Duplicates != 0 {
			t.Errorf("%d blocks came twice", rep.Duplicates)
		}
		for _, p := range rep.ByPeer {
			if p.Blocks < rep.Blocks/4 {
				t.Errorf("%s sent %d of %d blocks", p.Peer, p.Blocks, rep.Blocks)
			}
		}
		same(t, materialised(t, carol.Store, info.Commit), data)
	})
}

func TestPeersThatWereNotNamedAreNotAsked(t *testing.T) {
	sites(t, 3, func(t *testing.T, at []*site) {
		alice, bob, carol := at[0], at[1], at[2]
		path := put(t, noise(1, 4<<20))
		info := importFile(t, alice.Store, path)
		importFile(t, bob.Store, path)
		if err := carol.host.Connect(t.Context(), peer.AddrInfo{ID: bob.id}); err != nil {
			t.Fatal(err)
		}
		fetch(t, carol, info.Commit, alice)
		if n := bob.Stats().BlocksSent; n != 0 {
			t.Errorf("bob, who was not named, sent %d blocks", n)
		}
	})
}

func TestCorruptBlockComesFromTheOtherHolder(t *testing.T) {
	sites(t, 3, func(t *testing.T, at []*site) {
		alice, bob, carol := at[0], at[1], at[2]
		data := noise(1, 4<<20)
		path := put(t, data)
		info := importFile(t, alice.Store, path)
		importFile(t, bob.Store, path)
		all := leaves(t, alice.Store, info.Commit)
		for i, l := range all { // no leaf is right at both
			spoil(t, []*site{alice, bob}[i%2].Store, l.cid)
		}
		fetch(t, carol, info.Commit, alice, bob)
		same(t, materialised(t, carol.Store, info.Commit), data)
		if a, b := alice.Stats().Corrupt, bob.Stats().Corrupt; a == 0 || b == 0 {
			t.Errorf("corrupt blocks found: %d and %d", a, b)
		}
	})
}

func TestBlockThatNobodyHasIsNamed(t *testing.T) {
	sites(t, 3, func(t *testing.T, at []*site) {
		alice, bob, carol := at[0], at[1], at[2]
		path := put(t, noise(1, 2<<20))
		info := importFile(t, alice.Store, path)
		importFile(t, bob.Store, path)
		gone := leaves(t, alice.Store, info.Commit)[7].cid
		for _, s := range []*site{alice, bob} {
			if err := s.local.DeleteBlock(t.Context(), gone); err != nil {
				t.Fatal(err)
			}
		}
		start := time.Now()
		_, err := carol.Fetch(t.Context(), info.Commit, ids(at[:2]), nil)
		if !errors.Is(err, ErrNotHeld) {
			t.Fatal(err)
		}
		for _, want := range []string{gone.String(), alice.id.String(), bob.id.String()} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("error does not name %s: %v", want, err)
			}
		}
		if d := time.Since(start); d > 10*time.Second {
			t.Errorf("it took %s to say so", d)
		}
	})
}

func TestPeerThatIsNotAllowedGetsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := simulated(t, 2)
		alice, mallory := at[0], at[1]
		var expelled atomic.Bool
		expelled.Store(true)
		alice.join(t, func(p peer.ID) bool { return p != mallory.id || !expelled.Load() })
		mallory.join(t, nil)
		info := importFile(t, alice.Store, put(t, noise(1, 1<<20)))
		_, err := mallory.Fetch(t.Context(), info.Commit, []peer.ID{alice.id}, nil)
		if !errors.Is(err, ErrNotHeld) {
			t.Errorf("fetch: %v", err)
		}
		if n := alice.Stats().BlocksSent; n != 0 || held(t, mallory.Store) != 0 {
			t.Errorf("%d blocks were sent", n)
		}
		expelled.Store(false)
		fetch(t, mallory, info.Commit, alice)
	})
}

// TestLyingPeerCannotPlantBlocks lets mallory answer every want with other bytes.
func TestLyingPeerCannotPlantBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := simulated(t, 3)
		alice, bob, mallory := at[0], at[1], at[2]
		alice.join(t, nil)
		bob.join(t, nil)
		liar := &liar{}
		liar.net = bsnet.NewFromIpfsHost(mallory.host, bsnet.Prefix(prefix))
		liar.net.Start(liar)
		defer liar.net.Stop()
		data := noise(1, 4<<20)
		info := importFile(t, alice.Store, put(t, data))
		rep := fetch(t, bob, info.Commit, alice, mallory)
		if liar.lies.Load() == 0 || rep.Unasked == 0 {
			t.Fatalf("mallory told %d lies, bob noticed %d: the test shows nothing", liar.lies.Load(), rep.Unasked)
		}
		if n, want := held(t, bob.Store), held(t, alice.Store); n != want {
			t.Errorf("bob holds %d blocks, alice %d", n, want)
		}
		same(t, materialised(t, bob.Store, info.Commit), data)
	})
}

func TestFetchSurvivesAHolderThatGoesAway(t *testing.T) {
	sites(t, 3, func(t *testing.T, at []*site) {
		alice, bob, carol := at[0], at[1], at[2]
		data := noise(1, 8<<20)
		path := put(t, data)
		info := importFile(t, alice.Store, path)
		importFile(t, bob.Store, path)
		start := time.Now()
		gone := false
		_, err := carol.Fetch(t.Context(), info.Commit, ids(at[:2]), func(p Progress) {
			if !gone && p.Done > p.Total/4 {
				gone = true
				go bob.host.Close()
			}
		})
		if err != nil || !gone {
			t.Fatalf("gone %v: %v", gone, err)
		}
		if d := time.Since(start); d > 20*time.Second {
			t.Errorf("it took %s", d)
		}
		same(t, materialised(t, carol.Store, info.Commit), data)
	})
}

func TestCloseEndsAFetch(t *testing.T) {
	sites(t, 2, func(t *testing.T, at []*site) {
		alice, bob := at[0], at[1]
		info := importFile(t, alice.Store, put(t, noise(1, 8<<20)))
		var once sync.Once
		closed := make(chan error, 1)
		_, err := bob.Fetch(t.Context(), info.Commit, []peer.ID{alice.id}, func(p Progress) {
			if p.Done > 0 {
				once.Do(func() { go func() { closed <- bob.Close() }() })
			}
		})
		if err == nil {
			t.Error("fetch into a closed store succeeded")
		}
		if err := <-closed; err != nil {
			t.Error(err)
		}
		s, err := Open(bob.dir, Config{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := s.Verify(t.Context(), info.Commit); errors.Is(err, ErrCorrupt) {
			t.Error(err)
		}
	})
}

func TestFetchGoesOnWhereItWasCut(t *testing.T) {
	sites(t, 2, func(t *testing.T, at []*site) {
		alice, bob := at[0], at[1]
		data := noise(1, 6<<20)
		info := importFile(t, alice.Store, put(t, data))
		ctx, cancel := context.WithCancel(t.Context())
		first, err := bob.Fetch(ctx, info.Commit, []peer.ID{alice.id}, func(p Progress) {
			if p.Done > p.Total/2 {
				cancel()
			}
		})
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if ok, err := bob.Has(t.Context(), info.Commit); ok || err != nil {
			t.Errorf("half an image counts as whole (%v)", err)
		}
		if err := bob.Materialise(t.Context(), info.Commit, 0, filepath.Join(t.TempDir(), "x")); !errors.Is(err, ErrIncomplete) {
			t.Errorf("materialise: %v", err)
		}
		second := fetch(t, bob, info.Commit, alice)
		if first.Blocks == 0 || second.Blocks == 0 || second.Bytes > info.Stored-first.Bytes {
			t.Errorf("%d bytes, then %d of %d", first.Bytes, second.Bytes, info.Stored)
		}
		same(t, materialised(t, bob.Store, info.Commit), data)
	})
}

// TestSilentHolderIsNotWaitedFor names a peer that takes wants and answers nothing.
func TestSilentHolderIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := simulated(t, 3)
		alice, bob, dave := at[0], at[1], at[2]
		alice.join(t, nil)
		bob.join(t, nil)
		mute := bsnet.NewFromIpfsHost(dave.host, bsnet.Prefix(prefix))
		mute.Start(&deaf{})
		defer mute.Stop()
		data := noise(1, 6<<20)
		info := importFile(t, alice.Store, put(t, data))
		start := time.Now()
		fetch(t, bob, info.Commit, dave, alice)
		if d := time.Since(start); d > 30*time.Second {
			t.Errorf("it took %s", d)
		}
		same(t, materialised(t, bob.Store, info.Commit), data)

		start = time.Now()
		_, err := bob.Fetch(t.Context(), blockOf(t, noise(9, 100)), []peer.ID{dave.id}, nil)
		if !errors.Is(err, ErrStalled) || !strings.Contains(err.Error(), dave.id.String()) {
			t.Errorf("fetch from a silent peer: %v", err)
		}
		if d := time.Since(start); d < 25*time.Second || d > 35*time.Second {
			t.Errorf("it gave up after %s", d)
		}
	})
}

// blockOf is the CID that a commit of these bytes would have.
func blockOf(t *testing.T, data []byte) cid.Cid {
	t.Helper()
	return cid.NewCidV1(cid.DagCBOR, hashOf(data))
}

func TestFetchNeedsRoom(t *testing.T) {
	sites(t, 2, func(t *testing.T, at []*site) {
		alice, bob := at[0], at[1]
		info := importFile(t, alice.Store, put(t, noise(1, 4<<20)))
		bob.free = func(string) (int64, error) { return 1 << 20, nil }
		_, err := bob.Fetch(t.Context(), info.Commit, []peer.ID{alice.id}, nil)
		if !errors.Is(err, ErrNoSpace) || !strings.Contains(err.Error(), bob.dir) || !strings.Contains(err.Error(), "4194304") {
			t.Errorf("fetch: %v", err)
		}
		if n := bob.Stats().BytesReceived; n > 64*kib {
			t.Errorf("%d bytes were fetched all the same", n)
		}
	})
}

// TestBlocksThatAHolderForgetsAreAskedAgain has dave ignore every tenth block
// the first time, and answer the rest.
func TestBlocksThatAHolderForgetsAreAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := simulated(t, 2)
		bob, dave := at[0], at[1]
		bob.join(t, nil)
		f := &forgetful{from: dave.Store, net: bsnet.NewFromIpfsHost(dave.host, bsnet.Prefix(prefix)), seen: make(map[cid.Cid]bool)}
		f.net.Start(f)
		defer f.net.Stop()
		data := noise(1, 16<<20)
		info := importFile(t, dave.Store, put(t, data))
		start := time.Now()
		fetch(t, bob, info.Commit, dave)
		if f.forgot < 10 {
			t.Fatalf("dave forgot %d blocks: the test shows nothing", f.forgot)
		}
		if d := time.Since(start); d > 30*time.Second {
			t.Errorf("it took %s", d)
		}
		same(t, materialised(t, bob.Store, info.Commit), data)
	})
}
