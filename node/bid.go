package node

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/node/survey"
	"github.com/dcnode/dcnode/vmm"
)

// bid answers an Intent: what this member could offer, measured now, or why it
// cannot take the machine.
func (n *Node) bid(ctx context.Context, mv ledger.Move) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(n.rules.BidWindow)*3/4)
	defer cancel()
	b := n.offer(ctx, mv.Machine, mv.From, mv.Needs)
	b.Move = mv.ID
	n.submitLater(b)
}

// offer is what this node would bid for a machine of a member, measured now, or why it
// cannot take it.
func (n *Node) offer(ctx context.Context, machine string, owner ledger.MemberID, needs ledger.Needs) *ledger.Bid {
	b := &ledger.Bid{Machine: machine}
	if err := n.fillBid(ctx, b, owner, needs); err != nil {
		b.Able, b.Reason = false, reason(err)
	}
	return b
}

func (n *Node) fillBid(ctx context.Context, b *ledger.Bid, owner ledger.MemberID, needs ledger.Needs) error {
	s, err := n.order.State(ctx)
	if err != nil {
		return err
	}
	b.Expires = s.Now() + n.rules.BidExpiry // time in the order only grows: it is not too far ahead there
	d, err := n.driver(needs.Driver)
	if err != nil {
		return err
	}
	c := d.Probe(ctx)
	b.Driver, b.Version, b.Accelerator, b.Machines = c.Driver, c.Version, c.Accelerator, c.MachineTypes
	b.CPUModel, b.CPUFeatures = c.CPUModel, c.CPUFeatures
	if err := fits(c, needs); err != nil {
		return err
	}
	if err := n.fillRoom(b); err != nil {
		return err
	}
	b.Moves = n.moves()
	way, err := n.wayFrom(ctx, n.peer(owner), wayTo(needs.Paths, n.self))
	if err != nil {
		return err
	}
	b.RTT, b.Bandwidth = way.RTT.Microseconds(), way.Bandwidth
	if b.MissingData, err = n.missing(ctx, b.Machine); err != nil {
		return err
	}
	b.Able = true
	return nil
}

// wayTo is what an owner has measured of its way to a member, or nothing.
func wayTo(ways []ledger.Way, to ledger.MemberID) ledger.Way {
	if i := slices.IndexFunc(ways, func(w ledger.Way) bool { return w.Member == to }); i >= 0 {
		return ways[i]
	}
	return ledger.Way{}
}

// fits says why a driver here cannot take a machine at all. What the ledger can see
// in the bid it judges itself.
func fits(c vmm.Capabilities, need ledger.Needs) error {
	switch {
	case !c.Available:
		return fmt.Errorf("%s is not available: %s", c.Driver, c.Why)
	case !c.CanMigrate:
		return fmt.Errorf("%s cannot take a migration: %s", c.Driver, c.WhyNot)
	case need.Accelerator == "kvm" && c.Accelerator != "kvm":
		return fmt.Errorf("the machine runs under kvm, here is %s (%s)", c.Accelerator, c.Why)
	}
	return nil
}

// perCPU is how many virtual CPUs of machines a CPU of the host may carry.
const perCPU = 4

// fillRoom tells what would be free if nothing were on its way here: the ledger knows
// what is, and takes it off. What a machine that is arriving has of this host's memory
// by now cannot be told from what the host lacks otherwise and is not put back.
func (n *Node) fillRoom(b *ledger.Bid) error {
	h, err := survey.LookAtHost(n.cfg.Dir)
	if err != nil {
		return err
	}
	total := h.Memory
	if n.cfg.MaxMemory > 0 {
		total = min(total, n.cfg.MaxMemory)
	}
	vcpus := int64(perCPU * runtime.NumCPU())
	b.FreeDisk = h.FreeDisk
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, m := range n.machines {
		if m.Step == stepArriving || m.Step == stepLoaded {
			b.FreeDisk += overlayBytes(m.files.Dir)
			continue
		}
		total -= m.Spec.Memory
		vcpus -= int64(m.Spec.VCPUs)
	}
	b.FreeMemory, b.FreeVCPUs = max(min(h.FreeMemory, total), 0), max(vcpus, 0)
	return nil
}

// moves is in how many migrations this node takes part now.
func (n *Node) moves() int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return int64(len(n.outs) + len(n.ins))
}

// missing is how many bytes of the machine's image this node lacks.
func (n *Node) missing(ctx context.Context, machine string) (int64, error) {
	commit, holders, err := n.imageOf(ctx, machine)
	if err != nil {
		return 0, err
	}
	need, err := n.store.Missing(ctx, commit, holders)
	if err != nil {
		return 0, fmt.Errorf("compare image: %w", err)
	}
	return need.Bytes, nil
}

// imageOf is the commit of a machine's image and who else holds it.
func (n *Node) imageOf(ctx context.Context, machine string) (cid.Cid, []peer.ID, error) {
	s, err := n.order.State(ctx)
	if err != nil {
		return cid.Undef, nil, err
	}
	m := s.Machine(machine)
	if m == nil {
		return cid.Undef, nil, fmt.Errorf("there is no machine %s", machine)
	}
	c, err := cid.Decode(m.Commit)
	if err != nil {
		return cid.Undef, nil, fmt.Errorf("commit of machine %s: %w", machine, err)
	}
	owners := []ledger.MemberID{m.Owner}
	if m.Move != nil {
		owners = append(owners, m.Move.From)
	}
	if v := s.VersionOf(m); v != nil {
		owners = append(owners, v.Holders...)
	}
	slices.Sort(owners)
	return c, n.othersOf(slices.Compact(owners)), nil
}

// freeMemory is what this node may still give to machines, in bytes.
func (n *Node) freeMemory() (int64, error) {
	host, err := survey.FreeMemory()
	if err != nil || n.cfg.MaxMemory == 0 {
		return host, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	left := n.cfg.MaxMemory
	for _, m := range n.machines {
		left -= m.Spec.Memory
	}
	return min(host, left), nil
}
