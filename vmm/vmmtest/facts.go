package vmmtest

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/dcnode/dcnode/vmm"
)

// facts asks a running machine for all that its driver can tell.
func facts(f *fixture) {
	m, files := f.start()
	if can, ok := m.(vmm.Featurer); ok {
		got, err := can.CPUFeatures(f.ctx)
		f.must(err)
		host := f.driver.Probe(f.ctx).CPUFeatures
		if lacks := vmm.Lacks(host, got); len(got) == 0 || !slices.IsSorted(got) || len(lacks) > 0 {
			f.Errorf("the machine has the features %q; its host lacks %q of them", got, lacks)
		}
	}
	if can, ok := m.(vmm.DiskOwner); ok {
		n, err := can.OwnBytes(f.ctx)
		f.must(err)
		var size int64
		for _, d := range f.Disks {
			size += d.Size
		}
		if n <= 0 || n > size {
			f.Errorf("a machine that writes all the time has %d bytes of its own on %d bytes of disks", n, size)
		}
	}
	if can, ok := m.(vmm.Sampler); ok {
		f.samples(can, m)
	}
	f.is(m, vmm.Running)
	f.more(files)
}

func (f *fixture) samples(can vmm.Sampler, m vmm.Machine) {
	f.Helper()
	pages, err := can.SampleMemory(f.ctx, 100)
	f.must(err)
	if len(pages) != 100*vmm.PageSize {
		f.Errorf("100 pages have %d bytes", len(pages))
	}
	for _, n := range []int{-1, 0, vmm.MaxSample + 1} {
		if _, err := can.SampleMemory(f.ctx, n); err == nil {
			f.Errorf("sampled %d pages", n)
		}
	}
	rate, err := can.DirtyRate(f.ctx, vmm.MinWatch)
	f.must(err)
	if most := f.Spec.Memory * int64(time.Second/vmm.MinWatch); rate < 0 || rate > most {
		f.Errorf("memory of %d bytes changes at %d bytes a second", f.Spec.Memory, rate)
	}
	for _, d := range []time.Duration{-1, 0, vmm.MinWatch - 1, vmm.MaxWatch + 1} {
		if _, err := can.DirtyRate(f.ctx, d); err == nil {
			f.Errorf("watched for %v", d)
		}
	}
	given, cancel := context.WithCancel(f.ctx)
	cancel()
	if _, err := can.DirtyRate(given, time.Second); !errors.Is(err, context.Canceled) {
		f.Errorf("watched for one who has gone: %v", err)
	}
	f.must(m.Pause(f.ctx))
	if rate, err = can.DirtyRate(f.ctx, vmm.MinWatch); err != nil || rate != 0 {
		f.Errorf("memory of a paused machine changes at %d bytes a second, %v", rate, err)
	}
	f.must(m.Resume(f.ctx))
}

// noFacts asks machines whose memory is not there.
func noFacts(f *fixture) {
	dst, _, err := f.driver.Receive(f.ctx, f.Spec, f.files())
	f.must(err)
	can, ok := dst.(vmm.Sampler)
	if !ok {
		f.Skip("the driver looks into no memory")
	}
	for _, what := range []string{"waits for its state", "has ended"} {
		if _, err := can.SampleMemory(f.ctx, 1); err == nil {
			f.Errorf("sampled a machine that %s", what)
		}
		if _, err := can.DirtyRate(f.ctx, vmm.MinWatch); err == nil {
			f.Errorf("watched a machine that %s", what)
		}
		f.must(dst.Stop(f.ctx))
	}
}
