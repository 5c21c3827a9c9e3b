package ledgertest

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dcnode/dcnode/consensus/ledger"
)

var scale = flag.Bool("scale", false, "let TestScale measure 100,000 machines and 1,000,000 past transactions")

// figure is one line of what is measured.
type figure struct {
	Bench string  `json:"bench"`
	What  string  `json:"what"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	Goal  string  `json:"goal,omitempty"`
}

// figures are printed, and written to the file that BENCH_OUT names.
type figures struct {
	t   *testing.T
	out *os.File
}

func (f *figures) add(what string, value float64, unit, goal string) {
	f.t.Helper()
	beside := ""
	if goal != "" {
		beside = "  (goal " + goal + ")"
	}
	f.t.Logf("%-46s %12.1f %s%s", what, value, unit, beside)
	if f.out == nil {
		return
	}
	b, err := json.Marshal(figure{"ledger", what, value, unit, goal})
	if err == nil {
		_, err = f.out.Write(append(b, '\n'))
	}
	if err != nil {
		f.t.Error(err)
	}
}

// An overlay of 31 members with 100,000 machines after 1,000,000 transactions: how
// quickly it applies more, plans, begins again, and how much memory it takes.
func TestScale(t *testing.T) {
	machines, past, fresh := 100_000, 1_000_000, 200_000
	if !*scale {
		if testing.Short() {
			t.Skip("a small overlay is measured without -short")
		}
		machines, past, fresh = 2_000, 10_000, 5_000
	}
	f := &figures{t: t}
	if name := os.Getenv("BENCH_OUT"); name != "" && *scale {
		out, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		f.out = out
	}
	tr := NewTraffic(2, 31)
	s, err := tr.Founded()
	if err != nil {
		t.Fatal(err)
	}
	tr.Define(machines)
	play(t, tr, s, past, nil)
	f.add("machines", float64(len(s.SortedMachines())), "", "")
	f.add("past transactions", float64(past), "", "")

	before := s.Clone()
	var events []Event
	tr.made = map[ledger.Kind]int{}
	play(t, tr, s, fresh, &events)
	speed(f, tr, before, s, events)
	plan(f, tr, s)
	checkpoint(f, s, before)
}

// play lets so many transactions happen, and keeps their bytes if asked to.
func play(t *testing.T, tr *Traffic, s *ledger.State, n int, keep *[]Event) {
	t.Helper()
	for said := 0; said < n; {
		place, txs, raws, err := tr.Next()
		if err != nil {
			t.Fatal(err)
		}
		tr.Happened(s.Advance(place))
		for _, tx := range txs {
			out, _ := s.Apply(tr.Network, place, tx) // some are to be refused
			tr.Happened(out)
		}
		if said += len(txs); keep != nil {
			*keep = append(*keep, Event{place, raws})
		}
	}
}

// speed decodes and applies events on one core, from the state before them, several
// times.
func speed(f *figures, tr *Traffic, before, after *ledger.State, events []Event) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	var rates, busy []float64
	bytes, n := 0, 0
	for range 5 {
		s := before.Clone()
		runtime.GC()
		began, worked := time.Now(), cpu(f.t)
		bytes, n = 0, 0
		for _, ev := range events {
			s.Advance(ev.Place)
			for _, raw := range ev.Txs {
				n++
				bytes += len(raw)
				if tx, err := ledger.Decode(raw); err == nil {
					s.Apply(tr.Network, ev.Place, tx)
				}
			}
		}
		rates = append(rates, float64(n)/time.Since(began).Seconds())
		busy = append(busy, float64(n)/(cpu(f.t)-worked).Seconds())
		if s.Outcome() != after.Outcome() {
			f.t.Fatal("the same bytes have led to another outcome")
		}
	}
	f.add("decoded and applied on one core, median of 5", median(rates), "tx/s", "≥ 50000")
	f.add("the same by the time that the core gave, median", median(busy), "tx/s", "≥ 50000")
	f.add("bytes of a transaction, mean", float64(bytes)/float64(n), "bytes", "")
	f.t.Logf("the mix: %s", tr.Mix())
}

// plan asks what would become of the moves of some machines, with bids of all others.
func plan(f *figures, tr *Traffic, s *ledger.State) {
	var times []float64
	for i := 0; len(times) < 101; i += 7 {
		m := s.Machine(tr.names[i%len(tr.names)])
		if m == nil {
			continue
		}
		var bids []ledger.Bid
		for _, x := range tr.Members {
			if x.ID != m.Owner {
				b := tr.Bid(m.Name, 0)
				b.Member = x.ID
				bids = append(bids, *b)
			}
		}
		needs := ledger.Needs{Memory: m.Memory, Disk: 4 << 30, VCPUs: 2, Driver: "qemu", Version: "10.0.2", CPUFeatures: features}
		began := time.Now()
		vs, err := s.Plan(m.Name, needs, 0, ledger.Limits{}, bids)
		times = append(times, float64(time.Since(began).Nanoseconds())/1e6)
		if err != nil || len(vs) != len(tr.Members) {
			f.t.Fatalf("plan of %s: %d verdicts, %v", m.Name, len(vs), err)
		}
	}
	f.add("plan of one machine, median of 101", median(times), "ms", "< 100")
}

// checkpoint measures roots, snapshots and beginning from one, and what they take.
func checkpoint(f *figures, s, before *ledger.State) {
	ms := func(do func() error) float64 {
		runtime.GC()
		began := time.Now()
		if err := do(); err != nil {
			f.t.Fatal(err)
		}
		return float64(time.Since(began).Microseconds()) / 1e3
	}
	f.add("first root", ms(func() error { _, err := before.Root(); return err }), "ms", "")
	f.add("root after the transactions measured", ms(func() error { _, err := s.Root(); return err }), "ms", "")
	var snapshot []byte
	var writes, loads []float64
	for range 3 {
		writes = append(writes, ms(func() (err error) { _, snapshot, err = s.Snapshot(); return err }))
	}
	f.add("full snapshot, median of 3", median(writes), "ms", "")
	f.add("size of the snapshot", float64(len(snapshot))/(1<<20), "MiB", "")
	want, err := s.Root()
	if err != nil {
		f.t.Fatal(err)
	}
	for range 3 {
		loads = append(loads, ms(func() error {
			next, err := ledger.Load(snapshot)
			if err != nil {
				return err
			}
			if root, err := next.Root(); err != nil || root != want {
				return fmt.Errorf("loaded root %s, want %s, %v", root, want, err)
			}
			return nil
		})/1e3)
	}
	f.add("start from a checkpoint, median of 3", median(loads), "s", "< 5")
	next, err := ledger.Load(snapshot)
	if err != nil {
		f.t.Fatal(err)
	}
	heap := func() float64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc) / (1 << 20)
	}
	with := heap()
	size := len(next.SortedMachines())
	next = nil
	without := heap()
	f.add("heap of one state as loaded, after GC", with-without, "MiB", "")
	f.add("heap of a machine as loaded", (with-without)*(1<<20)/float64(max(size, 1)), "bytes", "")
	f.add("peak resident memory of all of this", peak(), "MiB", "")
	runtime.KeepAlive(before)
}

// peak is the most memory that the process had; 0 where that is not known.
func peak() float64 {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0
	}
	kib, err := strconv.ParseFloat(fields[0], 64)
	if err != nil {
		return 0
	}
	return kib / 1024
}

// cpu is the time that the process has had of processors, its garbage collector with it.
func cpu(t *testing.T) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func median(x []float64) float64 {
	s := slices.Sorted(slices.Values(x))
	return s[len(s)/2]
}
