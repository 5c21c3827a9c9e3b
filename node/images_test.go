package node

import (
	"slices"
	"testing"

	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/node/api"
)

func TestFetchOfAnImageWhoseBlocksAreHereTellsTheOthers(t *testing.T) {
	ctx := deadline(t)
	o := newOverlay(t, 2)
	alice, bob := o.sites[0], o.sites[1]
	o.image(ctx, alice, "os")
	if err := bob.node.order.until(ctx, func(s *ledger.State) bool { return s.Version("os") != nil }); err != nil {
		t.Fatal(err)
	}
	first, err := bob.node.FetchImage(ctx, "os", quiet)
	if err != nil || !first.Here {
		t.Fatalf("fetch: %+v, %v", first, err)
	}
	p := &ledger.Publish{Name: "os", Tag: "stable", Commit: first.Commit, Size: first.Size, Stored: first.Stored}
	if _, err := alice.node.Say(ctx, api.Say{Publish: p}); err != nil {
		t.Fatal(err)
	}
	if err := bob.node.order.until(ctx, func(s *ledger.State) bool { return s.Version("os:stable") != nil }); err != nil {
		t.Fatal(err)
	}
	if _, err := bob.node.RemoveImage(ctx, "os"); err != nil {
		t.Fatal(err)
	}
	again, err := bob.node.FetchImage(ctx, "os", quiet) // its blocks stayed: the other tag needs them
	if err != nil || !again.Here || !slices.Equal(again.HeldBy, []string{"alice", "bob"}) {
		t.Errorf("fetched again: here %v, held by %v, %v", again.Here, again.HeldBy, err)
	}
}
