package node

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"

	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/node/migrate"
	"github.com/dcnode/dcnode/node/survey"
	"github.com/dcnode/dcnode/vmm"
	"github.com/dcnode/dcnode/vmm/ramstream"
)

// How a machine is looked at before a move.
const (
	samplePages = 2048                    // of memory: tells its size on the wire to some 3 %
	watchFor    = 800 * time.Millisecond  // how fast memory is written; a move begins so much later
	glance      = 200 * time.Millisecond  // before it: who writes the same again shows in the longer one
	lookWithin  = 4 * time.Second         // all of it; less than needsWithin
	pathsWithin = 1500 * time.Millisecond // to measure ways that are not known or old
	oldPath     = 30 * time.Second
	unsurePath  = 10 * time.Second // what disturbed the measurement may be over
	needsFresh  = 10 * time.Second // a plan and the move after it look once
)

// looked is what was found when a machine was looked at.
type looked struct {
	at    time.Time
	needs ledger.Needs
	done  chan struct{} // closed when needs is there
}

// needs is what a machine asks of a destination: looked at now, or a moment ago.
func (n *Node) needs(ctx context.Context, m *machine) ledger.Needs {
	key := m.Spec.Name
	n.mu.Lock()
	l := n.looks[key]
	if l == nil || time.Since(l.at) > needsFresh {
		l = &looked{at: time.Now(), done: make(chan struct{})}
		n.looks[key] = l
		if !n.spawn(func() { defer close(l.done); l.needs = n.inspect(n.taskCtx, m) }) {
			close(l.done)
		}
	}
	n.mu.Unlock()
	select {
	case <-l.done:
		return l.needs
	case <-ctx.Done():
		return n.roughNeeds(ctx, m)
	}
}

// unlook forgets what a machine was like.
func (n *Node) unlook(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.looks, name)
}

// roughNeeds is what is known without looking into the machine.
func (n *Node) roughNeeds(ctx context.Context, m *machine) ledger.Needs {
	need := ledger.Needs{
		Version: m.driver.Probe(ctx).Version,
		Memory:  m.Spec.Memory, VCPUs: m.Spec.VCPUs, Driver: m.Spec.Driver, Accelerator: m.Spec.Accelerator,
		MachineType: m.Spec.MachineType, MemoryBytes: m.Spec.Memory / 4, // as long as it was not looked at
	}
	for _, d := range m.files.Disks {
		need.Disk += d.Size
	}
	need.DiskBytes = min(need.Disk, overlayBytes(m.files.Dir))
	return need
}

// inspect looks into a machine, and at the ways that it could take, meanwhile. What
// cannot be found out stays rough.
func (n *Node) inspect(ctx context.Context, m *machine) ledger.Needs {
	need := n.roughNeeds(ctx, m)
	ctx, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	vm := n.process(m)
	var est migrate.Estimate
	var encodes int64
	var rate, hot int64
	var wg sync.WaitGroup
	try := func(what string, f func() error) {
		wg.Go(func() {
			if err := f(); err != nil {
				n.log.Debug("a machine is not known well", "machine", m.Spec.Name, "what", what, "cause", err)
			}
		})
	}
	if x, ok := vm.(vmm.Featurer); ok {
		try("CPU features", func() (err error) { need.CPUFeatures, err = x.CPUFeatures(ctx); return err })
	}
	if x, ok := vm.(vmm.DiskOwner); ok {
		try("own disk", func() error {
			own, err := x.OwnBytes(ctx)
			if err == nil {
				need.DiskBytes = min(own, need.Disk)
			}
			return err
		})
	}
	if x, ok := vm.(vmm.Sampler); ok {
		try("memory", func() (err error) { est, encodes, err = n.estimate(ctx, m, x); return err })
		try("writes", func() (err error) { rate, hot, err = writes(ctx, x); return err })
	}
	if x, ok := vm.(vmm.DiskWriter); ok {
		try("writes to disk", func() (err error) { need.DiskRate, err = x.DiskRate(ctx, watchFor); return err })
	}
	wg.Go(func() { need.Paths = n.ways(ctx) })
	wg.Wait()
	if est.Pages > 0 {
		need.MemoryBytes, need.Encodes = est.SentBytes, encodes
		rate, hot = int64(float64(rate)*est.Ratio), int64(float64(hot)*est.Ratio)
	}
	need.DirtyRate, need.Hot = rate, hot
	return need
}

// writes are how fast a machine writes its memory and, if it is seen to write the same
// pages again, how much of it that is about: bytes a second, and bytes or 0. Writes that
// hit W bytes at random at rate r leave W(1-exp(-rt/W)) of them written after t; a
// glance tells r, and W follows from the longer look.
func writes(ctx context.Context, x vmm.Sampler) (rate, hot int64, err error) {
	first, err := x.DirtyRate(ctx, glance)
	if err != nil {
		return 0, 0, err
	}
	second, err := x.DirtyRate(ctx, watchFor)
	if err != nil || second >= first*9/10 {
		return max(first, second), 0, err
	}
	r, seen := float64(first), float64(second)*watchFor.Seconds()
	low, high := seen, 100*seen
	for range 40 {
		if w := (low + high) / 2; w*(1-math.Exp(-r*watchFor.Seconds()/w)) < seen {
			low = w
		} else {
			high = w
		}
	}
	return first, int64(low), nil
}

// learnWay takes what a transfer has shown: that the way carries more than was known.
// That it had less to carry, or was held up at its ends, says nothing of the way.
func (n *Node) learnWay(to ledger.MemberID, r migrate.Report) {
	var took time.Duration
	for _, p := range r.Phases {
		if p.Phase == migrate.Disk || p.Phase == migrate.Memory {
			took += p.Duration
		}
	}
	id, sent := n.peer(to), r.MemorySent+r.DiskSent
	if path, _ := n.survey.Path(id); took > 0 && float64(sent)/took.Seconds() > float64(path.Away) {
		n.survey.LearnAway(id, sent, took)
	}
}

// estimate sends a sample of a machine's memory through the encoder of a move, and says
// how many bytes a second that makes.
func (n *Node) estimate(ctx context.Context, m *machine, x vmm.Sampler) (migrate.Estimate, int64, error) {
	bases, closeBases, err := openBases(m.files)
	if err != nil {
		return migrate.Estimate{}, 0, err
	}
	defer closeBases()
	ctx, cancel := context.WithTimeout(ctx, lookWithin*3/4) // the rest is for the encoder
	defer cancel()
	var index *ramstream.Index
	var all errgroup.Group
	all.Go(func() (err error) {
		if index, err = ramstream.NewIndex(ctx, bases, 0); err != nil && ctx.Err() != nil {
			// Without it, what the disks hold counts as sent: better than to know nothing.
			n.log.Debug("no time to index the image of a machine", "machine", m.Spec.Name)
			return nil
		}
		return err
	})
	var pages []byte
	all.Go(func() (err error) {
		pages, err = x.SampleMemory(ctx, int(min(samplePages, m.Spec.Memory/vmm.PageSize)))
		return err
	})
	if err := all.Wait(); err != nil {
		return migrate.Estimate{}, 0, err
	}
	est, rate, err := timed(pages, m.Spec.Memory, index)
	for part := range slices.Chunk(pages, max(len(pages)/4/vmm.PageSize, 1)*vmm.PageSize) {
		if err != nil {
			break
		}
		var r int64
		_, r, err = timed(part, m.Spec.Memory, index)
		rate = max(rate, r) // the others were interrupted
	}
	return est, rate, err
}

// timed is an estimate, and how many bytes a second the encoder made.
func timed(pages []byte, memory int64, index *ramstream.Index) (migrate.Estimate, int64, error) {
	began := time.Now()
	est, err := migrate.EstimateMemory(pages, memory, index)
	took := max(time.Since(began), time.Microsecond)
	sent := float64(est.SentBytes) * float64(len(pages)) / float64(memory)
	return est, int64(sent / took.Seconds()), err
}

// ways are what this node measured of the ways to the others: those that are old are
// measured anew as long as there is time, the oldest first.
func (n *Node) ways(ctx context.Context) []ledger.Way {
	ctx, cancel := context.WithTimeout(ctx, pathsWithin)
	defer cancel()
	members := n.roster.now().members
	n.refresh(ctx, members, oldPath)
	var out []ledger.Way
	for _, m := range members { // they are by ID
		if path, _ := n.survey.Path(n.peer(m.ID)); m.ID != n.self && path.Away > 0 {
			out = append(out, ledger.Way{Member: m.ID, RTT: path.RTT.Microseconds(), Bandwidth: path.Away, Unsure: path.AwayUnsure})
		}
	}
	return out
}

// refresh measures the ways to members that are not known or older than that, one
// after the other. It returns when ctx ends; what was begun goes on, for the next time.
func (n *Node) refresh(ctx context.Context, members []member, older time.Duration) {
	type due struct {
		id peer.ID
		at time.Time
	}
	var all []due
	for _, m := range members {
		id := n.peer(m.ID)
		if m.ID == n.self || !n.sees(id) {
			continue
		}
		path, _ := n.survey.Path(id)
		unsure := (path.Unsure || path.AwayUnsure) && time.Since(path.At) > unsurePath
		if path.RTT == 0 || path.Away == 0 || unsure || time.Since(path.At) > older {
			all = append(all, due{id, path.At})
		}
	}
	slices.SortFunc(all, func(a, b due) int { return a.at.Compare(b.at) })
	for _, d := range all {
		if _, err := n.measureWay(ctx, d.id); err != nil {
			n.log.Debug("a way is not measured", "cause", err)
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// measureWay measures the way to a member. When ctx ends the measurement goes on: who
// asks again may find it done.
func (n *Node) measureWay(ctx context.Context, id peer.ID) (survey.Path, error) {
	type result struct {
		path survey.Path
		err  error
	}
	done := make(chan result, 1)
	if !n.spawn(func() {
		path, err := n.survey.Measure(n.taskCtx, id)
		done <- result{path, err}
	}) {
		return survey.Path{}, errEnded
	}
	select {
	case r := <-done:
		return r.path, r.err
	case <-ctx.Done():
		return survey.Path{}, errors.New("it takes too long: ask again in some seconds")
	}
}

// keepPaths keeps the ways to the others known while this node has machines, which may
// have to leave. A node that has none measures when it is asked to bid.
func (n *Node) keepPaths(ctx context.Context) {
	t := time.NewTicker(pathsEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			n.survey.Forget(func(p peer.ID) bool { return n.member(p) != 0 })
			n.mu.Lock()
			some := len(n.machines) > 0 && len(n.outs)+len(n.ins) == 0
			n.mu.Unlock()
			if some {
				n.refresh(ctx, n.roster.now().members, pathsFresh/2)
			}
		case <-ctx.Done():
			return
		}
	}
}

const (
	pathsEvery = 5 * time.Second
	pathsFresh = 10 * time.Minute
)

// wayFrom is the way from a member to here. theirs is what that member has measured of
// it, or nothing.
func (n *Node) wayFrom(ctx context.Context, from peer.ID, theirs ledger.Way) (survey.Path, error) {
	path, fresh := n.survey.Path(from)
	var err error
	switch {
	case !fresh || path.Bandwidth == 0:
		path, err = n.measureSoon(ctx, from)
		last, still := n.survey.Path(from)
		if err != nil && last.Bandwidth > 0 && (still || isBusy(err)) { // or it is being measured again, to be sure
			path, err = last, nil
		} else if least := n.survey.Least(); isBusy(err) && (least > 0 || theirs.Bandwidth > 0) {
			// Machines that move all the time would else keep out whoever is new.
			path, err = survey.Path{Bandwidth: least, Unsure: true}, nil // 0: the ledger takes theirs
		}
	case path.Unsure && time.Since(path.At) > unsurePath: // for the next time
		n.spawn(func() { _, _ = n.survey.Measure(n.taskCtx, from) })
	}
	if err == nil && path.RTT == 0 { // the other has measured it
		path.RTT, err = n.overlay.RTT(ctx, from)
	}
	if err != nil {
		return path, fmt.Errorf("measure the path to %s: %w", n.site(n.member(from)), err)
	}
	return path, nil
}

// measureSoon measures a way that nothing else is known of: while one of its ends is
// busy it asks again, for half of the time that there is.
func (n *Node) measureSoon(ctx context.Context, from peer.ID) (path survey.Path, err error) {
	began := time.Now()
	ends, limited := ctx.Deadline()
	for {
		path, err = n.measureWay(ctx, from)
		if last, _ := n.survey.Path(from); !isBusy(err) || last.Bandwidth > 0 || !limited || time.Since(began) > time.Until(ends) {
			return path, err
		}
		if perr := pause(ctx, busyAgain); perr != nil {
			return path, err
		}
	}
}

// busyAgain is between two tries to measure a way whose ends are busy.
const busyAgain = 100 * time.Millisecond

// isBusy says that a way should not be measured now: what else is known of it may do.
func isBusy(err error) bool {
	return errors.Is(err, survey.ErrBusy) || errors.Is(err, survey.ErrSpent)
}

// overlayBytes is what a machine's directory takes on disk.
func overlayBytes(dir string) int64 {
	var sum int64
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0
	}
	for _, e := range entries {
		info, err := e.Info()
		if err == nil && info.Mode().IsRegular() {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				sum += st.Blocks * 512
			}
		}
	}
	return sum
}
