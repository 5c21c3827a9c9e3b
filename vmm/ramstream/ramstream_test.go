package ramstream

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"testing"
)

func TestDecodedStreamEqualsPlainStream(t *testing.T) {
	one, two := newDisk(1, 300), newDisk(2, 200)
	bs := basesOf(one, two)
	both := append(bytes.Clone(one), two...)
	for seed := range uint64(16) {
		for _, window := range []int{-1, 3, 0} {
			x := guestStream(seed, both, 600)
			f, e := encode(t, x, EncoderConfig{Index: newIndex(t, 0, bs...), Window: window, Level: int(seed % 3)}, seed)
			got, d, err := decode(f, DecoderConfig{Bases: bs, Window: window})
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if !bytes.Equal(got, x) {
				t.Fatalf("seed %d: decoded stream differs", seed)
			}
			if want := sha256.Sum256(x); e.Digest() != want || d.Digest() != want {
				t.Fatalf("seed %d: digests differ", seed)
			}
			s := e.Stats()
			if s.Plain.Total() != int64(len(x)) || s.Sent.Total() != f.bytes {
				t.Fatalf("seed %d: stats say %d plain of %d, %d sent of %d", seed, s.Plain.Total(), len(x), s.Sent.Total(), f.bytes)
			}
			if s.Pages.Disk == 0 || s.Pages.Zero == 0 || s.Pages.Literal == 0 || (window == 0) != (s.Pages.Self > 0) && window != 3 {
				t.Fatalf("seed %d: a kind of page is missing: %+v", seed, s.Pages)
			}
		}
	}
}

func TestEveryPageIsUnderstood(t *testing.T) {
	disk := newDisk(1, 64)
	x := guestStream(5, disk, 400)
	_, e := encode(t, x, EncoderConfig{Index: newIndex(t, 0, basesOf(disk)...)}, 1)
	if n := e.Stats().Pages.Total(); n != 400 {
		t.Errorf("%d page records understood, want 400", n)
	}
}

func TestDiskPagesCostNearlyNothing(t *testing.T) {
	disk := newDisk(9, 1024)
	var q qemu
	q.begin(twoBlocks)
	q.part(sectionPart, func() {
		for i := range 1024 {
			name := ""
			if i == 0 {
				name = "pc.ram"
			}
			q.page(uint64(i)*PageSize, name, disk[i*PageSize:(i+1)*PageSize])
		}
	})
	f, e := encode(t, q.Bytes(), EncoderConfig{Index: newIndex(t, 0, basesOf(disk)...)}, 2)
	if s := e.Stats(); s.Pages.Disk != 1024 || f.bytes > 2000 {
		t.Errorf("%d disk pages cost %d bytes in all", s.Pages.Disk, f.bytes)
	}
}

func TestUnknownContentDegradesToOpaque(t *testing.T) {
	good := guestStream(3, nil, 40)
	oddSection := bytes.Replace(good, []byte("\x03ram"), []byte("\x03mar"), 1)
	oddFlag := bytes.Clone(good)
	i := bytes.Index(oddFlag, []byte("\x06pc.ram\x00")) // the list of blocks
	j := i + bytes.Index(oddFlag[i+10:], []byte("\x06pc.ram")) + 10
	oddFlag[j-1] |= 0x40 // xbzrle
	for name, x := range map[string][]byte{
		"empty": nil, "one byte": {0x51}, "text": []byte("no migration stream at all"),
		"version 4":         append([]byte{0x51, 0x45, 0x56, 0x4d, 0, 0, 0, 4}, good[8:]...),
		"packaged command":  append(bytes.Clone(good[:8]), 8, 0, 7, 0, 4, 0, 0, 1, 0, 9, 9),
		"section not ram":   oddSection,
		"flag not known":    oddFlag,
		"cut in a record":   good[:len(good)/2],
		"huge machine name": append(bytes.Clone(good[:8]), 7, 255, 255, 255, 255, 1, 2, 3),
	} {
		f, e := encode(t, x, EncoderConfig{}, 4)
		got, _, err := decode(f, DecoderConfig{})
		if err != nil || !bytes.Equal(got, x) {
			t.Errorf("%s: decoded stream differs (error %v)", name, err)
		}
		if (name == "section not ram" || name == "flag not known") && e.Stats().Pages.Total() > 39 {
			t.Errorf("%s: %d pages understood", name, e.Stats().Pages.Total())
		}
	}
}

func TestFlushSendsAllCompleteRecords(t *testing.T) {
	x := guestStream(3, nil, 40)
	f := new(frames)
	e, err := NewEncoder(f, EncoderConfig{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range x { // the worst batching there is
		if _, err := e.Write(x[i : i+1]); err != nil {
			t.Fatal(err)
		}
		if i%97 == 0 {
			if err := e.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := e.Flush(); err != nil {
		t.Fatal(err)
	}
	got, _, err := decode(f, DecoderConfig{})
	if err != nil || !bytes.Equal(got, x) {
		t.Fatalf("after a flush %d of %d bytes are there (error %v)", len(got), len(x), err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Write([]byte{1}); err == nil {
		t.Error("a closed encoder takes bytes")
	}
}

func TestFramesKeepTheirBounds(t *testing.T) {
	var q qemu
	q.begin(twoBlocks)
	q.part(sectionPart, func() {
		for i := range 20000 { // worst case for operations: no two pages in a row
			name := ""
			if i%2 == 0 {
				name = "pc.ram"
			}
			q.page(uint64(i*7%1024)*PageSize, name, zeroPage[:])
		}
	})
	x := append(q.Bytes(), newDisk(8, 200)...)
	f, _ := encode(t, x, EncoderConfig{}, 5)
	for i, p := range f.list {
		if len(p) > MaxFrame {
			t.Fatalf("frame %d has %d bytes", i, len(p))
		}
	}
	if got, _, err := decode(f, DecoderConfig{}); err != nil || !bytes.Equal(got, x) {
		t.Fatalf("decoded stream differs (error %v)", err)
	}
}

func TestWrongBaseIsFoundAtOnce(t *testing.T) {
	disk := newDisk(1, 100)
	x := guestStream(1, disk, 200)
	f, _ := encode(t, x, EncoderConfig{Index: newIndex(t, 0, basesOf(disk)...)}, 1)
	other := bytes.Clone(disk)
	for i := range other {
		other[i] ^= 1
	}
	got, _, err := decode(f, DecoderConfig{Bases: basesOf(other)})
	if !errors.Is(err, ErrCorrupt) {
		t.Fatalf("error %v, want ErrCorrupt", err)
	}
	if !bytes.HasPrefix(x, got) {
		t.Error("wrong bytes were written before the error")
	}
	for name, bs := range map[string][]Base{"none": nil, "short": basesOf(disk[:PageSize]), "not held": {{nil, int64(len(disk))}}} {
		if _, _, err := decode(f, DecoderConfig{Bases: bs}); err == nil {
			t.Errorf("base %s: no error", name)
		}
	}
}

func TestChangedFrameNeverGivesWrongBytes(t *testing.T) {
	disk := newDisk(1, 100)
	x := guestStream(1, disk, 100)
	f, _ := encode(t, x, EncoderConfig{Index: newIndex(t, 0, basesOf(disk)...)}, 1)
	for i, p := range f.list {
		for at := 0; at < len(p); at += 1 + len(p)/150 {
			bad := &frames{list: append([][]byte{}, f.list...)}
			bad.list[i] = bytes.Clone(p)
			bad.list[i][at] ^= 1 << (at % 8)
			got, d, err := decode(bad, DecoderConfig{Bases: basesOf(disk)})
			if !bytes.HasPrefix(x, got) {
				t.Fatalf("frame %d byte %d: wrong bytes were written (error %v)", i, at, err)
			}
			if err != nil {
				if again := d.Decode(f.list[0]); again != err {
					t.Fatalf("after an error the decoder goes on: %v", again)
				}
			}
		}
	}
}

func TestWindowIsBounded(t *testing.T) {
	w := newWindow(8, true)
	disk := newDisk(1, 100)
	for i := range 100 {
		p := disk[i*PageSize : (i+1)*PageSize]
		w.add(keyOf(p), p)
		if n, ok := w.find(keyOf(p), p); !ok || n != int64(i) {
			t.Fatalf("page %d found at %d (%v)", i, n, ok)
		}
	}
	if len(w.where) != 8 || len(w.pages) != 8*PageSize {
		t.Errorf("%d pages known, %d bytes kept", len(w.where), len(w.pages))
	}
	if _, ok := w.find(keyOf(disk[:PageSize]), disk[:PageSize]); ok || w.holds(91) || !w.holds(92) || w.holds(100) {
		t.Error("the window is not the last 8 pages")
	}
	if _, ok := w.find(keyOf(disk[99*PageSize:]), disk[:PageSize]); ok {
		t.Error("a page with the same truncated digest but other bytes was taken for it")
	}
}

type brokenWriter struct{ after int }

var errBroken = errors.New("link is gone")

func (b *brokenWriter) Write(p []byte) (int, error) {
	if b.after--; b.after < 0 {
		return 0, errBroken
	}
	return len(p), nil
}

func TestWriteErrorIsFinal(t *testing.T) {
	for after := range 3 {
		e, err := NewEncoder(&brokenWriter{after}, EncoderConfig{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = e.Write(newDisk(1, 200))
		if !errors.Is(err, errBroken) || !errors.Is(e.Flush(), errBroken) || !errors.Is(e.Close(), errBroken) {
			t.Errorf("after %d frames: error %v", after, err)
		}
	}
}

func FuzzLossless(f *testing.F) {
	disk := newDisk(1, 16)
	f.Add(guestStream(1, disk, 20), uint64(1))
	f.Add([]byte("x"), uint64(2))
	x, err := NewIndex(f.Context(), basesOf(disk), 0)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, plain []byte, seed uint64) {
		fr, _ := encode(t, plain, EncoderConfig{Index: x, Window: 4}, seed)
		got, _, err := decode(fr, DecoderConfig{Bases: basesOf(disk), Window: 4})
		if err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("decoded stream differs (error %v)", err)
		}
	})
}

func FuzzDecode(f *testing.F) {
	disk := newDisk(1, 16)
	fr, _ := encode(f, guestStream(1, disk, 40), EncoderConfig{Index: newIndex(f, 0, basesOf(disk)...)}, 1)
	for _, p := range fr.list {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		got, d, err := decode(&frames{list: [][]byte{frame, frame}}, DecoderConfig{Bases: basesOf(disk), Window: 4})
		if len(got) > 2*maxPlain || err == nil && d.Plain() != int64(len(got)) {
			t.Fatalf("%d bytes out of %d", len(got), len(frame))
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	for _, share := range []string{"disk", "mixed", "literal"} {
		b.Run(share, func(b *testing.B) {
			disk := newDisk(1, 2048)
			x := guestStream(1, disk, 8192)
			switch share {
			case "disk":
				var q qemu
				q.begin([]ramBlock{{"pc.ram", uint64(len(disk))}})
				q.part(sectionPart, func() {
					for i := range 2048 {
						q.page(uint64(i)*PageSize, []string{"pc.ram", ""}[min(i, 1)], disk[i*PageSize:(i+1)*PageSize])
					}
				})
				x = q.Bytes()
			case "literal":
				x = guestStream(1, nil, 8192)
			}
			index := newIndex(b, 0, basesOf(disk)...)
			b.SetBytes(int64(len(x)))
			for b.Loop() {
				e, err := NewEncoder(&brokenWriter{1 << 30}, EncoderConfig{Index: index})
				if err != nil {
					b.Fatal(err)
				}
				if _, err := e.Write(x); err != nil {
					b.Fatal(err)
				}
				if err := e.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func ExampleOrigins_Total() {
	fmt.Println(Origins{Zero: 1, Disk: 2, Opaque: 4}.Total())
	// Output: 7
}
