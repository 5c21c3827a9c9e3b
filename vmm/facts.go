package vmm

import (
	"bytes"
	"context"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"
)

// What may be asked of a machine before it moves. A driver's machines implement what
// they can; who asks looks with a type assertion, and plans without the fact if it is
// not there.
type (
	// Featurer tells which CPU features the guest was started with: a host that lacks
	// one of them cannot take the machine.
	Featurer interface {
		// CPUFeatures are the names, sorted, as in Capabilities.CPUFeatures.
		CPUFeatures(ctx context.Context) ([]string, error)
	}

	// Sampler looks into a machine's memory while it runs on.
	Sampler interface {
		// SampleMemory returns n different pages of the guest's RAM, PageSize bytes
		// each, chosen at random and in the order of their addresses; all of them if it
		// has no more; fewer, but no less than an eighth, when ctx ends before it has
		// them. They are not of one instant. n is 1 to MaxSample.
		SampleMemory(ctx context.Context, n int) ([]byte, error)
		// DirtyRate watches the machine for about the given time, MinWatch to MaxWatch,
		// and returns in bytes a second how much of its memory changed in that time. A
		// page that was written again and again counts once, as it does in a round of a
		// migration; so a longer time gives a smaller rate. A paused machine has rate 0.
		DirtyRate(ctx context.Context, over time.Duration) (int64, error)
	}

	// DiskWriter tells how fast the guest writes to its disks.
	DiskWriter interface {
		// DiskRate watches the machine for about the given time and returns in bytes a
		// second what it wrote to its disks, what it wrote twice counted twice.
		DiskRate(ctx context.Context, over time.Duration) (int64, error)
	}

	// DiskOwner tells how much of its disks is the machine's own.
	DiskOwner interface {
		// OwnBytes is how many bytes of data the overlays hold: what would travel with
		// the machine, before compression. Blocks that are known to be zero do not count.
		OwnBytes(ctx context.Context) (int64, error)
	}
)

// Bounds of the above.
const (
	PageSize  = 4096  // bytes
	MaxSample = 16384 // pages at once: 64 MiB

	MinWatch = 50 * time.Millisecond
	MaxWatch = 60 * time.Second
)

// Bounds of what a driver may say of its host, so that it fits into a transaction.
const (
	maxNames = 1024 // CPU features, machine types
	maxName  = 64   // bytes of each
	maxModel = 128  // bytes of the CPU's name
)

// Bound brings lists and names into the form that Capabilities promises: sorted, each
// once, none empty, and no more and no longer than is sensible. What is too much is
// left out.
func (c Capabilities) Bound() Capabilities {
	c.CPUModel = strings.ToValidUTF8(c.CPUModel[:min(len(c.CPUModel), maxModel)], "")
	c.CPUFeatures, c.MachineTypes = BoundNames(c.CPUFeatures), BoundNames(c.MachineTypes)
	return c
}

// BoundNames sorts names, each once, and leaves out those that are empty or too long,
// and of too many the last. It does not change the list that it gets.
func BoundNames(names []string) []string {
	out := slices.DeleteFunc(slices.Clone(names), func(s string) bool { return s == "" || len(s) > maxName })
	slices.Sort(out)
	out = slices.Compact(out)
	return out[:min(len(out), maxNames)]
}

// HostCPU reads the host's processor from /proc/cpuinfo: its name, and its flags as
// the kernel calls them. Both are empty where there is no such file.
func HostCPU() (model string, flags []string) {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "", nil
	}
	return parseCPU(b)
}

// parseCPU reads the first processor: the others of a host are the same.
func parseCPU(cpuinfo []byte) (model string, flags []string) {
	for line := range bytes.Lines(cpuinfo) {
		key, value, ok := bytes.Cut(line, []byte{':'})
		if !ok {
			if model != "" || flags != nil {
				break
			}
			continue
		}
		switch string(bytes.TrimSpace(key)) {
		case "model name":
			model = string(bytes.TrimSpace(value))
		case "flags":
			for _, f := range bytes.Fields(value) {
				flags = append(flags, string(f))
			}
		}
	}
	return model, BoundNames(flags)
}

// PickPages chooses n of total pages at random, each once, and sorts them; all if
// there are no more. It is Floyd's algorithm (Bentley and Floyd, "A sample of
// brilliance", CACM 30(9), 1987): it takes memory for n and not for total.
func PickPages(n int, total int64) []int64 {
	n = int(min(int64(n), total))
	picked := make(map[int64]bool, n)
	for i := total - int64(n); i < total; i++ {
		p := rand.Int64N(i + 1)
		if picked[p] {
			p = i
		}
		picked[p] = true
	}
	return slices.Sorted(maps.Keys(picked))
}

// Lacks are the names of need that are not in have, which is sorted.
func Lacks(have, need []string) (out []string) {
	for _, n := range need {
		if _, ok := slices.BinarySearch(have, n); !ok {
			out = append(out, n)
		}
	}
	return out
}
