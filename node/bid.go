package node

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"

	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/node/survey"
	"github.com/dcnode/dcnode/vmm"
)

// bid answers an Intent: what this member could offer, measured now, or why it
// cannot take the machine.
func (n *Node) bid(ctx context.Context, mv ledger.Move) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(n.rules.BidWindow)*3/4)
	defer cancel()
	end, err := n.embark()
	defer end()
	b := &ledger.Bid{Machine: mv.Machine}
	if err != nil {
		b.Reason = reason(err)
	} else {
		b = n.offer(ctx, mv.Machine, mv.From, mv.Needs)
	}
	b.Move = mv.ID
	n.say(b)
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
	b.Driver, b.Version, b.Accelerator, b.CPUModel = c.Driver, c.Version, c.Accelerator, c.CPUModel
	b.Machines, b.CPUFeatures = wanted(c, needs)
	if err := fits(c, needs); err != nil {
		return err
	}
	r, err := n.room(false)
	if err != nil {
		return err
	}
	b.FreeMemory, b.FreeDisk, b.FreeVCPUs = r.memory, r.disk, r.vcpus
	b.Moves = n.moves()
	var ask errgroup.Group
	ask.Go(func() error {
		way, err := n.wayFrom(ctx, n.peer(owner), wayTo(needs.Paths, n.self))
		b.RTT, b.Bandwidth, b.Unsure = way.RTT.Microseconds(), way.Bandwidth, way.Unsure
		return err
	})
	ask.Go(func() (err error) { b.MissingData, err = n.missing(ctx, b.Machine); return err })
	if err := ask.Wait(); err != nil {
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

// wanted is what a bid says of the machine types and CPU features that a driver knows: those
// that are needed. Hundreds of others would change nothing, and the ledger orders every
// bid. A driver that does not know the machine type names another, which says so.
func wanted(c vmm.Capabilities, need ledger.Needs) (types, features []string) {
	switch {
	case need.MachineType == "" || len(c.MachineTypes) == 0:
	case slices.Contains(c.MachineTypes, need.MachineType):
		types = []string{need.MachineType}
	default:
		types = c.MachineTypes[:1]
	}
	for _, f := range need.CPUFeatures { // they are sorted
		if slices.Contains(c.CPUFeatures, f) {
			features = append(features, f)
		}
	}
	return types, features
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

// room is what this host has for machines beside those that are here. Sizes are in bytes.
type room struct{ memory, disk, vcpus int64 }

// room looks what there is now. coming says whether machines that are on their way here
// count as here. For bids they do not: the ledger knows of them and takes them off. What
// such a machine has of this host's memory by now cannot be told from what the host lacks
// otherwise and is not put back.
func (n *Node) room(coming bool) (room, error) {
	h, err := survey.LookAtHost(n.cfg.Dir)
	if err != nil {
		return room{}, err
	}
	r := room{memory: h.Memory, disk: h.FreeDisk, vcpus: int64(perCPU * h.CPUs)}
	if n.cfg.MaxMemory > 0 {
		r.memory = min(r.memory, n.cfg.MaxMemory)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, m := range n.machines {
		if !coming && (m.Step == stepArriving || m.Step == stepLoaded) {
			r.disk += overlayBytes(m.files.Dir)
			continue
		}
		r.memory -= m.Spec.Memory
		r.vcpus -= int64(m.Spec.VCPUs)
	}
	r.memory, r.vcpus = max(min(h.FreeMemory, r.memory), 0), max(r.vcpus, 0)
	return r, nil
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
