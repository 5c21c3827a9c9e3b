package ledger

import (
	"fmt"
	"math/bits"
	"strings"
	"unicode/utf8"
)

// Bounds of what a transaction may say beside maxSize.
const (
	maxShort = 128 // bytes of a word: a site, a version, a machine type
	maxVCPUs = int64(1) << 16
	maxRTT   = int64(Hour / 1000) // microseconds
	maxList  = 512                // machine types, features of a processor
)

// shortText says whether s can stand in a list of the state.
func shortText(s string) bool { return len(s) <= maxShort && utf8.ValidString(s) }

// freeText says whether s can be kept as what a person or a node said.
func freeText(s string) bool { return len(s) <= maxReason && utf8.ValidString(s) }

func size(n int64) bool { return n >= 0 && n <= maxSize }

// clip is s, at most n bytes of it, cut between characters.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n -= len("…"); n > 0 && !utf8.RuneStart(s[n]); n-- {
	}
	return s[:n] + "…"
}

// join makes one reason of several.
func join(why []string) string { return clip(strings.Join(why, "; "), maxReason) }

// scale is v·num/den without overflow on the way: at most maxSize, at least 0. All
// are taken as at least 0, den as at least 1.
func scale(v, num, den int64) int64 {
	hi, lo := bits.Mul64(uint64(max(v, 0)), uint64(max(num, 0)))
	d := uint64(max(den, 1))
	if hi >= d {
		return maxSize
	}
	q, _ := bits.Div64(hi, lo, d)
	return int64(min(q, uint64(maxSize)))
}

// plus is a sum that stays within maxSize. Its terms are at least 0.
func plus(terms ...int64) int64 {
	var sum int64
	for _, t := range terms {
		sum = min(sum+min(max(t, 0), maxSize), maxSize)
	}
	return sum
}

// later is t+d, or the end of time.
func later(t, d Time) Time {
	const end = Time(1<<63 - 1)
	if d > 0 && t > end-d {
		return end
	}
	return t + d
}

// checkNeeds says what is wrong with what an owner says that its machine needs.
func checkNeeds(n *Needs) error {
	switch {
	case !size(n.Memory) || !size(n.Disk) || !size(n.MemoryBytes) || !size(n.DiskBytes) || !size(n.DirtyRate) || !size(n.Hot) || !size(n.DiskRate) || !size(n.Encodes):
		return fmt.Errorf("needs: sizes are from 0 to %d bytes", int64(maxSize))
	case n.VCPUs < 0 || int64(n.VCPUs) > maxVCPUs:
		return fmt.Errorf("needs: %d virtual processors: from 0 to %d", n.VCPUs, maxVCPUs)
	case !shortText(n.Driver) || !shortText(n.Version) || !shortText(n.Accelerator) || !shortText(n.MachineType):
		return fmt.Errorf("needs: driver, version, accelerator and machine type have at most %d bytes of UTF-8 each", maxShort)
	case len(n.Paths) > MaxMembers:
		return fmt.Errorf("needs: %d paths, at most %d are allowed", len(n.Paths), MaxMembers)
	}
	for i, p := range n.Paths {
		if p.RTT < 0 || p.RTT > maxRTT || !size(p.Bandwidth) {
			return fmt.Errorf("needs: the path to member %d: a round trip of up to %d µs, a bandwidth of up to %d bytes a second", p.Member, maxRTT, int64(maxSize))
		}
		if i > 0 && n.Paths[i-1].Member >= p.Member {
			return fmt.Errorf("needs: paths are by member, each once")
		}
	}
	if err := fits("needs: features of the processor", n.CPUFeatures); err != nil {
		return err
	}
	return checkList("needs: features of the processor", n.CPUFeatures, maxList)
}

// checkBid says what is wrong with a bid by itself.
func checkBid(b *Bid) error {
	switch {
	case !freeText(b.Reason):
		return fmt.Errorf("bid: the reason has at most %d bytes of UTF-8", maxReason)
	case !b.Able && b.Reason == "":
		return fmt.Errorf("bid: a member that cannot take the machine says why")
	case !size(b.FreeMemory) || !size(b.FreeDisk) || !size(b.Bandwidth) || !size(b.MissingData):
		return fmt.Errorf("bid: sizes are from 0 to %d bytes", int64(maxSize))
	case b.FreeVCPUs < 0 || b.FreeVCPUs > maxVCPUs || b.Moves < 0 || b.Moves > maxVCPUs:
		return fmt.Errorf("bid: virtual processors and moves are from 0 to %d", maxVCPUs)
	case b.RTT < 0 || b.RTT > maxRTT:
		return fmt.Errorf("bid: a round trip is from 0 to %d µs", maxRTT)
	case !shortText(b.Driver) || !shortText(b.Version) || !shortText(b.Accelerator) || !shortText(b.CPUModel) ||
		max(len(b.Driver), len(b.Version), len(b.Accelerator), len(b.CPUModel)) > maxTerm:
		return fmt.Errorf("bid: driver, version, accelerator and processor have at most %d bytes of UTF-8 each", maxTerm)
	case len(b.Machines) > maxList:
		return fmt.Errorf("bid: %d machine types, at most %d are allowed", len(b.Machines), maxList)
	}
	for _, t := range b.Machines {
		if !shortText(t) {
			return fmt.Errorf("bid: a machine type has at most %d bytes of UTF-8", maxShort)
		}
	}
	return checkList("bid: features of the processor", b.CPUFeatures, maxList)
}
