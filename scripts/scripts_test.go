package scripts

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDebsRefusesWhatItCannotUnpackAndSaysWhy(t *testing.T) {
	t.Setenv("PATH", onlyTools(t, "sh", "mktemp", "rm", "grep"))
	err := Debs(t.Context(), nil, filepath.Join(t.TempDir(), "dest"), "busybox-static")
	var said *ScriptError
	if !errors.As(err, &said) {
		t.Fatalf("got %v, want the script's own account", err)
	}
	if said.Reason != "there is no apt-get" || said.Remedy == "" {
		t.Errorf("got %+v", said)
	}
	if text := err.Error(); strings.Contains(text, "\n") || !strings.Contains(text, "remedy: use Debian") {
		t.Errorf("not one line with a remedy: %q", text)
	}
}

func TestDebsDoesNothingWhereTheFolderIsComplete(t *testing.T) {
	dest := t.TempDir()
	if err := os.WriteFile(filepath.Join(dest, ".packages"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", onlyTools(t, "sh"))
	if err := Debs(t.Context(), nil, dest, "busybox-static"); err != nil {
		t.Errorf("a complete folder needs no apt: %v", err)
	}
}

func TestNewQEMUOfTheSystemIsAdopted(t *testing.T) {
	system := onlyTools(t, "sh", "dirname", "mkdir", "flock", "readlink", "ln", "mv", "sed", "rm")
	for _, tool := range []string{"qemu-system-x86_64", "qemu-img"} {
		program := "#!/bin/sh\necho 'QEMU emulator version 9.2.1 (Debian 1:9.2.1)'\n"
		if err := os.WriteFile(filepath.Join(system, tool), []byte(program), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", system)
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	for range 2 {
		bin, err := QEMU(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		target, err := os.Readlink(filepath.Join(bin, "qemu-img"))
		if err != nil || target != filepath.Join(system, "qemu-img") {
			t.Errorf("qemu-img points to %q (%v), not to the system's", target, err)
		}
	}
}

func TestOldQEMUOfTheSystemIsNotAdopted(t *testing.T) {
	system := onlyTools(t, "sh", "dirname", "mkdir", "flock", "readlink", "ln", "mv", "sed", "rm")
	for _, tool := range []string{"qemu-system-x86_64", "qemu-img"} {
		program := "#!/bin/sh\necho 'QEMU emulator version 7.2.22 (Debian 1:7.2)'\n"
		if err := os.WriteFile(filepath.Join(system, tool), []byte(program), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", system)
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	if bin, err := QEMU(t.Context(), nil); err == nil {
		t.Errorf("a QEMU that loses pages is offered at %s", bin)
	}
}

// onlyTools makes a folder with links to some of this system's programs.
func onlyTools(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		for _, place := range []string{"/usr/bin", "/bin"} {
			if _, err := os.Stat(filepath.Join(place, name)); err == nil {
				if err := os.Symlink(filepath.Join(place, name), filepath.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
				break
			}
		}
	}
	return dir
}
