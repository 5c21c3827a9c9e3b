package testnet

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"
)

// Times sum up a measurement, in milliseconds.
type Times struct {
	Min    float64 `json:"min"`
	Median float64 `json:"median"`
	Mean   float64 `json:"mean"`
	P99    float64 `json:"p99"`
	Max    float64 `json:"max"`
}

func timesOf(ds []time.Duration) Times {
	if len(ds) == 0 {
		return Times{}
	}
	ds = slices.Clone(ds)
	slices.Sort(ds)
	sum := time.Duration(0)
	for _, d := range ds {
		sum += d
	}
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	return Times{
		Min: ms(ds[0]), Median: ms(ds[len(ds)/2]), Mean: ms(sum) / float64(len(ds)),
		P99: ms(ds[min(len(ds)-1, len(ds)*99/100)]), Max: ms(ds[len(ds)-1]),
	}
}

// metering is a scenario while it is measured.
type metering struct {
	Scenario
	b                *bench
	began            time.Time
	events           uint64
	bytes            int64
	cpu, own, all    time.Duration
	here, everywhere []time.Duration
}

func (b *bench) begin(name string) *metering {
	m := &metering{b: b, Scenario: Scenario{
		Name: name, Members: b.o.Members, Link: b.sites.net.describe(), Delay: float64(b.o.Delay) / float64(time.Millisecond),
	}}
	m.began, m.events, m.bytes = time.Now(), b.watch.height(), b.sites.net.crossed()
	m.cpu, m.own, m.all = b.sites.cpu(), cpuOf(os.Getpid()), cpuOfAll()
	return m
}

func (m *metering) end() {
	m.Seconds = time.Since(m.began).Seconds()
	running := float64(m.b.sites.running())
	nodes, own := m.b.sites.cpu()-m.cpu, cpuOf(os.Getpid())-m.own
	m.CPU = nodes.Seconds() / m.Seconds / running
	m.Emulator = own.Seconds() / m.Seconds
	m.Others = (cpuOfAll() - m.all - nodes - own).Seconds() / m.Seconds
	m.Events = float64(m.b.watch.height()-m.events) / m.Seconds
	m.Bytes, m.PerLink = -1, -1
	if m.bytes >= 0 {
		m.Bytes = float64(m.b.sites.net.crossed()-m.bytes) / m.Seconds
		m.PerLink = m.Bytes / (running * (running - 1) / 2)
	}
}

// running counts the sites whose process runs.
func (s *Sites) running() int {
	n := 0
	for _, site := range s.List {
		select {
		case <-site.done:
		default:
			n++
		}
	}
	return n
}

// cpu is the time that all running sites have used.
func (s *Sites) cpu() time.Duration {
	sum := time.Duration(0)
	for _, site := range s.List {
		site.mu.Lock()
		pid := site.proc.Process.Pid
		site.mu.Unlock()
		sum += cpuOf(pid)
	}
	return sum
}

// cpuOfAll is the time that all that runs on this machine has used (proc_stat(5)).
func cpuOfAll() time.Duration {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	first, _, _ := bytes.Cut(stat, []byte{'\n'})
	sum := int64(0)
	for i, f := range bytes.Fields(first)[1:] {
		n, err := strconv.ParseInt(string(f), 10, 64)
		if err != nil || i == 3 || i == 4 || i > 6 { // idle, waiting for a disk, counted before
			continue
		}
		sum += n
	}
	return time.Duration(sum) * 10 * time.Millisecond
}

// cpuOf is the time that a process has used (proc_pid_stat(5), fields 14 and 15,
// in hundredths of a second); 0 if it has ended.
func cpuOf(pid int) time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return 0
	}
	sum := int64(0)
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(string(f), 10, 64)
		if err != nil {
			return 0
		}
		sum += n
	}
	return time.Duration(sum) * 10 * time.Millisecond
}
