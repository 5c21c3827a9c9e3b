package merkle

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/ipfs/go-cid"
)

// machine is about what the ledger knows of one: 400 bytes encoded.
type machine struct {
	Name      string     `cbor:"name"`
	Image     string     `cbor:"image,omitempty"`
	Commit    Link       `cbor:"commit"`
	Spec      []byte     `cbor:"spec,omitempty"`
	Memory    int64      `cbor:"memory,omitempty"`
	Owner     uint64     `cbor:"owner,omitempty"`
	Epoch     uint64     `cbor:"epoch,omitempty"`
	Stopped   bool       `cbor:"stopped,omitempty"`
	Regions   []string   `cbor:"regions,omitempty"`
	Handovers []handover `cbor:"handovers,omitempty"`
}

type handover struct {
	Index uint64 `cbor:"index"`
	Epoch uint64 `cbor:"epoch"`
	Owner uint64 `cbor:"owner"`
	Why   string `cbor:"why"`
}

func machineOf(i int) *machine {
	return &machine{
		Name: fmt.Sprintf("customer-%04d/web-%06d", i%1000, i), Image: "debian-13-web", Commit: Link{Sum([]byte{byte(i)})},
		Spec: bytes.Repeat([]byte{byte(i)}, 120), Memory: 4 << 30, Owner: uint64(i % 31), Epoch: uint64(i%5) + 1,
		Regions:   []string{"eu-north", "eu-west"},
		Handovers: []handover{{uint64(i), 1, 3, "machine.define"}, {uint64(i) + 1000, 2, 4, "move.release"}},
	}
}

func fleet(n int) (m Map[*machine], keys []string) {
	for i := range n {
		v := machineOf(i)
		keys = append(keys, v.Name)
		m = m.Set(v.Name, v)
	}
	return m, keys
}

const fleetSize = 100_000

func BenchmarkSet(b *testing.B) {
	m, keys := fleet(fleetSize)
	v := machineOf(7)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		m = m.Set(keys[i*7919%len(keys)], v)
	}
}

func BenchmarkInsert(b *testing.B) {
	_, keys := fleet(fleetSize)
	v := machineOf(7)
	b.ResetTimer()
	var m Map[*machine]
	for i := range b.N {
		if i%len(keys) == 0 {
			m = Map[*machine]{}
		}
		m = m.Set(keys[i%len(keys)], v)
	}
}

func BenchmarkDelete(b *testing.B) {
	m, keys := fleet(fleetSize)
	rest := m
	b.ResetTimer()
	for i := range b.N {
		if i%len(keys) == 0 {
			rest = m
		}
		rest = rest.Delete(keys[i%len(keys)])
	}
}

func BenchmarkGet(b *testing.B) {
	m, keys := fleet(fleetSize)
	b.ResetTimer()
	for i := range b.N {
		if _, ok := m.Get(keys[i*7919%len(keys)]); !ok {
			b.Fatal("lost")
		}
	}
}

func BenchmarkAll(b *testing.B) {
	m, _ := fleet(fleetSize)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		n := 0
		for range m.All() {
			n++
		}
	}
}

// BenchmarkRoot changes some machines and asks for the root.
func BenchmarkRoot(b *testing.B) {
	for _, changes := range []int{1, 100, 10_000} {
		b.Run(fmt.Sprint("changes=", changes), func(b *testing.B) {
			m, keys := fleet(fleetSize)
			rootOf(b, m)
			v := machineOf(7)
			b.ResetTimer()
			for i := range b.N {
				for j := range changes {
					m = m.Set(keys[(i+j*7919)%len(keys)], v)
				}
				rootOf(b, m)
			}
		})
	}
}

func BenchmarkRootOfAll(b *testing.B) {
	for range b.N {
		b.StopTimer()
		m, _ := fleet(fleetSize)
		b.StartTimer()
		rootOf(b, m)
	}
}

func BenchmarkBlocks(b *testing.B) {
	m, _ := fleet(fleetSize)
	rootOf(b, m)
	b.ResetTimer()
	for range b.N {
		count, size := 0, 0
		if err := m.Blocks(func(_ cid.Cid, block []byte) bool { count++; size += len(block); return true }); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(count), "blocks")
		b.ReportMetric(float64(size), "bytes")
	}
}

func BenchmarkWriteCAR(b *testing.B) {
	m, _ := fleet(fleetSize)
	root := rootOf(b, m)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		if _, err := WriteCAR(root, m.Blocks); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkLoad reads a snapshot: every hash, every value.
func BenchmarkLoad(b *testing.B) {
	m, _ := fleet(fleetSize)
	car, err := WriteCAR(rootOf(b, m), m.Blocks)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		root, get, err := ReadCAR(car)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := Load[*machine](root, get); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFind(b *testing.B) {
	m, keys := fleet(fleetSize)
	root := rootOf(b, m)
	proof, err := m.Proof(keys[0])
	if err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	for range b.N {
		if _, found, err := Find(root, proof, keys[0]); err != nil || !found {
			b.Fatal(found, err)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	v := machineOf(7)
	b.ReportAllocs()
	for range b.N {
		out, err := Encode(v)
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(int64(len(out)))
	}
}

func BenchmarkDecode(b *testing.B) {
	in, err := Encode(machineOf(7))
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		var v machine
		if err := Decode(in, &v); err != nil {
			b.Fatal(err)
		}
	}
}
