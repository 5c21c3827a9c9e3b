package main

import (
	"crypto/rand"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"dcnode": main})
}

// TestScripts runs the real command as a person would; each script in testdata is
// one story.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Deadline:            time.Now().Add(2 * time.Minute),
		Setup: func(e *testscript.Env) error {
			// Without QEMU, wherever the test runs.
			e.Setenv("PATH", filepath.Dir(e.Getenv("PATH"))+":"+onlyTools(t, "setpriv"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"await": await, "awaits": awaits, "smalldisk": smallDisk, "truncate": truncate, "fill": fill, "peer": peer, "sameorder": sameOrder, "grepsame": grepSame, "showindex": showIndex,
		},
		Condition: func(cond string) (bool, error) { return cond == "root" && os.Getuid() == 0, nil },
	})
}

// onlyTools is a folder with links to some of the system's programs.
func onlyTools(t *testing.T, names ...string) string {
	dir := t.TempDir()
	for _, n := range names {
		if path, err := exec.LookPath(n); err == nil {
			if err := os.Symlink(path, filepath.Join(dir, n)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

// await waits until a command succeeds: await ARGS of dcnode.
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: await ARGS")
	}
	for range 200 {
		if ts.Exec("dcnode", args...) == nil {
			return
		}
		<-time.After(50 * time.Millisecond)
	}
	ts.Fatalf("dcnode %v does not succeed", args)
}

// showIndex shows the event with the newest transaction of a kind: showindex KIND DATA [FLAGS].
func showIndex(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: showindex KIND DATA [FLAGS]")
	}
	ts.Check(ts.Exec("dcnode", "ledger", "log", "--kind", args[0], "-n", "1", "--json", "--data", args[1]))
	var e struct {
		Index uint64 `json:"index"`
	}
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &e))
	ts.Check(ts.Exec("dcnode", append([]string{"ledger", "show", strconv.FormatUint(e.Index, 10), "--data", args[1]}, args[2:]...)...))
}

// awaits waits until a command succeeds and prints what fits: awaits PATTERN ARGS.
func awaits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: awaits PATTERN ARGS")
	}
	want := regexp.MustCompile("(?m)" + args[0])
	for range 400 {
		if ts.Exec("dcnode", args[1:]...) == nil && want.MatchString(ts.ReadFile("stdout")) {
			return
		}
		<-time.After(50 * time.Millisecond)
	}
	ts.Fatalf("dcnode %v does not print %s", args[1:], args[0])
}

// smallDisk mounts a disk: smalldisk SIZE DIR. It is unmounted at the end.
func smallDisk(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[1])
	ts.Check(os.MkdirAll(dir, 0o700))
	ts.Check(syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+args[0]))
	ts.Defer(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
}

// truncate cuts a file or makes it longer with a hole: truncate SIZE FILE.
func truncate(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.ParseInt(args[0], 10, 64)
	ts.Check(err)
	f, err := os.OpenFile(ts.MkAbs(args[1]), os.O_RDWR|os.O_CREATE, 0o600)
	ts.Check(err)
	ts.Check(f.Truncate(n))
	ts.Check(f.Close())
}

// fill makes a file of bytes that nothing shares: fill SIZE FILE.
func fill(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), noise(n), 0o600))
}

// noise is bytes that nothing shares.
func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

// peer sets a variable to the peer ID in a member.json: peer FILE NAME.
func peer(ts *testscript.TestScript, _ bool, args []string) {
	var card struct{ Peer string }
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &card))
	ts.Setenv(args[1], card.Peer)
}
