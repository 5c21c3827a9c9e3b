package testnet

import (
	"bytes"
	"errors"
	"flag"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dcnode/dcnode/testnet/wan"
)

var vm = flag.Bool("vm", false, "also run the tests that start QEMU machines")

// built is a folder with dcnode and dcnode-guest, built from this tree.
func built(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, pkg := range map[string]string{"dcnode": "./cmd/dcnode", "dcnode-guest": "./testnet/guest/workload"} {
		cmd := exec.Command("go", "build", "-o", filepath.Join(dir, name), pkg)
		cmd.Dir = ".."
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", name, err, out)
		}
	}
	return dir
}

func demoOf(t *testing.T, o Options) (Report, string) {
	t.Helper()
	rep, out, err := tryDemo(t, o)
	if err != nil {
		t.Fatalf("demo: %v\n%s", err, out)
	}
	t.Logf("%s: %.1f s, handover %.0f ms, longest gap %.0f ms", rep.Link, rep.TotalSeconds, rep.Handover, rep.Downtime)
	return rep, out
}

func tryDemo(t *testing.T, o Options) (Report, string, error) {
	t.Helper()
	var out bytes.Buffer
	o.Program = filepath.Join(built(t), "dcnode")
	o.Out = &out
	rep, err := Demo(t.Context(), o)
	return rep, out.String(), err
}

func checkWhole(t *testing.T, r Report) {
	t.Helper()
	if r.TicksMissing != 0 || r.TicksTwice != 0 || !r.DiskChecksumOK || !r.SourceGone || !r.OneOwner || !r.RootsAgree {
		t.Errorf("the machine is not whole: %+v", r)
	}
	if r.Source != "dc1" || r.Destination == "dc1" || r.Destination == "" || len(r.Bids) != r.Members-1 {
		t.Errorf("moved from %q to %q on %d bids", r.Source, r.Destination, len(r.Bids))
	}
	if len(r.Digest) != 64 || r.TicksBefore == 0 || r.TicksAfter == 0 || r.Bytes.MemorySent == 0 || r.Bytes.DiskSent == 0 || r.Bytes.ImageSent == 0 {
		t.Errorf("the report lacks something: %+v", r)
	}
}

// TestEmbeddedMachineMovesBetweenThreeProcesses needs neither QEMU nor root.
func TestEmbeddedMachineMovesBetweenThreeProcesses(t *testing.T) {
	rep, _ := demoOf(t, Options{Driver: "memvm", Memory: 16 << 20})
	checkWhole(t, rep)
}

func TestKilledDestinationLeavesTheMachineAtTheSource(t *testing.T) {
	rep, _ := demoOf(t, Options{Driver: "memvm", Memory: 64 << 20, Kill: KillInMemory})
	if rep.Killed == "" || !strings.Contains(rep.Error, "connection was lost") || !strings.Contains(rep.Error, "the machine runs on at dc1") {
		t.Errorf("killed %q: %s", rep.Killed, rep.Error)
	}
}

// TestMoveGoesOnAfterACutOfTheWideArea: 100 Mbit/s, cut for ten seconds at nine tenths
// of the memory. No path leads around it in time but the one through the third site.
func TestMoveGoesOnAfterACutOfTheWideArea(t *testing.T) {
	if err := wan.Available(); err != nil {
		t.Skip(err)
	}
	rep, out := demoOf(t, Options{Driver: "memvm", Memory: 128 << 20, Cut: 10 * time.Second})
	checkWhole(t, rep)
	checkCut(t, rep, out)
}

// checkCut checks that the link was cut, and that the machine did not notice.
func checkCut(t *testing.T, rep Report, out string) {
	t.Helper()
	sent := rep.Bytes.MemorySent + rep.Bytes.DiskSent
	t.Logf("%+v of %d bytes, longest gap %.0f ms", rep.Cuts, sent, rep.Downtime)
	if rep.Cuts.Count == 0 || rep.Downtime > 8000 {
		t.Errorf("%d cuts, longest gap %.0f ms\n%s", rep.Cuts.Count, rep.Downtime, out)
	}
	// What a connection has taken and not delivered is sent again, however long the move:
	// of one this short that may be more than a hundredth.
	if rep.Cuts.SentTwice > max(sent/100, 2<<20)*int64(rep.Cuts.Count) {
		t.Errorf("%d of %d bytes were sent twice\n%s", rep.Cuts.SentTwice, sent, out)
	}
}

// TestRealGuestMovesAcrossAWideArea is the demo, with QEMU.
func TestRealGuestMovesAcrossAWideArea(t *testing.T) {
	if !*vm {
		t.Skip("starts QEMU machines: run with -vm")
	}
	rep, out := demoOf(t, Options{Driver: "qemu"})
	checkWhole(t, rep)
	if rep.Accelerator == "" || rep.QEMU == "" {
		t.Errorf("the report does not say what ran the guest: %q %q", rep.Accelerator, rep.QEMU)
	}
	if b := rep.Bytes; b.MemorySent >= b.MemoryPlain/2 || b.ByOrigin["disk"] == 0 {
		t.Errorf("%d of %d bytes of memory were sent although most are on the destination's disk\n%s", b.MemorySent, b.MemoryPlain, out)
	}
}

func TestKilledDestinationLeavesARealGuestAtTheSource(t *testing.T) {
	if !*vm {
		t.Skip("starts QEMU machines: run with -vm")
	}
	rep, _ := demoOf(t, Options{Driver: "qemu", Kill: KillInMemory})
	if rep.Killed == "" || !strings.Contains(rep.Error, "the machine runs on at dc1") {
		t.Errorf("killed %q: %s", rep.Killed, rep.Error)
	}
}

// A destination that dies between running the machine and telling so leaves QEMU
// behind, which must stand still before the source runs the machine again.
func TestDestinationKilledBeforeItsConfirmNeverRunsBesideTheSource(t *testing.T) {
	if !*vm {
		t.Skip("starts QEMU machines: run with -vm")
	}
	if err := wan.Available(); err != nil {
		t.Skip(err)
	}
	// 20,000 km: it takes a while until the others could hear that it runs.
	o := Options{Driver: "qemu", Kill: KillRunning, Delay: 100 * time.Millisecond}
	rep, out, err := tryDemo(t, o)
	for range 2 { // on a busy host
		if errors.Is(err, ErrTooLate) {
			rep, out, err = tryDemo(t, o)
		}
	}
	if err != nil {
		t.Fatalf("demo: %v\n%s", err, out)
	}
	if rep.Killed == "" || rep.RanThere <= 0 || !rep.SourceGone || !strings.Contains(rep.Error, "the machine runs again at dc1") {
		t.Errorf("killed %q, which ran it for %.0f ms: %s\n%s", rep.Killed, rep.RanThere, rep.Error, out)
	}
	t.Logf("ran at %s for %.0f ms; %.1f s until it ran again at the source", rep.Killed, rep.RanThere, rep.Downtime/1000)
}
