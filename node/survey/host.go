package survey

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Host is what this host has. Sizes are in bytes.
type Host struct {
	CPUs       int     `json:"cpus"` // that this process may use
	Load       float64 `json:"load"` // processes that run or want to, mean of a minute
	Memory     int64   `json:"memory"`
	FreeMemory int64   `json:"free_memory"` // what can be had without swapping
	FreeDisk   int64   `json:"free_disk"`   // for an ordinary user, where the node's data is
}

// LookAtHost looks now. dir is a directory on the disk that machines use.
func LookAtHost(dir string) (Host, error) {
	h := Host{CPUs: runtime.NumCPU()}
	var err error
	if h.Memory, h.FreeMemory, err = memory(); err != nil {
		return h, err
	}
	if h.FreeDisk, err = freeDisk(dir); err != nil {
		return h, err
	}
	h.Load, err = load()
	return h, err
}

// freeDisk is what may be written where dir is, in bytes.
func freeDisk(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("look at free disk: %w", err)
	}
	return int64(st.Bavail) * st.Bsize, nil
}

func memory() (total, free int64, err error) {
	const path = "/proc/meminfo"
	f, err := os.Open(path)
	if err != nil {
		return 0, 0, fmt.Errorf("look at free memory: %w", err)
	}
	defer f.Close()
	total, free = -1, -1
	for sc := bufio.NewScanner(f); sc.Scan(); {
		fields := strings.Fields(sc.Text())
		if len(fields) != 3 || fields[2] != "kB" {
			continue
		}
		kib, err := strconv.ParseInt(fields[1], 10, 53)
		switch {
		case err != nil:
		case fields[0] == "MemTotal:":
			total = kib << 10
		case fields[0] == "MemAvailable:":
			free = kib << 10
		}
	}
	if total < 0 || free < 0 {
		return 0, 0, fmt.Errorf("look at free memory: %s has no MemTotal and MemAvailable", path)
	}
	return total, free, nil
}

func load() (float64, error) {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0, fmt.Errorf("look at the load: %w", err)
	}
	first, _, _ := strings.Cut(string(b), " ")
	x, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return 0, fmt.Errorf("look at the load: /proc/loadavg begins with %q", first)
	}
	return x, nil
}
