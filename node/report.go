package node

import (
	"encoding/hex"
	"fmt"

	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/node/api"
	"github.com/dcnode/dcnode/node/migrate"
)

// describe begins the report of a move with what the ledger selected, and why.
func (n *Node) describe(m *machine, mv ledger.Move) api.Report {
	rep := api.Report{
		Machine: m.Spec.Name, Driver: m.Spec.Driver, Accelerator: m.Spec.Accelerator,
		Source: n.site(mv.From), Destination: n.site(mv.To), Epoch: mv.Epoch + 1, Phases: map[string]float64{},
	}
	eligible := 0
	for _, b := range mv.Bids {
		if b.Eligible {
			eligible++
		}
		rep.Bids = append(rep.Bids, api.Bid{
			Member: n.site(b.Member), Eligible: b.Eligible, Reason: b.Reason, PredictedSeconds: float64(b.Predicted) / 1000,
			MissingBytes: b.MissingData, RTTMillis: float64(b.RTT) / 1000, Bandwidth: b.Bandwidth, FreeMemory: b.FreeMemory, VMM: b.VMM,
		})
		if b.Member == mv.To {
			rep.Why = fmt.Sprintf("%s: predicted %.1f s, lacks %.1f MiB of the image", n.site(b.Member), float64(b.Predicted)/1000, float64(b.MissingData)/(1<<20))
		}
	}
	switch {
	case mv.Only != 0:
		rep.Why += "; the only one asked"
	case eligible > 1:
		rep.Why += fmt.Sprintf("; the least of %d eligible bids", eligible)
	default:
		rep.Why += "; the only eligible bid"
	}
	return rep
}

// account enters what the transfer did.
func (t *transfer) account(r migrate.Report) {
	for _, p := range r.Phases {
		t.rep.Phases[string(p.Phase)] += p.Duration.Seconds()
	}
	t.rep.DowntimeQEMU = r.Downtime
	t.rep.Digest = hex.EncodeToString(r.Digest[:])
	b := &t.rep.Bytes
	b.MemoryPlain, b.MemorySent = r.MemoryPlain, r.MemorySent
	b.DiskPlain, b.DiskSent = r.DiskPlain, r.DiskSent
	o := r.Stream.Plain
	b.ByOrigin = map[string]int64{"zero": o.Zero, "disk": o.Disk, "self": o.Self, "literal": o.Literal, "opaque": o.Opaque}
}
