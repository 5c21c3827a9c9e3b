package ledgertest

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

var (
	firstSeed = flag.Uint64("seed", 0, "first seed of TestRandomWorldsKeepTheLaw; without -steps that one alone, told in full")
	steps     = flag.Int("steps", 0, "how many seeds TestRandomWorldsKeepTheLaw takes; 0: a sample")
	whole     = flag.Bool("whole", false, "leave a script that fails as long as it is")
	length    = flag.Int("length", 100, "events of each script")
)

const sample = 200

// Whatever is said, by whomever, in whatever order: all replicas agree, and what the
// model of this package knows of the law holds after each step.
func TestRandomWorldsKeepTheLaw(t *testing.T) {
	n, told := *steps, false
	flag.Visit(func(f *flag.Flag) { told = told || f.Name == "seed" })
	alone := n == 0 && told
	if n == 0 {
		n = sample
	}
	if *steps == 0 && watched {
		n = sample / 10
	}
	if alone {
		n = 1
	}
	var total Counts
	for seed := *firstSeed; seed < *firstSeed+uint64(n); seed++ {
		s, counts, err := Generate(seed, *length)
		if alone {
			fmt.Println(&s)
		}
		if err != nil {
			report(t, s, err)
			return
		}
		total.Add(&counts)
	}
	t.Logf("%d seeds, %d events: %d transactions held, %d were refused, %d were not read; %d reloads, %d clones\nheld: %v\neffects: %v", n,
		total.Events, total.Held, total.Refused, total.Undecodable, total.Reloads, total.Clones, total.Said, total.Kinds)
	if n >= sample {
		for _, k := range everySaid {
			if total.Said[k] == 0 {
				t.Errorf("no %s held in %d seeds", k, n)
			}
		}
		for _, k := range everyEffect {
			if total.Kinds[k] == 0 {
				t.Errorf("no effect %s in %d seeds", k, n)
			}
		}
	}
}

func report(t *testing.T, s Script, err error) {
	t.Helper()
	if *whole {
		t.Fatalf("seed %d: %v", s.Seed, err)
	}
	small, again := Shrink(s, 2000)
	if again == nil {
		t.Fatalf("seed %d: %v; it does not happen again when replayed", s.Seed, err)
	}
	name := filepath.Join(t.TempDir(), "whole")
	if f, e := os.CreateTemp("", "dcnode-law-"); e == nil {
		name = f.Name()
		fmt.Fprintln(f, &s)
		f.Close()
	}
	t.Fatalf("seed %d: %v\nmade smaller, from %d events: %v\n%v\nthe whole is in %s", s.Seed, err, len(s.Events), again, &small, name)
}
