package testnet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/dcnode/dcnode/node/api"
)

// KillAt is when the destination's dcnode is killed (kill -9).
type KillAt string

const (
	// KillInMemory: in the memory phase. The machine has never left.
	KillInMemory KillAt = "memory"
	// KillRunning: as soon as the machine runs there and before the others can know
	// that, since the site is cut off as well. QEMU lives on, and has to stand still
	// before the source takes the machine back.
	KillRunning KillAt = "running"
)

// kill ends the dcnode of the selected destination, as a crash would.
func (d *demo) kill(ctx context.Context) {
	s, err := d.first.Client.Ledger(ctx)
	if err != nil {
		return
	}
	if m := s.Machine(machineName); m != nil && m.Move != nil {
		d.rep.Killed = s.Site(m.Move.To)
		d.site(d.rep.Killed).Kill()
		d.tell("  kill -9 of dcnode at %s", d.rep.Killed)
	}
}

// ErrTooLate: the others have heard of what should have been cut off.
var ErrTooLate = errors.New("the destination's word was quicker than the cut")

// killRunning cuts the destination off when it has written down that the machine is
// about to run there, which it does when its release is ordered, and ends its dcnode
// at the first tick.
func (d *demo) killRunning(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 2*time.Minute, errors.New("the machine has not run at its destination"))
	defer cancel()
	to, err := d.taken(ctx)
	if err != nil {
		return err
	}
	for i := range d.sites.List {
		if i == to {
			continue
		}
		heal, err := d.sites.net.cut(i, to)
		if err != nil {
			return err
		}
		d.heal = append(d.heal, heal)
	}
	dest := d.sites.List[to]
	if err := d.obs.await(ctx, func() bool { return d.obs.count(dest.Name) > 0 }); err != nil {
		return err
	}
	dest.Kill()
	d.rep.Killed = dest.Name
	d.tell("  %s is cut off, kill -9 of its dcnode; QEMU lives on", d.rep.Killed)
	return nil
}

// taken is the site that is about to run a machine that has arrived.
func (d *demo) taken(ctx context.Context) (int, error) {
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for {
		for i, s := range d.sites.List[1:] {
			b, err := os.ReadFile(filepath.Join(s.Dir, "machines", machineName, "machine.json"))
			if err == nil && bytes.Contains(b, []byte(`"step": "here"`)) {
				return i + 1, nil
			}
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// survived checks that the machine runs on at the source after its destination died.
func (d *demo) survived(ctx context.Context, err error) error {
	switch {
	case d.rep.Killed == "":
		return fmt.Errorf("the move ended before its destination could be killed: %w", err)
	case err == nil && d.o.Kill == KillRunning:
		return ErrTooLate
	case err == nil:
		return errors.New("the move is said to have succeeded although its destination was killed")
	}
	d.rep.Error = err.Error()
	d.tell("the move failed as it should: %s", d.rep.Error)
	since := d.obs.count(d.first.Name)
	wait, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("the machine does not run on at the source"))
	defer cancel()
	if err := d.obs.await(wait, func() bool {
		return d.obs.count(d.first.Name) > since+100 && d.obs.checkedAfter(d.first.Name, d.o.Driver, since)
	}); err != nil {
		return err
	}
	d.rep.TicksAfter = d.obs.count(d.first.Name) - since
	c := d.obs.compare(d.first.Name, "")
	d.rep.TicksMissing, d.rep.TicksTwice = c.Missing, c.Duplicate
	d.rep.Downtime = millis(c.Gap)
	if !c.Whole() {
		return fmt.Errorf("the machine has not run on whole: %s", c)
	}
	if d.o.Kill == KillRunning {
		return d.stranded(ctx, d.site(d.rep.Killed))
	}
	return nil
}

// stranded checks that the machine has never run at two sites at once, and that a
// destination that comes back gives it up.
func (d *demo) stranded(ctx context.Context, dest *Site) error {
	there, here := d.obs.ticks(dest.Name), d.obs.ticks(d.first.Name)
	first, last := there[0].At, there[len(there)-1].At
	for _, t := range here {
		if t.At >= first && t.At <= last {
			return fmt.Errorf("two run: tick %d at %s, while %s ticks from %v to %v", t.N, d.first.Name, dest.Name, first, last)
		}
	}
	d.rep.RanThere = millis(last - first)
	d.tell("it ran at %s for %.1f s without a confirmation and stands still since", dest.Name, (last - first).Seconds())
	for _, heal := range d.heal {
		if err := heal(); err != nil {
			return err
		}
	}
	st, err := d.first.Client.Status(ctx)
	if err != nil {
		return err
	}
	if err := dest.start(st.Addrs); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 2*time.Minute, fmt.Errorf("%s does not give up what is not its own", dest.Name))
	defer cancel()
	_, err = dest.await(ctx, func(api.Status) bool {
		left, err := filepath.Glob(filepath.Join(dest.Dir, "machines", machineName, "*"))
		return err == nil && len(left) <= 1 // console.log
	})
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dest.Dir, "machines", machineName, "console.log")); err != nil {
		return err
	}
	d.rep.SourceGone = true
	if n := len(d.obs.ticks(dest.Name)); n != len(there) {
		return fmt.Errorf("the machine went on at %s: %d ticks more", dest.Name, n-len(there))
	}
	d.tell("%s is back and has given it up", dest.Name)
	return nil
}
