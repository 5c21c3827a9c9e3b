package testnet

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/dcnode/dcnode/testnet/guest"
	"github.com/dcnode/dcnode/vmm/memvm"
)

// observer watches the machine's console at every site and believes nothing else.
type observer struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu   sync.Mutex
	seen map[string]*seen // by site
	bad  error            // what the guest itself found wrong
	news chan struct{}
}

// seen is what a site's console has shown.
type seen struct {
	ticks  []guest.Tick
	checks []int // for each good check: ticks before it
}

func newObserver(ctx context.Context, sites []*Site) *observer {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	o := &observer{cancel: cancel, seen: map[string]*seen{}, news: make(chan struct{}, 1)}
	for _, s := range sites {
		o.seen[s.Name] = &seen{}
		lines := guest.Watch(ctx, filepath.Join(s.Dir, "machines", machineName, "console.log"))
		o.wg.Go(func() {
			for l := range lines {
				o.note(s.Name, l)
				select {
				case o.news <- struct{}{}:
				default:
				}
			}
		})
	}
	return o
}

func (o *observer) close() {
	o.cancel()
	o.wg.Wait()
}

func (o *observer) note(site string, l guest.Line) {
	o.mu.Lock()
	defer o.mu.Unlock()
	at := o.seen[site]
	switch l.Kind {
	case guest.TickLine:
		at.ticks = append(at.ticks, guest.Tick{N: l.N, At: l.At})
	case guest.CheckOK:
		at.checks = append(at.checks, len(at.ticks))
	case guest.CheckFail, guest.Panic:
		o.bad = fmt.Errorf("the guest at %s says: %s", site, l.Text)
	}
}

// await waits until good, looked at after each new line, says yes, or until the
// guest says that something is wrong.
func (o *observer) await(ctx context.Context, good func() bool) error {
	for {
		o.mu.Lock()
		bad := o.bad
		o.mu.Unlock()
		if bad != nil {
			return bad
		}
		if good() {
			return nil
		}
		select {
		case <-o.news:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// ticks are those that a site has shown.
func (o *observer) ticks(site string) []guest.Tick {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.seen[site] == nil {
		return nil
	}
	return o.seen[site].ticks // only ever appended to
}

// at is when a tick was seen, wherever that was.
func (o *observer) at(n uint64) time.Duration {
	for site := range o.seen {
		for _, t := range o.ticks(site) {
			if t.N == n {
				return t.At
			}
		}
	}
	return 0
}

func (o *observer) count(site string) int { return len(o.ticks(site)) }

// working says whether the guest has been at work at a site for a while.
func (o *observer) working(site, driver string, while time.Duration) bool {
	t := o.ticks(site)
	return len(t) > 10 && t[len(t)-1].At-t[0].At >= while && o.checkedAfter(site, driver, 0)
}

// checkedAfter says whether the guest has found its memory and disk whole after
// it had shown n ticks at a site. The embedded machine prints no checks.
func (o *observer) checkedAfter(site, driver string, n int) bool {
	if driver == "memvm" {
		return true
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	good := 0
	for _, before := range o.seen[site].checks {
		if before > n {
			good++
		}
	}
	return good >= 2 // the first may have begun before
}

// compare sets the ticks of source and destination side by side.
func (o *observer) compare(source, dest string) guest.Continuity {
	var after []guest.Tick
	if dest != "" {
		after = o.ticks(dest)
	}
	return guest.Compare(o.ticks(source), after)
}

// demoDisk is the size of the embedded machine's disk, in bytes.
const demoDisk = 64 << 20

// makeDisk makes a disk for the embedded machine: a quarter of it content, the
// rest holes.
func makeDisk(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("make disk: %w", err)
	}
	defer f.Close()
	if err := f.Truncate(demoDisk); err != nil {
		return fmt.Errorf("make disk: %w", err)
	}
	block := make([]byte, 0, 1<<20)
	for i := range 16 {
		block = block[:0]
		for sum := sha256.Sum256([]byte{byte(i)}); len(block) < cap(block); sum = sha256.Sum256(sum[:]) {
			block = append(block, sum[:]...)
		}
		if _, err := f.WriteAt(block, int64(i)*4<<20); err != nil {
			return fmt.Errorf("make disk: %w", err)
		}
	}
	return nil
}

// checkDisk compares the machine's disk at the destination with what it should
// hold: the QEMU guest does it itself, for the embedded machine it is done here.
func (d *demo) checkDisk(ctx context.Context) error {
	if d.o.Driver != "memvm" {
		d.rep.DiskChecksumOK = d.obs.checkedAfter(d.rep.Destination, d.o.Driver, 0)
		if !d.rep.DiskChecksumOK {
			return errors.New("the guest has not checked its disk after the move")
		}
		return nil
	}
	dest := d.site(d.rep.Destination)
	m, err := dest.Client.StopMachine(ctx, machineName)
	if err != nil {
		return fmt.Errorf("stop machine: %w", err)
	}
	found, err := memvm.CheckDisks(m.Detail, d.files(dest, m))
	if err != nil {
		return err
	}
	if found.Blocks == 0 || found.Step == 0 {
		return errors.New("the machine has written nothing to its disk")
	}
	d.rep.DiskChecksumOK = true
	return nil
}
