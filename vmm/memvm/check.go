package memvm

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/dcnode/dcnode/vmm"
)

// limits of a program, so that its arithmetic cannot overflow and a scan for its
// blocks is short.
const (
	maxHotPages  = 1 << 24
	maxPerStep   = 1 << 12
	maxHotBlocks = 4096 // 16 MiB
	maxStep      = 1 << 48
)

func (p Program) check(step uint64) error {
	if p.HotPages == 0 || p.HotPages > maxHotPages || p.PagesPerStep == 0 || p.PagesPerStep > maxPerStep ||
		p.HotBlocks == 0 || p.HotBlocks > maxHotBlocks || p.BlocksPerStep == 0 || p.BlocksPerStep > maxPerStep {
		return fmt.Errorf("program %+v is out of bounds", p)
	}
	if step > maxStep {
		return fmt.Errorf("step %d is out of bounds", step)
	}
	return nil
}

// Verify computes what memory holds at the machine's step and compares every page.
// The machine stands still meanwhile.
func (m *Machine) Verify() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch m.state {
	case vmm.Arriving:
		return errors.New("verify: the machine's state has not arrived")
	case vmm.Ended:
		return fmt.Errorf("verify: %w", m.gone())
	}
	var p [pageSize]byte
	var sum digest
	for i := range m.mem.pages() {
		m.plan.page(i, m.step, p[:])
		if !bytes.Equal(p[:], m.mem.page(i)) {
			return fmt.Errorf("verify %s: page %d is not that of step %d", m.spec.Name, i, m.step)
		}
		sum.add(pageDigest(i, p[:]))
	}
	if sum != m.mem.sum {
		return fmt.Errorf("verify %s: digest of step %d does not match its pages", m.spec.Name, m.step)
	}
	return nil
}

// DiskReport is what [CheckDisks] found.
type DiskReport struct {
	Step   uint64 // the disks are those of this step
	Blocks int64  // compared
}

// CheckDisks computes what the disks of a stopped or paused machine must hold and
// compares each block of its overlays. It finds lost, stale, torn and misplaced
// blocks. Disks that the machine never wrote pass with Step 0.
func CheckDisks(s vmm.Spec, f vmm.Files) (DiskReport, error) {
	var disks []*disk
	defer func() {
		for _, k := range disks {
			k.close()
		}
	}()
	for _, d := range f.Disks {
		k, err := openDisk(f.Dir, d, readOnly)
		if err != nil {
			return DiskReport{}, fmt.Errorf("check disks of %s: %w", s.Name, err)
		}
		disks = append(disks, k)
	}
	head, err := lastStep(s.Seed, disks)
	if err != nil {
		return DiskReport{}, fmt.Errorf("check disks of %s: %w", s.Name, err)
	}
	prog := head.Prog
	if head.Step == 0 {
		prog = Program{}.withDefaults()
	}
	pl := newPlan(s, f, prog, disks)
	if err := pl.checkDisks(disks, head.Step); err != nil {
		return DiskReport{}, fmt.Errorf("check disks of %s: %w", s.Name, err)
	}
	r := DiskReport{Step: head.Step}
	for _, k := range disks {
		for _, w := range k.where {
			if w != inBase {
				r.Blocks++
			}
		}
	}
	return r, nil
}

// lastStep finds the newest whole block that a machine of this seed wrote at the
// end of its disks; Step is 0 if there is none.
func lastStep(seed uint64, disks []*disk) (newest blockHeader, err error) {
	var p [pageSize]byte
	for d, k := range disks {
		n := int64(len(k.where))
		for b := n - min(maxHotBlocks, n/2); b < n; b++ {
			if err := k.read(p[:], b*pageSize); err != nil {
				return newest, err
			}
			h, ok, whole := getBlock(p[:])
			if !ok || !whole || h.Seed != seed || int(h.Disk) != d || h.Block != uint64(b) || h.Prog.check(h.Step) != nil {
				continue
			}
			if h.Step > newest.Step {
				newest = h
			}
		}
	}
	return newest, nil
}

// checkDisks compares the disks with step n: the hot blocks with what was written
// last, other blocks of the overlays with the base.
func (pl *plan) checkDisks(disks []*disk, n uint64) error {
	hot := pl.hotBlocks()
	seen := make([]bitmap, len(disks))
	for d, k := range disks {
		seen[d] = newBitmap(int64(len(k.where)))
	}
	var want, got [pageSize]byte
	for i := range hot {
		w := lastWrite(i, hot, int64(n)*pl.blocksPerStep())
		if w < 0 {
			continue
		}
		b := pl.diskWrite(w, want[:])
		if b.data == nil {
			clear(want[:])
		}
		k := disks[b.disk]
		if err := k.read(got[:], b.block*pageSize); err != nil {
			return err
		}
		seen[b.disk].set(b.block)
		if want != got {
			return fmt.Errorf("disk %s, block %d is not that of step %d: %s", k.Name, b.block, n, describe(got[:], b.data == nil))
		}
	}
	for d, k := range disks {
		for b, w := range k.where {
			if w == inBase || seen[d].has(int64(b)) {
				continue
			}
			if _, err := k.readBase(want[:], int64(b)*pageSize); err != nil {
				return err
			}
			if err := k.read(got[:], int64(b)*pageSize); err != nil {
				return err
			}
			if want != got {
				return fmt.Errorf("disk %s, block %d differs from the base, but was never written: %s", k.Name, b, describe(got[:], false))
			}
		}
	}
	return nil
}

func describe(p []byte, wantZero bool) string {
	h, ok, whole := getBlock(p)
	switch {
	case !ok && isZero(p):
		return "it holds zeroes"
	case !ok && wantZero:
		return "it holds other bytes, not zeroes"
	case !ok:
		return "it holds other bytes"
	case !whole:
		return fmt.Sprintf("it is torn (header of step %d)", h.Step)
	}
	return fmt.Sprintf("it holds disk %d, block %d of step %d, seed %d", h.Disk, h.Block, h.Step, h.Seed)
}
