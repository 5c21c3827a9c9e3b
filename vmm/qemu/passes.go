package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/dcnode/dcnode/vmm"
	"github.com/dcnode/dcnode/vmm/nbd"
	"github.com/dcnode/dcnode/vmm/qmp"
)

const (
	// bitmapPrefix marks our dirty bitmaps; a generation follows.
	bitmapPrefix = "dcnode-"
	// granularity of a dirty bitmap in bytes.
	granularity = 4096
	// dirtyExport is the name and id of the export that carries a frozen bitmap.
	dirtyExport = "dcnode-dirty"
)

func bitmap(gen int) string { return fmt.Sprintf("%s%d", bitmapPrefix, gen) }

type action struct {
	Type string         `json:"type"`
	Data map[string]any `json:"data"`
}

// track adds the first bitmap to every disk: from here on no write is missed.
func (o *outgoing) track(ctx context.Context) error {
	if err := o.m.removeBitmaps(ctx); err != nil { // of an earlier life
		return err
	}
	return o.m.transaction(ctx, o.addBitmaps(nil))
}

func (o *outgoing) addBitmaps(a []action) []action {
	for _, d := range o.m.files.Disks {
		a = append(a, action{"block-dirty-bitmap-add", map[string]any{
			"node": node(d.Name), "name": bitmap(o.gen), "granularity": granularity,
		}})
	}
	return a
}

func (m *Machine) transaction(ctx context.Context, a []action) error {
	if len(a) == 0 {
		return nil
	}
	return m.run(ctx, "transaction", map[string]any{"actions": a})
}

// Changes returns the overlays' clusters the first time, and what the bitmap of the
// pass before recorded each further time.
func (o *outgoing) Changes(ctx context.Context) ([]vmm.Extent, error) {
	ctx, end, err := o.begin(ctx)
	if err != nil {
		return nil, fmt.Errorf("list disk changes: %w", err)
	}
	defer end()
	if o.final {
		return nil, errors.New("list disk changes: the migration is finished")
	}
	var out []vmm.Extent
	if o.first {
		out, err = o.allocated(ctx)
		o.first = err != nil
	} else {
		out, err = o.rotate(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("list disk changes: %w", o.m.why(err))
	}
	return out, nil
}

// allocated lists what the overlays hold themselves.
func (o *outgoing) allocated(ctx context.Context) (out []vmm.Extent, err error) {
	for i, c := range o.disks {
		depth, err := c.BlockStatus(ctx, nbd.Depth, 0, c.Info().Size)
		if err != nil {
			return nil, o.m.whyNBD(err, c)
		}
		for _, s := range depth {
			if s.Status != 1 { // 0: nowhere; 2 and more: in the base
				continue
			}
			if out, err = appendExtents(ctx, out, c, i, s); err != nil {
				return nil, o.m.whyNBD(err, c)
			}
		}
	}
	return out, nil
}

// appendExtents splits a segment by what reads as zeroes.
func appendExtents(ctx context.Context, out []vmm.Extent, c *nbd.Client, disk int, seg nbd.Segment) ([]vmm.Extent, error) {
	parts, err := c.BlockStatus(ctx, nbd.Allocation, seg.Offset, seg.Length)
	if err != nil {
		return nil, err
	}
	for _, p := range parts {
		e := vmm.Extent{Disk: disk, Offset: p.Offset, Length: p.Length, Zero: p.Status&nbd.StateZero != 0}
		if e.Offset%4096 != 0 || e.Length%4096 != 0 {
			return nil, fmt.Errorf("disk %d: status of %d bytes at %d is not in blocks of 4096", disk, e.Length, e.Offset)
		}
		out = append(out, e)
	}
	return out, nil
}

// rotate starts the next bitmap, freezes the one before at the same instant, and
// reads that one.
func (o *outgoing) rotate(ctx context.Context) (out []vmm.Extent, err error) {
	old := bitmap(o.gen)
	o.gen++
	actions := o.addBitmaps(nil)
	for _, d := range o.m.files.Disks {
		actions = append(actions, action{"block-dirty-bitmap-disable", map[string]any{"node": node(d.Name), "name": old}})
	}
	if err := o.m.transaction(ctx, actions); err != nil {
		o.gen--
		return nil, err
	}
	counts, err := o.m.bitmaps(ctx)
	if err != nil {
		return nil, err
	}
	for i, d := range o.m.files.Disks {
		if counts[node(d.Name)][old] > 0 {
			if out, err = o.readBitmap(ctx, out, i, old); err != nil {
				return nil, err
			}
		}
	}
	// Only now, so that a pass that failed can be told from one that found nothing.
	var drop []action
	for _, d := range o.m.files.Disks {
		drop = append(drop, action{"block-dirty-bitmap-remove", map[string]any{"node": node(d.Name), "name": old}})
	}
	return out, o.m.transaction(ctx, drop)
}

// readBitmap exports a disk once more, with its frozen bitmap, and reads that.
func (o *outgoing) readBitmap(ctx context.Context, out []vmm.Extent, disk int, name string) (_ []vmm.Extent, err error) {
	n := node(o.m.files.Disks[disk].Name)
	args := map[string]any{
		"type": "nbd", "id": dirtyExport, "node-name": n, "name": dirtyExport,
		"writable": false, "bitmaps": []string{name},
	}
	if err := o.m.run(ctx, "block-export-add", args); err != nil {
		return nil, err
	}
	defer func() {
		if derr := o.m.unexportOne(ctx, dirtyExport); err == nil {
			err = derr
		}
	}()
	c, err := nbd.Open(ctx, nbd.Config{
		Dial: nbd.Unix(o.m.paths.nbd()), Export: dirtyExport, Timeout: o.m.call,
		Contexts: []string{nbd.DirtyBitmap(name), nbd.Allocation},
	})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	dirty, err := c.BlockStatus(ctx, nbd.DirtyBitmap(name), 0, c.Info().Size)
	if err != nil {
		return nil, o.m.whyNBD(err, c)
	}
	for _, s := range dirty {
		if s.Status&1 == 0 {
			continue
		}
		if out, err = appendExtents(ctx, out, c, disk, s); err != nil {
			return nil, o.m.whyNBD(err, c)
		}
	}
	return out, nil
}

// unexportOne removes an export and waits until it is gone: QEMU only begins to
// remove it when it answers.
func (m *Machine) unexportOne(ctx context.Context, id string) error {
	sub, err := m.mon.Subscribe(256)
	if err != nil {
		return err
	}
	defer sub.Close()
	if err := m.run(ctx, "block-export-del", map[string]any{"id": id, "mode": "hard"}); err != nil {
		return err
	}
	for {
		select {
		case e, ok := <-sub.C():
			var d struct{ ID string }
			if !ok {
				return m.why(m.mon.Err())
			}
			if e.Name == "BLOCK_EXPORT_DELETED" && json.Unmarshal(e.Data, &d) == nil && d.ID == id {
				return nil
			}
		case <-ctx.Done():
			return fmt.Errorf("remove export %s: %w", id, context.Cause(ctx))
		}
	}
}

// bitmaps counts the dirty bytes of our bitmaps, by node and name.
func (m *Machine) bitmaps(ctx context.Context) (map[string]map[string]int64, error) {
	var nodes []struct {
		Node    string `json:"node-name"`
		Bitmaps []struct {
			Name  string
			Count int64
		} `json:"dirty-bitmaps"`
	}
	if err := m.mon.Execute(ctx, "query-named-block-nodes", map[string]any{"flat": true}, &nodes); err != nil {
		return nil, err
	}
	out := map[string]map[string]int64{}
	for _, n := range nodes {
		for _, b := range n.Bitmaps {
			if strings.HasPrefix(b.Name, bitmapPrefix) {
				if out[n.Node] == nil {
					out[n.Node] = map[string]int64{}
				}
				out[n.Node][b.Name] = b.Count
			}
		}
	}
	return out, nil
}

// removeBitmaps removes all of ours.
func (m *Machine) removeBitmaps(ctx context.Context) error {
	all, err := m.bitmaps(ctx)
	if err != nil {
		return m.why(err)
	}
	var drop []action
	for n, names := range all {
		for name := range names {
			drop = append(drop, action{"block-dirty-bitmap-remove", map[string]any{"node": n, "name": name}})
		}
	}
	return m.transaction(ctx, drop)
}

// export starts the NBD server, exports every disk under its name and connects.
func (m *Machine) export(ctx context.Context, writable bool, contexts ...string) (clients []*nbd.Client, err error) {
	if len(m.files.Disks) == 0 {
		return nil, nil
	}
	addr := map[string]any{"type": "unix", "data": map[string]any{"path": m.paths.nbd()}}
	if err := m.run(ctx, "nbd-server-start", map[string]any{"addr": addr, "max-connections": 0}); err != nil {
		return nil, err
	}
	defer func() {
		if err == nil {
			return
		}
		for _, c := range clients {
			c.Close()
		}
		clients = nil
		err = errors.Join(err, m.stopNBD(context.WithoutCancel(ctx)))
	}()
	for _, d := range m.files.Disks {
		if err := m.run(ctx, "block-export-add", map[string]any{
			"type": "nbd", "id": "dcnode-" + d.Name, "node-name": node(d.Name), "name": d.Name,
			"writable": writable, "allocation-depth": !writable,
		}); err != nil {
			return clients, err
		}
		c, err := nbd.Open(ctx, nbd.Config{Dial: nbd.Unix(m.paths.nbd()), Export: d.Name, Contexts: contexts, Timeout: m.call * 3})
		if err != nil {
			return clients, err
		}
		clients = append(clients, c)
		if got := c.Info().Size; got != d.Size {
			return clients, fmt.Errorf("overlay of disk %s has %d bytes, the machine's definition says %d", d.Name, got, d.Size)
		}
	}
	return clients, nil
}

// stopNBD stops the server and all its exports; that it does not run is no error.
func (m *Machine) stopNBD(ctx context.Context) error {
	err := m.run(ctx, "nbd-server-stop", nil)
	var refused *qmp.Error
	if errors.As(err, &refused) && strings.Contains(refused.Desc, "not running") {
		err = nil
	}
	return errors.Join(err, remove(m.paths.nbd()))
}

// tidy removes what a migration of an earlier daemon left in QEMU. A machine that
// this migration had stopped stays stopped until Resume.
func (m *Machine) tidy(ctx context.Context) error {
	if s, _ := m.migration.get(); s == "setup" || s == "active" {
		if st, err := m.runState(ctx); err != nil || st != "inmigrate" {
			if err := errors.Join(err, m.run(ctx, "migrate_cancel", nil)); err != nil {
				return err
			}
			if _, err := m.await(ctx, terminal); err != nil {
				return err
			}
		}
	}
	if err := errors.Join(m.stopNBD(ctx), remove(m.paths.sample())); err != nil {
		return err
	}
	return m.removeBitmaps(ctx)
}

// whyNBD turns the loss of an NBD connection into the end of the machine, if that
// is the cause. A request may come back before the connection's Done is closed:
// its Err is set first.
func (m *Machine) whyNBD(err error, c *nbd.Client) error {
	if c.Err() == nil || !waitEnd(context.Background(), m.done, time.Second) {
		return err
	}
	return errors.Join(m.gone(), err)
}
