// Package scripts carries the set-up scripts inside the program, so that it can
// make QEMU and a guest ready without its source tree. The scripts also run by
// hand; each says in its head what it does. All of them write to the cache
// folder ${XDG_CACHE_HOME:-~/.cache}/dcnode and leave the system as it is.
package scripts

import (
	"bufio"
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

//go:embed *.sh
var files embed.FS

// ScriptError is a script's own account of why it gave up.
type ScriptError struct {
	Script string // its name, debs.sh
	Reason string // what went wrong
	Remedy string // what to do about it; may be empty
}

// Error names cause and remedy in one line.
func (e *ScriptError) Error() string {
	if e.Remedy == "" {
		return e.Script + ": " + e.Reason
	}
	return e.Script + ": " + e.Reason + "; remedy: " + e.Remedy
}

// QEMU makes a QEMU ready that can migrate (version 9 or newer) and returns the
// folder that holds qemu-system-x86_64 and qemu-img. The first call may download
// 30 MB, later ones take milliseconds.
func QEMU(ctx context.Context, log *slog.Logger) (string, error) {
	return Run(ctx, log, "qemu.sh")
}

// Debs unpacks Debian packages, and only those named, into the folder dest,
// which appears complete or not at all.
func Debs(ctx context.Context, log *slog.Logger, dest string, packages ...string) error {
	_, err := Run(ctx, log, "debs.sh", append([]string{"-o", dest}, packages...)...)
	return err
}

// Run runs one of the scripts and returns what it printed. Its messages go to
// log, which may be nil. When ctx ends the script is asked to stop, tidies up,
// and is killed if that takes longer than 5 seconds. A script that gave up
// returns a [*ScriptError].
func Run(ctx context.Context, log *slog.Logger, name string, args ...string) (string, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	dir, err := os.MkdirTemp("", "dcnode-scripts.")
	if err != nil {
		return "", fmt.Errorf("make a folder for scripts: %w", err)
	}
	defer os.RemoveAll(dir)
	if err := os.CopyFS(dir, files); err != nil {
		return "", fmt.Errorf("write scripts: %w", err)
	}
	cmd := exec.CommandContext(ctx, "sh", append([]string{filepath.Join(dir, name)}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	var out strings.Builder
	messages, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = &out, w
	account := make(chan *ScriptError, 1)
	go func() { account <- listen(messages, log, name) }()
	err = cmd.Run()
	w.Close()
	said := <-account
	if err == nil {
		return strings.TrimSpace(out.String()), nil
	}
	if ctx.Err() != nil {
		return "", fmt.Errorf("run %s: %w", name, ctx.Err())
	}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && said.Reason != "" {
		return "", said
	}
	return "", fmt.Errorf("run %s: %w", name, err)
}

// listen logs a script's messages and keeps its first error and remedy: the
// innermost script speaks first and knows best.
func listen(r io.Reader, log *slog.Logger, name string) *ScriptError {
	said := &ScriptError{Script: name}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := lines.Text()
		_, text, _ := strings.Cut(line, ": ")
		if reason, ok := strings.CutPrefix(text, "error: "); ok && said.Reason == "" {
			said.Reason = reason
		} else if remedy, ok := strings.CutPrefix(text, "remedy: "); ok && said.Remedy == "" {
			said.Remedy = remedy
		} else {
			log.Info(line)
		}
	}
	_, _ = io.Copy(io.Discard, r) // a line too long to scan must not stop the script
	return said
}
