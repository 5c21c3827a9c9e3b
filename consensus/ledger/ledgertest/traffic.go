package ledgertest

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/dcnode/dcnode/consensus/ledger"
)

// Traffic is what the members of a busy overlay say: machines are defined and moved all
// the time, every member bids for every move, and a few of the transactions are lies.
// It follows a state that it is given what came of, and keeps no more than what is
// still to be said.
type Traffic struct {
	*rand.Rand
	Network [32]byte
	Members []ledger.Member
	// Moving is about how many moves are under way at once.
	Moving int
	// Hostile is how many in a thousand transactions are not meant to hold.
	Hostile int

	s       *ledger.State
	place   ledger.Place
	seqs    []uint64
	queues  [][]ledger.Body // of each member, what it is to say
	names   []string        // of the machines
	moves   int
	author  int
	replays [][]byte
	made    map[ledger.Kind]int
}

// batch is the most transactions of one event.
const batch = 32

// NewTraffic is that of so many members with the same weight.
func NewTraffic(seed uint64, members int) *Traffic {
	t := &Traffic{
		Rand: rand.New(rand.NewPCG(seed, 7)), Moving: 16 * members, Hostile: 50,
		seqs: make([]uint64, members), queues: make([][]ledger.Body, members), made: map[ledger.Kind]int{},
	}
	binary.BigEndian.PutUint64(t.Network[:], seed+1)
	w := newWorld(seed)
	for i := range members {
		t.Members = append(t.Members, ledger.Member{
			ID: ledger.MemberID(i + 1), Site: fmt.Sprintf("site%d", i+1), Region: []string{"eu", "us", "ap"}[i%3], Weight: 1,
			Key: public(w.key(fmt.Sprint("site ", i+1))),
		})
	}
	t.place = ledger.Place{Time: 1.7e18}
	t.author = members - 1 // the first begins
	return t
}

// Founded is the state before the first event, which the traffic follows from then on.
func (t *Traffic) Founded() (*ledger.State, error) {
	s, err := ledger.New(t.Members, ledger.Rules{})
	t.s = s
	return s, err
}

// Made is how many of each kind there were.
func (t *Traffic) Made() map[ledger.Kind]int { return t.made }

// Define lets so many machines be defined, from one image, before anything else.
func (t *Traffic) Define(machines int) {
	t.queues[0] = append(t.queues[0], &ledger.Publish{Name: "debian", Commit: "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi", Size: 10 << 30, Stored: 1 << 30})
	for i := range machines {
		d := &ledger.Define{
			Name: fmt.Sprintf("machine-%06d", i), Image: "debian", Memory: 1 << 30,
			Spec: []byte(fmt.Sprintf(`{"name":"machine-%06d","vcpus":2,"memory":1073741824,"disks":[{"image":"debian"}]}`, i)),
		}
		if i%8 == 0 {
			d.Policy = ledger.Policy{NotRegions: []string{"mars"}, MaxDowntime: 500}
		}
		n := len(t.queues)
		t.queues[i%n] = append(t.queues[i%n], d)
		t.names = append(t.names, d.Name)
		if i%16 == 1 && i >= n { // from one that is at its site, and that it may not come back to
			apart := ledger.Policy{Apart: []string{fmt.Sprintf("machine-%06d", i-n)}}
			t.queues[i%n] = append(t.queues[i%n], &ledger.SetPolicy{Machine: d.Name, Policy: apart})
		}
	}
}

// Next is the next event: its place, and its transactions with their bytes. What comes
// of them is to be told by Happened before the one after it is asked for.
func (t *Traffic) Next() (ledger.Place, []ledger.Tx, [][]byte, error) {
	t.author = (t.author + 1) % len(t.Members)
	t.place.Index++
	t.place.Author = t.Members[t.author].ID
	if t.author == 0 {
		t.place.Round++
	}
	t.place.Time += ledger.Time(t.IntN(10)) * ledger.Millisecond
	binary.BigEndian.PutUint64(t.place.Event[:], t.place.Index)
	if t.place.Index > uint64(len(t.Members)) {
		t.want()
	}
	queue := t.queues[t.author]
	n := min(len(queue), batch)
	var txs []ledger.Tx
	var raws [][]byte
	for _, body := range queue[:n] {
		if len(t.replays) > 0 && t.IntN(1000) < t.Hostile/2 {
			raw := t.replays[t.IntN(len(t.replays))]
			tx, err := ledger.Decode(raw)
			if err != nil {
				return t.place, nil, nil, err
			}
			txs, raws = append(txs, tx), append(raws, raw)
			t.made["replay"]++
		}
		raw, tx, err := t.encode(body)
		if err != nil {
			return t.place, nil, nil, err
		}
		txs, raws = append(txs, tx), append(raws, raw)
	}
	t.queues[t.author] = queue[n:]
	if len(t.queues[t.author]) == 0 {
		t.queues[t.author] = nil // lets the list go
	}
	return t.place, txs, raws, nil
}

// encode numbers a transaction, and keeps some to be said again.
func (t *Traffic) encode(body ledger.Body) ([]byte, ledger.Tx, error) {
	t.seqs[t.author]++
	tx := ledger.Tx{Seq: t.seqs[t.author], Body: body}
	raw, err := ledger.Encode(tx)
	if err == nil && t.IntN(64) == 0 {
		if len(t.replays) < 256 {
			t.replays = append(t.replays, raw)
		} else {
			t.replays[t.IntN(256)] = raw
		}
	}
	t.made[body.Kind()]++
	return raw, tx, err
}

// say lets a member say something, and now and then somebody else whose word it is not.
func (t *Traffic) say(id ledger.MemberID, body ledger.Body) {
	t.queues[id-1] = append(t.queues[id-1], body)
	if i := t.IntN(len(t.queues)); t.IntN(1000) < t.Hostile/2 && i != int(id-1) {
		t.queues[i] = append(t.queues[i], body)
	}
}

// want begins moves until there are as many as there are to be, and says a little of
// everything else.
func (t *Traffic) want() {
	if len(t.names) == 0 || t.s.Machine(t.names[len(t.names)-1]) == nil {
		return
	}
	for range 8 {
		if t.moves >= t.Moving {
			break
		}
		m := t.s.Machine(t.names[t.IntN(len(t.names))])
		if m == nil || m.Move != nil || m.Stopped {
			continue
		}
		epoch := m.Epoch
		if t.IntN(1000) < t.Hostile/2 {
			epoch-- // it has moved meanwhile
		}
		in := &ledger.Intent{Machine: m.Name, Epoch: epoch, Needs: ledger.Needs{
			Memory: m.Memory, Disk: 4 << 30, VCPUs: 2, Driver: "qemu", Version: "10.0.2", Accelerator: "kvm", MachineType: "pc-q35-10.0",
			CPUFeatures: features, MemoryBytes: t.Int64N(1 << 30), DiskBytes: t.Int64N(1 << 30), DirtyRate: t.Int64N(1 << 24),
		}}
		t.say(m.Owner, in)
	}
	if id := t.place.Author; t.IntN(4) == 0 {
		m := t.s.Machine(t.names[t.IntN(len(t.names))])
		if m == nil {
			return
		}
		switch t.IntN(6) {
		case 0:
			t.say(id, &ledger.Hold{Name: "debian", Held: t.IntN(2) == 0})
		case 1:
			t.say(m.Owner, &ledger.Set{Name: m.Name, Stopped: t.IntN(8) == 0})
		case 2:
			t.say(id, &ledger.SetPolicy{Machine: m.Name, Policy: ledger.Policy{NotSites: []string{t.Members[t.IntN(len(t.Members))].Site}}})
		case 3:
			out := t.s.Outcome()
			t.say(id, &ledger.Root{Index: t.place.Index - 1, Outcome: out[:]})
		case 4:
			t.say(id, &ledger.Tick{})
		case 5: // a lie whose numbers are far too large
			t.say(m.Owner, &ledger.Intent{Machine: m.Name, Epoch: m.Epoch, Needs: ledger.Needs{Memory: 1<<63 - 1}})
		}
	}
}

// features are those that a machine was given.
var features = func() (out []string) {
	for i := range 16 {
		out = append(out, fmt.Sprintf("feature-%02d", i))
	}
	return out
}()

// Happened lets the members answer to what came of the last event.
func (t *Traffic) Happened(out []ledger.Effect) {
	for i := range out {
		e := &out[i]
		mv := &e.Move
		switch e.Kind {
		case ledger.KindIntent:
			for _, m := range t.Members {
				if m.ID != mv.From {
					t.say(m.ID, t.Bid(e.Machine, mv.ID))
				}
			}
		case ledger.KindSelected:
			if t.IntN(50) > 0 {
				t.say(mv.To, &ledger.Accept{Machine: e.Machine, Move: mv.ID})
			}
		case ledger.KindAccept:
			t.say(mv.From, &ledger.Beat{Machine: e.Machine, Move: mv.ID, Bytes: 1 << 20})
			if t.IntN(50) == 0 {
				t.say(mv.From, &ledger.Abort{Machine: e.Machine, Move: mv.ID, Reason: "cancelled"})
				continue
			}
			t.say(mv.From, &ledger.Release{Machine: e.Machine, Move: mv.ID, Epoch: mv.Epoch + 1, To: mv.To})
		case ledger.KindRelease:
			switch n := t.IntN(50); {
			case n == 0:
				t.say(mv.To, &ledger.Decline{Machine: e.Machine, Epoch: mv.Epoch + 1, Reason: "cannot load it"})
			case n > 1:
				t.say(mv.To, &ledger.Confirm{Machine: e.Machine, Epoch: mv.Epoch + 1})
			}
		case ledger.KindLeaseEnd:
			t.say(mv.From, &ledger.Reclaim{Machine: e.Machine, Epoch: mv.Epoch + 1})
		case ledger.KindConfirm:
			t.say(mv.From, &ledger.Report{Machine: e.Machine, Move: mv.ID, Truth: ledger.Truth{
				Image: mv.Forecast.Image, Disk: mv.Forecast.Disk, Memory: mv.Forecast.Memory, Pause: mv.Forecast.Pause,
			}})
		}
	}
	for i := range out {
		switch out[i].Kind {
		case ledger.KindIntent:
			t.moves++
		case ledger.KindConfirm, ledger.KindDecline, ledger.KindReclaim, ledger.KindAbort, ledger.KindNowhere:
			t.moves--
		}
	}
}

// Bid is one that can take nearly any machine.
func (t *Traffic) Bid(machine string, move uint64) *ledger.Bid {
	b := &ledger.Bid{
		Machine: machine, Move: move, Able: true, Expires: t.place.Time + 50*ledger.Second, FreeMemory: 64 << 30, FreeDisk: 4 << 40, FreeVCPUs: 64,
		Driver: "qemu", Version: "10.0.2", Accelerator: "kvm", Machines: []string{"pc-q35-10.0"}, CPUModel: "EPYC-Milan", CPUFeatures: features,
		RTT: 1000 + t.Int64N(100_000), Bandwidth: 1<<20 + t.Int64N(1<<27), MissingData: t.Int64N(1 << 30), Moves: t.Int64N(4),
	}
	if t.IntN(20) == 0 {
		b.Able, b.Reason = false, "it is going down for maintenance"
	}
	return b
}

// Mix is the share of each kind, the largest first.
func (t *Traffic) Mix() string {
	type share struct {
		kind ledger.Kind
		n    int
	}
	var all []share
	total := 0
	for k, n := range t.made {
		all = append(all, share{k, n})
		total += n
	}
	slices.SortFunc(all, func(a, b share) int {
		if a.n != b.n {
			return b.n - a.n
		}
		return compareKinds(a.kind, b.kind)
	})
	text := ""
	for _, s := range all {
		text += fmt.Sprintf(" %s %.1f%%", s.kind, 100*float64(s.n)/float64(max(total, 1)))
	}
	return text[min(len(text), 1):]
}

func compareKinds(a, b ledger.Kind) int {
	if a < b {
		return -1
	}
	return 1
}
