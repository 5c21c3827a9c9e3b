package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/dcnode/dcnode/node"
	"github.com/dcnode/dcnode/node/api"
)

// procs is an overlay of real processes, each with a data directory below one folder.
type procs struct {
	t   *testing.T
	ctx context.Context
	dir string

	mu    sync.Mutex
	sites map[string]*proc
	order []string // names, as they came
}

// proc is one site and its process.
type proc struct {
	name, dir string
	client    *api.Client
	cmd       *exec.Cmd
	done      chan struct{} // closed when the process has ended
}

func newProcs(ctx context.Context, t *testing.T) *procs {
	t.Helper()
	o := &procs{t: t, ctx: ctx, dir: t.TempDir(), sites: map[string]*proc{}}
	t.Cleanup(func() {
		for _, name := range o.order {
			o.stop(name)
		}
		if t.Failed() {
			for _, name := range o.order {
				t.Logf("the last words of %s:\n%s", name, o.lastWords(name))
			}
		}
	})
	return o
}

// command is the real dcnode of a site, without QEMU wherever the test runs. Without a
// site it is of nobody's.
func (o *procs) command(at string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(o.ctx, "dcnode", args...)
	cmd.Dir = o.dir
	bin, _, _ := strings.Cut(os.Getenv("PATH"), string(filepath.ListSeparator))
	cmd.Env = append(os.Environ(), "PATH="+bin, "DCNODE_DATA="+filepath.Join(o.dir, at))
	return cmd
}

// tries runs a command at a site and gives what it says and its error.
func (o *procs) tries(at string, args ...string) (string, error) {
	var out, errs strings.Builder
	cmd := o.command(at, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s$ dcnode %s: %w: %s", at, strings.Join(args, " "), err, errs.String())
	}
	return out.String(), nil
}

// says runs a command at a site, which must do.
func (o *procs) says(at string, args ...string) string {
	o.t.Helper()
	out, err := o.tries(at, args...)
	if err != nil {
		o.t.Fatal(err)
	}
	return out
}

// refused runs a command at a site, which must fail with these words.
func (o *procs) refused(words, at string, args ...string) {
	o.t.Helper()
	if out, err := o.tries(at, args...); err == nil || !strings.Contains(err.Error(), words) {
		o.t.Errorf("%s$ dcnode %s: not refused with %q: %s%v", at, strings.Join(args, " "), words, out, err)
	}
}

// found makes the data directories of the founders, NAME or NAME:REGION, and their
// roster.
func (o *procs) found(names ...string) {
	o.t.Helper()
	args := []string{"genesis", "-o", "genesis.json"}
	for _, n := range names {
		n, region, _ := strings.Cut(n, ":")
		o.says(n, "init", "--site", n, "--region", region)
		args = append(args, filepath.Join(n, "member.json"))
	}
	o.says("", args...)
}

// start runs the process of a site. Its log goes to NAME.log.
func (o *procs) start(name string, args ...string) *proc {
	o.t.Helper()
	log, err := os.OpenFile(filepath.Join(o.dir, name+".log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		o.t.Fatal(err)
	}
	defer log.Close()
	dir := filepath.Join(o.dir, name)
	p := &proc{name: name, dir: dir, client: api.NewClient(filepath.Join(dir, node.SocketFile)), done: make(chan struct{})}
	p.cmd = o.command(name, append([]string{"run"}, args...)...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		o.t.Fatal(err)
	}
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.sites[name] == nil {
		o.order = append(o.order, name)
	}
	o.sites[name] = p
	return p
}

// open starts a founder, with the addresses of one that runs.
func (o *procs) open(name string, at string) *proc {
	o.t.Helper()
	args := []string{"--genesis", "genesis.json", "--listen", "/ip4/127.0.0.1/tcp/0"}
	for _, a := range o.addrs(at) {
		args = append(args, "--bootstrap", a)
	}
	p := o.start(name, args...)
	o.status(name, func(api.Status) bool { return true })
	return p
}

// addrs are the addresses of a site that runs.
func (o *procs) addrs(name string) []string {
	if o.site(name) == nil {
		return nil
	}
	return o.status(name, func(st api.Status) bool { return len(st.Addrs) > 0 }).Addrs
}

func (o *procs) site(name string) *proc {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.sites[name]
}

// untilWithin is how long anything may take that is waited for, on a host that has
// other things to do.
const untilWithin = 2 * time.Minute

// until waits for something; what says what. The error says why not.
func (o *procs) until(what string, good func() (bool, error)) {
	o.t.Helper()
	ctx, cancel := context.WithTimeoutCause(o.ctx, untilWithin, fmt.Errorf("not within %v", untilWithin))
	defer cancel()
	for {
		ok, err := good()
		if ok {
			return
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			o.t.Fatalf("it does not come to that %s: %v", what, errors.Join(err, context.Cause(ctx)))
		}
	}
}

// status waits until a site says something good of itself.
func (o *procs) status(name string, good func(api.Status) bool) (st api.Status) {
	o.t.Helper()
	p := o.site(name)
	o.until(name+" is as it should be", func() (ok bool, err error) {
		select {
		case <-p.done:
			o.t.Fatalf("%s has ended: %s", name, o.lastWords(name))
		default:
		}
		st, err = p.client.Status(o.ctx)
		return err == nil && good(st), err
	})
	return st
}

// ends waits until a process ends by itself, and gives its exit code and last words.
func (o *procs) ends(name string) (int, string) {
	o.t.Helper()
	p := o.site(name)
	select {
	case <-p.done:
	case <-time.After(untilWithin):
		o.t.Fatalf("%s does not end: %s", name, o.lastWords(name))
	}
	return p.cmd.ProcessState.ExitCode(), o.lastWords(name)
}

// kill ends a process as a crash would.
func (o *procs) kill(name string) {
	p := o.site(name)
	_ = p.cmd.Process.Kill()
	<-p.done
}

// stop ends a process politely, and if that takes long by force.
func (o *procs) stop(name string) {
	p := o.site(name)
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		o.kill(name)
	}
}

// lastWords is the end of the log of a site.
func (o *procs) lastWords(name string) string {
	b, err := os.ReadFile(filepath.Join(o.dir, name+".log"))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-12):], "\n")
}

// disk writes a file that nothing shares, for images.
func (o *procs) disk(name string) string {
	o.t.Helper()
	path := filepath.Join(o.dir, name)
	if err := os.WriteFile(path, noise(4<<20), 0o600); err != nil {
		o.t.Fatal(err)
	}
	return path
}
