package node

import (
	"runtime"
	"testing"

	"github.com/dcnode/dcnode/vmm"
)

func TestRoomIsWhatTheMachinesHereLeave(t *testing.T) {
	n := &Node{cfg: Config{Dir: t.TempDir(), MaxMemory: 64 << 20}, machines: map[string]*machine{}}
	for name, at := range map[string]step{"runs": stepHere, "comes": stepArriving, "waits": stepLoaded} {
		n.machines[name] = &machine{record: record{Step: at, Spec: vmm.Spec{Name: name, Memory: 8 << 20, VCPUs: 1}}}
	}
	all := int64(perCPU * runtime.NumCPU())
	for _, c := range []struct {
		coming        bool
		memory, vcpus int64
	}{{false, 56 << 20, all - 1}, {true, 40 << 20, all - 3}} {
		r, err := n.room(c.coming)
		if err != nil || r.memory != c.memory || r.vcpus != c.vcpus || r.disk <= 0 {
			t.Errorf("with those that come: %v: %+v, %v", c.coming, r, err)
		}
	}
	n.cfg.MaxMemory = 1
	if r, err := n.room(true); err != nil || r.memory != 0 {
		t.Errorf("of one byte there is %+v, %v", r, err)
	}
}
