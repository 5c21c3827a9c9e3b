package qemu

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/dcnode/dcnode/vmm"
	"github.com/dcnode/dcnode/vmm/qmp"
)

// tcgCPU is the CPU of machines under TCG: the same wherever QEMU is the same.
const tcgCPU = "max"

// expand asks QEMU for all features that it knows, and whether a CPU given as for
// -cpu has them under the accelerator in use. A static expansion names nothing but
// features, besides some numbers and texts; a full one has every property and alias.
func expand(ctx context.Context, c *qmp.Client, cpu string) (map[string]bool, error) {
	name, options, _ := strings.Cut(cpu, ",")
	model := map[string]any{"name": name}
	props := map[string]any{}
	for o := range strings.SplitSeq(options, ",") {
		if key, value, ok := strings.Cut(o, "="); ok && (value == "on" || value == "off") {
			props[key] = value == "on"
		}
	}
	if len(props) > 0 {
		model["props"] = props
	}
	var reply struct {
		Model struct{ Props map[string]any }
	}
	if err := c.Execute(ctx, "query-cpu-model-expansion", map[string]any{"type": "static", "model": model}, &reply); err != nil {
		return nil, err
	}
	all := map[string]bool{}
	for key, value := range reply.Model.Props {
		if on, ok := value.(bool); ok {
			all[key] = on
		}
	}
	if len(all) == 0 {
		return nil, errors.New("QEMU knows no CPU features")
	}
	return all, nil
}

// defaultFeatures are those of a CPU as QEMU tells them, else the flags of the host
// under QEMU's names.
func defaultFeatures(ctx context.Context, c *qmp.Client, cpu string, flags []string) []string {
	all, err := expand(ctx, c, cpu)
	if err != nil {
		return renamed(flags)
	}
	return enabled(all)
}

func enabled(all map[string]bool) (out []string) {
	for name, on := range all {
		if on {
			out = append(out, name)
		}
	}
	return vmm.BoundNames(out)
}

// renamed gives Linux's names of CPU flags as QEMU writes them: sse4_1 is sse4.1,
// lahf_lm is lahf-lm.
func renamed(flags []string) []string {
	out := slices.Clone(flags)
	for i, f := range out {
		if n, ok := strings.CutPrefix(f, "sse4_"); ok {
			out[i] = "sse4." + n
			continue
		}
		out[i] = strings.ReplaceAll(f, "_", "-")
	}
	return vmm.BoundNames(out)
}

// CPUFeatures asks the first CPU which of the features that QEMU knows it has: what
// -cpu asked for, less what the host could not give. The others are the same, and it
// never changes, so QEMU is asked once.
func (m *Machine) CPUFeatures(ctx context.Context) ([]string, error) {
	m.mu.Lock()
	known := m.features
	m.mu.Unlock()
	if known == nil {
		var err error
		if known, err = m.askFeatures(ctx); err != nil {
			return nil, fmt.Errorf("ask %s for its CPU: %w", m.spec.Name, m.why(err))
		}
		m.mu.Lock()
		m.features = known
		m.mu.Unlock()
	}
	return slices.Clone(known), nil
}

func (m *Machine) askFeatures(ctx context.Context) ([]string, error) {
	var cpus []struct {
		Path string `json:"qom-path"`
	}
	if err := m.mon.Execute(ctx, "query-cpus-fast", nil, &cpus); err != nil {
		return nil, err
	}
	if len(cpus) == 0 {
		return nil, errors.New("it has none")
	}
	all, err := expand(ctx, m.mon, tcgCPU) // for the names
	if err != nil {
		return nil, err
	}
	for name := range all {
		var value any
		err := m.mon.Execute(ctx, "qom-get", map[string]any{"path": cpus[0].Path, "property": name}, &value)
		var refused *qmp.Error
		if err != nil && !errors.As(err, &refused) {
			return nil, err
		}
		on, _ := value.(bool)
		all[name] = err == nil && on
	}
	return enabled(all), nil
}
