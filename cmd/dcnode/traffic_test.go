package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dcnode/dcnode/node/api"
)

// How often something is ordered, and how long a machine stays where it has come to.
const (
	pingEvery = 100 * time.Millisecond
	stayFor   = 200 * time.Millisecond
)

// journey is how a machine moves for as long as the test goes on.
type journey struct {
	machine string
	at      string       // its owner
	route   []string     // where it goes in turn; empty: where the overlay selects
	moves   []api.Report // that were done
	failed  []error
	put     []error // off: not begun, and the machine stayed where it was
}

// traffic is machines that move and pings that are ordered, all the time.
type traffic struct {
	*procs
	mu       sync.Mutex
	journeys map[string]*journey
	opening  string                   // a site that changes its key, and so opens its node again
	longest  map[string]time.Duration // ping, by site
	pings    map[string]int
	broken   []error
	wg       sync.WaitGroup
}

// travel lets a machine move until ctx ends.
func (f *traffic) travel(ctx context.Context, j *journey) {
	f.journeys[j.machine] = j
	f.wg.Go(func() {
		for ctx.Err() == nil {
			at, to := f.next(j)
			if to == at {
				_ = pauseFor(ctx, 50*time.Millisecond)
				continue
			}
			rep, err := f.site(at).client.Migrate(f.ctx, api.Migrate{Name: j.machine, To: to}, func(api.Progress) {})
			f.mu.Lock()
			switch {
			case err != nil && f.putOff(at, to, err):
				j.put = append(j.put, err)
			case err != nil:
				j.failed = append(j.failed, fmt.Errorf("%s from %s to %q: %w", j.machine, at, to, err))
			default:
				j.at = rep.Destination
				j.moves = append(j.moves, rep)
			}
			f.mu.Unlock()
			_ = pauseFor(ctx, stayFor)
		}
	})
}

// putOff says that a move was not begun, and why is no fault: a site at one of its ends
// was opening its node again, or on a host that has other things to do nobody answered in
// the time of a bidding. That it is made later is waited for elsewhere. f.mu is held.
func (f *traffic) putOff(at, to string, err error) bool {
	opening := f.opening != "" && (at == f.opening || to == f.opening || to == "")
	return opening && strings.Contains(err.Error(), "itself again") || strings.Contains(err.Error(), "stays here: no member")
}

// opens says which site opens its node again meanwhile; empty: none does.
func (f *traffic) opens(site string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.opening = site
}

// next is where a machine is and where it goes: to the site after this one on its
// route, and nowhere if this is the only one.
func (f *traffic) next(j *journey) (at, to string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(j.route) == 0 {
		return j.at, ""
	}
	return j.at, j.route[(slices.Index(j.route, j.at)+1)%len(j.route)]
}

// send changes the route of a machine and waits until it is at one of its sites. What
// began before has then ended.
func (f *traffic) send(machine string, route ...string) {
	f.t.Helper()
	f.mu.Lock()
	j := f.journeys[machine]
	j.route = route
	done := len(j.moves)
	f.mu.Unlock()
	f.until(fmt.Sprintf("%s goes to %v", machine, route), func() (bool, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		last := error(nil)
		if len(j.failed) > 0 {
			last = j.failed[len(j.failed)-1]
		}
		return len(route) == 0 && len(j.moves) > done+1 || len(route) > 0 && slices.Contains(route, j.at), last
	})
}

// ping has a site order something again and again, until ctx ends. The node itself gives
// up when that takes half a minute: then the order stands still.
func (f *traffic) ping(ctx context.Context, site string) {
	f.wg.Go(func() {
		for ctx.Err() == nil {
			began := time.Now()
			_, err := f.site(site).client.Ping(f.ctx)
			f.mu.Lock()
			f.longest[site] = max(f.longest[site], time.Since(began))
			f.pings[site]++
			if err != nil {
				f.broken = append(f.broken, fmt.Errorf("ping at %s: %w", site, err))
			}
			f.mu.Unlock()
			_ = pauseFor(ctx, pingEvery)
		}
	})
}

func pauseFor(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// moved waits until each machine has been moved n times more.
func (f *traffic) moved(n int) {
	f.t.Helper()
	f.mu.Lock()
	goal := map[string]int{}
	for name, j := range f.journeys {
		goal[name] = len(j.moves) + n
	}
	f.mu.Unlock()
	f.until("all machines move", func() (bool, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		for name, j := range f.journeys {
			if len(j.moves) < goal[name] {
				return false, fmt.Errorf("%s has made %d moves, and not: %w", name, len(j.moves), errors.Join(j.failed...))
			}
		}
		return true, nil
	})
}

// settled: all are in one state, which has each machine once, and it is there.
func (f *traffic) settled(names ...string) {
	f.t.Helper()
	f.until("all have one state", func() (bool, error) {
		var first api.Status
		for i, n := range names {
			st, err := f.site(n).client.Status(f.ctx)
			if i == 0 {
				first = st
			}
			if err != nil || st.Waiting > 0 || st.Ordered != first.Ordered || st.Root != first.Root {
				return false, errors.Join(err, fmt.Errorf("%s is at %d with root %s, %s at %d with root %s", n, st.Ordered, st.Root, first.Site, first.Ordered, first.Root))
			}
		}
		return true, nil
	})
	here := map[string][]string{}
	for _, n := range names {
		var ms []api.Machine
		if err := json.Unmarshal([]byte(f.says(n, "vm", "ls", "--json")), &ms); err != nil {
			f.t.Fatal(err)
		}
		if len(ms) != len(f.journeys) {
			f.t.Errorf("%s knows %d machines", n, len(ms))
		}
		for _, m := range ms {
			if m.Site != f.journeys[m.Name].at || m.Move != nil {
				f.t.Errorf("%s says that %s is at %s, and it moved to %s", n, m.Name, m.Site, f.journeys[m.Name].at)
			}
			if m.Here {
				here[m.Name] = append(here[m.Name], n)
			}
			for i := 1; i < len(m.Handovers); i++ {
				if a, b := m.Handovers[i-1], m.Handovers[i]; b.Epoch != a.Epoch+1 || b.Index <= a.Index {
					f.t.Errorf("%s went from epoch %d at index %d to %d at %d", m.Name, a.Epoch, a.Index, b.Epoch, b.Index)
				}
			}
		}
	}
	for name, j := range f.journeys {
		if !slices.Equal(here[name], []string{j.at}) {
			f.t.Errorf("%s is on the hosts of %v, its owner is %s", name, here[name], j.at)
		}
	}
}

// report says what went on, and what should not have.
func (f *traffic) report() {
	f.t.Helper()
	for name, j := range f.journeys {
		f.t.Logf("%s: %d moves, %d put off: %v", name, len(j.moves), len(j.put), errors.Join(j.put...))
		for _, err := range j.failed {
			f.t.Errorf("a move failed: %v", err)
		}
	}
	for _, err := range f.broken {
		f.t.Error(err)
	}
	for site, d := range f.longest {
		f.t.Logf("%d pings at %s, the longest took %.2f s", f.pings[site], site, d.Seconds())
	}
}
