// Command engine compares the engine with babble and lachesis-base: the same random
// gossip graphs, events inserted one by one with consensus run to the end each time,
// in memory, without signatures, on one thread. It counts CPU time, not wall time, so
// that a busy machine disturbs little.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// result is what one run of one engine took.
type result struct {
	Engine  string  `json:"engine"`
	Members int     `json:"members"`
	Events  int     `json:"events"`
	Ordered int     `json:"ordered"`
	CPU     float64 `json:"cpu_seconds"`
	Heap    int64   `json:"heap_bytes,omitempty"` // live, after all events
}

func (r result) rate() float64 { return float64(r.Events) / r.CPU }

// engines in the order in which they are run and shown.
var engines = []struct {
	name string
	run  func(n, events int, seed uint64) (result, error)
}{{"dcnode", runOurs}, {"babble", runBabble}, {"lachesis", runLachesis}}

// plan is how many events each engine gets. Babble at 64 members takes seconds for
// a hundred: it gets fewer, of the same graph.
var plan = []struct {
	members int
	events  map[string]int
}{
	{4, map[string]int{"dcnode": 200_000, "babble": 20_000, "lachesis": 20_000}},
	{16, map[string]int{"dcnode": 100_000, "babble": 10_000, "lachesis": 10_000}},
	{64, map[string]int{"dcnode": 48_000, "babble": 3_000, "lachesis": 12_000}},
}

func main() {
	runs := flag.Int("runs", 3, "runs of each, interleaved; the median counts")
	seed := flag.Uint64("seed", 1, "of the graphs")
	memory := flag.Bool("memory", false, "measure memory after many events instead of speed")
	most := flag.Int("most", 10_000_000, "events of ours for the memory measurement")
	only := flag.String("only", "", "run one engine once: name:members:events (used by the program itself)")
	flag.Parse()
	var err error
	switch {
	case *only != "":
		err = one(*only, *seed)
	case *memory:
		err = showMemory(*most, *seed)
	default:
		err = compare(*runs, *seed)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "engine:", err)
		os.Exit(1)
	}
}

// compare runs all engines, each run in a process of its own, and shows them side by
// side.
func compare(runs int, seed uint64) error {
	fmt.Println(machine())
	fmt.Printf("events per CPU-second, random gossip graph of seed %d, median of %d interleaved runs\n\n", seed, runs)
	for _, p := range plan {
		all := map[string][]result{}
		for range runs {
			for _, e := range engines {
				r, err := spawn(e.name, p.members, p.events[e.name], seed)
				if err != nil {
					return err
				}
				all[e.name] = append(all[e.name], r)
			}
		}
		best, us := 0.0, 0.0
		for _, e := range engines {
			rs := all[e.name]
			slices.SortFunc(rs, func(a, b result) int { return int(a.rate()) - int(b.rate()) })
			m := rs[len(rs)/2]
			fmt.Printf("n = %-2d  %-9s %10.0f events/s  (%.0f to %.0f; %d events, %.0f %% ordered)\n",
				p.members, e.name, m.rate(), rs[0].rate(), rs[len(rs)-1].rate(), m.Events, 100*float64(m.Ordered)/float64(m.Events))
			if e.name == "dcnode" {
				us = m.rate()
			} else {
				best = max(best, m.rate())
			}
			if err := keep(m); err != nil {
				return err
			}
		}
		fmt.Printf("n = %-2d  %.1f times the faster peer (goal 8)\n\n", p.members, us/best)
	}
	return nil
}

// spawn runs one engine in a process of its own, on one thread.
func spawn(name string, members, events int, seed uint64) (r result, err error) {
	exe, err := os.Executable()
	if err != nil {
		return r, err
	}
	cmd := exec.Command(exe, "-only", fmt.Sprintf("%s:%d:%d", name, members, events), "-seed", fmt.Sprint(seed))
	cmd.Env, cmd.Stderr = append(os.Environ(), "GOMAXPROCS=1"), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return r, fmt.Errorf("%s with %d members: %w", name, members, err)
	}
	return r, json.Unmarshal(out, &r)
}

func one(what string, seed uint64) error {
	var n, events int
	name, rest, _ := strings.Cut(what, ":")
	if _, err := fmt.Sscanf(rest, "%d:%d", &n, &events); err != nil {
		return fmt.Errorf("%q: want name:members:events", what)
	}
	for _, e := range engines {
		if e.name != name {
			continue
		}
		r, err := e.run(n, events, seed)
		if err != nil {
			return err
		}
		r.Engine, r.Members, r.Events = name, n, events
		return json.NewEncoder(os.Stdout).Encode(r)
	}
	return errors.New("no engine " + name)
}

// timed inserts the events and measures the process's CPU time, with the garbage
// collector's.
func timed(events int, insert func(int) error) (result, error) {
	runtime.GC()
	began := cpu()
	for i := range events {
		if err := insert(i); err != nil {
			return result{}, fmt.Errorf("event %d: %w", i, err)
		}
	}
	return result{CPU: (cpu() - began).Seconds()}, nil
}

// cpu is what this process has used so far, user and system.
func cpu() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err) // it has no way to fail
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// heap is what is live.
func heap() int64 {
	runtime.GC()
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// keep appends a result to the file that BENCH_OUT names.
func keep(r result) error {
	out := os.Getenv("BENCH_OUT")
	if out == "" {
		return nil
	}
	f, err := os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	return json.NewEncoder(f).Encode(struct {
		Bench string    `json:"bench"`
		When  time.Time `json:"when"`
		result
		Rate    float64 `json:"events_per_cpu_second"`
		Machine string  `json:"machine"`
	}{"engine", time.Now(), r, r.rate(), machine()})
}

// machine names what the figures depend on.
func machine() string {
	model, load := "unknown CPU", "unknown"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		load, _, _ = strings.Cut(string(b), " ")
	}
	return fmt.Sprintf("%s, %d cores, load %s, %s", model, runtime.NumCPU(), load, runtime.Version())
}
