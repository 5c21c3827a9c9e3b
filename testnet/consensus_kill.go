package testnet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dcnode/dcnode/node/api"
)

// KillOptions say how members are killed, again and again, while they order.
type KillOptions struct {
	Members  int           // 0: 4
	Kills    int           // how often
	Reboot   bool          // also lose what was not synced, and come back as after a reboot
	Delay    time.Duration // one way; 0: 1 ms
	Spacing  time.Duration // mean time between submissions; 0: 10 ms
	Seed     uint64
	Loopback bool
	Program  string
	Keep     bool
	Out      io.Writer
}

// KillReport is what was seen.
type KillReport struct {
	Kills     int     `json:"kills"`
	Submitted int64   `json:"submitted"`    // and ordered, as the member said to whom it was given
	Unsure    int64   `json:"unsure"`       // the member was killed before it said
	Ordered   uint64  `json:"ordered"`      // events in the order at the end
	Again     int64   `json:"again"`        // submissions refused by a member that had to begin again from a checkpoint
	Cut       int64   `json:"bytes_cut"`    // of logs
	Back      Times   `json:"back_ms"`      // from start to the first answer
	Caught    Times   `json:"caught_up_ms"` // from start to the first own transaction ordered
	Seconds   float64 `json:"seconds"`
}

// killing is a run.
type killing struct {
	o     KillOptions
	tell  func(string, ...any)
	dir   string
	sites *Sites
	watch *orderWatch
	rnd   *rand.Rand
	boots int
	rep   KillReport

	mu           sync.Mutex
	away         map[*Site]bool // killed, or not yet caught up
	acknowledged []api.Ping
	unsure       atomic.Int64
	back, caught []time.Duration
}

// Kill kills members at random instants while they order, never so many at once that
// the others could not go on, and starts them again. Its error says what was lost,
// ordered differently or signed twice.
func Kill(ctx context.Context, o KillOptions) (rep KillReport, err error) {
	if o.Program == "" {
		if o.Program, err = os.Executable(); err != nil {
			return rep, fmt.Errorf("find this program: %w", err)
		}
	}
	if o.Members == 0 {
		o.Members = 4
	}
	if o.Delay == 0 {
		o.Delay = time.Millisecond
	}
	if o.Spacing == 0 {
		o.Spacing = 10 * time.Millisecond
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	if o.Members < 4 {
		return rep, fmt.Errorf("%d members: fewer than 4 cannot go on without one", o.Members)
	}
	k := &killing{o: o, tell: printer(o.Out), rnd: rand.New(rand.NewPCG(o.Seed, 5)), away: map[*Site]bool{}}
	defer func() { err = errors.Join(err, k.close(err)) }()
	began := time.Now()
	for _, step := range []func(context.Context) error{k.open, k.run, k.prove} {
		if err := step(ctx); err != nil {
			return k.report(began), err
		}
	}
	return k.report(began), nil
}

func (k *killing) report(began time.Time) KillReport {
	k.rep.Unsure, k.rep.Submitted = k.unsure.Load(), int64(len(k.acknowledged))
	k.rep.Back, k.rep.Caught, k.rep.Seconds = timesOf(k.back), timesOf(k.caught), time.Since(began).Seconds()
	return k.rep
}

func (k *killing) open(ctx context.Context) (err error) {
	o := Options{Members: k.o.Members, Delay: k.o.Delay, Rate: linkRate, Loopback: k.o.Loopback, Program: k.o.Program}
	k.dir, k.sites, k.watch, err = upWatched(ctx, o, "dcnode-kill-", k.tell)
	return err
}

// run kills while others submit.
func (k *killing) run(ctx context.Context) error {
	load, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { k.submit(load) })
	defer wg.Wait()
	defer stop()
	down := (k.o.Members - 1) / 3 // that may be away at once
	for k.rep.Kills < k.o.Kills {
		var crew sync.WaitGroup
		errs := make([]error, min(down, k.o.Kills-k.rep.Kills))
		chosen := k.rnd.Perm(k.o.Members)[:len(errs)]
		for i, at := range chosen {
			p := k.plan()
			crew.Go(func() { errs[i] = k.killOne(ctx, k.sites.List[at], p) })
		}
		crew.Wait()
		k.rep.Kills += len(errs)
		if err := errors.Join(errs...); err != nil {
			return fmt.Errorf("after %d kills: %w", k.rep.Kills, err)
		}
		if k.rep.Kills%50 < len(errs) {
			k.tell("%d kills; %d submissions ordered, index %d", k.rep.Kills, k.count(), k.watch.height())
		}
	}
	return nil
}

// plan draws how one member is killed, so that the seed decides and not the hurry.
type plan struct {
	after, off time.Duration // until it is killed, and until it is started again
	cut        float64       // share of the unsynced tail that is lost
	boot       string
}

func (k *killing) plan() plan {
	p := plan{
		after: time.Duration(k.rnd.Int64N(int64(200 * time.Millisecond))), off: time.Duration(k.rnd.Int64N(int64(100 * time.Millisecond))),
		cut: k.rnd.Float64(),
	}
	if k.o.Reboot {
		k.boots++
		p.boot = fmt.Sprintf("boot-%d", k.boots)
	}
	return p
}

// killOne kills a member, starts it again and waits until it takes part.
func (k *killing) killOne(ctx context.Context, s *Site, p plan) error {
	if err := sleep(ctx, p.after); err != nil {
		return err
	}
	var synced api.Log
	if k.o.Reboot {
		st, err := s.Client.Status(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
		synced = st.Log
	}
	k.setAway(s, true)
	k.watch.leave(s)
	s.Kill()
	<-s.done
	if k.o.Reboot {
		if err := k.cut(synced, p.cut); err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
	}
	if err := sleep(ctx, p.off); err != nil {
		return err
	}
	return k.startAgain(ctx, s, p)
}

func (k *killing) startAgain(ctx context.Context, s *Site, p plan) error {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, fmt.Errorf("%s does not take part again within a minute of its start", s.Name))
	defer cancel()
	began := time.Now()
	if err := s.startAs(k.addrs(ctx, s), p.boot); err != nil {
		return err
	}
	st, err := s.await(ctx, func(api.Status) bool { return true })
	if err != nil {
		return err
	}
	back := time.Since(began)
	k.watch.join(ctx, s, st.Ordered-min(st.Ordered, 2048)) // what it says of its past must be as it was
	ping, err := k.takesPart(ctx, s)
	if err != nil {
		return fmt.Errorf("%s after its start: %w", s.Name, err)
	}
	k.setAway(s, false)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.back, k.caught = append(k.back, back), append(k.caught, time.Since(began))
	k.acknowledged = append(k.acknowledged, ping)
	return nil
}

// takesPart waits until a member orders. One that was away for too long to follow
// takes over a checkpoint of the others and begins again, and loses what it was given
// meanwhile, but says so.
func (k *killing) takesPart(ctx context.Context, s *Site) (api.Ping, error) {
	for {
		ping, err := s.Client.Ping(ctx)
		if err == nil {
			return ping, nil
		}
		select {
		case <-s.done:
			return ping, fmt.Errorf("it has ended: %s", s.lastWords())
		default:
		}
		if serr := sleep(ctx, 20*time.Millisecond); serr != nil {
			return ping, errors.Join(serr, err)
		}
		k.mu.Lock()
		k.rep.Again++
		k.mu.Unlock()
	}
}

// addrs are those of all that run, for one that starts.
func (k *killing) addrs(ctx context.Context, but *Site) []string {
	var out []string
	for _, s := range k.sites.List {
		if s == but {
			continue
		}
		if st, err := s.Client.Status(ctx); err == nil {
			out = append(out, st.Addrs...)
		}
	}
	return out
}

// cut takes the end off a log as a power cut would: a random share of what was
// written since the last sync that the member told of, and of what came after.
func (k *killing) cut(log api.Log, share float64) error {
	if log.File == "" {
		return errors.New("the member does not say how much of its log is synced")
	}
	info, err := os.Stat(log.File)
	if err != nil {
		return fmt.Errorf("cut log: %w", err)
	}
	lost := int64(share * float64(info.Size()-log.Synced))
	later, err := filepath.Glob(filepath.Join(filepath.Dir(log.File), "*"+filepath.Ext(log.File)))
	if err != nil {
		return fmt.Errorf("cut log: %w", err)
	}
	if later[len(later)-1] != log.File || lost <= 0 {
		return nil // a new file was begun since, which means that this one is synced
	}
	k.mu.Lock()
	k.rep.Cut += lost
	k.mu.Unlock()
	return os.Truncate(log.File, info.Size()-lost)
}

// submit submits at random members that are not away, until ctx ends.
func (k *killing) submit(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	rnd := rand.New(rand.NewPCG(k.o.Seed, 6))
	for ctx.Err() == nil {
		s := k.sites.List[rnd.IntN(len(k.sites.List))]
		if !k.isAway(s) {
			wg.Go(func() {
				p, err := s.Client.Ping(context.WithoutCancel(ctx))
				if err != nil {
					k.unsure.Add(1) // killed meanwhile: it may be ordered or not
					return
				}
				k.mu.Lock()
				k.acknowledged = append(k.acknowledged, p)
				k.mu.Unlock()
			})
		}
		_ = sleep(ctx, time.Duration((0.5+rnd.Float64())*float64(k.o.Spacing)))
	}
}

// prove waits until all is ordered everywhere, and compares.
func (k *killing) prove(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("the members do not come to the same state within a minute"))
	defer cancel()
	var all []api.Status
	for {
		all = all[:0]
		for _, s := range k.sites.List {
			st, err := s.Client.Status(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", s.Name, err)
			}
			all = append(all, st)
		}
		if k.settled(all) {
			break
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return errors.Join(err, fmt.Errorf("%d ordered at %s, %d at %s", all[0].Ordered, all[0].Site, all[1].Ordered, all[1].Site))
		}
	}
	k.rep.Ordered = all[0].Ordered
	for _, st := range all {
		for _, sus := range st.Suspects {
			if len(sus.Evidence) > 0 {
				return fmt.Errorf("%s says that %s %s (%v)", st.Site, sus.Site, sus.What, sus.Evidence)
			}
		}
	}
	if err := k.watch.until(ctx, func() bool { return k.watch.told(k.sites.List, k.rep.Ordered) }); err != nil {
		return err
	}
	return k.watch.whole(k.acknowledged)
}

// settled: all have ordered all that anyone has told of, and are in one state.
func (k *killing) settled(all []api.Status) bool {
	top := k.watch.height()
	for _, st := range all {
		if st.Ordered != all[0].Ordered || st.Ordered < top || st.Root != all[0].Root || st.Waiting > 0 {
			return false
		}
	}
	return true
}

func (k *killing) setAway(s *Site, away bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.away[s] = away
}

func (k *killing) isAway(s *Site) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.away[s]
}

func (k *killing) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.acknowledged)
}

func (k *killing) close(cause error) error {
	b := bench{o: ConsensusOptions{Keep: k.o.Keep}, tell: k.tell, dir: k.dir, sites: k.sites, watch: k.watch}
	return b.close(cause)
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
