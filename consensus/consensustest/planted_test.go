package consensustest

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// plant is a bug: pieces of one source file and what to put in their place, and the
// test that must notice.
type plant struct {
	file string // below the root
	dir  string
	test string
	old  []string
	new  []string
}

// Tests that nothing can fail are no tests. Each bug of testdata/planted is put into a
// copy of a source file, which the compiler takes in its place, and the test that the
// bug names must then fail. A bug that no longer fits its source is to be planted anew.
func TestPlantedBugsAreCaught(t *testing.T) {
	if testing.Short() {
		t.Skip("builds several test programs")
	}
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob("testdata/planted/*.txt")
	if err != nil || len(names) < 6 {
		t.Fatalf("%d bugs to plant, want at least 6 (%v)", len(names), err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			p := readPlant(t, name)
			cmd := exec.Command("go", "test", "-count=1", "-vet=off", "-timeout=5m", "-overlay="+p.overlay(t, root), "-run", "^"+p.test+"$", p.dir)
			cmd.Dir = root
			out, err := cmd.CombinedOutput()
			if err == nil {
				t.Fatalf("%s does not notice:\n%s", p.test, out)
			}
			if !strings.Contains(string(out), "--- FAIL: "+p.test) {
				t.Fatalf("%s did not run to its failure:\n%s", p.test, out)
			}
		})
	}
}

// overlay writes the changed source and the file that names it.
func (p *plant) overlay(t *testing.T, root string) string {
	t.Helper()
	file := filepath.Join(root, filepath.FromSlash(p.file))
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for i, old := range p.old {
		if n := strings.Count(text, old); n != 1 {
			t.Fatalf("%s has %d times, want once:\n%s", p.file, n, old)
		}
		text = strings.Replace(text, old, p.new[i], 1)
	}
	dir := t.TempDir()
	changed, list := filepath.Join(dir, "changed.go"), filepath.Join(dir, "overlay.json")
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {file: changed}})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{changed: []byte(text), list: replace} {
		if err := os.WriteFile(name, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return list
}

// readPlant reads lines "file NAME" and "test PACKAGE NAME", then pairs of pieces below
// lines "-- old" and "-- new".
func readPlant(t *testing.T, name string) *plant {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	p := &plant{}
	var into *[]string
	for _, line := range strings.SplitAfter(string(b), "\n") {
		f := strings.Fields(line)
		switch {
		case strings.HasPrefix(line, "-- old"):
			into = &p.old
			*into = append(*into, "")
		case strings.HasPrefix(line, "-- new"):
			into = &p.new
			*into = append(*into, "")
		case into != nil:
			(*into)[len(*into)-1] += line
		case len(f) == 2 && f[0] == "file":
			p.file = f[1]
		case len(f) == 3 && f[0] == "test":
			p.dir, p.test = f[1], f[2]
		}
	}
	if p.file == "" || p.test == "" || len(p.old) == 0 || len(p.old) != len(p.new) {
		t.Fatalf("%s: want a file, a test, and pairs of old and new", name)
	}
	for i := range p.old {
		p.old[i], p.new[i] = strings.TrimSuffix(p.old[i], "\n"), strings.TrimSuffix(p.new[i], "\n")
	}
	return p
}
