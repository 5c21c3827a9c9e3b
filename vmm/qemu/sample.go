package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"time"

	"github.com/dcnode/dcnode/vmm"
	"github.com/dcnode/dcnode/vmm/qmp"
)

const (
	mib = 1 << 20
	// watched is how many pages are looked at twice for the dirty rate.
	watched = 512
	// leastBlock is the size of RAM below which QEMU's own sampling sees nothing
	// (MIN_RAMBLOCK_SIZE in migration/dirtyrate.h).
	leastBlock = 128 * mib
	// qemuSamples is how many pages QEMU itself compares in all, and the bounds that it
	// sets for each GiB.
	qemuSamples, minPerGiB, maxPerGiB = 1 << 16, 512, 16384
	pollEvery                         = 20 * time.Millisecond
)

// zone is a run of guest-physical addresses that are RAM.
type zone struct{ base, pages int64 }

// legacyHole is where a PC has device memory, option ROMs and its BIOS instead of RAM,
// within the first MiB. To read a device's memory could mean something to the device.
var legacyHole = struct{ from, to int64 }{0xa0000, mib}

// zones asks QEMU where the guest's RAM is. A q35 has it at 0, and what does not fit
// below the devices' addresses at 4 GiB.
func (m *Machine) zones(ctx context.Context) ([]zone, error) {
	var out []zone
	var sum int64
	for _, region := range []string{"ram-below-4g", "ram-above-4g"} {
		var at [2]int64
		for i, property := range []string{"addr", "size"} {
			err := m.mon.Execute(ctx, "qom-get", map[string]any{"path": "/machine/unattached/" + region + "[0]", "property": property}, &at[i])
			var refused *qmp.Error
			if errors.As(err, &refused) && refused.Class == "DeviceNotFound" { // all of it is below
				break
			}
			if err != nil {
				return nil, err
			}
		}
		if base, size := at[0], at[1]; size > 0 {
			sum += size
			if base == 0 && size > legacyHole.to {
				out = append(out, zone{0, legacyHole.from / vmm.PageSize})
				base, size = legacyHole.to, size-legacyHole.to
			}
			out = append(out, zone{base, size / vmm.PageSize})
		}
	}
	if sum != m.spec.Memory {
		return nil, fmt.Errorf("QEMU has %d MiB of RAM where it is looked for, and the machine %d", sum>>20, m.spec.Memory>>20)
	}
	return out, nil
}

// Pages are chosen a few neighbours at a time: on a busy host each question to QEMU takes
// milliseconds, however much it shows.
const (
	together     = 4
	mostTogether = 256
)

// pick chooses addresses of n pages, or of all if there are no more, ascending.
func pick(zones []zone, n int) []int64 {
	var total int64
	for _, z := range zones {
		total += z.pages
	}
	n = int(min(int64(n), total))
	groups := n
	if int64(n) < total {
		groups = n/together + 2 // the last may not be whole
	}
	out := make([]int64, 0, n)
	i, before := 0, int64(0)
	for _, g := range vmm.PickPages(groups, (total+together-1)/together) {
		for p := g * together; p < min((g+1)*together, total) && len(out) < n; p++ {
			for p-before >= zones[i].pages {
				before += zones[i].pages
				i++
			}
			out = append(out, zones[i].base+(p-before)*vmm.PageSize)
		}
	}
	return out
}

// peek is a file through which QEMU shows pages. It is readable by its owner only, and
// is gone when the caller is done.
type peek struct {
	m    *Machine
	file *os.File
}

func (m *Machine) peek() (*peek, error) {
	path := m.paths.sample()
	if err := remove(path); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return &peek{m, f}, nil
}

// pages reads pages at ascending addresses, one behind the other, into to, neighbours
// together and in no particular order, and says which it has: not all, if ctx ends before.
func (p *peek) pages(ctx context.Context, at []int64, to []byte) (has []bool, err error) {
	has = make([]bool, len(at))
	var runs [][2]int
	for i := 0; i < len(at); {
		k := i + 1
		for k < len(at) && k-i < mostTogether && at[k] == at[k-1]+vmm.PageSize {
			k++
		}
		runs = append(runs, [2]int{i, k})
		i = k
	}
	for _, r := range rand.Perm(len(runs)) {
		if ctx.Err() != nil {
			return has, context.Cause(ctx)
		}
		from, end := runs[r][0], runs[r][1]
		// Not given up halfway: QEMU would write the file when nobody has it any more.
		if err := p.read(context.WithoutCancel(ctx), at[from], to[from*vmm.PageSize:end*vmm.PageSize]); err != nil {
			return has, err
		}
		for i := from; i < end; i++ {
			has[i] = true
		}
	}
	return has, nil
}

// read reads what is at an address. pmemsave (QEMU 0.12 and later) writes into the file
// that is there and does not change whose it is.
func (p *peek) read(ctx context.Context, addr int64, to []byte) error {
	err := p.m.mon.Execute(ctx, "pmemsave", map[string]any{"val": addr, "size": len(to), "filename": p.file.Name()}, nil)
	if err != nil {
		return err
	}
	if _, err := p.file.ReadAt(to, 0); err != nil {
		return fmt.Errorf("QEMU wrote no whole page: %w", errors.Join(err, io.ErrUnexpectedEOF))
	}
	return nil
}

func (p *peek) close() error { return errors.Join(p.file.Close(), remove(p.file.Name())) }

// turn takes a right that one has at a time.
func turn(ctx context.Context, right chan struct{}) (free func(), err error) {
	select {
	case right <- struct{}{}:
		return func() { <-right }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for another who looks: %w", context.Cause(ctx))
	}
}

// look opens the way into a machine's memory, for one at a time.
func (m *Machine) look(ctx context.Context, do func(*peek) error) (err error) {
	free, err := turn(ctx, m.looking)
	if err != nil {
		return err
	}
	defer free()
	p, err := m.peek()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	return do(p)
}

// memory is where the RAM is of a machine that has some.
func (m *Machine) memory(ctx context.Context) ([]zone, error) {
	s, err := m.runState(ctx)
	if err != nil {
		return nil, err
	}
	if s == "inmigrate" {
		return nil, errors.New("its state has not arrived")
	}
	return m.zones(ctx)
}

// enough is the part of a sample that is as good as all of it, when time is short: an
// eighth has not three times the error.
const enough = 8

// SampleMemory reads pages chosen at random, each for itself, while the machine runs.
func (m *Machine) SampleMemory(ctx context.Context, n int) (out []byte, err error) {
	if n < 1 || n > vmm.MaxSample {
		return nil, fmt.Errorf("sample memory of %s: %d pages: ask for 1 to %d", m.spec.Name, n, vmm.MaxSample)
	}
	zones, err := m.memory(ctx)
	if err == nil {
		err = m.look(ctx, func(p *peek) error {
			at := pick(zones, n)
			all := make([]byte, len(at)*vmm.PageSize)
			has, err := p.pages(ctx, at, all)
			for i, ok := range has {
				if ok {
					out = append(out, all[i*vmm.PageSize:(i+1)*vmm.PageSize]...)
				}
			}
			if ctx.Err() != nil && enough*len(out) >= len(all) {
				return nil
			}
			return err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("sample memory of %s: %w", m.spec.Name, m.why(err))
	}
	return out, nil
}

// DirtyRate has QEMU compare pages over the given time (calc-dirty-rate). QEMU gives
// whole MiB a second, rounded down, and nothing for a small machine; so some pages are
// compared here too, and say where between that figure and the next the rate is.
func (m *Machine) DirtyRate(ctx context.Context, over time.Duration) (rate int64, err error) {
	if over < vmm.MinWatch || over > vmm.MaxWatch {
		return 0, fmt.Errorf("watch memory of %s for %v: use %v to %v", m.spec.Name, over, vmm.MinWatch, vmm.MaxWatch)
	}
	if rate, err = m.rateOver(ctx, over); err != nil {
		return 0, fmt.Errorf("watch memory of %s: %w", m.spec.Name, m.why(err))
	}
	return rate, nil
}

func (m *Machine) rateOver(ctx context.Context, over time.Duration) (int64, error) {
	free, err := turn(ctx, m.watching)
	if err != nil {
		return 0, err
	}
	defer free()
	zones, err := m.memory(ctx)
	if err != nil {
		return 0, err
	}
	least, most := int64(0), m.spec.Memory*int64(time.Second)/int64(over)
	if m.spec.Memory >= leastBlock {
		if over, err = m.startDirtyRate(ctx, over); err != nil {
			return 0, err
		}
	}
	share, took, err := m.changed(ctx, pick(zones, watched), over)
	if err != nil {
		return 0, err
	}
	if m.spec.Memory >= leastBlock {
		if least, err = m.awaitDirtyRate(ctx); err != nil {
			return 0, err
		}
		most = least + mib - 1
	}
	return min(max(int64(share*float64(m.spec.Memory)/took.Seconds()), least), most), nil
}

// changed reads pages twice, each as long after as all take to be read but at least
// over, and says which share differs, and after how long. Others may look meanwhile.
func (m *Machine) changed(ctx context.Context, at []int64, over time.Duration) (share float64, took time.Duration, err error) {
	before, now := make([]byte, len(at)*vmm.PageSize), make([]byte, len(at)*vmm.PageSize)
	read := func(to []byte) error {
		return m.look(ctx, func(p *peek) error { _, err := p.pages(ctx, at, to); return err })
	}
	began := time.Now()
	if err := read(before); err != nil {
		return 0, 0, err
	}
	if err := rest(ctx, over-time.Since(began)); err != nil {
		return 0, 0, err
	}
	took = time.Since(began)
	if err := read(now); err != nil {
		return 0, 0, err
	}
	n := 0
	for i := 0; i < len(now); i += vmm.PageSize {
		if !bytes.Equal(now[i:i+vmm.PageSize], before[i:i+vmm.PageSize]) {
			n++
		}
	}
	return float64(n) / float64(max(len(at), 1)), took, nil
}

func rest(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// startDirtyRate starts QEMU's measurement and returns how long it takes. QEMU before
// 8.2 counts in seconds.
func (m *Machine) startDirtyRate(ctx context.Context, over time.Duration) (time.Duration, error) {
	per := min(max(qemuSamples*1024*mib/m.spec.Memory, minPerGiB), maxPerGiB)
	args := map[string]any{"mode": "page-sampling", "sample-pages": per, "calc-time": over.Milliseconds(), "calc-time-unit": "millisecond"}
	err := m.mon.Execute(ctx, "calc-dirty-rate", args, nil)
	var refused *qmp.Error
	if !errors.As(err, &refused) {
		return over, err
	}
	delete(args, "calc-time-unit")
	seconds := int64((over + time.Second - 1) / time.Second)
	args["calc-time"] = seconds
	return time.Duration(seconds) * time.Second, m.mon.Execute(ctx, "calc-dirty-rate", args, nil)
}

// awaitDirtyRate waits for the end of the measurement and returns bytes a second.
func (m *Machine) awaitDirtyRate(ctx context.Context) (int64, error) {
	for {
		var r struct {
			Status string
			Rate   int64 `json:"dirty-rate"` // MiB a second
		}
		if err := m.mon.Execute(ctx, "query-dirty-rate", nil, &r); err != nil {
			return 0, err
		}
		switch {
		case r.Status == "measured" && r.Rate >= 0 && r.Rate < 1<<40:
			return r.Rate * mib, nil
		case r.Status != "measuring":
			return 0, fmt.Errorf("QEMU measured nothing: %s, %d", r.Status, r.Rate)
		}
		if err := rest(ctx, pollEvery); err != nil {
			return 0, err
		}
	}
}
