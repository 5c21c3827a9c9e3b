package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/dcnode/dcnode/consensus/ledger"
	"github.com/dcnode/dcnode/node/api"
	"github.com/dcnode/dcnode/vmm"
)

// RunMachine implements api.Machines: defined in the ledger first, then started,
// so that two nodes cannot start one name. Once it is being defined it goes on when
// ctx ends.
func (n *Node) RunMachine(ctx context.Context, r api.RunMachine, tell api.Tell) (api.Machine, error) {
	free, err := n.claim(ctx, r.Name, "is being made")
	if err != nil {
		return api.Machine{}, err
	}
	m, define, err := n.design(ctx, r, tell)
	if err != nil {
		free()
		return api.Machine{}, err
	}
	say := func(ctx context.Context) (Verdict, error) { return n.decree(ctx, define) }
	if r.Signed != nil {
		tx, err := n.agree(m, define, r.Signed)
		if err != nil {
			free()
			return api.Machine{}, err
		}
		say = func(ctx context.Context) (Verdict, error) { return n.carry(ctx, tx) }
	}
	tell(api.Progress{Phase: "define"})
	return carryOn(ctx, n, func(ctx context.Context) (api.Machine, error) {
		defer free()
		if _, err := say(ctx); err != nil {
			var refused *ledger.RefusedError
			if !errors.As(err, &refused) {
				n.submitLater(&ledger.Delete{Name: r.Name}) // it may be ordered yet, and this after it
			}
			return api.Machine{}, err
		}
		if err := n.begin(ctx, m); err != nil {
			n.submitLater(&ledger.Delete{Name: r.Name})
			last, cancel := n.lastly()
			defer cancel()
			return api.Machine{}, errors.Join(err, n.discard(last, m))
		}
		return n.machine(ctx, r.Name)
	})
}

// design does all that comes before the ledger hears of a new machine.
func (n *Node) design(ctx context.Context, r api.RunMachine, tell api.Tell) (*machine, *ledger.Define, error) {
	m, err := n.plan(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	if _, err := n.FetchImage(ctx, r.Image, tell); err != nil {
		return nil, nil, err
	}
	if err := n.withBootArgs(ctx, m); err != nil {
		return nil, nil, err
	}
	spec, err := json.Marshal(m.Spec)
	if err != nil {
		return nil, nil, fmt.Errorf("encode machine: %w", err)
	}
	return m, &ledger.Define{Name: r.Name, Image: r.Image, Memory: m.Spec.Memory, Spec: spec}, nil
}

// plan makes a request into a machine that could be started.
func (n *Node) plan(ctx context.Context, r api.RunMachine) (*machine, error) {
	if err := ledger.CheckName("machine", r.Name); err != nil {
		return nil, err
	}
	s, err := n.order.State(ctx)
	if err != nil {
		return nil, err
	}
	if have := s.Machine(r.Name); have != nil {
		return nil, fmt.Errorf("machine %s exists already (at %s): choose another name", r.Name, s.Site(have.Owner))
	}
	img := s.Version(r.Image)
	if img == nil {
		return nil, fmt.Errorf("there is no image %s: add it with `dcnode image add`", r.Image)
	}
	m := &machine{record: record{Commit: img.Commit}}
	if r.Driver == "" {
		m.driver, err = n.bestDriver(ctx)
	} else if m.driver, err = n.driver(r.Driver); err == nil {
		if c := m.driver.Probe(ctx); !c.Available {
			err = fmt.Errorf("%w: %s", vmm.ErrUnavailable, c.Why)
		}
	}
	if err != nil {
		return nil, err
	}
	spec := vmm.Spec{Name: r.Name, Driver: m.driver.Name(), Memory: r.Memory, VCPUs: r.VCPUs, CPU: r.CPU, Append: r.Append}
	if err := spec.Check(); err != nil {
		return nil, err
	}
	here, err := n.room(true)
	if err == nil && here.memory < spec.Memory {
		err = fmt.Errorf("%d MiB of memory free here, %d needed: choose a smaller --memory", here.memory>>20, spec.Memory>>20)
	}
	if err == nil {
		m.Spec, err = m.driver.Pin(ctx, spec)
	}
	return m, err
}

// withBootArgs puts the image's kernel command line before the machine's own.
func (n *Node) withBootArgs(ctx context.Context, m *machine) error {
	c, err := cid.Decode(m.Commit)
	if err != nil {
		return fmt.Errorf("commit of machine %s: %w", m.Spec.Name, err)
	}
	com, err := n.store.Commit(ctx, c, nil)
	if err != nil {
		return err
	}
	m.Spec.Append = strings.TrimSpace(com.Append + " " + m.Spec.Append)
	return nil
}

// begin starts a machine that the ledger says is ours.
func (n *Node) begin(ctx context.Context, m *machine) (err error) {
	if m.files, err = n.files(ctx, m.Spec.Name, m.Commit); err != nil {
		return err
	}
	s, err := n.order.State(ctx)
	if err != nil {
		return err
	}
	lm := s.Machine(m.Spec.Name)
	if !n.owns(lm) {
		return fmt.Errorf("machine %s is not this node's any more: it was deleted as soon as it was defined", m.Spec.Name)
	}
	if err := n.mark(m, stepHere, 0, lm.Epoch); err != nil {
		return err
	}
	if err := n.boot(ctx, m); err != nil {
		return err
	}
	n.keep(m)
	return nil
}

// ListMachines implements api.Machines.
func (n *Node) ListMachines(ctx context.Context) ([]api.Machine, error) {
	s, err := n.order.State(ctx)
	if err != nil {
		return nil, err
	}
	all := s.SortedMachines()
	out := make([]api.Machine, 0, len(all))
	for _, lm := range all {
		m, err := n.view(ctx, s, lm)
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}

func (n *Node) machine(ctx context.Context, name string) (api.Machine, error) {
	s, err := n.order.State(ctx)
	if err != nil {
		return api.Machine{}, err
	}
	lm := s.Machine(name)
	if lm == nil {
		return api.Machine{}, fmt.Errorf("there is no machine %s: see `dcnode vm ls`", name)
	}
	return n.view(ctx, s, lm)
}

func (n *Node) view(ctx context.Context, s *ledger.State, lm *ledger.Machine) (api.Machine, error) {
	out := api.Machine{Machine: *lm, Site: s.Site(lm.Owner)}
	out.Image = refOf(ledger.SplitRef(lm.Image))
	if err := json.Unmarshal(lm.Spec, &out.Detail); err != nil {
		return out, fmt.Errorf("description of machine %s: %w", lm.Name, err)
	}
	m := n.local(lm.Name)
	if m == nil {
		return out, nil
	}
	out.Here, out.State, out.Console = true, vmm.Ended, filepath.Join(m.files.Dir, "console.log")
	if vm := n.process(m); vm != nil {
		st, err := vm.State(ctx)
		if err == nil {
			out.State = st
		} else if !errors.Is(err, vmm.ErrGone) {
			return out, err
		}
	}
	return out, nil
}

// isHere says why a machine of the ledger, of which m is here, is not this node's
// to command; nil: it is.
func (n *Node) isHere(s *ledger.State, lm *ledger.Machine, m *machine) error {
	switch {
	case !n.owns(lm):
		return fmt.Errorf("machine %s is at %s: give the order there", lm.Name, s.Site(lm.Owner))
	case m == nil:
		return fmt.Errorf("machine %s belongs here, but nothing of it is ready: look into this node's log, or remove it with `dcnode vm rm`", lm.Name)
	}
	return nil
}

// takenUp waits until what an earlier run left is taken up again, if it must have been
// for a machine to be here. It does not wait for ever: an image may have to be fetched.
func (n *Node) takenUp(ctx context.Context, name string) {
	if n.local(name) != nil {
		return
	}
	late := time.NewTimer(reasonable)
	defer late.Stop()
	select {
	case <-n.reconciled:
	case <-late.C:
	case <-ctx.Done():
	}
}

// ours is the machine of that name if it is this node's to command.
func (n *Node) ours(ctx context.Context, name string) (*machine, *ledger.Machine, error) {
	n.takenUp(ctx, name)
	s, err := n.order.State(ctx)
	if err != nil {
		return nil, nil, err
	}
	lm := s.Machine(name)
	if lm == nil {
		return nil, nil, fmt.Errorf("there is no machine %s: see `dcnode vm ls`", name)
	}
	m := n.local(name)
	if err := n.isHere(s, lm, m); err != nil {
		return nil, lm, err
	}
	if lm.Move != nil {
		return nil, lm, fmt.Errorf("machine %s is moving (%s): wait for the end", name, lm.Move.Phase)
	}
	return m, lm, nil
}

// command carries out an order on a machine of this node, to the end even if ctx
// ends, and returns what it is then.
func (n *Node) command(ctx context.Context, name, what string, do func(context.Context, *machine, *ledger.Machine) error) (api.Machine, error) {
	if _, _, err := n.ours(ctx, name); err != nil {
		return api.Machine{}, err // at once, rather than after another task
	}
	free, err := n.claim(ctx, name, what)
	if err != nil {
		return api.Machine{}, err
	}
	return carryOn(ctx, n, func(ctx context.Context) (api.Machine, error) {
		defer free()
		m, lm, err := n.ours(ctx, name)
		if err == nil {
			err = do(ctx, m, lm)
		}
		if err != nil {
			return api.Machine{}, err
		}
		return n.machine(ctx, name)
	})
}

// StopMachine implements api.Machines.
func (n *Node) StopMachine(ctx context.Context, name string) (api.Machine, error) {
	return n.command(ctx, name, "is being stopped", n.stop)
}

// stop says in the ledger that a machine is stopped, and then ends its process.
func (n *Node) stop(ctx context.Context, m *machine, lm *ledger.Machine) error {
	if !lm.Stopped {
		if _, err := n.decree(ctx, &ledger.Set{Name: lm.Name, Stopped: true}); err != nil {
			return err
		}
	}
	if vm := n.process(m); vm != nil {
		if err := vm.Stop(ctx); err != nil && !errors.Is(err, vmm.ErrGone) {
			return fmt.Errorf("stop machine %s: %w", lm.Name, err)
		}
	}
	return nil
}

// StartMachine implements api.Machines.
func (n *Node) StartMachine(ctx context.Context, name string) (api.Machine, error) {
	return n.command(ctx, name, "is being started", func(ctx context.Context, m *machine, _ *ledger.Machine) error {
		if n.lives(ctx, m) {
			return fmt.Errorf("machine %s runs already", name)
		}
		if _, err := n.decree(ctx, &ledger.Set{Name: name}); err != nil {
			return err
		}
		return n.boot(ctx, m)
	})
}

// RemoveMachine implements api.Machines. Its disks are removed with it. It ends
// before its name is free: the next one of that name may run elsewhere.
func (n *Node) RemoveMachine(ctx context.Context, name string) error {
	_, lm, err := n.ours(ctx, name)
	if err != nil && (lm == nil || !n.owns(lm) || lm.Move != nil) {
		return err
	}
	free, err := n.claim(ctx, name, "is being removed")
	if err != nil {
		return err
	}
	_, err = carryOn(ctx, n, func(ctx context.Context) (struct{}, error) {
		defer free()
		return struct{}{}, n.remove(ctx, name)
	})
	return err
}

func (n *Node) remove(ctx context.Context, name string) error {
	m, lm, err := n.ours(ctx, name)
	switch {
	case err == nil:
		if err := n.stop(ctx, m, lm); err != nil {
			return err
		}
	case lm == nil || !n.owns(lm) || lm.Move != nil:
		return err
	}
	if _, err := n.decree(ctx, &ledger.Delete{Name: name}); err != nil {
		return err
	}
	if m != nil {
		if err := n.discard(ctx, m); err != nil {
			return err
		}
	}
	return os.RemoveAll(n.machineDir(name))
}
