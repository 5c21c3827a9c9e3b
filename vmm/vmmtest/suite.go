package vmmtest

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/dcnode/dcnode/vmm"
)

// Suite is what a driver's tests say about it.
type Suite struct {
	// New makes a driver that knows nothing of earlier ones, as after a restart of
	// the daemon. What it needs closed it registers with t.Cleanup.
	New func(t *testing.T) vmm.Driver
	// Spec is a machine whose guest writes `tick N` to its console and to its disks
	// all the time.
	Spec vmm.Spec
	// Disks are its disks, bases included.
	Disks []vmm.Disk
	// Image reads a whole disk as the guest sees it; the machine is paused or stopped.
	Image func(t *testing.T, f vmm.Files, disk int) []byte
	// Check says what is wrong with the disks of a paused or stopped machine; nil: nothing to say.
	Check func(t *testing.T, s vmm.Spec, f vmm.Files) error
	// LetGo ends the driver as the daemon's death would; nil if machines die with it.
	LetGo func(d vmm.Driver)
	// Deadline of one test; 0: 20 s.
	Deadline time.Duration
}

// Run runs the suite.
func (s Suite) Run(t *testing.T) {
	if s.Deadline == 0 {
		s.Deadline = 20 * time.Second
	}
	for _, c := range []struct {
		name string
		run  func(*fixture)
	}{
		{"PausedMachineStandsAndResumedOneGoesOn", pauseAndResume},
		{"StoppedMachineIsGoneAndStartsAgain", stopAndStart},
		{"SecondStartInOneDirectoryIsRefused", secondStart},
		{"MovedMachineGoesOnWithoutAGap", move},
		{"PausedMachineMovesPaused", movePaused},
		{"MachineMovesThereAndBack", moveBack},
		{"CancelBeforeThePauseLeavesItRunning", cancelEarly},
		{"CancelAfterThePauseResumesIfAsked", cancelPausedResume},
		{"CancelAfterThePauseKeepsItPausedIfAsked", cancelPausedStay},
		{"CancelAfterTheEndResumesIfAsked", cancelFinished},
		{"CancelLeavesAPausedMachinePaused", cancelOfPaused},
		{"LostReaderNeverResumesTheMachine", lostReader},
		{"SecondMigrationAtOnceIsRefused", twoMigrations},
		{"CutStreamNeverLoads", cutStream},
		{"DeadReceiverFailsAtOnce", receiverDies},
		{"ArrivingMachineCannotRun", arriving},
		{"ReceiveBeginsWithEmptyOverlays", receiveAgain},
		{"DiscardLeavesOnlyTheConsole", discard},
		{"AttachFindsWhatLives", attach},
		{"MachineTellsWhatAMoveHasToKnow", facts},
		{"MachineThatHasNoStateTellsNothing", noFacts},
		{"MachineStandsStillBehindItsFenceUntilItIsLifted", fenceFalls},
		{"LiftedFenceIsForgotten", fenceLifted},
		{"DaemonThatDiedInAMigrationLeavesAMachineThatMoves", diedMigrating},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), s.Deadline)
			defer cancel()
			c.run(&fixture{T: t, Suite: s, ctx: ctx, driver: s.New(t)})
		})
	}
}

// fixture is one test of the suite.
type fixture struct {
	*testing.T
	Suite
	ctx    context.Context // of this one test, which the fixture is
	driver vmm.Driver
}

func (f *fixture) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

// files makes a machine's directory; what lives there at the end is discarded.
func (f *fixture) files() vmm.Files {
	files := vmm.Files{Dir: f.TempDir(), Disks: slices.Clone(f.Disks)}
	f.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := f.driver.Discard(ctx, f.Spec, files); err != nil {
			f.Errorf("discard: %v", err)
		}
	})
	return files
}

// start starts a machine and waits until its guest counts.
func (f *fixture) start() (vmm.Machine, vmm.Files) {
	f.Helper()
	files := f.files()
	m, err := f.driver.Start(f.ctx, f.Spec, files)
	f.must(err)
	f.ticks(files, 5)
	return m, files
}

// ticks waits until the guest's newest tick is n or more than that.
func (f *fixture) ticks(files vmm.Files, n int) int {
	f.Helper()
	last, err := WaitTick(f.ctx, files.Dir, n)
	f.must(err)
	return last
}

// more waits until the guest has counted on by a few.
func (f *fixture) more(files vmm.Files) int {
	f.Helper()
	return f.ticks(files, f.last(files)+5)
}

func (f *fixture) last(files vmm.Files) int {
	f.Helper()
	ticks, err := Ticks(filepath.Join(files.Dir, "console.log"))
	f.must(err)
	if len(ticks) == 0 {
		return -1
	}
	return ticks[len(ticks)-1]
}

// stands fails if the machine is not paused, or its guest counts on.
func (f *fixture) stands(m vmm.Machine, files vmm.Files) {
	f.Helper()
	f.is(m, vmm.Paused)
	f.silent(files)
}

// silent fails if the guest counts on.
func (f *fixture) silent(files vmm.Files) {
	f.Helper()
	at := f.last(files)
	ctx, cancel := context.WithTimeout(f.ctx, 200*time.Millisecond)
	defer cancel()
	if n, err := WaitTick(ctx, files.Dir, at+1); !errors.Is(err, context.DeadlineExceeded) {
		f.Errorf("machine that stands still went on from tick %d to %d (%v)", at, n, err)
	}
}

func (f *fixture) is(m vmm.Machine, want vmm.State) {
	f.Helper()
	if got, err := m.State(f.ctx); err != nil || got != want {
		f.Errorf("machine is %q, %v; want %q", got, err, want)
	}
}

// contiguous fails if the consoles, one after the other, skip or repeat a tick.
func (f *fixture) contiguous(consoles ...vmm.Files) {
	f.Helper()
	var paths []string
	for _, c := range consoles {
		paths = append(paths, filepath.Join(c.Dir, "console.log"))
	}
	all, err := Ticks(paths...)
	f.must(err)
	if err := Contiguous(all); err != nil {
		f.Errorf("guest lost its count: %v", err)
	}
}

// sameDisks compares the two sides' disks while both stand still.
func (f *fixture) sameDisks(a, b vmm.Files) {
	f.Helper()
	for i, d := range f.Disks {
		x, y := f.Image(f.T, a, i), f.Image(f.T, b, i)
		if int64(len(x)) != d.Size || !bytes.Equal(x, y) {
			f.Errorf("disk %s differs between source (%d bytes) and destination (%d bytes)", d.Name, len(x), len(y))
		}
	}
	if f.Check != nil {
		if err := f.Check(f.T, f.Spec, b); err != nil {
			f.Errorf("disks at the destination: %v", err)
		}
	}
}

// leftovers lists what lies in a machine's directory.
func (f *fixture) leftovers(files vmm.Files) []string {
	f.Helper()
	entries, err := os.ReadDir(files.Dir)
	f.must(err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
