package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/dcnode/dcnode/vmm"
	"github.com/dcnode/dcnode/vmm/qmp"
)

// tracker follows a machine's migration status by QEMU's events.
type tracker struct {
	mu      sync.Mutex
	status  string
	changed chan struct{} // closed and replaced at each change
}

func newTracker() *tracker { return &tracker{status: "none", changed: make(chan struct{})} }

func (t *tracker) set(s string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.status = s
	close(t.changed)
	t.changed = make(chan struct{})
}

func (t *tracker) get() (string, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.status, t.changed
}

// terminal: a migration with this status does nothing any more.
func terminal(status string) bool {
	return status == "completed" || status == "failed" || status == "cancelled" || status == "none"
}

// follow feeds the tracker until the connection ends.
func (m *Machine) follow(s *qmp.Subscription) {
	for e := range s.C() {
		m.log.Debug("event", "name", e.Name, "data", string(e.Data))
		if e.Name != "MIGRATION" {
			continue
		}
		var d struct{ Status string }
		if err := json.Unmarshal(e.Data, &d); err == nil {
			m.migration.set(d.Status)
		}
	}
}

// migrationInfo is query-migrate's answer, as much as is needed.
type migrationInfo struct {
	Status   string
	Downtime int64  // milliseconds
	Error    string `json:"error-desc"`
}

func (m *Machine) queryMigrate(ctx context.Context) (info migrationInfo, err error) {
	err = m.mon.Execute(ctx, "query-migrate", nil, &info)
	if info.Status == "" {
		info.Status = "none"
	}
	return info, err
}

// errLetGo is for those who wait for a machine that the driver has let go of.
var errLetGo = errors.New("the driver was closed")

// await waits for a migration status that ok accepts.
func (m *Machine) await(ctx context.Context, ok func(string) bool) (string, error) {
	for {
		s, changed := m.migration.get()
		if ok(s) {
			return s, nil
		}
		select {
		case <-changed:
		case <-m.done:
			return s, m.gone()
		case <-m.left:
			return s, errLetGo
		case <-ctx.Done():
			return s, fmt.Errorf("migration is %s: %w", s, context.Cause(ctx))
		}
	}
}

// stateOf translates QEMU's run state.
func stateOf(status string) vmm.State {
	switch status {
	case "running":
		return vmm.Running
	case "inmigrate":
		return vmm.Arriving
	case "shutdown":
		return vmm.Ended
	}
	return vmm.Paused // paused, prelaunch, finish-migrate, postmigrate, io-error, guest-panicked, …
}
