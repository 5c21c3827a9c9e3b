package ledgertest

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Tests that nothing can fail are no tests. Each bug of testdata/planted is put into a
// copy of a source file, which the compiler takes in its place, and random worlds must
// then break the law. A bug that no longer fits its source is to be planted anew.
func TestPlantedBugsAreCaught(t *testing.T) {
	if testing.Short() || watched {
		t.Skip("builds many test programs")
	}
	root, err := filepath.Abs(filepath.Join("..", "..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob("testdata/planted/*.txt")
	if err != nil || len(names) < 10 {
		t.Fatalf("%d bugs to plant, want at least 10 (%v)", len(names), err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			const test = "TestRandomWorldsKeepTheLaw"
			cmd := exec.Command("go", "test", "-count=1", "-vet=off", "-timeout=5m", "-overlay="+overlay(t, root, name),
				"-run", "^"+test+"$", "./consensus/ledger/ledgertest", "-args", "-whole", "-steps", "600", "-length", "80")
			cmd.Dir = root
			out, err := cmd.CombinedOutput()
			if err == nil {
				t.Fatalf("nothing notices:\n%s", out)
			}
			if !strings.Contains(string(out), "--- FAIL: "+test) {
				t.Fatalf("it did not run to its failure:\n%s", out)
			}
			for line := range strings.Lines(string(out)) {
				if strings.Contains(line, "seed ") {
					t.Log(strings.TrimSpace(line))
				}
			}
		})
	}
}

// overlay reads a line "file NAME" and what stands below "-- old" and "-- new", and
// writes the changed source and the file that names it.
func overlay(t *testing.T, root, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok1 := strings.Cut(string(b), "\n-- old\n")
	was, is, ok2 := strings.Cut(strings.TrimSuffix(rest, "\n"), "\n-- new\n")
	path, ok3 := strings.CutPrefix(head, "file ")
	if !ok1 || !ok2 || !ok3 {
		t.Fatalf("%s: want a file, old and new", name)
	}
	file := filepath.Join(root, filepath.FromSlash(path))
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), was); n != 1 {
		t.Fatalf("%s has %d times, want once:\n%s", path, n, was)
	}
	dir := t.TempDir()
	changed, list := filepath.Join(dir, "changed.go"), filepath.Join(dir, "overlay.json")
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {file: changed}})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{changed: []byte(strings.Replace(string(text), was, is, 1)), list: replace} {
		if err := os.WriteFile(name, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return list
}
