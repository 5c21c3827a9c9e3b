package testnet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dcnode/dcnode/node/api"
	"github.com/dcnode/dcnode/vmm"
)

// Options say what the demo shows. The zero value is three sites, 1000 km and
// 100 Mbit/s apart, and QEMU where it can be had.
type Options struct {
	Members  int           // 0: 3
	Driver   string        // "qemu" or "memvm"; empty: qemu, or memvm if it cannot be had
	To       string        // site to move to; empty: the ledger selects
	Delay    time.Duration // one way; 0: 5 ms
	Rate     int64         // bits per second and direction; 0: 100 Mbit/s
	Loopback bool          // no emulated link
	Kill     KillAt        // whether the destination dies, and when; the machine must run at the source then
	Cut      time.Duration // cut the link between source and destination for so long in the memory phase
	CutAfter int64         // bytes sent before that; 0: 45 % of the memory, nine tenths of what memvm's takes
	Program  string        // path of dcnode; empty: this program
	Workload string        // path of dcnode-guest; empty: beside dcnode
	Memory   int64         // of the guest, bytes; 0: 256 MiB
	Keep     bool          // leave logs and data of the sites for a look
	Out      io.Writer     // what goes on, for people
}

// Report is what the demo saw: the node's own report of the move, and what an
// observer outside it measured.
type Report struct {
	api.Report
	Link           string  `json:"link"`
	QEMU           string  `json:"qemu,omitempty"` // version
	Members        int     `json:"members"`
	Downtime       float64 `json:"downtime_ms"` // longest gap between ticks around the move, outside
	TicksBefore    int     `json:"ticks_before"`
	TicksAfter     int     `json:"ticks_after"`
	GapAt          float64 `json:"gap_at_seconds"` // when that gap began, counted from the order to move
	Handover       float64 `json:"handover_ms"`    // from the source's last tick to the destination's first
	TicksMissing   uint64  `json:"ticks_missing"`
	TicksTwice     uint64  `json:"ticks_duplicate"`
	DiskChecksumOK bool    `json:"disk_checksum_ok"`
	SourceGone     bool    `json:"source_gone"`
	OneOwner       bool    `json:"one_owner"`
	RootsAgree     bool    `json:"roots_agree"`
	LinkBytes      int64   `json:"link_bytes"` // that crossed the link during the move; -1: not known
	Killed         string  `json:"killed,omitempty"`
	RanThere       float64 `json:"ran_there_ms,omitempty"` // where it was killed, without a confirmation
	Error          string  `json:"error,omitempty"`        // of the move, when one was provoked
}

const (
	machineName = "web1"
	imageName   = "demo"
	warmUp      = 2 * time.Second // of ticks before the move
	afterwards  = 4 * time.Second // of ticks after it
	bootWithin  = 2 * time.Minute
)

func (o *Options) defaults() (err error) {
	if o.Program == "" {
		if o.Program, err = os.Executable(); err != nil {
			return fmt.Errorf("find this program: %w", err)
		}
	}
	if o.Members == 0 && o.Kill == KillRunning {
		o.Members = 4 // three of them go on without the destination
	}
	if o.Members == 0 {
		o.Members = 3
	}
	if o.Delay == 0 {
		o.Delay = 5 * time.Millisecond
	}
	if o.Rate == 0 {
		o.Rate = 100_000_000
	}
	if o.Memory == 0 {
		o.Memory = 256 << 20
	}
	if o.CutAfter == 0 {
		o.CutAfter = o.Memory / 100 * 45
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	return nil
}

// Demo brings up the sites, moves a machine and proves that it is the same one.
// Its error says what was not as it should be.
func Demo(ctx context.Context, o Options) (rep Report, err error) {
	if err := o.defaults(); err != nil {
		return rep, err
	}
	if o.Members < 2 || o.Members > 7 {
		return rep, fmt.Errorf("%d members: the demo takes 2 to 7", o.Members)
	}
	d := &demo{o: o, tell: printer(o.Out)}
	defer func() { err = errors.Join(err, d.close(err)) }()
	for _, step := range []func(context.Context) error{d.prepare, d.connect, d.boot, d.move, d.prove} {
		if err := step(ctx); err != nil {
			return d.rep, err
		}
	}
	return d.rep, nil
}

// demo is one run of it.
type demo struct {
	o     Options
	tell  func(string, ...any)
	qemu  string // binary
	image api.AddImage
	dir   string
	sites *Sites
	obs   *observer
	first *Site // where the machine is started
	rep   Report

	heal    []func() error // of the links that were cut for good
	ordered time.Duration  // when the move was ordered, on the observer's clock
}

// prepare finds or makes QEMU and the guest.
func (d *demo) prepare(ctx context.Context) error {
	var err error
	if d.dir, err = os.MkdirTemp("", "dcnode-demo-"); err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	if d.o.Driver != "memvm" {
		err := d.prepareQEMU(ctx)
		if err == nil {
			return nil
		}
		if d.o.Driver == "qemu" {
			return err
		}
		d.tell("no QEMU here (%v): the embedded machine takes its place", err)
		d.o.Driver = "memvm"
	}
	d.image = api.AddImage{Name: imageName, Path: filepath.Join(d.dir, "disk.raw")}
	return makeDisk(d.image.Path)
}

func (d *demo) prepareQEMU(ctx context.Context) error {
	k, err := MakeKit(ctx, d.o.Program, d.o.Workload, d.o.Out)
	if err != nil {
		return err
	}
	d.o.Driver, d.qemu = "qemu", k.QEMU
	d.image = api.AddImage{Name: imageName, Path: k.Disk, Kernel: k.Kernel, Initrd: k.Initrd, Append: k.Append}
	return nil
}

// connect brings up the link and the sites.
func (d *demo) connect(ctx context.Context) error {
	net, err := newNetwork(ctx, d.o)
	if err != nil {
		return err
	}
	d.rep.Link, d.rep.Members = net.describe(), d.o.Members
	d.tell("%d sites; %s", d.o.Members, d.rep.Link)
	if d.sites, err = newSites(d.dir, d.o, net, d.qemu); err != nil {
		return errors.Join(err, net.close())
	}
	d.first = d.sites.List[0]
	d.obs = newObserver(ctx, d.sites.List)
	if err := d.sites.up(ctx); err != nil {
		return err
	}
	d.tell("all sites see each other")
	return nil
}

// boot makes the image and starts the machine at the first site.
func (d *demo) boot(ctx context.Context) error {
	img, err := d.first.Client.AddImage(ctx, d.image, func(api.Progress) {})
	if err != nil {
		return fmt.Errorf("add image: %w", err)
	}
	d.tell("image %s: %d MiB of disk, %d MiB stored, commit %s", img.Name, img.Size>>20, img.Stored>>20, img.Commit)
	m, err := d.first.Client.RunMachine(ctx, api.RunMachine{
		Name: machineName, Image: imageName, Memory: d.o.Memory, VCPUs: 1, Driver: d.o.Driver,
	}, func(api.Progress) {})
	if err != nil {
		return fmt.Errorf("run machine: %w", err)
	}
	st, err := d.first.Client.Status(ctx)
	if err != nil {
		return err
	}
	d.rep.Driver, d.rep.Accelerator = m.Detail.Driver, m.Detail.Accelerator
	for _, c := range st.Drivers {
		if c.Driver == m.Detail.Driver {
			d.rep.QEMU = c.Version
			d.tell("machine %s started at %s: %s", m.Name, m.Site, strings.Join(strings.Fields(c.Driver+" "+c.Version+" "+c.Accelerator+" "+c.Why), " "))
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, bootWithin, fmt.Errorf("the guest is silent for %v; see its console.log", bootWithin))
	defer cancel()
	if err := d.obs.await(ctx, func() bool { return d.obs.working(d.first.Name, d.o.Driver, warmUp) }); err != nil {
		return err
	}
	d.tell("the guest computes, writes to its disk and ticks")
	return nil
}

// move orders the migration, and in the kill demo takes the destination away.
func (d *demo) move(ctx context.Context) error {
	before := d.sites.net.crossed()
	ticked := d.obs.ticks(d.first.Name)
	d.rep.TicksBefore, d.ordered = len(ticked), ticked[len(ticked)-1].At
	phase, cut := "", d.o.Cut == 0
	var watched chan error
	if d.o.Kill == KillRunning {
		watched = make(chan error, 1)
		go func() { watched <- d.killRunning(ctx) }()
	}
	rep, err := d.first.Client.Migrate(ctx, api.Migrate{Name: machineName, To: d.o.To}, func(p api.Progress) {
		if p.Phase != phase {
			phase = p.Phase
			d.tell("  %s", phase)
		}
		if !cut && phase == "memory" && p.Sent >= d.o.CutAfter {
			cut = true
			d.cut(ctx)
		}
		if d.o.Kill == KillInMemory && d.rep.Killed == "" && phase == "memory" && p.Sent > 0 {
			d.kill(ctx)
		}
	})
	if watched != nil {
		err = errors.Join(err, <-watched)
	}
	if d.o.Kill != "" {
		return d.survived(ctx, err)
	}
	if err != nil {
		return err
	}
	link, qemu, members := d.rep.Link, d.rep.QEMU, d.rep.Members
	ticks := d.rep.TicksBefore
	d.rep = Report{Report: rep, Link: link, QEMU: qemu, Members: members, TicksBefore: ticks, LinkBytes: -1}
	if after := d.sites.net.crossed(); before >= 0 {
		d.rep.LinkBytes = after - before
	}
	d.tell("moved to %s in %.2f s", rep.Destination, rep.TotalSeconds)
	return nil
}

// cut cuts the link of the move for a while.
func (d *demo) cut(ctx context.Context) {
	s, err := d.first.Client.Ledger(ctx)
	if err != nil {
		return
	}
	m := s.Machine(machineName)
	if m == nil || m.Move == nil {
		return
	}
	to := slices.Index(d.sites.List, d.site(s.Site(m.Move.To)))
	heal, err := d.sites.net.cut(0, to)
	if err != nil {
		d.tell("  the link is not cut: %v", err)
		return
	}
	d.tell("  the link to %s is cut for %v", siteName(to), d.o.Cut)
	time.AfterFunc(d.o.Cut, func() {
		if err := heal(); err != nil {
			d.tell("  the link is not healed: %v", err)
		}
	})
}

func (d *demo) site(name string) *Site {
	for _, s := range d.sites.List {
		if s.Name == name {
			return s
		}
	}
	return d.first
}

// prove shows that the machine at the destination is the same, whole, and the only one.
func (d *demo) prove(ctx context.Context) error {
	if d.o.Kill != "" {
		return nil
	}
	dest := d.rep.Destination
	arrived := d.obs.count(dest)
	wait, cancel := context.WithTimeoutCause(ctx, time.Minute, fmt.Errorf("the guest does not go on at %s", dest))
	defer cancel()
	if err := d.obs.await(wait, func() bool {
		return d.obs.count(dest) > arrived+int(afterwards/(10*time.Millisecond))/4 && d.obs.checkedAfter(dest, d.o.Driver, 0)
	}); err != nil {
		return err
	}
	c := d.obs.compare(d.first.Name, dest)
	d.rep.TicksAfter = d.obs.count(dest)
	d.rep.GapAt = (d.obs.at(c.GapAfter) - d.ordered).Seconds()
	d.rep.Downtime, d.rep.Handover, d.rep.TicksMissing, d.rep.TicksTwice = millis(c.Gap), millis(c.Handover), c.Missing, c.Duplicate
	var errs []error
	if !c.Whole() {
		errs = append(errs, fmt.Errorf("the guest is not the same: %s", c))
	}
	errs = append(errs, d.checkLedger(ctx), d.checkDisk(ctx), d.checkSource())
	return errors.Join(errs...)
}

// checkLedger compares all replicas: one owner at every index, the same everywhere.
func (d *demo) checkLedger(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 20*time.Second, errors.New("the members' ledgers do not agree"))
	defer cancel()
	for {
		states, err := d.ledgers(ctx)
		if err != nil {
			return err
		}
		if d.rep.RootsAgree = states != nil; d.rep.RootsAgree {
			d.rep.OneOwner = oneOwner(states, d.rep.Destination)
			if !d.rep.OneOwner {
				return errors.New("the ledger does not show one owner at every index")
			}
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// ledgers are the states of all members if they are equal, else nil.
func (d *demo) ledgers(ctx context.Context) ([]*api.Ledger, error) {
	var states []*api.Ledger
	for _, s := range d.sites.List {
		st, err := s.Client.Ledger(ctx)
		if err != nil {
			return nil, err
		}
		if len(states) > 0 && states[0].Root != st.Root {
			return nil, nil
		}
		states = append(states, st)
	}
	return states, nil
}

// oneOwner says whether every replica has the machine's owners in a row without
// gap or overlap, the last one at the destination.
func oneOwner(states []*api.Ledger, dest string) bool {
	for _, s := range states {
		m := s.Machine(machineName)
		if m == nil || s.Site(m.Owner) != dest || m.Move != nil {
			return false
		}
		for i, h := range m.Handovers {
			if h.Epoch != uint64(i+1) || i > 0 && h.Index <= m.Handovers[i-1].Index {
				return false
			}
		}
	}
	return true
}

// checkSource looks for what the machine may have left where it came from.
func (d *demo) checkSource() error {
	left, err := filepath.Glob(filepath.Join(d.first.Dir, "machines", machineName, "*"))
	if err != nil {
		return err
	}
	for _, f := range left {
		if filepath.Base(f) != "console.log" {
			return fmt.Errorf("the source has kept %s", f)
		}
	}
	d.rep.SourceGone = true
	return nil
}

// close ends everything and removes it, unless it is to be kept.
func (d *demo) close(cause error) error {
	var err error
	if d.obs != nil {
		d.obs.close()
	}
	if d.sites != nil {
		err = d.sites.down()
	}
	if d.dir == "" {
		return err
	}
	if d.o.Keep || cause != nil {
		d.tell("logs and data of the sites are in %s", d.dir)
		return err
	}
	return errors.Join(err, os.RemoveAll(d.dir))
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// files are the machine's files at a site, as its node lays them out.
func (d *demo) files(s *Site, m api.Machine) vmm.Files {
	return vmm.Files{
		Dir: filepath.Join(s.Dir, "machines", m.Name),
		Disks: []vmm.Disk{{
			Name: "disk0", Size: demoDisk, Base: filepath.Join(s.Dir, "images", m.Commit, "disk0.raw"),
		}},
	}
}
