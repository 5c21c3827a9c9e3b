package node

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

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
	able := 0
	for _, b := range mv.Bids {
		bid := api.Bid{
			Member: n.site(b.Member), Eligible: b.Able, Reason: b.Reason, MissingBytes: b.MissingData, RTTMillis: float64(b.RTT) / 1000,
			Bandwidth: b.Bandwidth, FreeMemory: b.FreeMemory, VMM: strings.TrimSpace(b.Driver + " " + b.Version + " " + b.Accelerator),
		}
		if b.Able {
			able++
		}
		for _, a := range mv.Against {
			if a.Member == b.Member {
				bid.Reason = strings.Join(a.Reasons, "; ")
			}
		}
		if b.Member == mv.To {
			bid.PredictedSeconds = float64(mv.Forecast.Millis) / 1000
			rep.Why = fmt.Sprintf("%s: predicted %.1f s, lacks %.1f MiB of the image", n.site(b.Member), bid.PredictedSeconds, float64(b.MissingData)/(1<<20))
		}
		rep.Bids = append(rep.Bids, bid)
	}
	switch {
	case mv.Only != 0:
		rep.Why += "; the only one asked"
	case able > 1:
		rep.Why += fmt.Sprintf("; the best of %d that can take it", able)
	default:
		rep.Why += "; the only one that can take it"
	}
	return rep
}

// truth is what a move was, for the ledger, which learns from it.
func truth(r *api.Report) ledger.Truth {
	return ledger.Truth{Image: r.Bytes.ImageSent, Disk: r.Bytes.DiskSent, Memory: r.Bytes.MemorySent, Pause: r.DowntimeQEMU, Millis: int64(r.Consensus.Move)}
}

// reportedWithin is how long a move waits for what the ledger makes of its report.
const reportedWithin = 5 * time.Second

// reportMove orders the report of a move that is done, from which the ledger learns, and
// puts what it was beside what was predicted.
func (n *Node) reportMove(ctx context.Context, move uint64, rep *api.Report) {
	ctx, cancel := context.WithTimeout(ctx, reportedWithin)
	defer cancel()
	body := &ledger.Report{Machine: rep.Machine, Move: move, Truth: truth(rep)}
	n.submitLater(body)
	_ = n.order.until(ctx, func(s *ledger.State) bool {
		m := s.Machine(rep.Machine)
		if m == nil || m.Last == nil || m.Last.ID != move {
			return m == nil || m.Last != nil && m.Last.ID > move
		}
		forecast := m.Last.Forecast
		rep.Forecast, rep.Truth = &forecast, m.Last.Truth
		return rep.Truth != nil
	})
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
