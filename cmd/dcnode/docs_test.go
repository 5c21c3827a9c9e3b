package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/dcnode/dcnode/node/api"
)

var showDocs = flag.Bool("show-docs", false, "print what the commands in the docs say instead of comparing it")

// The documents whose examples are run, each with the overlay that it begins with: the
// founders with their regions, and the machines that the first of them has.
var documents = []struct {
	file     string
	founders []string
	machines []string
}{
	{"machines.md", []string{"alice:eu", "bob:us"}, nil},
	{"membership.md", []string{"alice:eu", "bob:eu", "carol:ch", "dave:us"}, nil},
	{"policy.md", []string{"alice:eu", "bob:eu", "carol:us"}, []string{"web1", "web2"}},
	{"ledger.md", []string{"alice:eu", "bob:eu", "carol:us"}, []string{"web1"}},
}

// example is a command in a document and what it says there.
type example struct {
	line    int
	at      string // site; empty: anywhere
	command string
	want    string
}

var prompt = regexp.MustCompile(`^([a-z]*)\$ (.*)$`)

// examples are those in the blocks of a document that are marked as a console's.
func examples(text string) []example {
	var out []example
	in := false
	for i, line := range strings.Split(text, "\n") {
		p := prompt.FindStringSubmatch(line)
		switch {
		case strings.HasPrefix(line, "```"):
			in = line == "```console"
		case in && p != nil:
			out = append(out, example{line: i + 1, at: p[1], command: p[2]})
		case in && len(out) > 0:
			out[len(out)-1].want += line + "\n"
		}
	}
	return out
}

// What differs from run to run, by itself or written as such, and what it may be: the
// first that fits counts.
var loose = []struct{ is, may *regexp.Regexp }{
	{regexp.MustCompile(`^…`), regexp.MustCompile(`.*`)},
	{regexp.MustCompile(`^\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d\.\d{3}Z)?`), regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d(?::\d\d\.\d{3}Z)?`)},
	{regexp.MustCompile(`^\d+(\.\d+)? ([KMG]i)?B\b`), regexp.MustCompile(`\d+(?:\.\d+)? (?:[KMG]i)?B`)},
	{regexp.MustCompile(`^\d+(\.\d+)? [mµ]?s\b`), regexp.MustCompile(`\d+(?:\.\d+)? [mµ]?s`)},
	{regexp.MustCompile(`^(connected|asleep)\b`), regexp.MustCompile(`(?:connected|asleep)`)}, // the order decides, by when it last heard of it
	{regexp.MustCompile(`^\d+\.\d+`), regexp.MustCompile(`\d+(?:\.\d+)?`)},
	{regexp.MustCompile(`^[ \t]+`), regexp.MustCompile(`[ \t]+`)},
	{regexp.MustCompile(`^\w+`), nil},
}

// pattern is an expression that matches what a line of a document may stand for.
func pattern(line string) string {
	var re strings.Builder
scan:
	for line != "" {
		for _, l := range loose {
			if is := l.is.FindString(line); is != "" {
				line = line[len(is):]
				if l.may != nil {
					is = l.may.String()
				}
				re.WriteString(is)
				continue scan
			}
		}
		_, n := utf8.DecodeRuneInString(line)
		re.WriteString(regexp.QuoteMeta(line[:n]))
		line = line[n:]
	}
	return re.String()
}

// matches says whether a command said what a document has. "…" stands for anything in a
// line, or alone on it for any lines. A time, a number of bytes or seconds and any with
// a decimal point stand for any such; how wide columns are does not matter.
func matches(want, got string) bool {
	var re strings.Builder
	re.WriteString(`\A`)
	for line := range strings.Lines(want) {
		if line = strings.TrimSpace(line); line == "…" {
			re.WriteString(`(?:.*\n)*?`)
			continue
		}
		re.WriteString(`[ \t]*` + pattern(line) + `[ \t]*\n`)
	}
	re.WriteString(`\z`)
	return regexp.MustCompile(re.String()).MatchString(got)
}

func TestExamplesMatchWhatIsSaid(t *testing.T) {
	for _, c := range []struct {
		want, got string
		ok        bool
	}{
		{"", "", true}, {"", "x\n", false}, {"a … c\n", "a  b b  c\n", true}, {"a … c\n", "a b\nc\n", false},
		{"a\n…\n", "a\nb\nc\n", true}, {"…\nc\n", "a\nb\nc\n", true}, {"a\n", "a\nb\n", false}, {"a.c\n", "abc\n", false},
		{"id …, done\n", "id 7, done\n", true}, {"  a b\n", "a    b\n", true}, {"a b\n", "ab\n", false},
		{"took 1.2 s, 3.0 MiB, 4 ms\n", "took 12 s, 7 B, 31 µs\n", true}, {"weight 2\n", "weight 3\n", false}, {"web1 (x)\n", "web1 (y)\n", false},
		{"at 2026-11-23 00:27:59.897Z\n", "at 2031-01-02 03:04:05.678Z\n", true}, {"é\n", "é\n", true},
	} {
		if got := matches(c.want, c.got); got != c.ok {
			t.Errorf("%q for %q: %v", c.got, c.want, got)
		}
	}
}

// TestDocumentsSayWhatCommandsSay runs the examples of the documents in overlays of
// real processes: whoever changes words that are in a document changes both.
func TestDocumentsSayWhatCommandsSay(t *testing.T) {
	for _, d := range documents {
		t.Run(strings.TrimSuffix(d.file, ".md"), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(filepath.Join("..", "..", "docs", d.file))
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeoutCause(t.Context(), 6*time.Minute, errors.New("it takes longer than 6 minutes"))
			defer cancel()
			o := newProcs(ctx, t)
			o.prepare(d.founders, d.machines)
			all := examples(string(text))
			if len(all) == 0 {
				t.Fatal("it has no examples")
			}
			for _, e := range all {
				o.follow(d.file, e)
			}
		})
	}
}

// undocumented are the commands that the documents need not show, and why.
var undocumented = map[string]string{
	"dcnode run":     "it is a process: it answers nothing",
	"dcnode dag":     "docs/consensus.md is about it",
	"dcnode testnet": "the README shows it",
}

// variants are commands that are others with a flag.
var variants = []string{"dcnode vm migrate --dry-run", "dcnode vm migrate --cancel", "dcnode ledger verify --certificate"}

// TestEveryCommandIsShownWithItsWordsAndItsJSON: what a command says is written down in
// a document, once for people and once with --json, and so held by the test above.
func TestEveryCommandIsShownWithItsWordsAndItsJSON(t *testing.T) {
	root := newRoot(&terminal{})
	type shown struct{ words, json bool }
	all := map[string]*shown{}
	for _, d := range documents {
		text, err := os.ReadFile(filepath.Join("..", "..", "docs", d.file))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range examples(string(text)) {
			args := strings.Fields(e.command)
			if len(args) == 0 || args[0] != "dcnode" || e.want == "" {
				continue
			}
			c, _, err := root.Find(args[1:])
			if err != nil {
				t.Errorf("docs/%s:%d: %v", d.file, e.line, err)
				continue
			}
			path := c.CommandPath()
			for _, v := range variants {
				if strings.HasPrefix(v, path+" --") && slices.Contains(args, v[len(path)+1:]) {
					path = v
				}
			}
			if all[path] == nil {
				all[path] = &shown{}
			}
			if s := all[path]; slices.Contains(args, "--json") {
				s.json = true
			} else {
				s.words = true
			}
		}
	}
	check := func(path string) {
		switch s := all[path]; {
		case s == nil:
			t.Errorf("no document shows `%s`", path)
		case !s.words:
			t.Errorf("no document shows what `%s` says in words", path)
		case !s.json:
			t.Errorf("no document shows what `%s` says with --json", path)
		}
	}
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		if undocumented[c.CommandPath()] != "" {
			return
		}
		for _, sub := range c.Commands() {
			visit(sub)
		}
		if !c.HasSubCommands() {
			check(c.CommandPath())
		}
	}
	visit(root)
	for _, v := range variants {
		check(v)
	}
}

// prepare makes the overlay that a document begins with.
func (o *procs) prepare(founders, machines []string) {
	o.t.Helper()
	o.found(founders...)
	first := ""
	for _, f := range founders {
		name, _, _ := strings.Cut(f, ":")
		o.open(name, first)
		if first == "" {
			first = name
		}
	}
	for _, f := range founders {
		name, _, _ := strings.Cut(f, ":")
		o.says(name, "ledger", "ping", "--count", "1")
	}
	o.disk("debian.raw")
	o.status(first, func(st api.Status) bool {
		for _, m := range st.Members {
			if !m.Connected {
				return false
			}
		}
		return true
	})
	if len(machines) > 0 {
		o.says(first, "image", "add", "debian", "debian.raw")
	}
	for _, m := range machines {
		o.says(first, "vm", "run", m, "--image", "debian", "--driver", "memvm", "--memory", "8M")
	}
}

// follow does what an example says and compares. What comes late, because another site
// has to hear of it first, is waited for.
func (o *procs) follow(file string, e example) {
	o.t.Helper()
	command := strings.ReplaceAll(e.command, "/ip4/192.0.2.5/tcp/4001", "/ip4/127.0.0.1/tcp/0")
	if args, ok := strings.CutPrefix(command, "dcnode run"); ok {
		o.start(e.at, strings.Fields(args)...)
		o.status(e.at, func(api.Status) bool { return true })
		return
	}
	late := time.Now().Add(untilWithin)
	for {
		said, err := o.shell(e.at, command)
		if *showDocs {
			fmt.Printf("%s$ %s\n%s", e.at, e.command, said)
			return
		}
		if matches(e.want, said) && (err == nil || said != "") {
			return
		}
		again := err != nil || regexp.MustCompile(`^dcnode (status|why|vm plan|\w+ (ls|show|log|holders|test))\b`).MatchString(command)
		if !again || time.Now().After(late) {
			o.t.Fatalf("docs/%s:%d: %s$ %s\nsays\n%s%v\nand the document has\n%s", file, e.line, e.at, e.command, said, err, e.want)
		}
		_ = pauseFor(o.ctx, 200*time.Millisecond)
	}
}

// shell runs a line as a person would. It gives what goes to standard output, and to
// the other if it fails.
func (o *procs) shell(at, line string) (string, error) {
	var out, errs strings.Builder
	sh := o.command(at)
	cmd := exec.CommandContext(o.ctx, "sh", "-c", line)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = sh.Dir, sh.Env, &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String() + errs.String(), err
	}
	return out.String(), nil
}
