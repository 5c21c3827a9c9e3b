package guest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dcnode/dcnode/scripts"
)

func TestPrepareWithoutAptSaysWhatToDo(t *testing.T) {
	workload := filepath.Join(t.TempDir(), "dcnode-guest")
	if err := os.WriteFile(workload, []byte("x"), 0o755); err != nil {
		t.Fatal(err)
	}
	empty := t.TempDir()
	if err := os.Symlink("/bin/sh", filepath.Join(empty, "sh")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", empty)
	_, err := Prepare(t.Context(), Options{CacheDir: t.TempDir(), Workload: workload})
	var said *scripts.ScriptError
	if !errors.As(err, &said) || !strings.Contains(err.Error(), "no apt-get; remedy: ") {
		t.Errorf("got %v", err)
	}
}

func TestPrepareWithoutWorkloadSaysWhatToDo(t *testing.T) {
	_, err := Prepare(t.Context(), Options{CacheDir: t.TempDir(), Workload: "/nowhere/dcnode-guest"})
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "remedy: build it") {
		t.Errorf("got %v", err)
	}
}

func TestWhatWasMadeIsNotMadeAgain(t *testing.T) {
	o := Options{CacheDir: t.TempDir()}
	o.Log = discard()
	made := 0
	produce := func(path string) error {
		made++
		return os.WriteFile(path, []byte("x"), 0o644)
	}
	for range 2 {
		path, err := cached(o, "kind", "file", "key", produce)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
	if made != 1 {
		t.Errorf("made %d times", made)
	}
}

func TestWhatCouldNotBeMadeLeavesNothing(t *testing.T) {
	o := Options{CacheDir: t.TempDir(), Log: discard()}
	_, err := cached(o, "kind", "file", "key", func(path string) error {
		return errors.Join(os.WriteFile(path, []byte("half"), 0o644), context.Canceled)
	})
	left, globErr := filepath.Glob(filepath.Join(o.CacheDir, "*"))
	if err == nil || globErr != nil || len(left) != 0 {
		t.Errorf("error %v, left %v", err, left)
	}
}
