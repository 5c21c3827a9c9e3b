package blockstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
)

func someCommit() Commit {
	raw := func(s string) cid.Cid { return cid.NewCidV1(cid.Raw, hashOf([]byte(s))) }
	return Commit{
		Version: 1, Kind: Environment, Parent: cid.NewCidV1(cid.DagCBOR, hashOf([]byte("p"))),
		Disks:  []Disk{{"disk0", 4096, raw("a")}, {"data", 1 << 40, cid.NewCidV1(cid.DagProtobuf, hashOf([]byte("b")))}},
		Kernel: raw("k"), KernelSize: 77, Initrd: raw("i"), InitrdSize: 1,
		Append: "console=ttyS0", Author: "alice", Time: 1_700_000_000, Bytes: 12345,
	}
}

func TestCommitComesBackAsItWas(t *testing.T) {
	for _, c := range []Commit{
		someCommit(),
		{Version: 1, Kind: OS, Disks: []Disk{{"a", 512, someCommit().Kernel}}},
	} {
		b, err := c.encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeCommit(b.RawData())
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, c) {
			t.Errorf("got %+v, want %+v", got, c)
		}
	}
}

// TestCommitHasOneName holds the encoding still: this CID must never change for version 1.
func TestCommitHasOneName(t *testing.T) {
	b, err := someCommit().encode()
	if err != nil {
		t.Fatal(err)
	}
	const want = "bafyreiapuxygnmkohrtld7rhz6z3iddwt27z7wlwmyqx55trbanyvvzdn4"
	if got := b.Cid().String(); got != want {
		t.Errorf("the commit is now %s, was %s", got, want)
	}
}

func TestImproperCommitsAreRefused(t *testing.T) {
	good := someCommit()
	for name, edit := range map[string]func(*Commit){
		"version":        func(c *Commit) { c.Version = 2 },
		"kind":           func(c *Commit) { c.Kind = "toy" },
		"nothing in it":  func(c *Commit) { c.Disks, c.Kernel, c.Initrd = nil, cid.Undef, cid.Undef },
		"odd size":       func(c *Commit) { c.Disks[0].Size = 1000 },
		"no size":        func(c *Commit) { c.Disks[0].Size = 0 },
		"huge":           func(c *Commit) { c.Disks[0].Size = 1 << 62 },
		"name twice":     func(c *Commit) { c.Disks[1].Name = "disk0" },
		"path for name":  func(c *Commit) { c.Disks[0].Name = "../x" },
		"CID version 0":  func(c *Commit) { c.Disks[0].Root = cid.NewCidV0(hashOf(nil)) },
		"undefined root": func(c *Commit) { c.Disks[0].Root = cid.Undef },
		"parent":         func(c *Commit) { c.Parent = c.Kernel },
		"long text":      func(c *Commit) { c.Append = strings.Repeat("x", 5000) },
		"negative time":  func(c *Commit) { c.Time = -1 },
	} {
		c := good
		c.Disks = append([]Disk(nil), good.Disks...)
		edit(&c)
		if _, err := c.encode(); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCommitIsReadStrictly(t *testing.T) {
	b, err := someCommit().encode()
	if err != nil {
		t.Fatal(err)
	}
	data := b.RawData()
	cut := func(d []byte) []byte { return d[:len(d)-1] }
	extra := bytes.Clone(data)
	extra[0]++ // one more entry in the map: "zz": 1
	extra = append(extra, 0x62, 'z', 'z', 0x01)
	longInt := bytes.Replace(data, binary.BigEndian.AppendUint32([]byte{0x1a}, 1_700_000_000),
		binary.BigEndian.AppendUint64([]byte{0x1b}, 1_700_000_000), 1)
	for name, d := range map[string][]byte{
		"empty": nil, "cut": cut(data), "trailing": append(bytes.Clone(data), 0),
		"extra field": extra, "padded integer": longInt, "list": {0x80}, "too long": make([]byte, maxCommit+1),
	} {
		if bytes.Equal(d, data) {
			t.Fatalf("%s: the edit changed nothing", name)
		}
		if _, err := decodeCommit(d); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzCommit(f *testing.F) {
	b, err := someCommit().encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b.RawData())
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := decodeCommit(data)
		if err != nil {
			return
		}
		again, err := c.encode()
		if err != nil || !bytes.Equal(again.RawData(), data) {
			t.Errorf("decoded, but encodes otherwise: %v", err)
		}
	})
}

func FuzzInteriorNode(f *testing.F) {
	f.Add([]byte("\x12\x00"), int64(10))
	f.Fuzz(func(t *testing.T, data []byte, size int64) {
		children, err := parseNode(someCommit().Kernel, data, size)
		if err != nil {
			return
		}
		var sum int64
		for _, c := range children {
			sum += c.size
		}
		if sum != size {
			t.Errorf("children of %d bytes in a file of %d", sum, size)
		}
	})
}
