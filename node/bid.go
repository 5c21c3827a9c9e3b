package node

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sys/unix"

	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/gossip"
	"github.com/dcnode/dcnode/vmm"
)

// bid answers an Intent: what this member could offer, measured now, or why it
// cannot take the machine.
func (n *Node) bid(ctx context.Context, mv ledger.Move) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(n.genesis.Rules.BidWindow)*3/4)
	defer cancel()
	b, err := n.makeBid(ctx, mv)
	if err != nil {
		b.Eligible, b.Reason = false, reason(err)
	}
	n.submitLater(b)
}

func (n *Node) makeBid(ctx context.Context, mv ledger.Move) (*ledger.Bid, error) {
	b := &ledger.Bid{Machine: mv.Machine, Move: mv.ID}
	d, err := n.driver(mv.Needs.Driver)
	if err != nil {
		return b, err
	}
	c := d.Probe(ctx)
	b.VMM = strings.TrimSpace(c.Driver + " " + c.Version + " " + c.Accelerator)
	if err := fits(c, mv.Needs); err != nil {
		return b, err
	}
	if b.FreeMemory, err = n.freeMemory(); err != nil {
		return b, err
	}
	if b.FreeDisk, err = freeDisk(n.cfg.Dir); err != nil {
		return b, err
	}
	b.RTT, b.Bandwidth, err = n.measure(ctx, n.genesis.peer(mv.From))
	if err != nil {
		return b, fmt.Errorf("measure the path to %s: %w", n.site(mv.From), err)
	}
	if b.MissingData, err = n.missing(ctx, mv); err != nil {
		return b, err
	}
	b.Predicted = predict(b, mv.Needs)
	switch {
	case b.FreeMemory < mv.Needs.Memory:
		return b, fmt.Errorf("%d MiB of memory free, %d needed", b.FreeMemory>>20, mv.Needs.Memory>>20)
	case b.FreeDisk < b.MissingData+mv.Needs.Disk:
		return b, fmt.Errorf("%d MiB of disk free, up to %d needed", b.FreeDisk>>20, (b.MissingData+mv.Needs.Disk)>>20)
	}
	b.Eligible = true
	return b, nil
}

// fits says why a driver here cannot take a machine with these needs.
func fits(c vmm.Capabilities, need ledger.Needs) error {
	switch {
	case !c.Available:
		return fmt.Errorf("%s is not available: %s", c.Driver, c.Why)
	case !c.CanMigrate:
		return fmt.Errorf("%s cannot take a migration: %s", c.Driver, c.WhyNot)
	case need.Accelerator == "kvm" && c.Accelerator != "kvm":
		return fmt.Errorf("the machine runs under kvm, here is %s (%s)", c.Accelerator, c.Why)
	case need.MachineType != "" && len(c.MachineTypes) > 0 && !slices.Contains(c.MachineTypes, need.MachineType):
		return fmt.Errorf("%s %s does not know the machine type %s", c.Driver, c.Version, need.MachineType)
	}
	return nil
}

// fixed is what a move costs besides bytes: starting the receiver, preparing, and
// the order. Milliseconds, measured under load.
const fixed = 1500

// predict is the time of a whole move in milliseconds: bytes over bandwidth, round
// trips for the passes, and what is fixed.
func predict(b *ledger.Bid, need ledger.Needs) int64 {
	bytes := b.MissingData + need.MemoryBytes + need.DiskBytes
	return fixed + bytes*1000/max(b.Bandwidth, 1) + 20*b.RTT/1000
}

// missing is how many bytes of the machine's image this node lacks.
func (n *Node) missing(ctx context.Context, mv ledger.Move) (int64, error) {
	commit, holders, err := n.imageOf(ctx, mv.Machine)
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
	if img := s.Image(m.Image); img != nil {
		owners = append(owners, img.Holders...)
	}
	slices.Sort(owners)
	var holders []peer.ID
	for _, id := range slices.Compact(owners) {
		if id != n.self {
			holders = append(holders, n.genesis.peer(id))
		}
	}
	return c, holders, nil
}

// The path to a member is measured, not typed in: a ping for the round trip, and
// the arrival of a short run of bytes for the bandwidth.
const (
	protoProbe = "/probe/1"
	probeBytes = 512 << 10
)

func (n *Node) serveProbe() {
	n.overlay.Handle(protoProbe, func(_ context.Context, s gossip.Stream) {
		defer s.Close()
		_ = s.SetDeadline(time.Now().Add(reasonable))
		_, _ = s.Write(make([]byte, probeBytes))
	})
}

// measure is the round trip in microseconds and the bandwidth in bytes per second
// from a member to here. The first half of the run is not counted: it opens the
// congestion window.
func (n *Node) measure(ctx context.Context, from peer.ID) (rtt, bandwidth int64, err error) {
	d, err := n.overlay.RTT(ctx, from)
	if err != nil {
		return 0, 0, err
	}
	s, err := n.overlay.Open(ctx, from, protoProbe)
	if err != nil {
		return 0, 0, err
	}
	defer s.Close()
	if t, ok := ctx.Deadline(); ok {
		_ = s.SetDeadline(t)
	}
	if _, err := io.CopyN(io.Discard, s, probeBytes/2); err != nil {
		return 0, 0, err
	}
	half := time.Now()
	if _, err := io.CopyN(io.Discard, s, probeBytes/2); err != nil {
		return 0, 0, err
	}
	took := max(time.Since(half), 100*time.Microsecond)
	return d.Microseconds(), int64(probeBytes / 2 * int64(time.Second) / int64(took)), nil
}

// freeMemory is what this node may still give to machines, in bytes.
func (n *Node) freeMemory() (int64, error) {
	host, err := availableMemory()
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

func availableMemory() (int64, error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, fmt.Errorf("look at free memory: %w", err)
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		fields := strings.Fields(sc.Text())
		if len(fields) == 3 && fields[0] == "MemAvailable:" {
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("look at free memory: %s has no MemAvailable", f.Name())
}

func freeDisk(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("look at free disk: %w", err)
	}
	return int64(st.Bavail) * st.Bsize, nil
}

func (n *Node) site(id ledger.MemberID) string {
	if id == 0 || int(id) > len(n.genesis.Members) {
		return fmt.Sprintf("member %d", id)
	}
	return n.genesis.Members[id-1].Site
}

// needs is what a machine asks of a destination.
func (n *Node) needs(m *machine) ledger.Needs {
	need := ledger.Needs{
		Memory: m.Spec.Memory, VCPUs: m.Spec.VCPUs, Driver: m.Spec.Driver, Accelerator: m.Spec.Accelerator,
		MachineType: m.Spec.MachineType, MemoryBytes: m.Spec.Memory / 4, // until a move has been measured
	}
	for _, d := range m.files.Disks {
		need.Disk += d.Size
	}
	need.DiskBytes = min(need.Disk, overlayBytes(m.files.Dir))
	return need
}

// overlayBytes is what a machine's directory takes on disk.
func overlayBytes(dir string) int64 {
	var sum int64
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0
	}
	for _, e := range entries {
		info, err := e.Info()
		if err == nil && info.Mode().IsRegular() {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				sum += st.Blocks * 512
			}
		}
	}
	return sum
}
