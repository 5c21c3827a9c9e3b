package ramstream

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestIndexFindsEveryBlockOfData(t *testing.T) {
	one, two := newDisk(1, 50), newDisk(2, 70)
	copy(two[3*PageSize:], zeroPage[:])
	copy(two[9*PageSize:], one[:PageSize]) // the first of equal blocks counts
	two = two[:len(two)-100]               // the last block is not whole
	bs := append(basesOf(one), Base{nil, 10 * PageSize}, basesOf(two)[0])
	x := newIndex(t, 0, bs...)
	if x.Blocks() != 50+70-3 || x.LeftOut() != 0 {
		t.Errorf("%d blocks known, %d left out", x.Blocks(), x.LeftOut())
	}
	scratch := make([]byte, PageSize)
	for i := range 69 {
		page := two[i*PageSize : (i+1)*PageSize]
		want := int64(60 + i)
		if i == 9 {
			want = 0
		}
		if got, ok := x.find(keyOf(page), page, scratch); i != 3 && (!ok || got != want) {
			t.Fatalf("block %d of the second base found at %d (%v)", i, got, ok)
		}
	}
	if _, ok := x.find(keyOf(zeroPage[:]), zeroPage[:], scratch); ok {
		t.Error("a block of zeroes is indexed")
	}
}

func TestIndexVerifiesBytesNotDigests(t *testing.T) {
	disk := newDisk(1, 5)
	x := newIndex(t, 0, basesOf(disk)...)
	other := newDisk(2, 1)
	if _, ok := x.find(keyOf(disk[:PageSize]), other, make([]byte, PageSize)); ok {
		t.Error("a page with the same truncated digest but other bytes was taken for the block")
	}
}

func TestIndexSkipsHoles(t *testing.T) {
	name := filepath.Join(t.TempDir(), "base.raw")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const size = 8 << 30
	data := newDisk(3, 16)
	for _, err := range []error{f.Truncate(size), second(f.WriteAt(data, 1<<30)), second(f.WriteAt(data[:PageSize], size-PageSize))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	x := newIndex(t, 0, Base{f, size})
	if x.Blocks() != 16 {
		t.Errorf("%d blocks indexed", x.Blocks())
	}
	if len(x.keys) > 10000 {
		t.Errorf("%d slots for 17 blocks: the holes were counted", len(x.keys))
	}
	got, ok := x.find(keyOf(data[PageSize:2*PageSize]), data[PageSize:2*PageSize], make([]byte, PageSize))
	if want := int64(1<<30)/PageSize + 1; !ok || got != want {
		t.Errorf("block found at %d (%v), want %d", got, ok, want)
	}
}

func second[T any](_ T, err error) error { return err }

func TestIndexKeepsItsBound(t *testing.T) {
	x := newIndex(t, 20, basesOf(newDisk(1, 15), newDisk(2, 15))...)
	if x.Blocks() != 20 || x.LeftOut() != 10 {
		t.Errorf("%d blocks known, %d left out", x.Blocks(), x.LeftOut())
	}
	if max := 20*5/4 + 8; len(x.keys) > max {
		t.Errorf("%d slots, want at most %d", len(x.keys), max)
	}
}

type failingBase struct{}

var errDisk = errors.New("disk is broken")

func (failingBase) ReadAt([]byte, int64) (int, error) { return 0, errDisk }

func TestIndexReportsWhatItCannotRead(t *testing.T) {
	if _, err := NewIndex(t.Context(), []Base{{failingBase{}, 1 << 20}}, 0); !errors.Is(err, errDisk) {
		t.Errorf("error %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := NewIndex(ctx, basesOf(newDisk(1, 4)), 0); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if _, err := NewIndex(t.Context(), []Base{{bytes.NewReader(nil), 1 << 45}}, 0); err == nil {
		t.Error("32 TiB were accepted")
	}
}

func TestLostBaseCostsBytesNotTheMigration(t *testing.T) {
	disk := newDisk(1, 100)
	x := guestStream(1, disk, 200)
	index := newIndex(t, 0, basesOf(disk)...)
	index.bases = []Base{{failingBase{}, int64(len(disk))}}
	f, e := encode(t, x, EncoderConfig{Index: index}, 1)
	got, _, err := decode(f, DecoderConfig{})
	if err != nil || !bytes.Equal(got, x) || e.Stats().Pages.Disk != 0 {
		t.Errorf("decoded stream differs (error %v), %d disk pages", err, e.Stats().Pages.Disk)
	}
}
