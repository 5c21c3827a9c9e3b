package vmm

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestNamesAreSortedBoundedAndTheirs(t *testing.T) {
	given := []string{"sse2", "", "avx2", "sse2", strings.Repeat("x", maxName+1)}
	got := BoundNames(given)
	if !slices.Equal(got, []string{"avx2", "sse2"}) {
		t.Errorf("got %q", got)
	}
	if given[0] != "sse2" || given[2] != "avx2" {
		t.Errorf("the list that was given changed: %q", given)
	}
	var many []string
	for i := range 3 * maxNames {
		many = append(many, fmt.Sprintf("f%05d", i))
	}
	c := Capabilities{CPUModel: strings.Repeat("m", 1000), CPUFeatures: many, MachineTypes: many}.Bound()
	if len(c.CPUFeatures) != maxNames || len(c.MachineTypes) != maxNames || len(c.CPUModel) != maxModel {
		t.Errorf("%d features, %d machine types, a model of %d bytes", len(c.CPUFeatures), len(c.MachineTypes), len(c.CPUModel))
	}
}

func TestFirstProcessorIsRead(t *testing.T) {
	const info = `processor	: 0
vendor_id	: AuthenticAMD
model name	: AMD EPYC 7763 64-Core Processor
flags		: fpu sse4_1 avx2 fpu
bugs		: spectre_v1

processor	: 1
model name	: another
flags		: none
`
	model, flags := parseCPU([]byte(info))
	if model != "AMD EPYC 7763 64-Core Processor" || !slices.Equal(flags, []string{"avx2", "fpu", "sse4_1"}) {
		t.Errorf("got %q, %q", model, flags)
	}
	for _, odd := range []string{"", "\n\n", "model name", "flags:"} {
		if model, flags := parseCPU([]byte(odd)); model != "" || len(flags) > 0 {
			t.Errorf("%q: got %q, %q", odd, model, flags)
		}
	}
}

func TestMissingFeaturesAreNamed(t *testing.T) {
	have := []string{"avx", "sse", "sse2"}
	if got := Lacks(have, []string{"avx2", "sse2", "vaes"}); !slices.Equal(got, []string{"avx2", "vaes"}) {
		t.Errorf("got %q", got)
	}
	if got := Lacks(have, have); got != nil {
		t.Errorf("got %q", got)
	}
}

func TestEveryPageIsPickedAsOftenAsAnother(t *testing.T) {
	const pages, n, rounds = 20, 5, 20000
	count := make([]int, pages)
	for range rounds {
		got := PickPages(n, pages)
		if len(got) != n || !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != n {
			t.Fatalf("picked %v", got)
		}
		for _, p := range got {
			count[p]++
		}
	}
	// Of a binomial with mean 5000 and deviation 61, six deviations: one failure in
	// some millions of runs.
	for p, k := range count {
		if k < 5000-6*61 || k > 5000+6*61 {
			t.Errorf("page %d was picked %d times, want about 5000", p, k)
		}
	}
	if got := PickPages(9, 3); !slices.Equal(got, []int64{0, 1, 2}) {
		t.Errorf("9 of 3 pages: %v", got)
	}
	if got := PickPages(9, 0); len(got) != 0 {
		t.Errorf("9 of no pages: %v", got)
	}
}
