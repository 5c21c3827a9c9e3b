package memvm

import (
	"testing"
	"time"

	"github.com/dcnode/dcnode/vmm"
	"github.com/dcnode/dcnode/vmm/vmmtest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	vmmtest.Suite{
		New:   func(*testing.T) vmm.Driver { return New(Config{Step: 2 * time.Millisecond}) },
		Spec:  testSpec("web1"),
		Disks: testFiles(t, testBase(t)).Disks,
		Image: image,
		Check: func(_ *testing.T, s vmm.Spec, f vmm.Files) error {
			_, err := CheckDisks(s, f)
			return err
		},
	}.Run(t)
}

func image(t *testing.T, f vmm.Files, i int) []byte {
	t.Helper()
	k, err := openDisk(f.Dir, f.Disks[i], readOnly)
	if err != nil {
		t.Fatal(err)
	}
	defer k.close()
	b := make([]byte, f.Disks[i].Size)
	if err := k.read(b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}
