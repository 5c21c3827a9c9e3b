package testnet

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/node/api"
	"github.com/dcnode/dcnode/testnet/wan"
)

// PlanOptions say how plans are compared with what then happened.
type PlanOptions struct {
	Moves    int    // 0: 30
	Seed     uint64 // of sizes, contents and images
	QEMU     bool   // real guests in place of the embedded machine
	Most     int64  // bytes of memory of the largest machine; 0: 512 MiB
	Loopback bool   // no emulated link
	Program  string // path of dcnode; empty: this program
	Workload string // path of dcnode-guest; empty: beside dcnode
	Keep     bool   // leave logs and data
	Out      io.Writer
}

// spoke is a site at the end of a link from the first one.
type spoke struct {
	rate  int64         // bits per second
	delay time.Duration // one way
}

// spokes are the links of the comparison: slow and far, middling, fast and near.
var spokes = []spoke{
	{20_000_000, 40 * time.Millisecond}, {100_000_000, 10 * time.Millisecond}, {400_000_000, time.Millisecond},
}

// moveWithin bounds one move: the slowest link carries a quarter of a GiB in it.
const moveWithin = 2 * time.Minute

// settleFor is what machines are given before anything is planned.
const settleFor = 20 * time.Second

// guestMemory is that of real guests, in bytes: small, since several run on one host.
const guestMemory = 128 << 20

// hubDelay is what lies between the first site and the middle, one way.
const hubDelay = 500 * time.Microsecond

// Compared is one move: what `vm plan` said of it, and what it was.
type Compared struct {
	N           int                `json:"n"`
	Machine     string             `json:"machine"`
	Memory      int64              `json:"memory"` // bytes
	Content     string             `json:"content"`
	From        string             `json:"from"`
	To          string             `json:"to"`
	Mbit        int64              `json:"mbit"`
	RTT         float64            `json:"rtt_ms"`
	Cold        bool               `json:"cold"` // the destination lacks the image
	Plan        ledger.Forecast    `json:"plan"`
	Truth       ledger.Truth       `json:"truth"`
	Planned     float64            `json:"planned_seconds"` // that planning itself took
	Asked       float64            `json:"asked_seconds"`   // that asking took before
	Seconds     float64            `json:"error_seconds"`   // of the time, as a share of the truth
	Bytes       float64            `json:"error_bytes"`
	Pause       float64            `json:"error_pause"`
	InRange     bool               `json:"in_range"` // the time was in the range that was said
	Phases      map[string]float64 `json:"phases"`   // seconds
	Driver      string             `json:"driver"`
	Accelerator string             `json:"accelerator,omitempty"`
	Link        string             `json:"link"`
}

// PlanSummary is all of them together: shares of the truth, median and worst.
type PlanSummary struct {
	Moves   int        `json:"moves"`
	Seconds [2]float64 `json:"seconds"`
	Bytes   [2]float64 `json:"bytes"`
	Pause   [2]float64 `json:"pause"`
	InRange int        `json:"in_range"`
}

// Summarise sums up.
func Summarise(cs []Compared) PlanSummary {
	s := PlanSummary{Moves: len(cs)}
	of := func(f func(Compared) float64) [2]float64 {
		var v []float64
		for _, c := range cs {
			v = append(v, math.Abs(f(c)))
		}
		slices.Sort(v)
		if len(v) == 0 {
			return [2]float64{}
		}
		mid := (v[(len(v)-1)/2] + v[len(v)/2]) / 2
		return [2]float64{mid, v[len(v)-1]}
	}
	s.Seconds, s.Bytes = of(func(c Compared) float64 { return c.Seconds }), of(func(c Compared) float64 { return c.Bytes })
	s.Pause = of(func(c Compared) float64 { return c.Pause })
	for _, c := range cs {
		if c.InRange {
			s.InRange++
		}
	}
	return s
}

// subjectMachine is one machine of the comparison; it goes out, back and out again.
type subjectMachine struct {
	name, image, content string
	memory               int64
	writes               int
	spoke                int
}

// planBench is one comparison.
type planBench struct {
	o     PlanOptions
	tell  func(string, ...any)
	dir   string
	sites *Sites
	kit   *Kit
	link  string
	rnd   *rand.Rand
	n     int
}

// ComparePlans moves machines over different links, asks before each move what it
// would be, and tells what it was. What the ledger learns from the moves before is a
// part of what is compared.
func ComparePlans(ctx context.Context, o PlanOptions, done func(Compared)) (err error) {
	if o.Program == "" {
		if o.Program, err = os.Executable(); err != nil {
			return fmt.Errorf("find this program: %w", err)
		}
	}
	o.Moves, o.Most = cmp.Or(o.Moves, 30), cmp.Or(o.Most, 512<<20)
	if o.Out == nil {
		o.Out = io.Discard
	}
	b := &planBench{o: o, tell: printer(o.Out), rnd: rand.New(rand.NewPCG(o.Seed, 4))}
	defer func() { err = errors.Join(err, b.close(err)) }()
	if err := b.open(ctx); err != nil {
		return err
	}
	return b.run(ctx, done)
}

// open brings up the sites: the first in the middle, the others at the ends.
func (b *planBench) open(ctx context.Context) (err error) {
	if b.dir, err = os.MkdirTemp("", "dcnode-plan-"); err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	qemu := ""
	if b.o.QEMU {
		k, err := MakeKit(ctx, b.o.Program, b.o.Workload, b.o.Out)
		if err != nil {
			return err
		}
		b.kit, qemu = &k, k.QEMU
	}
	net, err := b.network(ctx)
	if err != nil {
		return err
	}
	b.link = net.describe()
	if b.sites, err = newSites(b.dir, Options{Members: 1 + len(spokes), Program: b.o.Program}, net, qemu); err != nil {
		return errors.Join(err, net.close())
	}
	b.tell("%d sites; %s", len(b.sites.List), b.link)
	return b.sites.up(ctx)
}

func (b *planBench) network(ctx context.Context) (network, error) {
	if b.o.Loopback {
		return loopback{"as asked"}, nil
	}
	if err := wan.Available(); err != nil {
		return loopback{strings.ReplaceAll(err.Error(), "\n", "; ")}, nil
	}
	hub := spoke{delay: hubDelay}
	c := wan.Config{Sites: []wan.Site{{Name: siteName(0)}}, Rate: 1_000_000_000}
	all, what := []spoke{hub}, []string{}
	for i, s := range spokes {
		c.Sites = append(c.Sites, wan.Site{Name: siteName(i + 1), Rate: s.rate})
		c.Link.OneWay = max(c.Link.OneWay, hub.delay+s.delay) // what windows are made for
		all, what = append(all, s), append(what, fmt.Sprintf("%d Mbit/s and %v", s.rate/1_000_000, 2*(hub.delay+s.delay)))
	}
	n, err := wan.New(c)
	if err != nil {
		return nil, fmt.Errorf("emulate a wide-area network: %w", err)
	}
	w := &wideArea{net: n, ended: make(chan error, 1), what: "from the first site " + strings.Join(what, ", ") + " round trip, emulated over TUN devices"}
	go func() { w.ended <- n.Run(context.WithoutCancel(ctx)) }()
	for i := range all {
		for j := range i {
			if err := n.SetLink(siteName(i), siteName(j), wan.Link{OneWay: all[i].delay + all[j].delay}); err != nil {
				return nil, errors.Join(err, w.close())
			}
		}
	}
	return w, nil
}

// subjects are the machines: the slower the link, the smaller what has to cross it.
func (b *planBench) subjects() []subjectMachine {
	menu := [][]subjectMachine{
		{{content: "zero", memory: 64, writes: 1}, {content: "text", memory: 64, writes: 1}, {content: "mixed", memory: 64, writes: 2}},
		{{content: "random", memory: 64, writes: 2}, {content: "mixed", memory: 128, writes: 16}, {content: "text", memory: 256, writes: 4}},
		{{content: "mixed", memory: 256, writes: 32}, {content: "random", memory: 128, writes: 8}, {content: "text", memory: 512, writes: 8}, {content: "zero", memory: 512, writes: 16}},
	}
	var out []subjectMachine
	for i := 0; 3*len(out) < b.o.Moves; i++ {
		at := i % len(spokes)
		of := menu[at]
		m := of[(i/len(spokes))%len(of)]
		if i/len(spokes) >= len(of) || b.o.Seed > 1 { // other sizes than those that are known
			m.memory = m.memory * int64(80+b.rnd.IntN(60)) / 100
		}
		m.memory = min(m.memory<<20, b.o.Most) &^ (1<<20 - 1)
		m.spoke, m.name, m.image = at, fmt.Sprintf("vm%d", i+1), fmt.Sprintf("image%d", i+1)
		out = append(out, m)
	}
	return out
}

// run makes the machines, and moves each out, back and out again.
func (b *planBench) run(ctx context.Context, done func(Compared)) error {
	ms := b.subjects()
	for i := range ms {
		if err := b.make(ctx, &ms[i]); err != nil {
			return err
		}
	}
	b.tell("%d machines run", len(ms))
	select { // until they write what they will go on writing, and the ways are known
	case <-time.After(settleFor):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	for round := range 3 {
		for _, m := range ms {
			if b.n == b.o.Moves {
				return nil
			}
			b.n++
			from, to := 0, m.spoke+1
			if round == 1 {
				from, to = to, from
			}
			c, err := b.compare(ctx, m, b.sites.List[from], b.sites.List[to])
			if err != nil {
				return fmt.Errorf("move %d, of %s from %s to %s: %w", b.n, m.name, siteName(from), siteName(to), err)
			}
			done(c)
		}
	}
	return nil
}

// make adds a machine's image and starts it at the first site.
func (b *planBench) make(ctx context.Context, m *subjectMachine) error {
	first := b.sites.List[0].Client
	r := api.RunMachine{Name: m.name, Image: m.image, Memory: m.memory, VCPUs: 1, Driver: "memvm"}
	add := api.AddImage{Name: m.image, Path: filepath.Join(b.dir, m.image+".raw")}
	if m.content != "mixed" {
		r.Append = "memory=" + m.content
	}
	if m.writes > 0 {
		r.Append += fmt.Sprintf(" writes=%d", m.writes)
	}
	if b.kit != nil {
		add = api.AddImage{Name: m.image, Path: b.kit.Disk, Kernel: b.kit.Kernel, Initrd: b.kit.Initrd, Append: b.kit.Append}
		r.Driver, r.Append, m.content, r.Memory = "qemu", "", "Linux", guestMemory
		m.memory = r.Memory
	} else if err := b.disk(add.Path, m); err != nil {
		return err
	}
	if _, err := first.AddImage(ctx, add, nil); err != nil {
		return fmt.Errorf("add image: %w", err)
	}
	if _, err := first.RunMachine(ctx, r, nil); err != nil {
		return fmt.Errorf("run machine: %w", err)
	}
	return nil
}

// disk makes a disk with bytes that nothing shares: some seconds of its link, at most.
func (b *planBench) disk(path string, m *subjectMachine) error {
	data := make([]byte, min(spokes[m.spoke].rate/8*3, 32<<20)&^(1<<20-1))
	for i := 0; i < len(data); i += 8 {
		binary.LittleEndian.PutUint64(data[i:], b.rnd.Uint64())
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return fmt.Errorf("make disk: %w", err)
	}
	return os.Truncate(path, 64<<20)
}

// compare asks for a plan and does what it is of.
func (b *planBench) compare(ctx context.Context, m subjectMachine, from, to *Site) (Compared, error) {
	s := spokes[m.spoke]
	c := Compared{
		N: b.n, Machine: m.name, Memory: m.memory, Content: m.content, From: from.Name, To: to.Name,
		Mbit: s.rate / 1_000_000, RTT: millis(2 * (s.delay + hubDelay)), Link: b.link,
	}
	p, err := b.plan(ctx, m.name, from, to)
	if err != nil {
		return c, err
	}
	within := moveWithin
	if b.kit != nil {
		within *= 3 // an image of 109 MiB, and a guest that writes to disk and memory meanwhile
	}
	ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("it is not over after %v", within))
	defer cancel()
	c.Plan, c.Planned, c.Asked = p.Members[0].Forecast, p.Planned, p.Asked
	c.Cold = c.Plan.Image > 0
	rep, err := from.Client.Migrate(ctx, api.Migrate{Name: m.name, To: to.Name}, nil)
	if err != nil {
		return c, err
	}
	if rep.Truth == nil {
		return c, errors.New("the ledger has no report of it")
	}
	c.Truth, c.Phases, c.Driver, c.Accelerator = *rep.Truth, rep.Phases, rep.Driver, rep.Accelerator
	sent := c.Truth.Image + c.Truth.Disk + c.Truth.Memory
	c.Seconds, c.Bytes, c.Pause = off(c.Plan.Millis, c.Truth.Millis), off(c.Plan.Bytes(), sent), off(c.Plan.Pause, c.Truth.Pause)
	c.InRange = c.Plan.Low <= c.Truth.Millis && c.Truth.Millis <= c.Plan.High
	return c, nil
}

// plan asks until there is an answer: a way that nobody has measured yet takes a while.
func (b *planBench) plan(ctx context.Context, machine string, from, to *Site) (api.Plan, error) {
	for began := time.Now(); ; {
		p, err := from.Client.Plan(ctx, api.PlanQuery{Machine: machine, To: to.Name})
		switch {
		case err != nil:
			return p, fmt.Errorf("plan: %w", err)
		case len(p.Members) == 1 && p.Members[0].Eligible:
			return p, nil
		case time.Since(began) > time.Minute:
			return p, fmt.Errorf("plan: %s cannot take it: %+v, did not answer: %v", to.Name, p.Members, p.Silent)
		}
		b.tell("  asks again: %+v", p.Members)
		select {
		case <-time.After(2 * time.Second):
		case <-ctx.Done():
			return p, context.Cause(ctx)
		}
	}
}

// off is how far a prediction is from the truth, as a share of it.
func off(predicted, truth int64) float64 {
	return float64(predicted-truth) / float64(max(truth, 1))
}

func (b *planBench) close(cause error) error {
	var err error
	if b.sites != nil {
		err = b.sites.down()
	}
	if b.dir == "" {
		return err
	}
	if b.o.Keep || cause != nil {
		b.tell("logs and data are in %s", b.dir)
		return err
	}
	return errors.Join(err, os.RemoveAll(b.dir))
}
