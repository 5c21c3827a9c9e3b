package guest

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestLinesAreTakenForWhatTheyAre(t *testing.T) {
	for text, want := range map[string]Line{
		"tick 17\n":                            {Kind: TickLine, N: 17, Text: "tick 17"},
		"tick 18 sum 0a\r\n":                   {Kind: TickLine, N: 18, Text: "tick 18 sum 0a"},
		"tick x":                               {Text: "tick x"},
		"check ok pages=4 blocks=2 gen=9":      {Kind: CheckOK, N: 9, Text: "check ok pages=4 blocks=2 gen=9"},
		"check FAIL page 3: generation 1":      {Kind: CheckFail, Text: "check FAIL page 3: generation 1"},
		"ready pages=4":                        {Kind: Ready, Text: "ready pages=4"},
		"[ 1.5] Kernel panic - not syncing: x": {Kind: Panic, Text: "[ 1.5] Kernel panic - not syncing: x"},
		"hello":                                {Text: "hello"},
	} {
		if got := Parse(text); got != want {
			t.Errorf("%q: got %+v, want %+v", text, got, want)
		}
	}
}

func TestWatchSeesAFileThatAppearsLaterAndLinesInPieces(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	dir := filepath.Join(t.TempDir(), "alice") // not there yet either
	lines := Watch(ctx, filepath.Join(dir, "console.log"))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "tick 1\ntick ")
	before := expect(t, lines, "tick 1")
	write(t, dir, "2\ncheck ok gen=1\n")
	after := expect(t, lines, "tick 2")
	if after.At <= before.At || after.N != 2 || after.Kind != TickLine {
		t.Errorf("got %+v after %+v", after, before)
	}
	expect(t, lines, "check ok gen=1")
	cancel()
	if line, open := <-lines; open {
		t.Errorf("got %+v after the end", line)
	}
}

func TestWatchReadsAReplacedFileFromItsBeginning(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	dir := t.TempDir()
	write(t, dir, "tick 1\nhalf a li")
	lines := Watch(ctx, filepath.Join(dir, "console.log"))
	expect(t, lines, "tick 1")
	fresh := filepath.Join(dir, "fresh")
	if err := os.WriteFile(fresh, []byte("tick 2\nmore than the file before had\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(fresh, filepath.Join(dir, "console.log")); err != nil {
		t.Fatal(err)
	}
	expect(t, lines, "tick 2")
	expect(t, lines, "more than the file before had")
	if err := os.WriteFile(filepath.Join(dir, "console.log"), []byte("short\n"), 0o644); err != nil { // truncates
		t.Fatal(err)
	}
	expect(t, lines, "short")
}

func TestEndlessLineIsCut(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, strings.Repeat("x", 10*maxLine)+"\ntick 1\n")
	c := Console{Path: filepath.Join(dir, "console.log")}
	defer c.Close()
	lines, err := c.Poll()
	if err != nil || len(lines) != 2 || len(lines[0].Text) > maxLine || lines[1].N != 1 {
		t.Errorf("got %d lines, %v", len(lines), err)
	}
}

func write(t *testing.T, dir, text string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, "console.log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, lines <-chan Line, text string) Line {
	t.Helper()
	line, open := <-lines
	if !open || line.Text != text {
		t.Fatalf("got %q (open: %v), want %q", line.Text, open, text)
	}
	return line
}
