package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dcnode/dcnode/consensus/ledger"
)

func TestWindowsReadAsTheyAreWritten(t *testing.T) {
	for text, want := range map[string]string{
		"mon-fri 22:00-04:00":     "mon-fri 22:00-04:00",
		"22:00-4:00":              "22:00-04:00",
		"Sat,Sun 08:30-24:00":     "sun,sat 08:30-24:00",
		"fri-mon 0:00-1:00":       "sun,mon,fri,sat 00:00-01:00",
		"sun-sat 0:00-24:00":      "00:00-24:00",
		"mon,tue,wed 01:00-02:00": "mon-wed 01:00-02:00",
		"mon,wed,mon 01:00-02:00": "mon,wed 01:00-02:00",
	} {
		s, err := parseWindow(text)
		if err != nil || window(s) != want {
			t.Errorf("%q is read as %q, want %q: %v", text, window(s), want, err)
		}
		if again, err := parseWindow(window(s)); err != nil || window(again) != want {
			t.Errorf("%q is not read again: %v", want, err)
		}
	}
	for _, text := range []string{"", "mon", "mon-fri", "22:00", "22:00-22:00", "24:00-02:00", "25:00-26:00", "1:60-2:00", "mo 1:00-2:00", "mon 1:00-2:00 x", "-1:00-2:00", "1:00-2:00-3:00", "mon- 1:00-2:00"} {
		if s, err := parseWindow(text); err == nil {
			t.Errorf("%q is read as %q", text, window(s))
		}
	}
}

func TestPausesReadAsTimesOrMilliseconds(t *testing.T) {
	for text, want := range map[string]pause{"200ms": 200, "1.5s": 1500, "250": 250, "0": 0, "0s": 0} {
		var p pause
		if err := p.Set(text); err != nil || p != want {
			t.Errorf("%q: %d, %v", text, p, err)
		}
	}
	for _, text := range []string{"", "-1", "-5ms", "10us", "soon"} {
		if err := new(pause).Set(text); err == nil {
			t.Errorf("%q is taken for a pause", text)
		}
	}
}

func TestPolicyInWordsLeavesNothingOut(t *testing.T) {
	p := ledger.Policy{
		Regions: []string{"eu"}, NotRegions: []string{"us"}, Sites: []string{"a"}, NotSites: []string{"b"}, Apart: []string{"w"}, With: []string{"d"},
		MaxDowntime: 1, MaxBandwidth: 1 << 20, Windows: []ledger.Span{{From: 60, To: 120}}, PostCopy: true, Movers: []string{"x", "y"}, Approvals: 2, Pinned: true,
	}
	if got := policyLines(&p); len(got) != 12 {
		t.Errorf("%d lines:\n%s", len(got), strings.Join(got, "\n"))
	}
}

func TestKeyFilesAreTheirOwnersAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.key")
	key, err := makeKeyFile(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := makeKeyFile(path); err == nil || !strings.Contains(err.Error(), "is there already") {
		t.Errorf("a key is replaced: %v", err)
	}
	again, err := readKeyFile(path)
	if err != nil || !again.Equal(key) {
		t.Errorf("read again: %v", err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := readKeyFile(path); err == nil || !strings.Contains(err.Error(), "can be read by others") {
		t.Errorf("a key that others can read: %v", err)
	}
	other := filepath.Join(t.TempDir(), "b.key")
	if err := os.WriteFile(other, []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readKeyFile(other); err == nil {
		t.Error("a broken key is read")
	}
}

func TestWordsOfOthersDoNotMoveTheCursor(t *testing.T) {
	if got := printable("qemu\x1b[2J 10\r\n\u009b1"); got != "qemu[2J 101" {
		t.Errorf("%q", got)
	}
}
